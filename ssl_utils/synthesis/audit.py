"""What is wrong with synthetic volumes: copies of training cases, another distribution, too little variety.

Distances between sets by MONAI, in features of an encoder of this course. None of them tells whether the volumes are
of use; that is what a segmenter trained with them and tested on real patients tells.
"""

import warnings
from collections.abc import Callable, Mapping, Sequence
from itertools import combinations
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from monai.metrics.fid import get_fid_score
from monai.metrics.mmd import compute_mmd
from monai.metrics.regression import MultiScaleSSIMMetric
from scipy.linalg import LinAlgWarning
from torch import Tensor

from ssl_utils.errors import CourseError
from ssl_utils.networks.interface import Encoder

COPY = 0.5  # a synthetic case this much nearer to a training case than its nearest real neighbour is suspicious
DIRECTIONS = 4  # in which sets of features are compared


class Estimate(NamedTuple):
    """A value with a 95 % bootstrap interval over volumes."""

    value: float
    low: float
    high: float


@torch.no_grad()
def features(encoder: Encoder, images: Tensor) -> Tensor:
    """(N, E): the mean token of every standardised image (N, C, D, H, W)."""
    encoder.eval()
    return torch.cat([encoder(image[None])[0].mean(1) for image in images])


def memorisation(synthetic: Tensor, training: Tensor, names: Sequence[str]) -> pd.DataFrame:
    """A row per synthetic volume: its `nearest` training case, and `ratio`, its distance over the distance of that
    case to its own nearest neighbour. At 0 it is a copy; near 1 it is as new as another patient.

    Args:
        synthetic, training: (N, F) and (M, F), of voxels or features; M at least 2.
        names: of the training cases.

    Raises:
        CourseError: no synthetic case, fewer than two training cases, or vectors of different length.
    """
    check_sets(synthetic, training, least=1)
    distances, among = torch.cdist(synthetic, training), torch.cdist(training, training)
    among.fill_diagonal_(float("inf"))
    nearest = distances.argmin(1)
    distance, real = distances.min(1).values, among.min(1).values[nearest]
    columns = {"nearest": [names[i] for i in nearest], "distance": distance.tolist(), "real distance": real.tolist()}
    return pd.DataFrame(columns | {"ratio": (distance / real.clamp(min=1e-12)).tolist()})


def share_copied(table: pd.DataFrame) -> float:
    """The share (0..1) of synthetic volumes with a ratio below COPY."""
    return float((table["ratio"] < COPY).mean())


def distances(synthetic: Tensor, real: Tensor, *, seed: int, repeats: int = 100) -> dict[str, Estimate]:
    """FID and MMD of two sets of features (N, F) and (M, F), in the first DIRECTIONS of the real ones, whose covariance
    few volumes can estimate.

    MMD (Gretton et al. 2012) with the linear kernel of MONAI compares means alone, and is 0 on average for equal
    distributions. FID (Heusel et al. 2017) is biased upwards in small sets: compare with the FID of two sets of real
    cases of the same sizes.
    """
    check_sets(synthetic, real)
    size, rng = min(len(synthetic), len(real)), np.random.default_rng(seed)
    first, second = directions(synthetic.double(), real.double(), min(DIRECTIONS, size - 1))
    measures: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = {
        "FID": _fid,
        "MMD": lambda one, two: compute_mmd(two, one, None),
    }
    numbers = [[rng.integers(len(rows), size=size) for rows in (first, second)] for _ in range(repeats)]
    return {
        name: _estimate(
            measure(first[:size], second[:size]),
            [measure(first[i], second[j]) for i, j in numbers],
            least=0.0 if name == "FID" else -np.inf,  # the estimate of MMD may be below 0
        )
        for name, measure in measures.items()
    }


def directions(synthetic: Tensor, real: Tensor, number: int) -> tuple[Tensor, Tensor]:
    """Both sets in the first principal directions of the real one, with variance 1 of the real one in each."""
    mean = real.mean(0)
    _, scale, axes = torch.linalg.svd(real - mean, full_matrices=False)
    scale = scale[:number] / (len(real) - 1) ** 0.5
    return tuple((rows - mean) @ axes[:number].T / scale.clamp(min=1e-9) for rows in (synthetic, real))


def similarity(images: Tensor, *, seed: int, pairs: int = 40, repeats: int = 200) -> Estimate:
    """Mean MS-SSIM (Wang et al. 2003) of pairs of images (N, C, D, H, W) in 0..1. A set that is more alike than real
    patients are has lost variety. The interval is over volumes, drawn again with all their pairs but those of a volume
    with itself.

    Raises:
        CourseError: fewer than two images.
    """
    if len(images) < 2:
        raise CourseError(f"MS-SSIM: {len(images)} images make no pair; give two or more")
    rng, chosen = np.random.default_rng(seed), list(combinations(range(len(images)), 2))
    chosen = [chosen[i] for i in rng.permutation(len(chosen))[:pairs]]
    # two scales and a small kernel: the library's five scales need volumes of more than 160 voxels
    metric = MultiScaleSSIMMetric(3, kernel_size=5, weights=(0.5, 0.5), reduction="none")
    one, two = (images[[pair[side] for pair in chosen]] for side in (0, 1))
    values = metric(one, two).mean(1)
    volumes = rng.multinomial(len(images), [1 / len(images)] * len(images), size=repeats)  # how often each is there
    times = torch.from_numpy(volumes[:, chosen].prod(2)).to(values)  # that each pair is there
    times = times[times.sum(1) > 0]
    return _estimate(values.mean(), times @ values / times.sum(1))


def check_sets(synthetic: Tensor, real: Tensor, *, least: int = 2) -> None:
    """Raises CourseError when there are fewer than `least` synthetic or two real rows, or their lengths differ."""
    if len(synthetic) < least or len(real) < 2:
        needed = f"at least {least} and 2 are needed"
        raise CourseError(f"audit: {len(synthetic)} synthetic and {len(real)} real volumes; {needed}")
    if synthetic.shape[1] != real.shape[1]:
        why = f"{synthetic.shape[1]} and {real.shape[1]} numbers a volume"
        raise CourseError(f"audit: {why}; compare volumes of one grid, with features of one encoder")


def _fid(synthetic: Tensor, real: Tensor) -> Tensor:
    """FID by MONAI. A drawn set may hold few different volumes; its covariance is then singular, which is expected."""
    with warnings.catch_warnings(), np.errstate(invalid="ignore"):
        warnings.simplefilter("ignore", LinAlgWarning)
        return get_fid_score(synthetic, real)


def _estimate(value: Tensor, drawn: Sequence[Tensor] | Tensor, *, least: float = -np.inf) -> Estimate:
    """The spread of the drawn sets around the value. Their own mean is too high: they contain volumes twice. The lower
    bound is `least` or more."""
    values = np.array([float(one) for one in drawn])
    low, high = float(value) + np.percentile(values - values.mean(), [2.5, 97.5])
    return Estimate(float(value), max(float(low), least), float(high))
