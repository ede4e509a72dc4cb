"""The same network without the code of this package: as a class of MONAI where it has one, else as TorchScript."""

import warnings
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import monai.networks.nets as nets
import torch
from torch import Tensor, nn

from ssl_utils.errors import CourseError
from ssl_utils.networks.interface import SegmentationNetwork, strides, triple
from ssl_utils.networks.mednext import VARIANTS, of_levels

NEAR = 1e-5  # largest difference of two logits of equal networks


class Twin(NamedTuple):
    """A network in evaluation mode, and how a bundle builds it: class and arguments; None for TorchScript."""

    network: nn.Module
    target: dict[str, Any] | None


Pairs = Iterable[tuple[nn.Module, nn.Module]]  # a part of the twin, and the part whose weights it takes


def twin(network: SegmentationNetwork) -> Twin:
    """The twin of a network. Raises CourseError when its logits on noise are not those of the network to 1e-5."""
    config = network.config
    crop = torch.randn(
        2, config["in_channels"], *triple(config["img_size"]), generator=torch.Generator().manual_seed(0)
    )
    target = ARGUMENTS[config["network"]](config) if config["network"] in ARGUMENTS else None
    network = network.cpu().eval()
    made = Twin(in_monai(network, target) if target else scripted(network, crop), target)
    check_equal(network, made.network, crop)
    return made


@torch.no_grad()
def check_equal(network: nn.Module, other: nn.Module, crop: Tensor) -> None:
    """Raises CourseError when the two differ on a crop (B, C, D, H, W), or on its first image alone."""
    for batch in (crop, crop[:1]):
        gap = float((network(batch) - other(batch)).abs().max())
        if not gap <= NEAR:
            name = network.config["network"]
            raise CourseError(f"network={name!r}: its export differs by {gap:.2g}; open an issue with the model's card")


@torch.no_grad()
def scripted(network: nn.Module, crop: Tensor) -> torch.jit.ScriptModule:
    with warnings.catch_warnings(action="ignore"):  # sizes become constants, as they should: crops have one size
        return torch.jit.trace(network, crop, check_trace=False)


def in_monai(network: SegmentationNetwork, target: dict[str, Any]) -> nn.Module:
    arguments = {name: value for name, value in target.items() if name != "_target_"}
    made = getattr(nets, target["_target_"])(**arguments)
    for part, source in PAIRS[target["_target_"]](made, network):
        part.load_state_dict(source.state_dict(), strict=False)  # MONAI's ViT has weights that it does not use
    return made.eval()


def dynunet(config: dict[str, Any]) -> dict[str, Any]:
    steps = [1, *strides([2 ** (n - 1) for n in triple(config["levels"])])]
    return _arguments("DynUNet", config) | {
        "kernel_size": [3] * len(steps),
        "strides": [list(step) if isinstance(step, tuple) else step for step in steps],
        "upsample_kernel_size": [list(step) for step in steps[1:]],
        "filters": [config["feature_size"] * 2**level for level in range(len(steps))],
        "norm_name": {"group": ["group", {"num_groups": 4}]}.get(config["norm"], config["norm"]),
        "res_block": True,
    }


def mednext(config: dict[str, Any]) -> dict[str, Any]:
    blocks = of_levels(VARIANTS["S"].blocks, config["levels"])
    return _arguments("MedNeXt", config) | {
        "init_filters": config["feature_size"],
        "kernel_size": config["kernel_size"],
        "use_residual_connection": True,
        "blocks_down": list(blocks[:-1]),
        "blocks_bottleneck": blocks[-1],
        "blocks_up": list(blocks[:-1]),
    }


def unetr(config: dict[str, Any]) -> dict[str, Any] | None:
    """None for sizes that MONAI's UNETR does not have."""
    if config["patch_size"] != [16] * 3 or config["num_layers"] != 12:
        return None
    if any(config.get(option) for option in ("image_skips", "as_2d", "relative", "dropout")):
        return None
    names = ("img_size", "feature_size", "hidden_size", "mlp_dim", "num_heads")
    same = {name: value for name, value in _arguments("UNETR", config).items() if name != "spatial_dims"}
    return same | {name: config[name] for name in names}


def _arguments(name: str, config: dict[str, Any]) -> dict[str, Any]:
    return {"_target_": name, "spatial_dims": 3, **{key: config[key] for key in ("in_channels", "out_channels")}}


def _parts_of_dynunet(made: nn.Module, network: Any) -> Pairs:
    yield made.input_block, network.down[0]
    yield from zip(made.downsamples, [*network.down][1:-1], strict=True)
    yield made.bottleneck, network.down[-1]
    yield from zip(made.upsamples, network.up, strict=True)
    yield made.output_block, network.out


def _parts_of_mednext(made: nn.Module, network: Any) -> Pairs:
    leads, rows = zip(*network.down, strict=True)
    yield from zip([made.stem, *made.down_blocks], leads, strict=True)
    yield from zip([*made.enc_stages, made.bottleneck], rows, strict=True)
    for up, stage, step in zip(made.up_blocks, made.dec_stages, network.up, strict=True):
        yield from ((up, step.up), (stage, step.blocks))
    yield made.out_0, network.out


ARGUMENTS: dict[str, Callable[[dict[str, Any]], dict[str, Any] | None]] = {
    "unet": dynunet,
    "mednext": mednext,
    "unetr": unetr,
}
PAIRS: dict[str, Callable[[nn.Module, Any], Pairs]] = {
    "DynUNet": _parts_of_dynunet,
    "MedNeXt": _parts_of_mednext,
    "UNETR": lambda made, network: [(made, network)],
}
