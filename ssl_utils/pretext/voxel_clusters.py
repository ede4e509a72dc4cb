"""Voxel clusters: k-means groups the voxels of all unlabelled volumes by intensity and position, or by learnt features,
and a network learns to predict the cluster of every voxel, including hidden ones.

After the pixel-level clustering of RadioSSL (Gogou 2024), which clusters the features of a network trained on
photographs.
"""

import dataclasses
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ssl_utils.data.cache import Prepared
from ssl_utils.errors import CourseError
from ssl_utils.files import atomic, exclusively, sha256
from ssl_utils.networks.heads import TransposedConvHead
from ssl_utils.networks.interface import Encoder
from ssl_utils.pretext.cluster_maps import cluster_map, fit, kmeans, nearest, volume_of
from ssl_utils.pretext.simmim import MaskRatio, MaskUnit, SimMIMTask
from ssl_utils.pretext.slice_features import STRIDE, UPSAMPLING, SliceFeatures, WindowFeatures
from ssl_utils.training.options import Option

SAMPLE = 4000  # voxels of a crop that k-means is fitted to
LEARNT = {"dino": SliceFeatures, "mae": WindowFeatures}
VERSION = 1  # of cluster maps on disk; to be raised when their computation changes
SMALLEST = 0.6  # side of the second crop of `swapped`, as a share of the first


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


