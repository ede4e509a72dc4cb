"""The graph of a run folder: lock the folder, bring it up to date with Snakemake, print the progress."""

import fcntl
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from course import slurm, warm
from course.progress import Memory, Progress, events as events_of, reference_costs
from ssl_utils.errors import CourseError
from ssl_utils.files import write_json

PROJECT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Cluster:
    """Slurm in place of this machine, with so many jobs in its queue at a time."""

    jobs: int = 20
    partition: str | None = None
    profile: Path = PROJECT / "profiles" / "slurm"


def cluster(executor: str, jobs: int, partition: str | None, profile: Path) -> Cluster | None:
    """The cluster that this executor and its options mean; None: the parts run on this machine."""
    if executor not in ("local", "slurm"):
        raise CourseError(f"executor={executor!r}: no such executor; choose local or slurm")
    if executor == "local":
        given = {"jobs": jobs != Cluster.jobs, "partition": partition, "profile": profile != Cluster.profile}
        if ignored := ", ".join(f"--{name}" for name, is_given in given.items() if is_given):
            raise CourseError(f"{ignored}: with slurm only; add --executor slurm")
        return None
    if not (profile / "config.yaml").exists():
        raise CourseError(f"profile={str(profile)!r}: no config.yaml in it; copy profiles/slurm and change the copy")
    if not find_spec("snakemake_executor_plugin_slurm"):
        raise CourseError("executor='slurm': not installed; pip install -c constraints.txt -e '.[slurm]'")
    return Cluster(jobs, partition, profile)


@contextmanager
def locked(run: Path):
    """Lock the run folder: a second course would write into the same files. Yields the lock's descriptor."""
    (run / ".course").mkdir(parents=True, exist_ok=True)
    with open(run / ".course" / "lock", "a+") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            stream.seek(0)
            process = stream.read().strip() or "unknown"
            text = f"{run}: a course already runs here (process {process}); wait for it, or stop it"
            raise CourseError(text) from None
        stream.truncate(0)
        stream.write(str(os.getpid()))
        stream.flush()
        yield stream.fileno()


