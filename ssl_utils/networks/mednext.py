"""MedNeXt (Roy et al. 2023): a U-Net of ConvNeXt blocks, in its published sizes S, B, M and L; MONAI's blocks."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from monai.networks.blocks.mednext_block import MedNeXtBlock, MedNeXtDownBlock, MedNeXtOutBlock, MedNeXtUpBlock
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ssl_utils.errors import CourseError
from ssl_utils.networks.depthwise import Depthwise
from ssl_utils.networks.interface import arguments, levels_of
from ssl_utils.networks.pyramid import PyramidNetwork


class Variant(NamedTuple):
    """Of every level, fine to coarse, and alike on the way down and up: how much its blocks expand their channels, and
    how many they are. A block that halves the map expands as those of the level it leads to (in MONAI's network: of the
    level it comes from, so that only S takes the same weights)."""

    network: str  # in the registry
    expansion: tuple[int, ...]
    blocks: tuple[int, ...]


VARIANTS = {
    "S": Variant("mednext", (2, 2, 2, 2, 2), (2, 2, 2, 2, 2)),
    "B": Variant("mednext_b", (2, 3, 4, 4, 4), (2, 2, 2, 2, 2)),
    "M": Variant("mednext_m", (2, 3, 4, 4, 4), (3, 4, 4, 4, 4)),
    "L": Variant("mednext_l", (3, 4, 8, 8, 8), (3, 4, 8, 8, 8)),
}


def of_levels(numbers: Sequence[int], levels: int) -> tuple[int, ...]:
    """The numbers of a network of fewer levels: the bottleneck keeps its own."""
    return (*numbers[: levels - 1], numbers[-1])


def built(kind: type, inputs: int, outputs: int, *, expansion: int, kernel_size: int) -> nn.Module:
    """A block of MONAI's; that of a constant resolution with the faster gradients of `depthwise`."""
    sizes = {"in_channels": inputs, "out_channels": outputs, "expansion_ratio": expansion, "kernel_size": kernel_size}
    made = kind(**sizes, use_residual_connection=True)
    if kind is MedNeXtBlock:
        made.conv1 = Depthwise(made.conv1)
    return made


def through(blocks: Iterable[nn.Module], x: Tensor, *, checkpointing: bool) -> Tensor:
    """One block after the other. With `checkpointing` each keeps only its input and computes the rest again in the
    backward pass (Chen et al. 2016): the same gradients in less memory."""
    for block in blocks:
        x = checkpoint(block, x, use_reentrant=False) if checkpointing and torch.is_grad_enabled() else block(x)
    return x


class Level(nn.Sequential):
    """One level down: the layer or block that leads to it, and its blocks."""

    def __init__(self, lead: nn.Module, blocks: nn.Module, *, checkpointing: bool) -> None:
        super().__init__(lead, blocks)
        self.checkpointing = checkpointing

    def forward(self, x: Tensor) -> Tensor:
        lead, blocks = self
        return through([lead, *blocks], x, checkpointing=self.checkpointing)


class Step(nn.Module):
    """One level up: double the map, add the encoder's map of that level, then the blocks."""

    def __init__(self, up: nn.Module, blocks: nn.Module, *, checkpointing: bool) -> None:
        super().__init__()
        self.up, self.blocks, self.checkpointing = up, blocks, checkpointing

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        x = through([self.up], x, checkpointing=self.checkpointing) + skip
        return through(self.blocks, x, checkpointing=self.checkpointing)


class MedNeXt(PyramidNetwork):
    """Image (B, in_channels, D, H, W) to logits (B, out_channels, D, H, W); D, H, W multiples of 2^(levels - 1).

    Args:
        img_size: the crop of the token grid, for pretraining; the network takes other sizes too.
        variant: `S`, `B`, `M` or `L`.
        feature_size: channels at full resolution, doubled at every level (published: 32).
        levels: 5 as published; fewer for small crops.
        kernel_size: of the depthwise convolutions, 3 or 5 as published; see `upkern`.
        deep_supervision: in training mode `forward` returns the logits of every level, full resolution first.
        checkpointing: less memory in training, for more time.

    Raises:
        CourseError: no such variant, other `levels` than 2 to 5, an even kernel, or `img_size` is not a multiple.
    """

    run_options = ("deep_supervision", "kernel_size", "checkpointing")

    def __init__(
        self,
        *,
        in_channels: int,
        out_channels: int,
        img_size: int | Sequence[int] | None = None,
        variant: str = "S",
        feature_size: int = 32,
        levels: int = 5,
        kernel_size: int = 3,
        deep_supervision: bool = False,
        checkpointing: bool = False,
    ) -> None:
        if variant not in VARIANTS:
            raise CourseError(f"variant={variant!r}: unknown; choose one of {', '.join(VARIANTS)}")
        if not 2 <= levels <= 5:
            raise CourseError(f"levels={levels}: MedNeXt has 2 to 5")
        if kernel_size % 2 == 0:
            raise CourseError(f"kernel_size={kernel_size}: must be odd; MedNeXt has 3 or 5")
        config = {"network": VARIANTS[variant].network, **arguments(locals())}
        expansion, blocks = (of_levels(numbers, levels) for numbers in VARIANTS[variant][1:])
        width = [feature_size * 2**level for level in range(levels)]

        def block(kind: type, level: int, come_from: int) -> nn.Module:
            return built(kind, width[come_from], width[level], expansion=expansion[level], kernel_size=kernel_size)

        def row(level: int) -> nn.Sequential:
            return nn.Sequential(*(block(MedNeXtBlock, level, level) for _ in range(blocks[level])))

        def lead(level: int) -> nn.Module:
            return block(MedNeXtDownBlock, level, level - 1) if level else nn.Conv3d(in_channels, feature_size, 1)

        down = [Level(lead(level), row(level), checkpointing=checkpointing) for level in range(levels)]
        up = [
            Step(block(MedNeXtUpBlock, level, level + 1), row(level), checkpointing=checkpointing)
            for level in reversed(range(levels - 1))
        ]
        super().__init__(
            config=config,
            down=down,
            up=up,
            out=MedNeXtOutBlock(feature_size, out_channels, dim="3d"),
            out_coarse=[MedNeXtOutBlock(n, out_channels, dim="3d") for n in deep_supervision * width[1:]][::-1],
            hidden_size=width[-1],
            reads_image=["0.0.weight"],
        )

    @classmethod
    def sizes(cls, scale: Mapping[str, Any]) -> dict[str, Any]:
        """Twice the channels of UNETR's decoder; a cell of its coarsest map is a patch of the ViT of that scale."""
        return {"feature_size": 2 * scale["feature_size"], "levels": levels_of(scale["patch_size"])}


class MedNeXtB(MedNeXt):
    """MedNeXt of variant B, as a choice of its own for a run."""

    def __init__(self, *, variant: str = "B", **sizes) -> None:
        super().__init__(variant=variant, **sizes)


class MedNeXtM(MedNeXt):
    """MedNeXt of variant M."""

    def __init__(self, *, variant: str = "M", **sizes) -> None:
        super().__init__(variant=variant, **sizes)


class MedNeXtL(MedNeXt):
    """MedNeXt of variant L."""

    def __init__(self, *, variant: str = "L", **sizes) -> None:
        super().__init__(variant=variant, **sizes)
