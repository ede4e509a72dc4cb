"""The results of a course so far: the table at the end of a chapter, one row longer after every pretraining."""

import math
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from ssl_utils.errors import CourseError
from ssl_utils.experiments import runs
from ssl_utils.figures import inside_panel

UNTRAINED = "random"
COSTS = ("steps", "seconds", "seconds a step", "memory")


def pretraining(course: Path) -> pd.DataFrame:
    """One row per finished pretraining of a course folder: validation loss beside two trivial baselines.

    `of interpolation` is loss / interpolation, below 1 where the task has learnt more than to interpolate. Only this
    column may be compared between tasks: each loss is an L1 over other voxels. It is NaN for a task that reconstructs
    nothing.

    Raises:
        CourseError: none is finished yet.
    """
    rows = {}
    for path in sorted(course.glob("pretrain/*/metrics.json")):
        run = runs.metrics(path.parent)
        if "last" not in run:  # weights from elsewhere
            continue
        first, last, baselines = run["first"], run["last"], run["baselines"]
        row = {"steps": last["step"], "seconds": run["seconds"], "first loss": first["validation_loss"]}
        row["loss"] = last["validation_loss"]
        row |= {name: baselines.get(name, math.nan) for name in ("interpolation", "mean")}
        rows[path.parent.name] = row
    if not rows:
        raise CourseError(f"{course / 'pretrain'}: has no finished pretraining; run chapter 02 or 03 first")
    table = pd.DataFrame(rows).T.rename_axis("pretraining")
    return table.assign(**{"of interpolation": table["loss"] / table["interpolation"]}).astype({"steps": int})


def probed(course: Path, names: Sequence[str]) -> pd.DataFrame:
    """One row per finished pretraining of these names: steps, seconds, `seconds a step` (data included; where a budget
    of seconds was given, those that it was counted with), memory in GB, and from the tokens of held-out crops
    (`pretext.inside`): linear and knn (Dice of label shares, 0..1), RankMe and its share of the largest possible,
    alarm. The row of random init is the first look into one that is named.

    `seconds` and `memory` are of the process: in a chapter, those of everything that it does besides.
    """
    rows = {}
    for name in names:
        folder = course / "pretrain" / name
        run = runs.metrics(folder)
        if run is None or not (folder / "inside.csv").exists():
            continue
        inside, steps = inside_panel.read(folder), run["last"]["step"]
        rows.setdefault(UNTRAINED, dict.fromkeys(COSTS, math.nan) | _looked(inside.iloc[0]))
        trained = sum(seconds for part, seconds in run["spent"].items() if part not in ("validation", "looking"))
        each = run.get("step_seconds", trained / max(steps, 1))
        costs = dict(zip(COSTS, (steps, run["seconds"], each, run["peak_memory_gb"]), strict=True))
        rows[name] = costs | _looked(inside.iloc[-1])
    return pd.DataFrame(rows).T.rename_axis("init")


def _looked(row: pd.Series) -> dict[str, float | str]:
    share = row["rankme"] / row["rank_most"]
    return {name: row[name] for name in ("linear", "knn", "rankme")} | {"rank share": share, "alarm": row["reason"]}
