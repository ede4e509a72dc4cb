"""Studies: what they vary, what the graph makes of them, one from end to end, and the claims that they answer."""

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import pandas as pd
import pytest
from typer.testing import CliRunner

from course import graph, studies
from course.__main__ import app
from course.chapters import tasks_of
from course.records import claims, study_report as results
from course.study import Context
from ssl_utils import experiments
from ssl_utils.errors import CourseError
from ssl_utils.experiments import Finetuning, pools, runs, scales
from ssl_utils.files import read_json, write_json
from ssl_utils.training.options import options_of

PROJECT = Path(__file__).resolve().parents[1]
EVERY = [(name, scale) for name in studies.STUDIES for scale in scales.SCALES]


def plan(name: str, scale: str = "smoke", *, dataset: str = "phantom", num_labeled=(6, 12, 24)) -> dict:
    return studies.plan(name, scale=scales.get(scale), dataset=dataset, data=None, num_labeled=list(num_labeled))


# what they vary ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "scale"), EVERY)
def test_a_study_is_consistent_and_holds_the_course_itself(name, scale):
    made = plan(name, scale)
    names, values = ([point[key] for point in made["points"]] for key in ("name", "value"))
    assert len(set(names)) == len(names) > 1 and "" not in values
    tasks = {point["task"] for point in made["points"]} - {"random"}
    for task in tasks:
        here = [point for point in made["points"] if point["task"] == task]
        own = [] if name == "all_tasks" else [task]  # it counts seconds, a course counts steps
        assert [point["name"] for point in here if point["default"]] == own, "the course's own run, once"
        assert len({point["value"] for point in here}) == len(here)
    assert set(made["finetune"]) == {*names, "random"}
    assert {words[0] for words in made["finetune"].values()} <= {"random", *tasks, *made["pretrain"]}
    assert all("__" in run and run.split("__")[0] == words[0] for run, words in made["pretrain"].items())
    assert set(made["num_labeled"]) <= ({6, 12, 24} | ({1, 2, 5, 7, 10} if name == "transfer" else set()))
    assert json.loads(json.dumps(made)) == made


def test_a_larger_scale_has_no_fewer_points():
    sizes = {name: [len(plan(name, scale)["points"]) for scale in scales.SCALES] for name in studies.STUDIES}
    assert all(counts == sorted(counts) for counts in sizes.values()), sizes
    assert max(counts[0] for counts in sizes.values()) <= 7, "a smoke study takes minutes"


def test_options_are_in_range_and_known_to_the_task(tiny_setup):
    for name in studies.STUDIES:
        for point in studies.get(name).points(Context(tiny_setup.scale, "phantom", True)):
            if point.task != "random":
                task = experiments.build_task(tiny_setup, point.pretraining)
                assert all(getattr(task, key) == value for key, value in point.pretraining.options.items())
                assert point.pretraining.name == point.run.init
            assert point.run.words()[0] == point.run.init and point.finetuning.keys() <= options_of(Finetuning).keys()


def test_lengths_are_shares_of_the_steps_and_all_of_them_is_the_course():
    found = {p["value"]: p["name"] for p in plan("pretraining_length", "workstation")["points"] if p["task"] == "mae"}
    steps = scales.get("workstation").pretrain_steps
    assert found == {f"{s} %": f"mae__steps={steps * s // 100}" for s in (1, 3, 10, 30, 300)} | {"100 %": "mae"}


def test_fine_tunings_of_any_length_start_from_both_and_share_the_runs_of_the_controls():
    found = {(p["task"], p["value"]): p["name"] for p in plan("finetuning_length", "laptop")["points"]}
    assert found == {
        (task, f"{share} %"): task + end
        for task in ("random", "voxel_clusters")
        for share, end in ((50, "__budget=0.5"), (100, ""), (400, "__budget=4"))
    }
    controls = {p["name"] for p in plan("controls", "laptop")["points"]}
    assert controls & set(found.values()) == {"random", "random__budget=4", "voxel_clusters"}
    assert plan("finetuning_length")["finetune"]["random__budget=0.5"] == ["random", "--budget=0.5"]


