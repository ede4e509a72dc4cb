"""One command runs the course: data, the graph of chapters (`Snakefile`), progress while it runs, the table at its end.

    python -m ssl_utils.workflow course --scale smoke
    python -m ssl_utils.workflow run-chapter notebooks/00_start_here.ipynb out.ipynb --parameters '{"scale": "smoke"}'

Exit codes: 0 done, 1 a chapter failed, 2 nothing was started (unknown name, missing data), 130 stopped.
"""

import fcntl
import json
import os
import re
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from ssl_utils import execution, scales
from ssl_utils.data import datasets
from ssl_utils.errors import CourseError
from ssl_utils.files import read_json, write_json
from ssl_utils.progress import Memory, Progress, clock, reference_costs

PROJECT = Path(__file__).resolve().parents[1]
app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def course(
    scale: Annotated[str, typer.Option(help=", ".join(scales.SCALES))] = "laptop",
    dataset: Annotated[str, typer.Option(help=", ".join(datasets.NAMES))] = "phantom",
    data: Annotated[str | None, typer.Option(help="your own MSD-style folder, for --dataset folder")] = None,
    cores: Annotated[int | None, typer.Option(min=1, help="processor cores to use; all of them by default")] = None,
    notebooks: Annotated[Path, typer.Option(help="folder of the chapters")] = PROJECT / "notebooks",
) -> None:
    """Run every chapter that is not done yet, then print the results."""
    with one_line_errors(code=2):
        numbers = scales.get(scale)
        datasets.get(dataset, data)
        from ssl_utils.reporting import runs

        data = str(Path(data).expanduser().resolve()) if data else None
        run = runs.course_dir(datasets.run_name(dataset, data), scale)
        # chapters run in another folder: no relative path may reach them
        os.environ["SSL_RUNS_ROOT"], os.environ["SSL_DATA_ROOT"] = str(runs.runs_root()), str(datasets.data_root())
        with locked(run) as lock:
            own = ["--data", data] if data else []
            prepare = [sys.executable, "-m", "ssl_utils", "data", dataset, "--scale", scale, *own]
            if code := subprocess.run(prepare).returncode:
                sys.exit(code)
            config = {"scale": scale, "dataset": dataset, "data": data, "notebooks": str(notebooks.resolve())}
            config = read_json(run / "data.json") | config | {"settings": asdict(numbers)}
            report = run_graph(run, config, cores=cores or usable_cores(), lock=lock)
        if report["code"]:
            print("What is complete is kept: the same command goes on from there.", file=sys.stderr)
            sys.exit(report["code"])
        print_end(run, report)


@app.command("run-chapter")
def run_chapter(
    notebook: Path,
    executed: Path,
    parameters: Annotated[str, typer.Option(help="JSON")] = "{}",
    writes: Annotated[Path | None, typer.Option(help="the file the chapter writes last")] = None,
    minutes: Annotated[float, typer.Option(help="limit for the whole chapter")] = 60,
    events: Annotated[Path | None, typer.Option(help="file that is told when it starts and ends")] = None,
) -> None:
    """Execute one chapter without a person, as the rules of the Snakefile do."""
    chosen = json.loads(parameters)
    with one_line_errors(code=1):
        seconds = execution.run_chapter(notebook, executed, chosen, writes=writes, minutes=minutes, events=events)
        print(f"{execution.label(notebook.stem, chosen)}   {clock(seconds)}")


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


def print_end(run: Path, report: dict) -> None:
    """The table that chapter 05 wrote, where everything lies, and what it cost."""
    if (run / "results.md").exists():
        print("\n" + (run / "results.md").read_text(encoding="utf-8").strip() + "\n")
    for what, where in (
        ("executed notebooks", "**/notebook.ipynb"), ("figures", "figures"), ("metrics", "**/metrics.json"),
    ):  # fmt: skip
        print(f"{what:20} {run / where}")
    if not report["parts"]:
        print("Everything was done already; nothing was run.")
        return
    write_json(run / "costs.json", report)  # what json_files/reference_costs.json is made of
    together, largest = report["peak_bytes"] / 1e9, report["largest_process_bytes"] / 1e9
    print(
        f"{report['parts']} parts in {clock(report['seconds'])} on {report['cores']} cores; "
        f"peak memory {together:.1f} GB for all processes together, {largest:.1f} GB for the largest one"
    )


