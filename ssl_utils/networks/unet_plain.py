"""The plain U-Net of Models Genesis (Zhou et al. 2021) and RadioSSL, so that the weights they released can be used."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ssl_utils.networks.interface import arguments, levels_of
from ssl_utils.networks.pyramid import PyramidNetwork
from ssl_utils.networks.unet import UNet


class Convolution(nn.Module):
    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv3d(inputs, outputs, kernel_size=3, padding=1)
        self.bn1 = nn.BatchNorm3d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.bn1(self.conv1(x)))


class Down(nn.Module):
    """Halve the map, but for the first level; then two convolutions, of which the second doubles the channels."""

    def __init__(self, inputs: int, outputs: int, *, halves: bool) -> None:
        super().__init__()
        self.ops = nn.Sequential(Convolution(inputs, outputs // 2), Convolution(outputs // 2, outputs))
        self.halves = halves

    def forward(self, x: Tensor) -> Tensor:
        return self.ops(F.max_pool3d(x, 2) if self.halves else x)


class Up(nn.Module):
    """Double the map, concatenate that of the encoder, two convolutions."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.up_conv = nn.ConvTranspose3d(inputs, inputs, kernel_size=2, stride=2)
        self.ops = nn.Sequential(Convolution(inputs + outputs, outputs), Convolution(outputs, outputs))

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        return self.ops(torch.cat([self.up_conv(x), skip], 1))


class PlainUNet(PyramidNetwork):
    """Image (B, in_channels, D, H, W) to logits (B, out_channels, D, H, W); D, H, W multiples of 2^(levels - 1).

    Args:
        img_size: the crop of the token grid, for pretraining; the network takes other sizes too.
        feature_size: channels at full resolution, doubled at every level (released weights: 64).
        levels: of the pyramid (released weights: 4).
    """

    def __init__(
        self,
        *,
        in_channels: int,
        out_channels: int,
        img_size: int | Sequence[int] | None = None,
        feature_size: int = 64,
        levels: int = 4,
    ) -> None:
        config = {"network": "unet_plain", **arguments(locals())}
        width = [feature_size * 2**level for level in range(levels)]
        inputs = [in_channels, *width]
        super().__init__(
            config=config,
            down=[Down(inputs[level], width[level], halves=level > 0) for level in range(levels)],
            up=[Up(width[level], width[level - 1]) for level in range(levels - 1, 0, -1)],
            out=nn.Conv3d(feature_size, out_channels, kernel_size=1),
            hidden_size=width[-1],
            reads_image=["0.ops.0.conv1.weight"],
        )

    @classmethod
    def sizes(cls, scale: Mapping[str, Any]) -> dict[str, Any]:
        """As wide as `UNet`; released weights bring their own width (`building.build_network`)."""
        return {"feature_size": UNet.sizes(scale)["feature_size"], "levels": levels_of(scale["patch_size"])}
