"""Controls for a function that makes a volume, and a view of its result: masks, corruptions, augmentations."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np
from IPython.display import display

from ssl_utils.errors import CourseError
from ssl_utils.figures.panels import Window, volume
from ssl_utils.figures.slices import still
from ssl_utils.live import live
from ssl_utils.widgets.volume3d import Sentence

_HIDDEN = 7  # the label value whose colour is the blue of masks
_MADE = ("image", "mask", "after", "says")
Make = Callable[..., Mapping[str, Any]]


@dataclass(frozen=True)
class Control:
    """One knob: a list of `choices`, a number between `low` and `high`, or a box to tick when `start` is a bool."""

    label: str
    start: Any
    choices: Sequence[Any] = ()
    low: float | None = None
    high: float | None = None
    step: float | None = None

    def __post_init__(self) -> None:
        if self.choices and self.start not in self.choices:
            raise CourseError(f"control {self.label!r}: start={self.start!r} is none of {list(self.choices)}")
        if self.choices or isinstance(self.start, bool):
            return
        if None in (self.low, self.high):
            raise CourseError(f"control {self.label!r}: give choices, or low and high")
        if not self.low <= self.start <= self.high:
            raise CourseError(f"control {self.label!r}: start={self.start} is not in {self.low} to {self.high}")


def playground(
    make: Make,
    controls: Mapping[str, Control],
    *,
    spacing: Sequence[float] = (1, 1, 1),
    window: Window = None,
    title: str = "",
) -> Sentence | None:
    """Show the result of `make` at the start values and, live, a SliceExplorer with one widget for each of its
    arguments; otherwise a sentence.

    Args:
        make: called with a keyword for each control; returns "image" (D, H, W) and, when there is one, "mask"
            (D, H, W) of hidden voxels, "after" (D, H, W), "says" (one sentence under the picture).
        controls: keyword of `make` -> Control.
        spacing: mm per voxel, (x, y, z).
        window: (low, high), a name in WINDOWS (CT), or None for the percentiles of the first image.

    Raises:
        CourseError: `make` returns something else, or volumes that differ in shape.
    """
    made = _made(make, {name: control.start for name, control in controls.items()})
    rows = {"image": (made["image"], made["mask"])}
    rows |= {} if made["after"] is None else {"after": (made["after"], None)}
    look = {"spacing": spacing, "window": window, "names": {_HIDDEN: "hidden"}}
    display(still(rows, title=title, centre=_middle(made["image"]), **look))
    print(made["says"], end="\n" if made["says"] else "")
    if not live():
        knobs = ", ".join(control.label for control in controls.values())
        return Sentence(f"In JupyterLab (make lab) this picture has knobs: {knobs}.")
    display(_box(make, controls, made, look))
    return None


def _made(make: Make, values: Mapping[str, Any]) -> dict[str, Any]:
    made = make(**values)
    if not isinstance(made, Mapping) or "image" not in made or set(made) - set(_MADE):
        gives = list(made) if isinstance(made, Mapping) else type(made).__name__
        raise CourseError(f"playground: make gives {gives}; return a dict with image and, if any, mask, after, says")
    mask = made.get("mask")
    mask = None if mask is None else np.where(volume(mask), _HIDDEN, 0).astype(np.uint8)
    return {"image": made["image"], "mask": mask, "after": made.get("after"), "says": made.get("says", "")}


def _middle(image: Any) -> tuple[int, ...]:
    """First position of the planes; the slices with most hidden voxels would differ between masks."""
    return tuple(n // 2 for n in volume(image).shape)


def _box(make: Make, controls: Mapping[str, Control], made: Mapping[str, Any], look: dict[str, Any]) -> Any:
    """An ipywidgets box: the knobs, the planes, the sentence."""
    import ipywidgets as widgets

    from ssl_utils.widgets.explorer import SliceExplorer
    from ssl_utils.widgets.inputs import Knobs

    words = {"label": "hidden voxels", "after": "Show what comes out"}
    planes = SliceExplorer(made["image"], made["mask"], after=made["after"], words=words, **look)
    planes.show_after, planes.position = made["after"] is not None, list(_middle(made["image"]))
    caption = widgets.HTML(escape(made["says"]))

    def change(values: Mapping[str, Any]) -> None:
        try:
            made = _made(make, values)
            planes.update(made["image"], made["mask"], after=made["after"])
        except CourseError as error:  # these values do not go together
            caption.value = f"<b>{escape(str(error))}</b>"
        else:
            caption.value = escape(made["says"])

    return widgets.VBox([Knobs(controls, change), planes, caption])
