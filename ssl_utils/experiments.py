"""Where the rooms meet: prepare, pretrain, finetune, evaluate, predict. Chapters and the command line call these."""

import time
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import torch
from torch.utils.data import DataLoader

from ssl_utils.data import datalists, volumes
from ssl_utils.data.crops import Crops, FixedCrops
from ssl_utils.data.datalists import Case
from ssl_utils.data.transforms import augmentation
from ssl_utils.errors import CourseError
from ssl_utils.files import sha256
from ssl_utils.networks import checkpoints, transfer
from ssl_utils.networks.unetr import UNETR
from ssl_utils.networks.vit import ViT
from ssl_utils.prediction import predict, predict_case, save_network
from ssl_utils.pretext import TASKS, task_class
from ssl_utils.reporting import runs
from ssl_utils.segmentation import metrics
from ssl_utils.segmentation.finetune import SegmentationTask, class_shares
from ssl_utils.setups import Setup, setup, write_plan
from ssl_utils.training import device, fit

__all__ = [
    "Setup", "build_network", "build_task", "evaluate", "finetune", "load_task", "predict", "predict_case", "pretrain",
    "setup", "variant", "write_plan",
]  # fmt: skip

RECIPE = 1  # raise it when the way of training changes: runs made before then are made again
VALIDATIONS = {"pretrain": 10, "finetune": 5}  # evenly spread: often enough for a curve, rare enough to cost little


def variant(task: str, options: dict) -> str:
    """The name of a pretraining run, which is also the `init` that starts from it: `simmim__mask_ratio=0.3`."""
    return "__".join([task, *(f"{k}={v}" for k, v in sorted(given(options).items()))])


def given(options: dict) -> dict:
    """The options that are set: leaving one out and passing None mean the same run."""
    return {k: v for k, v in options.items() if v is not None}


def build_task(where: Setup, *, task: str, seed: int, options: dict):
    """The pretext task with a fresh encoder, at the numbers of the scale."""
    torch.manual_seed(seed)
    encoder = ViT(**where.encoder_config())
    return task_class(task)(
        encoder=encoder, lr=where.scale.pretrain_lr, steps=where.scale.pretrain_steps, seed=seed, **given(options)
    )


def pretrain(where: Setup, *, task: str, seed: int = 0, **options) -> Path:
    """Pretrain an encoder without labels; returns the run folder with `encoder.safetensors` in it.

    `options` are the task's own parameters (None = the task's default) and become part of the run's name.
    """
    scale, name = where.scale, variant(task, options)
    folder = runs.pretrain_dir(where.dataset.name, scale.name, name)
    module = build_task(where, task=task, seed=seed, options=options)
    numbers = {
        "recipe": RECIPE, "lr": scale.pretrain_lr,
        "steps": scale.pretrain_steps, "batch_size": scale.pretrain_batch_size,
    }  # fmt: skip
    if runs.begin(folder, where.settings(where.pool, task=task, seed=seed, **numbers, **given(options))):
        return folder
    crops = Crops(where.prepared(where.pool), roi=where.grid.roi, seed=seed)
    loader = DataLoader(FixedCrops(where.prepared(where.datalist.validation), roi=where.grid.roi), batch_size=1)
    recorder = fit(
        module, crops=crops, validation=loader, folder=folder, steps=scale.pretrain_steps,
        batch_size=scale.pretrain_batch_size, validations=VALIDATIONS["pretrain"], headline=f"pretrain {name}",
    )  # fmt: skip
    module.cpu().eval()
    final = recorder.rows[-1]
    baselines = module.baselines(loader)
    meta = {"task": name, "dataset": where.dataset.name, "data_licence": where.dataset.licence, "step": final["step"]}
    checkpoints.save_encoder(folder / "encoder.safetensors", module.encoder, metadata=meta)
    checkpoints.save_model(folder / "task.safetensors", module, metadata=meta)
    runs.finish(folder, {
        "task": name, "volumes": len(where.pool), "seconds": final["seconds"], "device": device(),
        "baselines": baselines, "first": recorder.rows[0], "last": final,
    })  # fmt: skip
    return folder


def load_task(where: Setup, *, task: str, seed: int = 0, **options):
    """The pretrained task, ready to reconstruct.

    Raises:
        CourseError: it has not been pretrained yet.
    """
    module = build_task(where, task=task, seed=seed, options=options)
    path = runs.pretrain_dir(where.dataset.name, where.scale.name, variant(task, options)) / "task.safetensors"
    if not path.exists():
        raise CourseError(f"{path}: no such file; pretrain {task} first")
    module.load_state_dict(checkpoints.read_checkpoint(path))
    return module.eval()


