"""Scores per case and structure, with the rules for empty masks written down.

| reference | prediction | Dice, NSD | HD95 (mm) |
|---|---|---|---|
| has voxels | has voxels | measured | measured |
| has voxels | empty | 0 | diagonal of the volume |
| empty | has voxels | 0 | diagonal of the volume |
| empty | empty | not counted (NaN), flagged | not counted (NaN) |

Background is never a structure. A case's Dice is the mean over its counted structures; a run's is the mean over cases.
"""

import warnings
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from monai.metrics.utils import get_edge_surface_distance


def dice(prediction: np.ndarray, reference: np.ndarray) -> float:
    """2 |A and B| / (|A| + |B|) of two boolean masks, NaN when both are empty."""
    size = int(prediction.sum()) + int(reference.sum())
    return float("nan") if size == 0 else 2 * int((prediction & reference).sum()) / size


def evaluate_case(
    prediction: Mapping[str, np.ndarray],
    reference: Mapping[str, np.ndarray],
    *,
    spacing: Sequence[float],
    tolerance: float,
) -> list[dict]:
    """One row per structure from boolean masks (D, H, W): Dice, NSD at `tolerance` mm, HD95 in mm, volumes in ml."""
    return [
        {"class": name, **_structure(prediction[name], mask, spacing, tolerance)} for name, mask in reference.items()
    ]


def _structure(prediction: np.ndarray, reference: np.ndarray, spacing: Sequence[float], tolerance: float) -> dict:
    millilitres = float(np.prod(spacing)) / 1000
    row = {
        "dice": dice(prediction, reference),
        "volume_ml": float(prediction.sum()) * millilitres,
        "reference_ml": float(reference.sum()) * millilitres,
        "reference_empty": not reference.any(),
        "prediction_empty": not prediction.any(),
    }
    if row["reference_empty"] and row["prediction_empty"]:
        return {**row, "nsd": float("nan"), "hd95": float("nan")}
    if row["reference_empty"] or row["prediction_empty"]:
        diagonal = float(np.linalg.norm(np.multiply(reference.shape, spacing)))
        return {**row, "nsd": 0.0, "hd95": diagonal}
    box = _common_box(prediction | reference)
    pair = [torch.from_numpy(np.ascontiguousarray(m[box])) for m in (prediction, reference)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # MONAI 1.6 calls itself with an argument it has deprecated
        # mm, of every surface voxel of the one to the other's surface; once for both scores. A mask of everything keeps
        # MONAI from cropping once more what is cropped already.
        _, (there, back), _ = get_edge_surface_distance(
            *pair, spacing=list(spacing), symmetric=True, mask=torch.ones_like(pair[0])
        )
    near = (there <= tolerance).sum() + (back <= tolerance).sum()
    nsd, hd95 = near / (len(there) + len(back)), max(d.quantile(0.95) for d in (there, back))
    return {**row, "nsd": float(nsd), "hd95": float(hd95)}


def _common_box(mask: np.ndarray, margin: int = 2) -> tuple[slice, ...]:
    spans = [np.flatnonzero(mask.any(tuple(a for a in range(3) if a != axis))) for axis in range(3)]
    return tuple(slice(max(int(s[0]) - margin, 0), int(s[-1]) + 1 + margin) for s in spans)


def masks(labels: np.ndarray, classes: Mapping[int, str], regions: Mapping[str, Sequence[int]] | None) -> dict:
    """Boolean mask per structure from a label map of *values* (D, H, W); regions are unions of values."""
    if regions:
        return {name: np.isin(labels, values) for name, values in regions.items()}
    return {name: labels == value for value, name in classes.items()}
