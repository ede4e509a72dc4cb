"""Processes and their memory: which one makes a run, whether it is still alive, and how it keeps freed memory."""

import ctypes
import os
import platform
import resource

import psutil


def here() -> dict[str, str | int | None]:
    """This process: host, process id, and the Slurm job it belongs to."""
    return {"host": platform.node(), "process": os.getpid(), "job": os.environ.get("SLURM_JOB_ID")}


def gone(process: dict) -> bool:
    """Whether a process (of `here`) of this machine has ended; False for other machines, where nothing is known."""
    return process.get("host") == platform.node() and not psutil.pid_exists(process["process"])


def peak_memory_gb() -> float:
    """Peak resident memory of this process in GB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (1e9 if platform.system() == "Darwin" else 1e6), 2)


def keep_freed_memory() -> None:
    """Keep what this process frees, since the next step needs the same blocks again.

    By default the C library of Linux returns large blocks, and every step requests them anew, page by page: a
    fine-tuning step of UNETR on a crop of 96^3 took 3.9 s instead of 3.1 s. Peak memory is the same. Call
    `give_back_memory` when training ends. Without glibc both do nothing.
    """
    trim_threshold, mmap_max = -1, -4  # constants of <malloc.h>
    if libc := _allocator():
        libc.mallopt(mmap_max, 0)  # no block has a mapping of its own, which would be unmapped with it
        libc.mallopt(trim_threshold, 2**31 - 1)


def give_back_memory() -> None:
    """Return freed memory to the system."""
    if libc := _allocator():
        libc.malloc_trim(0)


def _allocator() -> ctypes.CDLL | None:
    libc = ctypes.CDLL(None) if os.name == "posix" else None
    return libc if hasattr(libc, "mallopt") and hasattr(libc, "malloc_trim") else None
