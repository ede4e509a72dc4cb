"""Ranks: ties share, only what all inits have counts, and the intervals say how much chance moves a rank."""

import numpy as np
import pandas as pd
import pytest

from ssl_utils.statistics.ranks import ranks, resampled_ranks


def table(dice: dict[str, float], *, runs: int = 4, patients: int = 12, noise: float = 0.0, seed: int = 0):
    rng, rows = np.random.default_rng(seed), []
    for init, level in dice.items():
        for subset in range(runs):
            for patient, lucky in enumerate(noise * rng.standard_normal(patients)):
                row = {"init": init, "num_labeled": 6, "subset": subset, "seed": 0, "case": f"c{patient}"}
                rows.append(row | {"patient": f"p{patient}", "class": "organ", "dice": level + lucky})
    return pd.DataFrame(rows)


def test_ranks_by_hand_with_a_tie():
    found = ranks(table({"random": 0.5, "mae": 0.7, "simmim": 0.5, "genesis": 0.4})).set_index("init")
    assert found["rank"].to_dict() == {"mae": 1, "random": 2.5, "simmim": 2.5, "genesis": 4}
    assert (found["low"] == found["rank"]).all() and (found["high"] == found["rank"]).all()
    assert found["first"].to_dict() == {"mae": 1, "random": 0, "simmim": 0, "genesis": 0}
    assert set(found["runs"]) == {4} and set(found["patients"]) == {12}


def test_equal_inits_can_have_any_rank_and_far_ones_have_one():
    found = ranks(table({"a": 0.6, "b": 0.6, "c": 0.6, "far": 0.1}, noise=0.03)).set_index("init")
    assert found.loc["far", ["rank", "low", "high"]].tolist() == [4, 4, 4]
    equal = found.drop("far")
    assert (equal["low"] == 1).sum() >= 2 and (equal["high"] == 3).sum() >= 2 and equal["first"].max() < 0.98


def test_every_init_is_resampled_with_the_same_runs_and_patients():
    rng = np.random.default_rng(0)
    hard = rng.standard_normal((1, 5, 9))  # of runs and patients, the same for both
    found = resampled_ranks(np.concatenate([hard, hard + 1e-3]), np.ones(9))
    assert (found == [2, 1]).all(), "a small gain on every case is a certain rank"


def test_a_patient_with_more_volumes_counts_more():
    dice = np.array([[[0.9, 0.1, 0.1]], [[0.2, 0.3, 0.3]]])
    assert (resampled_ranks(dice, np.array([1, 1, 1]))[:, 0] == 1).mean() < 0.9
    assert (resampled_ranks(dice, np.array([100, 1, 1]))[:, 0] == 1).mean() == pytest.approx(19 / 27, abs=0.03)


def test_runs_and_cases_that_one_init_lacks_are_left_out():
    whole = table({"a": 0.5, "b": 0.6})
    missing = whole[~((whole["init"] == "b") & ((whole["subset"] == 3) | (whole["case"] == "c0")))]
    found = ranks(missing)
    assert found["init"].tolist() == ["b", "a"] and set(found["runs"]) == {3} and set(found["patients"]) == {11}


def test_inits_that_share_no_run_have_no_ranks():
    apart = table({"a": 0.5, "b": 0.6})
    apart.loc[apart["init"] == "b", "subset"] += 10
    assert ranks(apart).empty
