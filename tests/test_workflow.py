"""The graph of chapters, on toy chapters that write the files of the contract in no time."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path

import psutil
import pytest
from typer.testing import CliRunner

from course import execution, graph, studies, workflow
from course.__main__ import app
from course.chapters import chapters_of, tasks_of
from course.progress import Progress, clock
from course.request import Request
from ssl_utils.errors import CourseError
from ssl_utils.experiments import scales
from ssl_utils.files import write_json
from ssl_utils.pretext import TASKS

pytestmark = pytest.mark.course

TRAINED = {chapter: [task for task, e in TASKS.items() if e.chapter == chapter] for _, chapter in TASKS.values()}
PART_ONE = tasks_of([1])
OF_PART_ONE = {TASKS[task].chapter: None for task in PART_ONE}  # chapters that pretrain
PRETRAININGS, FINETUNINGS = len(OF_PART_ONE), 3 * (1 + len(PART_ONE))  # three label counts, random and every task
PARTS = PRETRAININGS + FINETUNINGS + 3
CHAPTERS = chapters_of((1, 2, 3))
NONE, EACH = (dict.fromkeys((chapter[:2] for chapter in OF_PART_ONE), parts) for parts in (0, 1))  # of the pretrainings
OWN = {"04_unetr_finetuning": "init = 'random'\nnum_labeled = 6\nsubset = 0\n"}
WRITE = """import json, os, pathlib, time
folder = pathlib.Path(os.environ['SSL_RUNS_ROOT']) / dataset / scale / {folder}
folder.mkdir(parents=True, exist_ok=True)
(folder / '{name}').write_text(json.dumps({{'threads': os.environ['OMP_NUM_THREADS'], 'seed': seed}}))"""


def save(path: Path, *sources: str) -> Path:
    cells = [
        {
            "cell_type": "code",
            "id": f"c{i}",
            "execution_count": None,
            "outputs": [],
            "source": source,
            "metadata": {"tags": ["parameters"]} if i == 0 else {},
        }
        for i, source in enumerate(sources)
    ]
    cells.insert(0, {"cell_type": "markdown", "id": "title", "metadata": {}, "source": f"# {path.stem}"})
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"cells": cells, "metadata": kernel, "nbformat": 4, "nbformat_minor": 5}))
    return path


def save_toys(folder: Path) -> None:
    for chapter in CHAPTERS:
        wheres, name = [repr(f"pretrain/{task}") for task in TRAINED.get(chapter, ())], "metrics.json"
        if chapter.startswith("04"):
            wheres = ["f'finetune/{init}/n{num_labeled}/subset{subset}_seed{seed}'"]
        if not wheres:
            wheres, name = [repr(f"chapters/{chapter}")], "done.json"
        parameters = "scale = 'laptop'\ndataset = 'phantom'\nseed = 0\n" + OWN.get(chapter, "")
        save(folder / f"{chapter}.ipynb", parameters, *(WRITE.format(folder=where, name=name) for where in wheres))


class Course:
    """Toy chapters and a run folder, both in places with a space in their names."""

    def __init__(self, root: Path) -> None:
        self.notebooks = root / "my chapters"
        self.run = root / "my runs" / "phantom" / "smoke"
        save_toys(self.notebooks)
        self.config = {
            "scale": "smoke",
            "dataset": "phantom",
            "data": None,
            "notebooks": str(self.notebooks),
            "num_labeled": [6, 12, 24],
            "settings": asdict(scales.get("smoke")),
        }
        (self.run / ".course").mkdir(parents=True)

    def start(self, **changes) -> dict:
        return workflow.run_graph(self.run, self.config | changes, cores=2)

    def would_run(self, study: dict | None = None, **settings) -> dict[str, int]:
        """Parts per chapter that would run after these settings changed; of a study, by its plan."""
        path, more = self.run / ".course" / "other.json", {"study": study} if study else {}
        path.write_text(json.dumps(self.config | {"settings": self.config["settings"] | settings} | more))
        command = graph.graph_command(self.run, path, cores=2, target="study" if study else None)
        found = subprocess.run([*command, "--dry-run"], capture_output=True, text=True)
        assert found.returncode == 0, found.stderr
        return graph.planned(found.stdout + found.stderr, self.notebooks)


@pytest.fixture(scope="module")
def course(tmp_path_factory):
    course = Course(tmp_path_factory.mktemp("course"))
    before = os.environ.get("SSL_RUNS_ROOT")
    os.environ["SSL_RUNS_ROOT"] = str(course.run.parents[1])
    yield course
    os.environ.pop("SSL_RUNS_ROOT")
    if before is not None:
        os.environ["SSL_RUNS_ROOT"] = before


def test_all_parts_run_once_and_in_order(course, capfd):
    report = course.start()
    lines = capfd.readouterr().out.splitlines()
    assert (report["code"], report["parts"]) == (0, PARTS), "\n".join(lines)
    done = [line.split("] ")[1].split()[0] for line in lines]
    assert [c[:2] for c in (*done[:2], done[-1])] == ["00", "01", "05"], done
    assert all(line.startswith(f"[{i:2}/{PARTS}]") for i, line in enumerate(lines, 1)), lines
    assert sum("init=simmim n=12 subset=0 seed=0" in line for line in lines) == 1
    assert "left" in lines[3]
    assert "left" not in lines[-1]
    made = sorted((course.run / "finetune").glob("*/n*/subset0_seed0/metrics.json"))
    assert len(made) == FINETUNINGS
    assert json.loads(made[0].read_text()) == {"threads": "1", "seed": 0}
    executed = made[0].with_name("notebook.ipynb").read_text()
    assert '"init' in executed
    assert len(list(course.run.rglob("notebook.ipynb"))) == PARTS


def test_a_course_of_an_earlier_layout_is_one_line_before_anything_starts(tmp_path):
    old = tmp_path / "phantom" / "smoke" / ".course" / "config.json"
    old.parent.mkdir(parents=True)
    old.write_text("{}")
    environment = os.environ | {"SSL_RUNS_ROOT": str(tmp_path), "SSL_DATA_ROOT": str(tmp_path / "data")}
    command = [sys.executable, "-m", "course", "run", "--scale", "smoke"]
    found = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert (found.returncode, found.stdout, found.stderr.count("\n")) == (2, "", 1), found.stderr
    assert "was made by an earlier version of the course; move it away" in found.stderr
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [old]


def test_no_more_chapters_run_at_once_than_there_are_cores(course):
    """Snakemake 9.10 to 9.18 forgot to count a job that was the only one ready, and ran four on two cores."""
    running = most = 0
    events = [json.loads(line) for line in (course.run / ".course" / "events.jsonl").read_text().splitlines()]
    for event in events:
        running += 1 if event["event"] == "started" else -1
        most = max(most, running)
    assert most == 2
    started = [event["chapter"][:2] for event in events if event["event"] == "started"]
    # the last pretraining and the first fine-tuning are started together, on a core each, and either may say so first
    assert sorted(started[2 : 3 + PRETRAININGS]) == sorted([*EACH, "04"]), "pretraining first: the rest waits for it"
    order = [(event["event"] == "started", event["chapter"][:2]) for event in events]
    last = max(order.index((True, chapter)) for chapter in EACH)
    assert (False, "04") not in order[:last], "a fine-tuning was done before the last pretraining began"


def test_nothing_runs_twice(course):
    assert course.would_run() == {}


def test_a_missing_part_runs_alone_with_what_follows_from_it(course):
    missing = course.run / "finetune/random/n6/subset0_seed0/metrics.json"
    content = missing.read_text()
    missing.unlink()
    assert course.would_run() == {"04_unetr_finetuning": 1, "05_results": 1}
    missing.write_text(content)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"finetune_steps": 7}, {"01": 0, **NONE, "04": FINETUNINGS, "05": 1}),
        ({"pretrain_steps": 7}, {"01": 0, **EACH, "04": 3 * len(PART_ONE), "05": 1}),
        ({"subsets": 2}, {"01": 0, **NONE, "04": FINETUNINGS, "05": 1}),
    ],
)
def test_a_changed_number_reruns_what_depends_on_it(course, settings, expected):
    plan = course.would_run(**settings)
    assert {key: sum(n for c, n in plan.items() if c.startswith(key)) for key in expected} == expected


def test_more_subsets_and_seeds_are_added_to_what_is_there(course):
    again = FINETUNINGS * (2 * 2 - 1)
    assert course.would_run(subsets=2, seeds=2) == {"04_unetr_finetuning": again, "05_results": 1}


def test_editing_text_reruns_nothing_and_editing_code_reruns_the_chapter(course):
    path = course.notebooks / "04_unetr_finetuning.ipynb"
    before = path.read_text()
    path.write_text(before.replace("# 04_unetr_finetuning", "# Another title"))
    assert course.would_run() == {}
    path.write_text(before.replace("import json, os", "import os, json"))
    assert course.would_run() == {"04_unetr_finetuning": FINETUNINGS, "05_results": 1}
    path.write_text(before)


def test_a_study_is_planned_whole_where_a_first_chapter_changed(course):
    """Its output is read as `ancient`, so Snakemake would plan that chapter, and nothing of the study."""
    numbers = {"scale": scales.get("smoke"), "dataset": "phantom", "data": None, "num_labeled": [6]}
    path, plan = course.notebooks / "01_data_inspection.ipynb", studies.plan("restoration", **numbers)
    before = path.read_text()
    path.write_text(before.replace("import json, os", "import os, json"))
    planned = course.would_run(study=plan)
    path.write_text(before)
    assert planned["01_data_inspection"] == 1 and (planned["pretrain"], planned["finetune"]) == (2, 2), planned


def test_a_failing_chapter_is_one_line_and_leaves_its_notebook(tmp_path, monkeypatch, capfd):
    course = Course(tmp_path)
    monkeypatch.setenv("SSL_RUNS_ROOT", str(course.run.parents[1]))
    save(course.notebooks / "00_start_here.ipynb", "scale = dataset = ''\nseed = 0", "x = 1\n1 / (x - 1)")
    report = course.start()
    said = capfd.readouterr()
    assert report["code"] == 1
    assert said.out == ""
    assert said.err.count("\n") == 1
    assert said.err.startswith("00_start_here failed: cell [3]: ZeroDivisionError: division by zero (in the cell")
    executed = Path(said.err.strip().split("executed notebook: ")[1])
    assert "ZeroDivisionError" in executed.read_text()


def test_a_chapter_must_train_its_task(tmp_path, monkeypatch, capfd):
    course = Course(tmp_path)
    monkeypatch.setenv("SSL_RUNS_ROOT", str(course.run.parents[1]))
    parameters = "scale = 'laptop'\ndataset = 'phantom'\nseed = 0"
    chapter, tasks = next(iter(TRAINED.items()))
    other = WRITE.format(folder="'pretrain/another'", name="metrics.json")
    save(course.notebooks / f"{chapter}.ipynb", parameters, other)
    assert course.start()["code"] == 1
    said = capfd.readouterr().err
    assert f"{chapter} failed: it ended without writing metrics.json" in said
    assert f"pretrain/{tasks[0]}/metrics.json" in (course.run / ".course" / "snakemake.log").read_text()


def test_a_fault_of_the_graph_itself_is_shown(tmp_path, capfd):
    course = Course(tmp_path)
    (course.notebooks / "03_simmim_masking.ipynb").unlink()
    assert course.start()["code"] == 1
    assert "03_simmim_masking.ipynb" in capfd.readouterr().err


# one chapter ------------------------------------------------------------------------------------------------


def run_chapter(tmp_path, *sources, **options):
    notebook = save(tmp_path / "07_toy.ipynb", "seed = 0", *sources)
    arguments = [str(notebook), str(tmp_path / "out.ipynb"), *(f"--{k}={v}" for k, v in options.items())]
    command = [sys.executable, "-m", "course", "run-chapter", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})


def own_lines(stderr: str) -> list[str]:
    """The package's own words: the messaging library of a kernel that ends may add a line about itself."""
    return [line for line in stderr.splitlines() if not line.startswith("Assertion failed: pfd")]


