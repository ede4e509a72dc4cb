"""The dry plan: the graph's own parts, and an estimate that follows from the recorded course."""

import subprocess
from dataclasses import asdict, replace

import pytest
import yaml
from typer.testing import CliRunner

from course import graph, plan, workflow
from course.__main__ import app
from course.chapters import FINETUNING, LAST, OWN, PARTS, chapters_of, part_of, tasks_of
from course.progress import REFERENCE
from ssl_utils.data import datasets
from ssl_utils.experiments import runs, scales
from ssl_utils.experiments.setups import Setup
from ssl_utils.files import read_json, write_json
from ssl_utils.pretext import TASKS
from tests.test_workflow import Course


def configured(name, **changes):
    scale = replace(scales.get(name), **changes)
    return {"scale": name, "dataset": "phantom", "settings": asdict(scale), "num_labeled": scale.num_labeled}


@pytest.mark.parametrize("chosen", [[1], [1, 2], list(PARTS)])
def test_the_parts_are_those_of_the_graph(tmp_path, chosen):
    """The Snakefile and `plan.parts` name the same files, with two label subsets and two seeds."""
    course = Course(tmp_path)
    config = course.config | {"settings": course.config["settings"] | {"subsets": 2, "seeds": 2}, "parts": chosen}
    write_json(course.run / "c.json", config)
    command = [*graph.graph_command(course.run, course.run / "c.json", cores=2), "--summary"]
    said = subprocess.run(command, capture_output=True, text=True)
    assert said.returncode == 0, said.stderr
    outputs = {line.split("\t")[0] for line in said.stdout.splitlines()[1:]}
    tables = {f"results_part{part}.md" for part in chosen if part > 1 and tasks_of([part])}
    assert {part.writes for part in plan.parts(config)} == outputs - tables and tables <= outputs
    reading = 2 + sum(part_of(chapter) in chosen for chapter in (*OWN, *LAST))
    assert len(outputs - tables) == reading + len(tasks_of(chosen)) + 4 * 3 * (1 + len(tasks_of(chosen)))


def test_the_estimate_of_the_recorded_course_is_that_course():
    recorded = read_json(REFERENCE)["phantom"]["laptop"]["chapters"]
    found = plan.estimate(configured("laptop"))
    assert found.seconds == pytest.approx({chapter: recorded[chapter] for chapter in chapters_of([1])})
    jobs = dict.fromkeys(chapters_of([1]), 1) | {FINETUNING: 3 * (1 + len(tasks_of([1])))}
    assert found.jobs() == jobs
    alone = sum(recorded[chapter] for chapter in jobs if chapter[:2] in ("00", "01", "05"))
    beside = sum(recorded[chapter] * n for chapter, n in jobs.items() if chapter[:2] not in ("00", "01", "05"))
    assert found.wall_seconds(2) == pytest.approx(alone + beside / 2, rel=0.01)


def test_training_is_scaled_by_what_it_has_to_do():
    once, twice = plan.estimate(configured("laptop")), plan.estimate(configured("laptop", finetune_steps=400))
    smoke = read_json(REFERENCE)["phantom"]["smoke"]["chapters"]["04_unetr_finetuning"]
    chapter = FINETUNING
    assert twice.seconds[chapter] - smoke == pytest.approx(2 * (once.seconds[chapter] - smoke))
    assert twice.tflop[chapter] == pytest.approx(2 * once.tflop[chapter])
    assert twice.seconds["03_simmim_masking"] == once.seconds["03_simmim_masking"]


def test_multiplications_are_those_of_the_network():
    """One linear layer of the encoder by hand: its share of the count is right to the last operation."""
    where = Setup(datasets.get("phantom"), scales.get("smoke"))
    wider = Setup(where.dataset, replace(where.scale, mlp_dim=where.scale.mlp_dim + 1))
    tokens = 6 * 5 * 4  # a crop of 48 x 40 x 32 in patches of 8
    more = plan.counted(wider)["encoder"][0] - plan.counted(where)["encoder"][0]
    assert more * 1e9 == pytest.approx(2 * 2 * where.scale.num_layers * tokens * where.scale.hidden_size)
    millions = plan.counted(Setup(where.dataset, scales.get("paper")))["unetr"][1]
    assert millions == pytest.approx(92.8, abs=0.1)


