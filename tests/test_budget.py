"""A budget of seconds: steps from a timed step, the same after an interruption, and no trace in the training."""

import json

import pytest
import torch

from ssl_utils import experiments
from ssl_utils.data.crops import Crops
from ssl_utils.errors import CourseError
from ssl_utils.experiments import Pretraining, runs
from ssl_utils.training import budget
from ssl_utils.training.parallel import Team


@pytest.fixture
def ticks(monkeypatch):
    """A clock of which every reading is 0.25 s later: a step takes 0.25 s."""
    now = iter(range(10_000))
    monkeypatch.setattr(budget, "clock", lambda: next(now) / 4)


def prepared(setup):
    module = experiments.build_task(setup, Pretraining.of("simmim"))
    return module, Crops(setup.prepared(setup.pool), roi=setup.grid.roi, seed=0)


def test_a_step_is_timed_on_a_copy(tiny_setup, ticks):
    module, crops = prepared(tiny_setup)
    before, state = {k: v.clone() for k, v in module.state_dict().items()}, torch.get_rng_state()
    assert budget.step_seconds(module, crops, 2, steps=3) == pytest.approx(0.25)
    assert torch.equal(torch.get_rng_state(), state) and all(p.grad is None for p in module.parameters())
    assert all(torch.equal(before[name], value) for name, value in module.state_dict().items())


def test_a_step_without_a_schedule_is_timed_too(tiny_setup, ticks):
    module, crops = prepared(tiny_setup)
    module.optimizer = "schedule_free"
    assert budget.step_seconds(module, crops, 2, steps=3) == pytest.approx(0.25)


def test_seconds_are_refused_where_nothing_is_trained(tiny_setup):
    run = Pretraining.of("inflation", how="random", seconds=5)
    with pytest.raises(CourseError, match=r"seconds=5.*: with these options inflation trains nothing; leave it out"):
        experiments.pretrain(tiny_setup, run)


def test_the_number_of_steps_is_kept_for_a_run_that_goes_on(tiny_setup, ticks, tmp_path, monkeypatch):
    module, crops = prepared(tiny_setup)
    found = budget.steps_within(3, module, crops, 2, folder=tmp_path)
    assert found == {"steps": 12, "step_seconds": 0.25} == json.loads((tmp_path / "budget.json").read_text())
    monkeypatch.setattr(budget, "clock", None)  # not timed again
    assert budget.steps_within(3, module, crops, 2, folder=tmp_path) == found


def test_a_pretraining_ends_after_its_seconds_and_is_not_made_twice(tiny_setup, ticks, tmp_path, monkeypatch):
    monkeypatch.setenv("SSL_RUNS_ROOT", str(tmp_path))
    run = Pretraining.of("simmim", seconds=1)
    folder = experiments.pretrain(tiny_setup, run)
    done = runs.metrics(folder)
    assert folder.name == "simmim__seconds=1" and done["steps"] == done["last"]["step"] == 4
    assert done["last"]["lr"] < 1e-6 * tiny_setup.scale.pretrain_lr, "the schedule ends with the budget"
    monkeypatch.setattr(budget, "clock", None)
    assert experiments.pretrain(tiny_setup, run) == folder


def test_several_processes_are_refused(tiny_setup):
    with pytest.raises(CourseError, match="seconds=1: a step is timed in one process; give steps"):
        experiments.pretrain(tiny_setup, Pretraining.of("simmim", seconds=1), team=Team(2))
