"""The files of a training: history.csv, last.ckpt and curves, and one printed line per validation."""

import math
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import lightning as L
import pandas as pd
import torch
from torch import Tensor
from tqdm.auto import tqdm

from ssl_utils.errors import CourseError
from ssl_utils.files import atomic
from ssl_utils.live import live
from ssl_utils.training.logs import Logs
from ssl_utils.training.stopwatch import EVERY, Stopwatch

POINTS = 200  # of the training loss in TensorBoard and W&B, however long the run


class Recorder(L.Callback):
    """Writes history.csv, last.ckpt and the logs after every validation, prints one line, and stops on a loss that is
    not finite. In a team the first process does so; all keep the same rows, with losses of the whole step.

    Reading a loss makes a GPU wait, so losses are read every EVERY-th step, just before the stopwatch measures one.

    Args:
        cases: the cases in the crops of a step, for the error message.
    """

    def __init__(
        self, folder: Path, *, steps: int, headline: str, cases: Callable[[int], list[str]], stopwatch: Stopwatch
    ) -> None:
        self.folder, self.steps, self.headline, self.stopwatch = folder, steps, headline, stopwatch
        self.cases = cases
        self.rows: list[dict] = []
        self.unread: list[Tensor] = []
        self.losses: list[float] = []
        self.points: list[tuple[int, dict[str, float]]] = []  # (step, values) of the logs
        self.seconds = 0.0  # before the last resume
        self.bar, self.logs = tqdm(disable=True), None

    def elapsed(self) -> float:
        return self.seconds + time.perf_counter() - self.started

    def state_dict(self) -> dict:
        return {"rows": self.rows, "points": self.points, "seconds": self.elapsed()}

    def load_state_dict(self, state: dict) -> None:
        self.rows, self.points, self.seconds = state["rows"], state["points"], state["seconds"]

    def note(self, step: int, values: dict[str, float]) -> None:
        self.points.append((step, values))
        if self.logs is not None:
            self.logs.write(step, values)

    def on_train_start(self, trainer, module) -> None:
        self.started = time.perf_counter()
        if trainer.is_global_zero:
            self.logs = Logs(self.folder, headline=self.headline, points=self.points)
            if sys.stderr.isatty() or live():
                self.bar = tqdm(total=self.steps, initial=trainer.global_step, desc=self.headline, unit="step")

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx) -> None:
        self.unread.append(outputs["loss"].detach())
        if module.device.type == "cpu" or trainer.global_step % EVERY == 1 or trainer.is_last_batch:
            self.read(trainer)
        self.bar.update()
        self.stopwatch.end_of_step()

    def read(self, trainer) -> None:
        """The losses since the last read, averaged over the team before any process stops."""
        losses = trainer.strategy.reduce(torch.stack(self.unread), reduce_op="mean").tolist()
        self.unread = []
        for step, loss in enumerate(losses, trainer.global_step - len(losses) + 1):
            if not math.isfinite(loss):
                if not trainer.is_global_zero:
                    raise SystemExit(0)
                reason = f"the loss is {loss} at step {step}, with crops of {', '.join(self.cases(step))}"
                raise CourseError(f"{self.folder}: {reason}; run the doctor on them, or lower the learning rate")
            if step % max(self.steps // POINTS, 1) == 0:
                self.note(step, {"train_loss_step": loss})
        self.losses += losses

    def on_train_epoch_end(self, trainer, module) -> None:
        validation = {k: float(v) for k, v in trainer.callback_metrics.items() if k.startswith("validation")}
        values = {"epoch": trainer.current_epoch, "train_loss": sum(self.losses) / len(self.losses), **validation}
        values |= {"lr": trainer.optimizers[0].param_groups[-1]["lr"], "seconds": round(self.elapsed(), 2)}
        self.losses = []
        self.rows.append({"step": trainer.global_step, **values})
        self.note(trainer.global_step, values)
        first = trainer.is_global_zero
        if first:
            with atomic(self.folder / "history.csv") as temporary:
                pd.DataFrame(self.rows).to_csv(temporary, index=False)
        with atomic(self.folder / "last.ckpt") if first else nullcontext() as temporary:
            trainer.save_checkpoint(temporary)  # called by all, written by the first
        scores = "  ".join(f"{k.removeprefix('validation_')} {v:.4f}" for k, v in validation.items())
        self.bar.set_postfix_str(scores)
        if first and self.bar.disable:
            progress = f"step {trainer.global_step}/{self.steps}  train {values['train_loss']:.4f}"
            print(f"{self.headline}: {progress}  {scores}  {values['seconds']:.0f} s", flush=True)
        self.stopwatch.mark("logging")

    def on_exception(self, trainer, module, exception) -> None:
        if self.logs:
            self.logs.close(failed=True)

    def on_train_end(self, trainer, module) -> None:
        if self.logs:
            self.logs.close(failed=False)
        self.bar.close()
