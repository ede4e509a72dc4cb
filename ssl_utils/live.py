"""Is somebody there? JupyterLab tells the kernel so by JPY_SESSION_NAME, papermill does not; SSL_HEADLESS overrules."""

import os


def live() -> bool:
    """True when a person at JupyterLab can move a widget."""
    return bool(os.environ.get("JPY_SESSION_NAME")) and os.environ.get("SSL_HEADLESS", "") in ("", "0")
