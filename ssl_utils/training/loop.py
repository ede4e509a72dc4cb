"""One way to train, shared by every pretext task and by fine-tuning: optimiser, schedule, record, resume.

An epoch is the stretch between two validations. A checkpoint is written at the end of each; crops, masks and
corruptions are functions of the step number, so a run that goes on from it ends with the same numbers.
"""

import gc
import logging
import math
import warnings
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path

import lightning as L
import torch
from lightning.pytorch.utilities import disable_possible_user_warnings
from torch import nn
from torch.utils.data import DataLoader

from ssl_utils.data.crops import Ahead, Consecutive, Crops
from ssl_utils.errors import CourseError
from ssl_utils.training.parallel import Team
from ssl_utils.training.processes import give_back_memory, keep_freed_memory
from ssl_utils.training.recorder import Recorder
from ssl_utils.training.stopwatch import Stopwatch


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


def autocast(kind: str | None = None) -> torch.autocast:
    """The block computes in the precision of training, on a `kind` of device (default: the best one)."""
    return torch.autocast(kind or device(), torch.bfloat16, enabled=precision() == "bf16-mixed")


def parameter_groups(modules: Iterable[tuple[nn.Module, float]], *, lr: float, weight_decay: float) -> list[dict]:
    """AdamW groups for (module, learning-rate factor) pairs; weight decay only on matrices and kernels, never on norms,
    biases, positions or mask tokens."""
    groups = []
    for module, factor in modules:
        decayed, rest = [], []
        for name, parameter in module.named_parameters():
            if parameter.requires_grad:
                matrix = parameter.ndim > 1 and "position" not in name and "token" not in name
                (decayed if matrix else rest).append(parameter)
        sides = {"params": decayed, "weight_decay": weight_decay}, {"params": rest, "weight_decay": 0.0}
        groups += [{"lr": lr * factor, **side} for side in sides if side["params"]]
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


def fit(
    module: L.LightningModule,
    *,
    crops: Crops,
    validation: DataLoader,
    folder: Path,
    steps: int,
    batch_size: int,
    validations: int,
    headline: str,
    callbacks: Sequence[L.Callback] = (),
    team: Team | None = None,
) -> Recorder:
    """Train for `steps` steps with `validations` validations, going on from `folder/last.ckpt` when there is one.

    `callbacks` come before the recorder, so their state is in the checkpoint of the same validation. The processes of
    the `team` share a batch of `batch_size` equally.

    Raises:
        CourseError: the loss is not a number, or the checkpoint cannot be read.
    """
    quiet()
    keep_freed_memory()
    gc.collect()  # a run before this one: its module and its trainer hold each other, weights and all
    team = team or Team()
    validations = max(min(validations, steps), 1)
    per_epoch = math.ceil(steps / validations)
    numbers = Consecutive(per_epoch * batch_size, batch_size=batch_size, rank=team.rank, processes=team.size)
    kind = partial(Ahead, pin_memory=True) if device() == "cuda" else DataLoader
    loader = kind(crops, batch_size // team.size, sampler=numbers, num_workers=0)
    stopwatch = Stopwatch()

    def cases(step: int) -> list[str]:
        return crops.ids(range((step - 1) * batch_size, step * batch_size))

    recorder = Recorder(folder, stopwatch=stopwatch, steps=per_epoch * validations, headline=headline, cases=cases)
    ours = ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary")  # the recorder does it
    trainer = L.Trainer(
        max_epochs=validations,
        callbacks=[stopwatch, Clip(), *callbacks, recorder],
        precision=precision(),
        default_root_dir=folder,
        num_sanity_val_steps=0,
        **team.for_trainer(module),
        **dict.fromkeys(ours, False),
    )
    with team.training(trainer):
        trainer.fit(module, loader, validation, ckpt_path=resume_point(folder), weights_only=True)
    give_back_memory()
    return recorder


def resume_point(folder: Path) -> Path | None:
    """`last.ckpt` of a run that was broken off. Raises CourseError when it is there but cannot be read."""
    last = folder / "last.ckpt"
    if not last.exists():
        return None
    try:
        torch.load(last, map_location="cpu", weights_only=True)
    except Exception as error:  # every damage has an exception of its own
        fault = f"cannot be resumed from ({type(error).__name__})"
        raise CourseError(f"{last}: {fault}; delete the file and run again") from None
    return last


def quiet() -> None:
    """Lightning's tips and warnings belong in no executed notebook."""
    disable_possible_user_warnings()
    warnings.filterwarnings("ignore", module="lightning")
    noise = ("does not have many workers", "lr_scheduler.step", "Checkpoint directory", "Grad strides do not match")
    warnings.filterwarnings("ignore", message=f".*({'|'.join(noise)}).*")
    for name in ("lightning", "lightning.pytorch", "lightning.fabric", "pytorch_lightning"):
        logging.getLogger(name).setLevel(logging.ERROR)
