"""Every command twice, in two processes that hash strings differently: the same seed gives the same bytes.

Left out by name: seconds, dates, peak memory, and the doctor's forecast of seconds, which is a measurement.
"""

import hashlib
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from benchmarks.kill import TIMES, outcome, without_times
from course.warm import lighten
from tests.conftest import write_blob

pytestmark = pytest.mark.long

PROJECT = Path(__file__).resolve().parents[1]
TINY = {
    "phantom_sizes": (1, 1, 1, 0),
    "pretrain_steps": 4,
    "finetune_steps": 4,
    "hidden_size": 24,
    "mlp_dim": 24,
    "num_layers": 2,
    "num_heads": 2,
    "max_validation": 1,
    "max_test": 2,
}
OPTIONS = (["--freeze-epochs", "2"], ["--layer-decay", "0.7"], ["--scope", "encoder", "--permuted"], ["--subset", "1"])


def digest(content: bytes | str) -> str:
    return hashlib.sha256(content.encode() if isinstance(content, str) else content).hexdigest()


def command(*words) -> None:
    from ssl_utils import __main__ as cli

    sys.argv = ["ssl_utils", *map(str, words)]
    try:
        cli.main()
    except SystemExit as stop:
        assert not stop.code, f"{words}: {stop.code}"


def everything(root: Path) -> dict[str, object]:
    """What all commands make of the blobs below `root`, by name."""
    from ssl_utils.experiments import scales
    from ssl_utils.pretext import TASKS

    scales.SCALES["smoke"] = replace(scales.get("smoke"), **TINY)
    own = ("--dataset", "folder", "--data", root / "blobs", "--scale", "smoke")
    command("data", "phantom", "--scale", "smoke")
    command("doctor", *own, "--json", root / "doctor.json")
    for task in TASKS:
        command("pretrain", task, *own)
    for init in ("random", *TASKS):
        command("finetune", init, "--num-labeled", 3, *own)
    for options in OPTIONS:
        command("finetune", "simmim", "--num-labeled", 3, *options, *own)
    model = root / "runs/folder_blobs/smoke/finetune/simmim/n3/subset0_seed0/model.safetensors"
    command("predict", model, root / "blobs" / "imagesTr", "--output", root / "predicted")
    files = {str(path.relative_to(root)): digest(path.read_bytes()) for path in sorted(root.rglob("*.nii.gz"))}
    caches = {str(path.relative_to(root)): digest(path.read_bytes()) for path in sorted(root.rglob("cache/**/*.np?"))}
    return files | caches | told(root) | reported(root / "runs/folder_blobs/smoke") | planned()


def told(root: Path) -> dict[str, object]:
    """Figures, tables and weights of the runs, their settings, and what the doctor found."""
    settings = {
        str(path.relative_to(root)): json.loads(path.read_text())["settings"]
        for path in sorted(root.rglob("config.json"))
    }
    report = json.loads((root / "doctor.json").read_text().replace(str(root), ""))
    report["forecast"].pop("seconds")
    lists = {"dataset.json": (root / "data/phantom/dataset.json").read_text()}
    return outcome(root) | settings | {"doctor": report} | lists


def reported(course: Path) -> dict[str, object]:
    """Tables with bootstrap intervals, and the pixels of figures."""
    from ssl_utils import figures, statistics
    from ssl_utils.experiments import runs

    table = runs.collect(course)
    more = pd.concat(
        [table, table.assign(subset=1, dice=table["dice"] ** 1.1)]
    )  # several label subsets: the other bootstrap
    made = {
        f"{name}{len(rows)}": getattr(statistics, name)(rows).to_csv()
        for name in ("summary", "gains", "structures")
        for rows in (table, more)
    }
    axes = np.indices((20, 22, 24)).sum(0)
    drawn = {
        "labels": figures.dice_against_labels(statistics.summary(more)),
        "gain": figures.gain_against_labels(statistics.gains(more)),
        "montage": figures.montage(axes, axes // 22, names={1: "one", 2: "two"}),
        "curves": figures.curves(runs.history(course / "pretrain/simmim"), ["train_loss"]),
    }
    return made | {f"figure {name}": pixels(figure) for name, figure in drawn.items()}


def pixels(figure) -> str:
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return digest(np.asarray(canvas.buffer_rgba()).tobytes())


def planned() -> dict[str, object]:
    from course import studies
    from ssl_utils.experiments import scales

    chosen = {"dataset": "phantom", "data": None, "num_labeled": [6, 12, 24]}
    return {f"study {name}": studies.plan(name, scale=scales.get("laptop"), **chosen) for name in studies.STUDIES}


@pytest.fixture(scope="module")
def twice(tmp_path_factory) -> list[dict[str, object]]:
    def everything_of(hashed: str) -> dict[str, object]:
        root = tmp_path_factory.mktemp(f"hashed_{hashed}")
        for number in range(8):
            write_blob(root / "blobs", number)
        places = {"SSL_RUNS_ROOT": str(root / "runs"), "SSL_DATA_ROOT": str(root / "data"), "PYTHONHASHSEED": hashed}
        done = subprocess.run(
            [sys.executable, "-m", "tests.test_determinism", str(root)],
            cwd=PROJECT,
            env=os.environ | places,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr[-3000:]
        return json.loads((root / "everything.json").read_text())

    with ThreadPoolExecutor(2) as pool:  # side by side: neither keeps a core busy all the time
        return list(pool.map(everything_of, ("1", "2")))


def test_two_processes_make_the_same_of_the_same(twice):
    one, two = twice
    assert one.keys() == two.keys()
    assert not [name for name in one if one[name] != two[name]]


def test_nothing_was_left_out(twice):
    """The comparison is worth what it compares: every kind of output of every command is there."""
    names = "\n".join(twice[0])
    expected = {
        "data/phantom/imagesTr": 2,
        "predicted/blob_": 8,
        "cache/": 18,
        "metrics.json": 11,
        "per_case.csv": 8,
        "history.csv": 11,
        "inside.csv": 3,
        "encoder.safetensors": 3,
        "model.safetensors": 8,
        "config.json": 11,
        "figure ": 4,
        "study ": 5,
        "gains": 2,
    }
    for kind, least in expected.items():
        assert names.count(kind) >= least, f"{kind}: {names.count(kind)}"
    assert {"seconds", "finished"} <= TIMES and without_times({"seconds": 1, "dice": 2}) == {"dice": 2}


if __name__ == "__main__":
    lighten()
    where = Path(sys.argv[1])
    (where / "everything.json").write_text(json.dumps(everything(where), default=str))
