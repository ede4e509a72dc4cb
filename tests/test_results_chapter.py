"""Chapters 05 and 16: the plain code equals the package, and the numbers in their prose are those of the records."""

import json
from pathlib import Path

import numpy as np
import pytest

from ssl_utils.statistics import intervals

PROJECT = Path(__file__).resolve().parents[1]


def cells(chapter: str) -> dict[str, str]:
    content = json.loads((PROJECT / "notebooks" / f"{chapter}.ipynb").read_text(encoding="utf-8"))
    return {cell["id"]: "".join(cell["source"]) for cell in content["cells"]}


def record(name: str) -> dict:
    return json.loads((PROJECT / "json_files" / f"{name}.json").read_text(encoding="utf-8"))


def gain(dataset: str, init: str, labels: int = 6) -> tuple[float, float, float]:
    rows = record("reference_results")["gains"]
    (row,) = [r for r in rows if (r["dataset"], r["init"], r["num_labeled"]) == (dataset, init, labels)]
    return row["gain"], row["low"], row["high"]


def control(dataset: str, name: str) -> tuple[float, float, float]:
    studies = [s for s in record("reference_studies")["studies"] if (s["name"], s["dataset"]) == ("controls", dataset)]
    (row,) = [point for point in studies[0]["points"] if point["name"] == name]
    return row["gain"], row["gain_low"], row["gain_high"]


@pytest.mark.parametrize("shape", [(2, 2), (3, 20), (9, 5)])
def test_the_plain_interval_is_the_packages(shape):
    shown = {"np": np}
    exec(cells("05_results")["variance"], shown)
    table = np.random.default_rng(sum(shape)).normal(80, 5, shape) + np.arange(shape[0])[:, None]
    assert shown["variance_of_mean"](table) == pytest.approx([float(part) for part in intervals.spreads(table)])
    assert shown["interval"](table, seed=3) == pytest.approx(intervals.hierarchical_interval(table, seed=3)[:2])


@pytest.mark.parametrize(
    ("cell", "numbers"),
    [
        ("conclusion", gain("phantom_v1", "simmim")),
        ("repeated-read", gain("phantom_v1", "restoration")),
        ("controls-read", control("phantom_v1", "random__budget=4")),
        ("controls-read", control("sarcoma", "simmim__permuted=True")),
        ("controls-read", control("sarcoma", "simmim")),
        ("steps-read", control("sarcoma", "random__budget=4")),
        ("steps-read", gain("sarcoma", "simmim")),
        ("steps-read", gain("sarcoma", "restoration")),
    ],
)
def test_gains_in_the_prose_are_recorded(cell, numbers):
    text = cells("05_results")[cell].replace("−", "-").replace(" points [", " [")
    assert "{:+.1f} [{:+.1f}, {:+.1f}]".format(*numbers) in text


def test_single_runs_contradict_each_other_with_small_p():
    rows = [row for row in record("reference_results")["gains"] if row["dataset"] == "phantom_v1"]
    rows = [row for row in rows if row["init"] in ("restoration", "simmim") and row["subsets"] * row["seeds"] == 1]
    assert len(rows) == 5 and max(row["p"] for row in rows) <= 0.0001
    assert {(row["init"], row["num_labeled"]) for row in rows if row["gain"] < 0} == {("simmim", 24)}


def test_the_tuned_baseline_is_four_to_six_points_better():
    trials = [t for t in record("recipe_trials")["trials"] if t["dataset"] == "phantom_v1" and "random" in t["start"]]
    means = {(t["start"], t["learning_rate"]): np.mean(t["dice"]) for t in trials if t["num_labeled"] == 6}
    for start, before, after in (("random", ".597", ".633"), ("random, again", ".578", ".638")):
        usual, tuned = means[start, "4e-3"], means[start, "4e-3, encoder x 0.1"]
        assert 3.5 < 100 * (tuned - usual) < 6.5
        assert usual == pytest.approx(float(before), abs=6e-4) and tuned == pytest.approx(float(after), abs=6e-4)
        assert f"from {before} to {after}" in cells("05_results")["rates-read"]


def test_chapter_05_knows_nothing_beyond_part_one():
    text = "\n".join(cells("05_results").values()).lower()
    assert not [word for word in ("mae", "cluster", "part ii", "part 2") if f" {word}" in text]


def test_the_share_of_background_in_a_reported_value():
    shares = [f"{100 * (0.99 - v) / 13:.1f} points" for v in (0.63, 0.80)]
    assert shares == ["2.8 points", "1.5 points"]
    assert all(share in cells("16_dice_conventions")["measure-read"] for share in shares)