def run_graph(run: Path, config: dict, *, cores: int, cluster: Cluster | None = None, lock: int | None = None) -> dict:
    """Bring the run folder up to date; print a line per finished part.

    Args:
        run: runs/<dataset>/<scale>.
        config: scale, dataset, data, notebooks, num_labeled, settings (numbers of the scale); read by the Snakefile.
            With a plan under "study" (`studies.plan`, `Grid.plan`) that study or sweep is brought up to date instead
            of the course.
        cores: processor cores to use.
        cluster: send the parts to Slurm instead.

    Returns:
        exit code under "code", "parts" that ran, mean "chapters" seconds, "seconds", peak memory in bytes.
    """
    course = run / ".course"
    study = config.get("study") or {}
    if cluster:
        slurm.refuse_if_queued(run)
    settings = course / (f"study_{study['name']}.json" if study else "config.json")
    write_json(settings, config)
    events, log = course / "events.jsonl", course / "snakemake.log"
    events.write_text("")
    target = study.get("target", "study") if study else None
    command = graph_command(run, settings, cores=cores, cluster=cluster, target=target)
    at_a_time = cluster.jobs if cluster else slots(cores)
    progress = Progress(reference_costs(run.parent.name, run.name), slots=at_a_time)
    memory, failed, offset, ticks = Memory(), False, 0, 0
    with ExitStack() as stack:
        stream = stack.enter_context(open(log, "w"))
        own, look = ({}, lambda: None) if cluster else stack.enter_context(warm.offered(cores // slots(cores)))
        own |= {} if cluster else {"SSL_COURSE_PROCESS": str(os.getpid())}  # of this machine only
        snakemake = subprocess.Popen(
            command,
            stdout=stream,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            pass_fds=[lock] if lock is not None else [],
            cwd=run if cluster else None,  # by which Slurm knows its jobs
            env=os.environ | own,
        )
        stack.callback(lambda: stop_group(snakemake) and cluster and slurm.cancel(run))
        running = True
        while running:
            running = snakemake.poll() is None
            look()
            if ticks % 5 == 0:  # once a second
                memory.look()
            ticks += 1
            if not progress.total:
                progress.left = planned(log.read_text(errors="replace"), config["notebooks"])
            with open(events, "rb") as written:
                written.seek(offset)
                new = written.read()
            lines = new[: new.rfind(b"\n") + 1]
            offset += len(lines)
            for event in events_of(lines.decode(errors="replace")):
                failed = failed or event["event"] == "failed"
                if line := progress.take(event):
                    print(line, file=sys.stderr if event["event"] == "failed" else sys.stdout, flush=True)
            time.sleep(0.2 * running)
    if snakemake.returncode and not failed:
        reason = " ".join(log.read_text(errors="replace").split()[-60:])
        print(f"error: the graph of chapters could not be run: {reason} (all of it in {log})", file=sys.stderr)
    return {
        "code": 1 if snakemake.returncode else 0,
        "parts": progress.finished,
        "cores": cores,
        "jobs": cluster.jobs if cluster else None,
        "seconds": round(time.time() - progress.started, 1),
        "chapters": {c: round(sum(s) / len(s), 1) for c, s in sorted(progress.seconds.items())},
        "peak_bytes": memory.together,
        "largest_process_bytes": memory.largest,
    }


def slots(cores: int) -> int:
    """Parts that run at a time on so many cores, by the threads that the Snakefile gives each."""
    return cores // max(1, cores // 4)


def graph_command(
    run: Path, config: Path, *, cores: int, cluster: Cluster | None = None, target: str | None = None
) -> list[str]:
    """The command line of Snakemake, of its driver for Slurm with a cluster. `target`: study or sweep."""
    # Snakemake ends with a killed course, too: it would go on, while chapters watch the course and fail.
    start = ["setpriv", "--pdeathsig", "KILL"] if cluster or shutil.which("setpriv") else []
    if cluster:
        driver = "course.slurm_driver"
        resources = ["--workflow-profile", str(cluster.profile.resolve()), "--jobs", str(cluster.jobs)]
        resources += ["--default-resources", *_default_resources(cluster)] if cluster.partition else []
    else:
        driver, resources = "snakemake", ["--cores", str(cores)]
    snakefile = PROJECT / ("Snakefile.studies" if target else "Snakefile")
    files = {"--snakefile": snakefile, "--directory": run, "--configfile": config, "--profile": "none"}
    command = [*start, sys.executable, "-m", driver, *([target] if target else [])]
    command += [str(word) for pair in files.items() for word in pair] + resources
    command += ["--scheduler", "greedy", "--nolock", "--rerun-incomplete", "--nocolor"]
    if target == "sweep":  # one bad combination must not end the others; on a cluster the profile has the retries
        command += ["--keep-going", *([] if cluster else ["--retries", "2"])]
    return [*command, "--rerun-triggers", "mtime", "params", "input"]


def _default_resources(cluster: Cluster) -> list[str]:
    """Those of the profile with another partition: on the command line they would take the place of all of them."""
    import yaml

    given = yaml.safe_load((cluster.profile / "config.yaml").read_text(encoding="utf-8")).get("default-resources") or {}
    given = given if isinstance(given, dict) else dict(pair.split("=", 1) for pair in given)
    return [f"{name}={value}" for name, value in (given | {"slurm_partition": cluster.partition}).items()]


def planned(log: str, notebooks: Path | str) -> dict[str, int]:
    """Parts to run per chapter (or step of a study), read from the job table that Snakemake prints first; empty before
    that."""
    table = re.search(r"^Job stats:\n(.*?)^total\s+\d+", log, re.DOTALL | re.MULTILINE)
    counts = dict(re.findall(r"^(\w+)\s+(\d+)\s*$", table[1], re.MULTILINE)) if table else {}
    chapters = {path.stem[3:]: path.stem for path in Path(notebooks).glob("[0-9][0-9]_*.ipynb")}
    chapters |= {f"study_{step}": step for step in ("pretrain", "finetune", "results")} | {"table": "table"}
    return {chapters[rule]: int(count) for rule, count in counts.items() if rule in chapters}


def stop_group(process: subprocess.Popen, *, patience: float = 10.0) -> bool:
    """End Snakemake and the chapters below it, gently first. False, and nothing done, when it had ended by itself."""
    if process.poll() is not None:
        return False
    for number in (signal.SIGTERM, signal.SIGKILL):
        if process.poll() is not None:
            break
        os.killpg(process.pid, number)
        try:
            process.wait(patience)
        except subprocess.TimeoutExpired:
            continue
    return True
