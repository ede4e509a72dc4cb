"""Ensembles: a weighted mean over the probabilities of several networks, with weights of its own for each region.

Probabilities are averaged, after the sigmoid or softmax: a mean of logits lets one very certain network outvote all
others, and is another ensemble. Weights are found on validation cases.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from ssl_utils.data.cache import Prepared
from ssl_utils.data.dataset import Dataset
from ssl_utils.errors import CourseError
from ssl_utils.segmentation import inference, metrics
from ssl_utils.segmentation.metrics import dice


def probabilities(
    network: nn.Module, case: Prepared, *, dataset: Dataset, roi: Sequence[int], overlap: float
) -> Tensor:
    """Probabilities of a cached case on its own grid, (K, D, H, W): of each region, or of each class. They are 0
    in voxels that its label ignores, which so count in no score."""
    logits = inference.predict_logits(network, case.standardised(case.image), roi=roi, overlap=overlap)
    probability = inference.probabilities(logits, regions=bool(dataset.regions))
    if dataset.ignore is None or case.label is None:
        return probability
    return probability * torch.from_numpy(metrics.annotated(np.asarray(case.label), dataset.ignore))


def masks(mean: Tensor, dataset: Dataset) -> dict[str, np.ndarray]:
    """Boolean mask (D, H, W) of each structure from probabilities (K, D, H, W)."""
    regions = dataset.regions is not None
    return metrics.decided_masks(inference.decide(mean - 0.5, regions=regions).numpy(), dataset)


def reference(case: Prepared, dataset: Dataset) -> dict[str, np.ndarray]:
    """Boolean mask (D, H, W) of each structure in the label of a cached case."""
    return metrics.masks(np.asarray(case.label), metrics.structures(dataset), dataset.regions)


def case_dice(mean: Tensor, case: Prepared, dataset: Dataset) -> dict[str, float]:
    """Dice of each structure of a cached case, NaN where it is in neither mask."""
    decided = masks(mean, dataset)
    return {name: dice(decided[name], mask) for name, mask in reference(case, dataset).items()}


def weighted(members: Sequence[Tensor] | Tensor, weights: np.ndarray | None = None) -> Tensor:
    """Mean over N probabilities (K, D, H, W), with weights (N, K) of each network and channel; None for equal ones.

    Raises:
        CourseError: weights of another shape, negative ones, or a channel without any.
    """
    stacked = torch.stack([*members])  # (N, K, D, H, W)
    if weights is None:
        return stacked.mean(0)
    if weights.shape != tuple(stacked.shape[:2]) or (weights < 0).any() or not weights.sum(0).all():
        wanted = f"{stacked.shape[0]} networks x {stacked.shape[1]} channels"
        raise CourseError(f"weights {np.asarray(weights).tolist()}: give {wanted}, none negative, none of only 0")
    shares = torch.from_numpy(weights / weights.sum(0)).to(stacked.dtype)
    return torch.einsum("nk,nk...->k...", shares, stacked)


def find_weights(cases: Sequence[tuple[Tensor, Tensor]], *, parts: int = 4) -> tuple[np.ndarray, int]:
    """Weights (N, K) with the highest mean Dice of each region at a threshold of .5, and how many were tried.

    Args:
        cases: validation cases, each the probabilities (N, K, D, H, W) of N networks and the masks (K, D, H, W).
        parts: the weights of a region are multiples of 1 / parts; all combinations are tried.
    """
    networks, regions = cases[0][0].shape[:2]
    candidates = np.array(list(_compositions(parts, networks))) / parts  # (M, N)
    best = np.empty((networks, regions))
    for k in range(regions):
        scores = np.stack([_dice_of_mixtures(seen[:, k], truth[k], candidates) for seen, truth in cases])  # (cases, M)
        mean = np.nansum(scores, axis=0) / np.maximum(np.isfinite(scores).sum(0), 1)
        # of equal scores, the one nearest to equal weights
        best[:, k] = candidates[np.lexsort([(candidates**2).sum(1), -mean])[0]]
    return best, regions * len(candidates)


def _compositions(total: int, places: int) -> Iterator[tuple[int, ...]]:
    """All ways to distribute `total` over so many places."""
    if places == 1:
        yield (total,)
        return
    for first in range(total + 1):
        for rest in _compositions(total - first, places - 1):
            yield (first, *rest)


def _dice_of_mixtures(seen: Tensor, truth: Tensor, candidates: np.ndarray) -> np.ndarray:
    """Dice (M,) of every mixture of N probabilities (N, D, H, W), NaN where the region is in neither mask."""
    some = (seen.amax(0) > 0.5) | truth.bool()  # a mean is above .5 only where one of them is
    decided = torch.from_numpy(candidates).float() @ seen[:, some].float() > 0.5  # (M, V)
    both = (decided & truth[some].bool()).sum(1).double()
    size = decided.sum(1).double() + truth.sum()
    return torch.where(size > 0, 2 * both / size, torch.nan).numpy()
