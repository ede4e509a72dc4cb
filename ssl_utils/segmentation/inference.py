"""From a network on crops to a label map in the space of the original file."""

from collections.abc import Iterable, Sequence
from itertools import chain, combinations

import numpy as np
import torch
from monai.inferers import sliding_window_inference
from torch import Tensor, nn
from torch.nn import functional as F

from ssl_utils.training.devices import autocast
from ssl_utils.training.processes import keep_freed_memory

TINY = 1e-7  # a mean probability of 0 or 1 has no finite logit
AXES = {"left-right": 0, "front-back": 1, "up-down": 2}  # of a volume in RAS


@torch.inference_mode()
def predict_logits(network: nn.Module, image: np.ndarray, *, roi: Sequence[int], overlap: float) -> Tensor:
    """Gaussian-blended sliding window over a standardised image (C, D, H, W); logits (K, D, H, W) on the CPU.

    Windows are computed in the precision of training, and blended in float32.
    """
    keep_freed_memory()
    device = next(network.parameters()).device
    network.eval()
    batch = torch.from_numpy(np.ascontiguousarray(image, dtype=np.float32))[None]
    with autocast(device.type):
        logits = sliding_window_inference(
            batch,
            tuple(roi),
            sw_batch_size=4,
            predictor=network,
            overlap=overlap,
            mode="gaussian",
            sw_device=device,
            device="cpu",
        )
    return logits[0]


def predict_flipped(
    network: nn.Module, image: np.ndarray, *, roi: Sequence[int], overlap: float, axes: Sequence[str], regions: bool
) -> Tensor:
    """As `predict_logits`, of the mean of the probabilities (not of the logits, whose mean one overconfident flip
    decides) over the image and its flips along every combination of `axes` (`AXES`): 2, 4 or 8 predictions."""
    dims = [1 + AXES[axis] for axis in axes]
    every = chain.from_iterable(combinations(dims, n) for n in range(len(dims) + 1))
    views = (predict_logits(network, np.flip(image, dims), roi=roi, overlap=overlap).flip(dims) for dims in every)
    return mean_of_views(views, regions=regions)


@torch.inference_mode()
def mean_of_views(views: Iterable[Tensor], *, regions: bool) -> Tensor:
    """Logits (K, D, H, W) of the mean probabilities over several predictions (K, D, H, W) of one volume.

    Memory: two of them, as they come one after the other.
    """
    mean, count = torch.zeros(()), 0
    for logits in views:
        mean, count = probabilities(logits.float(), regions=regions).add_(mean), count + 1
    mean.div_(count).clamp_(TINY, 1 - TINY)
    return mean.logit_() if regions else mean.log_()


def probabilities(logits: Tensor, *, regions: bool) -> Tensor:
    """Logits (K, ...) -> probabilities: of each class, or for overlapping regions of each alone."""
    return logits.sigmoid() if regions else logits.softmax(0)


def decide(scores: Tensor, *, regions: bool) -> Tensor:
    """Logits (K, ...) -> class index (...) by argmax, or for overlapping regions one boolean map each (K, ...)."""
    return scores > 0 if regions else scores.max(0).indices  # argmax, 4 times as fast


def to_original(
    logits: Tensor,
    *,
    affine: np.ndarray,
    target_affine: np.ndarray,
    target_shape: Sequence[int],
    regions: bool,
    slab: int = 32,
) -> np.ndarray:
    """Resample scores (not labels) trilinearly to the voxels of the original file, then decide.

    Works in slabs of `slab` planes along the first axis to save memory. Outside the preprocessed volume (beyond the
    outer faces of its last voxels) is background. Returns uint8 (D, H, W) class indices, or bool (K, D, H, W) for
    regions.
    """
    to_index = torch.from_numpy(np.linalg.inv(affine) @ target_affine).float()
    size = torch.tensor(logits.shape[1:]).float()
    volume = probabilities(logits, regions=regions)
    along = to_index[:3, :3]
    sample = _straight if torch.allclose(along, along.diag().diag(), atol=1e-6) else _oblique
    planes = []
    for start in range(0, target_shape[0], slab):
        axes = [torch.arange(start, min(start + slab, target_shape[0]))] + [torch.arange(n) for n in target_shape[1:]]
        sampled, inside = sample(volume, [axis.float() for axis in axes], to_index, size)
        planes.append((sampled > 0.5) & inside if regions else decide(sampled, regions=False).to(torch.uint8) * inside)
    return torch.cat(planes, dim=1 if regions else 0).numpy()


def _straight(volume: Tensor, axes: list[Tensor], to_index: Tensor, size: Tensor) -> tuple[Tensor, Tensor]:
    """Sample (K, D, H, W) at (K, d, h, w) points, and which of them are inside, for grids with the same axes: a matrix
    per axis, 2 to 3 times as fast as `_oblique`."""
    inside = torch.ones(())
    for axis, numbers in enumerate(axes):
        at, n = to_index[axis, axis] * numbers + to_index[axis, 3], int(size[axis])
        within = (at > -0.501) & (at < n - 0.499)
        inside = inside * within.view(*(-1 if axis == other else 1 for other in range(3)))
        at = at.clamp(0, n - 1)
        low, row = at.long(), torch.arange(len(at))
        weights = torch.zeros(len(at), n)
        weights[row, low] = 1 - (at - low)
        weights[row, (low + 1).clamp(max=n - 1)] += at - low
        behind = volume.shape[axis + 2 :]
        volume = (weights @ volume.flatten(axis + 2)).unflatten(-1, behind) if behind else volume @ weights.T
    return volume, inside.bool()


def _oblique(volume: Tensor, axes: list[Tensor], to_index: Tensor, size: Tensor) -> tuple[Tensor, Tensor]:
    """The same for any two grids."""
    grid = torch.stack(torch.meshgrid(*axes, indexing="ij"), -1)
    index = grid @ to_index[:3, :3].T + to_index[:3, 3]
    inside = ((index > -0.501) & (index < size - 0.499)).all(-1)
    normalised = 2 * index / (size - 1).clamp(min=1) - 1
    sampled = F.grid_sample(
        volume[None], normalised.flip(-1)[None], mode="bilinear", padding_mode="border", align_corners=True
    )[0]
    return sampled, inside
