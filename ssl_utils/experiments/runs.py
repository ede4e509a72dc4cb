"""The run folder: config.json, history.csv, weights, per_case.csv, and metrics.json last. Its presence means done."""

import json
import os
import platform
import re
import subprocess
import time
from collections import Counter, defaultdict
from collections.abc import Collection
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd

from ssl_utils.errors import CourseError
from ssl_utils.experiments.naming import base
from ssl_utils.files import atomic, read_json, write_json
from ssl_utils.training import processes

PROJECT = Path(__file__).resolve().parents[2]
OF_ONE_RUN = ("init", "num_labeled", "draw", "seed")  # what tells the fine-tunings of a course apart
OF_A_COURSE = re.compile(r"random(__.+)?|((?!__).)+(__permuted=True|__budget=[\d.]+)?")  # starts and controls
# options in which the runs of one initialisation differ
OF_AN_INIT = ("budget", "steps", "freeze_epochs", "permuted", "network", "scope", "layer_decay", "deep_supervision")
RECIPE = 2  # raise it when the way of training changes: runs made before then are made again
LAYOUT = 2  # of names and settings of run folders; runs of another layout are neither read nor touched
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


def begin(folder: Path, settings: dict[str, Any], *, device: str | None = None, first: bool = True) -> bool:
    """Open a run. True when it is already done with the same settings.

    Of several processes that make a run together the `first` one opens it; the others wait until it has.

    A run that was broken off keeps its checkpoint and goes on; one that was made with other settings starts over.
    metrics.json is put back where it was lost: the graph deletes it when a chapter runs again or fails, also in
    another of its tasks. To train anew with the same settings, delete the folder.
    """
    settings = json.loads(json.dumps(settings))
    config = folder / "config.json"
    if not first:
        return _opened(folder, settings)
    if config.exists():
        refuse_old_layout(config)
        try:
            before = read_json(config)
            same = before["settings"] == settings
        except (CourseError, KeyError, TypeError):
            same = False
        if same and "metrics" in before and not (folder / "metrics.json").exists():
            write_json(folder / "metrics.json", before["metrics"])
        if same and (folder / "metrics.json").exists():
            return True
        if not same:
            for name in ("metrics.json", "last.ckpt", "history.csv", "inside.csv", "per_case.csv"):
                (folder / name).unlink(missing_ok=True)
    about = {"layout": LAYOUT, "settings": settings, "commit": commit(), "versions": versions(), "started": _now()}
    write_json(config, {**about, "device": device, "by": processes.here()})
    return False


def refuse_old_layout(config: Path) -> None:
    """Raises CourseError when a run or a course was made by a version that named its folders otherwise."""
    try:
        old = read_json(config).get("layout") != LAYOUT
    except (CourseError, AttributeError):
        return  # a file that was cut short is made again
    if old:
        raise CourseError(
            f"{config.parent}: was made by an earlier version of the course; move it away, or set SSL_RUNS_ROOT to "
            "another folder"
        )


def _opened(folder: Path, settings: dict[str, Any], *, seconds: float = 600) -> bool:
    """What `begin` returns to the others, once config.json holds these settings: older files are gone by then."""
    config, end = folder / "config.json", time.monotonic() + seconds
    while not config.exists() or (before := read_json(config)).get("settings") != settings:
        if time.monotonic() > end:
            raise CourseError(f"{config}: the first process has not opened this run; see what it said, and start again")
        time.sleep(0.1)
    return "metrics" in before or (folder / "metrics.json").exists()


def finish(folder: Path, metrics: dict[str, Any]) -> None:
    """Write metrics.json, the last file of a run; the training state is no longer needed."""
    metrics = {**metrics, "peak_memory_gb": peak_memory_gb(), "finished": _now()}
    write_json(folder / "config.json", read_json(folder / "config.json") | {"metrics": metrics})
    write_json(folder / "metrics.json", metrics)
    (folder / "last.ckpt").unlink(missing_ok=True)


def metrics(folder: Path) -> dict[str, Any] | None:
    path = folder / "metrics.json"
    return read_json(path) if path.exists() else None


def history(folder: Path) -> pd.DataFrame:
    return pd.read_csv(folder / "history.csv")


def write_table(path: Path, table: pd.DataFrame) -> None:
    with atomic(path) as temporary:
        table.to_csv(temporary, index=False)


