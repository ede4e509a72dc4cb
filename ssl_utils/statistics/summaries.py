"""What a table of per-case Dice can say: means and gains with intervals, and runs that collapsed.

A case's Dice is its mean over foreground classes. The unit of chance is the patient: where the table names patients,
whole patients are resampled, since two volumes of one are not two observations. With several label draws (or seeds) of
the same (init, num_labeled), their chance is in the interval too (`intervals.deviations`); with a single run it is not.
"""

import numpy as np
import pandas as pd

from ssl_utils.errors import CourseError
from ssl_utils.statistics.intervals import bootstrap_interval, hierarchical_interval, holm, sign_flip_test

RUN = ["init", "num_labeled", "draw", "seed"]  # the columns that name one fine-tuning run
CELL = ["init", "num_labeled"]  # the columns that name a group of runs that differ by chance alone


def _need(table: pd.DataFrame, *columns: str) -> None:
    missing = [name for name in columns if name not in table]
    if missing:
        raise CourseError(f"per-case table: no column {', '.join(missing)}; collect it again from the run folders")


def is_control(init: str) -> bool:
    """Whether an init is a variation of another one: its name carries options, `random__budget=4`."""
    return "__" in init


def case_means(per_case: pd.DataFrame) -> pd.DataFrame:
    """Mean foreground Dice of every case in every run: [*RUN, patient (if named), case, dice]. NaN classes (both masks
    empty) are left out.

    Args:
        per_case: a row per run, test case and foreground class, with columns RUN, case, class, dice (0..1).
    """
    _need(per_case, *RUN, "case", "class", "dice")
    patient = ["patient"] if "patient" in per_case else []
    return per_case.groupby([*RUN, *patient, "case"], sort=False)["dice"].mean().reset_index()


def cell_table(rows: pd.DataFrame, column: str) -> tuple[np.ndarray, np.ndarray]:
    """The runs x patients table of one cell, and how many volumes each patient has.

    Runs are draws, each the mean over its seeds; with a single draw they are seeds. A value that is missing (a case
    without any of its structures) is filled with what its run and its patient let expect.
    """
    level = "draw" if rows["draw"].nunique() > 1 else "seed"
    whose = "patient" if "patient" in rows else "case"
    cases = rows.dropna(subset=column).drop_duplicates("case").groupby(whose).size()
    table = rows.groupby([level, "case"]).agg({column: "mean", **({whose: "first"} if whose != "case" else {})})
    table = table.groupby([level, whose])[column].mean().unstack(whose).reindex(columns=cases.index)
    table = table.dropna(how="all")
    hole = table.isna().to_numpy()
    fill = table.mean(axis=1).to_numpy()[:, None] + table.mean().to_numpy() - table.stack().mean()
    return np.where(hole, fill, table.to_numpy()), cases.to_numpy()


def estimate(rows: pd.DataFrame, column: str, *, level: float = 0.95, seed: int = 0) -> dict[str, float]:
    """mean, low, high and p (of a true mean of 0) of a column of case means of one cell, over patients and runs.

    Several draws or seeds: `intervals.hierarchical_interval`. A single run: `bootstrap_interval` and `sign_flip_test`
    over its patients. Fewer than two patients: NaN.
    """
    table, cases = cell_table(rows, column)
    if table.shape[1] > 1 and table.shape[0] > 1:
        low, high, p = hierarchical_interval(table, cases, level=level, seed=seed)
    else:
        values = rows.groupby("case")[column].mean()
        groups = rows.groupby("case")["patient"].first() if "patient" in rows else None
        low, high = bootstrap_interval(values, groups=groups, level=level, seed=seed)
        p = sign_flip_test(values, groups=groups, seed=seed)
    mean = (table.mean(0) * cases).sum() / cases.sum()
    return {"mean": float(mean), "low": float(low), "high": float(high), "p": float(p)}


