"""The page on speed says what the record says, and nothing else."""

import pytest

from course.records import speed
from ssl_utils.files import read_json, write_json

ROW = {
    "ours": 0.5,
    "theirs": 2.0,
    "ratio": 4.0,
    "unit": "seconds a step",
    "equality": "the same",
    "repeats": 3,
    "device": "cpu, 2 threads",
    "commit": "0123456789",
    "date": "2026-01-02",
}
ROWS = [
    ROW | {"name": "pretraining_step_simmim", "tflop_a_crop": 0.1},
    ROW
    | {
        "name": "crops_per_second",
        "ours": 100.0,
        "theirs": 0.5,
        "unit": "crops a second",
        "prepare_seconds": 36.0,
        "cache_mb": 10.0,
    },
]


def test_the_tables_hold_the_record():
    told = speed.benchmarks(ROWS)
    assert "| pretraining_step_simmim | 0.5  | 2      | seconds a step | 4.0 x | the same" in told
    assert told.endswith("Measured on: cpu, 2 threads, 2026-01-02, commit 0123456789.")


def test_shares_of_the_matrix_rate_are_named():
    told = speed.benchmarks([*ROWS, ROW | {"name": "step", "share_of_matrix_rate": 0.784}])
    assert told.endswith("our steps reach: `step` 78 %.")


def test_many_volumes_by_hand():
    told = speed.scaling(ROWS, cores=10, tflops=200.0)
    # 1000 volumes: 36 s each on 10 cores; 10 MB each; 2000 crops a second, 100 of each
    assert "| 1,000 volumes   | 1 h                   | 0.01 TB    | 0.014 h" in told and "| 100 h" in told
    assert "use 2,000 crops a second: 3.5 GB/s read at random, and 20 cores at 100 crops a second each" in told


def test_the_page_is_filled_between_its_markers(tmp_path):
    page, record = tmp_path / "speed.md", tmp_path / "rows.json"
    page.write_text("a\n<!-- benchmarks -->old<!-- /benchmarks -->\nb\n<!-- scaling -->\n<!-- /scaling -->\nc\n")
    write_json(record, ROWS)
    speed.fill(page, record)
    first = page.read_text()
    assert "old" not in first and first.startswith("a\n") and first.endswith("c\n") and "4.0 x" in first
    speed.fill(page, record)
    assert page.read_text() == first


def test_the_page_of_this_project_is_up_to_date(tmp_path):
    page = tmp_path / "speed.md"
    page.write_text(speed.PAGE.read_text(encoding="utf-8"), encoding="utf-8")
    speed.fill(page)
    assert page.read_text(encoding="utf-8") == speed.PAGE.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "name",
    [
        "pretraining_step_restoration",
        "pretraining_step_simmim",
        "mae_step_1728",
        "crops_per_second",
        "finetuning_step",
        "sliding_window",
    ],
)
def test_the_record_holds_what_the_page_promises(name):
    rows = [row for row in read_json(speed.REFERENCE) if row["name"] == name]
    assert rows and all(row["ours"] > 0 and row["theirs"] > 0 and row["equality"] for row in rows)
