"""The overlap of predictions and references, counted once, from which every Dice convention can be computed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from ssl_utils.data import datalists, volumes
from ssl_utils.data.dataset import Dataset, Grid
from ssl_utils.data.transforms import preprocess
from ssl_utils.segmentation import inference, metrics


@dataclass(frozen=True)
class Overlap:
    """Voxels (or sums of probabilities) of each structure, background first: three arrays (1 + K,)."""

    both: np.ndarray
    predicted: np.ndarray
    reference: np.ndarray

    def dice(self) -> np.ndarray:
        """(1 + K,), NaN where a structure is in neither mask."""
        size = self.predicted + self.reference
        return np.divide(2 * self.both, size, out=np.full(size.shape, np.nan), where=size > 0)


@dataclass(frozen=True)
class Scored:
    """A predicted case on the voxels of its file, on the network's grid, and as probabilities on one crop."""

    id: str
    patient: str
    file: Overlap
    grid: Overlap
    crop: Overlap


def overlap(predicted: np.ndarray, reference: np.ndarray, known: np.ndarray | bool = True) -> Overlap:
    """Count masks, or add up probabilities, of shape (1 + K, D, H, W), background first, in the voxels `known`."""
    pairs = list(zip(predicted, reference, strict=True))
    return Overlap(
        np.array([float((p * r).sum(where=known)) for p, r in pairs]),
        np.array([float(p.sum(where=known)) for p, _ in pairs]),
        np.array([float(r.sum(where=known)) for _, r in pairs]),
    )


def with_background(structures: Mapping[str, np.ndarray]) -> np.ndarray:
    """Masks (D, H, W) of K structures -> (1 + K, D, H, W); background is every voxel without a structure."""
    return np.stack([~np.any([*structures.values()], axis=0), *structures.values()])


def measure(network: nn.Module, case: datalists.Case, *, dataset: Dataset, grid: Grid, overlap_share: float) -> Scored:
    """Predict a labelled case and count it in all three ways; `overlap_share` is that of neighbouring windows."""
    image = volumes.read_image(case.image, channels=len(dataset.channels))
    label = volumes.read_label(case.label, values=dataset.names)
    done, regions = preprocess(image, label, grid=grid, intensity=dataset.intensity), dataset.regions is not None
    mean, std = done.moments()
    logits = inference.predict_logits(network, (done.image - mean) / std, roi=grid.roi, overlap=overlap_share)
    on_file = inference.to_original(
        logits, affine=done.affine, target_affine=image.affine, target_shape=image.shape, regions=regions
    )
    on_grid = inference.decide(logits, regions=regions).numpy()
    truth, grid_truth = (
        with_background(metrics.masks(labels, metrics.structures(dataset), dataset.regions))
        for labels in (label.array[0], done.label)
    )
    known, grid_known = (metrics.annotated(labels, dataset.ignore) for labels in (label.array[0], done.label))
    soft = torch.cat([1 - logits.sigmoid().amax(0, keepdim=True), logits.sigmoid()]) if regions else logits.softmax(0)
    box = (slice(None), *centre(grid_truth.shape[1:], grid.roi))
    return Scored(
        case.id,
        case.patient,
        overlap(with_background(metrics.decided_masks(on_file, dataset)), truth, known),
        overlap(with_background(metrics.decided_masks(on_grid, dataset)), grid_truth, grid_known),
        overlap(soft.numpy()[box], grid_truth[box], grid_known[box[1:]]),
    )


def centre(shape: Sequence[int], size: Sequence[int]) -> tuple[slice, ...]:
    """The middle box of at most this size."""
    corners = [max((n - s) // 2, 0) for n, s in zip(shape, size, strict=True)]
    return tuple(slice(start, start + s) for start, s in zip(corners, size, strict=True))
