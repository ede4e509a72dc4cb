"""The graph of a run folder: hold the folder, bring it up to date with Snakemake, tell what happens meanwhile."""

import fcntl
import json
import os
import re
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

from ssl_utils.errors import CourseError
from ssl_utils.files import write_json
from ssl_utils.progress import Memory, Progress, reference_costs

PROJECT = Path(__file__).resolve().parents[1]


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
            With a plan under "study" (`studies.plan`) that study is brought up to date instead of the course.
        cores: processor cores to use.

    Returns:
        exit code under "code", "parts" that ran, mean "chapters" seconds, "seconds", peak memory in bytes.
    """
    course = run / ".course"
    study = (config.get("study") or {}).get("name")
    settings = course / (f"study_{study}.json" if study else "config.json")
    write_json(settings, config)
    events, log = course / "events.jsonl", course / "snakemake.log"
    events.write_text("")
    command = graph_command(run, settings, cores=cores, study=bool(study))
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


def graph_command(run: Path, config: Path, *, cores: int, study: bool = False) -> list[str]:
    return [
        sys.executable, "-m", "snakemake", *(["study"] if study else []),
        "--snakefile", str(PROJECT / ("Snakefile.studies" if study else "Snakefile")), "--directory", str(run),
        "--configfile", str(config), "--profile", "none", "--cores", str(cores), "--scheduler", "greedy",
        "--nolock", "--rerun-incomplete", "--rerun-triggers", "mtime", "params", "input", "--nocolor",
    ]  # fmt: skip


def planned(log: str, notebooks: Path | str) -> dict[str, int]:
    """Parts to run per chapter (or kind of step of a study), read from the job table that Snakemake prints first;
    empty while it is not there."""
    table = re.search(r"^Job stats:\n(.*?)^total\s+\d+", log, re.DOTALL | re.MULTILINE)
    counts = dict(re.findall(r"^(\w+)\s+(\d+)\s*$", table[1], re.MULTILINE)) if table else {}
    chapters = {path.stem[3:]: path.stem for path in Path(notebooks).glob("[0-9][0-9]_*.ipynb")}
    chapters |= {f"study_{step}": step for step in ("pretrain", "finetune", "results")}
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
