"""The whole course at smoke scale, headless, the way `make course SCALE=smoke` runs it: no chapter is ever left out."""

import itertools
import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import nbformat
import pandas as pd
import pytest

from course.chapters import FINETUNING, PARTS, chapters_of, tasks_of
from ssl_utils.experiments import runs
from ssl_utils.pretext import TASKS

ONCE = tuple(chapter for chapter in chapters_of(PARTS) if chapter != FINETUNING)
CHAPTERS = {name: f"chapters/{name}" for name in ONCE} | {"04_unetr_finetuning": "finetune/*/n*/subset0_seed0"}
FINETUNINGS = 1 + len(TASKS)  # random and every task
NUMBER = len(ONCE) + FINETUNINGS + 2  # and the tables of parts II and III
pytestmark = pytest.mark.course


def check_executed(notebook: Path) -> None:
    """Every cell ran, without an error or a warning, and a picture is shown."""
    cells = [cell for cell in nbformat.read(notebook, as_version=4).cells if cell.cell_type == "code"]
    assert all(cell.execution_count for cell in cells if cell.source.strip()), notebook
    outputs = [output for cell in cells for output in cell.outputs]
    assert not [o for o in outputs if o.output_type == "error"], notebook
    noise = [o.text for o in outputs if o.output_type == "stream" and o.name == "stderr"]
    assert not noise, f"{notebook}: {noise[0][:300]}"
    assert any("image/png" in o.get("data", {}) for o in outputs), f"{notebook} shows no picture"


@pytest.mark.timeout(1500)
def test_every_chapter_runs_and_the_results_are_printed(phantom_course):
    run, out = phantom_course.run, phantom_course.out
    notebooks = {chapter: sorted(run.glob(f"{where}/notebook.ipynb")) for chapter, where in CHAPTERS.items()}
    counts = {chapter: len(found) for chapter, found in notebooks.items()}
    assert counts == dict.fromkeys(ONCE, 1) | {"04_unetr_finetuning": FINETUNINGS}
    for path in itertools.chain(*notebooks.values()):
        check_executed(path)
    assert (run / "results.md").read_text(encoding="utf-8").strip() in out
    assert len(re.findall(rf"^\[ ?\d+/{NUMBER}\] (?:\d\d_|table of part [23])", out, re.MULTILINE)) == NUMBER
    assert re.search(rf"{NUMBER} parts in \d+:\d\d on \d+ cores; peak memory [\d.]+ GB", out)
    names = ("results", "results_part2", "results_part3")
    first, *later = ((run / f"{name}.md").read_text(encoding="utf-8") for name in names)
    for part, table in zip((2, 3), later, strict=True):
        assert all(f"| {task} " in table for task in tasks_of([1, part]))
    assert {*tasks_of([1, 2]), *tasks_of([3])} == {*TASKS}
    assert [task for task in TASKS if f"| {task} " in first] == tasks_of([1]), (
        "part I speaks of nothing that comes later"
    )
    assert len(list((run / "figures").glob("*.png"))) >= 12


def test_every_run_keeps_its_contract(phantom_course):
    run = phantom_course.run
    finished = [run / "pretrain" / task / "metrics.json" for task in TASKS]
    for init in ("random", *TASKS):  # those of chapter 15 have names of their own, and no notebook
        finished += sorted(run.glob(f"finetune/{init}/n*/subset*/metrics.json"))
    assert len(finished) == len(TASKS) + FINETUNINGS
    for metrics in finished:
        names = {path.name for path in metrics.parent.iterdir()}
        weights = {"encoder.safetensors"} if "pretrain" in metrics.parts else {"model.safetensors", "per_case.csv"}
        weights |= {"inside.csv"} if "pretrain" in metrics.parts else set()
        weights |= {"config.json", "history.csv"} | (set() if "pretrain" in metrics.parts else {"notebook.ipynb"})
        assert weights <= names and "last.ckpt" not in names
        config = json.loads(metrics.with_name("config.json").read_text())
        assert {"settings", "commit", "versions"} <= config.keys() and config["settings"]["seed"] == 0
    table = pd.concat([pd.read_csv(path) for path in run.glob("finetune/*/n*/subset*/per_case.csv")])
    assert {"case", "patient", "class", "dice", "nsd", "hd95", "reference_empty"} <= set(table.columns)
    assert "background" not in set(table["class"]) and table["class"].nunique() == 13
    absent = table["reference_empty"] & table["prediction_empty"]  # organs that some phantoms lack: not counted
    assert table.loc[~absent, "dice"].between(0, 1).all() and table.loc[absent, "dice"].isna().all()


@pytest.mark.timeout(1500)
def test_what_is_done_is_not_done_again_and_a_second_label_count_joins_it(blobs_course, blobs, tmp_path):
    """Of part I: fine-tunings with 3 labels, and chapter 05, which has lost what it wrote and shows both counts."""
    course = replace(blobs_course, root=tmp_path / "with spaces")
    shutil.copytree(blobs_course.root, course.root)
    run = course.root / "runs" / "folder_my_blobs" / "smoke"
    lost, kept = run / "chapters" / "05_results" / "done.json", run / "pretrain" / "simmim" / "metrics.json"
    stamp = kept.stat().st_mtime_ns
    lost.unlink()
    done = course.again("--dataset", "folder", "--data", str(blobs), "--labels", "3,5")
    new = {"random", *tasks_of([1])}
    assert done.returncode == 0 and f"[ {len(new) + 1}/{len(new) + 1}] 05_results" in done.stdout, done.stdout
    assert lost.exists() and kept.stat().st_mtime_ns == stamp
    made = sorted(run.glob("finetune/*/n3/subset0_seed0/notebook.ipynb"))
    assert {path.parts[-4] for path in made} == new
    for notebook in (*made, lost.with_name("notebook.ipynb")):
        check_executed(notebook)
    assert (run / "results.md").read_text(encoding="utf-8").strip() in done.stdout
    table = pd.read_csv(run / "results.csv")
    assert {*zip(table["init"], table["num_labeled"], strict=True)} == {(init, n) for init in new for n in (3, 5)}


@pytest.mark.timeout(1500)
def test_a_persons_own_folder_runs_without_writing_code(blobs_course):
    run = blobs_course.run
    assert {path.name for path in run.glob("finetune/random/*")} == {"n5"}, "label counts are capped at what is there"
    assert "simmim" in (run / "results.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("chapter", "first"), [("04_unetr_finetuning", "01_data_inspection"), ("05_results", "04_unetr_finetuning")]
)
def test_a_chapter_that_comes_too_early_says_which_one_to_run(tmp_path, blobs, chapter, first):
    words = {"scale": "smoke", "dataset": "folder", "data": str(blobs)}
    command = [
        sys.executable,
        "-m",
        "course",
        "run-chapter",
        str(runs.PROJECT / "notebooks" / f"{chapter}.ipynb"),
        str(tmp_path / "out.ipynb"),
        "--parameters",
        json.dumps(words),
    ]
    environment = {**os.environ, "SSL_RUNS_ROOT": str(tmp_path / "runs")}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 1 and f"run notebooks/{first}.ipynb first" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr
