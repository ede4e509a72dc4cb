"""Intervals, summaries and the collapse flag, against numbers worked out by hand."""

import numpy as np
import pandas as pd
import pytest

from ssl_utils import statistics
from ssl_utils.errors import CourseError
from ssl_utils.statistics import cells, intervals, savings, tables


def table(dice: dict[tuple, dict[str, list[float]]]) -> pd.DataFrame:
    """{(init, num_labeled, subset, seed): {class: Dice of case 0, 1, ...}} as a per-case table."""
    rows = [
        (*run, f"case_{i}", name, value)
        for run, classes in dice.items()
        for name, values in classes.items()
        for i, value in enumerate(values)
    ]
    return pd.DataFrame(rows, columns=[*statistics.RUN, "case", "class", "dice"])


def test_interval_of_many_normal_values_is_the_textbook_one():
    values = np.random.default_rng(1).normal(0.7, 0.1, 400)
    low, high = intervals.bootstrap_interval(values)
    half = 1.96 * values.std(ddof=1) / 20
    assert low == pytest.approx(values.mean() - half, abs=0.0015)
    assert high == pytest.approx(values.mean() + half, abs=0.0015)


def test_interval_is_repeatable_narrows_with_level_and_skips_nan():
    values = [0.1, 0.5, 0.9, 0.4]
    assert intervals.bootstrap_interval(values) == intervals.bootstrap_interval([*values, np.nan])
    wide, narrow = (intervals.bootstrap_interval(values, level=level) for level in (0.95, 0.5))
    assert wide[0] < narrow[0] < narrow[1] < wide[1]
    assert np.isnan(intervals.bootstrap_interval([0.5])).all()
    assert intervals.bootstrap_interval([0.5, 0.5]) == (0.5, 0.5)


def test_two_volumes_of_a_patient_are_not_two_observations():
    values = np.random.default_rng(3).normal(0.7, 0.1, 50)
    twice, patients = np.repeat(values, 2), np.repeat(np.arange(50), 2)
    once = intervals.bootstrap_interval(values)
    assert intervals.bootstrap_interval(twice, groups=patients) == pytest.approx(once)
    naive = intervals.bootstrap_interval(twice)
    assert naive[1] - naive[0] < 0.8 * (once[1] - once[0])
    assert np.isnan(intervals.bootstrap_interval([0.5, 0.6], groups=["a", "a"])).all()


def test_sign_flip_test_counts_the_ways_to_swap():
    # four differences of one sign: 2 of the 16 ways to swap are as extreme
    assert intervals.sign_flip_test([1.0, 1.0, 1.0, 1.0]) == 2 / 16
    assert intervals.sign_flip_test([1.0, -1.0, 2.0, -2.0]) == 1.0
    assert intervals.sign_flip_test([0.0, 0.0, np.nan]) == 1.0
    assert intervals.sign_flip_test([1.0] * 4, groups=[0, 0, 1, 1]) == 2 / 4
    assert intervals.sign_flip_test(np.full(30, 0.01)) == 1 / 10_000
    few = np.random.default_rng(5).normal(0.3, 1, 13)  # every way to swap, and a sample of them
    assert intervals.sign_flip_test(few) == pytest.approx(intervals.sign_flip_test(few, repeats=8000), abs=0.02)
    assert np.isnan(intervals.sign_flip_test([0.3]))


