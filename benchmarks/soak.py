"""Does anything grow in a process that trains again and again? 200 fine-tunings in one process, each watched.

    python benchmarks/soak.py [--runs 200]          # OMP_NUM_THREADS=1 for one core

Network, crops and batch are those of the laptop scale; a run has 20 steps in place of 200, one validation case and two
test cases, so that all of it takes about half an hour. Needs the phantom (`python -m ssl_utils data phantom`). Every
run lies in a folder of its own below SSL_RUNS_ROOT, which is deleted when it has been looked at. Prints a line a run,
writes json_files/reference_soak.json, and exits with 1 when resident memory grows by more than 0.2 MB a run, or open
files or threads grow at all. The first quarter warms up: libraries load, allocators fill. Nothing is collected by hand.
"""

import argparse
import gc
import shutil
import sys
import time
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import psutil
import torch

from ssl_utils import experiments
from ssl_utils.experiments import Finetuning, runs, scales
from ssl_utils.files import write_json
from ssl_utils.training.devices import device, precision

REFERENCE = runs.PROJECT / "json_files" / "reference_soak.json"
MARKS = (10, 50, 100, 150, 200)  # runs after which memory is recorded
ALLOWED = 0.2  # MB a run
COUNTED = ("fds", "threads")  # must not grow at all


def state() -> dict[str, float]:
    """What this process holds: resident memory in MB, open files, threads, memory maps, objects of the collector."""
    process = psutil.Process()
    return {
        "rss_mb": round(process.memory_info().rss / 1e6, 1),
        "fds": process.num_fds(),
        "threads": process.num_threads(),
        "maps": len(process.memory_maps(grouped=False)),
        "objects": len(gc.get_objects()),
    }


def rows(where: experiments.Setup, count: int) -> Iterator[dict[str, float]]:
    """Fine-tune again and again, and yield the state of the process after each run."""
    for seed in range(count):
        folder = experiments.finetune(where, Finetuning(init="random", num_labeled=2, seed=seed))
        shutil.rmtree(folder)
        yield state()


def slope(values: list[float]) -> tuple[float, float]:
    """Growth per run by a straight line through all but the first quarter, and its standard error."""
    kept = np.asarray(values[len(values) // 4 :], dtype=float)
    x = np.arange(len(kept)) - (len(kept) - 1) / 2
    found = float(x @ kept / (x @ x))
    left = kept - kept.mean() - found * x
    return found, float(np.sqrt(left @ left / max(len(kept) - 2, 1) / (x @ x)))


def summary(found: list[dict[str, float]]) -> dict:
    """Figures of a soak: memory at the marks, first and last counts, slopes a run with their standard errors."""
    after = len(found) // 4
    columns = {key: [row[key] for row in found] for key in found[0]}
    fits = {key: slope(values) for key, values in columns.items()}
    return {
        "runs": len(found),
        "rss_mb": {str(mark): columns["rss_mb"][mark - 1] for mark in MARKS if mark <= len(found)},
        **{
            key: {"first_quarter": max(columns[key][:after]), "last": columns[key][-1]}
            for key in ("fds", "threads", "maps", "objects")
        },
        "slope_mb_per_run": round(fits["rss_mb"][0], 4),
        "slope_standard_error": round(fits["rss_mb"][1], 4),
        "fitted_runs": len(found) - after,
        "objects_per_run": round(fits["objects"][0], 2),
    }


def grown(about: dict) -> list[str]:
    """What grew, one line each; empty when the soak was passed."""
    lines = [
        f"{key}: {about[key]['first_quarter']} in the first quarter, {about[key]['last']} at the end"
        for key in COUNTED
        if about[key]["last"] > about[key]["first_quarter"]
    ]
    if about["slope_mb_per_run"] > ALLOWED:
        lines.append(f"memory: {about['slope_mb_per_run']:.2f} MB a run, {ALLOWED} is allowed")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=200)
    scale = replace(scales.get("laptop"), finetune_steps=20, max_validation=1, max_test=2)
    where = experiments.setup(dataset="phantom", scale=scale)
    found, began, commit = [], time.monotonic(), runs.commit()
    for row in rows(where, parser.parse_args().runs):
        found.append(row)
        print(f"run {len(found):3}  " + "  ".join(f"{key} {value}" for key, value in row.items()), flush=True)
    about = summary(found) | {
        "minutes": round((time.monotonic() - began) / 60, 1),
        "steps_per_run": scale.finetune_steps,
        "device": device(),
        "precision": precision(),
        "torch_threads": torch.get_num_threads(),
        "commit": commit,
    }
    write_json(REFERENCE, about)
    print(about)
    if lines := grown(about):
        sys.exit("\n".join(lines))


if __name__ == "__main__":
    main()
