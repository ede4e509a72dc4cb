"""Pretrain without labels: from a setup and a description to a run folder with weights, curve, baselines and card."""

import sys
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch.utils.data import DataLoader

from ssl_utils.data.cache import content
from ssl_utils.errors import CourseError
from ssl_utils.experiments import model_card, runs
from ssl_utils.experiments.building import build_task, refuse_other_weights, weights_of
from ssl_utils.experiments.description import Pretraining
from ssl_utils.experiments.pools import pool
from ssl_utils.experiments.setups import Setup
from ssl_utils.files import sha256
from ssl_utils.networks import checkpoints
from ssl_utils.pretext import inside, task_class
from ssl_utils.training.budget import steps_within
from ssl_utils.training.devices import device, precision
from ssl_utils.training.loop import fit
from ssl_utils.training.parallel import Team
from ssl_utils.training.recorder import Recorder
from ssl_utils.training.stopwatch import PARTS

PREPARING = 100  # at most so many crops are passed to `PretextTask.prepare`
VALIDATIONS = 10  # evenly spread over the steps


def pretrain(setup: Setup, run: Pretraining, *, team: Team | None = None) -> Path:
    """Pretrain and return the run folder with `encoder.safetensors` (and `network.safetensors`, when a whole network is
    pretrained).

    `team`: the processes that train together; each calls this function, the first one writes, and all return together.
    """
    team = team or Team()
    batch_size = max(round(setup.scale.pretrain_batch_size * task_class(run.task).batch_share), 1)
    team.check(batch_size)
    if run.seconds and team.size > 1:
        raise CourseError(f"seconds={run.seconds}: a step is timed in one process; give steps, or train on one device")
    folder = runs.pretrain_dir(setup.dataset.name, setup.scale.name, run.name)
    module = build_task(setup, run)
    if run.seconds and not module.steps:
        raise CourseError(f"seconds={run.seconds}: with these options {run.task} trains nothing; leave it out")
    pools = pool(setup, run.pool, run.volumes)
    settings = run.record() | {
        "recipe": runs.RECIPE,
        "lr": module.lr,
        "steps": module.steps,
        "batch_size": batch_size,
        "precision": precision(),
        "data": "+".join(part.digest(part.pool) for part in pools),
        "validation": setup.digest(setup.datalist.validation),
    }
    if weights := weights_of(setup, run):
        settings["weights"] = sha256(weights)
        if weights.parent.parent != folder.parent:  # a file, of which only the stem is in the name
            refuse_other_weights(folder, settings["weights"], f"weights={str(weights)!r}")
    if run.seconds:
        settings["steps"] = None  # counted below
    else:
        del settings["seconds"]  # runs that were made before there was this option stay valid
    if runs.begin(folder, setup.settings([], **settings), device=device(), first=team.first):
        return folder
    cases = [case for part in pools for case in part.prepared(part.pool)]
    held_out = setup.prepared(setup.datalist.validation)
    cases, held_out = module.targets(cases, held_out, setup.folder / "targets")
    crops = module.crops(cases, roi=setup.grid.roi, seed=run.seed)
    module.prepare(crops[i] for i in range(min(len(cases), PREPARING)))  # a crop of each case
    budget = steps_within(run.seconds, module, crops, batch_size, folder=folder) if run.seconds else {}
    module.steps = budget.get("steps", module.steps)
    loader = DataLoader(module.fixed_crops(held_out, roi=setup.grid.roi), batch_size=1)
    watcher = inside.callback(
        folder,
        labelled=setup.prepared(setup.datalist.training[:8]),
        held_out=setup.prepared(setup.datalist.validation[:8]),
        roi=setup.grid.roi,
        values=sorted(setup.dataset.labels),
    )
    recorder = module.steps and fit(
        module,
        crops=crops,
        validation=loader,
        folder=folder,
        steps=module.steps,
        batch_size=batch_size,
        validations=VALIDATIONS,
        headline=f"pretrain {run.name}",
        callbacks=[watcher] if team.first else [],
        team=team,
    )
    if team.first:
        module.cpu().eval()
        done = {"task": run.name, "volumes": len(cases), "processes": team.size, "device": device(), **budget}
        done |= (
            _measured(recorder, round(watcher.seconds, 3)) if recorder else _untrained(folder, module, loader, watcher)
        )
        done["baselines"] = module.baselines(loader)
        _save(folder, setup, module, pools, done)
        runs.finish(folder, done)
    return team.wait(folder)


def _measured(recorder: Recorder, looking: float) -> dict[str, Any]:
    """Seconds, and the first and last validation; the seconds of the probes (`looking`) are no part of the training."""
    spent, last = recorder.stopwatch.spent, recorder.rows[-1]
    return {
        "seconds": round(last["seconds"] - looking, 2),
        "spent": spent | {"validation": round(spent["validation"] - looking, 3), "looking": looking},
        "first": recorder.rows[0],
        "last": last,
    }


@torch.no_grad()
def _untrained(folder: Path, module: Any, loader: DataLoader, watcher: Any) -> dict[str, Any]:
    """The same for a task that needs no step, as its weights come from a file: one validation."""
    watcher.look(module, 0)
    batches = [(batch["image"], module.generator(int(batch["seed"][0])), module.extra(batch)) for batch in loader]
    losses = [float(module.losses(images, generator, **extra)["loss"]) for images, generator, extra in batches]
    loss = sum(losses) / len(losses)
    row = {"step": 0, "epoch": 0, "train_loss": loss, "validation_loss": loss, "lr": 0.0, "seconds": 0.0}
    runs.write_table(folder / "history.csv", pd.DataFrame([row]))
    return {"seconds": 0.0, "spent": dict.fromkeys((*PARTS, "looking"), 0.0), "first": row, "last": row}


def _save(folder: Path, setup: Setup, module: Any, pools: list[Setup], done: dict[str, Any]) -> None:
    """Write encoder, task, whole network where there is one, and model card."""
    licence = model_card.joined(part.dataset.licence for part in pools)
    meta = {"task": done["task"], "dataset": setup.dataset.name, "data_licence": licence, "step": done["last"]["step"]}
    meta["spacing"] = pools[0].grid.spacing
    meta["images"] = [content(case)[:16] for part in pools for case in part.pool]
    checkpoints.save_model(folder / "encoder.safetensors", module.encoder, metadata=meta)
    checkpoints.save_model(folder / "task.safetensors", module, metadata=meta)
    if weights := module.whole_network():
        sizes = {"config": module.decoder.config, "grid": module.encoder.grid}
        checkpoints.save_weights(folder / "network.safetensors", weights, metadata=meta | sizes)
    idea = (sys.modules[type(module).__module__].__doc__ or done["task"]).partition("\n\n")[0]
    model_card.write_encoder_card(
        folder,
        idea=" ".join(idea.split()),
        pools=[(part.dataset, len(part.pool)) for part in pools],
        grid=setup.grid,
        done=done,
    )
