"""The graph through a real Slurm of one node: the same numbers as without, failures, limits, a controller that dies."""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pandas as pd
import psutil
import pytest
import yaml

from course import graph, plan, slurm, status
from course.chapters import tasks_of
from course.graph import PROJECT, Cluster
from ssl_utils.errors import CourseError
from ssl_utils.pretext import TASKS
from tests.slurm.hundred import Sweep, events
from tests.slurm.one_node import OneNode, obstacle, said, wait_for
from tests.test_workflow import Course, save

pytestmark = pytest.mark.slurm

OF_PART_1 = tasks_of([1])
INITS = ("random", *OF_PART_1)
PRETRAINING = {TASKS[task].chapter for task in OF_PART_1}
PARTS = 3 + len(OF_PART_1) + len(INITS)  # chapters that train nothing, pretrainings, a fine-tuning from each start
JOBS = 3 + len(PRETRAINING) + len(INITS)
PROFILE = PROJECT / "profiles" / "slurm"
ONCE = "import os, pathlib, time\ntried = pathlib.Path({marker!r})\nfirst = not tried.exists()\ntried.touch()\n"


@pytest.fixture(scope="module")
def node(request):
    if reason := obstacle():
        if reporter := request.config.pluginmanager.get_plugin("terminalreporter"):
            reporter.write_line(f"\ntests/slurm is skipped: {reason}")
        pytest.skip(reason)
    folder = Path(tempfile.mkdtemp(prefix="slurm-"))
    node = OneNode(folder)
    try:
        node.start()
        yield node
    finally:
        node.stop()
        shutil.rmtree(folder, ignore_errors=True)


def quick(folder: Path, **of_finetuning) -> Path:
    """The project's profile, with one core a part and looks at the queue as fast as the plugin allows."""
    content = yaml.safe_load((PROFILE / "config.yaml").read_text())
    content["set-threads"] = dict.fromkeys(content["set-threads"], 1)
    content["set-resources"]["unetr_finetuning"] |= of_finetuning
    content |= {"seconds-between-status-checks": 2, "slurm-init-seconds-before-status-checks": 1, "latency-wait": 5}
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(content))
    return folder


def state(run: Path, name: str) -> status.Row:
    found = (row for row in status.rows(run) if row.run == name)
    return next(found, status.Row(name, "pending"))  # before the graph has written what it will do


@contextmanager
def no_driver_left():
    """A test that fails must not wait for a graph that hangs, nor leave it to the tests that follow."""
    try:
        yield
    finally:
        for process in psutil.Process().children():
            if "course.slurm_driver" in process.cmdline():
                process.kill()


@pytest.mark.timeout(900)
def test_failures_limits_and_a_dead_controller_are_survived(node, tmp_path, monkeypatch, capfd):
    course = Course(tmp_path)
    course.config["num_labeled"] = [6]
    monkeypatch.setenv("SSL_RUNS_ROOT", str(course.run.parents[1]))
    _fails_once(course.notebooks / "02_augmentation_pretraining.ipynb", tmp_path / "failed", "1 / (not first)")
    slow = "time.sleep(200 if first and init == 'random' else 0)"
    marker = str(tmp_path / "late") + "' + init + '"
    _fails_once(course.notebooks / "04_unetr_finetuning.ipynb", marker, slow)
    for chapter in ("00_start_here", "01_data_inspection"):  # an earlier course has done these
        done = course.run / "chapters" / chapter / "done.json"
        done.parent.mkdir(parents=True)
        done.write_text("{}")
    where = Cluster(jobs=6, partition="lesson", profile=quick(tmp_path / "profile", runtime=1))
    late = "finetune/random/n6/subset0_seed0"
    with ThreadPoolExecutor(1) as pool, no_driver_left():
        running = pool.submit(graph.run_graph, course.run, course.config, cores=2, cluster=where)
        wait_for(lambda: running.done() or state(course.run, late).state == "running", "it did not start", seconds=300)
        assert state(course.run, late).job in said("squeue", "--me", "-h", "-o", "%A").split()
        with pytest.raises(CourseError, match=r"still in the queue; .* scancel \d+"):
            slurm.refuse_if_queued(course.run)
        node.kill_controller()
        time.sleep(15)  # Slurm's commands wait 9 s for it: looks at the queue fail, and with luck a submission waits
        node.start_controller()
        wait_for(lambda: running.done() or state(course.run, late).state == "timed out", "no time-out", seconds=120)
        told = state(course.run, late)
        report = running.result(400)
    assert (told.state, "it took more than 0.5 minutes" in told.reason) == ("timed out", True)
    log = (course.run / ".course" / "snakemake.log").read_text()
    assert report["code"] == 0, log[-4000:]
    parts = plan.parts(course.config)
    assert len(parts) == PARTS and all((course.run / part.writes).exists() for part in parts)
    assert {row.state for row in status.rows(course.run)} == {"done"}
    tries = pd.Series([e["label"] for e in events(course.run) if e["event"] == "started"]).value_counts()
    assert (
        tries["02_augmentation_pretraining"] == 2 and tries["04_unetr_finetuning init=random n=6 subset=0 seed=0"] == 2
    )
    # two came before, and two were tried again
    assert len(log.split("has been submitted with SLURM jobid")) - 1 == sum(tries) == JOBS
    failed = [e for e in events(course.run) if e["event"] == "failed"]
    assert [e["timed_out"] for e in failed] == [False, True] and "ZeroDivisionError" in failed[0]["message"]
    assert capfd.readouterr().err.count(" failed: ") == 2


