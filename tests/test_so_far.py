"""The table of what a course has measured grows by a row with every pretraining."""

import json

import pandas as pd
import pytest

from course.records import so_far
from ssl_utils.errors import CourseError
from ssl_utils.figures import inside_panel


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


def inside_table(*rows):
    columns = ("linear", "knn", "rankme", "rank_most", "reason", "psnr", "psnr_mean", "psnr_interpolation", "step")
    filled = {name: [1.0] * len(rows) for name in (*inside_panel.COLUMNS, *columns)}
    filled |= {"alarm": [False] * len(rows), "reason": [""] * len(rows)}
    return pd.DataFrame(filled | {name: [row[i] for row in rows] for i, name in enumerate(columns[:4])})


def test_what_the_probes_of_all_tasks_say(tmp_path):
    for name, more in (("simmim", {}), ("mae__seconds=60", {"step_seconds": 0.25, "steps": 20})):
        add(tmp_path, name, 0.7, 0.3, 0.6)
        folder = tmp_path / "pretrain" / name
        done = json.loads((folder / "metrics.json").read_text()) | more
        spent = {"data": 1.0, "forward": 4.0, "backward": 5.0, "validation": 100.0, "looking": 7.0}
        (folder / "metrics.json").write_text(json.dumps(done | {"spent": spent, "peak_memory_gb": 0.8}))
        inside_table((0.2, 0.1, 50, 100), (0.4, 0.3, 25, 100)).to_csv(folder / "inside.csv", index=False)
    table = so_far.probed(tmp_path, ["simmim", "mae__seconds=60", "genesis"])
    assert list(table.index) == ["random", "simmim", "mae__seconds=60"], "genesis is not there yet"
    assert table["seconds a step"].tolist()[1:] == [0.5, 0.25], "without validation; the one that was timed"
    assert table.loc["random", ["linear", "knn", "rank share"]].tolist() == [0.2, 0.1, 0.5]
    assert table.loc["simmim", ["linear", "knn", "rank share", "memory"]].tolist() == [0.4, 0.3, 0.25, 0.8]
    assert so_far.probed(tmp_path, ["genesis"]).empty
