"""Optimisers by name: AdamW with one of three schedules of its learning rate, or schedule-free AdamW, which has none.

Importing this registry needs no PyTorch.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

WARMUP = 0.1  # share of the steps in which the learning rate rises to its peak, linearly, with every optimiser


def cosine(done: float) -> float:
    """Half a cosine to zero (Loshchilov and Hutter 2017)."""
    return 0.5 * (1 + math.cos(math.pi * done))


def polynomial(done: float, *, power: float = 0.9) -> float:
    """Almost a straight line to zero, as in nnU-Net (Isensee et al. 2021) and MedNeXt (Roy et al. 2023)."""
    return (1 - done) ** power


def restarts(done: float, *, cycles: int = 3, shrink: float = 0.5) -> float:
    """Cosines that start again, each at half the rate of the one before (SGDR: Loshchilov and Hutter 2017)."""
    cycle = min(int(cycles * done), cycles - 1)
    return shrink**cycle * cosine(cycles * done - cycle)


class Entry(NamedTuple):
    """The schedule, from the share of the steps after the warm-up that is done (0..1) to the factor on the learning
    rate; None: schedule-free. `lr` is the learning rate by default; None: that of the scale."""

    schedule: Callable[[float], float] | None
    lr: float | None = None


DEFAULT = "adamw_cosine"
OPTIMISERS = {  # name -> entry
    DEFAULT: Entry(cosine),
    "adamw_polynomial": Entry(polynomial),
    "adamw_restarts": Entry(restarts),
    "schedule_free": Entry(None, lr=2.7e-3),  # of BraTS-UGRIP; constant after the warm-up
}


def configured(name: str, groups: list[dict], *, steps: int, betas: tuple[float, float]) -> dict[str, Any]:
    """The optimiser of these parameter groups with its schedule, stepped every batch, as Lightning expects them."""
    import torch

    schedule, peak = OPTIMISERS[name].schedule, max(round(WARMUP * steps), 1)
    if schedule is None:
        return {"optimizer": schedule_free(groups, betas=betas, warmup_steps=peak)}

    def factor(step: int) -> float:
        return (step + 1) / peak if step < peak else schedule(min((step - peak) / max(steps - peak, 1), 1))

    optimizer = torch.optim.AdamW(groups, betas=betas, fused=True)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}


def schedule_free(groups: list[dict], *, betas: tuple[float, float], warmup_steps: int):
    """AdamW without a schedule (Defazio et al. 2024). It keeps three sets of weights:

    z, which takes AdamW's steps; x, the mean of all z so far; y = beta1 x + (1 - beta1) z, where gradients are taken.
    The network holds y after `train()` and x, which is the result, after `eval()`.
    """
    from schedulefree import AdamWScheduleFree

    return AdamWScheduleFree(groups, betas=betas, warmup_steps=warmup_steps)


def averages(optimizers: Sequence[Any], *, show: bool) -> None:
    """Put the averaged weights x into the network (`show`), or the weights y to train. Others have one set only."""
    for optimizer in optimizers:
        if hasattr(optimizer, "eval"):
            optimizer.eval() if show else optimizer.train()