def test_exit_in_a_cell_is_no_success(tmp_path):
    found = run_chapter(tmp_path, "import sys\nsys.exit(0)", "late = 1")
    assert found.returncode == 1
    assert "it stopped before its end; the first cell that did not run begins with `late = 1`" in found.stderr


def test_a_course_error_is_told_as_it_is_also_when_the_chapter_hides_its_traceback(tmp_path):
    plain = "from course import chapter\nchapter._plain_errors()"
    fail = "from ssl_utils.errors import CourseError\nraise CourseError('a.nii: is empty; replace it')"
    found = run_chapter(tmp_path, plain, fail)
    assert found.returncode == 1
    said = own_lines(found.stderr)
    assert len(said) == 1, found.stderr
    assert said[0].startswith("error: 07_toy failed: cell [3]: a.nii: is empty; replace it; executed notebook: ")


def test_a_kernel_talks_through_files_for_which_no_other_kernel_can_compete(tmp_path, monkeypatch):
    look = "from ipykernel import get_connection_info\nassert get_connection_info(unpack=True)['transport'] == "
    assert run_chapter(tmp_path, look + "'ipc'").returncode == 0
    far = tmp_path / ("far_" * 20)
    far.mkdir()
    monkeypatch.setenv("TMPDIR", str(far))  # where the name of a socket would be too long
    assert run_chapter(tmp_path, look + "'tcp'").returncode == 0
    assert not list(far.iterdir()), "the folder goes with the kernel"