def test_transfer_and_training_are_crossed_and_labels_are_shares_of_the_cases():
    found = {(p["task"], p["value"]): p["name"] for p in plan("transfer", "laptop")["points"]}
    own = {value: name for (task, value), name in found.items() if task == "voxel_clusters"}
    last = "__freeze=network__freeze_epochs=-1"
    assert own == {
        "network, all": "voxel_clusters",
        "network, decoder": "voxel_clusters__freeze_epochs=-1",
        "network, last": f"voxel_clusters{last}",
        "encoder, all": "voxel_clusters__finetune_scope=encoder",
        "encoder, decoder": "voxel_clusters__finetune_scope=encoder__freeze_epochs=-1",
        "encoder, last": f"voxel_clusters__finetune_scope=encoder{last}",
    }
    scratch = [value for task, value in found if task == "random"]
    assert scratch == ["none, all", "none, decoder", "none, last"] and found["random", "none, last"] == f"random{last}"
    numbers = {"scale": scales.get("laptop"), "dataset": "brats18", "data": None, "num_labeled": [6, 12, 24]}
    assert studies.plan("transfer", **numbers)["num_labeled"] == [1, 2, 5, 7, 10, 24]
    assert studies.plan("transfer", **numbers, training=214)["num_labeled"] == [2, 11, 21, 43, 64, 86, 214]
    assert studies.plan("transfer", **numbers, all_labels=True)["num_labeled"] == [6, 12, 24]
    asked = studies.plan("transfer", **numbers, tasks=("simmim",))
    assert [*asked["pretrain"]] == ["simmim__scope=network"], (
        "where the encoder alone is usual, a network is pretrained"
    )


def test_a_study_of_the_tasks_that_were_asked_for():
    def tasks(name: str, *asked: str) -> list[str]:
        numbers = {"scale": scales.get("laptop"), "dataset": "phantom", "data": None, "num_labeled": [6, 12, 24]}
        return list(dict.fromkeys(p["task"] for p in studies.plan(name, **numbers, tasks=asked)["points"]))

    assert tasks("pretraining_length", "restoration") == ["restoration"]
    assert tasks("controls", "restoration", "mae") == ["random", "restoration", "mae"]
    with pytest.raises(CourseError, match="task='sinmim': no such pretext task"):
        tasks("controls", "sinmim")
    with pytest.raises(CourseError, match="study mask_ratio: restoration has no mask_ratio to vary"):
        tasks("mask_ratio", "restoration")
    with pytest.raises(CourseError, match="study restoration: simmim has no contrast to vary"):
        tasks("restoration", "simmim")


def test_a_default_outside_the_values_joins_them_in_order():
    values = {p["task"]: [] for p in plan("mask_ratio", "laptop")["points"]}
    for point in plan("mask_ratio", "laptop")["points"]:
        values[point["task"]].append(float(point["value"]))
    assert all(found == sorted(found) for found in values.values())


def test_other_volumes_are_fetched_and_have_equal_channels():
    assert plan("pretraining_data")["needs"] == ["hippocampus"] and plan("freezing")["needs"] == []
    assert "simmim__pool=own+hippocampus" in plan("pretraining_data")["pretrain"]
    assert plan("pretraining_data", dataset="hippocampus")["needs"] == ["phantom"]
    with pytest.raises(CourseError, match="the channels of phantom and sarcoma differ"):
        plan("pretraining_data", dataset="sarcoma")


def test_only_the_first_volumes_are_pretrained_on(tiny_setup):
    (part,) = pools.pool(tiny_setup, volumes=2)
    assert part.pool == tiny_setup.pool[:2] and part.datalist.sides() == tiny_setup.datalist.sides()
    assert pools.pool(tiny_setup) == [tiny_setup]
    most = len(tiny_setup.pool)
    for volumes in (0, most + 1):
        said = f"volumes={volumes}: the pool of {tiny_setup.dataset.name} has {most}; choose 1 to {most}"
        with pytest.raises(CourseError, match=said):
            pools.pool(tiny_setup, volumes=volumes)


def test_a_set_with_few_labels_uses_those_it_has():
    assert plan("freezing", num_labeled=[5])["num_labeled"] == [5]
    assert plan("freezing", "workstation", num_labeled=[3, 6, 12])["num_labeled"] == [6, 12]


