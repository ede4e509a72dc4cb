"""The results of a course so far: the table at the end of a chapter, one row longer after every pretraining."""

import math
from pathlib import Path

import pandas as pd

from ssl_utils.errors import CourseError
from ssl_utils.experiments import runs


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
