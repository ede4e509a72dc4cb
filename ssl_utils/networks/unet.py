"""A plain U-Net of convolutions (Ronneberger et al. 2015; residual blocks and instance norm as in nnU-Net), never
pretrained here: what a newcomer would train without any of this course."""

from typing import Any

from monai.networks.blocks.dynunet_block import UnetOutBlock, UnetResBlock, UnetUpBlock
from torch import Tensor, nn

BLOCK = {"spatial_dims": 3, "kernel_size": 3, "norm_name": "instance"}


class UNet(nn.Module):
    """Image (B, in_channels, D, H, W) to logits (B, out_channels, D, H, W); D, H, W multiples of 2^(levels - 1)."""

    def __init__(self, *, in_channels: int, out_channels: int, feature_size: int = 16, levels: int = 4) -> None:
        super().__init__()
        self.config: dict[str, Any] = {
            "in_channels": in_channels,
            "out_channels": out_channels,
            "feature_size": feature_size,
            "levels": levels,
        }
        width = [feature_size * 2**level for level in range(levels)]
        inputs = [in_channels, *width]
        self.down = nn.ModuleList(
            UnetResBlock(in_channels=inputs[i], out_channels=width[i], stride=1 if i == 0 else 2, **BLOCK)
            for i in range(levels)
        )
        self.up = nn.ModuleList(
            UnetUpBlock(in_channels=width[i], out_channels=width[i - 1], stride=2, upsample_kernel_size=2, **BLOCK)
            for i in range(levels - 1, 0, -1)
        )
        self.out = UnetOutBlock(spatial_dims=3, in_channels=feature_size, out_channels=out_channels)

    def forward(self, x: Tensor) -> Tensor:
        skips = []
        for block in self.down:
            x = block(x)  # (B, F 2^i, D / 2^i, ...)
            skips.append(x)
        for block, skip in zip(self.up, reversed(skips[:-1]), strict=True):
            x = block(x, skip)
        return self.out(x)