@pytest.mark.parametrize("name", ["mask_ratios", ""])
def test_an_unknown_study_is_one_line_before_anything_starts(tmp_path, monkeypatch, name):
    monkeypatch.setenv("SSL_RUNS_ROOT", str(tmp_path))
    found = CliRunner().invoke(app, ["study", name])
    assert (found.exit_code, found.stdout, found.stderr.count("\n")) == (2, "", 1)
    assert found.stderr.startswith(f"error: study={name!r}: no such study; choose one of mask_ratio, freezing,")
    assert not list(tmp_path.iterdir())


# the graph --------------------------------------------------------------------------------------------------


def would_run(run: Path, name: str, scale: str = "smoke", **settings) -> dict[str, int]:
    """Parts that the graph of a study would run in this folder."""
    numbers = asdict(replace(scales.get(scale), **settings))
    config = {
        "scale": scale,
        "dataset": "phantom",
        "data": None,
        "notebooks": str(PROJECT / "notebooks"),
        "num_labeled": [6, 12, 24],
        "settings": numbers,
        "study": plan(name, scale),
    }
    path = run / ".course" / "study.json"
    write_json(path, config)
    command = graph.graph_command(run, path, cores=2, target="study")
    found = subprocess.run([*command, "--dry-run"], capture_output=True, text=True)
    assert found.returncode == 0, found.stdout + found.stderr
    return graph.planned(found.stdout + found.stderr, PROJECT / "notebooks")


@pytest.mark.course
def test_the_graph_makes_variants_beside_the_course(tmp_path):
    chapters = {"00_start_here": 1, "01_data_inspection": 1}
    assert would_run(tmp_path, "restoration") == chapters | {
        "02_augmentation_pretraining": 1,
        "pretrain": 2,
        "04_unetr_finetuning": 2,
        "finetune": 2,
        "results": 1,
    }
    assert would_run(tmp_path, "controls") == chapters | {
        "03_simmim_masking": 1,
        "04_unetr_finetuning": 2,
        "finetune": 5,
        "results": 1,
    }
    more = would_run(tmp_path, "restoration", subsets=2, seeds=2)
    assert (more["04_unetr_finetuning"], more["finetune"], more["pretrain"]) == (8, 8, 2)


# from end to end --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def study(tmp_path_factory, blobs, blobs_course):
    """Restoration on a person's own folder, on top of a course that has made what the two share."""
    root = tmp_path_factory.mktemp("study") / "my runs"
    run = root / "folder_my_blobs" / "smoke"
    shutil.copytree(blobs_course.run, run)
    return run_study(root, blobs), run


def run_study(root: Path, blobs: Path) -> subprocess.CompletedProcess:
    words = ["study", "restoration", "--scale", "smoke", "--dataset", "folder", "--data", str(blobs)]
    return subprocess.run(
        [sys.executable, "-m", "course", *words],
        capture_output=True,
        text=True,
        env=os.environ | {"SSL_RUNS_ROOT": str(root)},
        timeout=600,
    )


@pytest.mark.course
def test_a_study_ends_with_a_table_a_text_and_a_figure(study):
    done, run = study
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    folder = run / "studies" / "restoration"
    assert (folder / "results.md").read_text().strip() in done.stdout and (folder / "figure.png").stat().st_size > 5000
    steps = pd.read_csv(folder / "curves.csv").groupby("init")["step"].agg(list)
    assert steps.to_dict() == {init: [2, 4] for init in steps.index} and (folder / "curves.png").stat().st_size > 5000
    table = pd.read_csv(folder / "results.csv")
    assert list(table["value"]) == ["-", "L1", "L1 + latent", "published"]
    assert list(table["name"][:3]) == ["random", "restoration__contrast=none", "restoration"]
    assert [row["init"] for row in read_json(folder / "study.json")["head_start"]] == list(table["name"])
    assert table["gain"].isna().tolist() == [True, False, False, False] and set(table["num_labeled"]) == {5}
    gain = table["dice"] - table["dice"][0]
    pd.testing.assert_series_equal(table["gain"][1:], gain[1:], check_names=False, atol=1e-6)
    assert len(re.findall(r"^\[ ?\d+/5\] (?:pretrain|finetune) restoration__contrast=", done.stdout, re.MULTILINE)) == 4
    assert "finetune restoration__contrast=none n=5 subset=0 seed=0" in done.stdout
    assert (run / "finetune/restoration__contrast=none/n5/subset0_seed0/log.txt").read_text().strip()


