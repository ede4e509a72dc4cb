"""The seconds of a training by what they were spent on: a clock that is read in the hooks of the trainer."""

from functools import partialmethod
from time import perf_counter

import lightning as L
import torch

STEP = ("forward", "backward", "optimiser", "logging")
PARTS = ("data", *STEP, "validation")
EVERY = 10  # on a GPU: the clock waits for one step in so many


class Stopwatch(L.Callback):
    """Splits the wall-clock seconds of a training into PARTS; put it before all other callbacks.

    data: reading and augmenting a batch and moving it to the device; forward: masks, corruption, network, loss;
    optimiser: clipping and schedule too; logging: the other callbacks at the end of a step (the last of them calls
    `end_of_step`) and of an epoch, with checkpoints; validation: with the other callbacks at its end.

    A GPU works asynchronously: without waiting, forward seems to cost nothing, and the first read of a number (the
    loss, in logging) everything. Waiting at every mark would slow training down, so the clock waits in every `every`-th
    step only and divides the seconds of the other steps in the same proportions. Their sum is exact, since the recorder
    reads the losses, for which it waits too, at the end of the step before. On a CPU every step is measured.
    """

    def __init__(self, every: int = EVERY) -> None:
        self.every = every
        self.period = "between"  # steps, or in a step that is "sampled" (measured part by part) or one of the "others"
        self.seconds = {period: dict.fromkeys(PARTS, 0.0) for period in ("between", "sampled", "others")}
        self.last: float | None = None  # reading of the clock; none before training begins

    @property
    def spent(self) -> dict[str, float]:
        """Seconds of each of PARTS since the first step, resumed or not. (A single step on a GPU: "forward".)"""
        between, sampled = self.seconds["between"], self.seconds["sampled"]
        total, others = sum(sampled.values()), sum(self.seconds["others"].values())
        shares = {part: sampled[part] / total if total else float(part == "forward") for part in PARTS}
        return {part: round(between[part] + sampled[part] + others * shares[part], 3) for part in PARTS}

    def state_dict(self) -> dict:
        self.mark("logging")
        return {"seconds": self.seconds}

    def load_state_dict(self, state: dict) -> None:
        self.seconds = state["seconds"]

    def mark(self, part: str, *_) -> None:
        """Count the time since the last mark as time of this part."""
        if self.last is None:
            return
        if self.period == "sampled" and torch.accelerator.is_available():
            torch.accelerator.synchronize()
        now = perf_counter()
        self.seconds[self.period][part] += now - self.last
        self.last = now

    on_before_backward = partialmethod(mark, "forward")
    on_after_backward = partialmethod(mark, "backward")
    on_train_batch_end = partialmethod(mark, "optimiser")
    on_validation_end = partialmethod(mark, "validation")

    def on_train_epoch_start(self, trainer, module) -> None:
        if self.last is None:
            self.last = perf_counter()

    def on_train_batch_start(self, trainer, module, batch, batch_idx) -> None:
        self.mark("data")
        measured = module.device.type == "cpu" or trainer.global_step % self.every == 1
        self.period = "sampled" if measured else "others"

    def end_of_step(self) -> None:
        """To be called by the last callback of a step."""
        self.mark("logging")
        self.period = "between"
