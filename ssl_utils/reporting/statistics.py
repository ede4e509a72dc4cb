"""What a table of per-case Dice can say: means with intervals, and runs that lost a class.

The unit of chance here is the test case: a case's Dice is its mean over foreground classes, then over the draws and
seeds of the same (init, num_labeled), and cases are resampled. The interval therefore says how much another sample of
patients could move the mean; it does not hold the chance of another training run.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from ssl_utils.errors import CourseError

RUN = ["init", "num_labeled", "draw", "seed"]  # the columns that name one fine-tuning run


def _need(table: pd.DataFrame, *columns: str) -> None:
    missing = [name for name in columns if name not in table]
    if missing:
        raise CourseError(f"per-case table: no column {', '.join(missing)}; collect it again from the run folders")


def bootstrap_interval(values: Sequence[float], *, seed: int = 0, repeats: int = 2000,
                       level: float = 0.95) -> tuple[float, float]:  # fmt: skip
    """Percentile bootstrap interval (Efron, 1979) of the mean over cases; NaN values are left out.

    Fewer than two values give (nan, nan): one case says nothing about the spread between cases.
    """
    values = np.asarray(values, np.float64)
    values = values[np.isfinite(values)]
    if values.size < 2:
        return float("nan"), float("nan")
    picks = np.random.default_rng(seed).integers(values.size, size=(repeats, values.size))
    low, high = np.quantile(values[picks].mean(axis=1), [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def case_means(per_case: pd.DataFrame) -> pd.DataFrame:
    """Mean foreground Dice of every case in every run: [*RUN, case, dice]. NaN classes (both masks empty) are left out.

    Args:
        per_case: a row per run, test case and foreground class, with columns RUN, case, class, dice (0..1).
    """
    _need(per_case, *RUN, "case", "class", "dice")
    return per_case.groupby([*RUN, "case"], sort=False)["dice"].mean().reset_index()


def summary(per_case: pd.DataFrame, *, level: float = 0.95, repeats: int = 2000, seed: int = 0) -> pd.DataFrame:
    """A row per (init, num_labeled): dice, low, high (interval over cases), and how many cases, draws and seeds.

    `collapsed` counts the runs in which a class was lost (see `collapsed`): their mean hides it.
    """
    means, lost, rows = case_means(per_case), collapsed(per_case), []
    for (init, num_labeled), part in means.groupby(["init", "num_labeled"], sort=False):
        values = part.groupby("case")["dice"].mean().dropna()
        low, high = bootstrap_interval(values, seed=seed, repeats=repeats, level=level)
        here = lost[(lost["init"] == init) & (lost["num_labeled"] == num_labeled)]
        rows.append({
            "init": init, "num_labeled": num_labeled, "dice": values.mean(), "low": low, "high": high,
            "cases": values.size, "draws": part["draw"].nunique(), "seeds": part["seed"].nunique(),
            "collapsed": len(here.drop_duplicates(RUN)),
        })  # fmt: skip
    columns = ["init", "num_labeled", "dice", "low", "high", "cases", "draws", "seeds", "collapsed"]
    return pd.DataFrame(rows, columns=columns).sort_values("num_labeled", kind="stable", ignore_index=True)


def class_means(per_case: pd.DataFrame) -> pd.DataFrame:
    """Mean Dice over cases of every class: [init, num_labeled, class, dice], in the table's order of classes."""
    _need(per_case, *RUN, "case", "class", "dice")
    return per_case.groupby(["init", "num_labeled", "class"], sort=False)["dice"].mean().reset_index()


def collapsed(per_case: pd.DataFrame, *, lost: float = 0.05, learnt: float = 0.3) -> pd.DataFrame:
    """The classes a run has lost: [*RUN, class, dice], a row per class whose mean Dice over cases is below `lost` while
    the mean of another class in the same run is above `learnt`. A run that learnt nothing at all is not listed.
    """
    _need(per_case, *RUN, "case", "class", "dice")
    means = per_case.groupby([*RUN, "class"], sort=False)["dice"].mean().reset_index()
    best = means.groupby(RUN, sort=False)["dice"].transform("max")
    return means[(means["dice"] < lost) & (best > learnt)].reset_index(drop=True)
