"""The command line: data | doctor | pretrain | finetune | predict. It parses, calls and prints."""

import os
import sys
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from ssl_utils.errors import CourseError, out_of_memory
from ssl_utils.experiments import scales

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False, help=__doc__)
console = Console()
ScaleOption = Annotated[str, typer.Option(help="smoke, laptop, workstation or paper")]
DataOption = Annotated[str | None, typer.Option(help="path of your own folder, with dataset 'folder'")]
WandbOption = Annotated[bool, typer.Option("--wandb", help="send the curves to Weights & Biases too")]
DevicesOption = Annotated[int, typer.Option(help="processes on each machine, one GPU each; they share every batch")]
NodesOption = Annotated[int, typer.Option(help="machines, when srun or torchrun has started the processes")]
DatasetOption = Annotated[str, typer.Option(help="phantom, hippocampus, sarcoma, btcv, tcia_covid19 or folder")]


def bar() -> Progress:
    return Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), console=console
    )


@app.command()
def data(dataset: str, scale: ScaleOption = "laptop", data: DataOption = None) -> None:
    """Fetch or generate a dataset, check its list, and write down what the course needs to know of it."""
    from ssl_utils.data import datasets
    from ssl_utils.experiments import (
        setups,  # `experiments` would bring torch and MONAI: 6 s at the start of every course
    )

    chosen, numbers = datasets.get(dataset, data), scales.get(scale)
    with bar() as progress:
        task = progress.add_task(f"{chosen.name}: volumes", total=None)
        root = datasets.fetch(
            chosen,
            phantom_sizes=numbers.phantom_sizes,
            progress=lambda done, total: progress.update(task, completed=done, total=total),
        )
        progress.update(task, visible=False)
    where = setups.setup(dataset=dataset, scale=numbers, data=data)
    sides = ", ".join(f"{len(cases)} {side}" for side, cases in where.datalist.sides().items() if cases)
    console.print(f"{chosen.title}: {sides}. Licence {chosen.licence}. In {root}", soft_wrap=True)
    setups.write_plan(where)


@app.command()
def doctor(
    paths: Annotated[list[Path] | None, typer.Argument(help="files or folders; none: the whole dataset")] = None,
    dataset: DatasetOption = "phantom",
    scale: ScaleOption = "laptop",
    data: DataOption = None,
    channels: Annotated[int, typer.Option(help="channels that files given as paths must have")] = 1,
    json: Annotated[Path | None, typer.Option(help="write everything found into this file as well")] = None,
) -> None:
    """Look at every file before training: what is wrong, where, how to mend it. Exits with 1 if a run would break."""
    from ssl_utils.data import doctor as data_doctor
    from ssl_utils.data.doctor import show as doctor_tables
    from ssl_utils.files import write_json

    labels: dict[int, str] = {}
    cost = None
    with bar() as progress:
        task = progress.add_task("examining", total=None)

        def step(done: int, total: int) -> None:
            progress.update(task, completed=done, total=total)

        if paths:
            report = data_doctor.examine(paths, channels=channels, progress=step)
        else:
            from ssl_utils import experiments
            from ssl_utils.data import datasets
            from ssl_utils.data.doctor import forecast

            where = experiments.Setup(datasets.get(dataset, data), scales.get(scale))
            grid, labels = where.grid, where.datalist.labels
            report = data_doctor.examine_datalist(
                where.datalist, roi=grid.required_roi, spacing=grid.spacing, progress=step
            )
            cost = forecast.forecast(
                lambda: experiments.build_network(where, init="random", seed=0)[0],
                roi=grid.roi,
                channels=len(where.dataset.channels),
                patch_size=where.scale.patch_size,
                batch_size=where.scale.finetune_batch_size,
                steps=where.scale.finetune_steps,
            )
        progress.update(task, visible=False)
    for table in doctor_tables.tables(report, labels):
        (console if console.is_terminal else Console(width=160)).print(table)
    if cost:
        console.print(f"Scale {scale}: {cost.line()}", soft_wrap=True)
    if json:
        write_json(json, report.record() | {"forecast": vars(cost) if cost else None})
    console.print(f"{report.errors} errors, {len(report) - report.errors} warnings")
    raise typer.Exit(1 if report.errors else 0)


@app.command()
def pretrain(
    task: Annotated[str, typer.Argument(help="a task of the registry: restoration, simmim, ...")],
    dataset: DatasetOption = "phantom",
    scale: ScaleOption = "laptop",
    data: DataOption = None,
    seed: int = 0,
    mask_ratio: float | None = None,
    mask_unit: int | None = None,
    contrast: str | None = None,
    fill: str | None = None,
    option: Annotated[list[str] | None, typer.Option(help="name=value, any option of the task; repeat it")] = None,
    devices: DevicesOption = 1,
    num_nodes: NodesOption = 1,
    wandb: WandbOption = False,
) -> None:
    """Pretrain an encoder without labels."""
    from ssl_utils import experiments
    from ssl_utils.training.parallel import Team

    if wandb:
        os.environ["SSL_WANDB"] = "1"  # as for the chapters; no part of what a run depends on

    options = {"mask_ratio": mask_ratio, "mask_unit": mask_unit, "contrast": contrast, "fill": fill}
    options |= dict(map(named_value, option or []))
    where = experiments.setup(dataset=dataset, scale=scales.get(scale), data=data)
    team = Team(devices, num_nodes)
    with task_options(task, options):
        folder = experiments.pretrain(where, task=task, seed=seed, team=team, **options)
    console.quiet = not team.first
    console.print(f"Encoder in {folder / 'encoder.safetensors'}", soft_wrap=True)


