"""Viewers: a static picture first, nothing more when nobody is there, working widgets when somebody is."""

import subprocess
import sys
from types import SimpleNamespace

import nbformat
import numpy as np
import pandas as pd
import pytest
from nbclient import NotebookClient

from ssl_utils.data import datasets
from ssl_utils.errors import CourseError
from ssl_utils.widgets import results_explorer, viewers, volume3d

IMAGE = np.arange(8 * 10 * 12, dtype=np.float32).reshape(8, 10, 12)
LABEL = np.zeros(IMAGE.shape, np.uint8)
LABEL[2:5, 3:6, 4:7] = 1
LABEL[5:7, 3:6, 4:7] = 3


@pytest.fixture
def jupyterlab(monkeypatch):
    monkeypatch.setenv("JPY_SESSION_NAME", "chapter.ipynb")
    monkeypatch.delenv("SSL_HEADLESS", raising=False)
    monkeypatch.delenv("SSL_VIEWER", raising=False)


@pytest.fixture
def headless(monkeypatch):
    monkeypatch.delenv("JPY_SESSION_NAME", raising=False)


@pytest.fixture
def shown(monkeypatch):
    """What a cell would display, in order."""
    found = []
    monkeypatch.setattr(viewers, "display", found.append)
    monkeypatch.setattr(results_explorer, "display", found.append)
    return found


def kinds(shown):
    return [type(item).__name__ for item in shown]


def test_live_needs_jupyterlab_and_no_override(jupyterlab, monkeypatch):
    assert viewers.live()
    monkeypatch.setenv("SSL_HEADLESS", "1")
    assert not viewers.live()


HEADLESS_CALLS = {
    "niivue": lambda: viewers.volume3d(IMAGE, LABEL),
    "itk": lambda: viewers.volume3d(IMAGE, LABEL, viewer="itk"),
    "explore": lambda: viewers.explore(IMAGE, LABEL),
    "playground": lambda: viewers.playground(lambda r: {"image": IMAGE}, {"r": viewers.Control("ratio", True)}),
    "results": lambda: viewers.results_explorer(TABLE, found),
}


@pytest.mark.parametrize("viewer", HEADLESS_CALLS)
def test_headless_is_a_sentence(headless, viewer):
    answer = HEADLESS_CALLS[viewer]()
    assert isinstance(answer, viewers.Sentence) and answer.endswith(".") and repr(answer) == str(answer)
    assert "JupyterLab (make lab)" in answer or "run in JupyterLab" in answer


def test_unknown_viewer(headless):
    with pytest.raises(CourseError, match="viewer='vtk'"):
        viewers.volume3d(IMAGE, viewer="vtk")


@pytest.mark.parametrize("viewer", ["niivue", "itk"])
def test_a_face_is_not_rendered(jupyterlab, viewer):
    assert "not drawn in 3D" in viewers.volume3d(IMAGE, LABEL, viewer=viewer, faces=True)
    assert datasets.get("headneck").faces and not datasets.get("phantom").faces


HEADLESS = """
import os, sys
os.environ["SSL_HEADLESS"] = "1"
import numpy as np
import pandas as pd
from ssl_utils.widgets import viewers
image = np.random.default_rng(0).random((8, 8, 8))
viewers.explore(image, image > 0.5, prediction=image > 0.6, after=image / 2)
viewers.playground(lambda r: {"image": image, "mask": image > r}, {"r": viewers.Control("ratio", 0.5, low=0, high=1)})
runs = [(i, c, d) for i, d in (("random", 0.4), ("simmim", 0.5)) for c in "ab"]
table = pd.DataFrame(runs, columns=["init", "case", "dice"])
table = table.assign(num_labeled=6, subset=0, seed=0, **{"class": "liver"})
viewers.results_explorer(table, None)
print({"anywidget", "itkwidgets", "ipyniivue", "ipywidgets"} & set(sys.modules))
"""


