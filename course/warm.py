"""The warm process of a course: it imports once what every part needs, and forks for each part and each kernel.

These imports take ten seconds of processor time. `run_graph` offers the socket, and the first part that asks
(`course.start`) has the process started: a course that is done already starts none.
Forks are not possible once CUDA was asked for its devices, and on macOS: there every part imports for itself.
"""

import atexit
import gc
import json
import os
import selectors
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import traceback
from contextlib import contextmanager, suppress
from importlib import import_module
from typing import NoReturn

import ssl_utils
from course.start import ADDRESS, run_module
from course.watching import end

LIGHTER = "from course.warm import lighten; lighten(); del lighten"  # for a kernel
MODULES = (
    "course.request",
    "course.workflow",
    "papermill",
    "ipykernel.kernelapp",
    "course.chapter",
    "course.exercises",
    "ssl_utils.experiments.pretraining",
    "ssl_utils.experiments.finetuning",
    "ssl_utils.experiments.prediction",
    "ssl_utils.figures",
    "ssl_utils.statistics",
    "ssl_utils.widgets.viewers",
)


def lighten() -> None:
    """Save time of the imports that follow."""
    gc.set_threshold(50_000, 50, 100)  # it goes through all modules, 1 s in all, and can wait for `chapter.start`
    ssl_utils.lighten()


@contextmanager
def offered(threads: int):
    """Offer a warm process with so many threads a part.

    Yields the environment in which parts find it, and a function that starts it when a part has asked; call that one
    often. Everything that it has forked ends with this block.
    """
    if not hasattr(os, "pidfd_open"):  # Linux has it
        yield {}, lambda: None
        return
    process = None
    with tempfile.TemporaryDirectory(prefix="ssl-warm-") as folder, socket.socket(socket.AF_UNIX) as listener:
        listener.bind(address := f"{folder}/socket")
        listener.listen(128)

        def look() -> None:
            nonlocal process
            if process is None and selectors.select.select([listener], [], [], 0)[0]:
                process = _started(listener, threads)
            elif process and process.poll() is not None:  # no forks with CUDA, or killed for its memory
                listener.close()  # parts that wait for it, or ask later, run by themselves

        try:
            yield {ADDRESS: address}, look
        finally:
            if process:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def _started(listener: socket.socket, threads: int) -> subprocess.Popen:
    """The process in a group of its own, which its forks share."""
    return subprocess.Popen(
        [sys.executable, "-m", "course.warm", str(listener.fileno())],
        env=os.environ | {"OMP_NUM_THREADS": str(threads)},
        pass_fds=[listener.fileno()],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def serve(listener: socket.socket) -> dict | None:
    """Fork for everyone that asks until the course has ended. Returns in each fork, with its request."""
    here, course = os.getpid(), os.getppid()
    with selectors.DefaultSelector() as waiting:
        waiting.register(listener, selectors.EVENT_READ)
        while os.getppid() == course:
            for key, _ in waiting.select(timeout=1):
                if key.fileobj is not listener:
                    waiting.unregister(key.fd)
                    _say_how_it_ended(key.fd, *key.data)
                elif request := _received(connection := listener.accept()[0]):
                    if not (fork := os.fork()):
                        return _become(request, connection, here)
                    for stream in request["streams"]:
                        os.close(stream)
                    waiting.register(os.pidfd_open(fork), selectors.EVENT_READ, (fork, connection))
    return None


def _received(connection: socket.socket) -> dict | None:
    """What a part asks for; None when it has gone."""
    with suppress(OSError, ValueError):
        length, streams, *_ = socket.recv_fds(connection, 4, 3)
        with connection.makefile("rb") as stream:
            request = json.loads(stream.read(int.from_bytes(length, "big")))
        connection.sendall(b".")
        return request | {"streams": streams}
    return None


def _say_how_it_ended(watch: int, fork: int, connection: socket.socket) -> None:
    os.close(watch)
    code = os.waitstatus_to_exitcode(os.waitpid(fork, 0)[1])
    with connection, suppress(OSError):
        connection.sendall(bytes([code % 256]))


def _become(request: dict, connection: socket.socket, parent: int) -> dict:
    """Take over the standard streams, the folder and the environment of the part, and end when it ends."""
    for number, stream in enumerate(request["streams"]):
        os.dup2(stream, number)
        os.close(stream)
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(request["environment"])
    os.environ.pop("JPY_PARENT_PID", None)  # a kernel would end with it, and it is not its parent

    def watch() -> None:
        while os.getppid() == parent and not selectors.select.select([connection], [], [], 1)[0]:
            continue
        end(1)

    threading.Thread(target=watch, daemon=True).start()
    return request


def _run(request: dict) -> NoReturn:
    """Run the module and end at once: Python would free all modules, page by page, which takes half a second."""
    code = 1
    try:
        run_module(request["words"], request["folder"])
        code = 0
    except SystemExit as ended:
        if isinstance(ended.code, str):
            print(ended.code, file=sys.stderr)
        code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except BaseException:
        traceback.print_exc()
    atexit._run_exitfuncs()
    sys.stdout.flush()
    os._exit(code)


def main() -> None:
    listener = socket.socket(fileno=int(sys.argv[1]))
    os.environ["MPLBACKEND"] = "module://matplotlib_inline.backend_inline"  # as a kernel has it, before Matplotlib
    lighten()
    for module in MODULES:
        import_module(module)
    import torch

    if not torch.cuda.is_available():
        gc.freeze()
        if request := serve(listener):
            listener.close()
            _run(request)


if __name__ == "__main__":
    main()
