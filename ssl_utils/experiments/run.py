"""Where the rooms meet: prepare, pretrain, finetune, evaluate, predict. Chapters and the command line call these."""

import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from torch import nn
from torch.utils.data import DataLoader

from ssl_utils.data import datalists, volumes
from ssl_utils.data.crops import Crops, FixedCrops
from ssl_utils.data.datalists import Case
from ssl_utils.data.transforms import augmentation
from ssl_utils.experiments import model_card, runs
from ssl_utils.experiments.building import build_network, build_task, load_task, start_of
from ssl_utils.experiments.naming import given, variant
from ssl_utils.experiments.prediction import predict, predict_case, save_network
from ssl_utils.experiments.setups import Setup, pool, setup, write_plan
from ssl_utils.files import sha256
from ssl_utils.networks import checkpoints
from ssl_utils.pretext import inside, task_class
from ssl_utils.segmentation import metrics
from ssl_utils.segmentation.finetune import SegmentationTask, class_shares
from ssl_utils.training.loop import device, fit, precision
from ssl_utils.training.parallel import Team

__all__ = [
    "Setup",
    "build_network",
    "build_task",
    "evaluate",
    "finetune",
    "load_task",
    "predict",
    "predict_case",
    "pretrain",
    "setup",
    "variant",
    "write_plan",
]

RECIPE = 2  # raise it when the way of training changes: runs made before then are made again
PREPARING = 100  # crops, at most, that a pretext task may look at before its first step
VALIDATIONS = {"pretrain": 10, "finetune": 5}  # evenly spread: often enough for a curve, rare enough to cost little


def pretrain(where: Setup, *, task: str, seed: int = 0, team: Team | None = None, **options) -> Path:
    """Pretrain without labels; returns the run folder with `encoder.safetensors` in it (and `network.safetensors`, when
    a UNETR was pretrained whole).

    `options` as in `build_task` (None = the default); they become part of the run's name. `team`: the processes that
    train together; each calls this function, the first one writes, all return when it is done.
    """
    scale, name, team = where.scale, variant(task, options), team or Team()
    batch_size = max(round(scale.pretrain_batch_size * task_class(task).batch_share), 1)
    team.check(batch_size)
    folder = runs.pretrain_dir(where.dataset.name, scale.name, name)
    module = build_task(where, task=task, seed=seed, options=options)
    numbers = {
        "recipe": RECIPE,
        "lr": scale.pretrain_lr,
        "steps": module.steps,
        "batch_size": batch_size,
        "precision": precision(),
    }
    pooled = pool(where, options.get("pool"), options.get("volumes"))
    data = "+".join(part.digest(part.pool) for part in pooled)
    settings = where.settings([], task=task, seed=seed, **{**given(options), **numbers, "data": data})
    if runs.begin(folder, settings, device=device(), first=team.first):
        return folder
    cases = [case for part in pooled for case in part.prepared(part.pool)]
    crops = Crops(cases, roi=where.grid.roi, seed=seed)
    module.prepare(crops[i] for i in range(min(len(cases), PREPARING)))  # a crop of each case
    loader = DataLoader(FixedCrops(where.prepared(where.datalist.validation), roi=where.grid.roi), batch_size=1)
    watcher = inside.callback(
        folder,
        labelled=where.prepared(where.datalist.training[:8]),
        held_out=where.prepared(where.datalist.validation[:8]),
        roi=where.grid.roi,
        values=sorted(where.dataset.labels),
    )
    recorder = fit(
        module,
        crops=crops,
        validation=loader,
        folder=folder,
        steps=module.steps,
        batch_size=batch_size,
        validations=VALIDATIONS["pretrain"],
        headline=f"pretrain {name}",
        callbacks=[watcher] if team.first else [],
        team=team,
    )
    if not team.first:
        return team.wait(folder)
    module.cpu().eval()
    final, spent, looked = recorder.rows[-1], recorder.spent, round(watcher.seconds, 3)
    baselines = module.baselines(loader)
    licence = " + ".join(dict.fromkeys(part.dataset.licence for part in pooled))
    meta = {"task": name, "dataset": where.dataset.name, "data_licence": licence, "step": final["step"]}
    checkpoints.save_encoder(folder / "encoder.safetensors", module.encoder, metadata=meta)
    checkpoints.save_model(folder / "task.safetensors", module, metadata=meta)
    if whole := module.whole_network():
        sizes = {"config": module.decoder.config, "grid": module.encoder.grid}
        checkpoints.save_weights(folder / "network.safetensors", whole, metadata=meta | sizes)
    done = {
        "task": name,
        "volumes": len(cases),
        "device": device(),
        "processes": team.size,
        "seconds": round(final["seconds"] - looked, 2),  # looking inside is not part of the training
        "spent": spent | {"validation": round(spent["validation"] - looked, 3), "looking": looked},
        "baselines": baselines,
        "first": recorder.rows[0],
        "last": final,
    }
    model_card.write_encoder_card(
        folder,
        idea=" ".join((sys.modules[type(module).__module__].__doc__ or name).partition("\n\n")[0].split()),
        pools=[(part.dataset, len(part.pool)) for part in pooled],
        grid=where.grid,
        done=done,
    )
    runs.finish(folder, done)
    return team.wait(folder)


