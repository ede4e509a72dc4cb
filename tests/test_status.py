"""What `status` tells is read from files: every state, from a run folder as the graph, a chapter and Slurm leave it."""

import json
import os
import platform
import subprocess
import sys
from dataclasses import asdict

import pytest

from course import __main__ as cli, execution, plan, progress, slurm, status
from course.chapters import tasks_of
from ssl_utils.errors import CourseError
from ssl_utils.experiments import runs, scales
from ssl_utils.files import read_json, write_json

# chapters that train nothing, pretrainings, three label counts an init
PLANNED = 3 + len(tasks_of([1])) + 3 * (1 + len(tasks_of([1])))
HERE = {"host": platform.node(), "process": os.getpid(), "job": None}
AWAY = {"host": "node17", "process": 1, "job": "41"}
HISTORY = "step,epoch,train_loss,validation_loss,seconds\n10,0,0.9,0.8,1.5\n20,1,0.7,0.6,3.0\n"
RULE = """
[Sat Nov 21 15:45:22 2026]
rule unetr_finetuning:
    input: chapters/01_data_inspection/done.json
    output: finetune/random/n{n}/subset0_seed0/metrics.json
    log: finetune/random/n{n}/subset0_seed0/notebook.ipynb
    jobid: {n}
    resources: mem_mb=4000, runtime=15, gpu=1
Job {n} has been submitted with SLURM jobid {job} (log: somewhere/{job}.log).
"""


@pytest.fixture
def course(tmp_path, monkeypatch):
    monkeypatch.setenv("SSL_RUNS_ROOT", str(tmp_path))
    root = tmp_path / "phantom" / "smoke"
    settings = asdict(scales.get("smoke"))
    write_json(root / ".course" / "config.json", {"settings": settings, "num_labeled": [6, 12, 24]})
    return root


def begin(root, run, *, by, history=False):
    write_json(root / run / "config.json", {"settings": {"steps": 40}, "device": "cuda", "by": by})
    if history:
        (root / run / "history.csv").write_text(HISTORY)


def tell(root, *told):
    with open(root / ".course" / "events.jsonl", "a") as stream:
        stream.writelines(json.dumps(event) + "\n" for event in told)


def event(kind, label, **more):
    return {"event": kind, "chapter": label.split()[0], "label": label, **more}


def states(root):
    return {row.run: row for row in status.rows(root)}


def tuned(init, n):
    return f"finetune/{init}/n{n}/subset0_seed0", f"04_unetr_finetuning init={init} n={n} subset=0 seed=0"


def test_before_anything_ran_every_planned_run_is_pending(course):
    rows = status.rows(course)
    assert [row.state for row in rows] == ["pending"] * PLANNED
    assert [row.run for row in rows][1:3] == ["chapters/01_data_inspection", "pretrain/restoration"]
    assert status.summary(row.state for row in rows) == f"{PLANNED} pending"


def test_a_chapter_with_a_dice_for_each_region_is_done_without_a_number(course):
    write_json(course / "chapters" / "05_results" / "done.json", {"dice": {"ET": 0.4, "WT": 0.8}, "seconds": 3.0})
    row = states(course)["chapters/05_results"]
    assert (row.state, row.result, row.seconds) == ("done", "", "3")


def test_running_says_how_far_on_what_and_in_which_job(course):
    run, label = tuned("random", 6)
    tell(course, event("started", label, **AWAY))
    begin(course, run, by=AWAY)
    assert states(course)[run] == status.Row(run, "running", "0/40", device="cuda", job="41")
    (course / run / "history.csv").write_text(HISTORY)
    row = states(course)[run]
    assert (row.step, row.result, row.seconds) == ("20/40, epoch 1", "train loss 0.7000", "3")
    write_json(course / run / "budget.json", {"steps": 25, "step_seconds": 0.1})  # of seconds, not of steps
    assert states(course)[run].step == "20/25, epoch 1"


def test_a_pretraining_runs_when_its_chapter_has_begun_it(course):
    for chapter in ("02_augmentation_pretraining", "03_simmim_masking"):
        tell(course, event("started", chapter, **HERE))
    begin(course, "pretrain/simmim", by=HERE)
    found = states(course)
    assert (found["pretrain/simmim"].state, found["pretrain/restoration"].state) == ("running", "pending")


def test_a_process_that_is_gone_left_a_broken_off_run(course):
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    run, label = tuned("random", 6)
    tell(course, event("started", label, **HERE | {"process": dead.pid}))
    begin(course, run, by=HERE | {"process": dead.pid}, history=True)
    assert states(course)[run].state == "interrupted"
    begin(course, "pretrain/simmim__mask_ratio=0.3", by=HERE)  # from the command line, not in the plan
    assert states(course)["pretrain/simmim__mask_ratio=0.3"].state == "running"


def test_failed_and_timed_out_say_why(course):
    (one, first), (two, second) = tuned("random", 6), tuned("restoration", 12)
    for label, late in ((first, False), (second, True)):
        tell(course, event("started", label, **AWAY), event("failed", label, message=f"why {late}", timed_out=late))
    found = states(course)
    assert (found[one].state, found[one].reason, found[one].job) == ("failed", "why False", "41")
    assert (found[two].state, found[two].reason) == ("timed out", "why True")


