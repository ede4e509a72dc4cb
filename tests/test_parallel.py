"""Two processes that share every batch do what one does with the whole batch, also when one takes over from two."""

import math
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import numpy as np
import pytest
import torch

from ssl_utils.data.crops import Ahead, Consecutive
from ssl_utils.errors import CourseError
from ssl_utils.experiments import Pretraining, building, runs
from ssl_utils.files import read_json
from ssl_utils.networks.checkpoints import read_checkpoint
from ssl_utils.pretext.mae import MAETask
from ssl_utils.training.parallel import Team
from ssl_utils.training.recorder import Recorder
from tests import parallel_jobs
from tests.parallel_jobs import JOBS, breaks, broken, comparable

PROJECT = Path(__file__).resolve().parents[1]
OF_SLURM = {
    "SLURM_STEP_NUM_TASKS": "4",
    "SLURM_NTASKS": "4",
    "SLURM_NTASKS_PER_NODE": "2",
    "SLURM_NODEID": "1",
    "SLURM_LOCALID": "1",
    "SLURM_PROCID": "3",
}
OF_TORCHRUN = {
    "TORCHELASTIC_RUN_ID": "a",
    "WORLD_SIZE": "4",
    "GROUP_RANK": "1",
    "LOCAL_RANK": "0",
    "RANK": "2",
    "MASTER_ADDR": "localhost",
    "MASTER_PORT": "29500",
}


@pytest.fixture(scope="module")
def where(blobs):
    return parallel_jobs.setup(blobs)


def at(root: Path):
    return mock.patch.dict(os.environ, {"SSL_RUNS_ROOT": str(root)})


@pytest.fixture(scope="module")
def alone(where, tmp_path_factory) -> dict[str, Path]:
    """Job -> run folder, each trained by this process."""
    with at(tmp_path_factory.mktemp("alone")), comparable():
        whole = {f"broken_{task}": broken(where, task) for task in ("simmim", "mae")}
        return {name: job(where) for name, job in JOBS.items()} | whole


@pytest.fixture(scope="module")
def team(blobs, where, tmp_path_factory) -> SimpleNamespace:
    """The same by two processes, below `root`; their last run is interrupted. `heard[name]`: what each has."""
    root, heard = tmp_path_factory.mktemp("team"), tmp_path_factory.mktemp("heard")
    with at(root), comparable(), breaks(MAETask, at=5, here=True), pytest.raises(CourseError):
        broken(where, "mae")  # they take it up
    command = [sys.executable, "-m", "tests.parallel_jobs", str(blobs), str(heard)]
    environment = os.environ | {"SSL_RUNS_ROOT": str(root)}
    done = subprocess.run(command, cwd=PROJECT, env=environment, capture_output=True, text=True, timeout=1500)
    known = {path.stem: read_json(path) for path in heard.iterdir()}
    names = {name.rpartition("-")[0] for name in known}
    return SimpleNamespace(root=root, done=done, heard={n: [known[f"{n}-{rank}"] for rank in (0, 1)] for n in names})


def same_run(one: Path, two: Path) -> None:
    """Curves and weights agree to what the order of a sum can change; there is one row per validation."""
    first, second = runs.history(one), runs.history(two)
    assert first["step"].tolist() == second["step"].tolist() == [3, 6, 9]
    for column in first.columns.drop("seconds"):
        assert second[column].tolist() == pytest.approx(first[column].tolist(), rel=1e-4), column
    for path in one.glob("*.safetensors"):
        expected, found = read_checkpoint(path), read_checkpoint(two / path.name)
        assert expected.keys() == found.keys()
        assert all(torch.allclose(found[name], expected[name], rtol=1e-3, atol=1e-5) for name in expected), path.name
    assert runs.metrics(one).keys() == runs.metrics(two).keys()


@pytest.mark.long
@pytest.mark.parametrize("name", JOBS)
def test_two_processes_make_the_run_of_one(alone, team, name):
    assert name in team.heard, team.done.stdout[-2000:] + team.done.stderr[-2000:]
    root = next(parent for parent in alone[name].parents if parent.name.startswith("alone"))
    two = team.root / alone[name].relative_to(root)
    same_run(alone[name], two)
    assert runs.metrics(two)["processes"] == 2 and runs.metrics(alone[name])["processes"] == 1
    settings = [read_json(folder / "config.json")["settings"] for folder in (alone[name], two)]
    assert settings[0] == settings[1], "a run is the same run however many processes make it"


