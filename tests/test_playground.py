"""The playground: what `make` is called with, what is shown, and in which order."""

import numpy as np
import pytest

from ssl_utils.errors import CourseError
from ssl_utils.widgets import playground as module, viewers
from ssl_utils.widgets.viewers import Control

IMAGE = np.linspace(0, 1, 8 * 10 * 12).reshape(8, 10, 12)
CONTROLS = {
    "ratio": Control("mask ratio", 0.5, low=0.0, high=1.0, step=0.1),
    "unit": Control("mask unit", 2, choices=[1, 2, 4]),
    "count": Control("how many", 3, low=1, high=9),
    "smooth": Control("smooth", False),
}


@pytest.fixture
def shown(monkeypatch):
    monkeypatch.setenv("JPY_SESSION_NAME", "chapter.ipynb")
    monkeypatch.delenv("SSL_HEADLESS", raising=False)
    found = []
    monkeypatch.setattr(module, "display", found.append)
    return found


class Maker:
    """Hides the voxels below `ratio`, and remembers what it was called with."""

    def __init__(self):
        self.calls = []

    def __call__(self, **values):
        self.calls.append(values)
        if values["unit"] == 4:
            raise CourseError("unit=4: does not divide the volume <8>; choose 1 or 2")
        mask = values["ratio"] > IMAGE
        return {"image": IMAGE, "mask": mask, "after": np.where(mask, 0, IMAGE), "caption": f"{mask.mean():.0%} < all"}


def opened(shown, make, controls=CONTROLS):
    viewers.playground(make, controls, window=(0, 1))
    return shown[-1].children


def turn(knobs, **values):
    """As the page does: a choice comes as its place in the list."""
    places = {name: CONTROLS[name].choices.index(v) if CONTROLS[name].choices else v for name, v in values.items()}
    knobs.values = {**knobs.values, **places}


def sent(planes, name, kind):
    return np.frombuffer(getattr(planes, name)["data"], kind).reshape(planes.shape)


def test_headless_is_one_picture_and_the_sentence(shown, monkeypatch, capsys):
    monkeypatch.setenv("SSL_HEADLESS", "1")
    make = Maker()
    viewers.playground(make, CONTROLS, title="Hide")
    assert make.calls == [{"ratio": 0.5, "unit": 2, "count": 3, "smooth": False}]
    (figure,) = shown
    assert [text.get_text() for text in figure.texts] == ["Hide", "image", "after"]
    assert capsys.readouterr().out == "50% < all\n"


def test_the_picture_comes_first_and_make_is_called_once(shown):
    make = Maker()
    opened(shown, make)
    assert [type(item).__name__ for item in shown] == ["Picture", "VBox"]
    assert len(make.calls) == 1


def test_every_control_is_a_labelled_widget_of_its_kind(shown):
    knobs, _, _ = opened(shown, Maker())
    assert [(knob["name"], knob["label"], knob["kind"]) for knob in knobs.knobs] == [
        ("ratio", "mask ratio", "range"),
        ("unit", "mask unit", "choice"),
        ("count", "how many", "range"),
        ("smooth", "smooth", "box"),
    ]
    ratio, unit, count, _ = knobs.knobs
    assert (ratio["low"], ratio["high"], ratio["step"]) == (0, 1, 0.1) and count["step"] == 1
    assert unit["choices"] == [str(choice) for choice in CONTROLS["unit"].choices]
    assert knobs.chosen() == {name: control.start for name, control in CONTROLS.items()}


def test_a_change_calls_make_and_sends_what_it_gives(shown):
    make = Maker()
    knobs, planes, caption = opened(shown, make)
    assert planes.show_after and caption.value == "50% &lt; all" and planes.position == [4, 5, 6]
    turn(knobs, ratio=0.2)
    assert make.calls[-1] == {"ratio": 0.2, "unit": 2, "count": 3, "smooth": False}
    np.testing.assert_array_equal(sent(planes, "label", np.uint8) > 0, IMAGE < 0.2)
    np.testing.assert_allclose(sent(planes, "after", "<u2") / 65535, np.where(IMAGE < 0.2, 0, IMAGE), atol=1e-4)
    assert caption.value == "20% &lt; all"
    assert [entry[1:] for entry in planes.legend] == [["hidden", "#0072b2"]]
    turn(knobs, smooth=True)
    assert make.calls[-1]["smooth"] is True


def test_values_that_do_not_go_together_are_told_and_the_picture_stays(shown):
    knobs, planes, caption = opened(shown, Maker())
    before = planes.after
    turn(knobs, unit=4)
    assert "does not divide the volume &lt;8&gt;" in caption.value and planes.after == before
    turn(knobs, unit=1)
    assert caption.value == "50% &lt; all"


def test_image_alone_is_enough(shown):
    _, planes, caption = opened(
        shown, lambda r: {"image": IMAGE + r}, {"r": Control("brighter", 0.0, low=0.0, high=1.0)}
    )
    assert planes.layer == "off" and not planes.show_after and caption.value == ""


@pytest.mark.parametrize(
    "made, fault",
    [
        (IMAGE, "make gives ndarray"),
        ({"mask": IMAGE > 0}, r"make gives \['mask'\]"),
        ({"image": IMAGE, "masks": IMAGE > 0}, r"'masks'\]; return a dict"),
        ({"image": IMAGE, "mask": IMAGE[:4] > 0}, "differ in shape"),
        ({"image": IMAGE[0]}, "not one volume"),
    ],
)
def test_what_make_gives_is_checked(shown, made, fault):
    with pytest.raises(CourseError, match=fault) as raised:
        viewers.playground(lambda: made, {})
    assert "\n" not in str(raised.value) and not shown


@pytest.mark.parametrize(
    "more, fault",
    [
        ({"start": 3, "choices": [1, 2]}, r"start=3 is none of \[1, 2\]"),
        ({"start": 3}, "give choices, or low and high"),
        ({"start": 3, "low": 0, "high": 2}, "start=3 is not in 0 to 2"),
    ],
)
def test_a_control_that_cannot_work(more, fault):
    with pytest.raises(CourseError, match=f"control 'unit': {fault}"):
        Control("unit", **more)