def _fails_once(notebook: Path, marker, cell: str) -> None:
    sources = ["".join(c["source"]) for c in json.loads(notebook.read_text())["cells"] if c["cell_type"] == "code"]
    once = ONCE.format(marker="@").replace("'@'", f"'{marker}'")
    save(notebook, sources[0], once + cell, *sources[1:])


@pytest.mark.timeout(900)
def test_a_course_through_slurm_gives_the_numbers_of_a_local_one(node, tmp_path, blobs, blobs_course):
    environment = {**os.environ, "SSL_RUNS_ROOT": str(tmp_path), "SSL_DATA_ROOT": str(tmp_path / "data")}
    words = ["--scale", "smoke", "--dataset", "folder", "--data", str(blobs), "--executor", "slurm", "--jobs", "4"]
    words += ["--partition", "lesson", "--profile", str(quick(tmp_path / "profile"))]
    command = [sys.executable, "-m", "course", "run", *words]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=800)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    out, found = done.stdout, {"local": blobs_course.run, "slurm": tmp_path / "folder_my_blobs" / "smoke"}
    assert f"{JOBS} parts in" in out and "through Slurm, 4 at a time" in out
    assert "Plan: folder, scale smoke" in out and f"{len(OF_PART_1)} pretrainings, {len(INITS)} fine-tunings" in out
    for init in INITS:
        one, two = (pd.read_csv(run / f"finetune/{init}/n5/subset0_seed0/per_case.csv") for run in found.values())
        pd.testing.assert_frame_equal(one, two, check_exact=True)
    tables = [(run / "results.md").read_text().splitlines() for run in found.values()]
    dice = [[line for line in table if re.match(r"\| \w+ +\| .*[\[%]", line)] for table in tables]  # the other times
    assert dice[0] == dice[1] and len(dice[0]) >= 2 * len(INITS) - 1
    rows = status.rows(found["slurm"])
    assert {row.state for row in rows} == {"done"}
    assert sum("__" not in row.run for row in rows) == PARTS  # chapter 03 makes one more, with options
    assert all(row.job.isdigit() for row in rows if not row.run.startswith("chapters"))
    assert not said("squeue", "--me", "-h")
    assert not (found["slurm"] / "costs.json").exists(), "its times are not those of one machine"


DRIVER = """import json, sys; from pathlib import Path; from course import workflow
from course.graph import Cluster
with workflow.one_line_errors(code=2), workflow.locked(Path(sys.argv[1])) as lock:
    where = Cluster(4, "lesson", Path(sys.argv[3]))
    workflow.run_graph(Path(sys.argv[1]), json.loads(sys.argv[2]), cores=2, cluster=where, lock=lock)"""


@pytest.mark.timeout(300)
def test_stopping_takes_the_jobs_along_and_after_a_kill_a_new_start_is_refused(node, tmp_path):
    course = Course(tmp_path)
    save(course.notebooks / "00_start_here.ipynb", "scale = dataset = ''\nseed = 0", "import time\ntime.sleep(250)")
    arguments = [str(course.run), json.dumps(course.config), str(quick(tmp_path / "profile"))]
    environment = {**os.environ, "SSL_RUNS_ROOT": str(course.run.parents[1])}

    def start() -> subprocess.Popen:
        command = [sys.executable, "-c", DRIVER, *arguments]
        return subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)

    driver = start()
    wait_for(lambda: slurm.queued(course.run), "no job", seconds=100)
    driver.terminate()
    told = driver.communicate(timeout=60)[1]
    assert (driver.returncode, told.startswith("stopped; what is complete is kept")) == (130, True), told
    wait_for(lambda: not slurm.queued(course.run), "the job runs on", seconds=20)

    driver = start()
    wait_for(lambda: slurm.queued(course.run), "no job", seconds=100)
    (job,) = slurm.queued(course.run)
    driver.kill()
    driver.communicate(timeout=60)
    again = start()
    told = again.communicate(timeout=60)[1]
    assert again.returncode == 2 and told.endswith(f"or end them first: scancel {job}\n"), told
    assert slurm.queued(course.run) == [job], "it runs on"
    subprocess.run(["scancel", job], check=True)


@pytest.mark.timeout(400)
def test_a_sweep_is_collected_after_two_of_its_runs_had_failed(node, tmp_path):
    """A hundred runs, a time-out and a new controller besides: python -m tests.slurm.hundred."""
    sweep = Sweep(tmp_path, seeds=3, real=False)
    sweep.write(hangs=False)
    sweep.check(sweep.start(jobs=4, seconds=380), timed_out=0)
