"""Viewers: nothing but a picture when nobody is there, working sliders when somebody is."""

import subprocess
import sys

import nbformat
import numpy as np
import pytest
from nbclient import NotebookClient

from ssl_utils.errors import CourseError
from ssl_utils.reporting import viewers

IMAGE = np.arange(8 * 10 * 12, dtype=np.float32).reshape(8, 10, 12)
LABEL = np.zeros(IMAGE.shape, np.uint8)
LABEL[2:5, 3:6, 4:7] = 1
LABEL[5:7, 3:6, 4:7] = 3


@pytest.fixture
def jupyterlab(monkeypatch):
    monkeypatch.setenv("JPY_SESSION_NAME", "chapter.ipynb")
    monkeypatch.delenv("SSL_HEADLESS", raising=False)


@pytest.fixture
def headless(monkeypatch):
    monkeypatch.delenv("JPY_SESSION_NAME", raising=False)


def test_live_needs_jupyterlab_and_no_override(jupyterlab, monkeypatch):
    assert viewers.live()
    monkeypatch.setenv("SSL_HEADLESS", "1")
    assert not viewers.live()


@pytest.mark.parametrize("viewer", ["niivue", "itk"])
def test_headless_is_a_sentence(headless, viewer):
    answer = viewers.volume3d(IMAGE, LABEL, viewer=viewer)
    assert isinstance(answer, str) and answer.endswith(".") and repr(answer) == str(answer)


def test_unknown_viewer(headless):
    with pytest.raises(CourseError, match="viewer='vtk'"):
        viewers.volume3d(IMAGE, viewer="vtk")


def test_importing_the_module_imports_no_viewer():
    code = (
        "import sys, ssl_utils.reporting.viewers; print({'itkwidgets', 'ipyniivue', 'ipywidgets'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "set()"


def test_headless_notebook_shows_one_picture():
    source = (
        "import os; os.environ['SSL_HEADLESS'] = '1'\nimport numpy as np\nfrom ssl_utils.reporting import viewers\n"
        "viewers.explore(np.ones((8, 8, 8)))"
    )
    cells = [nbformat.v4.new_code_cell(source), nbformat.v4.new_code_cell("viewers.volume3d(np.ones((8, 8, 8)))")]
    notebook = nbformat.v4.new_notebook(cells=cells)
    NotebookClient(notebook, timeout=60, kernel_name="python3").execute()
    picture, sentence = (cell.outputs for cell in notebook.cells)
    assert len(picture) == 1 and "image/png" in picture[0]["data"]
    assert len(sentence) == 1 and sentence[0]["data"]["text/plain"].startswith("The 3D viewer opens")
    assert "widgets" not in notebook.metadata


def controls(box):
    found = {}
    for widget in [box, *getattr(box, "children", ())]:
        if widget is not box:
            found |= controls(widget)
    if getattr(box, "description", ""):
        found[box.description] = box
    return found


def test_every_slider_is_labelled_and_changes_the_picture():
    box = viewers.slice_explorer(IMAGE, LABEL, spacing=(1, 1, 2))
    sliders, screen = controls(box), box.children[-1]
    assert list(sliders) == ["axial (z)", "coronal (y)", "sagittal (x)", "window", "label opacity"]
    moves = {"axial (z)": 0, "coronal (y)": 0, "sagittal (x)": 0, "window": (0.0, 300.0), "label opacity": 1.0}
    for name, value in moves.items():
        before = screen.value
        sliders[name].value = value
        if name == "label opacity":  # the label is not on the outermost slices
            assert screen.value == before
            sliders["axial (z)"].value = 5
        assert screen.value != before and bytes(screen.value).startswith(b"\x89PNG"), name


def test_explorer_without_label_has_no_opacity():
    assert list(controls(viewers.slice_explorer(IMAGE)))[-1] == "window"


def test_explore_live_shows_the_picture_first(jupyterlab, monkeypatch):
    shown = []
    monkeypatch.setattr(viewers, "display", shown.append)
    viewers.explore(IMAGE, LABEL)
    assert [type(item).__name__ for item in shown] == ["Picture", "VBox"]


def test_niivue_live(jupyterlab):
    viewer = viewers.volume3d(IMAGE, LABEL, spacing=(1, 1, 2))
    assert type(viewer).__name__ == "NiiVue" and len(viewer.volumes) == 2
    lut = viewer.volumes[1].colormap_label
    assert list(lut.lut[:4]) == [0, 0, 0, 0] and list(lut.lut[4:8])[3] == 255


def test_itk_falls_back_with_a_reason(jupyterlab, monkeypatch, capsys):
    monkeypatch.setattr(viewers, "find_spec", lambda name: None)
    assert type(viewers.volume3d(IMAGE, viewer="itk")).__name__ == "NiiVue"
    assert "not installed" in capsys.readouterr().out

    def refuse(*args, **kwargs):
        raise OSError("no network")

    monkeypatch.setattr(viewers, "find_spec", lambda name: True)
    monkeypatch.setattr(viewers.urllib.request, "urlopen", refuse)
    viewers.volume3d(IMAGE, viewer="itk")
    assert "does not answer" in capsys.readouterr().out
