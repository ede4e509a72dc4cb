"""Three linked slices to move through. The volume is sent once; slices.js and explorer.js draw it in the browser.

This module imports anywidget, so it is imported only when a notebook is live.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import anywidget
import numpy as np
import traitlets as t
from matplotlib.colors import to_hex

from ssl_utils.errors import CourseError
from ssl_utils.figures.panels import WINDOWS, Window, busiest, choose_window, colour, named, volume

_HERE = Path(__file__).parent
_CT = {**WINDOWS, "brain": (0.0, 80.0)}  # HU


class SliceExplorer(anywidget.AnyWidget):
    """Axial, coronal and sagittal plane with crosshair, window, overlays and a second image.

    Args:
        image, after: (D, H, W); `after` is shown instead of `image` when its box is ticked.
        label, prediction: (D, H, W), values 0 (background) to 255; filled, and as an outline.
        spacing: mm per voxel, (x, y, z).
        names: label value -> name.
        window: (low, high), a name in WINDOWS (CT), or None for percentiles.
        words: names of `label`, `prediction` and `after` in the controls.

    Raises:
        CourseError: not one volume, shapes differ, values that are not labels, unknown window.
    """

    _esm = "".join((_HERE / name).read_text(encoding="utf-8") for name in ("element.js", "slices.js", "explorer.js"))
    _css = _HERE / "explorer.css"
    shape = t.List(t.Int()).tag(sync=True)
    spacing = t.List(t.Float()).tag(sync=True)
    image = t.Dict().tag(sync=True)  # data: uint16 bytes, low and high: the values of 0 and 65535
    after = t.Dict().tag(sync=True)  # empty: none
    label = t.Dict().tag(sync=True)  # data: uint8 bytes
    prediction = t.Dict().tag(sync=True)
    legend = t.List().tag(sync=True)  # (value, name, colour)
    presets = t.List().tag(sync=True)  # (name, low, high)
    words = t.Dict().tag(sync=True)
    position = t.List(t.Int(), minlen=3, maxlen=3).tag(sync=True)
    low = t.Float().tag(sync=True)
    high = t.Float().tag(sync=True)
    opacity = t.Float(0.35, min=0, max=1).tag(sync=True)
    layer = t.Enum(("label", "prediction", "both", "off"), "off").tag(sync=True)
    show_after = t.Bool(False).tag(sync=True)

    def __init__(
        self,
        image: Any,
        label: Any = None,
        *,
        spacing: Sequence[float] = (1, 1, 1),
        names: Mapping[int, str] | None = None,
        window: Window = None,
        prediction: Any = None,
        after: Any = None,
        words: Mapping[str, str] | None = None,
    ) -> None:
        image = volume(image)
        self._names, limits = names, choose_window(image, window)
        state = self._volumes(image, label, prediction, after)
        layers = [name for name in ("label", "prediction") if state[name]]
        centre = busiest(volume(label if label is not None else prediction) if layers else np.zeros(image.shape))
        state |= {"position": list(centre), "spacing": [float(mm) for mm in spacing]}
        state |= {"low": limits[0], "high": limits[1], "presets": _presets(image, state["image"], limits)}
        state["words"] = {name: name for name in ("label", "prediction")} | {"after": "Show the image after"}
        state["words"] |= dict(words or {})
        super().__init__(layer="both" if len(layers) == 2 else (layers or ["off"])[0], **state)

    def update(self, image: Any, label: Any = None, *, prediction: Any = None, after: Any = None) -> None:
        """Show other volumes; planes, window and layer stay as they are."""
        state = self._volumes(image, label, prediction, after)
        with self.hold_sync():
            self.set_trait("position", [min(at, n - 1) for at, n in zip(self.position, state["shape"], strict=True)])
            for name, value in state.items():
                self.set_trait(name, value)

    def _volumes(self, image: Any, label: Any, prediction: Any, after: Any) -> dict[str, Any]:
        image, labels = volume(image), []
        state = {"shape": list(image.shape), "image": _grey(image), "after": {}, "label": {}, "prediction": {}}
        for name, array in (("after", after), ("label", label), ("prediction", prediction)):
            if array is None:
                continue
            array = volume(array)
            if array.shape != image.shape:
                raise CourseError(f"{name} {array.shape} and image {image.shape} differ in shape; use one grid")
            state[name] = _grey(array) if name == "after" else _codes(array, name)
            labels += [] if name == "after" else [array]
        legend = named(labels, self._names)
        return state | {"legend": [[value, name, to_hex(colour(value))] for value, name in legend.items()]}

    @t.validate("position")
    def _inside(self, proposal: Any) -> list[int]:
        return [min(max(at, 0), n - 1) for at, n in zip(proposal["value"], self.shape, strict=True)]


def _grey(image: np.ndarray) -> dict[str, Any]:
    """65,536 steps between the extremes: finer than a screen, half the bytes of float32. NaN is drawn as the lowest."""
    image = np.asarray(image, np.float32)
    finite = image[np.isfinite(image)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)
    image = np.nan_to_num(image, nan=low, posinf=high, neginf=low)
    raw = np.zeros(image.shape, "<u2") if high == low else np.rint((image - low) * (65535 / (high - low)))
    return {"data": raw.astype("<u2").tobytes(), "low": low, "high": high}


def _codes(label: np.ndarray, name: str) -> dict[str, Any]:
    codes = label.astype(np.uint8)
    if not np.array_equal(codes, label):
        span = f"{label.min():g} to {label.max():g}"
        raise CourseError(f"{name}: values {span} are not labels; give whole numbers, 0 to 255")
    return {"data": codes.tobytes()}


def _presets(image: np.ndarray, packed: dict[str, Any], limits: tuple[float, float]) -> list[list[Any]]:
    """Windows of the menu: those of CT for values that reach from air to bone; percentiles and extremes for all."""
    low, high = packed["low"], packed["high"]
    ct = _CT if low <= -500 and high >= 200 else {}
    windows = {**ct, "0.5 to 99.5 percentiles": choose_window(image), "all values": (low, high)}
    names = {pair: name for name, pair in windows.items() if pair[1] > pair[0]}
    return [*([] if limits in names else [["as above", *limits]]), *([name, *pair] for pair, name in names.items())]
