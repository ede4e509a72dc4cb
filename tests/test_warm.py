"""The warm process: its forks are the processes that were asked for, and none of them is left over."""

import json
import os
import subprocess
import sys
import threading
import time
from contextlib import contextmanager

import psutil
import pytest

from course import warm
from course.start import ADDRESS

pytestmark = pytest.mark.long
LOOK = """import json, os, sys
sys.stderr.write("noise")
print(json.dumps([sys.argv, os.getcwd(), os.environ["WORD"], sys.stdin.read(), __name__]))
print("torch" in sys.modules)
{end}"""
ENDS = {"pass": 0, "sys.exit()": 0, "sys.exit(7)": 7, "sys.exit('a reason')": 1, "raise KeyError('x')": 1}
SLEEP = "import os, time\nopen('pid', 'w').write(str(os.getpid()))\ntime.sleep(200)"


@contextmanager
def looked_after():
    """Places in the environment, while a thread looks after the process as a course does."""
    with warm.offered(1) as (place, look):
        done = threading.Event()
        thread = threading.Thread(target=lambda: [look() for _ in iter(lambda: done.wait(0.1), True)])
        thread.start()
        try:
            yield place
        finally:
            done.set()
            thread.join()


def start(folder, source: str, place: dict[str, str]) -> subprocess.Popen:
    """A module of this text, in this folder, by `course.start`."""
    (folder / "toy.py").write_text(source)
    environment = {name: value for name, value in os.environ.items() if name != ADDRESS} | {"WORD": "héé"} | place
    streams = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    words = [sys.executable, "-m", "course.start", "toy", "--a", "b c"]
    return subprocess.Popen(words, cwd=folder, env=environment, text=True, **streams)


def wait_for(condition, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.1)


def sleeper(folder, place: dict[str, str]) -> tuple[subprocess.Popen, int]:
    client = start(folder, SLEEP, place)
    wait_for(lambda: (folder / "pid").exists() and (folder / "pid").read_text())
    pid = int((folder / "pid").read_text())
    (folder / "pid").unlink()
    assert pid != client.pid, "it runs in a fork"
    return client, pid


def same_in_a_fork(folder, place: dict[str, str], end: str, code: int) -> None:
    found = []
    for where in ({}, place):
        client = start(folder, LOOK.format(end=end), where)
        out, err = client.communicate("a line", timeout=100)
        seen, loaded = out.splitlines()
        assert json.loads(seen)[1:] == [str(folder), "héé", "a line", "__main__"]
        assert (client.returncode, loaded) == (code, str(bool(where))), err
        found.append((json.loads(seen)[0][1:], err.splitlines()[-1:]))
    assert found[0] == found[1] and found[0][0] == ["--a", "b c"], end


def test_forks_are_what_was_asked_for_and_end_with_whoever_asked_and_with_the_course(tmp_path):
    with looked_after() as place:
        for end, code in ENDS.items():
            same_in_a_fork(tmp_path, place, end, code)
        client, pid = sleeper(tmp_path, place)
        client.kill()
        wait_for(lambda: not psutil.pid_exists(pid))
        client, pid = sleeper(tmp_path, place)
    assert client.wait(30) == 1
    wait_for(lambda: not psutil.pid_exists(pid))
    client = start(tmp_path, LOOK.format(end="pass"), place)  # nobody answers any more
    assert client.communicate("", timeout=60)[0].endswith("False\n") and client.returncode == 0


def test_who_waits_for_a_process_that_has_ended_runs_by_itself(tmp_path, monkeypatch):
    """As with CUDA, where nothing can be forked, or after it was killed for its memory."""
    monkeypatch.setattr(warm, "_started", lambda listener, threads: subprocess.Popen([sys.executable, "-c", "pass"]))
    with looked_after() as place:
        for _ in ("waits", "comes later"):
            client = start(tmp_path, LOOK.format(end="pass"), place)
            assert client.communicate("", timeout=60)[0].endswith("False\n") and client.returncode == 0
