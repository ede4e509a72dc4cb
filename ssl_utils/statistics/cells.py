"""A cell of a results table: the runs of one init and number of labels, which differ by chance alone.

The Dice of a case is its mean over foreground classes. Where the table names patients, whole patients are resampled:
two volumes of one patient are not two observations.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from ssl_utils.errors import CourseError
from ssl_utils.statistics.intervals import bootstrap_interval, hierarchical_interval, sign_flip_test

RUN = ["init", "num_labeled", "subset", "seed"]  # the columns that name one fine-tuning run
CELL = ["init", "num_labeled"]  # the columns that name a cell


def check(per_case: pd.DataFrame) -> pd.DataFrame:
    """The table itself. Raises CourseError when a column is missing."""
    if missing := [name for name in (*RUN, "case", "class", "dice") if name not in per_case]:
        raise CourseError(f"per-case table: no column {', '.join(missing)}; collect it again from the run folders")
    return per_case


def is_control(init: str) -> bool:
    """Whether an init is a variation of another one: its name has options, `random__budget=4`."""
    return "__" in init


def case_means(per_case: pd.DataFrame) -> pd.DataFrame:
    """Mean foreground Dice of every case in every run: [*RUN, patient (if named), case, dice]. NaN classes (both masks
    empty) are left out.

    Args:
        per_case: a row per run, test case and foreground class, with columns RUN, case, class, dice (0..1).
    """
    patient = ["patient"] if "patient" in per_case else []
    return check(per_case).groupby([*RUN, *patient, "case"], sort=False)["dice"].mean().reset_index()


def class_means(per_case: pd.DataFrame) -> pd.DataFrame:
    """Mean Dice over cases of every class: [init, num_labeled, class, dice], in the table's order of classes."""
    return check(per_case).groupby([*CELL, "class"], sort=False)["dice"].mean().reset_index()


def cell_table(rows: pd.DataFrame, column: str) -> tuple[np.ndarray, np.ndarray]:
    """The runs x patients table of one cell, and the number of volumes of each patient.

    A run is a label subset, averaged over its seeds; with a single subset it is a seed. A missing value (a case without
    any of its structures) is replaced by the sum of its row and column effects.
    """
    level = "subset" if rows["subset"].nunique() > 1 else "seed"
    unit = "patient" if "patient" in rows else "case"
    cases = rows.dropna(subset=column).drop_duplicates("case").groupby(unit).size()
    table = rows.groupby([level, "case"]).agg({column: "mean"} | ({unit: "first"} if unit == "patient" else {}))
    table = table.groupby([level, unit])[column].mean().unstack(unit).reindex(columns=cases.index).dropna(how="all")
    fill = table.mean(axis=1).to_numpy()[:, None] + table.mean().to_numpy() - table.stack().mean()
    return np.where(table.isna(), fill, table), cases.to_numpy()


def mean(table: np.ndarray, cases: np.ndarray) -> float:
    """The mean of a `cell_table`: over runs, then over volumes."""
    return float((table.mean(0) * cases).sum() / cases.sum())


def estimate(rows: pd.DataFrame, column: str, *, seed: int = 0) -> dict[str, float]:
    """mean, low, high and p (of a true mean of 0) of a column of case means of one cell.

    Several label subsets or seeds: `hierarchical_interval` over runs and patients. A single run: `bootstrap_interval`
    and `sign_flip_test` over patients alone. Fewer than two patients: NaN.
    """
    table, cases = cell_table(rows, column)
    if min(table.shape) > 1:
        low, high, p = hierarchical_interval(table, cases, seed=seed)
    else:
        by_case = rows.groupby("case")
        values, groups = by_case[column].mean(), by_case["patient"].first() if "patient" in rows else None
        low, high = bootstrap_interval(values, groups=groups, seed=seed)
        p = sign_flip_test(values, groups=groups, seed=seed)
    return {"mean": mean(table, cases), "low": float(low), "high": float(high), "p": float(p)}


def estimates(rows: pd.DataFrame, column: str, keys: Sequence[str] = CELL, *, seed: int = 0) -> pd.DataFrame:
    """`estimate` of every group of rows, in their order: [*keys, mean, low, high, p, cases, subsets, seeds, runs].

    `seeds` is the smallest number of seeds of a label subset, so `runs` may exceed subsets times seeds.
    """
    table = []
    for key, part in rows.groupby(list(keys), sort=False):
        seeds, cases = part.groupby("subset")["seed"].nunique(), part.dropna(subset=column)["case"].nunique()
        counts = {"cases": cases, "subsets": seeds.size, "seeds": int(seeds.min()), "runs": int(seeds.sum())}
        table.append(dict(zip(keys, key, strict=True)) | estimate(part, column, seed=seed) | counts)
    return pd.DataFrame(table, columns=[*keys, "mean", "low", "high", "p", "cases", "subsets", "seeds", "runs"])
