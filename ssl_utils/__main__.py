"""Data, trainings and predictions from the command line, by the functions that the chapters call."""

import os
import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

import ssl_utils
from ssl_utils import experiments
from ssl_utils.data import datasets
from ssl_utils.errors import CourseError, out_of_memory, replace_unprintable, shorten_warnings
from ssl_utils.experiments import runs, scales, setups, sharing
from ssl_utils.experiments.command_line import MORE, with_options
from ssl_utils.experiments.description import Finetuning, Pretraining, task_options
from ssl_utils.experiments.terminal import (
    DataOption,
    DatasetOption,
    PatchOption,
    RoiOption,
    ScaleOption,
    SpacingOption,
    bar,
    console,
    show,
)
from ssl_utils.training.options import REQUIRED, options_of

ssl_utils.lighten()

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False, help=__doc__)


@app.command()
def data(
    dataset: str,
    scale: ScaleOption = "laptop",
    data: DataOption = None,
    spacing: SpacingOption = None,
    roi: RoiOption = None,
    patch_size: PatchOption = None,
) -> None:
    """Fetch or generate a dataset, check its list, and write data.json, which the chapters read."""
    described, numbers = datasets.get(dataset, data), scales.get(scale)
    with bar(f"{described.name}: volumes") as progress:
        root = datasets.fetch(described, phantom_sizes=numbers.phantom_sizes, progress=progress)
    chosen = {"spacing": spacing, "roi": roi, "patch_size": patch_size}
    with bar("examining") as progress:
        setup = setups.setup(dataset=dataset, scale=numbers, data=data, progress=progress, **chosen)
    _warn(setup)
    counts = ", ".join(f"{len(cases)} {split}" for split, cases in setup.datalist.sides().items() if cases)
    console.print(f"{described.title}: {counts}. Licence {described.licence}. In {root}", soft_wrap=True)
    if dataset != "folder" and setup.datalist.description:
        console.print(setup.datalist.description, soft_wrap=True)
    setups.write_plan(setup)


@app.command()
def doctor(
    paths: Annotated[list[Path] | None, typer.Argument(help="files or folders; none: the whole dataset")] = None,
    dataset: DatasetOption = "phantom",
    scale: ScaleOption = "laptop",
    data: DataOption = None,
    channels: Annotated[int, typer.Option(min=1, help="channels that files given as paths must have")] = 1,
    json: Annotated[Path | None, typer.Option(help="write the whole report into this file as well")] = None,
    spacing: SpacingOption = None,
    roi: RoiOption = None,
    patch_size: PatchOption = None,
) -> None:
    """Check every file before training: what is wrong, where, how to fix it. Exits with 1 if a run would break."""
    from ssl_utils.data import datalists, doctor as data_doctor
    from ssl_utils.data.doctor import show as doctor_tables
    from ssl_utils.files import write_json

    if json:
        data_doctor.refuse_other_file(json)
    chosen = {"spacing": spacing, "roi": roi, "patch_size": patch_size}
    whole = paths and len(paths) == 1 and datalists.has_layout(paths[0])
    if paths and (data or (any(chosen.values()) and not whole)):
        raise CourseError("doctor: --data, --spacing, --roi and --patch-size are of a whole dataset; leave them out")
    if whole:
        dataset, data, paths = "folder", str(paths[0]), None
    sized, setup = scales.get(scale), None
    with bar("examining") as progress:
        if paths:
            report = data_doctor.examine(paths, channels=channels, grid=sized.grid, progress=progress)
        else:
            report, setup = setups.whole(dataset=dataset, scale=sized, data=data, progress=progress, **chosen)
    cost = experiments.forecast(setup) if setup and report.labels and not report.errors else None  # of a fine-tuning
    for table in doctor_tables.tables(report):
        show(table)
    for line in (report.grid, f"Scale {scale}: {cost.line()}" if cost else ""):
        if line:
            console.print(line, soft_wrap=True)
    if json:
        write_json(json, report.record() | {"forecast": vars(cost) if cost else None})
    console.print(f"{report.errors} errors, {len(report) - report.errors} warnings")
    raise typer.Exit(1 if report.errors else 0)


def _warn(setup: setups.Setup) -> None:
    """A line per warning of the doctor about the cases of a setup."""
    from ssl_utils.data.doctor import gathered

    for finding, more in gathered(setups.examined(setup)):
        console.print(f"{finding.severity}: {finding.line()}{more}", soft_wrap=True, markup=False, highlight=False)


def _train(
    run: Pretraining | Finetuning,
    dataset: DatasetOption = "phantom",
    scale: ScaleOption = "laptop",
    data: DataOption = None,
    devices: Annotated[int, typer.Option(help="processes on each machine, one GPU each; they share every batch")] = 1,
    num_nodes: Annotated[int, typer.Option(help="machines, when srun or torchrun has started the processes")] = 1,
    wandb: Annotated[bool, typer.Option("--wandb", help="send the curves to Weights & Biases too")] = False,
    spacing: SpacingOption = None,
    roi: RoiOption = None,
    patch_size: PatchOption = None,
) -> Path:
    """Make a run; the other processes of a team print nothing after it."""
    from ssl_utils.training.parallel import Team

    if wandb:
        os.environ["SSL_WANDB"] = "1"  # as in the chapters; not one of the settings of a run
    chosen = {"spacing": spacing, "roi": roi, "patch_size": patch_size}
    setup = setups.setup(dataset=dataset, scale=scales.get(scale), data=data, **chosen)
    team = Team(devices, num_nodes)
    if team.first:
        _warn(setup)
    train = experiments.pretrain if isinstance(run, Pretraining) else experiments.finetune
    folder = train(setup, run, team=team)
    console.quiet = not team.first
    return folder


