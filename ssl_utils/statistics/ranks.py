"""Ranks of inits by Dice, and how certain they are: the same runs and patients are resampled for all of them."""

import numpy as np
import pandas as pd
from scipy.stats import rankdata

from ssl_utils.statistics.cells import case_means, cell_table, mean


def resampled_ranks(dice: np.ndarray, cases: np.ndarray, *, repeats: int = 2000, seed: int = 0) -> np.ndarray:
    """Ranks (repeats, M) of M inits over resampled runs and patients (Efron 1979); 1 is best, equal means share the
    mean of their ranks.

    Args:
        dice: (M, R, P) Dice of every init in the same R runs (label subsets or seeds) on the same P patients.
        cases: (P,) volumes of each patient.
    """
    rng, (_, runs, patients) = np.random.default_rng(seed), dice.shape
    often = rng.multinomial(runs, np.full(runs, 1 / runs), size=repeats)  # how often each run is drawn
    weight = rng.multinomial(patients, np.full(patients, 1 / patients), size=repeats) * cases
    means = np.einsum("br,mrp,bp->bm", often, dice, weight) / (runs * weight.sum(1, keepdims=True))
    return rankdata(-means.round(12), axis=1)


def ranks(per_case: pd.DataFrame, *, level: float = 0.95, repeats: int = 2000, seed: int = 0) -> pd.DataFrame:
    """A row per (num_labeled, init), best first: dice, rank, low and high of the rank (`resampled_ranks`), `first` (the
    share of resamples in which it is the only best), and the numbers of runs and patients.

    Only label subsets, seeds and cases that every init has are compared. With fewer than about five runs, the intervals
    are too narrow; with one, they are over patients alone.

    Args:
        per_case: as for `cells.case_means`, with at least one run that all inits have.
    """
    means, tables = case_means(per_case).dropna(subset="dice"), []
    for count, part in means.groupby("num_labeled"):
        shared = part.groupby(["subset", "seed", "case"])["init"].transform("nunique") == part["init"].nunique()
        if shared.any():
            tables.append(_ranks(part[shared], level, repeats, seed).assign(num_labeled=count))
    columns = ["num_labeled", "init", "dice", "rank", "low", "high", "first", "runs", "patients"]
    return pd.concat(tables, ignore_index=True)[columns] if tables else pd.DataFrame(columns=columns)


def _ranks(rows: pd.DataFrame, level: float, repeats: int, seed: int) -> pd.DataFrame:
    cells = {init: cell_table(part, "dice") for init, part in rows.groupby("init", sort=False)}
    dice, cases = np.stack([table for table, _ in cells.values()]), next(iter(cells.values()))[1]
    drawn = resampled_ranks(dice, cases, repeats=repeats, seed=seed)
    means = np.array([mean(*cell) for cell in cells.values()])
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2], axis=0, method="inverted_cdf")
    table = pd.DataFrame({"init": list(cells), "dice": means, "rank": rankdata(-means.round(12))})
    table = table.assign(low=low, high=high, first=(drawn == 1).mean(0), runs=dice.shape[1], patients=dice.shape[2])
    return table.sort_values("rank", kind="stable")
