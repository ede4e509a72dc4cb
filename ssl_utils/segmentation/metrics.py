"""Scores per case and structure, with explicit rules for empty masks.

| reference | prediction | Dice, NSD | HD95 (mm) |
|---|---|---|---|
| has voxels | has voxels | measured | measured |
| has voxels | empty | 0 | diagonal of the volume |
| empty | has voxels | 0 | diagonal of the volume |
| empty | empty | not counted (NaN), flagged | not counted (NaN) |

Background is never a structure. Voxels that the label ignores belong to neither mask. A case's Dice is the mean over
its counted structures; a run's is the mean over cases.
"""

import warnings
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pandas as pd
import torch
from monai.metrics.utils import get_edge_surface_distance

from ssl_utils.data import volumes
from ssl_utils.data.cases import Case
from ssl_utils.data.dataset import Dataset
from ssl_utils.data.volumes import Volume


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


def evaluate(
    cases: Sequence[Case], *, dataset: Dataset, predict: Callable[[Volume], Mapping[str, np.ndarray]]
) -> pd.DataFrame:
    """One row per labelled case and structure, in the space of the label file; `predict` gives boolean masks by name.

    Raises:
        CourseError: a file cannot be read, or image and label differ in shape or position.
    """
    rows = []
    for case in cases:
        image = volumes.read_image(case.image, channels=len(dataset.channels))
        label = volumes.read_label(case.label, values=dataset.names)
        volumes.check_pair(image, label)
        truth = masks(label.array[0], structures(dataset), dataset.regions)
        predicted = counted(predict(image), label.array[0], dataset.ignore)
        scored = evaluate_case(predicted, truth, spacing=label.spacing, tolerance=dataset.tolerance)
        rows += [{"case": case.id, "patient": case.patient, **row} for row in scored]
    return pd.DataFrame(rows)


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
    distances = surface_distances(prediction, reference, spacing)
    near = sum((d <= tolerance).sum() for d in distances)
    return {**row, "nsd": float(near / sum(map(len, distances))), "hd95": _largest_95(distances)}


def hd95(prediction: np.ndarray, reference: np.ndarray, spacing: Sequence[float]) -> float:
    """95th percentile of the distances between the surfaces of two masks in mm, the larger of both directions."""
    return _largest_95(surface_distances(prediction, reference, spacing))


def _largest_95(distances: Sequence[torch.Tensor]) -> float:
    return float(max(d.quantile(0.95) for d in distances))


def surface_distances(
    prediction: np.ndarray, reference: np.ndarray, spacing: Sequence[float]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Distances in mm from every surface voxel of one mask (D, H, W), not empty, to the surface of the other; both
    directions."""
    box = common_box(prediction | reference, margin=2)
    pair = [torch.from_numpy(np.ascontiguousarray(m[box])) for m in (prediction, reference)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # MONAI 1.6 calls itself with an argument it has deprecated
        # the full mask avoids a second crop
        _, distances, _ = get_edge_surface_distance(
            *pair, spacing=list(spacing), symmetric=True, mask=torch.ones_like(pair[0])
        )
    return distances


def common_box(mask: np.ndarray, *, margin: int) -> tuple[slice, ...]:
    """The box of all voxels of a mask, which is not empty, and `margin` voxels around it, cut at the faces."""
    spans = [np.flatnonzero(mask.any(tuple(a for a in range(3) if a != axis))) for axis in range(3)]
    return tuple(slice(max(int(s[0]) - margin, 0), int(s[-1]) + 1 + margin) for s in spans)


def structures(dataset: Dataset) -> dict[int, str]:
    """Label value -> name, without background, in ascending order."""
    return {value: dataset.labels[value] for value in sorted(dataset.labels) if value != 0}


def masks(labels: np.ndarray, classes: Mapping[int, str], regions: Mapping[str, Sequence[int]] | None) -> dict:
    """Boolean mask per structure from a label map of *values* (D, H, W); regions are unions of values."""
    if regions:
        return {name: np.isin(labels, values) for name, values in regions.items()}
    return {name: labels == value for value, name in classes.items()}


def annotated(labels: np.ndarray, ignore: int | None) -> np.ndarray:
    """The voxels of a label map that count: all whose value is not `ignore`."""
    return np.broadcast_to(True, labels.shape) if ignore is None else labels != ignore


def counted(prediction: Mapping[str, np.ndarray], labels: np.ndarray, ignore: int | None) -> Mapping[str, np.ndarray]:
    """A prediction (boolean masks by name) without the voxels that its label ignores; no structure of the label has
    them either."""
    if ignore is None:
        return prediction
    return {name: mask & annotated(labels, ignore) for name, mask in prediction.items()}


def decided_masks(decided: np.ndarray, dataset: Dataset) -> dict[str, np.ndarray]:
    """Boolean mask per structure from class *indices* (D, H, W), or from one boolean map per region (K, D, H, W)."""
    if dataset.regions:
        return dict(zip(dataset.regions, decided, strict=True))
    return {name: decided == index for index, name in enumerate(structures(dataset).values(), 1)}


def label_map(decided: np.ndarray, regions: Mapping[str, Sequence[int]]) -> np.ndarray:
    """Label values (D, H, W) uint8 from one boolean map per region (K, D, H, W).

    A voxel gets the value of its smallest region that is in the same regions otherwise: with WT {1, 2, 4}, TC {1, 4}
    and ET {4}, in any order, 2 in WT alone, 1 in WT and TC, 4 in ET. Where no value fits, the nearest one; of several
    that fit, the lowest.
    """
    labels, inside = np.zeros(decided.shape[1:], np.uint8), decided.any(0)
    codes = sum(mask[inside].astype(np.uint64) << np.uint64(k) for k, mask in enumerate(decided))
    present, index = np.unique(codes, return_inverse=True)
    values = [_value({name for k, name in enumerate(regions) if int(code) >> k & 1}, regions) for code in present]
    labels[inside] = np.asarray(values, np.uint8)[index]
    return labels


def _value(inside: set[str], regions: Mapping[str, Sequence[int]]) -> int:
    smallest = min((regions[name] for name in regions if name in inside), key=len)
    return min(smallest, key=lambda value: (len(inside ^ regions_of(value, regions)), value))


def regions_of(value: int, regions: Mapping[str, Sequence[int]]) -> set[str]:
    return {name for name, values in regions.items() if value in values}


def written_values(labels: Mapping[int, str], regions: Mapping[str, Sequence[int]]) -> dict[int, str]:
    """For every label value, where `label_map` writes it."""
    places_of = {}
    for value in sorted(set(labels) - {0}):
        inside = regions_of(value, regions)
        instead = _value(inside, regions) if inside else 0
        same = "in " + " and ".join(name for name in regions if name in inside)
        places_of[value] = (
            same if instead == value else f"never: {same}, as {instead}" if inside else "never: in no region"
        )
    return places_of


def numbered(masks: Mapping[str, np.ndarray], regions: Mapping[str, Sequence[int]] | None = None) -> np.ndarray:
    """One map to draw (D, H, W) uint8: the number of the structure, from 1; smaller regions over larger ones."""
    sizes = {name: len(regions[name]) if regions else 1 for name in masks}
    drawn = np.zeros(next(iter(masks.values())).shape, np.uint8)
    for number, name in sorted(enumerate(masks, 1), key=lambda pair: -sizes[pair[1]]):
        drawn[masks[name]] = number
    return drawn
