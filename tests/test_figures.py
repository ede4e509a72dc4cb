"""Pictures: orientation, proportions, colours, faults, and one display per returned figure."""

import re
from itertools import combinations

import matplotlib
import matplotlib.pyplot as plt
import nbformat
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from nbclient import NotebookClient

from ssl_utils import figures
from ssl_utils.errors import CourseError
from ssl_utils.figures import panels

matplotlib.use("Agg")
RNG = np.random.default_rng(0)
IMAGE = RNG.random((16, 24, 8)).astype(np.float32)
LABEL = np.zeros(IMAGE.shape, np.uint8)
LABEL[2:6, 4:12, 2:5], LABEL[8:10, 14:20, 5:7] = 1, 2


def drawn(figure: Figure) -> Figure:
    assert isinstance(figure, Figure)
    assert not plt.get_fignums(), "left open in pyplot"
    figure.canvas.draw()
    width, height = figure.get_size_inches()
    assert 2 <= width <= 12.01 and 1.5 <= height <= 6.1
    return figure


def texts(figure: Figure) -> str:
    legends = [t.get_text() for legend in figure.legends for t in legend.get_texts()]
    axes = [t.get_text() for ax in figure.axes for t in (ax.title, *ax.texts)]
    return " | ".join([*legends, *axes, *(t.get_text() for t in figure.texts)])


@pytest.mark.parametrize(
    ("axis", "corner"), [(2, (-1, -1, 3)), (1, (-1, 3, -1)), (0, (3, -1, -1))], ids=["axial", "coronal", "sagittal"]
)
def test_the_upper_left_corner_is_right_anterior_superior(axis, corner):
    array = np.zeros((6, 7, 8))
    array[corner] = 1
    assert panels.plane(array, axis, 3)[0, 0] == 1


def test_letters_name_the_edges():
    axes = drawn(figures.montage(IMAGE)).axes
    letters = [[t.get_text() for t in ax.texts if len(t.get_text()) == 1] for ax in axes]
    assert letters == [list("RLAP"), list("RLSI"), list("APSI")]


def test_montage_keeps_millimetres():
    figure = drawn(figures.montage(IMAGE, LABEL, spacing=(1, 2, 5), names={1: "front", 2: "back"}, title="case"))
    size = figure.get_size_inches()
    inches = np.array([ax.get_position().size * size for ax in figure.axes])
    mm = np.array([(16, 48), (16, 40), (48, 40)])
    assert np.allclose(inches / mm, (inches / mm)[0, 0], rtol=1e-6)
    assert "front" in texts(figure) and "back" in texts(figure) and "mm" in texts(figure)


def test_montage_goes_through_the_label():
    x, y, z = panels.busiest(LABEL)
    assert LABEL[x].any() and LABEL[:, y].any() and LABEL[:, :, z].any()
    assert panels.busiest(np.zeros((4, 6, 8))) == (2, 3, 4)


def test_channel_axis_and_constant_or_broken_values():
    drawn(figures.montage(IMAGE[None], LABEL[None]))
    drawn(figures.montage(np.zeros((8, 8, 8))))
    drawn(figures.montage(np.full((8, 8, 8), np.nan)))
    drawn(figures.montage((IMAGE * 1000).astype(np.int16), window="soft tissue"))
    drawn(figures.montage(IMAGE.astype(np.float16), np.ones(IMAGE.shape, np.uint8)))


@pytest.mark.parametrize(
    "draw",
    [
        lambda: figures.montage(IMAGE[0]),
        lambda: figures.montage(np.stack([IMAGE, IMAGE])),
        lambda: figures.montage(IMAGE, LABEL[1:]),
        lambda: figures.montage(IMAGE, window="liver"),
        lambda: figures.mask_rows(IMAGE, {"unit": np.zeros((3, 3, 3), bool)}),
        lambda: figures.tokens(IMAGE, 16),
        lambda: figures.qualitative([]),
        lambda: figures.curves(pd.DataFrame({"step": [1]}), ["loss"]),
        lambda: figures.per_class(pd.DataFrame(columns=["init", "class", "dice"])),
        lambda: figures.histogram({"empty": [np.nan]}),
    ],
)
def test_faults_are_one_line(draw):
    with pytest.raises(CourseError) as fault:
        draw()
    assert "\n" not in str(fault.value)


