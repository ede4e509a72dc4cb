"""Voxel clusters: k-means groups the voxels of all unlabelled volumes by intensity and position, and a network learns
to predict the cluster of every voxel, including hidden ones.

After the pixel-level clustering of RadioSSL (Gogou 2024), which clusters the features of a network trained on
photographs.
"""

import warnings
from collections.abc import Iterable
from typing import Annotated

import torch
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning
from threadpoolctl import threadpool_limits
from torch import Tensor
from torch.nn import functional as F

from ssl_utils.errors import CourseError
from ssl_utils.networks.heads import TransposedConvHead
from ssl_utils.networks.interface import Encoder
from ssl_utils.pretext.simmim import MaskRatio, MaskUnit, SimMIMTask
from ssl_utils.training.options import Option

ITERATIONS = 30  # Lloyd iterations; in our trials k-means had converged after 20
SAMPLE = 4000  # voxels of a crop that k-means is fitted to


def describe(images: Tensor, bounds: Tensor | None = None) -> Tensor:
    """Input features of k-means: a voxel's value, the mean of the 27 around it, and its position in the volume.

    Args:
        images: standardised crops (B, C, D, H, W).
        bounds: lowest and highest corner of each crop as shares of its volume, (B, 2, 3); None: the crop is the volume.
    Returns:
        (B, D, H, W, 2 C + 3), each column with a standard deviation near 1, so that value and position weigh alike.
    """
    around = F.avg_pool3d(images, 3, stride=1, padding=1, count_include_pad=False)
    if bounds is None:
        bounds = torch.tensor([[0.0] * 3, [1.0] * 3]).expand(len(images), 2, 3)
    low, high = bounds.to(images)[..., None, None, None].unbind(1)  # (B, 3, 1, 1, 1) each
    axes = [(torch.arange(n, device=images.device) + 0.5) / n for n in images.shape[2:]]
    in_crop = torch.stack(torch.meshgrid(*axes, indexing="ij"))  # (3, D, H, W), 0..1
    position = low + (high - low) * in_crop  # (B, 3, D, H, W), 0..1 of the volume
    return torch.cat([images, around, (position - 0.5) * 12**0.5], 1).movedim(1, -1)


def nearest(points: Tensor, centres: Tensor) -> Tensor:
    """Index of the nearest centre (N,) of every point: (N, F), (K, F)."""
    parts = points.split(65_536)  # all N x K distances at once can be a gigabyte
    return torch.cat([torch.cdist(part, centres).argmin(1) for part in parts])


def kmeans(points: Tensor, clusters: int, *, iterations: int = ITERATIONS, generator: torch.Generator) -> Tensor:
    """Centres (K, F) of points (N, F) after at most `iterations` >= 1 Lloyd iterations, from K random points.

    Raises:
        CourseError: fewer points than clusters.
    """
    if len(points) < clusters:
        raise CourseError(f"clusters={clusters}: there are only {len(points)} points; choose fewer clusters")
    centres = points[torch.randperm(len(points), generator=generator)[:clusters]]
    lloyd = KMeans(clusters, init=centres.numpy(), n_init=1, max_iter=iterations, tol=0)
    with threadpool_limits(1), warnings.catch_warnings(action="ignore", category=ConvergenceWarning):
        lloyd.fit(points.numpy())  # sums of several threads are rounded differently each time
    return torch.from_numpy(lloyd.cluster_centers_)


class VoxelClustersTask(SimMIMTask):
    """Predict the cluster of every voxel of a crop of which some tokens are hidden.

    By default the whole segmentation network is pretrained and transferred.

    Args:
        clusters: number of clusters.
        mask_ratio, mask_unit: as in SimMIM.

    Raises:
        CourseError: as SimMIM.
    """

    scope = "network"
    batch_share = 0.5  # a step of the whole network takes longer than two of an encoder with a light head

    def __init__(
        self,
        *,
        encoder: Encoder,
        lr: float,
        steps: int,
        seed: int = 0,
        clusters: Annotated[int, Option("number of clusters", low=2)] = 48,
        mask_ratio: MaskRatio = 0.3,
        mask_unit: MaskUnit = 1,
    ) -> None:
        super().__init__(encoder=encoder, lr=lr, steps=steps, seed=seed, mask_ratio=mask_ratio, mask_unit=mask_unit)
        self.check_options(clusters=clusters)
        self.clusters, self.out_channels = clusters, clusters
        features = 2 * encoder.config["in_channels"] + 3
        self.register_buffer("centres", torch.zeros(clusters, features))
        self.head = TransposedConvHead(
            hidden_size=encoder.hidden_size, patch_size=encoder.patch_size, out_channels=clusters
        )

    @torch.no_grad()
    def prepare(self, crops: Iterable[dict]) -> None:
        generator = torch.Generator().manual_seed(self.seed)
        sample = []
        for crop in crops:
            batch = torch.utils.data.default_collate([crop])
            points = describe(batch["image"], **self.extra(batch)).flatten(0, -2)
            sample.append(points[torch.randperm(len(points), generator=generator)[:SAMPLE]])
        self.centres.copy_(kmeans(torch.cat(sample), self.clusters, generator=generator))

    def extra(self, batch: dict) -> dict:
        return {"bounds": batch.get("bounds")}

    def cluster_of(self, images: Tensor, bounds: Tensor | None = None) -> Tensor:
        """The cluster of every voxel of clean crops: (B, C, D, H, W) -> (B, D, H, W)."""
        points = describe(images.float(), bounds)
        return nearest(points.flatten(0, -2), self.centres).view(points.shape[:-1])

    def losses(self, images: Tensor, generator: torch.Generator, bounds: Tensor | None = None) -> dict[str, Tensor]:
        mask = self.mask(images, generator)
        logits = self(images, mask).float()  # (B, K, D, H, W)
        loss = F.cross_entropy(logits, self.cluster_of(images, bounds))  # over all voxels, visible ones too
        if self.training:  # `paint` takes a fifth of a step, and only validation needs it
            return {"loss": loss}
        painted = self.paint(logits, images.shape[1])
        return {"loss": loss, "reconstruction": self.score(painted, images, self.voxel_mask(mask, images.shape[1]))}

    def paint(self, logits: Tensor, channels: int) -> Tensor:
        """The expected image (B, C, D, H, W): every voxel has the mean intensity of its cluster. It makes this task
        comparable with the others."""
        return torch.einsum("bkdhw,kc->bcdhw", logits.softmax(1), self.centres[:, :channels])

    def restored(self, images: Tensor, mask: Tensor) -> Tensor:
        return self.paint(self(images, mask).float(), images.shape[1])
