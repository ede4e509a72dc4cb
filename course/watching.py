"""Work under watch: it ends at its time limit, or with its course, and its kernels end with it."""

import os
import signal
import threading
import time

import psutil

from ssl_utils.errors import CourseError


class TimedOut(CourseError):
    """A part was stopped at its time limit."""


def watched(work, *, minutes: float) -> None:
    """Run `work` in a thread and watch it: a kernel must not outlive its chapter, and a chapter not its course."""
    caught: list[BaseException] = []

    def call():
        try:
            work()
        except BaseException as error:
            caught.append(error)

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda number, _: end(128 + number))
    thread = threading.Thread(target=call, daemon=True)
    thread.start()
    if "SLURM_JOB_ID" in os.environ:  # Slurm counts from before Python started, and ends it without an error message
        minutes -= min(2, minutes / 2)
    parent, deadline = os.getppid(), time.monotonic() + 60 * minutes
    course = int(os.environ.get("SSL_COURSE_PROCESS") or parent)
    while thread.is_alive():
        thread.join(0.5)
        if os.getppid() != parent or not psutil.pid_exists(course):
            end(1)
        if time.monotonic() > deadline:
            _kill_kernels()
            thread.join(20)
            raise TimedOut(f"it took more than {minutes:g} minutes")
    if caught:
        raise caught[0]


def _kill_kernels() -> None:
    for process in psutil.Process().children(recursive=True):
        try:
            process.kill()
        except psutil.Error:
            continue


def end(code: int) -> None:
    """End this process at once, and all processes below it."""
    _kill_kernels()
    os._exit(code)