def test_fifteen_labels_have_colours_and_the_first_fourteen_differ():
    assert len({panels.colour(value) for value in range(1, 15)}) == 14
    assert panels.colour(15) == panels.colour(1)
    assert panels.overlay(np.array([[0, 1]]), 0.5)[0, :, 3].tolist() == [0, 0.5]


SEEN = {  # linear RGB as it is seen without red, green or blue cones: Machado et al. 2009, doi:10.1109/TVCG.2009.113
    "all cones": np.eye(3),
    "no red": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "no green": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "no blue": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}
TO_XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])


def difference(one, other, seen) -> float:
    """How far apart two colours look (CIE 1976): 2.3 is just noticed side by side."""

    def lab(rgb):
        rgb = np.array(rgb)
        linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
        xyz = TO_XYZ @ np.clip(np.array(seen) @ linear, 0, 1) / TO_XYZ.sum(1)
        x, y, z = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
        return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])

    return float(np.linalg.norm(lab(one) - lab(other)))


@pytest.mark.parametrize("seen", SEEN)
def test_colours_are_told_apart_by_colour_blind_readers(seen):
    for many, least in ((7, 15), (14, 6)):  # the palette; and its tints, which a legend names, too
        pairs = combinations([panels.colour(value) for value in range(1, many + 1)], 2)
        assert min(difference(*pair, SEEN[seen]) for pair in pairs) > least
    assert difference(to_rgb("#0072B2"), to_rgb("#E69F00"), SEEN[seen]) > 50  # the two sides of a scatter


def test_red_and_green_would_fail():
    assert difference((0.8, 0.2, 0.1), (0.45, 0.45, 0.05), SEEN["no green"]) < 15


def test_a_picture_says_in_words_what_is_written_on_it(monkeypatch):
    monkeypatch.setenv("JPY_SESSION_NAME", "chapter.ipynb")
    monkeypatch.delenv("SSL_HEADLESS", raising=False)
    picture = figures.montage(IMAGE, LABEL, names={1: "front", 2: "<back>"}, title="case 1")
    (html,) = picture._repr_mimebundle_()[0].values()
    alt = re.fullmatch(r'<img alt="([^"]*)" src="data:image/png;base64,[^"]+">', html)[1]
    assert alt.startswith("Picture: case 1; axial, z = ") and alt.endswith("front; &lt;back&gt;")
    monkeypatch.setenv("SSL_HEADLESS", "1")
    data, about = picture._repr_mimebundle_()
    assert list(data) == ["image/png"] and about["image/png"]["alt"].endswith("front; <back>")


def test_rows():
    figure = drawn(figures.rows({"step 1": [IMAGE, IMAGE], "step 2": [IMAGE, IMAGE]}, titles=["a", "b"]))
    assert len(figure.axes) == 4 and "step 2" in texts(figure)
    assert len(drawn(figures.rows([("a", IMAGE), ("b", IMAGE), ("c", IMAGE)], plane="coronal")).axes) == 3


def test_corruption_and_masks():
    figure = drawn(figures.corruption_rows(IMAGE, {"first view": IMAGE * 0, "second view": IMAGE}))
    assert len(figure.axes) == 6 and "second view" in texts(figure)
    limits = [ax.images[0].get_clim() for ax in figure.axes]
    assert len(set(limits)) == 1, "views are drawn in the clean volume's window"
    mask = np.zeros((2, 3, 1), bool)
    mask[0, 0, 0] = True
    figure = drawn(figures.mask_rows(IMAGE, {"unit 8": mask}))
    assert f"{1 / 6:.0%} hidden" in texts(figure)
    shown = figure.axes[1].images[1].get_array()[..., 3]
    assert shown.mean() == pytest.approx(1 / 6) and shown[-1, -1] == 1  # token (0, 0, 0) is left, posterior, inferior


