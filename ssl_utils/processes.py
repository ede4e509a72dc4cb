"""Which process does a piece of work, written down beside it, and whether that process is still there; its memory."""

import ctypes
import os
import platform

import psutil


def here() -> dict[str, str | int | None]:
    """This process: host, process id, and the Slurm job it belongs to."""
    return {"host": platform.node(), "process": os.getpid(), "job": os.environ.get("SLURM_JOB_ID")}


def gone(noted: dict) -> bool:
    """True when the noted process ran on this machine and is no more; of another machine nothing is known."""
    return noted.get("host") == platform.node() and not psutil.pid_exists(noted["process"])


def keep_freed_memory() -> None:
    """Let this process keep blocks of up to 32 MB that it frees, for the next step needs the same ones again.

    By default the C library of Linux hands them back, and every step asks for them anew, page by page: a fine-tuning
    step at scale laptop took 0.20 s instead of 0.17 s. Peak memory is the same. Elsewhere this does nothing.
    """
    libc = ctypes.CDLL(None) if os.name == "posix" else None
    if hasattr(libc, "mallopt"):
        trim_threshold, mmap_threshold = -1, -3  # numbers of <malloc.h>
        libc.mallopt(mmap_threshold, 32 << 20)  # the largest value it takes
        libc.mallopt(trim_threshold, 1 << 30)
