"""A sweep through the one-node Slurm while things go wrong: every run must be collected in the end.

    python -m tests.slurm.hundred            # as root: 100 runs, two failures, a time-out, a new controller; minutes
    python -m tests.slurm.hundred 12         # so many runs
    python -m tests.slurm.hundred 100 files  # runs that only write their files

Runs are real, and as small as they can be: one step of a U-Net on volumes of 24 voxels a side. In the suite they only
write their files, since most of the time of so small a run is its imports.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import yaml

from course import sweeps
from course.graph import PROJECT
from tests.conftest import write_blob
from tests.slurm.one_node import OneNode, obstacle, wait_for

RATES = (0.001, 0.002, 0.004, 0.008)
SEEDS_THAT_FAIL, SEED_THAT_HANGS = (0, 1), 2  # at the first rate, in their first try
PROFILE = PROJECT / "profiles" / "slurm" / "config.yaml"
# Every Python of a job imports this; the process that trains is known by its words.
CUSTOMIZE = """
import json, os, pathlib, sys, time

def option(name):
    return next((word.partition("=")[2] for word in sys.orig_argv if word.startswith(f"--{{name}}=")), "")

if "ssl_utils finetune" in " ".join(sys.orig_argv):
    lr, seed = option("lr"), option("seed")
    marker = pathlib.Path({folder!r}) / f"tried_{{seed}}"
    if lr == "0.001" and int(seed) in {seeds} and not marker.exists():
        marker.touch()
        if int(seed) == {hangs}:
            time.sleep(3600)
        raise SystemExit("error: an accident")
    if not {real}:
        run = pathlib.Path(f"finetune/random__budget=0.1__lr={{lr}}__network=unet/n5/subset0_seed{{seed}}")
        done = {{"dice": 0.5, "validation_dice": 0.5, "seconds": 0.0, "device": "cpu"}}
        for name, content in (("config", {{"by": {{"job": os.environ["SLURM_JOB_ID"]}}}}), ("metrics", done)):
            (run / f"{{name}}.json").write_text(json.dumps(content))
        (run / "model.safetensors").write_bytes(b"none")
        os._exit(0)
"""


@dataclass(frozen=True)
class Sweep:
    """A grid with its data and its run folder below one folder, which all jobs can reach."""

    root: Path
    seeds: int
    real: bool = True  # else a run only writes its files
    rates: tuple[float, ...] = RATES

    @property
    def run(self) -> Path:
        return self.root / "runs" / "folder_blobs" / "smoke"

    def write(self, *, hangs: bool) -> None:
        for number in range(10):
            write_blob(self.root / "blobs", number)
        (self.root / "hundred.toml").write_text(
            f'labels = 5\nseeds = {self.seeds}\n[finetune]\nnetwork = "unet"\nbudget = 0.1\nlr = {list(self.rates)}\n'
        )
        for chapter in ("00_start_here", "01_data_inspection"):  # an earlier course has done these
            done = self.run / "chapters" / chapter / "done.json"
            done.parent.mkdir(parents=True)
            done.write_text("{}")
        seeds = (*SEEDS_THAT_FAIL, *([SEED_THAT_HANGS] if hangs else []))
        told = {"seeds": seeds, "hangs": SEED_THAT_HANGS, "folder": str(self.root), "real": self.real}
        (self.root / "accidents").mkdir()
        (self.root / "accidents" / "sitecustomize.py").write_text(CUSTOMIZE.format(**told))
        self._write_profile()

    def _write_profile(self) -> None:
        """The project's, with a core and a few minutes a run, and looks at the queue as fast as the plugin allows."""
        content = yaml.safe_load(PROFILE.read_text())
        content["set-threads"] = dict.fromkeys(content["set-threads"], 1)
        content["set-resources"]["study_finetune"] |= {"runtime": 6, "mem_mb": 4000, "gpu": 0}
        content |= {"seconds-between-status-checks": 2, "slurm-init-seconds-before-status-checks": 1, "latency-wait": 5}
        (self.root / "profile").mkdir()
        (self.root / "profile" / "config.yaml").write_text(yaml.safe_dump(content))

    def start(self, *, jobs: int, seconds: float) -> subprocess.CompletedProcess:
        environment = os.environ | {"SSL_RUNS_ROOT": str(self.root / "runs"), "SSL_DATA_ROOT": str(self.root / "data")}
        environment["PYTHONPATH"] = os.pathsep.join([str(self.root / "accidents"), str(PROJECT)])
        words = ["sweep", str(self.root / "hundred.toml"), "--yes", "--scale", "smoke", "--dataset", "folder"]
        words += ["--data", str(self.root / "blobs"), "--executor", "slurm", "--jobs", str(jobs)]
        words += ["--partition", "lesson", "--profile", str(self.root / "profile")]
        command = [sys.executable, "-m", "course", *words]
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=seconds)

    def finished(self) -> int:
        return len(list(self.run.glob("finetune/*/n5/*/metrics.json")))

    def check(self, done: subprocess.CompletedProcess, *, timed_out: int) -> None:
        """Everything is collected, after the accidents that were planned and no others."""
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        runs = len(self.rates) * self.seeds
        table = sweeps.rows(self.run, sweeps.recorded(self.run, "hundred"))
        assert len(table) == runs and set(table["state"]) == {"done"} and table["job"].str.isdigit().all()
        collected = list((self.run / "sweeps" / "hundred" / "collected").glob("*/model.safetensors"))
        assert len(collected) == runs and f"{runs} fine-tunings, {runs} done" in done.stdout
        failures = [event["timed_out"] for event in events(self.run) if event["event"] == "failed"]
        assert (failures.count(False), failures.count(True)) == (len(SEEDS_THAT_FAIL), timed_out), failures
        log = (self.run / ".course" / "snakemake.log").read_text()
        assert log.count("has been submitted with SLURM jobid") == runs + len(failures), "a run was made twice"


def events(run: Path) -> list[dict]:
    return [json.loads(line) for line in (run / ".course" / "events.jsonl").read_text().splitlines()]


def main(runs: int, *, real: bool) -> None:
    if reason := obstacle():
        sys.exit(reason)
    root, started = Path(tempfile.mkdtemp(prefix="hundred-")), time.monotonic()
    root.chmod(0o755)
    node, sweep = OneNode(root / "slurm"), Sweep(root, seeds=runs // len(RATES), real=real)
    try:
        (root / "slurm").mkdir()
        node.start()
        sweep.write(hangs=True)
        with ThreadPoolExecutor(1) as pool:
            running = pool.submit(sweep.start, jobs=4, seconds=3 * 3600)
            wait_for(lambda: running.done() or sweep.finished() >= runs // 2, "half of the runs", seconds=7200)
            node.kill_controller()
            time.sleep(15)
            node.start_controller()
            done = running.result()
        print(done.stdout[-1500:] + done.stderr[-1500:])
        sweep.check(done, timed_out=1)
    finally:
        node.stop()
        shutil.rmtree(root, ignore_errors=True)
    print(f"{runs} runs collected in {(time.monotonic() - started) / 60:.1f} minutes")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 100, real="files" not in sys.argv)
