"""Looking into a volume by hand: the one door to the viewers. A static picture always comes first.

Widgets are made, and their libraries imported, only where someone can move them (`live`).
"""

from collections.abc import Mapping, Sequence
from typing import Any

from IPython.display import display

from ssl_utils.figures.slices import still
from ssl_utils.live import live
from ssl_utils.widgets.playground import Control, playground
from ssl_utils.widgets.results_explorer import results_explorer
from ssl_utils.widgets.volume3d import Sentence, volume3d

__all__ = ["Control", "Sentence", "explore", "live", "playground", "results_explorer", "volume3d"]


def explore(
    image: Any,
    label: Any = None,
    *,
    spacing: Sequence[float] = (1, 1, 1),
    names: Mapping[int, str] | None = None,
    window: tuple[float, float] | str | None = None,
    prediction: Any = None,
    after: Any = None,
) -> Sentence | None:
    """Show three planes of the volume and, live, a SliceExplorer to move through it below them; else a sentence.

    Args:
        image, label, prediction: (D, H, W); the two overlays have values 0 (background) to 255.
        spacing: mm per voxel, (x, y, z).
        names: label value -> name.
        window: (low, high), a name in WINDOWS (CT), or None for percentiles.
        after: a second image of the same shape, such as the corrupted or the reconstructed one.

    Raises:
        CourseError: not one volume, shapes differ, unknown window.
    """
    shown = {"image" if label is None else "label": (image, label)}
    if prediction is not None:
        shown["prediction"] = (image, prediction)
    if after is not None:
        shown["after"] = (after, None)
    display(still(shown, spacing=spacing, names=names, window=window))
    if not live():
        return Sentence("In JupyterLab (make lab) sliders, wheel and arrow keys move through these planes.")
    from ssl_utils.widgets.explorer import SliceExplorer

    display(
        SliceExplorer(image, label, spacing=spacing, names=names, window=window, prediction=prediction, after=after)
    )
    return None