@app.command(context_settings=MORE)
@with_options(Pretraining, _train)
def pretrain(**options) -> None:
    """Pretrain without labels. Options of the pretext task follow: --mask-ratio 0.3; `options TASK` lists them."""
    folder = _train(**options)
    console.print(f"Encoder in {folder / 'encoder.safetensors'}", soft_wrap=True)


@app.command()
def adopt(
    name: Annotated[str, typer.Argument(help="what to call them: the init of fine-tunings")],
    weights: Annotated[Path, typer.Argument(help="weights saved by this course, Models Genesis, RadioSSL or MedNeXt")],
    dataset: DatasetOption = "phantom",
    scale: ScaleOption = "laptop",
    data: DataOption = None,
) -> None:
    """Take pretrained weights from elsewhere into a course, as a pretraining run that costs no time."""
    setup = setups.setup(dataset=dataset, scale=scales.get(scale), data=data)
    report = experiments.adopt(setup, name, weights)
    console.print(report.table(), soft_wrap=True, markup=False, highlight=False)
    words = [name, "--dataset", dataset, "--scale", scale, *(["--data", data] if data else [])]
    console.print(f"Fine-tune from it: python -m ssl_utils finetune {shlex.join(words)}", soft_wrap=True)


@app.command(context_settings=MORE)
@with_options(Finetuning, _train)
def finetune(**options) -> None:
    """Fine-tune on a few labelled volumes and score the network on the test set."""
    from ssl_utils.experiments.model_card import scored_cases

    folder = _train(**options)
    done = runs.metrics(folder)
    console.print(f"Dice {done['dice']:.3f} on {scored_cases(done)}. Run in {folder}", soft_wrap=True)


@app.command()
def soup(
    folders: Annotated[
        list[Path], typer.Argument(metavar="RUN RUN ...", help="finished fine-tunings, or folders of them")
    ],
    kind: Annotated[str, typer.Option(help="uniform, greedy or learned; chosen on the validation set")] = "greedy",
    dataset: DatasetOption = "phantom",
    scale: ScaleOption = "laptop",
    data: DataOption = None,
) -> None:
    """Average the weights of fine-tunings into one network, and score it on the test set."""
    from ssl_utils.experiments import souping

    setup = setups.setup(dataset=dataset, scale=scales.get(scale), data=data)
    console.print(souping.summary(souping.soup(setup, folders, kind=kind)), soft_wrap=True, highlight=False)


@app.command()
def options(
    task: Annotated[str | None, typer.Argument(help="a pretext task; none: what all runs have")] = None,
) -> None:
    """List the options of a run: name, default, range, meaning."""
    listed = {task: task_options(task)} if task else {c.__name__: options_of(c) for c in (Pretraining, Finetuning)}
    for title, specs in listed.items():
        table = Table("option", "default", "values", "meaning", title=title)
        for name, option in specs.items():
            default = "" if option.default is REQUIRED else str(option.default)
            values = ", ".join(option.names()) or option.range()
            table.add_row(f"--{name.replace('_', '-')}", default, values, option.help)
        show(table)


@app.command()
def predict(
    model: Annotated[Path, typer.Argument(help="model.safetensors of a fine-tuning run")],
    images: Annotated[list[Path], typer.Argument(help="volumes, folders of them, DICOM series, channel files")],
    output: Annotated[Path, typer.Option(help="folder for the label maps")] = Path("predictions"),
    overwrite: Annotated[bool, typer.Option("--overwrite", help="replace files that predict did not write")] = False,
    flips: Annotated[
        str | None, typer.Option(help="average over flips, as in left-right; where anatomy allows")
    ] = None,
    all_axes: Annotated[bool, typer.Option("--all-axes", help="slices along three axes; window_vit only")] = False,
) -> None:
    """Segment volumes: each result is a NIfTI file with the shape and affine of its image."""
    from ssl_utils.data import formats

    with bar("predicting") as progress:
        paths = formats.collected(images)
        more = {"all_axes": all_axes, "flips": flips}
        written = experiments.predict(model, paths, output, progress=progress, overwrite=overwrite, **more)
    console.print(f"{len(written)} label maps in {output}", soft_wrap=True)


app.command()(sharing.export)
app.command()(sharing.export_list)
app.command()(sharing.draw)


def main() -> None:
    """Run a command. An error that the reader can fix is one line and exit code 1; Ctrl-C is 130."""
    replace_unprintable()
    shorten_warnings()
    try:
        app()
    except CourseError as error:
        sys.exit(f"error: {error}")
    except Exception as error:
        if out_of_memory(error):
            sys.exit("error: not enough memory; close programs, or choose a smaller --scale")
        if not isinstance(error, OSError):
            raise
        sys.exit(f"error: {error.filename or 'a file'}: {error.strerror or error}; fix that and run again")


if __name__ == "__main__":
    main()