@pytest.mark.long
def test_the_plan_of_the_paper_is_printed_and_nothing_is_started(tmp_path):
    words = ["plan", "--scale", "paper", "--tflops", "100"]
    roots = {"SSL_RUNS_ROOT": str(tmp_path / "runs"), "SSL_DATA_ROOT": str(tmp_path / "data")}
    said = CliRunner().invoke(app, words, env=roots)
    assert said.exit_code == 0, said.stderr
    tuned = 3 * 5 * 3 * (1 + len(tasks_of([1])))  # label counts x subsets x seeds x starts
    jobs = tuned + 3 + len(tasks_of([1]))
    expected = f"{len(tasks_of([1]))} pretrainings, {tuned} fine-tunings, 3 chapters that train nothing: {jobs} jobs"
    assert expected in said.stdout
    lines = {line.split()[0]: line for line in said.stdout.splitlines()}
    assert {"runs", "order", "CPU", "GPU", "storage", "Assumed:"} <= set(lines)
    assert "at an assumed 100 TFLOP/s" in lines["GPU"] and "recorded" not in lines["GPU"]
    assert not list(tmp_path.iterdir())


def test_a_course_that_the_record_does_not_know_says_what_it_is_scaled_from():
    assert "Measured: phantom, scale laptop" in plan.estimate(configured("paper") | {"dataset": "sarcoma"}).basis


def test_what_a_sweep_costs_holds_the_chapters_that_come_first(tmp_path, capsys):
    study = {"name": "sweeps/rates", "num_labeled": [6], "pretrain": [], "finetune": {"random__lr=0.001": ["random"]}}
    config = configured("smoke") | {"study": study}
    assert workflow._print_rest(tmp_path, config, jobs=2) == 1
    assert "0 pretrainings, 1 fine-tunings, 2 chapters that train nothing: 3 jobs" in capsys.readouterr().out
    for part in plan.first_parts():
        (tmp_path / part.writes).parent.mkdir(parents=True)
        (tmp_path / part.writes).write_text("{}")
    assert workflow._print_rest(tmp_path, config, jobs=2) == 1
    assert "0 chapters that train nothing: 1 jobs" in capsys.readouterr().out


def test_every_run_is_counted_with_its_own_network():
    """The whole network where it is pretrained, and the network that a run of a study names."""
    part = plan.Part("pretrain/voxel_clusters", "07_voxel_clusters", "07_voxel_clusters")
    assert plan.trained(part) == ("pretrain", "unetr", "unetr")
    study = {"name": "controls", "num_labeled": [6], "pretrain": ["simmim__network=mednext"]}
    study["finetune"] = {"random__network=unet": ["random"], "simmim": ["simmim"]}
    config = configured("smoke") | {"study": study}
    assert [plan.trained(part) for part in plan.parts(config)] == [
        ("pretrain", "mednext", "encoder"),
        ("finetune", "unet", "unet"),
        ("finetune", "unetr", "unetr"),
    ]
    found, setup = plan.estimate(config), Setup(datasets.get("phantom"), scales.get("smoke"))
    assert found.networks == {name: plan.counted(setup, name)[name] for name in ("mednext", "unet", "unetr")}
    crops = setup.scale.finetune_steps * setup.scale.finetune_batch_size
    both = sum(found.networks[name][0] for name in ("unet", "unetr"))
    assert found.tflop["finetune"] == pytest.approx(3 * crops * both / 1e3)
    assert any(line.startswith("networks") and "unet, " in line for line in found.lines(jobs=2, tflops=1))


def test_the_profile_of_slurm_gives_every_part_that_trains_a_gpu_and_its_memory():
    profile = yaml.safe_load((runs.PROJECT / "profiles/slurm/config.yaml").read_text(encoding="utf-8"))
    trained = {chapter[3:] for chapter in (*(entry.chapter for entry in TASKS.values()), FINETUNING, *OWN)}
    trained |= {"study_pretrain", "study_finetune"}
    assert {*profile["set-resources"]} == trained == {*profile["set-threads"]}
    assert all(part["gpu"] == 1 and part["mem_mb"] > 4000 for part in profile["set-resources"].values())
