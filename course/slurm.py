"""What a graph must know of Slurm: the jobs of its run folder that are still there, and what became of the others."""

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
    """A driver that was killed leaves its jobs behind, and a new one would submit the same parts beside them.

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
    look = _ask()
    if look.returncode:
        said = (look.stderr.strip().splitlines() or ["squeue failed"])[-1]
        raise CourseError(f"executor='slurm': Slurm does not answer ({said}); try again when sinfo shows the nodes")
    pairs = (line.split(" ", 1) for line in look.stdout.splitlines())
    return [job for job, folder in pairs if folder == str(run.resolve())]


def answers() -> bool:
    return _ask().returncode == 0


def _ask() -> subprocess.CompletedProcess:
    return subprocess.run(["squeue", "--me", "--noheader", "--format=%A %Z"], capture_output=True, text=True)


def cancel(run: Path) -> None:
    """End what a course that is being stopped has in the queue; Snakemake may not have come to it."""
    with suppress(CourseError):
        if left := queued(run):
            subprocess.run(["scancel", *left], capture_output=True)


def jobs(log: str) -> dict[str, tuple[str, str]]:
    """Of Snakemake's log: the file a part writes -> (id of its last Slurm job, how Slurm ended it or "")."""
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
