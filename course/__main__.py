"""The command line of the course: run | study | sweep | watch | plan | status, and what the rules of the graph call.

    python -m course run --scale smoke
    python -m course run --scale paper --executor slurm --jobs 20 --partition gpu
    python -m course plan --scale paper
    python -m course study mask_ratio --scale smoke
    python -m course sweep rates.toml --scale smoke
    python -m course status --scale smoke
    python -m course run-chapter notebooks/00_start_here.ipynb out.ipynb --parameters '{"scale": "smoke"}'
    python -m course run-command "pretrain simmim" log.txt '["ssl_utils", "pretrain", "simmim"]'

Exit codes: 0 done, 1 a part failed, 2 nothing was started (unknown name, missing data), 130 stopped.
"""

import json
import sys
import time
from contextlib import suppress
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from course import execution, grids
from course.chapters import chosen_parts
from course.progress import clock
from course.request import Data, DatasetName, Jobs, Labels, Repeats, Request, Scale, with_request
from course.workflow import bring_up, exit_if_failed, label_counts, one_line_errors, print_end, print_plan, repeated
from ssl_utils.data import datasets
from ssl_utils.errors import CourseError, replace_unprintable
from ssl_utils.experiments import scales
from ssl_utils.files import write_json

MANY = 30  # runs of a sweep that are started without a question
app = typer.Typer(
    add_completion=False, pretty_exceptions_enable=False, help="Run the course and its studies, plan them, watch them."
)
Part = Annotated[str, typer.Option(help="1, 2, 3 or all; a later part includes part 1, with which it is compared")]
Tasks = Annotated[str | None, typer.Option(help="pretext tasks instead of the study's own, such as mae,restoration")]
Tflops = Annotated[float, typer.Option(min=0.001, help="sustained by the GPU, in 1e12 operations a second")]
Minutes = Annotated[float, typer.Option(min=0.01, max=1e6, help="limit for the whole part")]
Writes = Annotated[list[Path] | None, typer.Option(help="a file the part writes last; given for each of several")]
Events = Annotated[Path | None, typer.Option(help="file to which its start and its end are written")]


@app.command()
@with_request
def run(request: Request, part: Part = "1") -> None:
    """Run every chapter that is not done yet, then print the results."""
    with one_line_errors(code=2):
        folder, report = bring_up(request, parts=chosen_parts(part))
        table = f"results_part{part}.md" if part in ("2", "3") else "results.md"
        print_end(folder, report, table=folder / table)
        if report["parts"] and not report["jobs"]:
            write_json(folder / "costs.json", report)  # the source of json_files/reference_costs.json


@app.command()
@with_request
def study(
    request: Request,
    name: Annotated[str, typer.Argument(help="mask_ratio, freezing, pretraining_data, restoration, ...")],
    tasks: Tasks = None,
) -> None:
    """Vary one thing on top of the course; runs of the course and of other studies are used again."""
    with one_line_errors(code=2):
        run, report = bring_up(request, study=name, tasks=tuple(tasks.split(",")) if tasks else ())
        folder = run / "studies" / name
        print_end(run, report, table=folder / "results.md")
        print(f"{'this study':20} {folder}")


@app.command()
@with_request
def sweep(
    request: Request,
    file: Annotated[
        Path, typer.Argument(help="a grid in TOML: labels, seeds, [pretrain], [finetune] (docs/sweeps.md)")
    ],
    yes: Annotated[bool, typer.Option("--yes", help=f"start more than {MANY} runs without a question")] = False,
) -> None:
    """Make every run of a grid; collect the networks, and print the best, also if some runs have failed."""
    from course import sweeps

    with one_line_errors(code=2):
        if request.labels or request.repeats:
            raise CourseError("labels and repeats of a sweep are in its file: labels = [6, 12], subsets = 1, seeds = 3")
        grid = grids.read(file)
        run, report = bring_up(request, grid=grid, confirm=partial(_confirm, yes=yes))
        config = sweeps.recorded(run, grid.name)
        table = sweeps.rows(run, config)
        results = sweeps.write(run, config, table)
        print(f"\n{results.read_text(encoding='utf-8').strip()}\n")
        for row in table[table["reason"] != ""].itertuples():
            print(f"{row.run}: {row.reason}", file=sys.stderr)
        print(f"{'summary, all runs':20} {results.parent / 'results.*'}")
        print(f"{'networks':20} {sweeps.collect(run, config['study'], table)}")
        exit_if_failed(report)


def _confirm(runs: int, *, yes: bool) -> None:
    """Ask before many runs are started. Raises CourseError where nobody can answer, or the answer is no."""
    if runs <= MANY or yes:
        return
    if not (sys.stdin.isatty() and typer.confirm(f"Start {runs} runs?")):
        raise CourseError(f"{runs} runs, more than {MANY}: nothing was started; add --yes, or make the grid smaller")