def test_headless_imports_no_widget_library():
    done = subprocess.run([sys.executable, "-c", HEADLESS], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.splitlines()[-1] == "set()"
    assert done.stdout.count("Figure(") == 3


def test_headless_notebook_shows_a_picture_and_a_sentence():
    source = (
        "import os; os.environ['SSL_HEADLESS'] = '1'\nimport numpy as np\nfrom ssl_utils.widgets import viewers\n"
        "viewers.explore(np.ones((8, 8, 8)))"
    )
    cells = [nbformat.v4.new_code_cell(source), nbformat.v4.new_code_cell("viewers.volume3d(np.ones((8, 8, 8)))")]
    notebook = nbformat.v4.new_notebook(cells=cells)
    NotebookClient(notebook, timeout=120, kernel_name="python3").execute()
    picture, sentence = (cell.outputs for cell in notebook.cells)
    assert len(picture) == 2 and "image/png" in picture[0]["data"]
    assert picture[1]["data"]["text/plain"].startswith("In JupyterLab")
    assert len(sentence) == 1 and sentence[0]["data"]["text/plain"].startswith("The 3D viewer opens")
    assert "widgets" not in notebook.metadata


def test_explore_live_shows_the_picture_first(jupyterlab, shown):
    viewers.explore(IMAGE, LABEL)
    assert kinds(shown) == ["Picture", "SliceExplorer"]


def test_the_still_has_a_row_for_the_prediction_and_one_for_the_second_image(headless, shown):
    viewers.explore(IMAGE, LABEL, prediction=LABEL, after=-IMAGE, names={1: "liver"})
    (figure,) = shown
    words = [text.get_text() for text in figure.texts]
    assert words == ["label", "prediction", "after"] and len(figure.axes) == 9
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["liver", "label 3"]
    drawn = [axes.images[0].get_array() for axes in figure.axes]
    np.testing.assert_array_equal(drawn[6], -drawn[0])


# ---- results


def case(init, dice, *, name="a", num_labeled=6, seed=0, structure="liver"):
    return {
        "init": init,
        "num_labeled": num_labeled,
        "subset": 0,
        "seed": seed,
        "case": name,
        "class": structure,
        "dice": dice,
    }


TABLE = pd.DataFrame(
    [
        case("random", 0.5),
        case("simmim", 0.7),
        case("random", 0.3, structure="spleen"),
        case("simmim", 0.1, structure="spleen"),
        case("random", 0.6, name="b"),
        case("simmim", 0.65, name="b"),
        case("random", 0.8, num_labeled=12),
        case("mae", 0.9, num_labeled=12),
    ]
)


def found(**which):
    return {"image": IMAGE, "label": LABEL, "prediction": LABEL, "spacing": (1, 1, 2)}


def opened(show=found):
    """Knobs by name, the scatter, the sentence and the box of the slices."""
    first, second, scatter, says, slices = results_explorer._box(TABLE, show, "simmim", 6, {1: "liver"}).children
    return {knob.description: knob for row in (first, second) for knob in row.children}, scatter, says, slices


def test_results_are_a_scatter_first(jupyterlab, shown):
    viewers.results_explorer(TABLE, found)
    assert kinds(shown) == ["Picture", "VBox"]
    points = shown[0].axes[0].collections[0].get_offsets().data
    assert sorted(np.round(points, 3).tolist()) == [[0.4, 0.4], [0.6, 0.65]]


def test_results_without_a_pair_are_a_sentence(jupyterlab, shown):
    said = viewers.results_explorer(TABLE[TABLE["init"] == "random"], found)
    assert not shown and "nothing to pick" in said


def test_a_picked_point_asks_for_its_case_and_shows_its_slices(jupyterlab):
    asked = []
    knobs, scatter, says, slices = opened(lambda **which: asked.append(which) or found())
    scatter.picked = 1  # points stand from the lowest baseline up
    assert asked == [{"init": "simmim", "num_labeled": 6, "subset": 0, "seed": 0, "case": "b"}]
    assert all(type(value) in (int, str) for value in asked[0].values())
    assert "Case b" in says.value and "0.600" in says.value and "0.650" in says.value
    assert kinds(slices.children) == ["SliceExplorer"] and slices.children[0].layer == "both"
    knobs["prediction of"].value = "random"
    assert asked[1]["init"] == "random" and asked[1]["case"] == "b"


def test_the_drop_downs_choose_the_points(jupyterlab):
    knobs, scatter, says, slices = opened()
    scatter.picked = 0
    knobs["structure"].value = "liver"
    assert [(point["x"], point["y"]) for point in scatter.points] == [(0.5, 0.7), (0.6, 0.65)]
    assert scatter.picked == -1 and not slices.children
    knobs["labels"].value = 12
    assert scatter.points == [] and says.value.startswith("No pair")
    knobs["init"].value = "mae"
    assert [(point["x"], point["y"]) for point in scatter.points] == [(0.8, 0.9)]
    assert list(knobs["prediction of"].options) == ["mae", "random"]


def test_a_case_without_prediction_says_so_and_nothing_is_markup(jupyterlab):
    def missing(**which):
        raise CourseError("prediction <of> case a: not kept")

    _, scatter, says, slices = opened(missing)
    scatter.picked = 0
    assert "prediction &lt;of&gt; case a: not kept" in says.value and not slices.children


# ---- three dimensions


def test_niivue_live(jupyterlab):
    viewer = viewers.volume3d(IMAGE, LABEL, spacing=(1, 1, 2))
    assert type(viewer).__name__ == "NiiVue" and len(viewer.volumes) == 2
    lut = viewer.volumes[1].colormap_label
    assert viewer.opts.slice_type.name == "RENDER" and viewer.opts.is_radiological_convention
    assert [volume.opacity for volume in viewer.volumes] == [0.35, 0.5]
    assert list(lut.lut[:4]) == [0, 0, 0, 0] and list(lut.lut[4:8])[3] == 255


def test_itk_falls_back_with_a_reason(jupyterlab, monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(volume3d, "find_spec", lambda name: None)
    assert type(viewers.volume3d(IMAGE, viewer="itk")).__name__ == "NiiVue"
    assert "it is not installed in this environment; make lab VIEWER=itk" in capsys.readouterr().out
    monkeypatch.setattr(volume3d, "find_spec", lambda name: True)
    monkeypatch.setattr(volume3d, "ITK_FOLDER", tmp_path)
    assert type(viewers.volume3d(IMAGE, viewer="itk")).__name__ == "NiiVue"
    assert "python -m course.itk_viewer fetches them" in capsys.readouterr().out


def test_one_setting_chooses_the_viewer(jupyterlab, monkeypatch, capsys):
    monkeypatch.setattr(volume3d, "_itk_missing", lambda: "of a test")
    monkeypatch.setenv("SSL_VIEWER", "itk")
    viewers.volume3d(IMAGE)
    assert "itkwidgets is not used: of a test" in capsys.readouterr().out
    viewers.volume3d(IMAGE, viewer="niivue")
    assert "itkwidgets" not in capsys.readouterr().out
    monkeypatch.setenv("SSL_VIEWER", "vtk")
    with pytest.raises(CourseError, match="viewer='vtk'"):
        viewers.volume3d(IMAGE)


def test_itk_gets_cubes_with_axes_from_feet_to_head(jupyterlab, monkeypatch):
    """itkwidgets itself needs an environment of its own; what it is given does not."""
    monkeypatch.setattr(volume3d, "_itk_missing", lambda: None)
    module = SimpleNamespace(view=lambda image, **more: (image, more), viewer=SimpleNamespace())
    monkeypatch.setitem(sys.modules, "itkwidgets", module)
    image, more = viewers.volume3d(IMAGE, LABEL, spacing=(1, 1, 2), viewer="itk")
    assert image.shape == more["label_image"].shape == (24, 10, 8) and image.flags.c_contiguous
    assert set(np.unique(more["label_image"])) == {0, 1, 3}
    np.testing.assert_allclose(image[0], IMAGE[:, :, 0].T)
    assert module.viewer.ITK_VIEWER_SRC.startswith("/lab/") and more["ui"] == "reference"
