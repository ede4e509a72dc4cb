"""The table of what a course has measured grows by a row with every pretraining."""

import json

import pytest

from course.records import so_far
from ssl_utils.errors import CourseError


def add(course, name, first, last, interpolate):
    folder = course / "pretrain" / name
    folder.mkdir(parents=True)
    done = {
        "seconds": 12.5,
        "first": {"validation_loss": first},
        "last": {"validation_loss": last, "step": 20},
        "baselines": {"mean": 0.9, "interpolation": interpolate, "input": 1.2} if interpolate else {"uniform": 3.87},
    }
    (folder / "metrics.json").write_text(json.dumps(done))


def test_a_row_for_every_finished_pretraining(tmp_path):
    add(tmp_path, "restoration", 0.8, 0.6, 0.5)
    (tmp_path / "pretrain" / "mae").mkdir()  # interrupted: no metrics.json
    before = so_far.pretraining(tmp_path)
    assert list(before.index) == ["restoration"]
    add(tmp_path, "simmim", 0.7, 0.3, 0.6)
    table = so_far.pretraining(tmp_path)
    assert list(table.index) == ["restoration", "simmim"]
    assert table.loc["simmim", ["first loss", "loss", "interpolation", "mean"]].tolist() == [0.7, 0.3, 0.6, 0.9]
    assert table["of interpolation"].round(3).tolist() == [1.2, 0.5]
    assert table["steps"].tolist() == [20, 20] and table["steps"].dtype.kind == "i"


def test_a_task_that_reconstructs_nothing_has_a_loss_and_no_ratio(tmp_path):
    add(tmp_path, "patch_clusters", 3.9, 2.1, None)
    row = so_far.pretraining(tmp_path).loc["patch_clusters"]
    assert row["loss"] == 2.1 and row[["interpolation", "mean", "of interpolation"]].isna().all()


def test_before_any_pretraining_it_says_what_to_run(tmp_path):
    with pytest.raises(CourseError, match="run chapter 02 or 03 first"):
        so_far.pretraining(tmp_path)
