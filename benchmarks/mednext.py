"""A training step of MedNeXt-S against MONAI's, and what gradient checkpointing saves and costs.

python -m benchmarks.mednext plain|checkpointing SIDE   # peak memory of one step in this process, in gigabytes
"""

import sys
from collections.abc import Callable

import torch
from monai.losses import DiceCELoss
from monai.networks.nets.mednext import create_mednext
from torch import nn

from benchmarks.race import furthest, in_child, peak_gigabytes, race
from ssl_utils.networks.mednext import MedNeXt
from ssl_utils.training.devices import autocast, device

CHANNELS = {"in_channels": 4, "out_channels": 3}  # of a brain tumour: four sequences, three regions


def stepper(network: nn.Module, images: torch.Tensor, regions: torch.Tensor) -> Callable[[], None]:
    """Forward and loss in the precision of this machine, backward, AdamW."""
    loss, optimizer = DiceCELoss(sigmoid=True, batch=True), torch.optim.AdamW(network.parameters(), lr=1e-6)

    def step() -> None:
        optimizer.zero_grad()
        with autocast():
            logits = network(images)
        loss(logits.float(), regions).backward()
        optimizer.step()

    return step


def crops(side: int, batch: int) -> tuple[torch.Tensor, torch.Tensor]:
    images = torch.randn(batch, CHANNELS["in_channels"], side, side, side, device=device())
    return images, (images[:, : CHANNELS["out_channels"]] > 1).float()


def gradients(network: nn.Module, images: torch.Tensor, regions: torch.Tensor) -> torch.Tensor:
    """Of all weights, one after the other, sorted by shape and size: the networks list them in another order."""
    DiceCELoss(sigmoid=True, batch=True)(network(images), regions).backward()
    rows = sorted((tuple(p.shape), float(p.grad.double().abs().sum())) for p in network.parameters())
    network.zero_grad()
    return torch.tensor([size for _, size in rows])


def step(*, repeats: int, side: int = 48, batch: int = 1) -> dict:
    """Ours differs in how the gradients of depthwise kernels are computed (`networks/depthwise.py`), on a CPU."""
    networks = []
    for make in (lambda: MedNeXt(**CHANNELS), lambda: create_mednext("S", **CHANNELS)):
        torch.manual_seed(0)
        networks.append(make().to(device()))
    batch_of = crops(side, batch)
    with torch.no_grad():
        apart = furthest(*(network(batch_of[0]) for network in networks))
    equality = (
        f"logits within {apart:.0e}, gradients within {furthest(*(gradients(n, *batch_of) for n in networks)):.0e}"
    )
    return race("mednext_step", *(stepper(n, *batch_of) for n in networks), equality=equality, repeats=repeats)


def checkpointing(*, repeats: int, side: int = 64) -> dict:
    """Ours with checkpointing against ours without: seconds, and under `equality` the memory, a process each."""
    networks = []
    for flag in (True, False):
        torch.manual_seed(0)
        networks.append(MedNeXt(**CHANNELS, checkpointing=flag).to(device()))
    batch_of = crops(side, 1)
    apart = furthest(*(gradients(network, *batch_of) for network in networks))
    less, plain = (float(in_child("benchmarks.mednext", how, str(side))) for how in ("checkpointing", "plain"))
    equality = f"gradients within {apart:.0e}; peak {less:.2f} against {plain:.2f} GB, a process each"
    rivals = (stepper(network, *batch_of) for network in networks)
    return race("lever_checkpointing", *rivals, equality=equality, repeats=repeats)


if __name__ == "__main__":
    torch.manual_seed(0)
    stepper(MedNeXt(**CHANNELS, checkpointing=sys.argv[1] == "checkpointing"), *crops(int(sys.argv[2]), 1))()
    print(peak_gigabytes())
