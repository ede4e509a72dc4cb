"""The command line of the course: run | study | plan | status, and what the rules of the graph call.

    python -m course run --scale smoke
    python -m course run --scale paper --executor slurm --jobs 20 --partition gpu
    python -m course plan --scale paper
    python -m course study mask_ratio --scale smoke
    python -m course status --scale smoke
    python -m course run-chapter notebooks/00_start_here.ipynb out.ipynb --parameters '{"scale": "smoke"}'
    python -m course run-command "pretrain simmim" log.txt '["ssl_utils", "pretrain", "simmim"]'

Exit codes: 0 done, 1 a part failed, 2 nothing was started (unknown name, missing data), 130 stopped.
"""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from course import execution
from course.chapters import chosen_parts
from course.graph import PROJECT, Cluster, cluster
from course.progress import clock
from course.workflow import bring_up, label_counts, one_line_errors, print_end, print_plan, repeated
from ssl_utils.data import datasets
from ssl_utils.experiments import scales
from ssl_utils.files import write_json

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
Scale = Annotated[str, typer.Option(help=", ".join(scales.SCALES))]
DatasetName = Annotated[str, typer.Option(help=", ".join(datasets.NAMES))]
Data = Annotated[str | None, typer.Option(help="your own MSD-style folder, for --dataset folder")]
Cores = Annotated[int | None, typer.Option(min=1, help="processor cores to use; all of them by default")]
Part = Annotated[str, typer.Option(help="1, 2, 3 or all; a later part comes with part 1, beside whose runs it is put")]
Repeats = Annotated[int | None, typer.Option(min=1, help="label draws and seeds of every fine-tuning, n x n runs")]
Tasks = Annotated[str | None, typer.Option(help="pretext tasks in place of the study's own, such as mae,restoration")]
Labels = Annotated[str | None, typer.Option(help="numbers of labelled volumes, such as 1,2,3,6,12,24")]
Executor = Annotated[str, typer.Option(help="local, or slurm: one job per part (docs/cluster.md)")]
Jobs = Annotated[int, typer.Option(min=1, help="with slurm: jobs in the queue at a time")]
Partition = Annotated[str | None, typer.Option(help="with slurm: the partition of every job")]
Profile = Annotated[Path, typer.Option(help="with slurm: folder of the workflow profile: memory, time, GPUs per rule")]
Tflops = Annotated[float, typer.Option(min=0.001, help="what the GPU sustains, in 1e12 operations a second")]
Notebooks = Annotated[Path, typer.Option(help="folder of the chapters")]
Minutes = Annotated[float, typer.Option(help="limit for the whole part")]
Writes = Annotated[Path | None, typer.Option(help="the file the part writes last")]
Events = Annotated[Path | None, typer.Option(help="file that is told when it starts and ends")]


@app.command()
def run(
    scale: Scale = "laptop",
    dataset: DatasetName = "phantom",
    data: Data = None,
    cores: Cores = None,
    repeats: Repeats = None,
    labels: Labels = None,
    part: Part = "1",
    notebooks: Notebooks = PROJECT / "notebooks",
    executor: Executor = "local",
    jobs: Jobs = 20,
    partition: Partition = None,
    profile: Profile = Cluster.profile,
) -> None:
    """Run every chapter that is not done yet, then print the results."""
    with one_line_errors(code=2):
        parts = chosen_parts(part)
        where = cluster(executor, jobs=jobs, partition=partition, profile=profile)
        folder, report = bring_up(
            scale,
            dataset,
            data,
            cores=cores,
            repeats=repeats,
            labels=labels,
            notebooks=notebooks,
            parts=parts,
            where=where,
        )
        table = f"results_part{part}.md" if part in ("2", "3") else "results.md"
        print_end(folder, report, table=folder / table)
        if report["parts"] and not where:
            write_json(folder / "costs.json", report)  # what json_files/reference_costs.json is made of