def summary(per_case: pd.DataFrame, *, level: float = 0.95, seed: int = 0) -> pd.DataFrame:
    """A row per (init, num_labeled): dice, low, high (see `estimate`), and how many cases, draws, seeds and runs.

    `seeds` is of the draw that has the fewest, so there may be more `runs` than draws times seeds.
    `collapsed` counts the collapsed runs (see `run_means`): they are in the mean, which hides them.
    """
    means, flags, rows = case_means(per_case), run_means(per_case).groupby(CELL)["collapsed"].sum(), []
    for (init, num_labeled), part in means.groupby(CELL, sort=False):
        found = estimate(part, "dice", level=level, seed=seed)
        low, high = np.clip([found["low"], found["high"]], 0, 1)  # two draws can ask for more than a Dice can be
        rows.append(
            {
                "init": init,
                "num_labeled": num_labeled,
                "dice": found["mean"],
                "low": low,
                "high": high,
                "cases": part.dropna(subset="dice")["case"].nunique(),
                **_repeats(part),
                "collapsed": int(flags[init, num_labeled]),
            }
        )
    columns = ["init", "num_labeled", "dice", "low", "high", "cases", "draws", "seeds", "runs", "collapsed"]
    return pd.DataFrame(rows, columns=columns).sort_values("num_labeled", kind="stable", ignore_index=True)


def _repeats(rows: pd.DataFrame) -> dict[str, int]:
    seeds = rows.groupby("draw")["seed"].nunique()
    return {"draws": seeds.size, "seeds": int(seeds.min()), "runs": int(seeds.sum())}


def structures(per_case: pd.DataFrame, *, level: float = 0.95, seed: int = 0) -> pd.DataFrame:
    """`summary` of every class by itself: [class, init, num_labeled, dice, low, high, cases], in the table's order."""
    _need(per_case, *RUN, "case", "class", "dice")
    rows = []
    for (name, *cell), part in per_case.groupby(["class", *CELL], sort=False):
        if part["dice"].notna().any():
            found = estimate(part, "dice", level=level, seed=seed)
            low, high = np.clip([found["low"], found["high"]], 0, 1)
            rows.append((name, *cell, found["mean"], low, high, part.dropna(subset="dice")["case"].nunique()))
    return pd.DataFrame(rows, columns=["class", *CELL, "dice", "low", "high", "cases"])


def paired(per_case: pd.DataFrame, *, baseline: str = "random") -> pd.DataFrame:
    """The case means of every init beside those of the baseline with the same labels, draw, seed and case:
    columns of `case_means` and dice_baseline, gain. Runs without a partner are left out."""
    means, keys = case_means(per_case), ["num_labeled", "draw", "seed", "case"]
    base = means.loc[means["init"] == baseline, [*keys, "dice"]]
    both = means[means["init"] != baseline].merge(base, on=keys, suffixes=("", "_baseline"))
    return both.assign(gain=both["dice"] - both["dice_baseline"])


def gains(per_case: pd.DataFrame, *, baseline: str = "random", level: float = 0.95, seed: int = 0) -> pd.DataFrame:
    """A row per (init, num_labeled) of what the init gains over the baseline on the same cases, draws and seeds.

    gain, low, high (Dice) and p are those of `estimate`. `relative` is the gain over the baseline's Dice. `p_holm` is
    corrected for the number of rows: inits by themselves, controls (`is_control`) by themselves. `win_rate` is the
    share of test cases on which the init beats the baseline, averaged over runs, ties half. `effect_size` is the mean
    gain over its standard deviation between patients, after averaging over runs (Cohen's d_z).
    """
    rows = []
    for (init, num_labeled), part in paired(per_case, baseline=baseline).groupby(CELL, sort=False):
        found, start = estimate(part, "gain", level=level, seed=seed), estimate(part, "dice_baseline")["mean"]
        rows.append(
            {
                "init": init,
                "baseline": baseline,
                "num_labeled": num_labeled,
                "gain": found["mean"],
                "low": found["low"],
                "high": found["high"],
                "relative": found["mean"] / start if start > 0 else float("nan"),
                "p": found["p"],
                "p_holm": float("nan"),
                "win_rate": win_rate(part),
                "effect_size": effect_size(*cell_table(part, "gain")),
                "cases": part.dropna(subset="gain")["case"].nunique(),
                **_repeats(part),
            }
        )
    columns = [
        "init",
        "baseline",
        "num_labeled",
        "gain",
        "low",
        "high",
        "relative",
        "p",
        "p_holm",
        "win_rate",
        "effect_size",
        "cases",
        "draws",
        "seeds",
    ]
    table = pd.DataFrame(rows, columns=columns).sort_values(CELL, kind="stable", ignore_index=True)
    table["p_holm"] = table.groupby(table["init"].map(is_control).astype(bool))["p"].transform(holm)
    return table


