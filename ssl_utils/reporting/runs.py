"""The run folder: config.json, history.csv, weights, per_case.csv, and metrics.json last. Its presence means done."""

import json
import os
import platform
import subprocess
import time
from collections import Counter, defaultdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd

from ssl_utils.errors import CourseError
from ssl_utils.files import atomic, read_json, write_json

PROJECT = Path(__file__).resolve().parents[2]
OF_ONE_RUN = ("init", "num_labeled", "draw", "seed")  # what tells the fine-tunings of a course apart
PACKAGES = ("torch", "monai", "lightning", "numpy", "nibabel")


def runs_root() -> Path:
    """Where runs lie: `SSL_RUNS_ROOT`, else `runs` in the project."""
    return Path(os.environ.get("SSL_RUNS_ROOT") or PROJECT / "runs").expanduser().resolve()


def course_dir(dataset: str, scale: str) -> Path:
    return runs_root() / dataset / scale


def pretrain_dir(dataset: str, scale: str, task: str) -> Path:
    return course_dir(dataset, scale) / "pretrain" / task


def finetune_dir(dataset: str, scale: str, init: str, num_labeled: int, draw: int, seed: int) -> Path:
    return course_dir(dataset, scale) / "finetune" / init / f"n{num_labeled}" / f"draw{draw}_seed{seed}"


def begin(folder: Path, settings: dict[str, Any]) -> bool:
    """Open a run. True when it is already done with the same settings.

    A run that was broken off keeps its checkpoint and goes on; one that was made with other settings starts over.
    """
    settings = json.loads(json.dumps(settings))
    config = folder / "config.json"
    if config.exists():
        try:
            same = read_json(config)["settings"] == settings
        except (CourseError, KeyError, TypeError):
            same = False
        if same and (folder / "metrics.json").exists():
            return True
        if not same:
            for name in ("metrics.json", "last.ckpt", "history.csv", "per_case.csv"):
                (folder / name).unlink(missing_ok=True)
    write_json(config, {"settings": settings, "commit": commit(), "versions": versions(), "started": _now()})
    return False


def finish(folder: Path, metrics: dict[str, Any]) -> None:
    """Write metrics.json, the last file of a run; the training state is no longer needed."""
    write_json(folder / "metrics.json", {**metrics, "peak_memory_gb": peak_memory_gb(), "finished": _now()})
    (folder / "last.ckpt").unlink(missing_ok=True)


def metrics(folder: Path) -> dict[str, Any] | None:
    path = folder / "metrics.json"
    return read_json(path) if path.exists() else None


def history(folder: Path) -> pd.DataFrame:
    return pd.read_csv(folder / "history.csv")


def write_table(path: Path, table: pd.DataFrame) -> None:
    with atomic(path) as temporary:
        table.to_csv(temporary, index=False)


def per_case(dataset: str, scale: str) -> pd.DataFrame:
    """All finished fine-tuning runs of a course: one row per run, test case and class.

    Raises:
        CourseError: there is none yet.
    """
    return collect(course_dir(dataset, scale))


def collect(folder: Path) -> pd.DataFrame:
    """`per_case` of the course in this folder."""
    tables = []
    for path in finished(folder):
        settings = read_json(path.parent / "config.json")["settings"]
        table = pd.read_csv(path.parent / "per_case.csv", dtype={"case": str, "patient": str})
        keys = {key: settings[key] for key in OF_ONE_RUN}
        tables.append(table.assign(**keys))
    if not tables:
        raise CourseError(f"{folder}: holds no finished fine-tuning; run chapter 04_unetr_finetuning first")
    return pd.concat(tables, ignore_index=True)


def unlike(folder: Path) -> list[str]:
    """Settings in which the finished fine-tunings of a course differ though their comparison needs them equal.

    One line each, `lr: 0.001 in 8, 0.004 in 1`; labelled and test cases must agree at the same labels and draw.
    """
    counts: dict[str, Counter] = defaultdict(Counter)
    found = [read_json(path.parent / "config.json")["settings"] for path in finished(folder)]
    for settings in found:
        for key in {key for other in found for key in other} - {*OF_ONE_RUN, "data", "encoder"}:
            counts[key][json.dumps(settings.get(key))] += 1
        counts[f"data at n={settings['num_labeled']}, draw={settings['draw']}"][settings.get("data")] += 1
    odd = sorted(key for key, count in counts.items() if len(count) > 1)
    return [f"{key}: {', '.join(f'{value} in {n}' for value, n in counts[key].most_common())}" for key in odd]


def finished(folder: Path) -> list[Path]:
    """metrics.json of every finished fine-tuning of a course."""
    return sorted((folder / "finetune").glob("*/n*/draw*/metrics.json"))


def peak_memory_gb() -> float:
    """Peak resident memory of this process in GB."""
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (1e9 if platform.system() == "Darwin" else 1e6), 2)


def commit() -> str | None:
    """The commit of the code, with a `+` when files differ from it."""
    command = ["git", "-C", str(PROJECT), "describe", "--always", "--dirty=+", "--abbrev=10"]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None


def versions() -> dict[str, str]:
    return {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}}


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S")


def state(folder: Path) -> tuple[str, str, str]:
    """(state, figure, seconds) of a run folder, for people."""
    done = metrics(folder)
    if done:
        figure = f"Dice {done['dice']:.3f}" if "dice" in done else f"loss {done['last']['validation_loss']:.4f}"
        return "done", figure, f"{done['seconds']:.0f}"
    if not (folder / "history.csv").exists():
        return "started", "", ""
    last = history(folder).iloc[-1]
    return f"step {int(last['step'])}", f"train loss {last['train_loss']:.4f}", f"{last['seconds']:.0f}"