def test_gains_pair_case_draw_and_seed():
    per_case = table(
        {
            ("random", 6, 0, 0): {"a": [0.2, 0.4, 0.6]},
            ("simmim", 6, 0, 0): {"a": [0.3, 0.5, 0.7]},
            ("simmim", 6, 1, 0): {"a": [0.9, 0.9, 0.9]},  # no random run with subset 1: not counted
            ("simmim", 12, 0, 0): {"a": [0.9, 0.9, 0.9]},  # nor with 12 labels
        }
    )
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
    per_case = table(
        {
            ("random", 6, 0, 0): {"a": [0.2, 0.4], "b": [0.4, np.nan]},  # cases .3 and .4
            ("random", 6, 1, 0): {"a": [0.5, 0.6], "b": [0.5, 0.6]},  # cases .5 and .6
            ("simmim", 6, 0, 0): {"a": [1.0, 1.0], "b": [1.0, 1.0]},
            ("random", 12, 0, 0): {"a": [0.0, 1.0], "b": [0.0, 1.0]},
        }
    )
    rows = statistics.summary(per_case)
    assert list(rows.columns[:8]) == ["init", "num_labeled", "dice", "low", "high", "cases", "subsets", "seeds"]
    assert rows[["init", "num_labeled"]].values.tolist() == [["random", 6], ["simmim", 6], ["random", 12]]
    assert rows["dice"].tolist() == pytest.approx([0.45, 1.0, 0.5])
    assert rows[["cases", "subsets", "seeds"]].values.tolist() == [[2, 2, 1], [2, 1, 1], [2, 1, 1]]
    assert (rows["low"] <= rows["dice"]).all() and (rows["dice"] <= rows["high"]).all()
    assert (rows["low"][0], rows["high"][0]) == (0, 1)  # two subsets, two cases: nothing is known


def test_seeds_are_those_of_the_draw_with_the_fewest():
    runs = grid(3, 1) | {("random", 6, 1, 5): {"a": [0.9, 0.9], "b": [0.0, 0.0]}}
    (row,) = statistics.summary(table(runs)).to_dict("records")
    assert (row["subsets"], row["seeds"], row["runs"], row["collapsed"]) == (3, 1, 4, 1)
    cell = tables.label_efficiency(pd.DataFrame([row])).loc["random", "6 labels"]
    assert cell.endswith("], 1 of 4 collapsed")


def test_collapse_is_found_per_run_and_named():
    per_case = table(
        {
            ("random", 6, 0, 0): {"anterior": [0.0, 0.01], "posterior": [0.7, 0.8]},
            ("random", 6, 0, 1): {"anterior": [0.7, 0.7], "posterior": [0.7, 0.8]},
            ("random", 6, 0, 2): {"anterior": [0.0, 0.0], "posterior": [0.1, 0.1]},  # nothing learnt, not a collapse
        }
    )
    lost = statistics.collapsed(per_case)
    assert lost[["seed", "class"]].values.tolist() == [[0, "anterior"]]
    runs = statistics.run_means(per_case)
    assert runs["why"].tolist() == ["lost anterior", "", "0.050, median 0.378"]
    assert statistics.summary(per_case)["collapsed"].tolist() == [2]
    both = table({("random", 6, 0, s): {"b": [0.0], "a": [0.0], "c": [d]} for s, d in enumerate((0.9, 0.9, 0.4))})
    assert statistics.run_means(both)["why"].tolist()[-1] == "0.133, median 0.300 and lost b, a", "in the table's order"


def test_a_run_under_half_the_median_of_its_group_has_collapsed_and_stays_in_the_mean():
    group = {("simmim", 6, subset, 0): {"a": [dice, dice]} for subset, dice in enumerate([0.7, 0.72, 0.34, 0.36])}
    per_case = table(group | {("random", 6, 0, 0): {"a": [0.1, 0.1]}})  # alone in its group: nothing to judge by
    runs = statistics.run_means(per_case)
    assert runs.loc[runs["collapsed"], ["init", "subset"]].values.tolist() == []  # half of the median .53 is .265
    worse = per_case.replace(0.34, 0.2)
    (row,) = statistics.run_means(worse).query("collapsed").to_dict("records")
    assert (row["subset"], row["why"]) == (2, "0.200, median 0.530")
    found = statistics.summary(worse).set_index("init").loc["simmim"]
    assert found["collapsed"] == 1 and found["dice"] == pytest.approx((0.7 + 0.72 + 0.2 + 0.36) / 4)