def win_rate(pairs: pd.DataFrame) -> float:
    """Share of test cases with a gain, averaged over runs; a tie counts half. `pairs`: rows of `paired`."""
    known = pairs.dropna(subset="gain")
    won = (known["gain"] > 1e-12) + 0.5 * (known["gain"].abs() <= 1e-12)
    return float(won.groupby([known["draw"], known["seed"]]).mean().mean())


def effect_size(table: np.ndarray, weights: np.ndarray) -> float:
    """Cohen's d_z: mean over standard deviation of the patients' gains (means over runs). NaN where all are the same.

    Args:
        table, weights: (runs, patients) and (patients,) of `cell_table`.
    """
    gains = table.mean(0)
    spread = gains.std(ddof=1) if gains.size > 1 else 0.0
    return float(np.average(gains, weights=weights) / spread) if spread > 1e-12 else float("nan")


def class_means(per_case: pd.DataFrame) -> pd.DataFrame:
    """Mean Dice over cases of every class: [init, num_labeled, class, dice], in the table's order of classes."""
    _need(per_case, *RUN, "case", "class", "dice")
    return per_case.groupby(["init", "num_labeled", "class"], sort=False)["dice"].mean().reset_index()


def run_means(per_case: pd.DataFrame) -> pd.DataFrame:
    """A row per run: [*RUN, dice, collapsed, why], with dice the mean over its cases.

    A run has collapsed when its Dice is under half the median of its group (the runs of the same init and num_labeled),
    or when it lost a class (`collapsed`); `why` says which. A group of one or two runs hardly has a median to judge by,
    and where most runs of a group fail the median fails with them: there only lost classes are seen.
    """
    runs = case_means(per_case).groupby(RUN, sort=False)["dice"].mean().reset_index()
    median = runs.groupby(CELL)["dice"].transform("median")
    lost = collapsed(per_case).groupby(RUN)["class"].agg(", ".join).rename("lost").reset_index()
    lost = runs.merge(lost, on=RUN, how="left")["lost"]
    low = [f"{d:.3f}, median {m:.3f}" if d < m / 2 else "" for d, m in zip(runs["dice"], median, strict=True)]
    why = [" and ".join(filter(None, [a, b])) for a, b in zip(low, ("lost " + lost).fillna(""), strict=True)]
    return runs.assign(collapsed=[bool(w) for w in why], why=why)


def collapsed(per_case: pd.DataFrame, *, lost: float = 0.05, learnt: float = 0.3) -> pd.DataFrame:
    """The classes a run has lost: [*RUN, class, dice], a row per class whose mean Dice over cases is below `lost` while
    the mean of another class in the same run is above `learnt`. A run that learnt nothing at all is not listed.
    """
    _need(per_case, *RUN, "case", "class", "dice")
    means = per_case.groupby([*RUN, "class"], sort=False)["dice"].mean().reset_index()
    best = means.groupby(RUN, sort=False)["dice"].transform("max")
    return means[(means["dice"] < lost) & (best > learnt)].reset_index(drop=True)
