"""Learning curves of fine-tunings that differ in their initialisation alone, and the head start of one over another.

The validation set is scored a few times during a fine-tuning; the test set, read once, has no curve.
"""

from collections.abc import Collection
from pathlib import Path

import numpy as np
import pandas as pd

from ssl_utils.errors import CourseError
from ssl_utils.experiments import runs

AT = ("step", "seconds")  # what a curve is seen against


def learning_curves(folder: Path, *, num_labeled: int, names: Collection[str] | None = None) -> pd.DataFrame:
    """The mean validation Dice of every init in the course of its fine-tunings (`runs.finished`).

    Label subsets and seeds that not every init has are left out, or an init could lead by easier ones.

    Returns:
        init, step, seconds (median of the runs, with the whole pretraining), dice (0..1) and runs.

    Raises:
        CourseError: no label subset and seed is finished for every init.
    """
    tables = []
    for path, run in zip(runs.finished(folder, names=names), runs.spent(folder, names=names).itertuples(), strict=True):
        if run.num_labeled == num_labeled:
            history = runs.history(path.parent).dropna(subset="validation_dice")
            own = {"init": run.init, "repeat": f"subset {run.subset}, seed {run.seed}"}
            tables.append(history.assign(**own, seconds=history["seconds"] + run.pretraining))
    table = pd.concat(tables) if tables else pd.DataFrame(columns=["init", "repeat"])
    repeats = [set(part["repeat"]) for _, part in table.groupby("init")]
    common = set.intersection(*repeats) if repeats else ()
    if not common:
        raise CourseError(
            f"{folder}: no label subset and seed with {num_labeled} labels is finished for every init; run the course"
        )
    kept = table[table["repeat"].isin(common)].groupby(["init", "step"])
    means = {"seconds": ("seconds", "median"), "dice": ("validation_dice", "mean"), "runs": ("repeat", "size")}
    curves = kept.agg(**means).reset_index()
    return curves[curves["runs"] == len(common)]  # validated at this step in all of them


def head_start(curves: pd.DataFrame, *, baseline: str = "random", below: float = 0.02) -> pd.DataFrame:
    """How early an init is as good as the baseline at its end, less `below`, and how far it leads on the way there.

    Args:
        curves: as of `learning_curves`.
        below: Dice that may be missing; the very end of a curve is flat, so that a hair decides when it is reached.
    Returns:
        A row per init: `dice` at its end; `step` and `seconds` at which the target is reached, on straight lines
        between validations (its first validation if it was reached before, NaN if it never was); `lead`, the mean
        Dice over the baseline along its steps, from the area between the curves.

    Raises:
        CourseError: the baseline has no curve.
    """
    own = curves[curves["init"] == baseline]
    if own.empty:
        raise CourseError(f"init={baseline}: has no learning curve, which the others are compared with; fine-tune it")
    target, rows = own["dice"].iloc[-1] - below, {}
    for init, part in curves.groupby("init", sort=False):
        shared = own[own["step"] <= part["step"].max()]
        lead = np.interp(shared["step"], part["step"], part["dice"]) - shared["dice"]
        area = np.trapezoid(lead, shared["step"]) / np.ptp(shared["step"]) if len(shared) > 1 else lead.mean()
        reached = {name: _reached(part[name].to_numpy(float), part["dice"].to_numpy(), target) for name in AT}
        rows[init] = {"dice": part["dice"].iloc[-1], **reached, "lead": area}
    return pd.DataFrame(rows).T.rename_axis("init")


def _reached(at: np.ndarray, dice: np.ndarray, target: float) -> float:
    """Where a curve first is at the target."""
    above = np.flatnonzero(dice >= target)
    if not len(above):
        return float("nan")
    i = above[0]
    return float(at[0] if i == 0 else np.interp(target, dice[i - 1 : i + 1], at[i - 1 : i + 1]))
