"""What `make lab` shows: chapters link to ../figures, so JupyterLab must be opened on the folder that holds both."""

import shlex
import subprocess

from browser.server import PROJECT


def test_make_lab_reaches_the_figures():
    recipe = subprocess.run(
        ["make", "--no-print-directory", "-n", "lab", "PYTHON=python"], cwd=PROJECT, capture_output=True, text=True
    ).stdout
    folders = [word for word in shlex.split(recipe.split("-m jupyterlab")[1]) if not word.startswith("-")]
    assert not folders or (PROJECT / folders[0]).resolve() == PROJECT
