"""Decoders from the tokens of 2D ViTs to pixels: UNETR's, UperNet's, and the two of SETR.

Each takes the image (B, C, H, W), the last map (B, E, h, w) and the map of every block, for patches of 2^k pixels, and
returns maps from coarse to fine, one per doubling, the last one (B, feature_size, H, W). Norms are instance or group
norms, which work on one processor and on small batches.
"""

from collections.abc import Callable

import torch
from monai.networks.blocks.dynunet_block import UnetBasicBlock
from monai.networks.blocks.unetr_block import UnetrBasicBlock, UnetrPrUpBlock, UnetrUpBlock
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d, avg_pool2d, interpolate

from ssl_utils.errors import CourseError

PLAIN = {"spatial_dims": 2, "kernel_size": 3, "norm_name": "instance"}
BLOCK = PLAIN | {"res_block": True}
POOLED = (1, 2, 3, 6)  # sides of the pyramid pooling (Zhao et al. 2017)


class UNETR2D(nn.Module):
    """UNETR's decoder (Hatamizadeh et al. 2022) in the plane. The image, average-pooled, joins every skip: those of the
    ViT alone say little about where an edge is."""

    def __init__(self, *, channels: int, hidden_size: int, feature_size: int, levels: int, num_layers: int) -> None:
        super().__init__()
        k = levels
        width = [feature_size * 2**level for level in range(k)] + [hidden_size]  # of levels 1 .. k + 1
        self.taps = [min(round(i * num_layers / k), num_layers - 1) for i in range(1, k)]
        self.image = nn.ModuleList([UnetrBasicBlock(in_channels=channels, out_channels=width[0], stride=1, **BLOCK)])
        self.image += [UnetBasicBlock(in_channels=channels, out_channels=w, stride=1, **PLAIN) for w in width[1:k]]
        lift = {"in_channels": hidden_size, "stride": 1, "upsample_kernel_size": 2, "conv_block": True, **BLOCK}
        self.lifts = nn.ModuleList(
            UnetrPrUpBlock(out_channels=width[i], num_layer=k - 1 - i, **lift) for i in range(1, k)
        )
        self.ups = nn.ModuleList(
            UnetrUpBlock(in_channels=width[i], out_channels=width[i - 1], upsample_kernel_size=2, **BLOCK)
            for i in range(k, 0, -1)
        )

    def forward(self, image: Tensor, last: Tensor, hidden: list[Tensor]) -> list[Tensor]:
        skips = [block(avg_pool2d(image, 2**i)) for i, block in enumerate(self.image)]  # (B, F 2^i, H / 2^i, ...)
        for i, (lift, tap) in enumerate(zip(self.lifts, self.taps, strict=True), start=1):
            skips[i] = skips[i] + lift(hidden[tap])
        maps = [last]
        for up, skip in zip(self.ups, reversed(skips), strict=True):
            maps.append(up(maps[-1], skip))
        return maps


class StepByStep(nn.Module):
    """From the last map alone, a doubling at every step."""

    steps: nn.ModuleList

    def forward(self, image: Tensor, last: Tensor, hidden: list[Tensor]) -> list[Tensor]:
        maps = [last]
        for step in self.steps:
            maps.append(step(maps[-1]))
        return maps


class SETRPUP(StepByStep):
    """Progressive up-sampling of the last map (Zheng et al. 2021)."""

    def __init__(self, *, hidden_size: int, feature_size: int, levels: int, **_) -> None:
        super().__init__()
        width = [hidden_size] + [feature_size * 8] * (levels - 1) + [feature_size]
        self.steps = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(width[i], width[i + 1], 3, padding=1),
                nn.InstanceNorm2d(width[i + 1], affine=True),
                nn.ReLU(),
                nn.Upsample(scale_factor=2, mode="bilinear"),
            )
            for i in range(levels)
        )


