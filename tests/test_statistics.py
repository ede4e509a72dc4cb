"""Intervals, summaries and the collapse flag, against numbers worked out by hand."""

import numpy as np
import pandas as pd
import pytest

from ssl_utils.errors import CourseError
from ssl_utils.reporting import statistics


def table(dice: dict[tuple, dict[str, list[float]]]) -> pd.DataFrame:
    """{(init, num_labeled, draw, seed): {class: Dice of case 0, 1, ...}} as a per-case table."""
    rows = [
        (*run, f"case_{i}", name, value)
        for run, classes in dice.items()
        for name, values in classes.items()
        for i, value in enumerate(values)
    ]
    return pd.DataFrame(rows, columns=[*statistics.RUN, "case", "class", "dice"])


def test_interval_of_many_normal_values_is_the_textbook_one():
    values = np.random.default_rng(1).normal(0.7, 0.1, 400)
    low, high = statistics.bootstrap_interval(values)
    half = 1.96 * values.std(ddof=1) / 20
    assert low == pytest.approx(values.mean() - half, abs=0.0015)
    assert high == pytest.approx(values.mean() + half, abs=0.0015)


def test_interval_is_repeatable_narrows_with_level_and_skips_nan():
    values = [0.1, 0.5, 0.9, 0.4]
    assert statistics.bootstrap_interval(values) == statistics.bootstrap_interval([*values, np.nan])
    wide, narrow = (statistics.bootstrap_interval(values, level=level) for level in (0.95, 0.5))
    assert wide[0] < narrow[0] < narrow[1] < wide[1]
    assert np.isnan(statistics.bootstrap_interval([0.5])).all()
    assert statistics.bootstrap_interval([0.5, 0.5]) == (0.5, 0.5)


def test_two_volumes_of_a_patient_are_not_two_observations():
    values = np.random.default_rng(3).normal(0.7, 0.1, 50)
    twice, patients = np.repeat(values, 2), np.repeat(np.arange(50), 2)
    once = statistics.bootstrap_interval(values)
    assert statistics.bootstrap_interval(twice, groups=patients) == pytest.approx(once)
    naive = statistics.bootstrap_interval(twice)
    assert naive[1] - naive[0] < 0.8 * (once[1] - once[0])
    assert np.isnan(statistics.bootstrap_interval([0.5, 0.6], groups=["a", "a"])).all()


def test_sign_flip_test_counts_the_ways_to_swap():
    # four differences of one sign: 2 of the 16 ways to swap are as extreme
    assert statistics.sign_flip_test([1.0, 1.0, 1.0, 1.0]) == 2 / 16
    assert statistics.sign_flip_test([1.0, -1.0, 2.0, -2.0]) == 1.0
    assert statistics.sign_flip_test([0.0, 0.0, np.nan]) == 1.0
    assert statistics.sign_flip_test([1.0] * 4, groups=[0, 0, 1, 1]) == 2 / 4
    assert statistics.sign_flip_test(np.full(30, 0.01)) == 1 / 10_000
    few = np.random.default_rng(5).normal(0.3, 1, 13)  # every way to swap, and a sample of them
    assert statistics.sign_flip_test(few) == pytest.approx(statistics.sign_flip_test(few, repeats=8000), abs=0.02)
    assert np.isnan(statistics.sign_flip_test([0.3]))


def test_gains_pair_case_draw_and_seed():
    per_case = table({
        ("random", 6, 0, 0): {"a": [0.2, 0.4, 0.6]},
        ("simmim", 6, 0, 0): {"a": [0.3, 0.5, 0.7]},
        ("simmim", 6, 1, 0): {"a": [0.9, 0.9, 0.9]},  # no random run with draw 1: not counted
        ("simmim", 12, 0, 0): {"a": [0.9, 0.9, 0.9]},  # nor with 12 labels
    })  # fmt: skip
    (row,) = statistics.gains(per_case).to_dict("records")
    assert (row["init"], row["baseline"], row["num_labeled"], row["cases"]) == ("simmim", "random", 6, 3)
    assert row["gain"] == pytest.approx(0.1) and row["relative"] == pytest.approx(0.25)
    assert row["low"] == pytest.approx(0.1) and row["high"] == pytest.approx(0.1)  # every case gained the same
    assert statistics.gains(per_case, baseline="mae").empty
    unpaired = statistics.summary(per_case)
    assert unpaired.loc[0, "high"] - unpaired.loc[0, "low"] > 0.2  # which the unpaired interval cannot see


def test_summary_resamples_patients_where_they_are_named():
    per_case = table({("random", 6, 0, 0): {"a": [0.2] * 4 + [0.8] * 4}})
    cases = statistics.summary(per_case)
    patients = statistics.summary(per_case.assign(patient=list("ppqqrrss")))
    assert cases["dice"][0] == patients["dice"][0] == pytest.approx(0.5)
    assert (patients["low"][0], patients["high"][0]) == pytest.approx((0.2, 0.8))
    assert cases["low"][0] > 0.2 and cases["high"][0] < 0.8


def test_summary_averages_classes_then_runs_then_cases():
    per_case = table({
        ("random", 6, 0, 0): {"a": [0.2, 0.4], "b": [0.4, np.nan]},  # cases .3 and .4
        ("random", 6, 1, 0): {"a": [0.5, 0.6], "b": [0.5, 0.6]},  # cases .5 and .6
        ("simmim", 6, 0, 0): {"a": [1.0, 1.0], "b": [1.0, 1.0]},
        ("random", 12, 0, 0): {"a": [0.0, 1.0], "b": [0.0, 1.0]},
    })  # fmt: skip
    rows = statistics.summary(per_case)
    assert list(rows.columns[:8]) == ["init", "num_labeled", "dice", "low", "high", "cases", "draws", "seeds"]
    assert rows[["init", "num_labeled"]].values.tolist() == [["random", 6], ["simmim", 6], ["random", 12]]
    assert rows["dice"].tolist() == pytest.approx([0.45, 1.0, 0.5])
    assert rows[["cases", "draws", "seeds"]].values.tolist() == [[2, 2, 1], [2, 1, 1], [2, 1, 1]]
    assert (rows["low"] <= rows["dice"]).all() and (rows["dice"] <= rows["high"]).all()
    assert rows["low"][0] == pytest.approx(0.4) and rows["high"][0] == pytest.approx(0.5)


def test_collapse_is_found_per_run_and_named():
    per_case = table({
        ("random", 6, 0, 0): {"anterior": [0.0, 0.01], "posterior": [0.7, 0.8]},
        ("random", 6, 0, 1): {"anterior": [0.7, 0.7], "posterior": [0.7, 0.8]},
        ("random", 6, 0, 2): {"anterior": [0.0, 0.0], "posterior": [0.1, 0.1]},  # nothing learnt, not a collapse
    })  # fmt: skip
    lost = statistics.collapsed(per_case)
    assert lost[["seed", "class"]].values.tolist() == [[0, "anterior"]]
    assert statistics.summary(per_case)["collapsed"].tolist() == [1]


def test_class_means_keep_the_order():
    per_case = table({("random", 6, 0, 0): {"spleen": [0.2, 0.4], "aorta": [1.0, 0.0]}})
    means = statistics.class_means(per_case)
    assert means["class"].tolist() == ["spleen", "aorta"] and means["dice"].tolist() == pytest.approx([0.3, 0.5])


def test_a_missing_column_is_one_line():
    with pytest.raises(CourseError, match="no column draw"):
        statistics.summary(table({("random", 6, 0, 0): {"a": [1.0]}}).drop(columns="draw"))
