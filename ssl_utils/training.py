"""One way to train, shared by every pretext task and by fine-tuning: optimiser, schedule, record, resume.

An epoch is the stretch between two validations. A checkpoint is written at the end of each; crops, masks and
corruptions are functions of the step number, so a run that goes on from it ends with the same numbers.
"""

import math
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import lightning as L
import pandas as pd
import torch
from lightning.pytorch.utilities import disable_possible_user_warnings
from torch import nn
from torch.utils.data import DataLoader

from ssl_utils.data.crops import Consecutive, Crops
from ssl_utils.errors import CourseError
from ssl_utils.files import atomic
from ssl_utils.live import live
from ssl_utils.logs import Logs
from ssl_utils.stopwatch import Stopwatch

POINTS = 200  # of the training loss in TensorBoard and W&B, however long the run


def device() -> str:
    """`cuda`, `mps` or `cpu`: the best this machine has."""
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def precision() -> str:
    """`bf16-mixed` where the device multiplies bfloat16 natively, else `32-true`.

    On a processor with AVX-512 bf16 a UNETR step took 0.21 s in place of 0.33 s. The price: activations keep 8 bits of
    mantissa, so numbers differ from a float32 run as another seed would; weights and losses stay float32.
    """
    native = torch.cuda.is_bf16_supported(False) if device() == "cuda" else torch.cpu._is_avx512_bf16_supported()
    return "bf16-mixed" if native and device() != "mps" else "32-true"


def parameter_groups(modules: Iterable[tuple[nn.Module, float]], *, lr: float, weight_decay: float) -> list[dict]:
    """AdamW groups for (module, learning-rate factor) pairs; weight decay only on matrices and kernels, never on norms,
    biases, positions or mask tokens."""
    groups = []
    for module, factor in modules:
        named = [(n, p) for n, p in module.named_parameters() if p.requires_grad]
        decayed = [p for n, p in named if p.ndim > 1 and "position" not in n and "token" not in n]
        kept = {id(p) for p in decayed}
        rest = [p for _, p in named if id(p) not in kept]
        groups += [
            {"params": params, "lr": lr * factor, "weight_decay": decay}
            for params, decay in ((decayed, weight_decay), (rest, 0.0))
            if params
        ]
    return groups


def adamw(groups: list[dict], *, steps: int, warmup: float = 0.1, betas: tuple[float, float] = (0.9, 0.95)) -> dict:
    """Fused AdamW with linear warm-up over `warmup` of the steps, then a cosine to zero, stepped every batch."""
    optimizer = torch.optim.AdamW(groups, betas=betas, fused=True)
    start = max(round(warmup * steps), 1)

    def factor(step: int) -> float:
        if step < start:
            return (step + 1) / start
        return 0.5 * (1 + math.cos(math.pi * min((step - start) / max(steps - start, 1), 1)))

    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


class Clip(L.Callback):
    """Scales gradients down to a norm of at most 1. (Lightning's own clipping refuses the fused optimiser in mixed
    precision, for a scaler that bfloat16 does not have.)"""

    def on_before_optimizer_step(self, trainer, module, optimizer) -> None:
        nn.utils.clip_grad_norm_(module.parameters(), 1.0)


