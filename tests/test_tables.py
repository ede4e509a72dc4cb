"""Tables a person reads: label efficiency, gains, the block of docs/results.md, which must be what the record says."""

import json
from pathlib import Path

import pandas as pd
import pytest

from course.records import record
from ssl_utils import statistics
from ssl_utils.errors import CourseError
from ssl_utils.experiments import runs
from ssl_utils.files import read_json, write_json
from ssl_utils.statistics import savings, tables

PROJECT = Path(__file__).resolve().parents[1]
MARKED = "before\n<!-- results -->\nstale words\n<!-- /results -->\nafter\n"


def write_course(folder: Path, dice: dict[tuple[str, int], dict[str, list[float]]]) -> Path:
    """Finished runs with {(init, num_labeled): {structure: Dice of case 0, 1, ...}}; two volumes for every patient."""
    for (init, labels), classes in dice.items():
        run = folder / "finetune" / init / f"n{labels}" / "subset0_seed0"
        keys = {"init": init, "num_labeled": labels, "subset": 0, "seed": 0}
        rows = [
            {"case": f"case_{i}", "patient": f"{i // 2:03}", "class": name, "dice": value}
            for name, values in classes.items()
            for i, value in enumerate(values)
        ]
        settings = {"settings": {**keys, "data": f"hash{labels}"}, "commit": "abc", "versions": {"torch": "2"}}
        write_json(run / "config.json", settings)
        runs.write_table(run / "per_case.csv", pd.DataFrame(rows))
        done = {"dice": 0.5, "seconds": 10.0, "test_seconds": 2.0, "device": "cpu", "finished": "2026-01-02T03:04:05"}
        write_json(run / "metrics.json", {**keys, **done})
    made = {"seconds": 5.0, "volumes": 3, "baselines": {"mean": 1.0}, "first": {}, "last": {}, "task": "simmim"}
    write_json(folder / "pretrain" / "simmim" / "metrics.json", made)
    return folder


@pytest.fixture
def course(tmp_path) -> Path:
    return write_course(
        tmp_path / "phantom" / "laptop",
        {
            ("simmim", 6): {"liver": [0.5, 0.6, 0.7, 0.8], "spleen": [0.5, 0.6, 0.7, 0.8]},
            ("simmim", 12): {"liver": [0.9] * 4, "spleen": [0.9] * 4},
            ("random", 6): {"liver": [0.4, 0.5, 0.6, 0.7], "spleen": [0.4, 0.5, 0.6, 0.7]},
            ("mae", 6): {"liver": [0.8] * 4, "spleen": [0.0] * 4},
        },
    )


def test_label_efficiency_has_random_first_and_gaps_where_no_run_is(course):
    table = tables.label_efficiency(statistics.summary(runs.collect(course)))
    assert list(table.index) == ["random", "mae", "simmim"] and list(table.columns) == ["6 labels", "12 labels"]
    assert table.loc["simmim", "12 labels"] == "90.0 [90.0, 90.0]" and table.loc["random", "12 labels"] == ""
    assert table.loc["random", "6 labels"] == "55.0 [45.0, 65.0]"  # patients: (.4, .5) and (.6, .7)


def test_one_case_has_no_interval(tmp_path):
    write_course(tmp_path / "a" / "smoke", {("random", 6): {"liver": [0.5]}})
    per_case = runs.collect(tmp_path / "a" / "smoke")
    assert tables.label_efficiency(statistics.summary(per_case)).loc["random", "6 labels"] == "50.0"


def test_structures_stand_with_every_number_of_labels(course):
    table = tables.per_structure(runs.collect(course))
    assert table.index.name == "6 / 12 labels" and list(table.index) == ["liver", "spleen"]
    assert table.loc["spleen"].to_dict() == {"random": "55.0 / -", "mae": "0.0 / -", "simmim": "65.0 / 90.0"}


def test_markdown_is_one_row_a_line():
    table = pd.DataFrame({"6 labels": ["75.3", ""]}, index=pd.Index(["random", "a"], name="init"))
    assert tables.markdown(table).splitlines() == [
        "| init   | 6 labels |",
        "| ------ | -------- |",
        "| random | 75.3     |",
        "| a      |          |",
    ]


