"""The cost of a fine-tuning before it starts: operations counted on meta tensors, speed from a small probe."""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

_UNITS = ((1, "s", 120), (60, "min", 7200), (3600, "h", math.inf))
STATES = 4  # copies of the weights: themselves, their gradient, and two moments of AdamW


@dataclass(frozen=True)
class Forecast:
    """Cost of a whole fine-tuning. `seconds` is rough: within a factor of three or so."""

    tokens: int
    parameters: int
    gigabytes: float
    seconds: float

    def line(self) -> str:
        size, unit = next((s, u) for s, u, most in _UNITS if self.seconds < most)
        return (
            f"{self.tokens} tokens a crop, {self.parameters / 1e6:.2f} million weights, about {self.gigabytes:.1f} GB "
            f"beside the libraries, and about {self.seconds / size:.0f} {unit} for the "
            "steps of one fine-tuning on one core of this machine"
        )


def forecast(
    build: Callable[[], nn.Module],
    *,
    channels: int,
    roi: Sequence[int],
    patch_size: Sequence[int],
    batch_size: int,
    steps: int,
) -> Forecast:
    """Count one training step of `build()` on tensors without data, and measure the speed of this machine."""
    kept: dict[int, int] = {}
    alive: list[torch.Tensor] = []

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        kept[tensor.untyped_storage()._cdata] = tensor.untyped_storage().nbytes()  # views share one
        alive.append(tensor)  # or its address would be used again
        return tensor

    with torch.device("meta"):
        network, crops = build(), torch.empty(batch_size, channels, *roi)
    weights = sum(parameter.numel() for parameter in network.parameters())
    counter = FlopCounterMode(display=False)
    with counter, torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        network(crops).sum().backward()
    memory = 4 * STATES * weights + sum(kept.values())
    tokens = math.prod(size // side for size, side in zip(roi, patch_size, strict=True))
    return Forecast(tokens, weights, memory / 1e9, steps * counter.get_total_flops() / _speed())


def _speed() -> float:
    """Floating point operations per second of one core in a small 3D convolution, forward and backward."""
    layer, crops = nn.Conv3d(8, 8, 3, padding=1), torch.randn(2, 8, 32, 32, 32)
    counter = FlopCounterMode(display=False)
    with counter:
        layer(crops).sum().backward()
    started, rounds = time.process_time(), 0  # of the processor, so that other programs do not count
    while time.process_time() - started < 0.3:
        layer(crops).sum().backward()
        rounds += 1
    return rounds * counter.get_total_flops() / (time.process_time() - started)