def test_a_damaged_line_of_the_events_is_skipped(course):
    whole = [json.dumps(event("started", label, **AWAY)) for label in ("one", "two")]
    text = f'{whole[0]}\n{{"event": "sta{whole[1]}\n[]\n{{"event": "failed"}}\n{whole[1]}\n{whole[0][:20]}'
    assert [found["label"] for found in progress.events(text)] == ["one", "two"]


def test_a_chapter_over_its_limit_tells_so(tmp_path):
    events = tmp_path / "events.jsonl"
    words = ["timeit", "-n", "1", "-r", "1", "import time; time.sleep(30)"]
    with pytest.raises(CourseError, match="took more than"):
        execution.run_command("pretrain slow", tmp_path / "log.txt", words, minutes=0.01, events=events)
    started, failed = (json.loads(line) for line in events.read_text().splitlines())
    assert started["process"] == os.getpid() and failed["timed_out"] is True


def test_slurm_tells_what_a_part_could_not(course):
    log = "".join(RULE.format(n=n, job=job) for n, job in ((6, 50), (12, 51), (24, 52)))
    for job, end in ((51, "TIMEOUT"), (52, "OUT_OF_MEMORY")):
        log += f"Error in rule unetr_finetuning:\n    message: SLURM-job '{job}' failed, SLURM status is: '{end}'.\n"
    (course / ".course" / "snakemake.log").write_text(log)
    assert slurm.jobs(log)["finetune/random/n12/subset0_seed0/metrics.json"] == ("51", "TIMEOUT")
    tell(course, event("started", tuned("random", 12)[1], **AWAY | {"job": "51"}))
    kept = course / ".snakemake" / "slurm_logs" / "rule_x" / "52.log"
    kept.parent.mkdir(parents=True)
    kept.write_text("killed")
    found = [states(course)[tuned("random", n)[0]] for n in (6, 12, 24)]
    assert [row.state for row in found] == ["queued", "timed out", "failed"]
    assert [row.job for row in found] == ["50", "51", "52"]
    assert found[2].reason == f"Slurm ended job 52: OUT_OF_MEMORY; log: {kept}"
    with open(course / ".course" / "snakemake.log", "a") as stream:  # and it is tried again
        stream.write("\n" + RULE.format(n=24, job=53))
    row = states(course)[tuned("random", 24)[0]]
    assert (row.state, row.job) == ("queued", "53")


def test_a_run_that_the_package_opens_and_finishes(course, monkeypatch, capsys):
    monkeypatch.setenv("SLURM_JOB_ID", "77")
    folder = course / tuned("simmim", 6)[0]
    runs.begin(folder, {"init": "simmim", "steps": 40}, device="cpu")
    assert read_json(folder / "config.json")["by"] == HERE | {"job": "77"}
    assert (states(course)[tuned("simmim", 6)[0]].state, states(course)[tuned("simmim", 6)[0]].job) == ("running", "77")
    runs.finish(folder, {"dice": 0.5, "seconds": 3.2, "device": "cpu"})
    monkeypatch.setattr(sys, "argv", ["ssl_utils", "status", "--dataset", "phantom", "--scale", "smoke"])
    with pytest.raises(SystemExit):
        cli.app()
    said = capsys.readouterr().out
    line = next(line for line in said.splitlines() if "finetune/simmim/n6/subset0_seed0" in line)
    assert [cell.strip() for cell in line.split("│")[2:-1]] == ["done", "", "Dice 0.500", "3", "cpu", "77"]
    assert f"{PLANNED - 1} pending, 1 done" in said


def test_slurm_is_asked_before_a_course_starts(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(CourseError, match="no squeue on this machine"):
        slurm.refuse_if_queued(tmp_path)
    fake = tmp_path / "squeue"
    fake.write_text(f"#!/bin/sh\necho '7 {tmp_path}'\necho '8 {tmp_path}/elsewhere'\necho '9 {tmp_path}'\n")
    fake.chmod(0o755)
    with pytest.raises(CourseError, match=r"jobs 7 9 of a course .* scancel 7 9$"):
        slurm.refuse_if_queued(tmp_path)
    slurm.refuse_if_queued(tmp_path / "free")
    fake.write_text("#!/bin/sh\necho 'slurm_load_jobs error: Unable to contact slurm controller' >&2\nexit 1\n")
    with pytest.raises(CourseError, match="Unable to contact slurm controller"):
        slurm.refuse_if_queued(tmp_path)


def test_the_plan_of_a_study_names_its_runs():
    name = "simmim__steps=9"
    study = {"pretrain": {name: []}, "finetune": {name: [name]}, "num_labeled": [6]}
    found = plan.parts({"study": study, "settings": {"subsets": 2, "seeds": 1}})
    assert [part.writes for part in found] == [
        "pretrain/simmim__steps=9/metrics.json",
        "finetune/simmim__steps=9/n6/subset0_seed0/metrics.json",
        "finetune/simmim__steps=9/n6/subset1_seed0/metrics.json",
    ]
    assert found[2].label == "finetune simmim__steps=9 n=6 subset=1 seed=0"
