"""The run folder: config.json, history.csv, weights, per_case.csv, and metrics.json, which marks the run as done."""

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
from ssl_utils.experiments.description import Finetuning, pretraining_in
from ssl_utils.experiments.naming import base
from ssl_utils.files import atomic, read_json, write_json
from ssl_utils.training import processes
from ssl_utils.training.options import options_of

PROJECT = Path(__file__).resolve().parents[2]
OF_ONE_RUN = ("init", "num_labeled", "subset", "seed")  # what identifies a fine-tuning of a course
LATER = {"validation"}  # settings of a later version: compared where they were recorded, so that older runs stay valid
OF_A_COURSE = re.compile(r"((?!__).)+(__permuted=True|__budget=[\d.]+)?")  # inits and controls
# options in which the runs of one initialisation may differ
OF_AN_INIT = ("steps", *(name for name in options_of(Finetuning) if name not in OF_ONE_RUN))
RECIPE = 3  # version of the training; runs of an earlier version are made again
LAYOUT = 3  # version of the names and settings of run folders; runs of another version are neither read nor changed
PACKAGES = ("torch", "monai", "lightning", "numpy", "nibabel")


def runs_root() -> Path:
    """The folder of all runs: `SSL_RUNS_ROOT`, else `runs` in the project."""
    return Path(os.environ.get("SSL_RUNS_ROOT") or PROJECT / "runs").expanduser().resolve()


def course_dir(dataset: str, scale: str) -> Path:
    return runs_root() / dataset / scale


def pretrain_dir(dataset: str, scale: str, task: str) -> Path:
    return course_dir(dataset, scale) / "pretrain" / task


def finetune_dir(dataset: str, scale: str, init: str, num_labeled: int, subset: int, seed: int) -> Path:
    return course_dir(dataset, scale) / "finetune" / init / f"n{num_labeled}" / f"subset{subset}_seed{seed}"


def begin(folder: Path, settings: dict[str, Any], *, device: str | None = None, first: bool = True) -> bool:
    """Open a run. True when it is already done with the same settings.

    Of several processes that share a run the `first` one opens it; the others wait for that.

    An interrupted run keeps its checkpoint and is resumed; a run with other settings starts over. A missing
    metrics.json is restored: the graph deletes it when a chapter runs again or fails, also in another of its tasks. To
    train again with the same settings, delete the folder.
    """
    settings = json.loads(json.dumps(settings))
    config, done = folder / "config.json", folder / "metrics.json"
    if not first:
        return _opened(folder, settings)
    if config.exists():
        refuse_old_layout(config)
        try:
            before = read_json(config)
            same = _alike(before["settings"], settings)
        except (CourseError, KeyError, TypeError):
            same = False
        if same and "metrics" in before and not done.exists():
            write_json(done, before["metrics"])
        if same and done.exists():
            return True
        if not same:
            for name in ("metrics.json", "last.ckpt", "*.csv", "budget.json", "*.safetensors"):
                for path in folder.glob(name):
                    path.unlink(missing_ok=True)
    about = {"layout": LAYOUT, "settings": settings, "commit": commit(), "versions": versions(), "started": _now()}
    write_json(config, {**about, "device": device, "by": processes.here()})
    return False


def refuse_old_layout(config: Path) -> None:
    """Raises CourseError when a run or a course was made by a version with another naming of its folders."""
    try:
        layout = read_json(config).get("layout")
    except (CourseError, AttributeError):
        return  # a damaged file is written again
    if layout != LAYOUT:
        fix = "move it away, or set SSL_RUNS_ROOT to another folder"
        raise CourseError(f"{config.parent}: was made by an earlier version of the course; {fix}")


def _opened(folder: Path, settings: dict[str, Any], *, seconds: float = 600) -> bool:
    """The result of `begin` in the other processes, once the first one has written these settings to config.json and
    removed older files."""
    config, end = folder / "config.json", time.monotonic() + seconds
    while not config.exists() or not _alike((before := read_json(config)).get("settings", {}), settings):
        if time.monotonic() > end:
            raise CourseError(f"{config}: the first process has not opened this run; read its output, and start again")
        time.sleep(0.1)
    return "metrics" in before or (folder / "metrics.json").exists()


def _alike(before: dict[str, Any], settings: dict[str, Any]) -> bool:
    return before == {key: value for key, value in settings.items() if key not in LATER - {*before}}


def is_finished(folder: Path) -> bool:
    """Also where the graph has deleted metrics.json, which `begin` restores."""
    done, config = folder / "metrics.json", folder / "config.json"
    return done.exists() or (config.exists() and "metrics" in read_json(config))


def finish(folder: Path, metrics: dict[str, Any]) -> None:
    """Write metrics.json, the last file of a run, and delete the checkpoint, which is no longer needed."""
    metrics = {**metrics, "peak_memory_gb": processes.peak_memory_gb(), "finished": _now()}
    write_json(folder / "config.json", read_json(folder / "config.json") | {"metrics": metrics})
    write_json(folder / "metrics.json", metrics)
    (folder / "last.ckpt").unlink(missing_ok=True)


def metrics(folder: Path) -> dict[str, Any] | None:
    path = folder / "metrics.json"
    return read_json(path) if path.exists() else None


def history(folder: Path) -> pd.DataFrame:
    return pd.read_csv(folder / "history.csv")