def build_network(where: Setup, *, init: str, seed: int) -> tuple[UNETR, transfer.TransferReport | None]:
    """A UNETR whose encoder starts from `init` (`random`, or a pretraining run's name), and the transfer report."""
    torch.manual_seed(seed)
    network = UNETR(
        out_channels=where.dataset.out_channels, feature_size=where.scale.feature_size, **where.encoder_config()
    )
    if init == "random":
        return network, None
    path = runs.pretrain_dir(where.dataset.name, where.scale.name, init) / "encoder.safetensors"
    if not path.exists():
        entry = TASKS.get(init.split("__")[0])
        cure = f"run chapter {entry.chapter} first" if entry else "choose random or the name of a pretraining run"
        raise CourseError(f"init={init!r}: {path} does not exist; {cure}")
    return network, transfer.load_encoder(network.vit, path)


def finetune(
    where: Setup,
    *,
    init: str,
    num_labeled: int,
    draw: int = 0,
    seed: int = 0,
    freeze_epochs: int = 0,
    layer_decay: float = 1.0,
) -> Path:
    """Fine-tune on `num_labeled` volumes, choose the step on the inner validation, read the test set once."""
    scale, dataset = where.scale, where.dataset
    name = variant(init, {"freeze": freeze_epochs or None, "layer_decay": layer_decay if layer_decay != 1 else None})
    folder = runs.finetune_dir(dataset.name, scale.name, name, num_labeled, draw, seed)
    labelled = datalists.draw_labels(where.datalist.training, num_labeled, draw)
    network, report = build_network(where, init=init, seed=1000 * draw + seed)
    start = runs.pretrain_dir(dataset.name, scale.name, init) / "encoder.safetensors"
    chosen = {
        "init": name, "num_labeled": num_labeled, "draw": draw, "seed": seed, "recipe": RECIPE,
        "steps": scale.finetune_steps,
        "batch_size": scale.finetune_batch_size, "lr": scale.finetune_lr, "feature_size": scale.feature_size,
        "freeze_epochs": freeze_epochs, "layer_decay": layer_decay,
        "encoder": sha256(start) if report else None,
    }  # fmt: skip
    used = [*labelled, *where.datalist.validation, *where.datalist.test]
    if runs.begin(folder, where.settings(used, **chosen)):
        return folder
    held_out, values = where.prepared(where.datalist.validation), sorted(dataset.labels)
    volumes_used = where.prepared(labelled)
    shares = class_shares([case.label for case in volumes_used], values, dataset.regions)
    module = SegmentationTask(
        network=network, values=values, regions=dataset.regions, lr=scale.finetune_lr, steps=scale.finetune_steps,
        roi=where.grid.roi, overlap=scale.overlap, shares=shares, held_out=held_out,
        freeze_epochs=freeze_epochs, layer_decay=layer_decay,
    )  # fmt: skip
    crops = Crops(volumes_used, roi=where.grid.roi, seed=seed, balanced=True, augment=augmentation())
    recorder = fit(
        module, crops=crops, validation=DataLoader(range(len(held_out))), folder=folder, steps=scale.finetune_steps,
        batch_size=scale.finetune_batch_size, validations=VALIDATIONS["finetune"],
        headline=f"finetune {name} n={num_labeled}",
    )  # fmt: skip
    network.load_state_dict(module.best["weights"])
    save_network(folder / "model.safetensors", network, where, init=name)
    started = time.perf_counter()
    table = evaluate(where, network.to(device()), where.datalist.test)
    runs.write_table(folder / "per_case.csv", table)
    runs.finish(folder, {
        "init": name, "num_labeled": num_labeled, "draw": draw, "seed": seed,
        "dice": float(table.groupby("case")["dice"].mean().mean()), "cases": int(table["case"].nunique()),
        "validation_dice": module.best["dice"], "best_step": module.best["step"],
        "transfer_share": report.share if report else None,
        "seconds": recorder.rows[-1]["seconds"], "test_seconds": round(time.perf_counter() - started, 1),
        "device": device(),
    })  # fmt: skip
    return folder


def evaluate(where: Setup, network: UNETR, cases: Sequence[Case]) -> pd.DataFrame:
    """One row per case and structure, scored in the space of the label file."""
    dataset, rows = where.dataset, []
    names = {value: name for value, name in dataset.labels.items() if value != 0}
    for case in cases:
        image = volumes.read_image(case.image, channels=len(dataset.channels))
        label = volumes.read_label(case.label, values=dataset.labels)
        volumes.check_pair(image, label)
        found = predict_case(where, network, image)
        predicted = (
            dict(zip(dataset.regions, found, strict=True)) if dataset.regions else metrics.masks(found, names, None)
        )
        truth = metrics.masks(label.array[0], names, dataset.regions)
        scored = metrics.evaluate_case(predicted, truth, spacing=label.spacing, tolerance=dataset.tolerance)
        rows += [{"case": case.id, "patient": case.patient, **row} for row in scored]
    return pd.DataFrame(rows)
