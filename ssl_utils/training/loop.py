"""The training loop of every pretext task and of fine-tuning: parameter groups, checkpoints, resuming.

An epoch ends with a validation and a checkpoint. Crops, masks and corruptions are functions of the step number, so a
resumed run ends with the same numbers.
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
from ssl_utils.training.devices import device, precision
from ssl_utils.training.optimisers import DEFAULT, averages
from ssl_utils.training.parallel import SharedStep, Team
from ssl_utils.training.processes import give_back_memory, keep_freed_memory
from ssl_utils.training.recorder import Recorder
from ssl_utils.training.stopwatch import Stopwatch


def parameter_groups(modules: Iterable[tuple[nn.Module, float]], *, lr: float, weight_decay: float) -> list[dict]:
    """AdamW groups for (module, learning-rate factor) pairs; weight decay on matrices and kernels, not on norms,
    biases, positions or mask tokens."""
    groups = []
    for module, factor in modules:
        decayed, others = [], []
        for name, parameter in module.named_parameters():
            if parameter.requires_grad:
                matrix = parameter.ndim > 1 and "position" not in name and "token" not in name
                (decayed if matrix else others).append(parameter)
        pairs = (decayed, weight_decay), (others, 0.0)
        groups += [{"params": params, "lr": lr * factor, "weight_decay": decay} for params, decay in pairs if params]
    return groups


class Averages(L.Callback):
    """With a schedule-free optimiser, validate, choose and save the averaged weights, and train the others.

    Lightning has no hook for it. It must be the first callback, so that all others see the averages too. A checkpoint
    is written after a validation, so it holds the averages, and the weights to train follow from the optimiser's state.
    """

    def on_train_epoch_start(self, trainer, module) -> None:
        averages(trainer.optimizers, show=False)

    def on_validation_start(self, trainer, module) -> None:
        averages(trainer.optimizers, show=True)

    def on_save_checkpoint(self, trainer, module, checkpoint) -> None:
        checkpoint["optimizer"] = module.optimizer

    def on_load_checkpoint(self, trainer, module, checkpoint) -> None:
        if (saved := checkpoint.get("optimizer", DEFAULT)) != module.optimizer:
            fix = f"resume with optimizer={saved}, or delete the file to start over"
            raise CourseError(f"{trainer.ckpt_path}: was written with optimizer={saved}, not {module.optimizer}; {fix}")


class Clip(L.Callback):
    """Clip the gradient norm to 1. (Lightning's own clipping rejects the fused optimiser in mixed precision, because of
    a gradient scaler that bfloat16 does not use.)"""

    def on_before_optimizer_step(self, trainer, module, optimizer) -> None:
        nn.utils.clip_grad_norm_(module.parameters(), 1.0)


def fit(
    module: SharedStep,
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
    """Train for `steps` steps, resuming from `folder/last.ckpt` when there is one. There are `validations` validations,
    or one for every second step where that is fewer (for every step where their number is odd), with equally many steps
    before each, so that up to this number less one may be added.

    `callbacks` run before the recorder, so that the checkpoint of a validation contains their state. The processes of
    the `team` share a batch of `batch_size` equally. Raises CourseError when the loss is not finite, or the checkpoint
    cannot be read.
    """
    quiet()
    keep_freed_memory()
    gc.collect()  # the module and the trainer of an earlier run refer to each other and keep its weights
    team, stopwatch = team or Team(), Stopwatch()
    validations = max(min(validations, steps if steps % 2 else steps // 2), 1)
    per_epoch = math.ceil(steps / validations)
    validations = math.ceil(steps / per_epoch)
    sampler = Consecutive(per_epoch * batch_size, batch_size=batch_size, rank=team.rank, processes=team.size)
    loader_class = partial(Ahead, pin_memory=True) if device() == "cuda" else DataLoader
    recorder = Recorder(
        folder,
        stopwatch=stopwatch,
        steps=per_epoch * validations,
        headline=headline,
        cases=lambda step: crops.ids(range((step - 1) * batch_size, step * batch_size)),
    )
    by_recorder = ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary")
    trainer = L.Trainer(
        max_epochs=validations,
        callbacks=[Averages(), stopwatch, Clip(), *callbacks, recorder],
        precision=precision(),
        default_root_dir=folder,
        num_sanity_val_steps=0,
        **team.for_trainer(module),
        **dict.fromkeys(by_recorder, False),
    )
    loader = loader_class(crops, batch_size // team.size, sampler=sampler, num_workers=0)
    with team.training(trainer):
        trainer.fit(module, loader, validation, ckpt_path=resume_point(folder), weights_only=True)
    give_back_memory()
    return recorder


def resume_point(folder: Path) -> Path | None:
    """`last.ckpt` of an interrupted run, if any. Raises CourseError when it cannot be read."""
    last = folder / "last.ckpt"
    if not last.exists():
        return None
    try:
        torch.load(last, map_location="cpu", weights_only=True)
    except Exception as error:  # the type depends on the damage
        reason = f"cannot be resumed from ({type(error).__name__})"
        raise CourseError(f"{last}: {reason}; delete the file and run again") from None
    return last


def quiet() -> None:
    """Hide the tips and warnings of Lightning, which would fill the notebooks."""
    disable_possible_user_warnings()
    warnings.filterwarnings("ignore", module="lightning")
    messages = ("does not have many workers", "lr_scheduler.step", "Checkpoint directory", "Grad strides do not match")
    warnings.filterwarnings("ignore", message=f".*({'|'.join(messages)}).*")
    for name in ("lightning", "lightning.pytorch", "lightning.fabric", "pytorch_lightning"):
        logging.getLogger(name).setLevel(logging.ERROR)