@pytest.mark.long
def test_the_test_cases_score_as_after_one_process(alone, team):
    one, two = (runs.metrics(folder) for folder in (alone["finetune"], next(team.root.rglob("subset0_seed0"))))
    assert two["best_step"] == one["best_step"] and two["dice"] == pytest.approx(one["dice"], abs=1e-3)


@pytest.mark.long
@pytest.mark.parametrize("name", JOBS)
def test_both_processes_know_the_same_and_return_when_it_is_done(team, name):
    first, second = team.heard[name]
    assert first == second and first["done"], "rows, best step, sums of all weights"
    assert len(first["rows"]) == 3


@pytest.mark.long
def test_best_is_best_for_both_also_when_they_disagree(team):
    first, second = team.heard["disagreeing"]
    assert first["best"] == second["best"] == {"dice": pytest.approx(0.5), "step": 3}


@pytest.mark.long
def test_without_the_rows_of_others_contrast_is_another_task(alone, team):
    """Two crops instead of four: fewer to be told apart from. Else gathering would be tested by nothing."""
    loss = runs.history(alone["latent"])["train_loss"]
    apart = [row["train_loss"] for row in team.heard["apart"][0]["rows"]]
    assert np.all(np.abs(loss - apart) > 0.05 * loss)


@pytest.mark.long
def test_one_process_starts_and_two_go_on(alone, team):
    assert "taken_up" in team.heard
    (two,) = team.root.rglob("mae__mask_ratio=0.5")
    same_run(alone["broken_mae"], two)


@pytest.mark.long
def test_a_loss_that_is_no_number_in_the_second_stops_both_and_one_goes_on(where, alone, team):
    said = team.done.stdout + team.done.stderr
    assert team.done.returncode == 1 and said.count("the loss is nan at step 5, with crops of ") == 1, said[-3000:]
    assert "Traceback" not in said and "UserWarning" not in said, said[-3000:]
    (folder,) = team.root.rglob("simmim__mask_ratio=0.5")
    assert (folder / "last.ckpt").exists() and runs.metrics(folder) is None
    assert not list(team.root.rglob(".tmp-*"))
    with at(team.root), comparable():
        assert broken(where, "simmim") == folder
    same_run(alone["broken_simmim"], folder)


