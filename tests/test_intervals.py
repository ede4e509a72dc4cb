"""Intervals and tests over draws, seeds and patients, in 1000 experiments whose truth is known."""

import numpy as np
import pytest

from ssl_utils.statistics import intervals

EXPERIMENTS, DRAWS, SEEDS, PATIENTS = 1000, 3, 3, 20
WORLDS = {  # standard deviations of draw, seed, patient, draw x patient, residual; in Dice
    "draws rule": (0.05, 0.03, 0.03, 0.01, 0.03),
    "patients rule": (0.0, 0.0, 0.10, 0.01, 0.03),
    "a paired gain": (0.01, 0.01, 0.01, 0.02, 0.03),
}
EVEN = {
    "all count": (0.03, 0.01, 0.05, 0.01, 0.03),
    "draw and patient even": (0.02, 0.02, 0.08, 0.02, 0.04),
    "seeds and patients even": (0.0, 0.03, 0.05, 0.0, 0.05),
    "noise alone": (0.0, 0.0, 0.0, 0.0, 0.05),
}


def experiments(deviations: tuple, seed: int = 0) -> np.ndarray:
    """(experiments, draws, seeds, patients) whose true mean is 0; patients are crossed with runs."""
    rng, (d, s, p, dp, e) = np.random.default_rng(seed), deviations
    shape = {
        "d": (DRAWS, 1, 1),
        "s": (DRAWS, SEEDS, 1),
        "p": (1, 1, PATIENTS),
        "dp": (DRAWS, 1, PATIENTS),
        "e": (DRAWS, SEEDS, PATIENTS),
    }
    size = {"d": d, "s": s, "p": p, "dp": dp, "e": e}
    return sum(size[k] * rng.standard_normal((EXPERIMENTS, *shape[k])) for k in shape)


def percentiles(values: np.ndarray, *, runs: bool, repeats: int = 500) -> tuple[np.ndarray, np.ndarray]:
    """The obvious bootstraps: patients drawn again, and (runs) draws, and seeds within them, too."""
    rng, means = np.random.default_rng(1), np.empty((len(values), repeats))
    for r in range(repeats):
        times = np.bincount(rng.integers(PATIENTS, size=PATIENTS), minlength=PATIENTS) / PATIENTS
        draws = rng.integers(DRAWS, size=DRAWS) if runs else np.arange(DRAWS)
        seeds = rng.integers(SEEDS, size=(DRAWS, SEEDS)) if runs else np.tile(np.arange(SEEDS), (DRAWS, 1))
        weights = np.zeros((DRAWS, SEEDS))
        np.add.at(weights, (draws[:, None], seeds), 1 / seeds.size)
        means[:, r] = np.einsum("ndsp,ds,p->n", values, weights, times, optimize=True)
    return tuple(np.quantile(means, [0.025, 0.975], axis=1))


def covered(low: np.ndarray, high: np.ndarray) -> float:
    return float(np.mean((low <= 0) & (high >= 0)))


@pytest.mark.parametrize("world", WORLDS)
def test_the_interval_covers_the_truth_in_95_of_100_experiments(world):
    low, high, p = intervals.hierarchical_interval(experiments(WORLDS[world]).mean(2), repeats=2000)
    assert 0.93 <= covered(low, high) <= 0.97
    assert np.mean(p < 0.05) == pytest.approx(1 - covered(low, high), abs=0.002)  # interval and test agree


@pytest.mark.parametrize("world", EVEN)
def test_where_two_levels_weigh_the_same_it_is_cautious(world):
    low, high, _ = intervals.hierarchical_interval(experiments(EVEN[world]).mean(2), repeats=2000)
    assert 0.95 <= covered(low, high) <= 0.99


def test_the_obvious_bootstraps_cover_too_little():
    found = {
        runs: [covered(*percentiles(experiments(w), runs=runs)) for w in (WORLDS | EVEN).values()]
        for runs in (True, False)
    }
    draws, patients, _, everything, *_ = found[True]
    assert draws < 0.85 and everything < 0.90 and patients < 0.94
    draws, patients, gain, everything, *_ = found[False]
    assert draws < 0.40 and patients < 0.94 and gain < 0.75 and everything < 0.75


def test_runs_taken_for_patients_find_gains_that_are_not_there():
    rows = experiments(WORLDS["draws rule"])[:200].reshape(200, DRAWS * SEEDS * PATIENTS)
    naive = np.mean([intervals.sign_flip_test(row, repeats=499) < 0.05 for row in rows])
    assert naive > 0.5


def test_spreads_of_a_table_worked_out_by_hand():
    mean, rows, columns, both = intervals.spreads(np.array([[0.0, 2.0], [2.0, 8.0]]))
    # rows 1 and 5, columns 1 and 5, mean 3; the rest is -+1
    assert (mean, rows, columns, both) == (3, 4, 4, 1)
    assert intervals.spreads(np.array([[0.0, 2.0], [4.0, 6.0]]))[3] == 0  # no interplay
    weighted = intervals.spreads(np.array([[0.0, 3.0], [0.0, 3.0]]), np.array([2, 1]))
    assert weighted[0] == pytest.approx(1.0) and weighted[1] == 0


def test_many_draws_and_patients_come_to_the_textbook_interval():
    table = 0.7 + 0.1 * np.random.default_rng(2).standard_normal((40, 1)) + np.zeros((40, 30))
    low, high, p = intervals.hierarchical_interval(table)
    half = 2.0227 * table[:, 0].std(ddof=1) / np.sqrt(40)  # t with 39 degrees of freedom
    assert (high - low) / 2 == pytest.approx(half, rel=0.03) and p == 1 / 10_000
    assert intervals.hierarchical_interval(table) == (low, high, p)


def test_holm_by_hand():
    assert intervals.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert intervals.holm([0.6, 0.7]) == pytest.approx([1, 1])
    assert intervals.holm([0.02, np.nan]) == pytest.approx([0.02, np.nan], nan_ok=True)
    assert intervals.holm([]).size == 0
