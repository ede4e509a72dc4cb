"""Labels saved: how many labels random init needs for the Dice that another init reaches with fewer."""

import numpy as np
import pandas as pd
from scipy.optimize import isotonic_regression

from ssl_utils.statistics.cells import CELL, case_means, cell_table, mean


def labels_needed(dice: float, counts: np.ndarray, curve: np.ndarray) -> float:
    """The number of labels at which a curve of Dice reaches `dice`, linear in log labels between two of its points;
    infinite above the curve, 0 below its first point.

    Args:
        counts, curve: increasing numbers of labels, and the Dice reached with them, which is first made monotone
            (isotonic regression).
    """
    curve = isotonic_regression(curve).x
    if dice > curve[-1]:
        return float("inf")
    at = int(np.argmax(curve >= dice))  # the first point that is high enough
    if at == 0:
        return float(counts[0]) if dice == curve[0] else 0.0
    share = (dice - curve[at - 1]) / (curve[at] - curve[at - 1])
    return float(counts[at - 1] * (counts[at] / counts[at - 1]) ** share)


def labels_saved(per_case: pd.DataFrame, *, repeats: int = 1000) -> pd.DataFrame:
    """A row per (init, num_labeled) except random's: dice, `needs` (labels random init needs for it, see
    `labels_needed`), low, high (95 %), and the `fewest` and `most` labels of the runs of random init.

    The interval is a percentile bootstrap over patients, and over label subsets (else seeds) where there are several,
    with the same resamples for both curves. With fewer than about five subsets it is too narrow; without the same
    patients in all cells, or with one, it is NaN. Empty where random init has fewer than two numbers of labels.
    """
    baseline = "random"
    cells = {key: cell_table(part, "dice") for key, part in case_means(per_case).groupby(CELL, sort=True)}
    unit = "patient" if "patient" in per_case else "case"
    tested = {*per_case.dropna(subset="dice").groupby(CELL)[unit].agg(frozenset)}
    counts = np.array([n for init, n in cells if init == baseline])
    columns = ["init", "num_labeled", "dice", "needs", "low", "high", "fewest", "most"]
    if counts.size < 2:
        return pd.DataFrame(columns=columns)
    means, rows = {key: mean(*cell) for key, cell in cells.items()}, []
    resampled = _resampled(cells, repeats) if len(tested) == 1 < len(*tested) else {}
    curve = np.array([means[baseline, count] for count in counts])
    for (init, n), dice in means.items():
        if init == baseline:
            continue
        ends = (np.nan, np.nan)
        if resampled:
            curves = zip(*(resampled[baseline, count] for count in counts), strict=True)
            needs = [labels_needed(d, counts, c) for d, c in zip(resampled[init, n], curves, strict=True)]
            ends = np.quantile(needs, [0.025, 0.975], method="inverted_cdf")
        rows.append((init, n, dice, labels_needed(dice, counts, curve), *ends, counts[0], counts[-1]))
    return pd.DataFrame(rows, columns=columns)


def _resampled(cells: dict[tuple, tuple[np.ndarray, np.ndarray]], repeats: int) -> dict:
    """Means of every cell over resampled patients and runs, the same for all cells, which have the same patients."""
    (count,), rng = {table.shape[1] for table, _ in cells.values()}, np.random.default_rng(0)
    times = rng.multinomial(count, np.full(count, 1 / count), size=repeats)  # how often each patient is drawn
    rank = rng.random((repeats, max(len(table) for table, _ in cells.values())))
    means = {}
    for key, (table, weights) in cells.items():
        picks = (rank[:, : len(table)] * len(table)).astype(int)
        share = times * weights / (times * weights).sum(1, keepdims=True)
        means[key] = np.einsum("rkp,rp->r", table[picks], share) / len(table)
    return means


def needs_text(needs: float, fewest: int, most: int) -> str:
    """`14`, or `>24` and `<6` beyond the ends of the baseline's curve; `-` where it is unknown."""
    if np.isnan(needs):
        return "-"
    return f">{most}" if np.isinf(needs) else f"<{fewest}" if needs == 0 else f"{needs:.0f}"
