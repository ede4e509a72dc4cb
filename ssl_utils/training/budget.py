"""A budget of seconds instead of steps: how long a training step takes, and how many fit."""

import time
from copy import deepcopy
from pathlib import Path
from statistics import median

import lightning as L
import torch
from torch.utils.data import default_collate

from ssl_utils.data.crops import Crops
from ssl_utils.files import read_json, write_json
from ssl_utils.training.devices import autocast, device
from ssl_utils.training.optimisers import averages

UNTIMED = 2  # first steps, in which memory is reserved and kernels are chosen
TIMED = 7


def clock() -> float:
    """Seconds of work. On a CPU all threads of this process together, so other programs do not count; on a GPU those on
    the wall, once it has done what it was given."""
    if device() == "cpu":
        return time.process_time()
    torch.accelerator.synchronize()
    return time.perf_counter()


def step_seconds(module: L.LightningModule, crops: Crops, batch_size: int, *, steps: int = TIMED) -> float:
    """Median seconds of a training step: cut crops, loss, backward, optimiser. A copy of the module is trained, and
    global random numbers are left alone."""
    spent = []
    with torch.random.fork_rng():
        trained = deepcopy(module).to(device()).train()
        optimizer = trained.configure_optimizers()["optimizer"]
        averages([optimizer], show=False)
        for step in range(UNTIMED + steps):
            started = clock()
            batch = default_collate([crops[step * batch_size + i] for i in range(batch_size)])
            batch = {name: value.to(device()) for name, value in batch.items() if torch.is_tensor(value)}
            with autocast():
                loss = trained.training_step(batch, step)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            spent.append(clock() - started)
    return median(spent[UNTIMED:])


def steps_within(
    seconds: float, module: L.LightningModule, crops: Crops, batch_size: int, *, folder: Path
) -> dict[str, float]:
    """`steps` that fit into so many seconds (at least 1), and the `step_seconds` they were computed from. Kept in
    budget.json of the run folder, so an interrupted run resumes with the same number."""
    path = folder / "budget.json"
    if not path.exists():
        each = step_seconds(module, crops, batch_size)
        write_json(path, {"steps": max(round(seconds / each), 1), "step_seconds": round(each, 5)})
    return read_json(path)
