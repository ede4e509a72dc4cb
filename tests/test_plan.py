"""The dry plan: the graph's own parts, and an estimate that follows from the recorded course."""

import subprocess
from dataclasses import asdict, replace

import pytest
import yaml
from typer.testing import CliRunner

from course import __main__ as cli, graph, plan, workflow
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


def test_chapters_with_runs_of_their_own_are_named_and_an_unknown_one_costs_as_its_kind(monkeypatch):
    kinds = {OWN[0]: 90.0, [*LAST][-1]: 7.0, "03_simmim_masking": 30.0, "06_mae": 50.0}
    known = {chapter: kinds.get(chapter, 10.0) for chapter in (*chapters_of([1]), *kinds)}
    record = {"phantom": {"laptop": {"chapters": known, "date": "then", "device": "cpu"}}}
    monkeypatch.setattr(plan, "read_json", lambda path: record)
    found = plan.estimate(configured("laptop") | {"parts": [1, 2, 3]})
    pretraining = [known[chapter] for chapter in known if chapter in {entry.chapter for entry in TASKS.values()}]
    assert found.seconds[OWN[1]] == 90 and found.seconds["06_mae"] == pytest.approx(50)
    assert found.seconds["10_all_tasks"] == pytest.approx((10 + 10 + 10 + 7) / 4)
    assert plan._assumed("07_voxel_clusters", known) == pytest.approx(sum(pretraining) / len(pretraining))
    (runs_of,) = (line for line in found.lines(jobs=2, tflops=1) if line.startswith("runs"))
    reading = 2 + len(LAST)
    assert f" {reading} chapters that train nothing, {len(OWN)} with runs of their own, not scaled: " in runs_of


def test_overhead_is_that_of_the_phantom_where_a_dataset_has_no_record_of_smoke(monkeypatch):
    record = read_json(REFERENCE)
    record["hippocampus"] = {"laptop": record["hippocampus"]["laptop"]}
    record["sarcoma"] = {"laptop": {"chapters": {"12_brain_tumours": 5.0}}}  # a later part alone
    monkeypatch.setattr(plan, "read_json", lambda path: record)
    fixed = record["phantom"]["smoke"]["chapters"][FINETUNING]
    once, twice = (
        plan.estimate(configured("laptop", finetune_steps=steps) | {"dataset": "hippocampus"}).seconds[FINETUNING]
        for steps in (200, 400)
    )
    assert twice - fixed == pytest.approx(2 * (once - fixed))
    assert "Measured: phantom" in plan.estimate(configured("laptop") | {"dataset": "sarcoma"}).basis


def test_a_pretraining_of_so_many_seconds_takes_them():
    study = {"name": "all_tasks", "num_labeled": [6], "finetune": {}, "pretrain": ["mae__seconds=600", "mae"]}
    found = plan.estimate(
        configured("laptop") | {"study": study}, [plan.Part("pretrain/mae__seconds=600", "pretrain", "")]
    )
    overhead = read_json(REFERENCE)["phantom"]["smoke"]["chapters"]["03_simmim_masking"]
    assert found.seconds["pretrain"] == pytest.approx(600 + overhead) and found.tflop["pretrain"] > 0


def test_the_plan_of_a_folder_has_the_labels_that_its_course_has(blobs, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("SSL_RUNS_ROOT", str(tmp_path))
    cli.plan_course(scale="smoke", dataset="folder", data=str(blobs))
    assert f" {1 + len(tasks_of([1]))} fine-tunings" in capsys.readouterr().out, "5 labels, and not 6"
    with pytest.raises(SystemExit):
        cli.plan_course(scale="smoke", dataset="folder", data=str(blobs), labels="3,6")
    assert "labels=3,6: only 5 labelled training volumes; choose fewer" in capsys.readouterr().err


@pytest.mark.parametrize(
    "given", ["{slurm_partition: cpu, slurm_account: lab}", "[slurm_account=lab, mem_mb=a=b]", "", "{}"]
)
def test_another_partition_keeps_what_else_the_profile_gives_every_part(tmp_path, given):
    (tmp_path / "config.yaml").write_text(f"executor: slurm\ndefault-resources: {given}\n")
    words = graph.graph_command(tmp_path, tmp_path, cores=2, cluster=graph.Cluster(4, "gpu", tmp_path))
    passed = words[words.index("--default-resources") + 1 : words.index("--scheduler")]
    assert "slurm_partition=gpu" in passed and "slurm_partition=cpu" not in passed
    assert ("slurm_account=lab" in passed) == ("lab" in given) and ("mem_mb=a=b" in passed) == ("mem_mb" in given)
    words = graph.graph_command(tmp_path, tmp_path, cores=2, cluster=graph.Cluster(4, None, tmp_path))
    assert "--default-resources" not in words
