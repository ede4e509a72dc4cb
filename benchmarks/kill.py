"""A course that is killed again and again ends with the numbers of one that was left alone.

    python -m benchmarks.kill [--moments 20] [--seed 0]        # half an hour on 2 cores

Runs the smoke course on the phantom twice, in temporary folders: once undisturbed, and once killed at random moments in
five ways (only the course, everything, one process of it, asked to end, interrupted). After each kill nothing may still
run and no half-written result may lie there; at the end figures, scores and weights must be the same. Where they are
not, it exits with 1. `make test` takes 8 moments.
"""

import argparse
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import psutil
from safetensors.torch import load_file

HOW = ("kill the course", "kill everything", "kill one process", "ask to end", "interrupt")
TIMES = {"seconds", "spent", "test_seconds", "peak_memory_gb", "finished", "started"}
OF_COURSE = ("run", "--scale", "smoke")


@dataclass(frozen=True)
class Course:
    """The smoke course with its runs and data below `root`; `words` follow the command."""

    root: Path
    words: tuple[str, ...] = ()

    def start(self) -> subprocess.Popen:
        places = {"SSL_RUNS_ROOT": str(self.root / "runs"), "SSL_DATA_ROOT": str(self.root / "data")}
        self.root.mkdir(parents=True, exist_ok=True)
        with open(self.root / "log.txt", "a") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "course", *OF_COURSE, *self.words],
                env=os.environ | places,
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )

    def finish(self, seconds: float = 1200) -> None:
        code = self.start().wait(seconds)
        assert code == 0, (self.root / "log.txt").read_text()[-3000:]

    def results(self) -> int:
        return sum(1 for name in ("done.json", "metrics.json") for _ in (self.root / "runs").rglob(name))


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


def wait_while(process: subprocess.Popen, condition: Callable[[], bool], seconds: float) -> bool:
    """Whether the course still runs when the condition no longer holds, or the seconds are over."""
    limit = time.monotonic() + seconds
    while process.poll() is None and condition() and time.monotonic() < limit:
        time.sleep(0.1)
    return process.poll() is None


def kill_again_and_again(course: Course, moments: int, choice: random.Random, most: float = 8) -> list[str]:
    """Kill the course at these moments, then let it finish; how it was killed each time. A moment comes up to `most`
    seconds after a start, or after the next part is finished, in turns."""
    struck = []
    for moment in range(moments):
        process = course.start()
        if moment % 2:  # in the middle of what comes after the next finished part
            parts = course.results()
            wait_while(process, lambda parts=parts: course.results() <= parts, 300)
        if not wait_while(process, lambda: True, choice.uniform(0.5, most)):
            break  # it came to its end
        struck.append(HOW[moment % len(HOW)])
        end(process, struck[-1], choice)
        for path in course.root.rglob("metrics.json"):  # no half-written file is ever there
            assert json.loads(path.read_text())["finished"]
    course.finish()
    return struck


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


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    words.add_argument("--moments", type=int, default=20)
    words.add_argument("--seed", type=int, default=0)
    asked = words.parse_args()
    with tempfile.TemporaryDirectory(prefix="kill-") as folder:
        undisturbed, killed = Course(Path(folder) / "undisturbed"), Course(Path(folder) / "killed")
        undisturbed.finish()
        struck = kill_again_and_again(killed, asked.moments, random.Random(asked.seed))
        expected, found = outcome(undisturbed.root / "runs"), outcome(killed.root / "runs")
        other = sorted(name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name))
    print(f"killed {len(struck)} times; {len(expected)} results, {len(other)} of them differ {other[:5] or ''}")
    sys.exit(bool(other) or len(struck) < asked.moments / 2)


if __name__ == "__main__":
    main()
