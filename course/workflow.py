"""Bring a run folder up to date: data, the graph of its parts, progress while it runs, the table at its end."""

import os
import signal
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path

from course.graph import Cluster, locked, run_graph
from course.progress import clock
from ssl_utils.data import datasets
from ssl_utils.errors import CourseError
from ssl_utils.experiments import scales
from ssl_utils.files import read_json


def bring_up(
    scale: str,
    dataset: str,
    data: str | None,
    *,
    cores: int | None,
    repeats: int | None,
    labels: str | None,
    notebooks: Path,
    parts: list[int],
    where: Cluster | None = None,
    study: str | None = None,
    tasks: tuple[str, ...] = (),
) -> tuple[Path, dict]:
    """The run folder and the report of its graph, all of which is up to date: the course, or one study on it."""
    numbers = repeated(scale, repeats)
    counts = label_counts(labels) if labels else None
    datasets.get(dataset, data)
    from course import studies
    from ssl_utils.experiments import runs

    data = str(Path(data).expanduser().resolve()) if data else None
    run = runs.course_dir(datasets.run_name(dataset, data), scale)
    # parts run in another folder: no relative path may reach them
    os.environ["SSL_RUNS_ROOT"], os.environ["SSL_DATA_ROOT"] = str(runs.runs_root()), str(datasets.data_root())
    runs.refuse_old_layout(run / ".course" / "config.json")
    with locked(run) as lock:
        prepare(dataset, scale, data)
        config = {"scale": scale, "dataset": dataset, "data": data, "notebooks": str(notebooks.resolve())}
        config |= {"parts": parts, "layout": runs.LAYOUT}
        config = read_json(run / "data.json") | config | {"settings": asdict(numbers)}
        if counts:
            most = config["cases"]["training"]
            config["num_labeled"] = [n for n in counts if n <= most] or [most]
        if study:
            plan = studies.plan(
                study,
                scale=numbers,
                dataset=dataset,
                data=data,
                num_labeled=config["num_labeled"],
                all_labels=bool(counts),
                tasks=tasks,
            )
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


def print_plan(config: dict, jobs: int, tflops: float = 50.0) -> None:
    from course import plan

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
        ("executed notebooks", "**/notebook.ipynb"),
        ("figures", "figures"),
        ("metrics", "**/metrics.json"),
    ):
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
