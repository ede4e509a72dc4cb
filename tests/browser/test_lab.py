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


def test_make_lab_chooses_the_viewer():
    """itkwidgets comes from an environment of its own, and the kernels are told; the server's address has no prefix."""
    command = ["make", "--no-print-directory", "-np", "lab", "PYTHON=python"]
    for viewer, python in (("itk", ".venv-itk/bin/python"), ("", "python")):
        printed = subprocess.run([*command, f"VIEWER={viewer}"], cwd=PROJECT, capture_output=True, text=True).stdout
        (recipe,) = [line for line in printed.splitlines() if line.startswith('"') and "-m jupyterlab" in line]
        assert shlex.split(recipe)[0] == python
        assert ("--ServerApp.base_url=/" in recipe) == bool(viewer)
        assert f"lab: SSL_VIEWER := {viewer}".strip() in map(str.strip, printed.splitlines())
