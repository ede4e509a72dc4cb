"""A command of ssl_utils, called as a user would type it."""

import sys

from ssl_utils import __main__ as cli


def command(monkeypatch, *words) -> tuple[int, str]:
    """Its exit code, and the line with which it ended."""
    monkeypatch.setattr(sys, "argv", ["ssl_utils", *map(str, words)])
    try:
        cli.main()
    except SystemExit as stop:
        return (1, stop.code) if isinstance(stop.code, str) else (stop.code or 0, "")
    return 0, ""
