"""SimMIM in 3D (Xie et al. 2022): hide blocks of tokens, encode all tokens, regress hidden voxels with one layer.

In a network without tokens, blocks of voxels are replaced by a learnt value instead.
"""

from typing import Annotated

import torch
from torch import Tensor, nn

from ssl_utils.errors import CourseError
from ssl_utils.networks.heads import LinearHead, patchify, unpatchify
from ssl_utils.networks.interface import Encoder
from ssl_utils.networks.vit import ViT
from ssl_utils.pretext.base import PretextTask
from ssl_utils.training.options import Option

MaskRatio = Annotated[float, Option("share of hidden tokens", above=0, below=1)]
MaskUnit = Annotated[int, Option("side of a hidden cube in tokens", low=1)]
NormaliseTarget = Annotated[bool, Option("regress every patch less its mean, over its standard deviation")]
ForegroundWeight = Annotated[
    float, Option("weight of voxels above the mean of the volume; 1: all alike", low=0, high=1000)
]


def block_mask(
    batch: int, grid: tuple[int, int, int], *, mask_ratio: float, unit: int, generator: torch.Generator
) -> Tensor:
    """Hide cubes of `unit`^3 tokens, chosen without replacement. True = hidden.

    The unit is a number of tokens, so mask size and patch size are independent. Where the unit does not divide the grid
    the last cubes are smaller.
    """
    coarse = [-(-g // unit) for g in grid]  # units per axis
    units = coarse[0] * coarse[1] * coarse[2]
    hidden = max(min(round(units * mask_ratio), units - 1), 1)
    noise = torch.rand(batch, units, generator=generator, device=generator.device)
    mask = noise.argsort(1).argsort(1) < hidden  # (B, units)
    mask = mask.view(batch, *coarse)
    for axis in (1, 2, 3):
        mask = mask.repeat_interleave(unit, axis)
    return mask[:, : grid[0], : grid[1], : grid[2]].flatten(1)  # (B, N)


class SimMIMTask(PretextTask):
    """Regress the voxels of hidden tokens.

    Args:
        mask_ratio: share of hidden tokens, 0 < ratio < 1.
        mask_unit: side of a hidden cube in tokens.
        normalise_target: subtract the mean of each patch and divide by its standard deviation (He et al. 2022).
        foreground_weight: weight of voxels above the mean of their volume.

    Raises:
        CourseError: an option is out of range, or one unit covers all tokens.
    """

    def __init__(
        self,
        *,
        encoder: Encoder,
        lr: float,
        steps: int,
        seed: int = 0,
        mask_ratio: MaskRatio = 0.6,
        mask_unit: MaskUnit = 1,
        normalise_target: NormaliseTarget = False,
        foreground_weight: ForegroundWeight = 1.0,
    ) -> None:
        super().__init__(encoder=encoder, lr=lr, steps=steps, seed=seed)
        self.check_options(mask_ratio=mask_ratio, mask_unit=mask_unit)
        if all(mask_unit >= g for g in encoder.grid):
            raise CourseError(f"mask_unit={mask_unit}: one unit covers all {encoder.grid} tokens; choose a smaller one")
        self.mask_ratio, self.mask_unit = mask_ratio, mask_unit
        self.normalise_target, self.foreground_weight = normalise_target, foreground_weight
        hidden, channels = encoder.hidden_size, encoder.config["in_channels"]
        self.masks_tokens = isinstance(encoder, ViT)
        shape = (1, 1, hidden) if self.masks_tokens else (1, channels, 1, 1, 1)
        self.mask_token = nn.Parameter(torch.zeros(shape).normal_(std=0.02))
        self.head = LinearHead(hidden_size=hidden, patch_size=encoder.patch_size, out_channels=channels)

    def forward(self, images: Tensor, mask: Tensor) -> Tensor:
        if not self.masks_tokens:  # the mask token is a value for hidden voxels
            seen = torch.where(self.voxel_mask(mask, images.shape[1]), self.mask_token, images)
            return self.decode(seen, *self.encoder(seen))  # (B, C, D, H, W)
        tokens = self.encoder.embed(images)  # (B, N, E) no positions yet
        tokens = torch.where(mask[..., None], self.mask_token.to(tokens.dtype), tokens)
        last, inner = self.encoder.encode(tokens + self.encoder.positions)  # a hidden token knows where it is
        seen = images.masked_fill(self.voxel_mask(mask, images.shape[1]), 0.0)  # for the skip of a UNETR
        return self.decode(seen, last, inner)  # (B, C, D, H, W)

    def mask(self, images: Tensor, generator: torch.Generator) -> Tensor:
        options = {"mask_ratio": self.mask_ratio, "unit": self.mask_unit, "generator": generator}
        return self.own(block_mask(len(images) * self.processes, self.encoder.grid, **options))

    def voxel_mask(self, mask: Tensor, channels: int) -> Tensor:
        """(B, N) tokens -> (B, C, D, H, W) voxels."""
        size = torch.tensor(self.encoder.patch_size).prod() * channels
        patches = mask[..., None].expand(-1, -1, int(size))
        return unpatchify(patches, self.encoder.grid, self.encoder.patch_size, channels)

    def target(self, images: Tensor) -> Tensor:
        if not self.normalise_target:
            return images
        mean, std = self.patch_statistics(images)
        return (images - mean) / std

    def intensities(self, prediction: Tensor, images: Tensor) -> Tensor:
        if not self.normalise_target:
            return prediction
        mean, std = self.patch_statistics(images)
        return prediction * std + mean

    def patch_statistics(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of the patch of each voxel, both (B, C, D, H, W)."""
        patches = patchify(images, self.encoder.patch_size)  # (B, N, C p^3)
        mean, std = patches.mean(-1, keepdim=True), (patches.var(-1, keepdim=True) + 1e-6).sqrt()
        shape = self.encoder.grid, self.encoder.patch_size, images.shape[1]
        return tuple(unpatchify(number.expand_as(patches), *shape) for number in (mean, std))

    def score(self, prediction: Tensor, images: Tensor, hidden: Tensor) -> Tensor:
        return self._masked_l1(prediction, self.target(images), images, hidden)

    def _masked_l1(self, prediction: Tensor, target: Tensor, images: Tensor, hidden: Tensor) -> Tensor:
        weight = hidden * torch.where(images > 0, self.foreground_weight, 1.0)  # no loss on visible voxels
        return ((prediction - target).abs() * weight).sum() / weight.sum().clamp(min=1)

    def losses(self, images: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        mask = self.mask(images, generator)
        hidden = self.voxel_mask(mask, images.shape[1])
        loss = self.score(self(images, mask), images, hidden)
        loss = self.over_step(loss, lambda: (hidden * torch.where(images > 0, self.foreground_weight, 1.0)).sum())
        return {"loss": loss, "reconstruction": loss}

    @torch.no_grad()
    def reconstruct(self, images: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        mask = self.mask(images, generator)
        hidden = self.voxel_mask(mask, images.shape[1])
        return {
            "corrupted": images.masked_fill(hidden, float(images.min())),
            "hidden": hidden,
            "reconstruction": torch.where(hidden, self.restored(images, mask), images),
        }

    def restored(self, images: Tensor, mask: Tensor) -> Tensor:
        """The prediction of the network as intensities (B, C, D, H, W)."""
        return self.intensities(self(images, mask), images)
