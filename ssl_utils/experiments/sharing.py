"""The commands that pass models, splits and synthetic volumes on: `export`, `export-list` and `draw`."""

import shlex
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from ssl_utils.errors import CourseError
from ssl_utils.experiments import scales, setups
from ssl_utils.experiments.terminal import DataOption, DatasetOption, ScaleOption, console


def export(
    run: Annotated[Path, typer.Argument(help="folder of a finished fine-tuning or soup; for nnunet of a pretraining")],
    folder: Annotated[Path, typer.Argument(help="new folder to write")],
    form: Annotated[
        str, typer.Option("--format", help="bundle (MONAI), mlcube (MedPerf), huggingface or nnunet")
    ] = "bundle",
    licence: Annotated[str | None, typer.Option(help="of the training data, where the run does not know it")] = None,
) -> None:
    """Write a model so that others can run it, most formats without this package. Nothing is uploaded."""
    from ssl_utils.experiments import exports

    if form not in exports.FORMATS:
        raise CourseError(f"format={form!r}: no such format; choose one of {', '.join(exports.FORMATS)}")
    exports.FORMATS[form](run, folder, licence=licence)
    card = "README.md" if (folder / "README.md").exists() else "docs/README.md"
    console.print(f"{form} in {folder}: see its {card}", soft_wrap=True)


def export_list(
    dataset: str,
    folder: Annotated[Path, typer.Argument(help="new folder; for nnU-Net with a name such as Dataset501_Trunk")],
    form: Annotated[str, typer.Option("--format", help="nnunet (version 2) or msd")] = "nnunet",
    num_labeled: Annotated[int | None, typer.Option(min=1, help="train on so many volumes; else on all")] = None,
    subset: Annotated[int, typer.Option(min=0, help="number of the label subset")] = 0,
    copy: Annotated[bool, typer.Option("--copy", help="copy files in place of links")] = False,
    scale: ScaleOption = "laptop",
    data: DataOption = None,
) -> None:
    """Write the split of a dataset for nnU-Net or MONAI, so that they train and test on the same cases."""
    from ssl_utils.data import datalists
    from ssl_utils.data.lists import peers

    if form not in peers.PEERS:
        raise CourseError(f"format={form!r}: no such format; choose one of {', '.join(peers.PEERS)}")
    if subset and not num_labeled:
        raise CourseError(f"subset={subset}: all volumes are in every subset; give --num-labeled too, or leave it out")
    split = setups.setup(dataset=dataset, scale=scales.get(scale), data=data).datalist
    if num_labeled:
        split = replace(split, training=datalists.label_subset(split.training, num_labeled, subset))
    peers.PEERS[form](split, folder, copy=copy)
    console.print(f"Split {peers.fingerprint(split)} in {folder}", soft_wrap=True)


def draw(
    name: Annotated[str, typer.Argument(help="of the folder of synthetic volumes, for finetune --synthetic NAME")],
    count: Annotated[int, typer.Option(min=1, help="volumes, from the label maps of the training cases in turn")] = 12,
    seed: Annotated[int, typer.Option(min=0, help="of the model, and of the first volume")] = 0,
    dataset: DatasetOption = "brain_phantom",
    scale: ScaleOption = "laptop",
    data: DataOption = None,
) -> None:
    """Train a diffusion model on the labelled training cases, once, and draw volumes from their label maps."""
    from ssl_utils.experiments import generating, synthetic_sets
    from ssl_utils.synthesis.recipes import RECIPES

    setup = setups.setup(dataset=dataset, scale=scales.get(scale), data=data)
    cases, steps = setup.datalist.training, RECIPES[setup.scale.name].sampling_steps
    synthetic_sets.check_only_training(setup, cases)  # this and the name, before the training
    synthetic_sets.is_drawn(synthetic_sets.folder_of(setup, name), {"seed": seed, "count": count, "ddim_steps": steps})
    model = generating.train_generator(setup, seed=seed)
    folder = synthetic_sets.draw(setup, model, cases, name=name, count=count, steps=steps, seed=seed)
    console.print(f"{count} synthetic volumes in {folder}: see its README.md", soft_wrap=True)
    words = ["random", "--num-labeled", len(cases), "--synthetic", name, "--dataset", dataset, "--scale", scale]
    command = shlex.join(map(str, [*words, *(["--data", data] if data else [])]))
    console.print(f"Train with them: python -m ssl_utils finetune {command}", soft_wrap=True)
