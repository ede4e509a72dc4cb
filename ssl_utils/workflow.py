"""One command runs the course, or a study: data, the graph of its parts, progress while it runs, the table at its end.

    python -m ssl_utils.workflow course --scale smoke
    python -m ssl_utils.workflow course --scale paper --executor slurm --jobs 20 --partition gpu
    python -m ssl_utils.workflow plan --scale paper
    python -m ssl_utils.workflow study mask_ratio --scale smoke
    python -m ssl_utils.workflow run-chapter notebooks/00_start_here.ipynb out.ipynb --parameters '{"scale": "smoke"}'
    python -m ssl_utils.workflow run-command "pretrain simmim" log.txt '["ssl_utils", "pretrain", "simmim"]'

Exit codes: 0 done, 1 a part failed, 2 nothing was started (unknown name, missing data), 130 stopped.
"""

import json
import os
import signal
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated

import typer

from ssl_utils import execution, scales
from ssl_utils.data import datasets
from ssl_utils.errors import CourseError
from ssl_utils.files import read_json, write_json
from ssl_utils.graph import PROJECT, Cluster, cluster, locked, run_graph
from ssl_utils.progress import clock

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
Scale = Annotated[str, typer.Option(help=", ".join(scales.SCALES))]
DatasetName = Annotated[str, typer.Option(help=", ".join(datasets.NAMES))]
Data = Annotated[str | None, typer.Option(help="your own MSD-style folder, for --dataset folder")]
Cores = Annotated[int | None, typer.Option(min=1, help="processor cores to use; all of them by default")]
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
def course(
    scale: Scale = "laptop", dataset: DatasetName = "phantom", data: Data = None, cores: Cores = None,
    repeats: Repeats = None, labels: Labels = None, notebooks: Notebooks = PROJECT / "notebooks",
    executor: Executor = "local", jobs: Jobs = 20, partition: Partition = None, profile: Profile = Cluster.profile,
) -> None:  # fmt: skip
    """Run every chapter that is not done yet, then print the results."""
    with one_line_errors(code=2):
        where = cluster(executor, jobs=jobs, partition=partition, profile=profile)
        run, report = bring_up(
            scale, dataset, data, cores=cores, repeats=repeats, labels=labels, notebooks=notebooks, where=where
        )
        print_end(run, report, table=run / "results.md")
        if report["parts"] and not where:
            write_json(run / "costs.json", report)  # what json_files/reference_costs.json is made of


@app.command()
def study(
    name: Annotated[str, typer.Argument(help="mask_ratio, freezing, pretraining_data, restoration, ...")],
    scale: Scale = "laptop", dataset: DatasetName = "phantom", data: Data = None, cores: Cores = None,
    repeats: Repeats = None, labels: Labels = None, tasks: Tasks = None, notebooks: Notebooks = PROJECT / "notebooks",
    executor: Executor = "local", jobs: Jobs = 20, partition: Partition = None, profile: Profile = Cluster.profile,
) -> None:  # fmt: skip
    """Vary one thing on top of the course: only runs that the course or another study has not made are made."""
    from ssl_utils import studies

    with one_line_errors(code=2):
        studies.get(name)
        where = cluster(executor, jobs=jobs, partition=partition, profile=profile)
        run, report = bring_up(
            scale, dataset, data, cores=cores, repeats=repeats, labels=labels, notebooks=notebooks, where=where,
            study=name, tasks=tuple(tasks.split(",")) if tasks else (),
        )  # fmt: skip
        folder = run / "studies" / name
        print_end(run, report, table=folder / "results.md")
        print(f"{'this study':20} {folder}")


def bring_up(
    scale: str, dataset: str, data: str | None, *, cores: int | None, repeats: int | None, labels: str | None,
    notebooks: Path, where: Cluster | None = None, study: str | None = None, tasks: tuple[str, ...] = (),
) -> tuple[Path, dict]:  # fmt: skip
    """The run folder and the report of its graph, all of which is up to date: the course, or one study on it."""
    numbers = repeated(scale, repeats)
    counts = label_counts(labels) if labels else None
    datasets.get(dataset, data)
    from ssl_utils import studies
    from ssl_utils.reporting import runs

    data = str(Path(data).expanduser().resolve()) if data else None
    run = runs.course_dir(datasets.run_name(dataset, data), scale)
    # parts run in another folder: no relative path may reach them
    os.environ["SSL_RUNS_ROOT"], os.environ["SSL_DATA_ROOT"] = str(runs.runs_root()), str(datasets.data_root())
    with locked(run) as lock:
        prepare(dataset, scale, data)
        config = {"scale": scale, "dataset": dataset, "data": data, "notebooks": str(notebooks.resolve())}
        config = read_json(run / "data.json") | config | {"settings": asdict(numbers)}
        if counts:
            most = config["cases"]["training"]
            config["num_labeled"] = [n for n in counts if n <= most] or [most]
        if study:
            plan = studies.plan(
                study, scale=numbers, dataset=dataset, data=data, num_labeled=config["num_labeled"],
                all_labels=bool(counts), tasks=tasks,
            )  # fmt: skip
            for other in plan["needs"]:
                prepare(other, scale)
            config["study"] = plan
        if where and not study:
            print_plan(config, jobs=where.jobs)
        report = run_graph(run, config, cores=cores or usable_cores(), cluster=where, lock=lock)
    if report["code"]:
        print("What is complete is kept: the same command goes on from there.", file=sys.stderr)
        sys.exit(report["code"])
    return run, report


