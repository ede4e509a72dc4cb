"""How sure a mean Dice is: intervals and tests over patients, label draws and seeds.

A course scores the same test patients with every run, so runs and patients are crossed: a hard patient is hard in all
of them, an unlucky run is unlucky for all patients. Seeds lie within draws. Three sources of chance follow: which cases
were labelled (draw), how the training fell out (seed), and who was tested (patient).
"""

from collections.abc import Sequence

import numpy as np


def bootstrap_interval(
    values: Sequence[float], *, groups: Sequence | None = None, seed: int = 0, repeats: int = 2000, level: float = 0.95
) -> tuple[float, float]:
    """Percentile bootstrap interval (Efron, 1979) of the mean over cases of one run; NaN values are left out.

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


def sign_flip_test(
    differences: Sequence[float], *, groups: Sequence | None = None, seed: int = 0, repeats: int = 9999
) -> float:
    """Two-sided p of a paired comparison of two runs: how often the mean difference is at least as far from 0 when the
    two swap places at random, patient by patient. Every way to swap is counted when there are at most `repeats`."""
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


def spreads(table: np.ndarray, weights: np.ndarray | None = None) -> tuple[np.ndarray, ...]:
    """Mean of a table of runs x patients, and the variance of that mean as rows, columns and their interplay show it.

    With K rows (label draws, each a mean over its seeds; or seeds, when there is one draw) and P patients:
    rows = (draw + interplay / P) / K, columns = (patient + interplay / K) / P, both = interplay / (K P), where draw,
    patient and interplay are variances. The variance of the mean is rows + columns - both (two-way random effects).

    Args:
        table: (..., K, P) Dice or gain, no NaN.
        weights: (P,) volumes of each patient; None counts every patient once.
    """
    k, p = table.shape[-2:]
    w = np.full(p, 1 / p) if weights is None else weights / weights.sum()
    mean = (table.mean(-2) * w).sum(-1)
    row = (table * w).sum(-1) - mean[..., None]  # how far a draw lies from the mean
    column = table.mean(-2) - mean[..., None]  # how far a patient does
    rest = table - mean[..., None, None] - row[..., None] - column[..., None, :]
    rows, columns = (row**2).sum(-1) / k / (k - 1), (w**2 * column**2).sum(-1) * p / (p - 1)
    both = (w**2 * rest**2).sum((-2, -1)) * p / (p - 1) / k / (k - 1)
    return mean, rows, columns, both


def deviations(
    table: np.ndarray, weights: np.ndarray | None = None, *, seed: int = 0, repeats: int = 9999
) -> tuple[np.ndarray, np.ndarray]:
    """Hierarchical bootstrap of the mean of runs x patients: the mean, and how far from the truth it may well lie.

    The obvious hierarchical bootstrap (resample draws, in each draw seeds, and patients; percentiles) covers too little
    here: the spread of three draws comes out sqrt(2/3) too small. In 1000 simulated experiments of 3 draws x 3 seeds x
    20 patients its 95 % interval held the truth in 81 % where draws rule and in 87 % where draws and patients count
    (resampling patients alone: 33 and 69 %). So the resampling here is parametric, level by level: every repeat first
    redraws how large the spread of each level may truly be (measured spread x freedoms / chi-squared), then a normal
    deviation of that size. This is a generalised confidence interval (Weerahandi, Journal of the American Statistical
    Association 1993, doi:10.1080/01621459.1993.10476355) for crossed random effects (Owen, Annals of Applied Statistics
    2007, doi:10.1214/07-AOAS122). It held the truth in 95-96 % where one level rules and up to 98 % where two weigh the
    same; see tests/test_intervals.py. A t interval with Satterthwaite's freedoms fell to 93 % (88 % with two draws).
    Effects are taken to be normal. A draw's mean carries the chance of its seeds, so seeds need no level of their own.

    Args:
        table, weights: see `spreads`; K and P at least 2.

    Returns:
        (...) means and (..., repeats) absolute deviations. Their 95 % quantile is half the 95 % interval.
    """
    k, p = table.shape[-2:]
    rng, freedoms = np.random.default_rng(seed), (k - 1, p - 1, (k - 1) * (p - 1))
    mean, *measured = spreads(table, weights)
    drawn = [m[..., None] * f / rng.chisquare(f, repeats) for m, f in zip(measured, freedoms, strict=True)]
    rows, columns, both = drawn
    return mean, np.abs(rng.standard_normal(repeats)) * np.sqrt(np.maximum(rows + columns - both, 0))


def hierarchical_interval(
    table: np.ndarray, weights: np.ndarray | None = None, *, seed: int = 0, repeats: int = 9999, level: float = 0.95
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(low, high, p) of the mean of a table of runs x patients; p is two-sided and against a true mean of 0.

    Interval and p come from the same `deviations`, so they never contradict each other: p counts the repeats that lie
    at least as far off as 0 does.
    """
    mean, far = deviations(np.asarray(table, np.float64), weights, seed=seed, repeats=repeats)
    half = np.quantile(far, level, axis=-1)
    p = (1 + (far >= np.abs(mean)[..., None] - 1e-12).sum(-1)) / (1 + repeats)
    return mean - half, mean + half, p


def holm(p: Sequence[float]) -> np.ndarray:
    """p values corrected for having looked several times (Holm, Scandinavian Journal of Statistics 1979): the smallest
    of m counts m times, the next m - 1 times, and none becomes smaller than the one before. NaN stay and are not
    counted."""
    p = np.asarray(p, np.float64)
    order = np.argsort(p)[: np.isfinite(p).sum()]
    corrected = np.full(p.size, np.nan)
    corrected[order] = np.minimum(np.maximum.accumulate(p[order] * np.arange(order.size, 0, -1)), 1)
    return corrected
