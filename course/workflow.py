"""Bring a run folder up to date: data, the graph of its parts, the table at its end."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path

from course import graph
from course.execution import refuse_braces
from course.graph import PROJECT, locked, run_graph
from course.grids import Grid
from course.progress import clock
from course.request import Request
from ssl_utils.data import datasets, own_grid
from ssl_utils.errors import CourseError
from ssl_utils.experiments import scales
from ssl_utils.files import read_json


def bring_up(
    request: Request,
    *,
    parts: Sequence[int] = (1,),
    study: str | None = None,
    tasks: tuple[str, ...] = (),
    grid: Grid | None = None,
    confirm: Callable[[int], None] = lambda runs: None,
) -> tuple[Path, dict]:
    """Bring the parts of the course, one study on it or the runs of a grid up to date; return the run folder and its
    graph's report. `confirm` is called with the number of unfinished runs of a grid, after their cost was printed."""
    from course import studies
    from ssl_utils.experiments import runs

    if study is not None:
        studies.get(study)
    cluster = graph.cluster(request.executor, request.jobs, request.partition, request.profile)
    scale, dataset, numbers = request.scale, request.dataset, repeated(request.scale, request.repeats)
    numbers = replace(numbers, subsets=grid.subsets, seeds=grid.seeds) if grid else numbers
    counts = label_counts(request.labels) if request.labels else None
    chosen = {key: value for key in own_grid.KEYS if (value := getattr(request, key))}
    datasets.get(dataset, request.data, chosen=own_grid.parsed(chosen))
    cores = request.cores or usable_cores()
    data = str(Path(request.data).expanduser().resolve()) if request.data else None
    run = runs.course_dir(datasets.run_name(dataset, data), scale)
    refuse_braces(PROJECT, run, data or "", datasets.data_root(), request.notebooks.resolve())
    # parts run in another folder: no relative path may reach them
    os.environ["SSL_RUNS_ROOT"], os.environ["SSL_DATA_ROOT"] = str(runs.runs_root()), str(datasets.data_root())
    runs.refuse_old_layout(run / ".course" / "config.json")
    with locked(run) as lock:
        prepare(dataset, scale, data, chosen)
        config = {"scale": scale, "dataset": dataset, "data": data, "notebooks": str(request.notebooks.resolve())}
        config |= {"parts": list(parts), "layout": runs.LAYOUT}
        config = read_json(run / "data.json") | config | {"settings": asdict(numbers)}
        if counts:
            config["num_labeled"] = label_counts(request.labels, config["cases"]["training"])
        if study:
            chosen = {"num_labeled": config["num_labeled"], "all_labels": bool(counts), "tasks": tasks}
            chosen["training"] = config["cases"]["training"]
            config["study"] = studies.plan(study, scale=numbers, dataset=dataset, data=data, **chosen)
        elif grid:
            config["study"] = grid.plan(config["cases"]["training"])
        for other in config.get("study", {}).get("needs", ()):
            prepare(other, scale)
        if grid:
            confirm(_print_rest(run, config, jobs=cluster.jobs if cluster else graph.slots(cores)))
            grid.register(run)
        elif cluster and not study:
            print_plan(config, jobs=cluster.jobs)
        report = run_graph(run, config, cores=cores, cluster=cluster, lock=lock)
    return run, report


def exit_if_failed(report: dict) -> None:
    if report["code"]:
        print("What is complete is kept: the same command resumes.", file=sys.stderr)
        sys.exit(report["code"])


def _print_rest(run: Path, config: dict, *, jobs: int) -> int:
    """Print the cost of the runs of a sweep that are not finished, and of the chapters that come before them; return
    the number of these runs."""
    from course import plan

    left = [part for part in plan.parts(config) if not (run / part.writes).exists()]
    if left:
        before = [part for part in plan.first_parts() if not (run / part.writes).exists()]
        print("\n".join(plan.estimate(config, [*before, *left]).lines(jobs=jobs, tflops=50.0)), flush=True)
    return len(left)


def repeated(scale: str, repeats: int | None) -> scales.Scale:
    numbers = scales.get(scale)
    return replace(numbers, subsets=repeats or numbers.subsets, seeds=repeats or numbers.seeds)


def print_plan(config: dict, jobs: int, tflops: float = 50.0) -> None:
    from course import plan

    print(f"Plan: {config['dataset']}, scale {config['scale']}, from scratch")
    print("\n".join(plan.estimate(config).lines(jobs=jobs, tflops=tflops)), flush=True)


def label_counts(text: str, there: int | None = None) -> list[int]:
    """`1,2,6` -> [1, 2, 6], smallest first. `there`: the labelled training volumes, where they are known."""
    try:
        counts = sorted({int(part) for part in text.split(",")})
    except ValueError:
        counts = [0]
    if counts[0] < 1:
        raise CourseError(f"labels={text!r}: must be whole numbers of volumes, such as 1,2,3,6,12,24")
    if there is not None and counts[-1] > there:
        raise CourseError(f"labels={text}: only {there} labelled training volumes; choose fewer")
    return counts


def prepare(dataset: str, scale: str, data: str | None = None, chosen: Mapping[str, str] | None = None) -> None:
    """Fetch or generate a dataset in a process of its own, which prints its progress, and record the values of the
    grid that are `chosen`."""
    words = [sys.executable, "-m", "ssl_utils", "data", dataset, "--scale", scale, *(["--data", data] if data else [])]
    words += [f"--{key.replace('_', '-')}={value}" for key, value in (chosen or {}).items()]
    if subprocess.run(words).returncode:
        sys.exit(2)  # nothing was started


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
        print(f"error: {error.filename or 'a file'}: {error.strerror}; solve that and run again", file=sys.stderr)
        sys.exit(code)
    except KeyboardInterrupt:
        print("stopped; what is complete is kept, and the same command resumes", file=sys.stderr)
        sys.exit(130)


def usable_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def print_end(run: Path, report: dict, *, table: Path) -> None:
    """Print the table that the last part wrote, the places of all results, and the cost; exit if a part failed."""
    exit_if_failed(report)
    if table.exists():
        print("\n" + table.read_text(encoding="utf-8").strip() + "\n")
    patterns = {"executed notebooks": "**/notebook.ipynb", "figures": "figures", "metrics": "**/metrics.json"}
    for name, pattern in patterns.items():
        print(f"{name:20} {run / pattern}")
    if not report["parts"]:
        print("Everything was done already; nothing was run.")
        return
    time = f"{report['parts']} parts in {clock(report['seconds'])}"
    if report["jobs"]:
        print(f"{time} through Slurm, {report['jobs']} at a time")
        return
    together, largest = report["peak_bytes"] / 1e9, report["largest_process_bytes"] / 1e9
    memory = f"peak memory {together:.1f} GB for all processes together, {largest:.1f} GB for the largest one"
    print(f"{time} on {report['cores']} cores; {memory}")
