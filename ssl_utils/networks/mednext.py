"""MedNeXt (Roy et al. 2023): a U-Net of ConvNeXt blocks; MONAI's blocks, in variants S and B."""

from collections.abc import Mapping, Sequence
from typing import Any

from monai.networks import nets
from torch import Tensor, nn

from ssl_utils.errors import CourseError
from ssl_utils.networks.interface import arguments, levels_of
from ssl_utils.networks.pyramid import PyramidNetwork

EXPANSION = {"S": (2, 2, 2, 2, 2), "B": (2, 3, 4, 4, 4)}  # of the levels of the encoder; the decoder's is the mirror
BLOCKS = 2  # per level


class Step(nn.Module):
    """One level up: double the map, add the encoder's map of that level, then the blocks."""

    def __init__(self, up: nn.Module, blocks: nn.Module) -> None:
        super().__init__()
        self.up, self.blocks = up, blocks

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        return self.blocks(self.up(x) + skip)


class MedNeXt(PyramidNetwork):
    """Image (B, in_channels, D, H, W) to logits (B, out_channels, D, H, W); D, H, W multiples of 2^(levels - 1).

    Args:
        img_size: the crop of the token grid, for pretraining; the network takes other sizes too.
        variant: `S` or `B`, by how much the blocks expand their channels.
        feature_size: channels at full resolution, doubled at every level (published: 32).
        levels: 5 as published; fewer for small crops.
        deep_supervision: in training mode `forward` returns the logits of every level, full resolution first.

    Raises:
        CourseError: no such variant, other `levels` than 2 to 5, or `img_size` is not a multiple.
    """

    name = "mednext"  # in the registry
    supports_deep_supervision = True

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
    ) -> None:
        config = {"network": self.name, **arguments(locals())}
        if variant not in EXPANSION:
            raise CourseError(f"variant={variant!r}: unknown; choose one of {', '.join(EXPANSION)}")
        if not 2 <= levels <= 5:
            raise CourseError(f"levels={levels}: MedNeXt has 2 to 5")
        ratios = EXPANSION[variant][: levels - 1]
        net = nets.MedNeXt(
            in_channels=in_channels,
            out_channels=out_channels,
            init_filters=feature_size,
            encoder_expansion_ratio=ratios,
            bottleneck_expansion_ratio=EXPANSION[variant][-1],
            decoder_expansion_ratio=ratios[::-1],
            kernel_size=kernel_size,
            deep_supervision=deep_supervision,
            use_residual_connection=True,
            blocks_down=(BLOCKS,) * (levels - 1),
            blocks_bottleneck=BLOCKS,
            blocks_up=(BLOCKS,) * (levels - 1),
        )
        blocks = [*net.enc_stages, net.bottleneck]
        super().__init__(
            config=config,
            down=[nn.Sequential(*pair) for pair in zip([net.stem, *net.down_blocks], blocks, strict=True)],
            up=[Step(*pair) for pair in zip(net.up_blocks, net.dec_stages, strict=True)],
            out=net.out_0,
            out_coarse=net.out_blocks if deep_supervision else (),
            hidden_size=feature_size * 2 ** (levels - 1),
            reads_image=["0.0.weight"],
        )

    @classmethod
    def sizes(cls, scale: Mapping[str, Any]) -> dict[str, Any]:
        """Twice the channels of UNETR's decoder; a cell of its coarsest map is a patch of the ViT of that scale."""
        return {"feature_size": 2 * scale["feature_size"], "levels": levels_of(scale["patch_size"])}


class MedNeXtB(MedNeXt):
    """MedNeXt of variant B, as a choice of its own for a run."""

    name = "mednext_b"

    def __init__(self, *, variant: str = "B", **sizes) -> None:
        super().__init__(variant=variant, **sizes)