def read_scores(path: Path) -> pd.DataFrame:
    """A per_case.csv; cases, patients and structures may be called 01 or NA."""
    names = dict.fromkeys(("case", "patient", "class"), str)
    return pd.read_csv(path, dtype=names, keep_default_na=False, na_values=[""])


def write_table(path: Path, table: pd.DataFrame) -> None:
    with atomic(path) as temporary:
        table.to_csv(temporary, index=False)


def finished(folder: Path, *, names: Collection[str] | None = None) -> list[Path]:
    """metrics.json of every finished fine-tuning of the course in this folder, or of the runs named: a course consists
    of its inits and their controls (`random__budget=4`, `simmim__permuted=True`), other runs with options belong to
    studies, sweeps or the reader."""
    names = _of_a_course(folder) if names is None else names
    return [p for p in sorted((folder / "finetune").glob("*/n*/subset*/metrics.json")) if p.parts[-4] in names]


def _of_a_course(folder: Path) -> list[str]:
    """The names of inits and controls; any random init is a control, unless a sweep has made it."""
    swept = {name for path in (folder / "sweeps").glob("*/runs.json") for name in read_json(path)}
    names = sorted(path.name for path in (folder / "finetune").glob("*"))
    return [n for n in names if OF_A_COURSE.fullmatch(n) or (base(n) == "random" and n not in swept)]


def per_case(dataset: str, scale: str, *, tasks: Collection[str] | None = None) -> pd.DataFrame:
    """All finished fine-tuning runs of a course, or those of random init and these pretext tasks: one row per run, test
    case and class. Raises CourseError when there is none yet."""
    folder = course_dir(dataset, scale)
    return collect(folder, names=None if tasks is None else inits(folder, tasks))


def inits(folder: Path, tasks: Collection[str]) -> list[str]:
    """Random init, these tasks and their controls, if the course in this folder has runs of them."""
    return [name for name in _of_a_course(folder) if base(name) in ("random", *tasks)]


def collect(folder: Path, *, names: Collection[str] | None = None) -> pd.DataFrame:
    """`per_case` of the course in this folder, or of the runs named (`finished`)."""
    tables = []
    for path in finished(folder, names=names):
        settings = _settings(path)
        table = read_scores(path.with_name("per_case.csv"))
        tables.append(table.assign(**{key: settings[key] for key in OF_ONE_RUN}))
    if not tables:
        raise CourseError(f"{folder}: no finished fine-tuning in it; run chapter 04_unetr_finetuning first")
    return pd.concat(tables, ignore_index=True)


def unlike(folder: Path, *, names: Collection[str] | None = None) -> list[str]:
    """Settings that differ between finished fine-tunings (`finished`) although a comparison needs them equal.

    One line each, `lr: 0.001 in 8, 0.004 in 1`; labelled and test cases must agree at the same labels and subset. Inits
    with options (`random__budget=4`) may differ in OF_AN_INIT, which must agree among runs of one init; so must crops
    and data of inits with other crops or with synthetic volumes.
    """
    counts: dict[str, Counter] = defaultdict(Counter)
    all_settings = [_settings(path) for path in finished(folder, names=names)]
    keys = {key for settings in all_settings for key in settings} - {*OF_ONE_RUN, "data", "encoder"}
    for settings in all_settings:
        other = settings.get("crop", 1) != 1 or settings.get("synthetic")
        own = {*OF_AN_INIT, "img_size"} if other else OF_AN_INIT
        for key in keys:
            alone = key in own and (key != "lr" or "__" in settings["init"])  # the scale's rate is one for all
            name = f"{key} of {settings['init']}" if alone else key
            counts[name][json.dumps(settings.get(key))] += 1
        name = f"data of {settings['init']}" if other else "data"
        counts[f"{name} at n={settings['num_labeled']}, subset={settings['subset']}"][settings.get("data")] += 1
    different = sorted(name for name, count in counts.items() if len(count) > 1)
    return [f"{name}: {', '.join(f'{value} in {n}' for value, n in counts[name].most_common())}" for name in different]


def _settings(path: Path) -> dict[str, Any]:
    return read_json(path.with_name("config.json"))["settings"]


def pretraining_of(folder: Path, init: str) -> str | None:
    """The finished pretraining run of the course that an init uses; None without it, as for random init."""
    name = pretraining_in(init)
    return name if (folder / "pretrain" / name / "metrics.json").exists() else None


def spent(folder: Path, *, names: Collection[str] | None = None) -> pd.DataFrame:
    """The seconds of finished fine-tunings (`finished`): [*OF_ONE_RUN, finetuning, pretraining, seconds].

    `finetuning` is training alone, `seconds` the sum of both. Every run is charged the whole pretraining it uses: 0 for
    random init, NaN where the pretraining run is missing.
    """
    rows = []
    for path in finished(folder, names=names):
        run = read_json(path)
        name = pretraining_of(folder, run["init"])
        pretraining = metrics(folder / "pretrain" / name)["seconds"] if name else float("nan")
        pretraining = 0.0 if base(run["init"]) == "random" else pretraining
        rows.append([*(run[key] for key in OF_ONE_RUN), run["seconds"], pretraining, run["seconds"] + pretraining])
    return pd.DataFrame(rows, columns=[*OF_ONE_RUN, "finetuning", "pretraining", "seconds"])


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
