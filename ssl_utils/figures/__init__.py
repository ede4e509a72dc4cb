"""The course's pictures: every function returns a Figure and shows nothing by itself.

Arrays are (D, H, W) = x to Right, y to Anterior, z to Superior, with or without a leading channel axis of length 1;
spacing is mm per voxel in the same order. Figures are made without pyplot: nothing stays open, and a notebook shows a
returned figure exactly once.
"""

from ssl_utils.figures.against_labels import (
    dice_against_labels,
    gain_against_labels,
    labels_saved,
    structures_against_labels,
)
from ssl_utils.figures.charts import curves, histogram, learning_curves, paired_cases, per_class
from ssl_utils.figures.look import PALETTE
from ssl_utils.figures.panels import WINDOWS
from ssl_utils.figures.slices import corruption_rows, mask_rows, montage, qualitative, reconstruction_rows, rows, tokens

__all__ = ["PALETTE", "WINDOWS", "corruption_rows", "curves", "dice_against_labels", "gain_against_labels", "histogram"]
__all__ += ["labels_saved", "learning_curves", "mask_rows", "montage", "paired_cases", "per_class", "qualitative"]
__all__ += ["reconstruction_rows", "rows", "structures_against_labels", "tokens"]