@app.command()
def watch(
    file: Annotated[Path, typer.Argument(help="the grid of a sweep that was started, or its name")],
    dataset: DatasetName = "phantom",
    scale: Scale = "laptop",
    data: Data = None,
) -> None:
    """The runs of a sweep: parameters, state, step, score, device, job. On a terminal it is renewed until all ended."""
    from rich.console import Console
    from rich.live import Live

    from course import status as state, sweeps
    from ssl_utils.experiments import runs

    with one_line_errors(code=2):
        scales.get(scale)
        if dataset != "folder" or not data:  # a folder need not be on this machine
            datasets.get(dataset)
        root = runs.course_dir(datasets.run_name(dataset, data), scale)
        name = file.stem if file.suffix == ".toml" or file.is_file() else file.name  # rates.v2 is a name
        config, console = sweeps.recorded(root, name), Console()
        console = console if console.is_terminal else Console(width=160)
        with Live(console=console, auto_refresh=False) as live:
            while True:
                table = sweeps.rows(root, config)
                live.update(sweeps.shown(table, state.summary(table["state"])), refresh=True)
                if not console.is_terminal or not {"running", "queued", "pending"} & {*table["state"]}:
                    break
                time.sleep(2)


@app.command("plan")
def plan_course(
    scale: Scale = "laptop",
    dataset: DatasetName = "phantom",
    data: Data = None,
    repeats: Repeats = None,
    labels: Labels = None,
    part: Part = "1",
    jobs: Jobs = 20,
    tflops: Tflops = 50.0,
) -> None:
    """Print the runs of a course, their order and their cost; nothing is started or fetched."""
    from ssl_utils.experiments import setups

    with one_line_errors(code=2):
        numbers = repeated(scale, repeats)
        config = {"scale": scale, "dataset": dataset, "data": data, "settings": asdict(numbers)}
        config["num_labeled"], there = numbers.num_labeled, None
        with suppress(CourseError):  # volumes that are not on this machine yet cannot be counted
            made = setups.unchecked(dataset=dataset, scale=numbers, data=data)
            config["num_labeled"], there = made.label_counts, len(made.datalist.training)
        if labels:
            config["num_labeled"] = label_counts(labels, there)
        print_plan(config | {"parts": chosen_parts(part)}, jobs, tflops)


@app.command()
def status(dataset: DatasetName = "phantom", scale: Scale = "laptop", data: Data = None) -> None:
    """Every run of a course: pending, running (progress, device), done with its result, failed, timed out."""
    from rich.console import Console
    from rich.table import Table

    from course import status as state
    from ssl_utils.experiments import runs, setups

    console = Console()
    with one_line_errors(code=2):
        chosen = {"dataset": dataset, "scale": scales.get(scale), "data": data}
        root = runs.course_dir(datasets.run_name(dataset, data), scale)
        setups.check_source(root, data, lambda: setups.contents(setups.unchecked(**chosen)))
        rows = state.rows(root)
        if not rows:
            words = f"SCALE={scale} DATASET={dataset}" + (f" DATA={data}" if data else "")
            console.print(f"{root}: no runs yet; start with: make course {words}", soft_wrap=True)
            return
        table = Table("run", "state", "step", "result", "seconds", "device", "job")
        for row in rows:
            table.add_row(row.run, row.state, row.step, row.result, row.seconds, row.device, row.job)
        wide = console if console.is_terminal else Console(width=160)
        wide.print(table)
        wide.print(state.summary(row.state for row in rows))
        for row in filter(lambda row: row.reason, rows):
            wide.print(f"{row.run}: {row.reason}", soft_wrap=True, highlight=False, markup=False)


def _from_json(name: str, text: str, kind: type) -> dict | list:
    """What the text says. Raises CourseError when it is not JSON of that kind; a list has only text, and some."""
    with suppress(json.JSONDecodeError):
        value = json.loads(text)
        if isinstance(value, kind) and (kind is dict or (value and all(isinstance(word, str) for word in value))):
            return value
    example = {dict: '{"scale": "smoke"}', list: '["ssl_utils", "options"]'}[kind]
    raise CourseError(f"{name}={text!r}: is not JSON such as {example}")


@app.command("run-chapter")
def run_chapter(
    notebook: Path,
    executed: Path,
    parameters: Annotated[str, typer.Option(help="JSON")] = "{}",
    writes: Writes = None,
    minutes: Minutes = 60,
    events: Events = None,
) -> None:
    """Execute one chapter, as the rules of the Snakefile do."""
    with one_line_errors(code=1):
        chosen = _from_json("parameters", parameters, dict)
        seconds = execution.run_chapter(notebook, executed, chosen, writes=writes or (), minutes=minutes, events=events)
        print(f"{execution.label(notebook.stem, chosen)}   {clock(seconds)}")


@app.command("run-command")
def run_command(
    name: Annotated[str, typer.Argument(help="shown by progress; its first word is the step")],
    log: Path,
    words: Annotated[str, typer.Argument(help="JSON list: a module of python -m, and its arguments")],
    writes: Writes = None,
    minutes: Minutes = 60,
    events: Events = None,
) -> None:
    """Run one command of the package, as the rules of Snakefile.studies do."""
    with one_line_errors(code=1):
        called = _from_json("words", words, list)
        seconds = execution.run_command(name, log, called, writes=writes or (), minutes=minutes, events=events)
        print(f"{name}   {clock(seconds)}")


if __name__ == "__main__":
    replace_unprintable()
    app()
