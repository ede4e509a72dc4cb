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
    """Let this process keep what it frees, for the next step needs the same blocks again.

    By default the C library of Linux hands large blocks back, and every step asks for them anew, page by page: a
    fine-tuning step of UNETR on a crop of 96^3 took 3.9 s instead of 3.1 s. Peak memory is the same; `give_back_memory`
    ends the work. Elsewhere both do nothing.
    """
    trim_threshold, mmap_max = -1, -4  # numbers of <malloc.h>
    if libc := _allocator():
        libc.mallopt(mmap_max, 0)  # no block has a mapping of its own, which would end with it
        libc.mallopt(trim_threshold, 2**31 - 1)


def give_back_memory() -> None:
    """Hand back what has been freed and kept."""
    if libc := _allocator():
        libc.malloc_trim(0)


def _allocator() -> ctypes.CDLL | None:
    libc = ctypes.CDLL(None) if os.name == "posix" else None
    return libc if hasattr(libc, "mallopt") and hasattr(libc, "malloc_trim") else None