def test_the_collector_waits_for_the_imports_of_a_chapter_and_no_longer(tmp_path):
    start = "chapter.start('07_toy', scale='smoke', dataset='phantom', data=None, seed=seed)"
    same = "\nimport gc\nassert gc.get_threshold() == chapter.COLLECTOR and bool(gc.get_freeze_count()) == {}"
    waits = "import gc\nassert gc.get_threshold()[0] > 10_000\nfrom course import chapter\n" + start
    again = "gc.unfreeze()\n" + start  # as a person who opens a notebook, where nothing waits
    found = run_chapter(tmp_path, waits + same.format(True), again + same.format(False))
    assert found.returncode == 0, found.stderr


def test_a_chapter_that_writes_nothing_is_not_done(tmp_path):
    found = run_chapter(tmp_path, "pass", writes=tmp_path / "done.json")
    assert (found.returncode, "ended without writing done.json" in found.stderr) == (1, True)


def test_a_chapter_of_several_tasks_must_have_trained_each(tmp_path):
    """Snakemake would say so minutes later, in its log alone, and the course that the chapter is finished."""
    writes = [tmp_path / task / "metrics.json" for task in ("one", "two")]
    writes[0].parent.mkdir()
    writes[0].write_text("{}")
    with pytest.raises(CourseError, match=r"ended without writing metrics.json, .* not done \(.*/two\)"):
        execution.run_command("pretrain x", tmp_path / "log", ["platform"], writes=writes)
    course = Course(tmp_path / "course")
    write_json(course.run / "c.json", course.config | {"parts": [1, 2, 3]})
    command = graph.graph_command(course.run, course.run / "c.json", cores=2)
    found = subprocess.run([*command, "--dry-run", "--printshellcmds"], capture_output=True, text=True)
    assert found.returncode == 0, found.stderr
    said = found.stdout + found.stderr
    for task in TASKS:
        assert len(re.findall(rf"course run-chapter .* --writes pretrain/{task}/metrics\.json", said)) == 1, task