def test_class_means_keep_the_order():
    per_case = table({("random", 6, 0, 0): {"spleen": [0.2, 0.4], "aorta": [1.0, 0.0]}})
    means = statistics.class_means(per_case)
    assert means["class"].tolist() == ["spleen", "aorta"] and means["dice"].tolist() == pytest.approx([0.3, 0.5])


def test_a_missing_column_is_one_line():
    with pytest.raises(CourseError, match="no column subset"):
        statistics.summary(table({("random", 6, 0, 0): {"a": [1.0]}}).drop(columns="subset"))


def grid(subsets: int, seeds: int, cases: int = 12, init: str = "random", shift: float = 0.0, chance: int = 0) -> dict:
    """A full design with chance at every level; the same cases are as hard for every init."""
    hard, rng = np.random.default_rng(5).normal(0, 0.05, cases), np.random.default_rng(chance)
    run = {(d, s): 0.6 + shift + rng.normal(0, 0.03) for d in range(subsets) for s in range(seeds)}
    return {(init, 6, d, s): {"a": list(m + hard + rng.normal(0, 0.01, cases))} for (d, s), m in run.items()}


def test_several_draws_or_seeds_widen_the_interval_and_one_run_is_the_bootstrap_over_patients():
    widths = {}
    for design in ((1, 1), (1, 3), (3, 1), (3, 3)):
        per_case = table(grid(*design))
        (row,) = statistics.summary(per_case).to_dict("records")
        widths[design] = row["high"] - row["low"]
        assert row["dice"] == pytest.approx(per_case["dice"].mean())
        if design == (1, 1):
            ordered = per_case.sort_values("case")["dice"]
            assert (row["low"], row["high"]) == pytest.approx(intervals.bootstrap_interval(ordered))
    assert min(widths[1, 3], widths[3, 1], widths[3, 3]) > 1.3 * widths[1, 1]


@pytest.mark.parametrize("design", [(2, 1, 12), (1, 2, 12), (3, 1, 2)])
def test_two_runs_and_two_patients_are_enough_for_the_hierarchical_interval(design):
    means = statistics.case_means(table(grid(*design)))
    found = cells.estimate(means, "dice")
    low, high, p = intervals.hierarchical_interval(*cells.cell_table(means, "dice"))
    assert (found["low"], found["high"], found["p"]) == (low, high, p)


def test_volumes_of_a_patient_count_in_the_mean_and_not_as_patients():
    per_case = table(grid(2, 2, cases=6))
    per_case["patient"] = per_case["case"].map(dict(zip([f"case_{i}" for i in range(6)], "aabbbc", strict=True)))
    values, cases = cells.cell_table(statistics.case_means(per_case), "dice")
    assert values.shape == (2, 3) and cases.tolist() == [2, 3, 1]
    first = per_case[per_case["patient"].eq("a") & per_case["subset"].eq(0)]["dice"].mean()
    assert values[0, 0] == pytest.approx(first)
    found = cells.estimate(statistics.case_means(per_case), "dice")
    assert found["mean"] == pytest.approx(per_case["dice"].mean())
    holed = per_case.drop(per_case.index[per_case["patient"].eq("c") & per_case["subset"].eq(1)])
    assert np.isfinite(cells.cell_table(statistics.case_means(holed), "dice")[0]).all()


def test_gains_are_corrected_with_holm_inits_and_controls_apart():
    runs = grid(1, 1) | grid(1, 1, init="simmim", shift=0.02, chance=1) | grid(1, 1, init="mae", chance=2)
    runs |= grid(1, 1, init="random__budget=4", chance=3)
    found = statistics.gains(table(runs)).set_index("init")
    main = found.loc[["mae", "simmim"]]
    assert main["p_holm"].tolist() == intervals.holm(main["p"]).tolist()
    assert found.loc["random__budget=4", "p_holm"] == found.loc["random__budget=4", "p"]


