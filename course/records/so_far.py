"""What a course has measured so far: the table that ends the results of a chapter and grows with the next one."""

from pathlib import Path

import pandas as pd

from ssl_utils.errors import CourseError
from ssl_utils.experiments import runs


def pretraining(course: Path) -> pd.DataFrame:
    """One row per finished pretraining of a course folder: validation loss beside predictors that learnt nothing.

    `of in-filling` is loss / in-filling, below 1 where the task knows more than interpolation. Only this column may be
    compared between tasks: each loss is an L1 over voxels of its own choice.

    Raises:
        CourseError: none is finished yet.
    """
    done = {path.parent.name: runs.metrics(path.parent) for path in sorted(course.glob("pretrain/*/metrics.json"))}
    if not done:
        raise CourseError(f"{course / 'pretrain'}: holds no finished pretraining; run chapter 02 or 03 first")
    rows = {}
    for name, one in done.items():
        first, last, baselines = one["first"], one["last"], one["baselines"]
        rows[name] = {"steps": last["step"], "seconds": one["seconds"], "first loss": first["validation_loss"]}
        rows[name] |= {
            "loss": last["validation_loss"],
            "in-filling": baselines["in-filling"],
            "mean": baselines["mean"],
        }
    table = pd.DataFrame(rows).T.rename_axis("pretraining")
    return table.assign(**{"of in-filling": table["loss"] / table["in-filling"]}).astype({"steps": int})