def test_a_misspelt_parameter_is_refused_before_any_work(tmp_path):
    found = run_chapter(tmp_path, "1", parameters='{"sead": 1}')
    assert found.returncode == 1
    assert "no parameter sead in 07_toy.ipynb; it has seed" in found.stderr
    assert not (tmp_path / "out.ipynb").exists()


def test_what_is_no_error_of_the_course_is_one_line_and_an_event_too(tmp_path):
    events, notebook = tmp_path / "events", save(tmp_path / "07_toy.ipynb", "%matplotlib inline\nseed = 0")
    with pytest.raises(CourseError, match=r"^07_toy failed: SyntaxError: invalid syntax \(<unknown>, line 1\)$"):
        execution.run_chapter(notebook, tmp_path / "out.ipynb", {"seed": 0}, events=events)
    (tmp_path / "log").mkdir()
    with pytest.raises(CourseError, match=r"^pretrain x failed: IsADirectoryError: .*; log: "):
        execution.run_command("pretrain x", tmp_path / "log", ["platform"], events=events)
    said = [json.loads(line) for line in events.read_text().splitlines()]
    assert [(event["event"], event.get("timed_out")) for event in said] == [("started", None), ("failed", False)] * 2


def test_a_chapter_has_a_time_limit_and_leaves_no_kernel(tmp_path):
    found = run_chapter(
        tmp_path,
        f"import os, time\nopen({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid()))\ntime.sleep(90)",
        minutes=0.3,
    )
    assert (found.returncode, "it took more than 0.3 minutes" in found.stderr) == (1, True)
    assert not psutil.pid_exists(int((tmp_path / "pid").read_text()))