def test_results_say_what_was_measured_and_what_was_not(course):
    path = tables.write_results(course, runs.collect(course))
    text = path.read_text()
    assert path == course / "results.md" and text.startswith("# Results: phantom, scale laptop, 4 test cases")
    assert "| simmim | 6      | +10.0 | [+10.0, +10.0] | +18.2 %  |" in text
    assert (
        text.index("| random |") < text.index("## Per structure") < text.index("## Gain") < text.index("Limitations: ")
    )
    assert "Collapsed runs, which are part of the means: mae with 6 labels (1)" in text and "4 test cases" in text
    assert "40.0 [40.0, 40.0], 1 of 1 collapsed" in text
    assert "| mae  | 6      | 0      | 0    | 40.0 | lost spleen |" in text
    assert "## Controls" not in text and "| simmim | 6      | 65.0 | 10            | 5             | 15       |" in text
    assert len(pd.read_csv(course / "results_structures.csv")) == 8
    assert pd.read_csv(course / "results.csv")["dice"].tolist() == pytest.approx([0.4, 0.55, 0.65, 0.9])
    assert not list(course.glob(".tmp-*"))


def test_results_without_random_have_no_gain(tmp_path):
    folder = write_course(tmp_path / "a" / "smoke", {("simmim", 6): {"liver": [0.5, 0.7]}})
    text = tables.write_results(folder, runs.collect(folder)).read_text()
    assert "## Gain" not in text and "nothing else" in text


@pytest.mark.parametrize("control", ["random__budget=4", "simmim__budget=4", "simmim__permuted=True"])
def test_controls_have_tables_of_their_own(course, control):
    write_course(course, {(control, 6): {"liver": [0.6] * 4, "spleen": [0.6] * 4}})
    text = tables.write_results(course, runs.collect(course)).read_text()
    main, controls = text.split("## Controls", 1)
    assert control not in main and control in controls.split("## Per structure")[0]
    assert control in text.split("## Gain of the controls over random")[1].split("## ")[0]
    assert control not in text.split("## Per structure")[1].split("## Gain of the controls")[0]


def test_labels_saved_are_read_from_the_random_curve(tmp_path):
    curve = {("random", 6): [0.4, 0.5], ("random", 24): [0.6, 0.7], ("simmim", 6): [0.5, 0.6], ("mae", 6): [0.8, 0.9]}
    folder = write_course(
        tmp_path / "a" / "laptop", {key: {"liver": [low, low, high, high]} for key, (low, high) in curve.items()}
    )
    table = tables.saved_table(savings.labels_saved(runs.collect(folder)))
    assert table.loc["mae"].tolist() == [6, "85.0", ">24", "[>24, >24]"]
    assert table.loc["simmim"].tolist() == [6, "55.0", "12", "[12, 12]"]  # half way from 45 to 65, on log labels
    assert tables.markdown(table) in tables.write_results(folder, runs.collect(folder)).read_text()
    record.record(folder, into=tmp_path / "reference.json")
    saved = read_json(tmp_path / "reference.json")["labels_saved"]
    assert [(s["init"], s["needs"], s["dice"]) for s in saved] == [("mae", ">24", 85.0), ("simmim", 12, 55)]


def test_seconds_hold_the_pretraining_that_the_init_starts_from(course):
    made = {"seconds": 7.0, "volumes": 3, "baselines": {"mean": 1.0}, "first": {}, "last": {}, "task": "simmim"}
    write_json(course / "pretrain" / "simmim__mask_ratio=0.3" / "metrics.json", made)
    one = {"liver": [0.5] * 4, "spleen": [0.5] * 4}
    write_course(course, {("simmim__permuted=True", 6): one, ("random__budget=4", 6): one})
    spent = runs.spent(course).set_index(["init", "num_labeled"])["seconds"]
    assert spent["random", 6] == spent["random__budget=4", 6] == 10
    assert spent["simmim", 6] == spent["simmim__permuted=True", 6] == 15
    assert pd.isna(spent["mae", 6])  # its pretraining is not here
    assert runs.pretraining_of(course, "simmim__mask_ratio=0.3__freeze_epochs=-1") == "simmim__mask_ratio=0.3"
    assert runs.pretraining_of(course, "simmim__freeze_epochs=-1") == "simmim"
    assert runs.pretraining_of(course, "random") is None
    assert runs.pretraining_of(course, "simmim__mask_ratio=0.5__lr=0.1") is None  # not that of simmim
    assert runs.pretraining_of(course, "simmim__mask_ratio=0.3__finetune_scope=encoder") == "simmim__mask_ratio=0.3"
    write_json(course / "pretrain" / "from_a_hub" / "metrics.json", made)
    assert runs.pretraining_of(course, "from_a_hub__scope=encoder") == "from_a_hub"


