"""Fine-tune on a few labelled volumes, choose the step on the validation set, and score it once on the test set."""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from torch import nn
from torch.utils.data import DataLoader

from ssl_utils.data import datalists
from ssl_utils.data.cache import Prepared
from ssl_utils.data.crops import Crops
from ssl_utils.data.datalists import Case
from ssl_utils.data.transforms import augmentation
from ssl_utils.data.volumes import Volume
from ssl_utils.errors import CourseError
from ssl_utils.experiments import model_card, runs
from ssl_utils.experiments.building import build_network, pretrained_weights, with_crop
from ssl_utils.experiments.description import Finetuning
from ssl_utils.experiments.prediction import predict_case, save_network
from ssl_utils.experiments.setups import Setup
from ssl_utils.experiments.synthetic_sets import about_drawn, cases_for
from ssl_utils.files import sha256
from ssl_utils.networks.interface import SegmentationNetwork
from ssl_utils.segmentation import metrics
from ssl_utils.segmentation.finetune import SegmentationTask, class_shares
from ssl_utils.training.devices import device, precision
from ssl_utils.training.loop import fit
from ssl_utils.training.optimisers import OPTIMISERS
from ssl_utils.training.parallel import Team
from ssl_utils.training.recorder import Recorder

VALIDATIONS = 5  # evenly spread over the steps
LATER = {"synthetic": None, "augmentation": "usual"}  # options of a later version -> their default


def finetune(setup: Setup, run: Finetuning, *, team: Team | None = None) -> Path:
    """Fine-tune, choose the step on the validation set, and score the test set once; returns the run folder.

    `team` as in `pretraining.pretrain`.
    """
    setup = with_crop(setup, run.crop)
    scale, dataset, team = setup.scale, setup.dataset, team or Team()
    team.check(scale.finetune_batch_size)
    if not dataset.classes:
        say = "name a structure in labels of dataset.json, or pretrain only"
        raise CourseError(f"{dataset.name}: its labels are background alone; {say}")
    folder = runs.finetune_dir(dataset.name, scale.name, run.name, run.num_labeled, run.subset, run.seed)
    labelled = labelled_for(setup, run.record())
    weights, scope = pretrained_weights(setup, run.init, run.scope)
    network, report = build_network(setup, run)
    settings = run.record() | {
        "init": run.name,
        "recipe": runs.RECIPE,
        "steps": steps_of(setup, run),
        "batch_size": scale.finetune_batch_size,
        "lr": lr_of(setup, run),
        "encoder_lr": encoder_lr_of(setup, run, network),
        "feature_size": scale.feature_size,
        "scope": scope,
        "network": network.config["network"],
        "precision": precision(),
        "encoder": sha256(weights) if weights else None,
    }
    for name in LATER:  # runs that were made before there were these options stay valid
        if getattr(run, name) == LATER[name]:
            del settings[name]
    used = [*labelled, *setup.datalist.validation, *setup.datalist.test]
    if runs.begin(folder, setup.settings(used, **settings), device=device(), first=team.first):
        return folder
    cases, held_out = setup.prepared(labelled), setup.prepared(setup.datalist.validation)
    module, recorder = train(setup, run, network, cases=cases, held_out=held_out, folder=folder, team=team)
    if not team.first:
        return team.wait(folder)
    network.load_state_dict(module.best["weights"])
    save_network(folder / "model.safetensors", network, setup, init=run.name, sources=(weights,) if weights else ())
    done = {
        **{key: settings[key] for key in runs.OF_ONE_RUN},
        **score(setup, network.to(device()), folder, all_axes=run.all_axes),
        "validation_dice": module.best["dice"],
        "best_step": module.best["step"],
        "transfer_share": report.share if report else None,
        "seconds": recorder.rows[-1]["seconds"],
        "spent": recorder.stopwatch.spent,
        "device": device(),
        "processes": team.size,
    }
    if run.synthetic:
        done["synthetic"] = about_drawn(setup, run.synthetic)
    model_card.write_network_card(folder, dataset=dataset, grid=setup.grid, done=done, weights=weights)
    runs.finish(folder, done)
    return team.wait(folder)