@contextmanager
def locked(run: Path):
    """Hold the run folder: a second course on it would write into the same files. Yields the lock's descriptor."""
    (run / ".course").mkdir(parents=True, exist_ok=True)
    with open(run / ".course" / "lock", "a+") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            stream.seek(0)
            who = stream.read().strip() or "unknown"
            raise CourseError(f"{run}: a course already runs here (process {who}); wait for it, or stop it") from None
        stream.truncate(0)
        stream.write(str(os.getpid()))
        stream.flush()
        yield stream.fileno()


def run_graph(run: Path, config: dict, *, cores: int, lock: int | None = None) -> dict:
    """Bring the run folder up to date; print a line per finished part.

    Args:
        run: runs/<dataset>/<scale>.
        config: scale, dataset, data, notebooks, num_labeled, settings (numbers of the scale); read by the Snakefile.
        cores: processor cores to use.

    Returns:
        exit code under "code", "parts" that ran, mean "chapters" seconds, "seconds", peak memory in bytes.
    """
    course = run / ".course"
    write_json(course / "config.json", config)
    events, log = course / "events.jsonl", course / "snakemake.log"
    events.write_text("")
    command = graph_command(run, course / "config.json", cores=cores)
    progress = Progress(reference_costs(run.parent.name, run.name), slots=cores // max(1, cores // 4))
    memory, failed, offset, ticks = Memory(), False, 0, 0
    with open(log, "w") as stream:
        snakemake = subprocess.Popen(
            command, stdout=stream, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, start_new_session=True,
            pass_fds=[lock] if lock is not None else [], env=os.environ | {"SSL_COURSE_PROCESS": str(os.getpid())},
        )  # fmt: skip
    try:
        running = True
        while running:
            running = snakemake.poll() is None
            if ticks % 5 == 0:  # once a second
                memory.look()
            ticks += 1
            if not progress.total:
                progress.left = planned(log.read_text(errors="replace"), config["notebooks"])
            with open(events, "rb") as stream:
                stream.seek(offset)
                new = stream.read()
            new = new[: new.rfind(b"\n") + 1]
            offset += len(new)
            for event in map(json.loads, new.splitlines()):
                if line := progress.take(event):
                    wrong = event["event"] == "failed"
                    print(line, file=sys.stderr if wrong else sys.stdout, flush=True)
                    failed = failed or wrong
            time.sleep(0.2 * running)
    finally:
        stop_group(snakemake)
    if snakemake.returncode and not failed:
        reason = " ".join(log.read_text(errors="replace").split()[-60:])
        print(f"error: the graph of chapters could not be run: {reason} (all of it in {log})", file=sys.stderr)
    return {
        "code": 1 if snakemake.returncode else 0, "parts": progress.finished, "cores": cores,
        "seconds": round(time.time() - progress.started, 1),
        "chapters": {c: round(sum(s) / len(s), 1) for c, s in sorted(progress.seconds.items())},
        "peak_bytes": memory.together, "largest_process_bytes": memory.largest,
    }  # fmt: skip


def graph_command(run: Path, config: Path, *, cores: int) -> list[str]:
    return [
        sys.executable, "-m", "snakemake", "--snakefile", str(PROJECT / "Snakefile"), "--directory", str(run),
        "--configfile", str(config), "--profile", "none", "--cores", str(cores), "--scheduler", "greedy",
        "--nolock", "--rerun-incomplete", "--rerun-triggers", "mtime", "params", "input", "--nocolor",
    ]  # fmt: skip


def planned(log: str, notebooks: Path | str) -> dict[str, int]:
    """Parts to run per chapter, read from the job table that Snakemake prints first; empty while it is not there."""
    table = re.search(r"^Job stats:\n(.*?)^total\s+\d+", log, re.DOTALL | re.MULTILINE)
    counts = dict(re.findall(r"^(\w+)\s+(\d+)\s*$", table[1], re.MULTILINE)) if table else {}
    chapters = {path.stem[3:]: path.stem for path in Path(notebooks).glob("[0-9][0-9]_*.ipynb")}
    return {chapters[rule]: int(count) for rule, count in counts.items() if rule in chapters}


def stop_group(process: subprocess.Popen, *, patience: float = 10.0) -> None:
    """End Snakemake and the chapters below it, gently first. Does nothing once Snakemake has ended by itself."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        if process.poll() is not None:
            return
        os.killpg(process.pid, number)
        try:
            process.wait(patience)
        except subprocess.TimeoutExpired:
            continue


if __name__ == "__main__":
    app()