def test_reconstruction_error_is_averaged_over_the_hidden():
    mask = np.zeros(IMAGE.shape, bool)
    mask[:4] = True
    case = {"original": IMAGE, "reconstruction": IMAGE + 0.5 * mask, "mask": mask, "name": "case 1"}
    figure = drawn(figures.reconstruction_rows([case, {**case, "corrupted": IMAGE * 0}]))
    assert "L1 0.500" in texts(figure) and len(figure.axes) == 9


@pytest.mark.parametrize("number", [1, 2, 5])
def test_qualitative_ranks(number):
    cases = [
        {"image": IMAGE, "label": LABEL, "prediction": np.roll(LABEL, i, 0), "dice": 1 - i / 10, "id": f"case {i}"}
        for i in range(number)
    ]
    figure = drawn(figures.qualitative(cases[::-1], names={1: "front"}))
    assert len(figure.axes) == 4 * min(3, number) and "best: case 0" in texts(figure).replace("\n", " ")
    if number == 5:
        assert "worst: case 4" in texts(figure).replace("\n", " ") and "Dice 0.600" in texts(figure)


def test_tokens_are_numbered_as_the_encoder_numbers_them():
    figure = drawn(figures.tokens(IMAGE, 8))
    assert "2 x 3 x 1 = 6 tokens of 8 x 8 x 8 voxels" in texts(figure)
    numbers = [int(t.get_text()) for t in figure.axes[1].texts if t.get_text()]
    grid = np.arange(6).reshape(2, 3, 1)
    assert numbers == panels.plane(grid, 2, 0).ravel().tolist() == [5, 2, 4, 1, 3, 0]
    drawn(figures.tokens(np.zeros((20, 20, 20)), (4, 8, 8), plane="sagittal"))


def test_charts():
    history = pd.DataFrame({"step": range(100), "loss": RNG.random(100), "val": [np.nan] * 99 + [0.5]})
    figure = drawn(figures.curves(history, ["loss", "val"], baselines={"the mean": 0.21}))
    assert "the mean (0.210)" in texts(figure)
    table = pd.DataFrame(
        {"init": ["random", "simmim"] * 2, "num_labeled": [6, 6, 12, 12], "dice": [0.5, 0.6, 0.7, 0.8]}
    )
    drawn(figures.dice_against_labels(table.assign(low=[0.4, 0.5, 0.6, np.nan], high=[0.6, 0.7, 0.8, np.nan], cases=9)))
    classes = [f"organ_{i}" for i in range(13)]
    drawn(
        figures.per_class(pd.DataFrame([(i, c, 0.5) for i in "ab" for c in classes], columns=["init", "class", "dice"]))
    )
    assert "clipped" in texts(drawn(figures.histogram({"a": IMAGE, "b": IMAGE * 2}, window=(0, 1))))


def test_a_histogram_has_as_many_bins_as_asked_for():
    (curve,) = figures.histogram({"a": IMAGE}, bins=7).axes[0].patches
    assert len(curve.get_data().values) == 7


def test_paired_cases_have_one_line_of_equality():
    table = pd.DataFrame({"init": ["simmim"] * 3, "dice": [0.5, 0.6, 0.9], "dice_baseline": [0.4, 0.6, np.nan]})
    (axes,) = drawn(figures.paired_cases(table)).axes
    x, y = axes.lines[0].get_data()
    assert np.array_equal(x, y) and axes.get_xlim() == axes.get_ylim()
    drawn(figures.paired_cases(table.assign(dice=0.5, dice_baseline=0.5)))