def named_value(text: str) -> tuple[str, int | float | bool | str]:
    """`mask_ratio=0.3` as (name, value): a number, true or false where it reads as one, else the text."""
    name, sign, value = text.partition("=")
    if not sign or not name.isidentifier():
        raise CourseError(f"option {text!r}: is not name=value; write --option mask_ratio=0.3")
    for kind in (int, float):
        with suppress(ValueError):
            return name, kind(value)
    return name, {"true": True, "false": False}.get(value.lower(), value)


@contextmanager
def task_options(task: str, options: dict):
    """Refuse an option that the task does not have, in one line."""
    try:
        yield
    except TypeError as error:
        if "keyword argument" not in str(error):  # an unknown one, or one that the course sets itself
            raise
        wrong = str(error).rpartition("argument ")[2].strip("'")
        if wrong not in options:
            raise
        raise CourseError(f"option {wrong}: {task} has none to choose; see the class in pretext/{task}.py") from None


@app.command()
def finetune(
    init: Annotated[str, typer.Argument(help="random, or the name of a pretraining run")] = "random",
    num_labeled: int = 6,
    draw: int = 0,
    seed: int = 0,
    freeze_epochs: Annotated[int, typer.Option(help="epochs with a frozen encoder; -1 always")] = 0,
    layer_decay: Annotated[float, typer.Option(help="learning rate of a block over that of the next one")] = 1.0,
    scope: Annotated[str | None, typer.Option(help="encoder or whole; by default what the run holds")] = None,
    budget: Annotated[float, typer.Option(min=0.01, help="so many times the steps, such as 0.5 or 4")] = 1,
    permuted: Annotated[bool, typer.Option("--permuted", help="shuffle the weights within each tensor")] = False,
    network: Annotated[str, typer.Option(help="unetr, or unet (with random)")] = "unetr",
    dataset: DatasetOption = "phantom",
    scale: ScaleOption = "laptop",
    data: DataOption = None,
    devices: DevicesOption = 1,
    num_nodes: NodesOption = 1,
    wandb: WandbOption = False,
) -> None:
    """Fine-tune a UNETR on a few labelled volumes and score it on the test set."""
    from ssl_utils import experiments
    from ssl_utils.experiments import runs
    from ssl_utils.training.parallel import Team

    if wandb:
        os.environ["SSL_WANDB"] = "1"

    where = experiments.setup(dataset=dataset, scale=scales.get(scale), data=data)
    team = Team(devices, num_nodes)
    folder = experiments.finetune(
        where,
        init=init,
        num_labeled=num_labeled,
        draw=draw,
        seed=seed,
        freeze_epochs=freeze_epochs,
        layer_decay=layer_decay,
        scope=scope,
        budget=budget,
        permuted=permuted,
        network=network,
        team=team,
    )
    console.quiet = not team.first
    found = runs.metrics(folder)
    console.print(f"Dice {found['dice']:.3f} on {found['cases']} test cases. Run in {folder}", soft_wrap=True)


@app.command()
def predict(
    model: Annotated[Path, typer.Argument(help="model.safetensors of a fine-tuning run")],
    images: Annotated[list[Path], typer.Argument(help="volumes, folders of them, DICOM series")],
    output: Annotated[Path, typer.Option(help="folder for the label maps")] = Path("predictions"),
) -> None:
    """Segment volumes: each result is a NIfTI file with the shape and affine of its image."""
    from ssl_utils import experiments
    from ssl_utils.data import formats

    files = formats.collected(images)
    with bar() as progress:
        task = progress.add_task("predicting", total=len(files))
        written = experiments.predict(
            model, files, output, progress=lambda done, total: progress.update(task, completed=done)
        )
    console.print(f"{len(written)} label maps in {output}", soft_wrap=True)


def main() -> None:
    """Run a command. A fault that the reader can mend is one line and exit code 1; Ctrl-C is 130."""
    try:
        app()
    except CourseError as error:
        sys.exit(f"error: {error}")
    except Exception as error:
        if out_of_memory(error):
            sys.exit("error: not enough memory; close programs, or choose a smaller --scale")
        if not isinstance(error, OSError):
            raise
        sys.exit(f"error: {error.filename or 'a file'}: {error.strerror or error}; mend that and run again")


if __name__ == "__main__":
    main()