def test_win_rate_counts_cases_within_runs_and_effect_size_patients():
    runs = {
        ("random", 6, 0, 0): {"a": [0.5, 0.5, 0.5, 0.5]},
        ("simmim", 6, 0, 0): {"a": [0.6, 0.5, 0.4, 0.7]},
        ("random", 6, 0, 1): {"a": [0.5, 0.5, 0.5, 0.5]},
        ("simmim", 6, 0, 1): {"a": [0.6, 0.6, 0.6, 0.6]},
    }
    (row,) = statistics.gains(table(runs)).to_dict("records")
    assert row["win_rate"] == pytest.approx((2.5 / 4 + 1) / 2)
    gains = np.array([0.1, 0.05, 0.0, 0.15])
    assert row["effect_size"] == pytest.approx(gains.mean() / gains.std(ddof=1))
    assert (row["subsets"], row["seeds"]) == (1, 2)
    same = table({("random", 6, 0, 0): {"a": [0.5, 0.6]}, ("simmim", 6, 0, 0): {"a": [0.6, 0.7]}})
    assert np.isnan(statistics.gains(same)["effect_size"][0])


def test_structures_have_intervals_of_their_own():
    per_case = table({("random", 6, 0, 0): {"spleen": [0.2, 0.4, 0.6], "aorta": [0.9, 0.9, np.nan]}})
    rows = statistics.structures(per_case).set_index("class")
    assert list(rows.index) == ["spleen", "aorta"] and rows["dice"].tolist() == pytest.approx([0.4, 0.9])
    assert rows["cases"].tolist() == [3, 2]
    assert rows.loc["spleen", "low"] < 0.4 < rows.loc["spleen", "high"] and rows.loc["aorta", "low"] == 0.9


def test_labels_needed_by_hand():
    counts, curve = np.array([6, 12, 24]), np.array([0.5, 0.6, 0.8])
    assert savings.labels_needed(0.6, counts, curve) == pytest.approx(12)
    assert savings.labels_needed(0.7, counts, curve) == pytest.approx(np.sqrt(12 * 24))  # half way on log labels
    assert savings.labels_needed(0.81, counts, curve) == np.inf and savings.labels_needed(0.4, counts, curve) == 0
    assert savings.labels_needed(0.5, counts, curve) == 6
    fallen = np.array([0.5, 0.7, 0.6])  # monotone: .5, .65, .65
    assert savings.labels_needed(0.6499, counts, fallen) == pytest.approx(12, abs=0.01)
    assert savings.labels_needed(0.66, counts, fallen) == np.inf
    assert [savings.needs_text(n, 6, 24) for n in (np.inf, 0.0, 13.6, np.nan)] == [">24", "<6", "14", "-"]


def test_labels_saved_are_those_the_baseline_would_need():
    rng = np.random.default_rng(0)
    hard = rng.normal(0, 0.1, 30)
    runs = {
        (init, n, subset, 0): {"a": list(dice + hard + rng.normal(0, 0.005, 30))}
        for subset in range(2)
        for init, n, dice in [("random", 6, 0.5), ("random", 12, 0.6), ("random", 24, 0.7), ("simmim", 6, 0.65)]
    }
    (row,) = savings.labels_saved(table(runs), repeats=200).to_dict("records")
    assert (row["init"], row["num_labeled"], row["fewest"], row["most"]) == ("simmim", 6, 6, 24)
    assert 15.5 < row["low"] <= row["needs"] <= row["high"] < 18.5  # patients are shared: their spread cancels
    short = {k: v for k, v in runs.items() if k[1] == 6}
    assert savings.labels_saved(table(short)).empty
    alone = {k: {"a": v["a"][:1]} for k, v in runs.items()}
    assert np.isnan(savings.labels_saved(table(alone))["low"][0])
    scores = table(runs)
    others = scores.assign(case=scores["case"].where(scores["init"] == "random", scores["case"] + "x"))
    assert np.isnan(savings.labels_saved(others)["low"][0])  # as many patients, but not the same
