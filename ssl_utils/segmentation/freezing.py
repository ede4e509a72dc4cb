"""Which parts of a network are trained: stages by their names, or a share of its parameters."""

import difflib
from itertools import accumulate

from torch import nn

from ssl_utils.errors import CourseError
from ssl_utils.networks.interface import SegmentationNetwork


def stages(network: SegmentationNetwork) -> dict[str, nn.Module]:
    """Its parts by name, from the image to the output: `level_0`, ... of the encoder, then those of the decoder."""
    parts = {name.replace(" ", "_"): part for name, part in network.encoder_parts().items()}
    for name, part in network.named_children():
        if isinstance(part, nn.ModuleList) and name != network.encoder_name:
            parts |= {f"{name}_{number}": one for number, one in enumerate(part)}
        elif name != network.encoder_name:
            parts[name] = part
    return parts


def chosen(network: SegmentationNetwork, names: str, option: str) -> list[nn.Module]:
    """The stages of these names, joined by `+`. Raises CourseError with the nearest name of one that is not there."""
    parts = stages(network)
    for name in names.split("+"):
        if name not in parts:
            similar = difflib.get_close_matches(name, parts, n=1)
            hint = f"did you mean {similar[0]}?" if similar else f"it has {', '.join(parts)}"
            raise CourseError(f"{option}={names!r}: {network.config['network']} has no stage {name}; {hint}")
    return [parts[name] for name in names.split("+")]


def train_only(network: SegmentationNetwork, what: str) -> tuple[int, int]:
    """Freeze all parameters but those of stages `what`, as in `up_3+out`, or for a number such as 0.005 but those of
    the last layers that have together at most this share of the parameters, and at least one layer.

    Returns how many parameters are trained, and how many there are. Raises CourseError for an unknown stage, or a share
    that is not between 0 and 1.
    """
    every = list(network.parameters())
    total = sum(parameter.numel() for parameter in every)
    if (share := _number(what)) is None:
        trained = [parameter for part in chosen(network, what, "trainable") for parameter in part.parameters()]
    elif 0 < share < 1:
        trained = last_share(network, share * total)
    else:
        raise CourseError(f"trainable={what}: must be above 0 and below 1, or names of stages")
    for parameter in every:
        parameter.requires_grad_(any(parameter is one for one in trained))
    return sum(parameter.numel() for parameter in every if parameter.requires_grad), total


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def last_share(network: nn.Module, most: float) -> list[nn.Parameter]:
    """Parameters of the last layers, in the order in which the network lists them, that are at most so many numbers."""
    layers = [[*m.parameters()] for m in reversed([*network.modules()]) if not [*m.children()] and [*m.parameters()]]
    sizes = accumulate(sum(parameter.numel() for parameter in layer) for layer in layers)
    count = max(sum(size <= most for size in sizes), 1)
    return [parameter for layer in layers[:count] for parameter in layer]


def frozen_layers(network: nn.Module) -> list[nn.Module]:
    """Layers of which no parameter is trained; their batch norm must keep its statistics."""
    layers = [layer for layer in network.modules() if not [*layer.children()]]
    return [one for one in layers if not any(parameter.requires_grad for parameter in one.parameters())]


def last_layers(network: nn.Module, count: int, layer: str) -> list[str]:
    """Names of the parameters in the last `count` layers, by what is called a layer: `child` of the network, any
    `module` in it, `leaf` (a module without others in it), or `tensor` of parameters. Four readings of one sentence."""
    if layer == "tensor":
        return [name for name, _ in network.named_parameters()][-count:]
    layers = {
        "child": [name for name, _ in network.named_children()],
        "module": [name for name, _ in network.named_modules() if name],
        "leaf": [name for name, module in network.named_modules() if not [*module.children()]],
    }
    inside = tuple(f"{name}." for name in layers[layer][-count:])
    return [name for name, _ in network.named_parameters() if name.startswith(inside)]
