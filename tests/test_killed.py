"""A course that is killed again and again ends with the numbers of one that was left alone."""

import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import psutil
import pytest
from safetensors.torch import load_file

pytestmark = pytest.mark.course

MOMENTS = 20
HOW = ("kill the course", "kill everything", "kill one process", "ask to end", "interrupt")
TIMES = {"seconds", "spent", "test_seconds", "peak_memory_gb", "finished", "started"}


def start(root: Path, blobs: Path) -> subprocess.Popen:
    environment = os.environ | {"SSL_RUNS_ROOT": str(root), "SSL_DATA_ROOT": str(root / "data")}
    words = ["run", "--scale", "smoke", "--dataset", "folder", "--data", str(blobs)]
    with open(root / "log.txt", "a") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "course", *words],
            env=environment,
            stdout=log,
            stderr=log,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )


def finish(root: Path, blobs: Path) -> None:
    process = start(root, blobs)
    assert process.wait(600) == 0, (root / "log.txt").read_text()[-3000:]


def end(process: subprocess.Popen, how: str, choice: random.Random) -> None:
    """End a running course in one of five ways, and wait until nothing of it runs any more."""
    family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
    if how == "ask to end":
        process.terminate()
    elif how == "interrupt":
        process.send_signal(signal.SIGINT)
    else:
        for victim in {"kill the course": family[:1], "kill everything": family}.get(how, [choice.choice(family)]):
            try:
                victim.kill()
            except psutil.NoSuchProcess:
                continue
    if how == "kill one process" and process.poll() is None:
        time.sleep(2)  # the course may notice and go on to its own end
        process.terminate()
    process.wait(60)
    _, alive = psutil.wait_procs(family, timeout=60)
    assert not alive, f"{how}: {alive} outlived the course"


def outcome(root: Path) -> dict[str, object]:
    """Everything that a result is, by its path: figures, scores, weights."""
    found: dict[str, object] = {}
    for path in sorted(root.rglob("*")):
        name = str(path.relative_to(root))
        if path.name == "metrics.json":
            found[name] = without_times(json.loads(path.read_text()))
        elif path.name in ("per_case.csv", "inside.csv", "history.csv"):
            table = pd.read_csv(path)
            found[name] = table.drop(columns=[c for c in table if c.startswith("seconds")]).to_csv()
        elif path.suffix == ".safetensors":  # the order of its metadata is not fixed, so not the bytes of the file
            tensors = load_file(path)
            found[name] = {key: hashlib.sha256(tensors[key].numpy().tobytes()).hexdigest() for key in sorted(tensors)}
    return found


def without_times(content):
    if isinstance(content, dict):
        return {key: without_times(value) for key, value in content.items() if key not in TIMES}
    return content


def results(root: Path) -> int:
    return sum(1 for name in ("done.json", "metrics.json") for _ in root.rglob(name))


def wait_while(process: subprocess.Popen, condition, seconds: float) -> bool:
    """Whether the course still runs when the condition no longer holds, or the seconds are over."""
    limit = time.monotonic() + seconds
    while process.poll() is None and condition() and time.monotonic() < limit:
        time.sleep(0.1)
    return process.poll() is None


@pytest.mark.timeout(2400)
def test_a_course_killed_at_twenty_moments_ends_with_the_same_numbers(tmp_path, blobs, blobs_course):
    choice, killed = random.Random(0), tmp_path / "killed"
    killed.mkdir()
    struck = 0
    for moment in range(MOMENTS):
        process = start(killed, blobs)
        if moment % 2:  # in the middle of what comes after the next finished part
            parts = results(killed)
            wait_while(process, lambda parts=parts: results(killed) <= parts, 300)
        if not wait_while(process, lambda: True, choice.uniform(0.5, 8)):
            break  # it came to its end
        end(process, HOW[moment % len(HOW)], choice)
        struck += 1
        for path in killed.rglob("metrics.json"):  # no half-written file is ever there
            assert json.loads(path.read_text())["finished"]
    finish(killed, blobs)
    assert struck >= 10, f"only {struck} kills before the course was done"
    assert outcome(killed / "folder_my_blobs" / "smoke") == outcome(blobs_course.run)
