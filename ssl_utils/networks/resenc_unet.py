"""nnU-Net's U-Net with a residual encoder (Isensee et al. 2024), from the package of its authors.

encoder.stem, encoder.stages.0      ->  down.0.0, down.0.1     decoder.transpconvs.i   ->  up.i.up
encoder.stages.1, 2, ...            ->  down.1, down.2, ...    decoder.stages.i        ->  up.i.blocks
                                                               decoder.seg_layers.-1   ->  out
"""

from collections.abc import Mapping, Sequence
from pydoc import locate
from typing import Any

import torch
from torch import Tensor, nn

from ssl_utils.errors import CourseError
from ssl_utils.networks.interface import arguments, levels_of, strides, triple
from ssl_utils.networks.pyramid import PyramidNetwork
from ssl_utils.networks.unet import UNet

BLOCKS = (1, 3, 4, 6)  # residual blocks of a level, fine to coarse; deeper levels have as many as the last
WIDEST = 320  # channels
LAYERS = {  # as nnU-Net's plans name them
    "conv_op": "torch.nn.modules.conv.Conv3d",
    "norm_op": "torch.nn.modules.instancenorm.InstanceNorm3d",
    "dropout_op": None,
    "nonlin": "torch.nn.LeakyReLU",
}


def plan(feature_size: int, levels: int | Sequence[int]) -> dict[str, Any]:
    """The sizes as `arch_kwargs` of nnU-Net's plans, without the layers; fine to coarse, axes (D, H, W)."""
    steps = [(1, 1, 1), *strides([2 ** (n - 1) for n in triple(levels, "levels")])]
    return {
        "n_stages": len(steps),
        "features_per_stage": [min(feature_size * 2**level, WIDEST) for level in range(len(steps))],
        "kernel_sizes": [[3, 3, 3] for _ in steps],
        "strides": [list(step) for step in steps],
        "n_blocks_per_stage": [BLOCKS[min(level, len(BLOCKS) - 1)] for level in range(len(steps))],
        "n_conv_per_stage_decoder": [1] * (len(steps) - 1),
        "conv_bias": True,
        "norm_op_kwargs": {"eps": 1e-5, "affine": True},
        "dropout_op_kwargs": None,
        "nonlin_kwargs": {"inplace": True},
    }


def original(*, in_channels: int, out_channels: int, feature_size: int, levels: int | Sequence[int]) -> nn.Module:
    """The network of the package, initialised as nnU-Net does. Raises CourseError when the package is missing."""
    try:
        from dynamic_network_architectures.architectures.unet import ResidualEncoderUNet
    except ImportError:
        why = "the package dynamic-network-architectures is not installed"
        raise CourseError(f"network='resenc_unet': {why}; install the extra [nnunet], or choose unet") from None
    layers = {name: path and locate(path) for name, path in LAYERS.items()}
    sizes = {"input_channels": in_channels, "num_classes": out_channels}
    network = ResidualEncoderUNet(**sizes, **plan(feature_size, levels), **layers)
    return network.apply(network.initialize)


def named_once(network: nn.Module) -> nn.Module:
    """The package registers every layer of a block twice, by its kind and in `all_modules`; only the second is kept, so
    that a file holds, and a report counts, each tensor once."""
    for block in network.modules():
        if hasattr(block, "all_modules"):
            for name in [name for name in block._modules if name != "all_modules"]:
                del block._modules[name]
    return network


class Up(nn.Module):
    """Double the map, concatenate that of the encoder, convolve."""

    def __init__(self, up: nn.Module, blocks: nn.Module) -> None:
        super().__init__()
        self.up, self.blocks = up, blocks

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        return self.blocks(torch.cat([self.up(x), skip], 1))


class ResEncUNet(PyramidNetwork):
    """Image (B, in_channels, D, H, W) to logits (B, out_channels, D, H, W); D, H, W multiples of 2^(levels - 1).

    Args:
        img_size: the crop of the token grid, for pretraining; the network takes other sizes too.
        feature_size: channels at full resolution, doubled at every level, at most 320 (nnU-Net: 32).
        levels: of the pyramid; one number per axis where an axis is halved less often, and then last.

    Raises:
        CourseError: the package of nnU-Net's networks is not installed, or `img_size` is not a multiple.
    """

    patch_per_axis = True

    def __init__(
        self,
        *,
        in_channels: int,
        out_channels: int,
        img_size: int | Sequence[int] | None = None,
        feature_size: int = 32,
        levels: int | Sequence[int] = 6,
    ) -> None:
        config = {"network": "resenc_unet", **arguments(locals())}
        sizes = {"in_channels": in_channels, "feature_size": feature_size, "levels": levels}
        network = named_once(original(**sizes, out_channels=out_channels))
        encoder, decoder = network.encoder, network.decoder
        super().__init__(
            config=config,
            down=[nn.Sequential(encoder.stem, encoder.stages[0]), *encoder.stages[1:]],
            up=[Up(*pair) for pair in zip(decoder.transpconvs, decoder.stages, strict=True)],
            out=decoder.seg_layers[-1],
            hidden_size=encoder.output_channels[-1],
            reads_image=["0.0.convs.0.all_modules.0.weight"],
        )

    @classmethod
    def sizes(cls, scale: Mapping[str, Any]) -> dict[str, Any]:
        """As wide as `UNet`; a cell of its coarsest map is a patch of the ViT of that scale."""
        return {"feature_size": UNet.sizes(scale)["feature_size"], "levels": levels_of(scale["patch_size"])}

    @torch.no_grad()
    def as_original(self) -> nn.Module:
        """The network of the package, with the names that nnU-Net knows, and these weights."""
        sizes = {name: self.config[name] for name in ("in_channels", "out_channels", "feature_size", "levels")}
        network = original(**sizes)
        encoder, decoder = network.encoder, network.decoder
        finest, *deeper = self.down
        ours = [*finest, *deeper, *(step.up for step in self.up), *(step.blocks for step in self.up)]
        theirs = [encoder.stem, *encoder.stages, *decoder.transpconvs, *decoder.stages]
        for one, other in zip([*ours, self.out], [*theirs, decoder.seg_layers[-1]], strict=True):
            for weight, target in zip(one.parameters(), other.parameters(), strict=True):
                target.copy_(weight)
        return network
