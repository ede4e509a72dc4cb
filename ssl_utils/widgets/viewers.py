"""All viewers of volumes and results. A static figure always comes first.

Widgets are made, and their libraries imported, only in a live notebook (`live`).
"""

from typing import Any

from IPython.display import display

from ssl_utils.figures.slices import still
from ssl_utils.live import live
from ssl_utils.widgets.playground import Control, playground
from ssl_utils.widgets.results_explorer import results_explorer
from ssl_utils.widgets.volume3d import Sentence, volume3d

__all__ = ["Control", "Sentence", "explore", "live", "playground", "results_explorer", "volume3d"]


def explore(
    image: Any, label: Any = None, *, prediction: Any = None, after: Any = None, **look: Any
) -> Sentence | None:
    """Show three planes of the volume and, live, a SliceExplorer to move through it below them; else a sentence.

    Args:
        image, label, prediction: (D, H, W); the two overlays have values 0 (background) to 255.
        after: a second image of the same shape, such as the corrupted or the reconstructed one.
        look: spacing (mm per voxel), names (label value -> name) and window, as of `figures.montage`.

    Raises:
        CourseError: not one volume, shapes differ, unknown window.
    """
    rows = {"image" if label is None else "label": (image, label)}
    rows |= {} if prediction is None else {"prediction": (image, prediction)}
    display(still(rows | ({} if after is None else {"after": (after, None)}), **look))
    if not live():
        return Sentence("In JupyterLab (make lab) sliders, wheel and arrow keys move through these planes.")
    from ssl_utils.widgets.explorer import SliceExplorer

    display(SliceExplorer(image, label, prediction=prediction, after=after, **look))
    return None