@pytest.mark.course
def test_variants_are_no_part_of_the_course(study):
    _, run = study
    assert {path.parts[-4] for path in runs.finished(run)} == {"random", *tasks_of([1])}
    assert set(runs.collect(run, names={"restoration__contrast=none"})["init"]) == {"restoration__contrast=none"}
    assert runs.unlike(run) == []


@pytest.mark.course
def test_a_study_goes_on_where_it_stopped(study, blobs):
    _, run = study
    lost = run / "finetune/restoration__contrast=published/n5/subset0_seed0"
    kept = run / "pretrain/restoration__contrast=published/metrics.json"
    stamp = kept.stat().st_mtime_ns
    (lost / "metrics.json").unlink()
    done = run_study(run.parents[1], blobs)
    assert done.returncode == 0 and "[ 2/2] results of the study restoration" in done.stdout, done.stdout + done.stderr
    assert (lost / "metrics.json").exists() and kept.stat().st_mtime_ns == stamp


@pytest.mark.course
def test_a_command_that_fails_is_one_line_with_its_log(tmp_path):
    words = [sys.executable, "-m", "course", "run-command", "finetune x n=5", str(tmp_path / "a b" / "log")]
    more = ["--events", str(tmp_path / "events")]
    for command, line in (
        (["course", "status", "--scale", "tiny"], "scale='tiny': no such scale; choose one of smoke, "),
        (["timeit", "1 / 0"], "ZeroDivisionError: division by zero"),
        (["json.tool", "--help"], "it ended without writing metrics.json, so it counts as not done"),
    ):
        found = subprocess.run(
            [*words, json.dumps(command), "--writes", str(tmp_path / "metrics.json"), *more],
            capture_output=True,
            text=True,
        )
        assert (found.returncode, found.stdout, found.stderr.count("\n")) == (1, "", 1), found.stderr
        assert found.stderr.startswith(f"error: finetune x n=5 failed: {line}") and "; log: " in found.stderr
        assert Path(found.stderr.strip().split("; log: ")[1]).read_text()
    events = [json.loads(line) for line in (tmp_path / "events").read_text().splitlines()]
    assert [(e["event"], e["chapter"]) for e in events] == [("started", "finetune"), ("failed", "finetune")] * 3


# records and claims -----------------------------------------------------------------------------------------


def write_study(folder: Path, *, gain: float = 0.05) -> Path:
    """A finished mask_ratio study: random and two ratios, two label counts."""
    about = {
        "name": "mask_ratio",
        "title": "Mask ratio",
        "question": "How much?",
        "varied": "share",
        "dataset": "phantom",
        "scale": "laptop",
        "num_labeled": [6, 24],
        "runs": 6,
        "pretrainings": 2,
        "date": "2026-01-02",
        "device": "cpu",
        "commit": "abc",
        "seconds": 60.0,
        "data": "d",
        "versions": {},
    }
    rows = [
        {
            "task": task,
            "value": value,
            "name": name,
            "default": default,
            "num_labeled": n,
            "dice": 0.5 + up,
            "low": 0.4,
            "high": 0.6,
            "cases": 20,
            "subsets": 1,
            "seeds": 1,
            "collapsed": 0,
            "gain": up if up else None,
            "gain_low": up - 0.01 if up else None,
            "gain_high": up + 0.01 if up else None,
            "p": 0.01 if up else None,
        }
        for task, value, name, default, up in (
            ("random", "-", "random", True, 0.0),
            ("simmim", "0.3", "simmim__mask_ratio=0.3", False, gain),
            ("simmim", "0.6", "simmim", True, gain + 0.01),
        )
        for n in (6, 24)
    ]
    runs.write_table(folder / "results.csv", pd.DataFrame(rows))
    write_json(folder / "study.json", about)
    (folder / "results.md").write_text("done")
    return folder


def test_tasks_with_one_value_each_are_compared_in_one_panel(tmp_path):
    about, table = results.read(write_study(tmp_path / "studies" / "mask_ratio"))
    assert [axes.get_title() for axes in results.figure(about, table).axes] == ["init: simmim"]
    table["task"] = table["task"].where(table["value"] != "0.6", "voxel_clusters")
    (axes,) = results.figure(about, table.replace({"value": {"0.6": "0.3"}})).axes
    assert axes.get_title() == "init: each task, 0.3"
    assert [text.get_text() for text in axes.get_xticklabels()] == ["simmim", "voxel\nclusters"]