def per_case(dataset: str, scale: str, *, tasks: Collection[str] | None = None) -> pd.DataFrame:
    """All finished fine-tuning runs of a course: one row per run, test case and class.

    `tasks`: only those from scratch and from these pretext tasks, such as those of one part of the course.

    Raises:
        CourseError: there is none yet.
    """
    folder = course_dir(dataset, scale)
    return collect(folder, names=None if tasks is None else inits(folder, tasks))


def inits(folder: Path, tasks: Collection[str]) -> list[str]:
    """The random init, these tasks and their controls, as far as the course in this folder has runs of them."""
    found = sorted(path.name for path in (folder / "finetune").glob("*"))
    return [name for name in found if base(name) in ("random", *tasks) and OF_A_COURSE.fullmatch(name)]


def collect(folder: Path, *, names: Collection[str] | None = None) -> pd.DataFrame:
    """`per_case` of the course in this folder, or of the runs named (`finished`)."""
    tables = []
    for path in finished(folder, names=names):
        settings = read_json(path.parent / "config.json")["settings"]
        table = pd.read_csv(path.parent / "per_case.csv", dtype={"case": str, "patient": str})
        keys = {key: settings[key] for key in OF_ONE_RUN}
        tables.append(table.assign(**keys))
    if not tables:
        raise CourseError(f"{folder}: holds no finished fine-tuning; run chapter 04_unetr_finetuning first")
    return pd.concat(tables, ignore_index=True)


def unlike(folder: Path, *, names: Collection[str] | None = None) -> list[str]:
    """Settings in which finished fine-tunings (those of `finished`) differ though their comparison needs them equal.

    One line each, `lr: 0.001 in 8, 0.004 in 1`; labelled and test cases must agree at the same labels and draw. Inits
    with options (`random__budget=4`) differ by their options: those (OF_AN_INIT) must agree among runs of one init.
    """
    counts: dict[str, Counter] = defaultdict(Counter)
    found = [read_json(path.parent / "config.json")["settings"] for path in finished(folder, names=names)]
    for settings in found:
        for key in {key for other in found for key in other} - {*OF_ONE_RUN, "data", "encoder"}:
            name = f"{key} of {settings['init']}" if key in OF_AN_INIT else key
            counts[name][json.dumps(settings.get(key))] += 1
        counts[f"data at n={settings['num_labeled']}, draw={settings['draw']}"][settings.get("data")] += 1
    odd = sorted(key for key, count in counts.items() if len(count) > 1)
    return [f"{key}: {', '.join(f'{value} in {n}' for value, n in counts[key].most_common())}" for key in odd]


def pretraining_of(folder: Path, init: str) -> str | None:
    """The pretraining run of this course that an init starts from: the one that shares most options with its name.

    None for a random start, or when the pretraining run is not here.
    """
    task, *options = init.split("__")
    known = [path.parent.name for path in (folder / "pretrain").glob("*/metrics.json")]
    fits = [name for name in known if base(name) == task and {*name.split("__")[1:]} <= {*options}]
    return max(fits, key=lambda name: name.count("__"), default=None)


def spent(folder: Path) -> pd.DataFrame:
    """What every finished fine-tuning of a course cost in seconds: [*OF_ONE_RUN, finetuning, pretraining, seconds].

    `finetuning` is training alone, `seconds` their sum. Pretraining is charged in full to every run that starts from
    it; it is 0 for a random start and NaN where its run folder is missing.
    """
    rows = []
    for path in finished(folder):
        done = read_json(path)
        init, before = done["init"], pretraining_of(folder, done["init"])
        paid = read_json(folder / "pretrain" / before / "metrics.json")["seconds"] if before else float("nan")
        paid = 0.0 if base(init) == "random" else paid
        rows.append([*(done[key] for key in OF_ONE_RUN), done["seconds"], paid, done["seconds"] + paid])
    return pd.DataFrame(rows, columns=[*OF_ONE_RUN, "finetuning", "pretraining", "seconds"])


def finished(folder: Path, *, names: Collection[str] | None = None) -> list[Path]:
    """metrics.json of every finished fine-tuning of a course, or of the runs named.

    A course has its starts and their controls (`random__budget=4`, `simmim__permuted=True`). Other runs with options
    (`simmim__mask_ratio=0.3`) belong to a study, or to whoever made them: they are there only when `names` says so.
    """
    found = sorted((folder / "finetune").glob("*/n*/draw*/metrics.json"))
    return [p for p in found if (p.parts[-4] in names if names is not None else OF_A_COURSE.fullmatch(p.parts[-4]))]


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
