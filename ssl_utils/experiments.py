"""Where the rooms meet: prepare, pretrain, finetune, evaluate, predict. Chapters and the command line call these."""

import time
from collections.abc import Mapping, Sequence
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
from ssl_utils.networks import checkpoints, starts
from ssl_utils.networks.transfer import TransferReport, load_encoder
from ssl_utils.networks.unet import UNet
from ssl_utils.networks.unetr import UNETR
from ssl_utils.networks.vit import ViT
from ssl_utils.prediction import predict, predict_case, save_network
from ssl_utils.pretext import TASKS, inside, task_class
from ssl_utils.reporting import runs
from ssl_utils.segmentation import metrics
from ssl_utils.segmentation.finetune import SegmentationTask, class_shares
from ssl_utils.setups import Setup, setup, write_plan
from ssl_utils.training import device, fit, precision

__all__ = [
    "Setup", "build_network", "build_task", "evaluate", "finetune", "load_task", "predict", "predict_case", "pretrain",
    "setup", "variant", "write_plan",
]  # fmt: skip

RECIPE = 2  # raise it when the way of training changes: runs made before then are made again
SCOPES = ("encoder", "whole")
VALIDATIONS = {"pretrain": 10, "finetune": 5}  # evenly spread: often enough for a curve, rare enough to cost little


def variant(task: str, options: dict) -> str:
    """The name of a pretraining run, which is also the `init` that starts from it: `simmim__mask_ratio=0.3`."""
    return "__".join([task, *(f"{k}={v}" for k, v in sorted(given(options).items()))])


def given(options: dict) -> dict:
    """The options that are set: leaving one out and passing None mean the same run."""
    return {k: v for k, v in options.items() if v is not None}


def build_task(where: Setup, *, task: str, seed: int, options: Mapping):
    """The pretext task with a fresh encoder, at the numbers of the scale.

    `options` are the task's own parameters and two of every task: `steps` (default: the scale's) and `scope`, which is
    `encoder` (a ViT and a light head, as published) or `whole` (a UNETR reconstructs, all of it is pretrained).
    """
    own = given(options)
    steps, scope = own.pop("steps", None) or where.scale.pretrain_steps, own.pop("scope", "encoder")
    if scope not in SCOPES:
        raise CourseError(f"scope={scope!r}: unknown; choose one of {', '.join(SCOPES)}")
    torch.manual_seed(seed)
    encoder = ViT(**where.encoder_config())
    module = task_class(task)(encoder=encoder, lr=where.scale.pretrain_lr, steps=steps, seed=seed, **own)
    if scope == "whole":
        channels = len(where.dataset.channels)
        module.reconstruct_with(
            UNETR(out_channels=channels, feature_size=where.scale.feature_size, **where.encoder_config())
        )
    return module