def repeated(scale: str, repeats: int | None) -> scales.Scale:
    numbers = scales.get(scale)
    return replace(numbers, draws=repeats or numbers.draws, seeds=repeats or numbers.seeds)


@app.command("plan")
def plan_course(
    scale: Scale = "laptop", dataset: DatasetName = "phantom", data: Data = None, repeats: Repeats = None,
    labels: Labels = None, jobs: Jobs = 20, tflops: Tflops = 50.0,
) -> None:  # fmt: skip
    """What a course would run, in which order, and what that would cost; nothing is started or fetched."""
    with one_line_errors(code=2):
        numbers = repeated(scale, repeats)
        config = {"scale": scale, "dataset": dataset, "data": data, "settings": asdict(numbers)}
        print_plan(config | {"num_labeled": label_counts(labels) if labels else numbers.num_labeled}, jobs, tflops)


def print_plan(config: dict, jobs: int, tflops: float = 50.0) -> None:
    from ssl_utils import plan

    print(f"Plan: {config['dataset']}, scale {config['scale']}, from scratch")
    print("\n".join(plan.estimate(config).lines(jobs=jobs, tflops=tflops)), flush=True)


def label_counts(text: str) -> list[int]:
    """`1,2,6` -> [1, 2, 6], smallest first."""
    try:
        counts = sorted({int(part) for part in text.split(",")})
    except ValueError:
        counts = [0]
    if counts[0] < 1:
        raise CourseError(f"labels={text!r}: must be whole numbers of volumes, such as 1,2,3,6,12,24")
    return counts


def prepare(dataset: str, scale: str, data: str | None = None) -> None:
    """Fetch or generate a dataset in a process of its own, which prints what it does."""
    words = [sys.executable, "-m", "ssl_utils", "data", dataset, "--scale", scale, *(["--data", data] if data else [])]
    if code := subprocess.run(words).returncode:
        sys.exit(code)


@app.command("run-chapter")
def run_chapter(
    notebook: Path,
    executed: Path,
    parameters: Annotated[str, typer.Option(help="JSON")] = "{}",
    writes: Writes = None, minutes: Minutes = 60, events: Events = None,
) -> None:  # fmt: skip
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
    writes: Writes = None, minutes: Minutes = 60, events: Events = None,
) -> None:  # fmt: skip
    """Run one command of the package without a person, as the rules of Snakefile.studies do."""
    with one_line_errors(code=1):
        seconds = execution.run_command(name, log, json.loads(words), writes=writes, minutes=minutes, events=events)
        print(f"{name}   {clock(seconds)}")


@contextmanager
def one_line_errors(*, code: int):
    def interrupt(*_):
        raise KeyboardInterrupt

    try:
        for number in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, interrupt)
        yield
    except CourseError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(code)
    except OSError as error:
        print(f"error: {error.filename or 'a file'}: {error.strerror}; mend that and run again", file=sys.stderr)
        sys.exit(code)
    except KeyboardInterrupt:
        print("stopped; what is complete is kept, and the same command goes on from there", file=sys.stderr)
        sys.exit(130)


def usable_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def print_end(run: Path, report: dict, *, table: Path) -> None:
    """The table that the last part wrote, where everything lies, and what it cost."""
    if table.exists():
        print("\n" + table.read_text(encoding="utf-8").strip() + "\n")
    for what, where in (
        ("executed notebooks", "**/notebook.ipynb"), ("figures", "figures"), ("metrics", "**/metrics.json"),
    ):  # fmt: skip
        print(f"{what:20} {run / where}")
    if not report["parts"]:
        print("Everything was done already; nothing was run.")
        return
    if report["jobs"]:
        print(f"{report['parts']} parts in {clock(report['seconds'])} through Slurm, {report['jobs']} at a time")
        return
    together, largest = report["peak_bytes"] / 1e9, report["largest_process_bytes"] / 1e9
    print(
        f"{report['parts']} parts in {clock(report['seconds'])} on {report['cores']} cores; "
        f"peak memory {together:.1f} GB for all processes together, {largest:.1f} GB for the largest one"
    )


if __name__ == "__main__":
    app()
