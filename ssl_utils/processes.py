"""Which process does a piece of work, written down beside it, and whether that process is still there."""

import os
import platform

import psutil


def here() -> dict[str, str | int | None]:
    """This process: host, process id, and the Slurm job it belongs to."""
    return {"host": platform.node(), "process": os.getpid(), "job": os.environ.get("SLURM_JOB_ID")}


def gone(noted: dict) -> bool:
    """True when the noted process ran on this machine and is no more; of another machine nothing is known."""
    return noted.get("host") == platform.node() and not psutil.pid_exists(noted["process"])