def labelled_for(setup: Setup, settings: Mapping[str, Any]) -> tuple[Case, ...]:
    """The labelled cases of a run, and its synthetic ones."""
    labelled = datalists.label_subset(setup.datalist.training, settings["num_labeled"], settings["subset"])
    name = settings.get("synthetic")
    return labelled + (cases_for(setup, name, labelled) if name else ())


def score(setup: Setup, network: nn.Module, folder: Path, *, all_axes: bool = False) -> dict[str, Any]:
    """Score a network on the test set, and write per_case.csv; returns what metrics.json has of it."""
    started = time.perf_counter()
    split = "test" if setup.datalist.test else "validation"  # published protocols may have no test set
    table = evaluate(setup, network, getattr(setup.datalist, split), all_axes=all_axes)
    runs.write_table(folder / "per_case.csv", table)
    return {
        "dice": float(table.groupby("case")["dice"].mean().mean()),
        "cases": int(table.dropna(subset="dice")["case"].nunique()),  # one that is all ignored has no score
        "scored_on": split,
        "test_seconds": round(time.perf_counter() - started, 1),
    }


def steps_of(setup: Setup, run: Finetuning) -> int:
    return max(round(setup.scale.finetune_steps * run.budget), 1)


def lr_of(setup: Setup, run: Finetuning) -> float:
    """The learning rate of the decoder."""
    return run.lr or OPTIMISERS[run.optimizer].lr or setup.scale.finetune_lr


def encoder_lr_of(setup: Setup, run: Finetuning, network: SegmentationNetwork) -> float:
    """The factor on the learning rate of the encoder."""
    return run.encoder_lr or (setup.scale.transformer_lr if network.transformer else 1.0)


def train(
    setup: Setup,
    run: Finetuning,
    network: SegmentationNetwork,
    *,
    cases: Sequence[Prepared],
    held_out: Sequence[Prepared],
    folder: Path,
    team: Team | None = None,
) -> tuple[SegmentationTask, Recorder]:
    """Fine-tune a network on the labelled `cases`, and score it on those `held_out` at every validation."""
    scale, dataset = setup.scale, setup.dataset
    values = sorted(dataset.labels)
    module = SegmentationTask(
        network=network,
        values=values,
        regions=dataset.regions,
        lr=lr_of(setup, run),
        steps=steps_of(setup, run),
        roi=setup.grid.roi,
        overlap=scale.overlap,
        ignore=dataset.ignore,
        shares=class_shares([case.label for case in cases], values, dataset.regions),
        held_out=held_out,
        freeze_epochs=run.freeze_epochs,
        freeze=run.freeze,
        trainable=run.trainable,
        layer_decay=run.layer_decay,
        encoder_lr=encoder_lr_of(setup, run, network),
        optimizer=run.optimizer,
    )
    if run.trainable and (team or Team()).first:
        print(f"{module.trained:,} of {module.total:,} parameters are trained", flush=True)
    recorder = fit(
        module,
        crops=Crops(
            cases,
            roi=setup.grid.roi,
            seed=run.seed,
            balanced=True,
            augment=None if run.repeated_crops or run.augmentation == "none" else augmentation(setup.grid),
            repeated=run.repeated_crops,
        ),
        validation=DataLoader(range(len(held_out))),
        folder=folder,
        steps=module.steps,
        batch_size=scale.finetune_batch_size,
        validations=VALIDATIONS,
        headline=f"finetune {run.name} n={run.num_labeled}",
        team=team,
    )
    return module, recorder


def evaluate(setup: Setup, network: nn.Module, cases: Sequence[Case], *, all_axes: bool = False) -> pd.DataFrame:
    """One row per case and structure, scored in the space of the label file. `all_axes` as for `predict_case`."""
    dataset = setup.dataset

    def predict(image: Volume) -> dict:
        predicted = predict_case(setup, network, image, all_axes=all_axes)
        if dataset.regions:
            return dict(zip(dataset.regions, predicted, strict=True))
        return metrics.masks(predicted, metrics.structures(dataset), None)

    return metrics.evaluate(cases, dataset=dataset, predict=predict)