def test_widget_state_is_taken_out(tmp_path):
    path = save(tmp_path / "a.ipynb", "1")
    content = json.loads(path.read_text())
    content["metadata"]["widgets"] = {"state": {}}
    path.write_text(json.dumps(content))
    execution._strip_widgets(path)
    assert "widgets" not in json.loads(path.read_text())["metadata"]


# the whole command ------------------------------------------------------------------------------------------


def test_stopping_the_course_ends_the_kernel_and_counts_nothing(tmp_path):
    course = Course(tmp_path)
    pid = tmp_path / "pid"
    slow = f"import os, time\nopen({str(pid)!r}, 'w').write(str(os.getpid()))\ntime.sleep(100)"
    save(course.notebooks / "00_start_here.ipynb", "scale = dataset = ''\nseed = 0", slow)
    program = (
        "import json, sys; from pathlib import Path; from course import workflow\n"
        "with workflow.one_line_errors(code=2), workflow.locked(Path(sys.argv[1])) as lock:\n"
        "    workflow.run_graph(Path(sys.argv[1]), json.loads(sys.argv[2]), cores=2, lock=lock)"
    )
    command = [sys.executable, "-c", program, str(course.run), json.dumps(course.config)]
    with (
        pytest.raises(CourseError, match="already runs here"),
        workflow.locked(course.run),
        workflow.locked(course.run),
    ):
        pass
    for number in (signal.SIGTERM, signal.SIGKILL):
        pid.unlink(missing_ok=True)
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        wait_for(lambda: pid.exists() and pid.read_text())
        kernel, below = int(pid.read_text()), psutil.Process(process.pid).children()
        second = subprocess.run(command, capture_output=True, text=True)
        assert second.stderr.startswith(f"error: {course.run}: a course already runs here (process {process.pid})")
        process.send_signal(number)
        said = process.communicate(timeout=30)[1]
        wait_for(lambda kernel=kernel: not psutil.pid_exists(kernel))
        _, left = psutil.wait_procs(below, timeout=5)
        assert len(below) == 2 and not left, "Snakemake, which would go on with the other parts, and the warm process"
        assert not (course.run / "chapters/00_start_here/done.json").exists()
        if number == signal.SIGTERM:
            assert said.startswith("stopped; what is complete is kept")
            assert process.returncode == 130