class ConvTrans(StepByStep):
    """Transposed convolutions of the last map, each after a norm and ReLU."""

    def __init__(self, *, hidden_size: int, feature_size: int, levels: int, **_) -> None:
        super().__init__()
        width = [hidden_size] + [feature_size * 2**i for i in range(levels - 1, -1, -1)]
        self.steps = nn.ModuleList(
            nn.Sequential(
                nn.InstanceNorm2d(width[i], affine=True),
                nn.ReLU(),
                nn.ConvTranspose2d(width[i], width[i + 1], 2, stride=2),
            )
            for i in range(levels)
        )


class UperNet(nn.Module):
    """A feature pyramid with pyramid pooling (Xiao et al. 2018) over four blocks of the ViT, whose maps are resized to
    4, 2, 1 and 1/2 of the token grid, as in BEiT (Bao et al. 2022)."""

    def __init__(self, *, hidden_size: int, feature_size: int, levels: int, num_layers: int, **_) -> None:
        super().__init__()
        if levels < 2:
            raise CourseError("decoder='upernet': needs patches of 4 voxels or more; choose setr, convtrans or unetr")
        e, width, self.levels = hidden_size, 8 * feature_size, levels
        self.taps = [max(round(num_layers * share) - 1, 0) for share in (1 / 3, 1 / 2, 2 / 3, 1)]  # 3, 5, 7, 11 of 12

        def double() -> nn.Module:
            return nn.ConvTranspose2d(e, e, 2, stride=2)

        quadruple = nn.Sequential(double(), nn.GroupNorm(1, e), nn.GELU(), double())
        self.necks = nn.ModuleList([quadruple, double(), nn.Identity(), nn.MaxPool2d(2, ceil_mode=True)])
        self.pools = nn.ModuleList(_convolution(e, width, 1) for _ in POOLED)
        self.context = _convolution(e + len(POOLED) * width, width, 3)
        self.laterals = nn.ModuleList(_convolution(e, width, 1) for _ in range(3))
        self.smooth = nn.ModuleList(_convolution(width, width, 3) for _ in range(3))
        self.fuse = nn.Sequential(
            _convolution(4 * width, width, 3), nn.Dropout2d(0.1), nn.Conv2d(width, feature_size, 1)
        )

    def forward(self, image: Tensor, last: Tensor, hidden: list[Tensor]) -> list[Tensor]:
        sources = [hidden[tap] for tap in self.taps[:3]] + [last]
        maps = [neck(source) for neck, source in zip(self.necks, sources, strict=True)]  # fine to coarse
        coarsest = maps.pop()
        pooled = [
            _to(convolution(adaptive_avg_pool2d(coarsest, side)), coarsest)
            for side, convolution in zip(POOLED, self.pools, strict=True)
        ]
        levels = [self.context(torch.cat([coarsest, *pooled], 1))]  # coarse to fine
        for lateral, one in zip(reversed(self.laterals), reversed(maps), strict=True):
            levels.append(lateral(one) + _to(levels[-1], one))
        levels[1:] = [smooth(one) for smooth, one in zip(self.smooth, levels[1:], strict=True)]
        fused = self.fuse(torch.cat([_to(one, levels[-1]) for one in levels], 1))  # at 4 times the token grid
        maps = [*levels[1:3], fused]
        while len(maps) <= self.levels:
            maps.append(_doubled(maps[-1]))
        return maps


DECODERS: dict[str, Callable[..., nn.Module]] = {
    "unetr": UNETR2D,
    "upernet": UperNet,
    "setr": SETRPUP,
    "convtrans": ConvTrans,
}


def _convolution(inputs: int, outputs: int, kernel: int) -> nn.Module:
    layers = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False), nn.GroupNorm(4, outputs), nn.ReLU()
    return nn.Sequential(*layers)


def _doubled(x: Tensor) -> Tensor:
    return interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)


def _to(x: Tensor, like: Tensor) -> Tensor:
    return interpolate(x, size=like.shape[2:], mode="bilinear", align_corners=False)
