"""The Slurm jobs of a run folder: those in the queue, and the state in which the others ended."""

import re
import shutil
import subprocess
from contextlib import suppress
from pathlib import Path

from ssl_utils.errors import CourseError

ONE_RULE = re.compile(r"^(?:local)?rule \w+:\n(?P<body>(?:    .*\n)+)", re.MULTILINE)
SUBMITTED = re.compile(r"^Job (\d+) has been submitted with SLURM jobid (\d+)", re.MULTILINE)
ENDED = re.compile(r"SLURM-job '(\d+)' failed, SLURM status is: '(\w+)'")


def refuse_if_queued(run: Path) -> None:
    """Refuse to start while jobs of a killed driver are in the queue: a new one would submit the same parts again.

    Raises:
        CourseError: there is no Slurm here, it does not answer, or it still has jobs of this run folder.
    """
    if left := " ".join(queued(run)):
        raise CourseError(
            f"{run}: jobs {left} of a course that was stopped are still in the queue; wait for them, "
            f"or end them first: scancel {left}"
        )


def queued(run: Path) -> list[str]:
    """Ids of the jobs that were submitted from this run folder and have not ended."""
    if not shutil.which("squeue"):
        raise CourseError("executor='slurm': no squeue on this machine; start the course on a login node")
    answer = _squeue()
    if answer.returncode:
        error = (answer.stderr.strip().splitlines() or ["squeue failed"])[-1]
        raise CourseError(f"executor='slurm': Slurm does not answer ({error}); try again when sinfo shows the nodes")
    pairs = (line.split(" ", 1) for line in answer.stdout.splitlines())
    return [job for job, folder in pairs if folder == str(run.resolve())]


def answers() -> bool:
    return _squeue().returncode == 0


def _squeue() -> subprocess.CompletedProcess:
    return subprocess.run(["squeue", "--me", "--noheader", "--format=%A %Z"], capture_output=True, text=True)


def cancel(run: Path) -> None:
    """Cancel the queued jobs of a course that is being stopped, which Snakemake may have left."""
    with suppress(CourseError):
        if left := queued(run):
            subprocess.run(["scancel", *left], capture_output=True)


def jobs(log: str) -> dict[str, tuple[str, str]]:
    """From Snakemake's log: the file a part writes -> (id of its last Slurm job, the state it ended in or "")."""
    outputs = {}
    for rule in ONE_RULE.finditer(log):
        fields = dict(re.findall(r"^    (\w+): (.*)$", rule["body"], re.MULTILINE))
        outputs[fields.get("jobid")] = fields.get("output", "").split(", ")
    ended = dict(ENDED.findall(log))
    return {
        output: (job, ended.get(job, ""))
        for number, job in SUBMITTED.findall(log)
        for output in outputs.get(number, ())
    }