def test_inits_with_options_may_differ_by_their_options(course):
    def settle(init, **settings):
        config = course / "finetune" / init / "n6" / "subset0_seed0" / "config.json"
        content = read_json(config)
        content["settings"] |= settings
        write_json(config, content)

    write_course(course, {("random__budget=4", 6): {"liver": [0.6] * 4, "spleen": [0.6] * 4}})
    settle("random__budget=4", steps=800, budget=4)
    assert runs.unlike(course) == []
    settle("simmim", steps=800)  # its run at 12 labels has no such setting
    assert runs.unlike(course) == ["steps of simmim: null in 1, 800 in 1"]
    settle("simmim", steps=None)
    for init, option in (("random__crop=2", {"crop": 2}), ("random__synthetic=s", {"synthetic": "s"})):
        write_course(course, {(init, 6): {"liver": [0.6] * 4, "spleen": [0.6] * 4}})
        settle(init, data="other", img_size=[32] * 3, **option)
    assert runs.unlike(course) == []  # other crops and more volumes are on purpose
    settle("random", img_size=[32] * 3)
    assert [line.split(":")[0] for line in runs.unlike(course)] == ["img_size"]


def test_what_the_intervals_include_depends_on_the_runs():
    row = {"init": "random", "num_labeled": 6, "dice": 0.5, "low": 0.4, "high": 0.6, "cases": 30, "collapsed": 0}
    texts = {
        runs: tables.limits(pd.DataFrame([row | dict(zip(("subsets", "seeds"), runs, strict=True))]), "laptop")
        for runs in ((1, 1), (1, 3), (2, 1), (3, 3))
    }
    assert "the variation between test patients alone (label subsets: 1, seeds: 1)" in texts[1, 1]
    assert "test patients and training seeds, not of label subsets (label subsets: 1, seeds: 3)" in texts[1, 3]
    assert "test patients, label subsets and training seeds (label subsets: 3, seeds: 3)" in texts[3, 3]
    assert "Another seed" in texts[1, 1] and "Another seed" not in texts[3, 3]
    assert "Two runs hardly" in texts[2, 1] and "Two runs" not in texts[1, 3] + texts[3, 3]
    assert all("validation labels, which choose the training step, come on top" in text for text in texts.values())


def test_the_variation_between_pretrainings_is_named_where_something_was_pretrained():
    numbers = {"num_labeled": 6, "dice": 0.5, "low": 0.4, "high": 0.6, "cases": 30, "subsets": 3, "seeds": 3}
    rows = [{"init": init, "collapsed": 0, **numbers} for init in ("random", "random__budget=4", "simmim")]
    pretraining = "Each pretraining was run once: no interval includes the variation between pretrainings."
    assert pretraining in tables.limits(pd.DataFrame(rows), "laptop")
    assert pretraining not in tables.limits(pd.DataFrame(rows[:2]), "laptop")


def test_a_single_run_has_no_p_and_no_effect_size():
    gain = {"baseline": "random", "num_labeled": 6, "gain": 0.1, "low": 0.0, "high": 0.2, "relative": 0.2, "p": 0.04}
    gain |= {"p_holm": 0.08, "win_rate": 0.7, "effect_size": 1.5, "cases": 20}
    rows = pd.DataFrame(
        [gain | {"init": "mae", "subsets": 1, "seeds": 1}, gain | {"init": "simmim", "subsets": 3, "seeds": 1}]
    )
    tested = ["p", "p, Holm", "effect size"]
    table = tables.gain_table(rows)
    assert table.loc["mae", tested].tolist() == ["-", "-", "-"] and table.loc["mae", "cases won"] == "70 %"
    assert table.loc["simmim", tested].tolist() == ["0.040", "0.080", "+1.50"]
    assert not {*tested} & {*tables.gain_table(rows[:1])} and tables.gain_table(rows[:1])["cases won"].item() == "70 %"


def test_an_older_record_without_the_newer_columns_is_read(course, tmp_path):
    record.record(course, into=tmp_path / "reference.json")
    results = read_json(tmp_path / "reference.json")
    for key in ("p_holm", "win_rate", "effect_size", "subsets", "seeds"):
        results["gains"] = [{k: v for k, v in gain.items() if k != key} for gain in results["gains"]]
    del results["labels_saved"]
    text = record.fill(MARKED, results=results)
    assert "Holm" not in text and "not corrected" in text and "| simmim | 6      | +10.0 | [+10.0, +10.0] |" in text