def finetune(
    where: Setup,
    *,
    init: str,
    num_labeled: int,
    draw: int = 0,
    seed: int = 0,
    freeze_epochs: int = 0,
    layer_decay: float = 1.0,
    scope: str | None = None,
    budget: float = 1,
    permuted: bool = False,
    network: str = "unetr",
    team: Team | None = None,
) -> Path:
    """Fine-tune on `num_labeled` volumes, choose the step on the inner validation, read the test set once.

    `budget` multiplies the steps; the other options as in `build_network` and `SegmentationTask`. Options that are not
    at their default are part of the run's name: `random__budget=4`. `team` as in `pretrain`.
    """
    scale, dataset, team = where.scale, where.dataset, team or Team()
    team.check(scale.finetune_batch_size)
    options = {
        "freeze": freeze_epochs or None,
        "layer_decay": layer_decay if layer_decay != 1 else None,
        "scope": scope,
        "budget": f"{budget:g}" if budget != 1 else None,
        "permuted": permuted or None,
        "network": network if network != "unetr" else None,
    }
    name = variant(init, options)
    folder = runs.finetune_dir(dataset.name, scale.name, name, num_labeled, draw, seed)
    labelled = datalists.draw_labels(where.datalist.training, num_labeled, draw)
    start, moved = start_of(where, init, scope)
    built, report = build_network(
        where, init=init, seed=1000 * draw + seed, scope=scope, permuted=permuted, network=network
    )
    chosen = {
        "init": name,
        "num_labeled": num_labeled,
        "draw": draw,
        "seed": seed,
        "recipe": RECIPE,
        "steps": max(round(scale.finetune_steps * budget), 1),
        "batch_size": scale.finetune_batch_size,
        "lr": scale.finetune_lr,
        "feature_size": scale.feature_size,
        "freeze_epochs": freeze_epochs,
        "layer_decay": layer_decay,
        "scope": moved,
        "permuted": permuted,
        "network": network,
        "precision": precision(),
        "encoder": sha256(start) if start else None,
    }
    used = [*labelled, *where.datalist.validation, *where.datalist.test]
    if runs.begin(folder, where.settings(used, **chosen), device=device(), first=team.first):
        return folder
    held_out, values = where.prepared(where.datalist.validation), sorted(dataset.labels)
    volumes_used = where.prepared(labelled)
    shares = class_shares([case.label for case in volumes_used], values, dataset.regions)
    module = SegmentationTask(
        network=built,
        values=values,
        regions=dataset.regions,
        lr=scale.finetune_lr,
        steps=chosen["steps"],
        roi=where.grid.roi,
        overlap=scale.overlap,
        shares=shares,
        held_out=held_out,
        freeze_epochs=freeze_epochs,
        layer_decay=layer_decay,
    )
    crops = Crops(volumes_used, roi=where.grid.roi, seed=seed, balanced=True, augment=augmentation())
    recorder = fit(
        module,
        crops=crops,
        validation=DataLoader(range(len(held_out))),
        folder=folder,
        steps=chosen["steps"],
        batch_size=scale.finetune_batch_size,
        validations=VALIDATIONS["finetune"],
        headline=f"finetune {name} n={num_labeled}",
        team=team,
    )
    if not team.first:
        return team.wait(folder)
    built.load_state_dict(module.best["weights"])
    save_network(folder / "model.safetensors", built, where, init=name)
    started = time.perf_counter()
    table = evaluate(where, built.to(device()), where.datalist.test)
    runs.write_table(folder / "per_case.csv", table)
    done = {
        "init": name,
        "num_labeled": num_labeled,
        "draw": draw,
        "seed": seed,
        "dice": float(table.groupby("case")["dice"].mean().mean()),
        "cases": int(table["case"].nunique()),
        "validation_dice": module.best["dice"],
        "best_step": module.best["step"],
        "transfer_share": report.share if report else None,
        "seconds": recorder.rows[-1]["seconds"],
        "test_seconds": round(time.perf_counter() - started, 1),
        "spent": recorder.spent,
        "device": device(),
        "processes": team.size,
    }
    model_card.write_network_card(folder, dataset=dataset, grid=where.grid, done=done, start=start)
    runs.finish(folder, done)
    return team.wait(folder)


def evaluate(where: Setup, network: nn.Module, cases: Sequence[Case]) -> pd.DataFrame:
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