class VoxelClustersTask(SimMIMTask):
    """Predict the cluster of every voxel of a crop of which some tokens are hidden.

    By default the whole segmentation network is pretrained and transferred.

    Args:
        clusters: number of clusters.
        mask_ratio, mask_unit: as in SimMIM.
        features: what voxels are clustered by: `intensity` and position, or tokens of a frozen network: a 2D ViT on
            slices (`dino`), or a 3D ViT of the course (`mae`).
        weights: of that network: a file, or for `mae` also a pretraining run of the course.
        upsampling: of its tokens to voxels.
        swapped: cluster two overlapping crops apart, and predict the clusters of one from the other, in their overlap.

    Raises:
        CourseError: as SimMIM, `weights` missing or without a use, or as the features of `slice_features`.
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
        features: Annotated[str, Option("what voxels are clustered by", choices=("intensity", *LEARNT))] = "intensity",
        weights: Annotated[str | None, Option("of dino: a file; of mae: a file or a pretraining run, else mae")] = None,
        upsampling: Annotated[str, Option("of learnt features to voxels", choices=(*UPSAMPLING,))] = "bilinear",
        swapped: Annotated[bool, Option("predict the clusters of one crop from another that overlaps it")] = False,
    ) -> None:
        super().__init__(encoder=encoder, lr=lr, steps=steps, seed=seed, mask_ratio=mask_ratio, mask_unit=mask_unit)
        self.check_options(clusters=clusters, features=features, upsampling=upsampling)
        if (weights is None) != (features == "intensity"):
            fix = "leave it out" if weights else "give the file of its network, as weights=dinov2.safetensors"
            raise CourseError(f"weights={weights!r}: does not fit features={features}; {fix}")
        self.clusters, self.out_channels, self.upsampling, self.swapped = clusters, clusters, upsampling, swapped
        channels = encoder.config["in_channels"]
        # in a list: it is frozen, no part of the task's weights
        self.learnt = [LEARNT[features](weights, channels)] if weights else []
        self.features, self.weights = features, weights
        width = channels + self.learnt[0].width if self.learnt else 2 * channels + 3
        self.register_buffer("centres", torch.zeros(clusters, width))
        self.head = TransposedConvHead(
            hidden_size=encoder.hidden_size, patch_size=encoder.patch_size, out_channels=clusters
        )

    @classmethod
    def reads(cls, options: Mapping[str, Any]) -> str | None:
        return options.get("weights") or ("mae" if options.get("features") == "mae" else None)

    def targets(
        self, pool: Sequence[Prepared], held_out: Sequence[Prepared], folder: Path
    ) -> tuple[Sequence[Prepared], Sequence[Prepared]]:
        if not self.learnt:
            return pool, held_out
        source = [self.features, sha256(self.weights)]
        settings = {"version": VERSION, "network": source, "stride": STRIDE, "upsampling": self.upsampling}
        settings |= {"clusters": self.clusters, "seed": self.seed, "pool": [case.folder.name for case in pool]}
        folder = folder / hashlib.sha256(json.dumps(settings).encode()).hexdigest()[:16]
        with exclusively(folder, "centres"):  # of the processes that share a step, one computes
            if not (folder / "centres.npy").exists():
                centres = fit(self.learnt[0], pool, self.clusters, upsampling=self.upsampling, seed=self.seed)
                _save(folder / "centres.npy", centres)
            self.centres.copy_(torch.from_numpy(np.load(folder / "centres.npy")))
            return tuple([self._mapped(case, folder) for case in cases] for cases in (pool, held_out))

    def _mapped(self, case: Prepared, folder: Path) -> Prepared:
        """The case with its cluster map, which is computed unless it is in the folder."""
        path = folder / f"{case.folder.name}.npy"
        if not path.exists():
            clusters = cluster_map(self.learnt[0], volume_of(case), self.centres, upsampling=self.upsampling)
            _save(path, clusters.to(torch.int16))
        return dataclasses.replace(case, target_file=path)

    @torch.no_grad()
    def prepare(self, crops: Iterable[dict]) -> None:
        if self.learnt:  # `targets` has set the centres
            return
        generator = torch.Generator().manual_seed(self.seed)
        sample = []
        for crop in crops:
            batch = torch.utils.data.default_collate([crop])
            points = describe(batch["image"], batch.get("bounds")).flatten(0, -2)
            sample.append(points[torch.randperm(len(points), generator=generator)[:SAMPLE]])
        self.centres.copy_(kmeans(torch.cat(sample), self.clusters, generator=generator))

    def extra(self, batch: dict) -> dict:
        return {name: batch.get(name) for name in ("bounds", "target")}

    def cluster_of(self, images: Tensor, bounds: Tensor | None = None) -> Tensor:
        """The cluster of every voxel of clean crops: (B, C, D, H, W) -> (B, D, H, W)."""
        if self.learnt:  # of each crop alone
            alone = [cluster_map(*self.learnt, image, self.centres, upsampling=self.upsampling) for image in images]
            return torch.stack(alone)
        points = describe(images.float(), bounds)
        return nearest(points.flatten(0, -2), self.centres).view(points.shape[:-1])

    def losses(
        self, images: Tensor, generator: torch.Generator, bounds: Tensor | None = None, target: Tensor | None = None
    ) -> dict[str, Tensor]:
        """`target`: clusters (B, D, H, W) of the crops; None: `cluster_of` computes them."""
        if self.training and self.swapped:
            return {"loss": self.swapped_loss(images, generator, bounds)}
        mask = self.mask(images, generator)
        logits = self(images, mask).float()  # (B, K, D, H, W)
        target = self.cluster_of(images, bounds) if target is None else target
        loss = F.cross_entropy(logits, target)  # over all voxels, visible ones too
        if self.training:  # `paint` takes a fifth of a step, and only validation needs it
            return {"loss": loss}
        painted = self.paint(logits, images.shape[1])
        return {"loss": loss, "reconstruction": self.score(painted, images, self.voxel_mask(mask, images.shape[1]))}

    def swapped_loss(self, images: Tensor, generator: torch.Generator, bounds: Tensor | None = None) -> Tensor:
        """Swapped prediction (Caron et al. 2020): a second crop is a box of the first, enlarged. The clusters of each
        are the target of the prediction from the other, at the voxels of the second, where the two overlap."""
        if bounds is None:
            bounds = images.new_tensor([[0.0] * 3, [1.0] * 3]).expand(len(images), 2, 3)
        low, high = bounds.to(images).unbind(1)
        corners = self.own(draw_boxes(len(images) * self.processes, generator))  # (B, 2, 3), as shares of the crop
        grid = box_grid(corners, images)
        second = F.grid_sample(images, grid, padding_mode="border", align_corners=False)
        inner = low[:, None] + (high - low)[:, None] * corners
        first_logits, second_logits = (self(x, self.mask(x, generator)).float() for x in (images, second))
        of_second = self.cluster_of(second, inner)
        of_first = self.cluster_of(images, bounds)[:, None].float()
        of_first = F.grid_sample(of_first, grid, mode="nearest", padding_mode="border", align_corners=False)[:, 0]
        first_logits = F.grid_sample(first_logits, grid, padding_mode="border", align_corners=False)
        return (F.cross_entropy(first_logits, of_second) + F.cross_entropy(second_logits, of_first.long())) / 2

    def paint(self, logits: Tensor, channels: int) -> Tensor:
        """The expected image (B, C, D, H, W): every voxel has the mean intensity of its cluster. It makes this task
        comparable with the others."""
        return torch.einsum("bkdhw,kc->bcdhw", logits.softmax(1), self.centres[:, :channels])

    def restored(self, images: Tensor, mask: Tensor) -> Tensor:
        return self.paint(self(images, mask).float(), images.shape[1])


def draw_boxes(number: int, generator: torch.Generator) -> Tensor:
    """Lowest and highest corner (number, 2, 3) of random boxes in a crop, as shares of its sides."""
    size, offset = torch.rand(2, number, 3, generator=generator, device=generator.device)
    size = SMALLEST + (1 - SMALLEST) * size
    low = (1 - size) * offset
    return torch.stack([low, low + size], 1)


def box_grid(corners: Tensor, images: Tensor) -> Tensor:
    """For `grid_sample`: the voxels (B, D, H, W, 3) of images (B, C, D, H, W) spread over boxes (B, 2, 3) in them."""
    low, high = corners.flip(-1).unbind(1)  # x is the last axis
    theta = torch.cat([torch.diag_embed(high - low), (low + high - 1)[..., None]], -1)  # (B, 3, 4), from -1 to 1
    with torch.autocast(theta.device.type, enabled=False):  # it is a product of matrices: places in bfloat16
        return F.affine_grid(theta, list(images.shape), align_corners=False)


def _save(path: Path, tensor: Tensor) -> None:
    with atomic(path) as temporary:
        np.save(temporary, tensor.cpu().numpy())
