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
    table = pd.DataFrame(
        {
            name: {
                "steps": one["last"]["step"],
                "seconds": one["seconds"],
                "first loss": one["first"]["validation_loss"],
                "loss": one["last"]["validation_loss"],
                "in-filling": one["baselines"]["in-filling"],
                "mean": one["baselines"]["mean"],
            }
            for name, one in done.items()
        }
    ).T.rename_axis("pretraining")
    return table.assign(**{"of in-filling": table["loss"] / table["in-filling"]}).astype({"steps": int})
