"""Grids: what a small file means, what the graph makes of it, what a sweep tells of its runs and keeps of them."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from course import __main__ as cli, graph, grids, plan, status, sweeps, workflow
from course.graph import PROJECT
from course.request import Request
from ssl_utils.errors import CourseError
from ssl_utils.experiments import Finetuning, Pretraining, runs, scales, souping
from ssl_utils.files import write_json
from ssl_utils.statistics.selection import expected_maximum, rare_lead

EXAMPLE = {
    "labels": [6, 12],
    "seeds": 3,
    "pretrain": {"task": ["random", "mae"], "mask_ratio": [0.6, 0.75]},
    "finetune": {"lr": [1e-3, 4e-3], "layer_decay": 0.75},
}
RATES = {"labels": 6, "seeds": 2, "finetune": {"lr": [1e-3, 2e-3]}}


def test_every_combination_is_a_run_once_and_an_option_only_varies_tasks_that_have_it():
    grid = grids.described("example", EXAMPLE)
    assert [point.value for point in grid.points] == [
        f"task={task}, lr={lr}"
        for task in ("random", "mae, mask_ratio=0.6", "mae, mask_ratio=0.75")
        for lr in (0.001, 0.004)
    ]
    found = grid.finetunings()
    assert len(found) == len({*found}) == (1 + 2) * 2 * 2 * 3
    assert found[0] == Finetuning(num_labeled=6, lr=1e-3, layer_decay=0.75)
    made = grid.plan(24)
    name = Pretraining.of("mae", mask_ratio=0.6).name
    assert made["pretrain"] == {name: ["mae", "--mask-ratio=0.6"]}, "0.75 is the default: the run of the course"
    assert len(made["finetune"]) == 6 and "mae__layer_decay=0.75__lr=0.001" in made["finetune"]
    assert json.loads(json.dumps(made)) == made


def test_an_option_of_both_trainings_is_shown_for_each_and_no_two_runs_share_a_folder():
    scopes = {"scope": ["encoder", "network"]}
    grid = grids.described("both", {"pretrain": {"task": "mae", **scopes}, "finetune": scopes})
    assert [point.value for point in grid.points][1:3] == [
        "pretrain scope=encoder, scope=network",
        "pretrain scope=network, scope=encoder",
    ]
    either = {"optimizer": ["adamw_cosine", "schedule_free"]}
    grid = grids.described("both", {"pretrain": {"task": "mae", **either}, "finetune": either})
    free = "optimizer=schedule_free"
    names = ["mae", f"mae__finetune_{free}", f"mae__{free}", f"mae__{free}__finetune_{free}"]
    assert [point.run.name for point in grid.points] == names
    weights = {"weights": ["a/x.bin", "b/x.bin"]}
    with pytest.raises(CourseError, match="both would be the run inflation__weights=x; vary one"):
        grids.described("both", {"pretrain": {"task": "inflation", **weights}})


def test_the_example_of_the_docs_is_a_grid(tmp_path):
    text = (PROJECT / "docs" / "sweeps.md").read_text()
    (tmp_path / "rates.toml").write_text(text.split("```toml\n")[1].split("```")[0])
    grid = grids.read(tmp_path / "rates.toml")
    assert f"{len(grid.finetunings())} fine-tunings" in text


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({}, "has a single run"),
        ({"label": [6]}, "option label: a grid has none of that name; did you mean labels"),
        ({"labels": []}, r"labels = \[\]: has no value"),
        ({"labels": [0]}, "labels=0: must be at least 1"),
        ({"seeds": [1, 2]}, "seeds=.*: must be a whole number"),
        ({"finetune": 3}, r"finetune = 3: must be a table"),
        ({"finetune": {"lrr": 1}}, "did you mean lr"),
        ({"finetune": {"init": "mae"}}, r"option init: \[finetune\] has none"),
        ({"finetune": {"lr": [1e-3, 2.0]}}, "lr=2.0: must be above 0 and at most 1"),
        ({"finetune": {"lr": [1e-3, 1e-3]}}, "has 0.001 twice"),
        ({"finetune": {"lr": [1e-3, 10**400]}}, "lr=10*: must be a number"),
        ({"finetune": {"freeze_epochs": [0, 0]}}, "has 0 twice"),
        ({"finetune": {"network": "mednext", "kernel_size": [3, 4]}}, "kernel_size=4: must be odd"),
        ({"finetune": {"kernel_size": [3, 5]}}, "kernel_size=3: unetr does not support it"),
        ({"pretrain": {"task": "mae"}, "finetune": {"network": ["unet", "unetr"]}}, "mae is pretrained for unetr"),
        ({"pretrain": {"task": [["mae"], "random"]}}, r"task=\['mae'\]: must be text"),
        ({"pretrain": {"task": {"a": 1}}}, "task={'a': 1}: must be text"),
        ({"finetune": {"freeze": ["encoder", "network"]}}, "nothing is frozen at freeze_epochs=0"),
        ({"finetune": {"trainable": ["up/2", "out"]}}, "its name becomes a folder"),
        ({"pretrain": {"mask_ratio": 0.5}}, "names no task"),
        ({"pretrain": {"task": ["mae", "sinmim"]}}, "task='sinmim': no such pretext task"),
        ({"pretrain": {"task": "mae", "mask_ratio": [0.5, 1.5]}}, "mask_ratio=1.5: must be above 0 and below 1"),
        ({"pretrain": {"task": "mae", "maskratio": 0.5}}, "did you mean mask_ratio"),
        ({"pretrain": {"task": ["mae", "simmim"], "pool": "nowhere"}}, "dataset='nowhere': no such dataset"),
    ],
)
def test_what_is_no_grid_is_refused_in_one_line(content, said):
    with pytest.raises(CourseError, match=said):
        grids.described("example", content)


def test_files_and_names_that_cannot_be_used_are_named(tmp_path):
    for name, text, said in (
        ("none.toml", None, "is no readable TOML file .No such file"),
        ("half.toml", "labels = ", "is no readable TOML file .Invalid value"),
        ("two words.toml", "seeds = 2", "two words.toml: name 'two words': becomes a folder"),
        ("digits.toml", "labels = 1" + 5000 * "0", "is no readable TOML file"),
        ("bad.toml", "seeds = 0", "bad.toml: seeds=0: must be at least 1"),
    ):
        if text is not None:
            (tmp_path / name).write_text(text)
        with pytest.raises(CourseError, match=said):
            grids.read(tmp_path / name)
    with pytest.raises(CourseError, match="labels = 12, but only 10 volumes"):
        grids.described("example", EXAMPLE).plan(10)


@pytest.fixture
def swept(tmp_path, monkeypatch):
    """A run folder in which a sweep has two finished runs, one that timed out, and one that waits."""
    monkeypatch.setenv("SSL_RUNS_ROOT", str(tmp_path))
    root = tmp_path / "phantom" / "smoke"
    grid = grids.described("rates", RATES)
    numbers = replace(scales.get("smoke"), subsets=1, seeds=2)
    config = {
        "scale": "smoke",
        "dataset": "phantom",
        "notebooks": str(PROJECT / "notebooks"),
        "settings": asdict(numbers),
    }
    config |= {"num_labeled": [6, 12, 24], "study": grid.plan(24), "data": None}
    write_json(root / ".course" / "study_sweep_rates.json", config)
    for seed, dice in enumerate((0.5, 0.7)):
        run = root / f"finetune/random__lr=0.001/n6/subset0_seed{seed}"
        write_json(run / "config.json", {"settings": {"steps": 10}, "by": {"job": "7"}})
        write_json(run / "metrics.json", {"dice": dice - 0.1, "validation_dice": dice, "seconds": 3.2, "device": "cpu"})
        (run / "model.safetensors").write_bytes(b"weights")
        (run / "README.md").write_text("card")
    label = "finetune random__lr=0.002 n=6 subset=0 seed=0"
    failed = {"event": "failed", "chapter": "finetune", "label": label, "message": "why", "timed_out": True}
    (root / ".course" / "events.jsonl").write_text(json.dumps(failed) + "\n")
    return root, config


def test_the_table_has_parameters_state_and_score_of_every_run(swept):
    root, config = swept
    table = sweeps.rows(root, config)
    assert list(table["parameters"]) == ["lr=0.001"] * 2 + ["lr=0.002"] * 2
    assert list(table["state"]) == ["done", "done", "timed out", "pending"]
    assert list(table["score"]) == ["Dice 0.500", "Dice 0.700", "", ""] and table["reason"][2] == "why"
    assert list(table["job"]) == ["7", "7", "", ""]
    assert status.summary(table["state"]) == "1 pending, 1 timed out, 2 done"
    assert sweeps.shown(table, "title").row_count == 4


def test_the_table_can_be_watched_from_anywhere(swept, capsys):
    cli.watch(Path("rates.toml"), dataset="phantom", scale="smoke")
    said = capsys.readouterr().out
    assert "1 pending, 1 timed out, 2 done" in said and said.count("lr=0.002") == 2 and "Dice 0.700" in said
    for name, chosen, reason in (
        ("rates", {"dataset": "phantom", "scale": "huge"}, "scale='huge': no such scale"),
        ("rates", {"dataset": "nope", "scale": "smoke"}, "dataset='nope': no such dataset"),
        ("rates.v2", {"dataset": "phantom", "scale": "smoke"}, "has no sweep rates.v2; start it with"),
    ):
        with pytest.raises(SystemExit) as stop:
            cli.watch(Path(name), **chosen)
        assert stop.value.code == 2 and reason in capsys.readouterr().err


def test_the_summary_tells_the_best_run_and_how_much_of_its_lead_is_chance(swept):
    root, config = swept
    table = sweeps.rows(root, config)
    text = sweeps.write(root, config, table).read_text()
    assert "lr=0.001, 6 labels, subset 0, seed 1. Dice 70.0 there, 60.0 on the test cases" in text
    assert sweeps.spread(table) == pytest.approx(np.std([0.5, 0.7], ddof=1))
    sigma = 100 * sweeps.spread(table)
    assert f"would lie {sigma / np.sqrt(np.pi):.1f} points above their mean on average" in text
    assert f"more than {sigma * rare_lead(2):.1f} in one sweep of twenty; this one lies 10.0 above" in text
    table.loc[1, "state"] = "failed"
    assert np.isnan(sweeps.spread(table)) and "No combination was repeated" in sweeps.text("rates", table)
    assert sweeps.text("rates", table.assign(state="failed")).endswith("No run has finished.")


def test_runs_are_ranked_and_judged_among_those_with_as_many_labels(swept):
    table = sweeps.rows(*swept)[:2]
    best = table.assign(parameters="lr=0.002", validation=table["validation"] + 0.01)
    more = table.assign(labels=12, validation=table["validation"] + 0.2)
    table = pd.concat([more, table, best], ignore_index=True)
    points = sweeps.points(table)
    ranked = [(6, "lr=0.002"), (6, "lr=0.001"), (12, "lr=0.001")]
    assert [*zip(points["labels"], points["parameters"], strict=True)] == ranked
    text = sweeps.text("rates", table)
    assert "validation: lr=0.002, 6 labels" in text and "validation: lr=0.001, 12 labels" in text
    assert "Of 4 equal runs" in text and "Of 2 equal runs" in text and text.count("this one lies") == 2


def test_finished_networks_are_collected_for_a_soup_and_collected_again(swept):
    root, config = swept
    for _ in range(2):
        place = sweeps.collect(root, config["study"], sweeps.rows(root, config))
        members = souping.runs_in(place)
        assert [path.name[-13:] for path in members] == ["subset0_seed0", "subset0_seed1"]
        assert all((path / "model.safetensors").read_bytes() == b"weights" for path in members)
    assert all((path / "README.md").exists() for path in members), "or they could not be exported"
    assert souping.runs_in(members[0]) == [members[0]]


def test_the_graph_of_a_sweep_is_its_runs_and_goes_on_after_a_failure(swept):
    root, _ = swept
    command = graph.graph_command(root, root / ".course" / "study_sweep_rates.json", cores=2, target="sweep")
    assert {"sweep", "--keep-going", "--retries"} <= {*command}
    found = subprocess.run([*command, "--dry-run"], capture_output=True, text=True)
    assert found.returncode == 0, found.stdout + found.stderr
    planned = graph.planned(found.stdout + found.stderr, PROJECT / "notebooks")
    assert planned == {"00_start_here": 1, "01_data_inspection": 1, "finetune": 4}, "no metadata: all of them"


@pytest.mark.course
def test_a_sweep_ends_with_all_that_finished_where_one_combination_cannot_run(tmp_path, blobs, blobs_course):
    run = tmp_path / "folder_my_blobs" / "smoke"
    shutil.copytree(blobs_course.run, run)
    (tmp_path / "parts.toml").write_text('labels = 5\n[finetune]\nbudget = 0.1\ntrainable = ["out", "nowhere"]\n')
    words = ["sweep", str(tmp_path / "parts.toml"), "--scale", "smoke", "--dataset", "folder", "--data", str(blobs)]
    environment = os.environ | {"SSL_RUNS_ROOT": str(tmp_path)}
    command = [sys.executable, "-m", "course", *words]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 1, done.stdout[-2000:] + done.stderr[-2000:]
    assert "0 pretrainings, 2 fine-tunings" in done.stdout and "2 fine-tunings, 1 failed, 1 done" in done.stdout
    told = (run / ".course" / "events.jsonl").read_text(encoding="utf-8")
    assert told.count('"event": "failed"') == 3, "the first try and two more"
    assert "finetune/random__budget=0.1__trainable=nowhere/n5/subset0_seed0: " in done.stderr
    (member,) = souping.runs_in(run / "sweeps" / "parts" / "collected")
    assert member.name == "random__budget=0.1__trainable=out_n5_subset0_seed0"
    assert not any("trainable" in path.parts[-4] for path in runs.finished(run))


def test_the_cost_of_a_sweep_counts_its_steps_and_only_what_is_left(swept):
    _, config = swept
    parts = plan.parts(config)
    whole = plan.estimate(config)
    assert whole.jobs() == {"finetune": 4} and plan.estimate(config, parts[:1]).jobs() == {"finetune": 1}
    assert not any(line.startswith("order") for line in whole.lines(jobs=2, tflops=1))
    grid = grids.described("long", {"finetune": {"budget": [1, 3]}})
    longer = plan.estimate(config | {"study": grid.plan(24)})
    assert longer.tflop["finetune"] == pytest.approx(2 * whole.tflop["finetune"])  # (1 + 3) / 2 a run
    scale = scales.get("smoke")
    assert plan.factor(plan.Part("pretrain/mae__steps=8", "pretrain", ""), scale) == 2
    assert plan.factor(plan.Part("finetune/mae__steps=16__budget=0.5__crop=2/n6", "finetune", ""), scale) == 4


def test_many_runs_are_started_only_after_a_yes(monkeypatch):
    cli._confirm(cli.MANY, yes=False)
    cli._confirm(cli.MANY + 1, yes=True)
    with pytest.raises(CourseError, match="31 runs, more than 30: nothing was started; add --yes"):
        cli._confirm(cli.MANY + 1, yes=False)
    monkeypatch.setattr(cli.sys.stdin, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(cli.typer, "confirm", lambda question: question == "Start 31 runs?")
    cli._confirm(cli.MANY + 1, yes=False)


def test_runs_of_a_sweep_are_not_taken_for_those_of_the_course(tmp_path):
    def finish(name):
        write_json(tmp_path / "finetune" / name / "n6/subset0_seed0/metrics.json", {})

    def of_the_course():
        return {path.parts[-4] for path in runs.finished(tmp_path)}

    finish("random__budget=4")
    finish("random__lr=0.002")
    grids.described("rates", RATES).register(tmp_path)
    grids.described("budgets", {"finetune": {"budget": [2, 4]}}).register(tmp_path)
    finish("random__lr=0.001")
    before = {"random__budget=4", "random__lr=0.002"}
    assert of_the_course() == before, "controls of the course, made before any sweep"
    grids.described("rates", {"finetune": {"lr": [3e-3, 4e-3]}}).register(tmp_path)  # the file was edited
    assert of_the_course() == before
    assert len(runs.finished(tmp_path, names={"random__lr=0.001"})) == 1


def test_a_sweep_that_is_not_confirmed_names_no_runs(tmp_path, monkeypatch):
    def no(runs):
        raise CourseError(f"{runs} runs")

    monkeypatch.setenv("SSL_RUNS_ROOT", str(tmp_path))
    monkeypatch.setenv("SSL_DATA_ROOT", str(tmp_path / "data"))
    run = tmp_path / "phantom" / "smoke"
    write_json(run / "data.json", {"num_labeled": [6], "cases": {"training": 24}})
    monkeypatch.setattr(workflow, "prepare", lambda *_: None)
    monkeypatch.setattr(workflow, "_print_rest", lambda *_, jobs: jobs)  # 8 cores, two for each part
    with pytest.raises(CourseError, match="4 runs"):
        workflow.bring_up(Request(scale="smoke", cores=8), grid=grids.described("rates", RATES), confirm=no)
    assert not (run / "sweeps").exists()


def test_a_sweep_that_was_not_started_is_named(tmp_path):
    with pytest.raises(CourseError, match="has no sweep rates; start it with: python -m course sweep"):
        sweeps.recorded(tmp_path, "rates")


def test_the_expected_maximum_is_that_of_normal_values():
    drawn = np.random.default_rng(0).normal(size=(20_000, 30)).max(1).mean()
    assert expected_maximum(30) == pytest.approx(drawn, abs=0.02)
    assert [expected_maximum(n) for n in (1, 2)] == pytest.approx([0, 1 / np.sqrt(np.pi)], abs=1e-6)
    assert [rare_lead(n) for n in (1, 2, 10)] == pytest.approx([0, 1.96 / np.sqrt(2), 2.44], abs=0.03)
    for function in (expected_maximum, rare_lead):
        with pytest.raises(CourseError, match="n=0"):
            function(0)
