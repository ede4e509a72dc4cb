"""Summaries of a table of per-case Dice: means and gains with intervals, and collapsed runs."""

import numpy as np
import pandas as pd

from ssl_utils.statistics.cells import CELL, RUN, case_means, cell_table, check, estimates, is_control, mean
from ssl_utils.statistics.intervals import holm

LOST, LEARNT = 0.05, 0.3  # mean Dice of a class


def summary(per_case: pd.DataFrame, *, seed: int = 0) -> pd.DataFrame:
    """A row per (init, num_labeled): dice, low, high (`cells.estimate`), and the numbers of cases, subsets, seeds, runs
    and collapsed runs (`run_means`), which are part of the mean."""
    table = _dice(estimates(case_means(per_case), "dice", seed=seed))
    counts = run_means(per_case).groupby(CELL)["collapsed"].sum().astype(int)
    columns = [*CELL, "dice", "low", "high", "cases", "subsets", "seeds", "runs", "collapsed"]
    return table.join(counts, on=CELL)[columns].sort_values("num_labeled", kind="stable", ignore_index=True)


def structures(per_case: pd.DataFrame) -> pd.DataFrame:
    """`summary` of each class: [class, init, num_labeled, dice, low, high, cases], in the table's order."""
    keys = ["class", *CELL]
    known = check(per_case).groupby(keys)["dice"].transform("count") > 0
    table = _dice(estimates(per_case[known], "dice", keys))
    return table[[*keys, "dice", "low", "high", "cases"]]


def _dice(table: pd.DataFrame) -> pd.DataFrame:
    """Estimates of Dice: intervals of few runs can exceed 0..1 and are clipped."""
    return table.rename(columns={"mean": "dice"}).assign(low=table["low"].clip(0, 1), high=table["high"].clip(0, 1))


def paired(per_case: pd.DataFrame, *, baseline: str = "random") -> pd.DataFrame:
    """The case means of every init beside those of the baseline with the same labels, subset, seed and case:
    columns of `case_means` and dice_baseline, gain. Runs without a partner are left out."""
    means, keys = case_means(per_case), ["num_labeled", "subset", "seed", "case"]
    partner = means.loc[means["init"] == baseline, [*keys, "dice"]]
    pairs = means[means["init"] != baseline].merge(partner, on=keys, suffixes=("", "_baseline"))
    return pairs.assign(gain=pairs["dice"] - pairs["dice_baseline"])


def gains(per_case: pd.DataFrame, *, baseline: str = "random", seed: int = 0) -> pd.DataFrame:
    """A row per (init, num_labeled): the gain of the init over the baseline on the same cases, label subsets and seeds.

    gain, low, high (Dice) and p are those of `cells.estimate`. `relative` is the gain over the baseline's Dice.
    `p_holm` is corrected for the number of rows, separately for inits and controls (`is_control`). `win_rate` is the
    share of test cases on which the init beats the baseline, averaged over runs; a tie counts half. `effect_size` is
    the mean gain over its standard deviation between patients, after averaging over runs (Cohen's d_z).
    """
    pairs = paired(per_case, baseline=baseline)
    table = estimates(pairs, "gain", seed=seed).rename(columns={"mean": "gain"})
    parts = [part for _, part in pairs.groupby(CELL, sort=False)]
    references = np.array([mean(*cell_table(part, "dice_baseline")) for part in parts])
    table["relative"] = table["gain"] / np.where(references > 0, references, np.nan)
    table["win_rate"] = [_win_rate(part) for part in parts]
    table["effect_size"] = [_effect_size(*cell_table(part, "gain")) for part in parts]
    table = table.assign(baseline=baseline).sort_values(CELL, kind="stable", ignore_index=True)
    table["p_holm"] = table.groupby(table["init"].map(is_control).astype(bool))["p"].transform(holm)
    columns = ["init", "baseline", "num_labeled", "gain", "low", "high", "relative", "p", "p_holm"]
    return table[[*columns, "win_rate", "effect_size", "cases", "subsets", "seeds"]]


def _win_rate(pairs: pd.DataFrame) -> float:
    known = pairs.dropna(subset="gain")
    wins = (known["gain"] > 1e-12) + 0.5 * (known["gain"].abs() <= 1e-12)
    return float(wins.groupby([known["subset"], known["seed"]]).mean().mean())


def _effect_size(table: np.ndarray, cases: np.ndarray) -> float:
    """Cohen's d_z of a `cell_table` of gains; NaN where all patients gain the same."""
    spread = table.mean(0).std(ddof=1) if cases.size > 1 else 0.0
    return mean(table, cases) / spread if spread > 1e-12 else float("nan")


def run_means(per_case: pd.DataFrame) -> pd.DataFrame:
    """A row per run: [*RUN, dice, collapsed, why], with dice the mean over its cases.

    A run has collapsed when it lost a class (`collapsed`), or when its Dice is under half the median of the runs of the
    same init and num_labeled; `why` gives the reason. The median cannot show a collapse in groups of one or two runs,
    or where most runs of a group failed.
    """
    runs = case_means(per_case).groupby(RUN, sort=False)["dice"].mean().reset_index()
    median = runs.groupby(CELL)["dice"].transform("median")
    lost = collapsed(per_case).groupby(RUN)["class"].agg(", ".join).rename("lost")
    lost = ("lost " + runs.join(lost, on=RUN)["lost"]).fillna("")
    low = [f"{d:.3f}, median {m:.3f}" if d < m / 2 else "" for d, m in zip(runs["dice"], median, strict=True)]
    why = [" and ".join(filter(None, reasons)) for reasons in zip(low, lost, strict=True)]
    return runs.assign(collapsed=[bool(w) for w in why], why=why)


def collapsed(per_case: pd.DataFrame) -> pd.DataFrame:
    """The classes that runs lost: [*RUN, class, dice], a row per class whose mean Dice over cases is below LOST while
    another class of the same run is above LEARNT. Runs in which no class was learnt are not listed."""
    means = check(per_case).groupby([*RUN, "class"], sort=False)["dice"].mean().reset_index()
    best = means.groupby(RUN, sort=False)["dice"].transform("max")
    return means[(means["dice"] < LOST) & (best > LEARNT)].reset_index(drop=True)
