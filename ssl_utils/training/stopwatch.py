"""Where do the seconds of a training go? A clock that is read between the hooks of the trainer."""

from time import perf_counter

import lightning as L
import torch

STEP = ("forward", "backward", "optimiser", "logging")
PARTS = ("data", *STEP, "validation")
EVERY = 10  # on a GPU: every so manieth step is waited for


class Stopwatch(L.Callback):
    """Splits the wall-clock seconds of a training into PARTS; put it before all other callbacks.

    data: reading and augmenting a batch and moving it to the device; forward: masks, corruption, network, loss;
    optimiser: clipping and schedule too; logging: what other callbacks do at the end of a step (the last of them calls
    `end_of_step`) and of an epoch, checkpoints too; validation: with whatever other callbacks do at its end.

    A GPU works behind the back of a clock that does not wait for it: forward then looks free, and whoever first asks
    for a number (here the logging, for the loss) is charged with everything. Waiting at every mark would slow training
    down, so it waits in every `every`-th step only, and the seconds of the others are divided as those were. What they
    sum to is exact all the same, for every step ends with the loss being read. On a CPU every step is measured.
    """

    def __init__(self, every: int = EVERY) -> None:
        self.every = every
        self.direct = dict.fromkeys(PARTS, 0.0)  # whenever the clock can be believed, but for:
        self.sampled = dict.fromkeys(STEP, 0.0)  # steps that were waited for
        self.others = 0.0  # steps that were not, whole
        self.last: float | None = None  # reading of the clock; none before training begins
        self.where = "between"  # steps, or in a step "sampled" or not: "others"

    @property
    def spent(self) -> dict[str, float]:
        """Seconds of each of PARTS since the first step, resumed or not. (A single step on a GPU: "forward".)"""
        whole = sum(self.sampled.values())
        shares = {part: self.sampled[part] / whole if whole else float(part == "forward") for part in STEP}
        steps = {part: self.sampled[part] + self.others * shares[part] for part in STEP}
        return {part: round(self.direct[part] + steps.get(part, 0.0), 3) for part in PARTS}

    def state_dict(self) -> dict:
        self.mark("logging")
        return {"direct": self.direct, "sampled": self.sampled, "others": self.others}

    def load_state_dict(self, state: dict) -> None:
        self.direct, self.sampled, self.others = dict(state["direct"]), dict(state["sampled"]), state["others"]

    def mark(self, part: str) -> None:
        """The time since the last mark was spent on this part."""
        if self.last is None:
            return
        if self.where == "sampled" and torch.accelerator.is_available():
            torch.accelerator.synchronize()
        now = perf_counter()
        elapsed, self.last = now - self.last, now
        if self.where == "others":
            self.others += elapsed
        else:
            sums = self.sampled if self.where == "sampled" else self.direct
            sums[part] += elapsed

    def on_train_epoch_start(self, trainer, module) -> None:
        if self.last is None:
            self.last = perf_counter()

    def on_train_batch_start(self, trainer, module, batch, batch_idx) -> None:
        self.mark("data")
        wait = module.device.type == "cpu" or trainer.global_step % self.every == 1
        self.where = "sampled" if wait else "others"

    def on_before_backward(self, trainer, module, loss) -> None:
        self.mark("forward")

    def on_after_backward(self, trainer, module) -> None:
        self.mark("backward")

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx) -> None:
        self.mark("optimiser")

    def end_of_step(self) -> None:
        """The last callback is done with this step."""
        self.mark("logging")
        self.where = "between"

    def on_validation_end(self, trainer, module) -> None:
        self.mark("validation")