def pretrain(where: Setup, *, task: str, seed: int = 0, **options) -> Path:
    """Pretrain without labels; returns the run folder with `encoder.safetensors` in it (and `network.safetensors`, when
    a UNETR was pretrained whole).

    `options` as in `build_task` (None = the default); they become part of the run's name.
    """
    scale, name = where.scale, variant(task, options)
    folder = runs.pretrain_dir(where.dataset.name, scale.name, name)
    module = build_task(where, task=task, seed=seed, options=options)
    numbers = {
        "recipe": RECIPE, "lr": scale.pretrain_lr,
        "steps": module.steps, "batch_size": scale.pretrain_batch_size, "precision": precision(),
    }  # fmt: skip
    if runs.begin(folder, where.settings(where.pool, task=task, seed=seed, **{**given(options), **numbers})):
        return folder
    crops = Crops(where.prepared(where.pool), roi=where.grid.roi, seed=seed)
    loader = DataLoader(FixedCrops(where.prepared(where.datalist.validation), roi=where.grid.roi), batch_size=1)
    watcher = inside.callback(
        folder, labelled=where.prepared(where.datalist.training[:8]),
        held_out=where.prepared(where.datalist.validation[:8]), roi=where.grid.roi, values=sorted(where.dataset.labels),
    )  # fmt: skip
    recorder = fit(
        module, crops=crops, validation=loader, folder=folder, steps=module.steps,
        batch_size=scale.pretrain_batch_size, validations=VALIDATIONS["pretrain"], headline=f"pretrain {name}",
        callbacks=[watcher],
    )  # fmt: skip
    module.cpu().eval()
    final = recorder.rows[-1]
    baselines = module.baselines(loader)
    meta = {"task": name, "dataset": where.dataset.name, "data_licence": where.dataset.licence, "step": final["step"]}
    checkpoints.save_encoder(folder / "encoder.safetensors", module.encoder, metadata=meta)
    checkpoints.save_model(folder / "task.safetensors", module, metadata=meta)
    if whole := module.whole_network():
        sizes = {"config": module.decoder.config, "grid": module.encoder.grid}
        checkpoints.save_weights(folder / "network.safetensors", whole, metadata=meta | sizes)
    runs.finish(folder, {
        "task": name, "volumes": len(where.pool), "device": device(),
        "seconds": round(final["seconds"] - watcher.seconds, 2),  # looking inside is not part of the training
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


def start_of(where: Setup, init: str, scope: str | None = None) -> tuple[Path | None, str | None]:
    """The weights file that `init` names (None: random), and the scope in which it is moved: `whole` where a whole
    UNETR was pretrained, unless `scope` asks for the encoder alone."""
    if init == "random":
        return None, None
    if scope not in (None, *SCOPES):
        raise CourseError(f"scope={scope!r}: unknown; choose one of {', '.join(SCOPES)}")
    folder = runs.pretrain_dir(where.dataset.name, where.scale.name, init)
    whole = folder / "network.safetensors"
    if scope == "whole" or (scope is None and whole.exists()):
        path, cure = whole, "pretrain with scope=whole, or move the encoder alone"
    else:
        entry = TASKS.get(init.split("__")[0])
        path = folder / "encoder.safetensors"
        cure = f"run chapter {entry.chapter} first" if entry else "choose random or the name of a pretraining run"
    if not path.exists():
        raise CourseError(f"init={init!r}: {path} does not exist; {cure}")
    return path, "whole" if path == whole else "encoder"


def build_network(
    where: Setup, *, init: str, seed: int, scope: str | None = None, permuted: bool = False, network: str = "unetr"
) -> tuple[UNETR | UNet, TransferReport | None]:
    """The segmentation network at its start, and what was moved into it.

    `init` is `random` or a pretraining run's name; `permuted` shuffles the moved weights within each tensor (a
    control); `network` is `unetr`, or `unet` for a plain U-Net, which starts at random.
    """
    torch.manual_seed(seed)
    if network == "unet" and init == "random":
        return UNet(in_channels=len(where.dataset.channels), out_channels=where.dataset.out_channels), None
    if network != "unetr":
        raise CourseError(f"network={network!r} with init={init!r}: choose unetr, or unet with init=random")
    built = UNETR(
        out_channels=where.dataset.out_channels, feature_size=where.scale.feature_size, **where.encoder_config()
    )
    path, scope = start_of(where, init, scope)
    if path is None:
        return built, None
    report = starts.load_network(built, path) if scope == "whole" else load_encoder(built.vit, path)
    if permuted:
        starts.permute_weights(built if scope == "whole" else built.vit, torch.Generator().manual_seed(seed))
    return built, report


def finetune(
    where: Setup, *, init: str, num_labeled: int, draw: int = 0, seed: int = 0, freeze_epochs: int = 0,
    layer_decay: float = 1.0, scope: str | None = None, budget: int = 1, permuted: bool = False, network: str = "unetr",
) -> Path:  # fmt: skip
    """Fine-tune on `num_labeled` volumes, choose the step on the inner validation, read the test set once.

    `budget` multiplies the steps; the other options as in `build_network` and `SegmentationTask`. Options that are not
    at their default are part of the run's name: `random__budget=4`.
    """
    scale, dataset = where.scale, where.dataset
    options = {
        "freeze": freeze_epochs or None, "layer_decay": layer_decay if layer_decay != 1 else None, "scope": scope,
        "budget": budget if budget != 1 else None, "permuted": permuted or None,
        "network": network if network != "unetr" else None,
    }  # fmt: skip
    name = variant(init, options)
    folder = runs.finetune_dir(dataset.name, scale.name, name, num_labeled, draw, seed)
    labelled = datalists.draw_labels(where.datalist.training, num_labeled, draw)
    start, moved = start_of(where, init, scope)
    built, report = build_network(
        where, init=init, seed=1000 * draw + seed, scope=scope, permuted=permuted, network=network
    )
    chosen = {
        "init": name, "num_labeled": num_labeled, "draw": draw, "seed": seed, "recipe": RECIPE,
        "steps": scale.finetune_steps * budget,
        "batch_size": scale.finetune_batch_size, "lr": scale.finetune_lr, "feature_size": scale.feature_size,
        "freeze_epochs": freeze_epochs, "layer_decay": layer_decay, "scope": moved, "permuted": permuted,
        "network": network, "precision": precision(), "encoder": sha256(start) if start else None,
    }  # fmt: skip
    used = [*labelled, *where.datalist.validation, *where.datalist.test]
    if runs.begin(folder, where.settings(used, **chosen)):
        return folder
    held_out, values = where.prepared(where.datalist.validation), sorted(dataset.labels)
    volumes_used = where.prepared(labelled)
    shares = class_shares([case.label for case in volumes_used], values, dataset.regions)
    module = SegmentationTask(
        network=built, values=values, regions=dataset.regions, lr=scale.finetune_lr, steps=chosen["steps"],
        roi=where.grid.roi, overlap=scale.overlap, shares=shares, held_out=held_out,
        freeze_epochs=freeze_epochs, layer_decay=layer_decay,
    )  # fmt: skip
    crops = Crops(volumes_used, roi=where.grid.roi, seed=seed, balanced=True, augment=augmentation())
    recorder = fit(
        module, crops=crops, validation=DataLoader(range(len(held_out))), folder=folder, steps=chosen["steps"],
        batch_size=scale.finetune_batch_size, validations=VALIDATIONS["finetune"],
        headline=f"finetune {name} n={num_labeled}",
    )  # fmt: skip
    built.load_state_dict(module.best["weights"])
    save_network(folder / "model.safetensors", built, where, init=name)
    started = time.perf_counter()
    table = evaluate(where, built.to(device()), where.datalist.test)
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