@pytest.fixture
def files(tmp_path) -> dict[str, Path]:
    said = {"source": "them", "they_say": "much", "task": "simmim", "measured": None, "why": "other data"}
    path = tmp_path / "claims.json"
    write_json(
        path,
        [
            {"id": "a", "study": "mask_ratio", "num_labeled": [6], **said},
            {"id": "b", "study": "course", "num_labeled": [6, 12], **said},
        ],
    )
    gains = [
        {
            "dataset": "phantom",
            "scale": "laptop",
            "init": init,
            "num_labeled": n,
            "gain": 10.0 + n,
            "low": 9.0,
            "high": 30.0,
            "subsets": 1,
            "seeds": 3,
        }
        for init in ("simmim", "mae", "simmim__permuted=True")
        for n in (6, 24)
    ]
    write_json(tmp_path / "courses.json", {"gains": gains})
    return {"claims": path, "source": tmp_path / "studies.json", "courses": tmp_path / "courses.json"}


def test_a_record_answers_its_claim_and_replaces_an_earlier_one(tmp_path, files):
    assert claims.table(**files)["we measured"].tolist() == [
        "not measured yet: `make study STUDY=mask_ratio`",
        "not measured yet: `make course`",
    ]
    for gain in (0.01, 0.05):
        folder = write_study(tmp_path / "phantom" / "laptop" / "studies" / "mask_ratio", gain=gain)
        claims.record(folder, into=files["source"], claims=files["claims"])
    claims.record(tmp_path / "phantom" / "laptop", claims=files["claims"], courses=files["courses"])
    ((about, table),) = claims.recorded("mask_ratio", source=files["source"])
    assert about["date"] == "2026-01-02" and table["gain"][2] == pytest.approx(0.05) and table["dice"][0] == 0.5
    assert claims.table(**files)["we measured"].tolist() == [
        "**phantom, laptop**, gain over training from scratch. 6 labels: 0.3 +5.0 [+4.0, +6.0] (one run); "
        "0.6 +6.0 [+5.0, +7.0] (one run)",
        "**phantom, laptop**, gain over training from scratch. 6 labels: simmim +16.0 [+9.0, +30.0]",
    ]
    assert "NaN" not in files["source"].read_text()
    results.figure(about, table).savefig(tmp_path / "figure.png")


def test_a_finished_chapter_on_soups_answers_its_claim(tmp_path, files):
    records = {"claims": files["claims"], "chapters": tmp_path}
    said = {
        "id": "c",
        "study": "soups",
        "num_labeled": [24],
        "source": "them",
        "they_say": "much",
        "task": "greedy soup",
    }
    write_json(files["claims"], [{**said, "measured": [], "why": "few patients"}])
    assert claims.table(**records)["we measured"].tolist() == ["not measured yet: `make course PART=3`"]
    folder = tmp_path / "phantom" / "laptop" / "chapters" / "13_soups_ensembles"
    with pytest.raises(CourseError, match="chapter 13_soups_ensembles has not finished; run it first"):
        claims.record(folder, **records)
    gain = {"patients that chose": 0.3, "test": -0.012, "low": -0.2, "high": 0.1}
    done = dict.fromkeys(claims.of_chapters.KINDS["soups"].kept) | {
        "dataset": "brain_phantom",
        "choosing": 6,
        "patients": 20,
    }
    write_json(folder / "done.json", done | {"keeps_one": 0.42, "gains": {"greedy soup": gain}})
    claims.record(folder, **records)
    assert claims.table(**records)["we measured"].tolist() == [
        "**brain_phantom, laptop**, greedy soup over the best member, in points. +0.30 on the 6 patients that chose, "
        "-0.01 [-0.20, +0.10] on 20 others; greedy kept one network in 42 % of the draws of patients"
    ]
    said = read_json(files["claims"])
    said[0]["measured"] = ["sarcoma/laptop"]
    write_json(files["claims"], said)
    with pytest.raises(CourseError, match="claim c: no record of soups for sarcoma/laptop"):
        claims.table(**records)