def test_a_record_replaces_the_one_of_the_same_course(course, tmp_path):
    into = tmp_path / "reference.json"
    record.record(course, into=into)
    other = write_course(tmp_path / "hippocampus" / "laptop", {("random", 6): {"a": [0.5]}})
    record.record(other, into=into)
    once = into.read_text()
    record.record(course, into=into)
    assert into.read_text() == once and "NaN" not in once
    content = json.loads(once)
    assert [run["dataset"] for run in content["runs"]] == ["hippocampus", "phantom"]
    cell = next(c for c in content["label_efficiency"] if (c["init"], c["num_labeled"]) == ("simmim", 6))
    assert cell == {
        "dataset": "phantom",
        "scale": "laptop",
        "init": "simmim",
        "num_labeled": 6,
        "dice": 65.0,
        "low": 55.0,
        "high": 75.0,
        "cases": 4,
        "subsets": 1,
        "seeds": 1,
        "runs": 1,
        "collapsed": 0,
        "device": "cpu",
        "commit": "abc",
        "seconds": 12.0,
    }
    gain = next(g for g in content["gains"] if g["init"] == "simmim")
    assert (gain["baseline"], gain["num_labeled"], gain["gain"], gain["low"]) == ("random", 6, 10.0, 10.0)
    assert {"date", "data", "versions", "commit", "pretraining"} <= content["runs"][1].keys()


def test_runs_that_were_not_made_alike_are_named_and_not_recorded(course, tmp_path):
    assert runs.unlike(course) == []
    config = course / "finetune" / "simmim" / "n6" / "subset0_seed0" / "config.json"
    content = read_json(config)
    content["settings"] |= {"lr": 0.004, "data": "other"}
    write_json(config, content)
    assert runs.unlike(course) == ["data at n=6, subset=0: hash6 in 2, other in 1", "lr: null in 3, 0.004 in 1"]
    assert "cannot be compared" in tables.write_results(course, runs.collect(course)).read_text()
    with pytest.raises(CourseError, match="not made alike"):
        record.record(course, into=tmp_path / "reference.json")


def test_an_unfinished_course_is_not_recorded(tmp_path):
    with pytest.raises(CourseError, match="no finished fine-tuning"):
        record.record(tmp_path / "a" / "laptop", into=tmp_path / "reference.json")
    assert not (tmp_path / "reference.json").exists()


def test_the_block_is_made_from_the_record(course, tmp_path):
    record.record(course, into=tmp_path / "reference.json")
    text = record.fill(MARKED, results=read_json(tmp_path / "reference.json"))
    assert text.startswith("before\n") and text.endswith("after\n") and "stale words" not in text
    assert tables.markdown(tables.label_efficiency(statistics.summary(runs.collect(course)))) in text
    gains = tables.gain_table(statistics.gains(runs.collect(course)))  # one run each
    assert tables.markdown(gains) in text and not {"p", "p, Holm", "effect size"} & {*gains} and "| p " not in text
    assert record.fill(text, results=read_json(tmp_path / "reference.json")) == text
    for empty in ({}, {"runs": [], "label_efficiency": [], "gains": []}):
        assert record.fill(text, results=empty) == MARKED.replace("stale words", "\nNo recorded run yet.\n")


def test_a_table_of_repeated_runs_has_p_and_cases_are_counted_beside_patients(course, tmp_path):
    record.record(course, into=tmp_path / "reference.json")
    results = read_json(tmp_path / "reference.json")
    (run,) = results["runs"]
    assert run["patients"] < run["cases"]
    assert f"({run['cases']} test cases of {run['patients']} patients, " in record.fill(MARKED, results=results)
    for gain in results["gains"]:
        gain |= {"subsets": 3, "seeds": 3}
    text = record.fill(MARKED, results=results)
    gains = tables.gain_table(statistics.gains(runs.collect(course)).assign(subsets=3, seeds=3))
    assert tables.markdown(gains) in text and {"p", "p, Holm", "effect size"} < {*gains} and "| p " in text
    assert record.tested({"cases": 20, "patients": 20}) == record.tested({"cases": 20}) == "20 test cases"


def test_a_page_without_markers_is_one_line():
    with pytest.raises(CourseError, match="<!-- results -->"):
        record.fill("no table here", results={})


def test_the_page_of_results_says_what_the_record_says():
    text = (PROJECT / "docs" / "results.md").read_text(encoding="utf-8")
    assert text == record.fill(text), "run: python -m course.records readme"
