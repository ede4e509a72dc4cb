"""Whether a person is present: JupyterLab sets JPY_SESSION_NAME, papermill does not; SSL_HEADLESS=1 overrules both."""

import os


def live() -> bool:
    """True when a person at JupyterLab can move a widget."""
    return bool(os.environ.get("JPY_SESSION_NAME")) and os.environ.get("SSL_HEADLESS", "") in ("", "0")
