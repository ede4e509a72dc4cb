"""What a table of per-case Dice can say: means with intervals, and runs that lost a class.

A case's Dice is its mean over foreground classes, then over the draws and seeds of the same (init, num_labeled). The
unit of chance is the patient: where the table names patients, whole patients are resampled, since two volumes of one
are not two observations. The interval therefore says how much another sample of patients could move the mean; it does
not hold the chance of another training run.
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


def bootstrap_interval(values: Sequence[float], *, groups: Sequence | None = None, seed: int = 0, repeats: int = 2000,
                       level: float = 0.95) -> tuple[float, float]:  # fmt: skip
    """Percentile bootstrap interval (Efron, 1979) of the mean over cases; NaN values are left out.

    `groups` names the patient of each value; patients are then resampled with all their values. Fewer than two patients
    give (nan, nan): one says nothing about the spread between them.
    """
    total, count = _by_group(values, groups)
    if count.size < 2:
        return float("nan"), float("nan")
    picks = np.random.default_rng(seed).integers(count.size, size=(repeats, count.size))
    means = total[picks].sum(axis=1) / count[picks].sum(axis=1)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def sign_flip_test(differences: Sequence[float], *, groups: Sequence | None = None, seed: int = 0,
                   repeats: int = 9999) -> float:  # fmt: skip
    """Two-sided p of a paired comparison: how often the mean difference is at least as far from 0 when the two methods
    swap places at random, patient by patient. Every way to swap is counted when there are at most `repeats`."""
    total, count = _by_group(differences, groups)
    if count.size < 2:
        return float("nan")
    every = 2**count.size <= repeats
    if every:
        signs = 1.0 - 2 * (np.arange(2**count.size)[:, None] >> np.arange(count.size) & 1)
    else:
        signs = np.random.default_rng(seed).choice([-1.0, 1.0], size=(repeats, count.size))
    extreme = np.abs(signs @ total) >= abs(total.sum()) - 1e-9
    return float(extreme.mean() if every else (1 + extreme.sum()) / (1 + repeats))


def _by_group(values: Sequence[float], groups: Sequence | None) -> tuple[np.ndarray, np.ndarray]:
    """Sum and number of the finite values of each group."""
    values = np.asarray(values, np.float64)
    known = np.isfinite(values)
    groups = np.arange(values.size) if groups is None else np.asarray(groups)
    at = np.unique(groups[known], return_inverse=True)[1]
    return np.bincount(at, values[known]), np.bincount(at)


def case_means(per_case: pd.DataFrame) -> pd.DataFrame:
    """Mean foreground Dice of every case in every run: [*RUN, patient (if named), case, dice]. NaN classes (both masks
    empty) are left out.

    Args:
        per_case: a row per run, test case and foreground class, with columns RUN, case, class, dice (0..1).
    """
    _need(per_case, *RUN, "case", "class", "dice")
    patient = ["patient"] if "patient" in per_case else []
    return per_case.groupby([*RUN, *patient, "case"], sort=False)["dice"].mean().reset_index()


def summary(per_case: pd.DataFrame, *, level: float = 0.95, repeats: int = 2000, seed: int = 0) -> pd.DataFrame:
    """A row per (init, num_labeled): dice, low, high (interval over cases), and how many cases, draws and seeds.

    `collapsed` counts the runs in which a class was lost (see `collapsed`): their mean hides it.
    """
    means, lost, rows = case_means(per_case), collapsed(per_case), []
    for (init, num_labeled), part in means.groupby(["init", "num_labeled"], sort=False):
        values, patients = _one_per_case(part, "dice")
        low, high = bootstrap_interval(values, groups=patients, seed=seed, repeats=repeats, level=level)
        here = lost[(lost["init"] == init) & (lost["num_labeled"] == num_labeled)]
        rows.append({
            "init": init, "num_labeled": num_labeled, "dice": values.mean(), "low": low, "high": high,
            "cases": values.size, "draws": part["draw"].nunique(), "seeds": part["seed"].nunique(),
            "collapsed": len(here.drop_duplicates(RUN)),
        })  # fmt: skip
    columns = ["init", "num_labeled", "dice", "low", "high", "cases", "draws", "seeds", "collapsed"]
    return pd.DataFrame(rows, columns=columns).sort_values("num_labeled", kind="stable", ignore_index=True)


def _one_per_case(rows: pd.DataFrame, column: str) -> tuple[pd.Series, pd.Series | None]:
    """Mean of a column over the draws and seeds of each case, and whose case it is (None: not known)."""
    values = rows.groupby("case")[column].mean().dropna()
    return values, rows.groupby("case")["patient"].first()[values.index] if "patient" in rows else None


def paired(per_case: pd.DataFrame, *, baseline: str = "random") -> pd.DataFrame:
    """The case means of every init beside those of the baseline with the same labels, draw, seed and case:
    columns of `case_means` and dice_baseline, gain. Runs without a partner are left out."""
    means, keys = case_means(per_case), ["num_labeled", "draw", "seed", "case"]
    base = means.loc[means["init"] == baseline, [*keys, "dice"]]
    both = means[means["init"] != baseline].merge(base, on=keys, suffixes=("", "_baseline"))
    return both.assign(gain=both["dice"] - both["dice_baseline"])


def gains(per_case: pd.DataFrame, *, baseline: str = "random", level: float = 0.95, repeats: int = 2000,
          seed: int = 0) -> pd.DataFrame:  # fmt: skip
    """A row per (init, num_labeled): mean gain over the baseline on the same cases (Dice), its bootstrap interval, the
    gain relative to the baseline's Dice, and the p of `sign_flip_test`, not corrected for several comparisons."""
    rows = []
    for (init, num_labeled), part in paired(per_case, baseline=baseline).groupby(["init", "num_labeled"], sort=False):
        values, patients = _one_per_case(part, "gain")
        low, high = bootstrap_interval(values, groups=patients, seed=seed, repeats=repeats, level=level)
        start = _one_per_case(part, "dice_baseline")[0].mean()
        rows.append({
            "init": init, "baseline": baseline, "num_labeled": num_labeled, "gain": values.mean(), "low": low,
            "high": high, "relative": values.mean() / start if start > 0 else float("nan"),
            "p": sign_flip_test(values, groups=patients, seed=seed), "cases": values.size,
        })  # fmt: skip
    columns = ["init", "baseline", "num_labeled", "gain", "low", "high", "relative", "p", "cases"]
    return pd.DataFrame(rows, columns=columns).sort_values(["init", "num_labeled"], kind="stable", ignore_index=True)


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