def test_a_collapsed_run_is_a_red_cross_at_its_own_dice():
    table = pd.DataFrame({"init": "random", "num_labeled": [6, 12], "dice": [0.5, 0.7], "low": 0.4, "high": 0.8})
    runs = pd.DataFrame(
        {
            "init": "random",
            "num_labeled": [6, 6, 6, 12],
            "dice": [0.6, 0.7, 0.2, 0.7],
            "collapsed": [False, False, True, False],
        }
    )
    figure = drawn(figures.dice_against_labels(table, runs=runs))
    crosses = [line for line in figure.axes[0].lines if line.get_marker() == "x" and len(line.get_ydata())]
    assert [line.get_ydata().tolist() for line in crosses] == [[0.2]] and "collapsed run" in texts(figure)
    dots = [line.get_ydata().tolist() for line in figure.axes[0].lines if line.get_alpha() == 0.35]
    assert dots == [[0.6, 0.7]]  # a run that is alone in its group is the mean itself
    assert "collapsed" not in texts(drawn(figures.dice_against_labels(table, runs=runs.assign(collapsed=False))))


def test_gains_are_drawn_in_points_around_zero():
    table = pd.DataFrame(
        {
            "init": ["mae", "mae", "simmim"],
            "num_labeled": [6, 12, 6],
            "gain": [0.05, 0.01, -0.02],
            "low": [0.02, np.nan, -0.03],
            "high": [0.08, np.nan, 0.0],
        }
    )
    (axes,) = drawn(figures.gain_against_labels(table)).axes
    assert axes.lines[0].get_ydata() == [0, 0] and [5.0, 1.0] in [list(line.get_ydata()) for line in axes.lines]


@pytest.mark.parametrize("number", [1, 2, 13])
def test_every_structure_has_a_panel(number):
    cells = [(f"organ_{i}", init, n) for i in range(number) for init in ("random", "mae") for n in (6, 12)]
    rows = [(*cell, 0.5, 0.4, 0.6) for cell in cells]
    table = pd.DataFrame(rows, columns=["class", "init", "num_labeled", "dice", "low", "high"])
    figure = drawn(figures.structures_against_labels(table))
    assert sum(axes.get_visible() for axes in figure.axes) == number and "organ 0" in texts(figure)


def test_labels_beyond_the_random_curve_are_arrows():
    rows = [("mae", 6, 14.0, 9.0, 20.0), ("mae", 12, np.inf, 20.0, np.inf), ("simmim", 6, 0.0, 0.0, np.nan)]
    table = pd.DataFrame(rows, columns=["init", "num_labeled", "needs", "low", "high"]).assign(fewest=6, most=24)
    (axes,) = drawn(figures.labels_saved(table)).axes
    shapes = [line.get_marker() for line in axes.lines if len(line.get_ydata()) == 1]
    assert shapes == [r"$\Downarrow$", "^", r"$\Uparrow$"]  # simmim, mae, mae
    assert [t.get_text() for t in axes.get_yticklabels()] == ["<6", "6", "12", "24", ">24"]


def test_an_init_with_options_has_the_colour_of_the_one_it_varies():
    from ssl_utils.figures.look import init_styles

    styles = init_styles(["random", "simmim", "simmim__permuted=True", "random__budget=4"])
    assert styles["simmim__permuted=True"]["color"] == styles["simmim"]["color"]
    assert styles["random__budget=4"]["linestyle"] != "-" and "linestyle" not in styles["random"]
    assert len({(style["color"], style["marker"]) for style in styles.values()}) == 4


def test_an_init_looks_the_same_in_every_figure():
    from ssl_utils.figures.look import init_styles

    assert init_styles(["simmim", "random"])["simmim"] == init_styles(["simmim"])["simmim"]
    assert list(init_styles(["other", "simmim", "random"])) == ["random", "simmim", "other"]


@pytest.mark.parametrize("first", ["", "import matplotlib.pyplot\n"], ids=["alone", "with pyplot"])
def test_a_notebook_shows_a_figure_once(first):
    source = f"{first}import numpy as np\nfrom ssl_utils import figures\nfigures.montage(np.ones((8, 8, 8)))"
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source)])
    NotebookClient(notebook, timeout=60, kernel_name="python3").execute()
    pictures = [o for o in notebook.cells[0].outputs if "image/png" in o.get("data", {})]
    assert len(pictures) == 1 and len(notebook.cells[0].outputs) == 1