@pytest.mark.long
def test_the_command_line(blobs, tmp_path):
    words = ["pretrain", "simmim", "--scale", "smoke", "--dataset", "folder", "--data", str(blobs)]
    done = subprocess.run(
        [sys.executable, "-m", "ssl_utils", *words, "--steps", "4", "--devices", "2"],
        cwd=PROJECT,
        env=os.environ | {"SSL_RUNS_ROOT": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0 and done.stderr == "", done.stdout + done.stderr
    assert [line.split(":")[0] for line in done.stdout.splitlines()[:2]] == ["pretrain simmim__steps=4"] * 2
    assert done.stdout.count("Encoder in") == 1 and len(done.stdout.splitlines()) == 3  # two validations


@pytest.mark.parametrize(
    ("team", "environment", "complaint"),
    [
        (Team(3), {}, "devices=3, num_nodes=1: cannot share a batch of 8 equally; choose 1, 2, 4, 8 processes"),
        (Team(0), {}, "must be at least 1"),
        (Team(2, 2), {}, "need 4 processes, 1 started; use srun --nodes=2 --ntasks-per-node=2"),
        (Team(), OF_SLURM, "need 1 processes, 4 started"),
        (Team(2, 2), {k: v for k, v in OF_SLURM.items() if k != "SLURM_NTASKS_PER_NODE"}, "add --ntasks-per-node=2"),
    ],
)
def test_a_team_that_does_not_fit_is_refused_in_one_line(team, environment, complaint):
    with mock.patch.dict(os.environ, environment), pytest.raises(CourseError, match=complaint) as fault:
        team.check(8)
    assert "\n" not in str(fault.value)


@pytest.mark.parametrize(
    ("team", "environment", "rank"),
    [
        (Team(2, 2), OF_SLURM, 3),
        (Team(2, 2), OF_TORCHRUN, 2),
        (Team(2), {}, 0),
        (Team(2), {"LOCAL_RANK": "1"}, 1),  # the one that Lightning starts
        (Team(2), {"SLURM_NTASKS": "2", "SLURM_PROCID": "0"}, 0),  # in a batch script without srun: Lightning starts it
        (Team(), OF_SLURM | {"LOCAL_RANK": "1"}, 0),
    ],
)
def test_who_is_who(team, environment, rank):
    with mock.patch.dict(os.environ, environment):
        assert team.rank == rank and team.first == (rank == 0)


def test_shares_of_a_batch_are_the_batch():
    shares = [Consecutive(16, batch_size=4, rank=rank, processes=2) for rank in (0, 1)]
    for share in shares:
        share.set_epoch(1)
    assert [list(share) for share in shares] == [[16, 17, 20, 21, 24, 25, 28, 29], [18, 19, 22, 23, 26, 27, 30, 31]]
    assert len(shares[0]) == 8


def test_batches_made_ahead_are_the_same_and_so_is_a_fault():
    numbers = list(range(10))
    assert [batch.tolist() for batch in Ahead(numbers, 4)] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    faulty = [1, 2, SimpleNamespace()]
    with pytest.raises(TypeError, match="SimpleNamespace"):
        list(Ahead(faulty, 1))


def test_a_gpu_is_asked_rarely_and_the_step_is_named_all_the_same(tmp_path):
    found = Recorder(tmp_path, steps=1000, headline="", cases=lambda step: [f"case {step}"], stopwatch=mock.Mock())
    trainer = mock.Mock(is_last_batch=False, is_global_zero=True)
    trainer.strategy.reduce.side_effect = lambda losses, reduce_op: losses
    gpu, known = SimpleNamespace(device=SimpleNamespace(type="cuda")), []
    for step in range(1, 15):
        trainer.global_step, trainer.is_last_batch = step, step == 14
        found.on_train_batch_end(trainer, gpu, {"loss": torch.tensor(float(step))}, None, 0)
        known.append(len(found.losses))
    assert known == [1] * 10 + [11] * 3 + [14] and found.losses == list(range(1, 15))
    with pytest.raises(CourseError, match="the loss is nan at step 17, with crops of case 17;"):
        for step in range(15, 22):
            trainer.global_step, trainer.is_last_batch = step, False
            loss = torch.tensor(math.nan if step >= 17 else 1.0)
            found.on_train_batch_end(trainer, gpu, {"loss": loss}, None, 0)
    assert step == 21


def test_the_others_wait_until_the_first_has_opened_the_run(tmp_path):
    settings = {"seed": 1, "sizes": (1, 2)}
    with pytest.raises(CourseError, match="the first process has not opened this run"):
        runs._opened(tmp_path, {"seed": 1, "sizes": [1, 2]}, seconds=0)
    assert not runs.begin(tmp_path, settings) and not runs.begin(tmp_path, settings, first=False)
    runs.finish(tmp_path, {})
    (tmp_path / "metrics.json").unlink()  # the first one puts it back
    assert runs.begin(tmp_path, settings, first=False) and not (tmp_path / "metrics.json").exists()


TASKS = [
    ("simmim", {}),
    ("simmim", {"scope": "network"}),
    ("mae", {}),
    ("restoration", {"contrast": "none"}),
    ("restoration", {"contrast": "latent"}),
    ("restoration", {"contrast": "published", "scope": "network"}),
    ("voxel_clusters", {}),
    ("voxel_clusters", {"scope": "encoder"}),
    ("genesis", {}),
    ("patch_clusters", {}),
]


@pytest.mark.parametrize(("task", "options"), TASKS)
def test_every_parameter_takes_part_in_every_step(where, task, options):
    """Processes that share a step wait for the gradient of each, and for ever for one that does not come."""
    module = building.build_task(where, Pretraining.of(task, seed=0, **options))
    assert not module.freezes
    module.losses(torch.rand(2, 1, *where.grid.roi), torch.Generator().manual_seed(0))["loss"].backward()
    assert not [name for name, weight in module.named_parameters() if weight.grad is None]
