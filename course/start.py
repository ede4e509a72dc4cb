"""Like `python -m`, in a fork of the course's warm process where there is one.

    python -m course.start MODULE WORDS...

The warm process (`course.warm`) has imported what parts of the course need, so that a fork starts at once. It gets the
words, the working directory, the environment and the standard streams of this process, which waits for it and ends with
its exit code. When this process ends first, the fork ends, too.
"""

import json
import os
import runpy
import signal
import socket
import sys

ADDRESS = "SSL_WARM_PROCESS"  # names the socket of the warm process


def handed_over(words: list[str]) -> int | None:
    """The exit code of these words in a fork; None, and nothing was run, without a warm process."""
    with socket.socket(socket.AF_UNIX) as warm:
        try:
            warm.connect(os.environ[ADDRESS])
            request = {"words": words, "folder": os.getcwd(), "environment": dict(os.environ)}
            content = json.dumps(request).encode()
            socket.send_fds(warm, [len(content).to_bytes(4, "big")], [0, 1, 2])
            warm.sendall(content)
            if not warm.recv(1):
                return None
        except (KeyError, OSError):
            return None
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Jupyter interrupts a kernel before it asks it to end
        try:
            return int.from_bytes(warm.recv(1) or b"\1", "big")
        except OSError:
            return 1


def run_module(words: list[str], folder: str) -> None:
    """What `python -m` does with these words in this folder."""
    sys.argv, sys.path[0] = list(words), folder
    runpy.run_module(words[0], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    code = handed_over(sys.argv[1:])
    if code is None:
        run_module(sys.argv[1:], os.getcwd())
    sys.exit(code)