def wait_for(condition, seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.1)


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--dataset", "phantm"], "error: dataset='phantm': no such dataset; choose one of phantom,"),
        (["--scale", "tiny"], "error: scale='tiny': no such scale; choose one of smoke,"),
        (["--dataset", "folder"], "error: dataset='folder': needs the path of your own folder"),
        (["--labels", "6,x"], "error: labels='6,x': must be whole numbers of volumes"),
        (["--labels", "0,6"], "error: labels='0,6': must be whole numbers of volumes"),
        (["--partition", "gpu"], "error: --partition: with slurm only; add --executor slurm"),
        (["--jobs", "4", "--profile", "mine"], "error: --jobs, --profile: with slurm only; add --executor slurm"),
    ],
)
def test_an_unknown_name_is_one_line_before_anything_starts(tmp_path, monkeypatch, arguments, line):
    monkeypatch.setenv("SSL_RUNS_ROOT", str(tmp_path))
    found = CliRunner().invoke(app, ["run", *arguments])
    assert (found.exit_code, found.stdout, found.stderr.count("\n")) == (2, "", 1)
    assert found.stderr.startswith(line)
    assert not list(tmp_path.iterdir())


def test_data_that_cannot_be_had_start_nothing(capsys):
    with pytest.raises(SystemExit) as stop:
        workflow.prepare("folder", "smoke", "/nowhere")
    assert stop.value.code == 2


def test_more_labels_than_there_are_volumes_are_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("SSL_RUNS_ROOT", str(tmp_path))
    monkeypatch.setenv("SSL_DATA_ROOT", str(tmp_path / "data"))
    write_json(tmp_path / "phantom" / "smoke" / "data.json", {"num_labeled": [6], "cases": {"training": 24}})
    monkeypatch.setattr(workflow, "prepare", lambda *_: None)
    with pytest.raises(CourseError, match="labels=6,25: only 24 labelled training volumes; choose fewer"):
        workflow.bring_up(Request(scale="smoke", labels="6,25"))


@pytest.mark.parametrize(
    ("words", "code", "line"),
    [
        (["run-chapter", "a.ipynb", "b.ipynb", "--parameters", "{"], 1, "parameters='{': is not JSON such as {"),
        (["run-chapter", "a.ipynb", "b.ipynb", "--parameters", "[1]"], 1, "parameters='[1]': is not JSON such as {"),
        (["run-command", " ", "log.txt", '["platform"]'], 1, "name=' ': must have a word; give the step, such as"),
        (["run-command", "a", "log.txt", "[1]"], 1, "words='[1]': is not JSON such as ["),
        (["run-command", "a", "log.txt", "[]"], 1, "words='[]': is not JSON such as ["),
        (["run-command", "a", "log.txt", '["platform"]', "--minutes", "nan"], 2, "'--minutes'"),
        (["run-command", "a", "log.txt", '["platform"]', "--minutes=-1"], 2, "'--minutes'"),
    ],
)
def test_the_commands_of_the_graph_refuse_what_they_cannot_read(tmp_path, monkeypatch, words, code, line):
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, words)
    assert (result.exit_code, line in result.stderr) == (code, True), result.stderr
    assert not list(tmp_path.iterdir())


def test_the_estimate_follows_the_speed_of_this_machine():
    progress = Progress({"00_a": 10, "02_b": 100, "05_c": 10}, slots=2, left={"00_a": 1, "02_b": 4, "05_c": 1})
    assert progress.remaining() == pytest.approx(10 + 200 + 10)
    line = progress.take({"event": "finished", "chapter": "00_a", "label": "00_a", "seconds": 20.0})
    assert progress.remaining() == pytest.approx(2 * (200 + 10))
    assert line.startswith("[ 1/6] 00_a")
    assert line.endswith("elapsed 0:00, about 7:00 left")
    assert clock(3725) == "1:02:05"
