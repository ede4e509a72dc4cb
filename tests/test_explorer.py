"""What the slice explorer sends to the browser, and what it refuses. How it draws is a matter of tests/browser."""

import re
from pathlib import Path

import numpy as np
import pytest
from matplotlib.colors import to_rgb

from ssl_utils.errors import CourseError
from ssl_utils.figures import panels
from ssl_utils.widgets import explorer
from ssl_utils.widgets.explorer import SliceExplorer

RNG = np.random.default_rng(0)
IMAGE = RNG.normal(0, 300, (8, 10, 12)).astype(np.float32)
LABEL = np.zeros(IMAGE.shape, np.uint8)
LABEL[2:5, 3:6, 4:7] = 1
LABEL[5:7, 3:6, 4:7] = 9
ROOM = Path(explorer.__file__).parent


def values(packed, shape):
    """The volume as the browser reads it."""
    raw = np.frombuffer(packed["data"], "<u2").reshape(shape)
    return packed["low"] + raw / 65535 * (packed["high"] - packed["low"])


def test_the_volume_is_sent_once_and_finely_enough():
    planes = SliceExplorer(IMAGE)
    assert len(planes.image["data"]) == 2 * IMAGE.size and planes.shape == [8, 10, 12]
    step = (IMAGE.max() - IMAGE.min()) / 65535
    np.testing.assert_allclose(values(planes.image, IMAGE.shape), IMAGE, atol=0.51 * step)
    assert planes.after == planes.label == planes.prediction == {}
    assert planes.layer == "off" and planes.legend == []


def test_labels_are_sent_as_they_are_with_names_and_colours_of_the_montage():
    planes = SliceExplorer(IMAGE, LABEL, prediction=np.where(LABEL == 9, 2, LABEL), names={1: "liver", 9: "<b>vein"})
    np.testing.assert_array_equal(np.frombuffer(planes.label["data"], np.uint8).reshape(LABEL.shape), LABEL)
    assert [entry[:2] for entry in planes.legend] == [[1, "liver"], [2, "label 2"], [9, "<b>vein"]]
    for value, _, colour in planes.legend:
        np.testing.assert_allclose(to_rgb(colour), panels.colour(value), atol=1 / 255)
    assert planes.layer == "both"


def test_it_starts_on_the_busiest_slices_in_the_window_of_the_montage():
    planes = SliceExplorer(IMAGE, LABEL, window=(-50, 200), spacing=(np.float32(1), 1, 2.5))
    assert tuple(planes.position) == panels.busiest(LABEL)
    assert (planes.low, planes.high) == (-50, 200) and planes.spacing == [1.0, 1.0, 2.5]
    assert planes.presets[0] == ["as above", -50.0, 200.0]
    assert SliceExplorer(IMAGE).position == [4, 5, 6]


@pytest.mark.parametrize("low, high, ct", [(-1024, 1500, True), (0, 1, False), (0, 4000, False), (-3, 3, False)])
def test_windows_of_ct_are_offered_for_hounsfield_units_alone(low, high, ct):
    image = np.linspace(low, high, IMAGE.size).reshape(IMAGE.shape)
    names = [name for name, *_ in SliceExplorer(image).presets]
    assert ({"soft tissue", "lung", "bone", "brain"} <= set(names)) is ct
    assert names[-2:] == ["0.5 to 99.5 percentiles", "all values"]


def test_a_window_by_name_is_the_preset_of_that_name():
    image = np.linspace(-1000, 1000, IMAGE.size).reshape(IMAGE.shape)
    planes = SliceExplorer(image, window="lung")
    assert ["lung", planes.low, planes.high] in planes.presets and planes.presets[0][0] != "as above"


@pytest.mark.parametrize("image", [np.ones((4, 4, 4)), np.full((4, 4, 4), np.nan)])
def test_an_image_without_contrast_opens(image):
    planes = SliceExplorer(image)
    assert planes.high > planes.low
    assert set(planes.image["data"]) == {0}


def test_values_that_are_no_number_are_drawn_as_the_ends():
    image = IMAGE.copy()
    image[0, 0, :3] = np.nan, np.inf, -np.inf
    found = values(SliceExplorer(image).image, image.shape)
    finite = image[np.isfinite(image)]
    np.testing.assert_allclose(found[0, 0, :3], [finite.min(), finite.max(), finite.min()], rtol=1e-5)


def test_a_position_stays_inside():
    planes = SliceExplorer(IMAGE)
    planes.position = [-3, 5, 99]
    assert planes.position == [0, 5, 11]


def test_an_update_keeps_window_and_layer_and_fits_the_position():
    planes = SliceExplorer(IMAGE, LABEL)
    planes.position, planes.low, planes.layer, planes.opacity = [7, 9, 11], -10.0, "off", 0.6
    planes.update(IMAGE[:4], after=-IMAGE[:4])
    assert planes.shape == [4, 10, 12] and planes.position == [3, 9, 11]
    assert (planes.low, planes.layer, planes.opacity) == (-10.0, "off", 0.6)
    assert planes.label == {} and planes.legend == []
    np.testing.assert_allclose(values(planes.after, (4, 10, 12)), -IMAGE[:4], atol=0.05)


@pytest.mark.parametrize(
    "given, fault",
    [
        ({"label": LABEL[:-1]}, r"label \(7, 10, 12\) and image \(8, 10, 12\) differ in shape"),
        ({"prediction": LABEL[:, :-1]}, "prediction .* differ in shape"),
        ({"after": IMAGE[:4]}, "after .* differ in shape"),
        ({"label": LABEL + 0.5}, "label: values 0.5 to 9.5 are not labels"),
        ({"prediction": LABEL.astype(int) - 1}, "prediction: values -1 to 8 are not labels"),
        ({"window": "liver"}, "no such window"),
    ],
)
def test_faults_in_one_line(given, fault):
    with pytest.raises(CourseError, match=fault) as raised:
        SliceExplorer(IMAGE, **given)
    assert "\n" not in str(raised.value)


def test_not_one_volume():
    with pytest.raises(CourseError, match="not one volume"):
        SliceExplorer(np.ones((2, 8, 8, 8)))


@pytest.mark.parametrize("path", sorted(ROOM.glob("*.js")), ids=lambda path: path.name)
def test_scripts_ask_no_network_and_write_no_markup(path):
    source = path.read_text(encoding="utf-8").replace("http://www.w3.org/2000/svg", "")  # a name, not an address
    assert not re.search(r"https?:|\bfetch\(|\bimport\b|XMLHttpRequest|WebSocket|innerHTML|insertAdjacentHTML", source)
    assert len(source.splitlines()) <= 250


def test_the_scripts_of_the_explorer_are_one_module():
    assert str(SliceExplorer._esm).count("export default") == 1
    letters = re.search(r"LETTERS = \{(.*?)\}", str(SliceExplorer._esm)).group(1)
    assert {int(axis): word for axis, word in re.findall(r'(\d): "(\w+)"', letters)} == panels._LETTERS
    axes = re.search(r"PLANES = \{(.*?)\}", str(SliceExplorer._esm)).group(1)
    assert {name: int(axis) for name, axis in re.findall(r"(\w+): (\d)", axes)} == panels.PLANES
