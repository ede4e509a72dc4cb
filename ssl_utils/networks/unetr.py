"""UNETR (Hatamizadeh et al. 2022) for patches of any power of two per axis; MONAI's, weight for weight, at 16.

The decoder goes back from tokens to voxels in k doublings for a patch of 2^k voxels. Each doubling but the last is
joined by a hidden state of the ViT, the last one by a convolution of the image:

    level        1 (full size)   2 ... k                        k + 1 (token grid)
    encoder      encoder1(x)     encoder{i}(hidden state)       last tokens
    decoder      decoder2   <-   decoder3 ... decoder{k}   <-   decoder{k+1}

With `image_skips`, which the paper does not have, image{i}(x, average-pooled to level i) is added to encoder{i}.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn as nn
import torch.nn.functional as F
from monai.networks.blocks.dynunet_block import UnetBasicBlock, UnetOutBlock
from monai.networks.blocks.unetr_block import UnetrBasicBlock, UnetrPrUpBlock, UnetrUpBlock
from torch import Tensor

from ssl_utils.networks.inflate import vit_3d
from ssl_utils.networks.interface import SegmentationNetwork, Size, strides, token_grid
from ssl_utils.networks.vit import ViT, parts_of

PLAIN = {"spatial_dims": 3, "kernel_size": 3, "norm_name": "instance"}
BLOCK = PLAIN | {"res_block": True}


class UNETR(SegmentationNetwork):
    """Image (B, in_channels, D, H, W) to logits (B, out_channels, D, H, W).

    `image_skips`: in the paper all skips but the first come from the transformer alone, which says little about where
    an edge is before it is trained. Two convolutions of the pooled image in each of them make up for that.
    """

    encoder_name = "vit"
    transformer = True
    patch_per_axis = True

    def __init__(
        self,
        *,
        in_channels: int,
        out_channels: int,
        img_size: int | Sequence[int],
        patch_size: int | Sequence[int] = 16,
        feature_size: int = 16,
        hidden_size: int = 768,
        mlp_dim: int = 3072,
        num_layers: int = 12,
        num_heads: int = 12,
        dropout: float = 0.0,
        image_skips: bool = False,
        as_2d: bool = False,
        relative: bool = False,
    ) -> None:
        super().__init__()
        steps = strides(patch_size)
        self.levels = k = len(steps)
        self.taps = [min(round(i * num_layers / k), num_layers - 1) for i in range(1, k)]  # 3, 6, 9 of 12 at patch 16
        self.vit = vit_3d(
            in_channels=in_channels,
            img_size=img_size,
            patch_size=patch_size,
            hidden_size=hidden_size,
            mlp_dim=mlp_dim,
            num_layers=num_layers,
            num_heads=num_heads,
            dropout=dropout,
            as_2d=as_2d,
            relative=relative,
        )
        self.grid = self.vit.grid
        outputs = {"out_channels": out_channels, "feature_size": feature_size}
        self.config = {"network": "unetr", **self.vit.config, **outputs}
        self.add_levels(in_channels, out_channels, hidden_size, feature_size)
        for i, stride in enumerate(steps, start=2):
            if min(stride) == 1:
                self.narrow(i, stride)
        self.image_skips = image_skips
        if image_skips:
            self.config["image_skips"] = True
            self.pooled = [tuple(math.prod(axis) for axis in zip(*steps[:i], strict=True)) for i in range(1, k)]
            for i in range(2, k + 1):
                size = {"in_channels": in_channels, "out_channels": feature_size * 2 ** (i - 1)}
                self.add_module(f"image{i}", UnetBasicBlock(**size, stride=1, **PLAIN))
        if feature_size <= 8:  # the same numbers, twice as fast; wider networks gain nothing
            self.to(memory_format=torch.channels_last_3d)

    def add_levels(self, in_channels: int, out_channels: int, hidden_size: int, feature_size: int) -> None:
        k = self.levels
        width = [feature_size * 2**level for level in range(k)] + [hidden_size]  # channels of levels 1 .. k + 1
        self.encoder1 = UnetrBasicBlock(in_channels=in_channels, out_channels=width[0], stride=1, **BLOCK)
        for i in range(2, k + 1):  # tokens to a skip of level i: k + 1 - i doublings
            size = {"in_channels": hidden_size, "out_channels": width[i - 1], "num_layer": k - i}
            skip = UnetrPrUpBlock(**size, stride=1, upsample_kernel_size=2, conv_block=True, **BLOCK)
            self.add_module(f"encoder{i}", skip)
        for i in range(k + 1, 1, -1):  # level i to level i - 1: one doubling
            up = UnetrUpBlock(in_channels=width[i - 1], out_channels=width[i - 2], upsample_kernel_size=2, **BLOCK)
            self.add_module(f"decoder{i}", up)
        self.out = UnetOutBlock(spatial_dims=3, in_channels=feature_size, out_channels=out_channels)

    def narrow(self, i: int, stride: Size) -> None:
        """From level i to level i - 1 double only the axes in which the stride is 2."""
        lifts = [self.get_submodule(f"encoder{j}") for j in range(2, i)]  # each: level k + 1 to k, then one by one to j
        steps = [[lift.transp_conv_init, *(block[0] for block in lift.blocks)][self.levels + 1 - i] for lift in lifts]
        for step in [self.get_submodule(f"decoder{i}").transp_conv, *steps]:
            step.conv.stride = step.conv.kernel_size = stride
            step.conv.weight = nn.Parameter(step.conv.weight[:, :, : stride[0], : stride[1], : stride[2]].clone())

    @classmethod
    def sizes(cls, scale: Mapping[str, Any]) -> dict[str, Any]:
        names = ("patch_size", "hidden_size", "mlp_dim", "num_layers", "num_heads", "feature_size", "image_skips")
        return {name: scale[name] for name in names}

    @classmethod
    def new_encoder(cls, *, feature_size: int = 0, image_skips: bool = False, **sizes) -> ViT:
        return vit_3d(**sizes)

    def encoder_parts(self) -> dict[str, nn.Module]:
        return parts_of(self.vit)

    def on_grid(self, tokens: Tensor, images: Tensor) -> Tensor:  # (B, N, E); images may be smaller than its crop
        grid = token_grid(images.shape[2:], self.config["patch_size"])
        return tokens.transpose(1, 2).unflatten(2, grid)  # (B, E, d, h, w)

    def maps(self, images: Tensor, tokens: Tensor, hidden: list[Tensor]) -> list[Tensor]:
        """From the image (B, C, D, H, W), the encoder's last tokens (B, N, E) and those after every block."""
        skips = [self.encoder1(images)]  # level 1: (B, F, D, H, W)
        for i, tap in enumerate(self.taps, start=2):
            lift = self.get_submodule(f"encoder{i}")
            skips.append(lift(self.on_grid(hidden[tap], images)))  # level i: (B, F 2^(i-1), D / 2^(i-1), ...)
            if self.image_skips:
                skips[-1] = skips[-1] + self.get_submodule(f"image{i}")(F.avg_pool3d(images, self.pooled[i - 2]))
        levels = [self.on_grid(tokens, images)]  # level k + 1: (B, E, d, h, w)
        for i in range(self.levels + 1, 1, -1):
            up = self.get_submodule(f"decoder{i}")
            levels.append(up(levels[-1], skips[i - 2]))  # level i - 1: (B, F 2^(i-2), D / 2^(i-2), ...)
        return levels  # coarse to fine