def test_a_finished_chapter_on_synthetic_volumes_answers_both_claims(tmp_path, files):
    records = {"claims": files["claims"], "chapters": tmp_path}
    same = {
        "study": "synthesis",
        "num_labeled": [24],
        "source": "them",
        "they_say": "much",
        "measured": None,
        "why": "few",
    }
    write_json(
        files["claims"], [same | {"id": "a", "task": "real + drawn"}, same | {"id": "b", "task": "time embedding"}]
    )
    folder = tmp_path / "brain_phantom" / "laptop" / "chapters" / "14_synthetic_volumes"
    arms = {
        "real": {"mean": 0.591, "gain in points": ""},
        "real + drawn": {"mean": 0.39, "gain in points": "-20.1 [-31, -11]"},
    }
    done = dict.fromkeys(claims.of_chapters.KINDS["synthesis"].kept) | {"dataset": "brain_phantom", "patients": 8}
    write_json(folder / "done.json", done | {"downstream": arms, "errors": {"base": 0.36, "time embedding": 0.35}})
    claims.record(folder, **records)
    assert claims.table(**records)["we measured"].tolist() == [
        "**brain_phantom, laptop**, Dice on 8 test patients, and gain over real cases alone; one run each. "
        "real 59.1; real + drawn 39.0 -20.1 [-31, -11]",
        "**brain_phantom, laptop**, loss on held-out cases of the new scanner; one run each. base 0.3600; "
        "time embedding 0.3500",
    ]


def test_a_claim_on_a_record_that_is_gone_is_named(tmp_path, files):
    said = read_json(files["claims"])
    said[0]["measured"] = ["hippocampus/laptop"]
    write_json(files["claims"], said)
    with pytest.raises(CourseError, match="claim a: no record of mask_ratio for hippocampus/laptop"):
        claims.table(**files)
    with pytest.raises(CourseError, match="no recorded course"):
        claims.record(tmp_path / "phantom" / "smoke", claims=files["claims"], courses=files["courses"])
    with pytest.raises(CourseError, match="no finished study; run: make study STUDY=freezing"):
        claims.record(tmp_path / "phantom" / "smoke" / "studies" / "freezing", claims=files["claims"])


def test_claims_are_whole_and_name_a_study():
    said = read_json(claims.CLAIMS)
    assert len({claim["id"] for claim in said}) == len(said)
    for claim in said:
        assert claim.keys() == {"id", "source", "they_say", "study", "task", "num_labeled", "measured", "why"}
        assert claim["study"] in (*studies.STUDIES, claims.COURSE, *claims.of_chapters.KINDS) and set(
            claim["num_labeled"]
        ) <= {1, 2, 3, 6, 12, 24}
    assert {claim["study"] for claim in said} == {*studies.STUDIES, claims.COURSE, *claims.of_chapters.KINDS}, (
        "every study answers somebody"
    )


def test_gains_of_the_tutorial_and_the_share_of_its_background_are_computed_right():
    (claim,) = (claim for claim in read_json(claims.CLAIMS) if claim["id"] == "restoration_gain")
    scores, gains = claim["they_say"].split(": gains of ")
    scratch, pretrained = zip(*re.findall(r"([\d.]+) (?:from scratch )?and ([\d.]+)", scores), strict=True)
    differences = [f"{float(b) - float(a):.2f}" for a, b in zip(scratch, pretrained, strict=True)]
    assert differences == re.findall(r"\d\.\d\d", gains.split(" points")[0]) == ["7.02", "3.49", "3.39"]
    shares = re.findall(r"([\d.]+)(?: points)? at (\.\d+)", claim["why"].split("(.99 - v) / 13")[1])
    assert [value for _, value in shares] == [
        f".{scratch[0]}".replace(".63.", ".63"),
        f".{scratch[2]}".replace(".78.", ".78"),
    ]
    assert [share for share, _ in shares] == [f"{100 * (0.99 - float(value)) / 13:.1f}" for _, value in shares]


def test_the_page_of_results_says_what_the_records_say():
    text = (PROJECT / "docs" / "results.md").read_text(encoding="utf-8")
    assert text == claims.fill(text), "run: python -m course.records readme"
    assert text.count("not measured yet") == sum(not claim["measured"] for claim in read_json(claims.CLAIMS))
    with pytest.raises(CourseError, match="<!-- claims -->"):
        claims.fill("no table here")
