"""Labels saved: how many labels the random start needs for the Dice that another start reaches with fewer."""

import numpy as np
import pandas as pd
from scipy.optimize import isotonic_regression

from ssl_utils.statistics.cells import CELL, case_means, cell_table, mean


def labels_needed(dice: float, counts: np.ndarray, curve: np.ndarray) -> float:
    """The number of labels at which a curve of Dice reaches `dice`: between two counts on a straight line over log
    labels; infinite above the curve, 0 below its first point.

    Args:
        counts, curve: numbers of labels, rising, and the Dice reached with them. A curve that falls somewhere is first
            made monotone (isotonic regression): more labels never count as a loss.
    """
    curve = isotonic_regression(curve).x
    if dice > curve[-1]:
        return float("inf")
    at = int(np.argmax(curve >= dice))  # the first point that is high enough
    if at == 0:
        return float(counts[0]) if dice == curve[0] else 0.0
    share = (dice - curve[at - 1]) / (curve[at] - curve[at - 1])
    return float(counts[at - 1] * (counts[at] / counts[at - 1]) ** share)


def labels_saved(
    per_case: pd.DataFrame, *, baseline: str = "random", level: float = 0.95, repeats: int = 1000, seed: int = 0
) -> pd.DataFrame:
    """A row per (init, num_labeled) but the baseline's: dice, `needs` (labels the baseline needs for it, see
    `labels_needed`), low, high, and the `fewest` and `most` labels the baseline was tried with.

    The interval is a percentile bootstrap that resamples patients, and draws (else seeds) where there are several,
    alike for both curves. With fewer than about five draws it is too narrow. Empty with fewer than two counts of the
    baseline.
    """
    cells = {key: cell_table(part, "dice") for key, part in case_means(per_case).groupby(CELL, sort=True)}
    counts = np.array([n for init, n in cells if init == baseline])
    names = ["init", "num_labeled", "dice", "needs", "low", "high", "fewest", "most"]
    if counts.size < 2:
        return pd.DataFrame(columns=names)
    whole = {key: mean(*cell) for key, cell in cells.items()}
    curve = np.array([whole[baseline, count] for count in counts])
    again, rows = _resampled(cells, repeats, seed), []
    curves = np.stack([again[baseline, count] for count in counts], axis=1) if again else ()  # (repeats, counts)
    for (init, n), dice in whole.items():
        if init == baseline:
            continue
        needs, ends = labels_needed(dice, counts, curve), (np.nan, np.nan)
        if again:
            drawn = [labels_needed(value, counts, line) for value, line in zip(again[init, n], curves, strict=True)]
            ends = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2], method="inverted_cdf")
        rows.append((init, n, dice, needs, *ends, counts[0], counts[-1]))
    return pd.DataFrame(rows, columns=names)


def _resampled(cells: dict[tuple, tuple[np.ndarray, np.ndarray]], repeats: int, seed: int) -> dict | None:
    """Means of every cell when patients and runs are drawn again, the same ones for all cells; None where the cells
    were not tested on the same patients, or on one."""
    patients = {table.shape[1] for table, _ in cells.values()}
    if len(patients) > 1 or patients == {1}:
        return None
    (count,), rng = patients, np.random.default_rng(seed)
    times = rng.multinomial(count, np.full(count, 1 / count), size=repeats)  # how often each patient is drawn
    rank = rng.random((repeats, max(len(table) for table, _ in cells.values())))
    means = {}
    for key, (table, weights) in cells.items():
        picks = (rank[:, : len(table)] * len(table)).astype(int)
        share = times * weights / (times * weights).sum(1, keepdims=True)
        means[key] = np.einsum("rkp,rp->r", table[picks], share) / len(table)
    return means


def needs_text(needs: float, fewest: int, most: int) -> str:
    """`14`, or `>24` and `<6` beyond the ends of the baseline's curve; `-` where it is not known."""
    if np.isnan(needs):
        return "-"
    return f">{most}" if np.isinf(needs) else f"<{fewest}" if needs == 0 else f"{needs:.0f}"