@app.command()
def study(
    name: Annotated[str, typer.Argument(help="mask_ratio, freezing, pretraining_data, restoration, ...")],
    scale: Scale = "laptop",
    dataset: DatasetName = "phantom",
    data: Data = None,
    cores: Cores = None,
    repeats: Repeats = None,
    labels: Labels = None,
    tasks: Tasks = None,
    notebooks: Notebooks = PROJECT / "notebooks",
    executor: Executor = "local",
    jobs: Jobs = 20,
    partition: Partition = None,
    profile: Profile = Cluster.profile,
) -> None:
    """Vary one thing on top of the course: only runs that the course or another study has not made are made."""
    from course import studies

    with one_line_errors(code=2):
        studies.get(name)
        where = cluster(executor, jobs=jobs, partition=partition, profile=profile)
        run, report = bring_up(
            scale,
            dataset,
            data,
            cores=cores,
            repeats=repeats,
            labels=labels,
            notebooks=notebooks,
            parts=[1],
            where=where,
            study=name,
            tasks=tuple(tasks.split(",")) if tasks else (),
        )
        folder = run / "studies" / name
        print_end(run, report, table=folder / "results.md")
        print(f"{'this study':20} {folder}")


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
    """What a course would run, in which order, and what that would cost; nothing is started or fetched."""
    with one_line_errors(code=2):
        numbers = repeated(scale, repeats)
        config = {"scale": scale, "dataset": dataset, "data": data, "settings": asdict(numbers)}
        config["parts"] = chosen_parts(part)
        print_plan(config | {"num_labeled": label_counts(labels) if labels else numbers.num_labeled}, jobs, tflops)


@app.command()
def status(dataset: DatasetName = "phantom", scale: Scale = "laptop", data: Data = None) -> None:
    """Every run of a course: pending, running (how far, where), done with its figure, failed, timed out."""
    from rich.console import Console
    from rich.table import Table

    from course import status as state
    from ssl_utils.experiments import runs

    console = Console()
    with one_line_errors(code=1):
        scales.get(scale)
        root = runs.course_dir(datasets.run_name(dataset, data), scale)
        rows = state.rows(root)
        if not rows:
            chosen = f"SCALE={scale} DATASET={dataset}" + (f" DATA={data}" if data else "")
            console.print(f"{root}: no runs yet; start with: make course {chosen}", soft_wrap=True)
            return
        table = Table("run", "state", "step", "figure", "seconds", "device", "job")
        for row in rows:
            table.add_row(row.run, row.state, row.step, row.figure, row.seconds, row.device, row.job)
        wide = console if console.is_terminal else Console(width=160)
        wide.print(table)
        wide.print(state.summary(rows))
        for row in rows:
            if row.reason:
                wide.print(f"{row.run}: {row.reason}", soft_wrap=True, highlight=False, markup=False)


@app.command("run-chapter")
def run_chapter(
    notebook: Path,
    executed: Path,
    parameters: Annotated[str, typer.Option(help="JSON")] = "{}",
    writes: Writes = None,
    minutes: Minutes = 60,
    events: Events = None,
) -> None:
    """Execute one chapter without a person, as the rules of the Snakefile do."""
    chosen = json.loads(parameters)
    with one_line_errors(code=1):
        seconds = execution.run_chapter(notebook, executed, chosen, writes=writes, minutes=minutes, events=events)
        print(f"{execution.label(notebook.stem, chosen)}   {clock(seconds)}")


@app.command("run-command")
def run_command(
    name: Annotated[str, typer.Argument(help="what progress shows; its first word is the kind of step")],
    log: Path,
    words: Annotated[str, typer.Argument(help="JSON list: a module of python -m, and its arguments")],
    writes: Writes = None,
    minutes: Minutes = 60,
    events: Events = None,
) -> None:
    """Run one command of the package without a person, as the rules of Snakefile.studies do."""
    with one_line_errors(code=1):
        seconds = execution.run_command(name, log, json.loads(words), writes=writes, minutes=minutes, events=events)
        print(f"{name}   {clock(seconds)}")


if __name__ == "__main__":
    app()
