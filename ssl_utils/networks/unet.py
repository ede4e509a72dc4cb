"""A 3D U-Net (Ronneberger et al. 2015), with residual blocks and instance norm as in nnU-Net (Isensee et al. 2021)."""

from collections.abc import Mapping, Sequence
from typing import Any

from monai.networks.blocks.dynunet_block import UnetOutBlock, UnetResBlock, UnetUpBlock

from ssl_utils.errors import CourseError
from ssl_utils.networks.interface import arguments, levels_of, strides, triple
from ssl_utils.networks.pyramid import PyramidNetwork

NORMS = {"instance": "instance", "batch": "batch", "group": ("group", {"num_groups": 4})}


class UNet(PyramidNetwork):
    """Image (B, in_channels, D, H, W) to logits (B, out_channels, D, H, W); D, H, W multiples of 2^(levels - 1).

    Args:
        levels: of the pyramid; one number per axis where an axis is halved less often, and then last.
        img_size: the crop of the token grid, for pretraining; the network takes other sizes too.
        feature_size: channels at full resolution, doubled at every level.
        norm: `instance`, `batch`, or `group` (4 groups).

    Raises:
        CourseError: no such norm, or `img_size` is not a multiple.
    """

    patch_per_axis = True

    def __init__(
        self,
        *,
        in_channels: int,
        out_channels: int,
        img_size: int | Sequence[int] | None = None,
        feature_size: int = 16,
        levels: int | Sequence[int] = 4,
        norm: str = "instance",
    ) -> None:
        config = {"network": "unet", **arguments(locals())}
        if norm not in NORMS:
            raise CourseError(f"norm={norm!r}: unknown; choose one of {', '.join(NORMS)}")
        block = {"spatial_dims": 3, "kernel_size": 3, "norm_name": NORMS[norm]}
        steps = [1, *strides([2 ** (n - 1) for n in triple(levels, "levels")])]  # to each level from the one above
        width = [feature_size * 2**level for level in range(len(steps))]
        inputs = [in_channels, *width]
        super().__init__(
            config=config,
            down=[
                UnetResBlock(in_channels=inputs[i], out_channels=width[i], stride=step, **block)
                for i, step in enumerate(steps)
            ],
            up=[
                UnetUpBlock(
                    in_channels=width[i], out_channels=width[i - 1], stride=1, upsample_kernel_size=steps[i], **block
                )
                for i in range(len(steps) - 1, 0, -1)
            ],
            out=UnetOutBlock(spatial_dims=3, in_channels=feature_size, out_channels=out_channels),
            hidden_size=width[-1],
            reads_image=["0.conv1.conv.weight", *(["0.conv3.conv.weight"] if in_channels != feature_size else [])],
        )

    @classmethod
    def sizes(cls, scale: Mapping[str, Any]) -> dict[str, Any]:
        """A cell of its coarsest map is a patch of the ViT of that scale."""
        wide = 2 * scale["feature_size"]
        return {"feature_size": wide, "levels": levels_of(scale["patch_size"]), "norm": "instance"}