class Recorder(L.Callback):
    """Writes history.csv, last.ckpt and the logs after every validation, prints one line, and stops on a loss that is
    not a number."""

    def __init__(
        self, folder: Path, *, steps: int, headline: str, cases: Callable[[int], list[str]], stopwatch: Stopwatch
    ) -> None:  # fmt: skip
        self.folder, self.steps, self.headline, self.stopwatch = folder, steps, headline, stopwatch
        self.cases = cases  # that the crops of a step are from, for a fault to name
        self.rows: list[dict] = []
        self.losses: list[float] = []
        self.points: list[tuple[int, dict[str, float]]] = []  # (step, values): what the logs hold
        self.seconds = 0.0
        self.bar = self.logs = None

    @property
    def spent(self) -> dict[str, float]:
        """Seconds of the training by what they were spent on."""
        return self.stopwatch.spent

    def state_dict(self) -> dict:
        spent = time.perf_counter() - self.started
        return {"rows": self.rows, "points": self.points, "seconds": self.seconds + spent}

    def load_state_dict(self, state: dict) -> None:
        self.rows, self.points, self.seconds = state["rows"], state.get("points", []), state["seconds"]

    def note(self, step: int, values: dict[str, float]) -> None:
        self.points.append((step, values))
        self.logs.write(step, values)

    def on_train_start(self, trainer, module) -> None:
        self.logs = Logs(self.folder, headline=self.headline, points=self.points)
        self.started = time.perf_counter()
        if sys.stderr.isatty() or live():
            from tqdm.auto import tqdm

            self.bar = tqdm(total=self.steps, initial=trainer.global_step, desc=self.headline, unit="step")

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx) -> None:
        self.losses.append(float(outputs["loss"].detach()))
        if not math.isfinite(self.losses[-1]):
            raise CourseError(
                f"{self.folder}: the loss is {self.losses[-1]} at step {trainer.global_step}, with crops of "
                f"{', '.join(self.cases(trainer.global_step))}; run the doctor on them, or lower the learning rate"
            )
        if trainer.global_step % max(self.steps // POINTS, 1) == 0:
            self.note(trainer.global_step, {"train_loss_step": self.losses[-1]})
        if self.bar is not None:
            self.bar.update()
        self.stopwatch.end_of_step()

    def on_train_epoch_end(self, trainer, module) -> None:
        logged = {k: float(v) for k, v in trainer.callback_metrics.items() if k.startswith("validation")}
        row = {
            "step": trainer.global_step, "epoch": trainer.current_epoch,
            "train_loss": sum(self.losses) / len(self.losses),
            **logged, "lr": trainer.optimizers[0].param_groups[-1]["lr"],
            "seconds": round(self.seconds + time.perf_counter() - self.started, 2),
        }  # fmt: skip
        self.losses = []
        self.rows.append(row)
        self.note(row["step"], {key: value for key, value in row.items() if key != "step"})
        with atomic(self.folder / "history.csv") as temporary:
            pd.DataFrame(self.rows).to_csv(temporary, index=False)
        with atomic(self.folder / "last.ckpt") as temporary:
            trainer.save_checkpoint(temporary)
        figures = "  ".join(f"{k.removeprefix('validation_')} {v:.4f}" for k, v in logged.items())
        step, seconds = f"step {row['step']}/{self.steps}", f"{row['seconds']:.0f} s"
        line = f"{self.headline}: {step}  train {row['train_loss']:.4f}  {figures}  {seconds}"
        if self.bar is not None:
            self.bar.set_postfix_str(figures)
        else:
            print(line, flush=True)
        self.stopwatch.mark("logging")

    def on_exception(self, trainer, module, exception) -> None:
        if self.logs is not None:
            self.logs.close(failed=True)

    def on_train_end(self, trainer, module) -> None:
        self.logs.close(failed=False)
        if self.bar is not None:
            self.bar.close()


def fit(
    module: L.LightningModule, *, crops: Crops, validation: DataLoader, folder: Path, steps: int, batch_size: int,
    validations: int, headline: str, callbacks: Sequence[L.Callback] = (),
) -> Recorder:  # fmt: skip
    """Train for `steps` steps with `validations` validations, going on from `folder/last.ckpt` when there is one.

    `callbacks` come before the recorder, so what they keep is in the checkpoint of the same validation.

    Raises:
        CourseError: the loss is not a number, or the checkpoint cannot be read.
    """
    quiet()
    validations = max(min(validations, steps), 1)
    per_epoch = math.ceil(steps / validations)
    loader = DataLoader(crops, batch_size, sampler=Consecutive(per_epoch * batch_size), num_workers=0)
    stopwatch = Stopwatch()
    recorder = Recorder(
        folder, stopwatch=stopwatch, steps=per_epoch * validations, headline=headline,
        cases=lambda step: crops.ids(range((step - 1) * batch_size, step * batch_size)),
    )  # fmt: skip
    trainer = L.Trainer(
        max_epochs=validations, accelerator="auto", devices=1, logger=False,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False, num_sanity_val_steps=0,
        callbacks=[stopwatch, Clip(), *callbacks, recorder], precision=precision(), default_root_dir=folder,
    )  # fmt: skip
    trainer.fit(module, loader, validation, ckpt_path=resume_point(folder), weights_only=True)
    return recorder


def resume_point(folder: Path) -> Path | None:
    """`last.ckpt` of a run that was broken off.

    Raises:
        CourseError: it is there but cannot be read.
    """
    last = folder / "last.ckpt"
    if not last.exists():
        return None
    try:
        torch.load(last, map_location="cpu", weights_only=True)
    except Exception as error:  # every damage has an exception of its own
        raise CourseError(
            f"{last}: cannot be resumed from ({type(error).__name__}); delete the file and run again"
        ) from None
    return last


def quiet() -> None:
    """Lightning's tips and warnings belong in no executed notebook."""
    import logging
    import warnings

    disable_possible_user_warnings()
    warnings.filterwarnings("ignore", module="lightning")
    warnings.filterwarnings(
        "ignore", message=".*does not have many workers.*|.*lr_scheduler.step.*|.*Checkpoint directory.*"
    )
    for name in ("lightning", "lightning.pytorch", "lightning.fabric", "pytorch_lightning"):
        logging.getLogger(name).setLevel(logging.ERROR)
