"""k-means over the voxels of a pool, and the cluster of every voxel of a volume by learnt features."""

import warnings
from collections.abc import Sequence

import numpy as np
import torch
from sklearn.cluster import KMeans, MiniBatchKMeans
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import adjusted_rand_score, homogeneity_score, normalized_mutual_info_score
from threadpoolctl import threadpool_limits
from torch import Tensor

from ssl_utils.data.cache import Prepared
from ssl_utils.errors import CourseError
from ssl_utils.pretext.slice_features import SliceFeatures, WindowFeatures, at_voxels
from ssl_utils.training.devices import device

ITERATIONS = 30  # Lloyd iterations; in our trials k-means had converged after 20
POINTS = 100_000  # voxels of the pool that k-means of learnt features is fitted to
SLICES = 8  # of a volume that these voxels are from
CHUNK = 4  # slices that are up-sampled at once
Learnt = SliceFeatures | WindowFeatures


def nearest(points: Tensor, centres: Tensor) -> Tensor:
    """Index of the nearest centre (N,) of every point: (N, F), (K, F)."""
    parts = points.split(65_536)  # all N x K distances at once can be a gigabyte
    return torch.cat([torch.cdist(part, centres).argmin(1) for part in parts])


def kmeans(points: Tensor, clusters: int, *, iterations: int = ITERATIONS, generator: torch.Generator) -> Tensor:
    """Centres (K, F) of points (N, F) after at most `iterations` >= 1 Lloyd iterations, from K random points.

    Raises:
        CourseError: fewer points than clusters.
    """
    _check(points, clusters)
    centres = points[torch.randperm(len(points), generator=generator)[:clusters]]
    return _fitted(KMeans(clusters, init=centres.numpy(), n_init=1, max_iter=iterations, tol=0), points)


def minibatch_kmeans(points: Tensor, clusters: int, *, seed: int) -> Tensor:
    """Centres (K, F) of many points (N, F) with many features, from random batches of them (Sculley 2010).

    Raises:
        CourseError: fewer points than clusters.
    """
    _check(points, clusters)
    return _fitted(MiniBatchKMeans(clusters, batch_size=4096, n_init=3, random_state=seed % 2**32), points)


def _check(points: Tensor, clusters: int) -> None:
    if len(points) < clusters:
        raise CourseError(f"clusters={clusters}: there are only {len(points)} points; choose fewer clusters")


def _fitted(clustering: KMeans | MiniBatchKMeans, points: Tensor) -> Tensor:
    with threadpool_limits(1), warnings.catch_warnings(action="ignore", category=ConvergenceWarning):
        clustering.fit(points.numpy())  # sums of several threads are rounded differently each time
    return torch.from_numpy(clustering.cluster_centers_)


def volume_of(case: Prepared) -> Tensor:
    """The whole standardised volume (C, D, H, W), on the device of trainings."""
    return torch.from_numpy(case.standardised(np.asarray(case.image))).to(device())


@torch.no_grad()
def fit(features: Learnt, pool: Sequence[Prepared], clusters: int, *, upsampling: str, seed: int) -> Tensor:
    """Centres (K, C + F) by the learnt features of some voxels of every volume of the pool. The first C columns are the
    mean intensities of a cluster, which have no part in the clustering.

    Raises:
        CourseError: a single volume, fewer points than clusters, or features that are NaN.
    """
    if len(pool) < 2:
        raise CourseError("pool: has one volume, whose clusters need not be in any other; choose a pool of 2 or more")
    generator, rows = torch.Generator().manual_seed(seed), []
    for volume in map(volume_of, pool):
        maps, channels = features.of(features.padded(volume)), len(volume)
        slices = torch.randperm(volume.shape[-1], generator=generator)[:SLICES].sort().values.to(volume.device)
        learnt = at_voxels(maps, features.padded(volume), slices, upsampling)[:, : volume.shape[1], : volume.shape[2]]
        points = torch.cat([volume[..., slices].permute(3, 1, 2, 0), learnt], -1).flatten(0, 2).cpu()
        rows.append(points[torch.randperm(len(points), generator=generator)[: -(-POINTS // len(pool))]])
    values, points = torch.cat(rows).split([channels, features.width], 1)
    centres = minibatch_kmeans(points, clusters, seed=seed)
    members = torch.nn.functional.one_hot(nearest(points, centres), clusters).float()  # (N, K)
    return torch.cat([members.T @ values / members.sum(0).clamp(min=1)[:, None], centres], 1)


@torch.no_grad()
def cluster_map(features: Learnt, volume: Tensor, centres: Tensor, *, upsampling: str) -> Tensor:
    """The cluster (D, H, W) of every voxel of a standardised volume (C, D, H, W), by the centres of `fit`."""
    padded = features.padded(volume)
    maps, centres = features.of(padded), centres[:, len(volume) :].to(volume)
    parts = []
    for slices in torch.arange(volume.shape[3], device=volume.device).split(CHUNK):
        points = at_voxels(maps, padded, slices, upsampling)[:, : volume.shape[1], : volume.shape[2]]
        parts.append(nearest(points.flatten(0, 2), centres).view(points.shape[:3]))
    return torch.cat(parts).permute(1, 2, 0)


def agreement(clusters: Tensor, classes: Tensor) -> dict[str, float]:
    """How much clusters (N,) say about classes (N,), such as labels: homogeneity and normalised mutual information, 0
    to 1, and the adjusted Rand index, 0 by chance and 1 for the same partition."""
    scores = {"homogeneity": homogeneity_score, "NMI": normalized_mutual_info_score, "ARI": adjusted_rand_score}
    return {name: float(score(classes.numpy(), clusters.numpy())) for name, score in scores.items()}
