"""Lesion-wise Dice and HD95 by the rules of BraTS 2023 (Saluja et al., BraTS-2023-Metrics, 2023).

1. The reference is dilated; the 26-connected components of the dilated mask are the lesions, each with the reference
   voxels in it. Fragments near each other are one lesion.
2. Every 26-connected component of the prediction is assigned to each lesion whose dilated mask it touches.
3. Dice and HD95 are those of a lesion and of all that is assigned to it.

| what | Dice | HD95 | counts in the mean |
|---|---|---|---|
| lesion with an assigned component | measured | measured | yes |
| lesion without one (missed) | 0 | 374 mm | yes |
| component that touches no lesion (false) | 0 | 374 mm | yes |
| lesion of at most 50 voxels | as above | as above | no; what is assigned to it is not false either |
| nothing to count, such as both masks empty | 1 | 0 mm | - |

The rules are in voxels of 1 mm. On a coarser grid three iterations reach further.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from scipy import ndimage

from ssl_utils.errors import CourseError
from ssl_utils.segmentation.metrics import common_box, dice, hd95

TOUCHING = ndimage.generate_binary_structure(3, 3)  # 26 neighbours
GROWTH = ndimage.generate_binary_structure(3, 2)  # 18 neighbours
DILATIONS = 3  # of glioma; BraTS takes 1 for meningioma
SMALLEST = 50  # voxels; a lesion must have more
WORST_MM = 374.0  # about the diagonal of 240 x 240 x 155 mm


def lesions(
    prediction: np.ndarray, reference: np.ndarray, *, spacing: Sequence[float], dilations: int = DILATIONS
) -> pd.DataFrame:
    """A row per lesion, and per false component: kind (found, missed or false), voxels, dice, hd95 (mm), counts.

    Args:
        prediction, reference: boolean masks (D, H, W) of one region.
        spacing: mm along the three axes.
        dilations: iterations of the dilation by 18 neighbours.

    Raises:
        CourseError: masks of different shapes.
    """
    if prediction.shape != reference.shape:
        raise CourseError(f"prediction {prediction.shape}, reference {reference.shape}: compare masks of one shape")
    rows, assigned = [], []
    if (either := prediction | reference).any():
        box = common_box(either, margin=dilations)
        prediction, reference = prediction[box], reference[box]
    boxes_of_lesions, lesion_of = _lesion_map(reference, dilations)
    components, number = ndimage.label(prediction, TOUCHING)
    boxes = ndimage.find_objects(components)
    pairs = _pairs(lesion_of, components)
    for lesion, bounds in enumerate(boxes_of_lesions, 1):
        touching = pairs[pairs[:, 0] == lesion, 1]
        assigned += touching.tolist()
        whole = _around([bounds, *(boxes[k - 1] for k in touching)])
        true = (lesion_of[whole] == lesion) & reference[whole]
        rows.append(_row(true, np.isin(components[whole], touching), spacing))
    sizes = np.bincount(components.ravel(), minlength=number + 1)
    false = sorted({*range(1, number + 1)} - {*assigned})
    rows += [{"kind": "false", "voxels": int(sizes[k]), "dice": 0.0, "hd95": WORST_MM, "counts": True} for k in false]
    return pd.DataFrame(rows, columns=["kind", "voxels", "dice", "hd95", "counts"])


def score(rows: pd.DataFrame) -> dict[str, float]:
    """Lesion-wise dice and hd95 (mm) of one region from its `lesions`; 1 and 0 where nothing counts."""
    counted = rows[rows["counts"].astype(bool)]
    if counted.empty:
        return {"dice": 1.0, "hd95": 0.0}
    return {"dice": float(counted["dice"].mean()), "hd95": float(counted["hd95"].mean())}


def evaluate_case(
    prediction: Mapping[str, np.ndarray],
    reference: Mapping[str, np.ndarray],
    *,
    spacing: Sequence[float],
    dilations: int = DILATIONS,
) -> list[dict]:
    """One row per region: class, lesion-wise dice and hd95 (mm), and the numbers of lesions found, missed and false;
    lesions that do not count are left out."""
    rows = []
    for name, mask in reference.items():
        table = lesions(prediction[name], mask, spacing=spacing, dilations=dilations)
        numbers = table.loc[table["counts"].astype(bool), "kind"].value_counts()
        rows.append(
            {
                "class": name,
                **score(table),
                **{kind: int(numbers.get(kind, 0)) for kind in ("found", "missed", "false")},
            }
        )
    return rows


def _lesion_map(reference: np.ndarray, dilations: int) -> tuple[list[tuple[slice, ...]], np.ndarray]:
    """The box of each lesion, and the number of the lesion at every voxel of the dilated reference, 0 elsewhere."""
    grown = reference.copy()
    for bounds in ndimage.find_objects(ndimage.label(reference, TOUCHING)[0]):  # not in the whole head
        wide = tuple(slice(max(s.start - dilations, 0), s.stop + dilations) for s in bounds)
        grown[wide] |= ndimage.binary_dilation(reference[wide], GROWTH, iterations=dilations)
    lesion_of, _ = ndimage.label(grown, TOUCHING)
    return ndimage.find_objects(lesion_of), lesion_of


def _pairs(lesion_of: np.ndarray, components: np.ndarray) -> np.ndarray:
    """(P, 2): lesion and predicted component that touch each other."""
    both = (lesion_of > 0) & (components > 0)
    base = int(components.max()) + 1
    return np.stack(np.divmod(np.unique(lesion_of[both].astype(np.int64) * base + components[both]), base), 1)


def _around(boxes: Sequence[tuple[slice, ...]]) -> tuple[slice, ...]:
    return tuple(slice(min(s.start for s in axis), max(s.stop for s in axis)) for axis in zip(*boxes, strict=True))


def _row(true: np.ndarray, predicted: np.ndarray, spacing: Sequence[float]) -> dict:
    voxels = int(true.sum())
    counts = voxels > SMALLEST
    if not predicted.any():
        return {"kind": "missed", "voxels": voxels, "dice": 0.0, "hd95": WORST_MM, "counts": counts}
    distance = hd95(predicted, true, spacing) if counts else float("nan")
    return {"kind": "found", "voxels": voxels, "dice": dice(predicted, true), "hd95": distance, "counts": counts}
