"""Optimisers: their schedules, the averaged weights of the schedule-free one, what cannot be resumed or averaged."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from schedulefree import AdamWScheduleFree

from ssl_utils import experiments
from ssl_utils.errors import CourseError
from ssl_utils.experiments import Finetuning, Pretraining, runs
from ssl_utils.networks.checkpoints import read_checkpoint
from ssl_utils.segmentation.finetune import SegmentationTask
from ssl_utils.training.optimisers import OPTIMISERS, configured
from ssl_utils.training.recorder import Recorder

FREE = Finetuning(num_labeled=2, seed=3, optimizer="schedule_free")


def rates(name: str, steps: int = 100) -> np.ndarray:
    """The learning rate of every step."""
    made = configured(name, [{"params": [torch.nn.Parameter(torch.ones(1))], "lr": 1.0}], steps=steps, betas=(0.9, 0.9))
    optimizer, schedule, seen = made["optimizer"], made["lr_scheduler"]["scheduler"], []
    for _ in range(steps):
        seen.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return np.array(seen)


@pytest.mark.parametrize("name", [name for name, entry in OPTIMISERS.items() if entry.schedule])
def test_every_schedule_warms_up_and_ends_near_zero(name):
    seen = rates(name)
    assert seen[0] == pytest.approx(0.1) and np.argmax(seen) in (9, 10) and seen.max() == 1 and seen[-1] < 0.02


def test_schedules_fall_as_their_names_say():
    assert all(np.diff(rates("adamw_cosine")[10:]) <= 0)
    polynomial = rates("adamw_polynomial")
    np.testing.assert_allclose(polynomial[10:], (1 - np.arange(90) / 90) ** 0.9)
    starts = [step for step, jump in enumerate(np.diff(rates("adamw_restarts"))[10:], 11) if jump > 0]
    assert starts == [40, 70]  # three cycles of 30 steps after 10 of warm-up
    np.testing.assert_allclose(rates("adamw_restarts")[[10, 40, 70]], [1, 0.5, 0.25])


def trained(where, run: Finetuning, folder, monkeypatch):
    monkeypatch.setenv("SSL_RUNS_ROOT", str(folder))
    return experiments.finetune(where, run)


def test_validation_choice_and_model_see_the_mean_of_all_steps(tiny_setup, tmp_path, monkeypatch):
    total, sums, seen, scored = 0.0, {}, [], []
    step, score = AdamWScheduleFree.step, SegmentationTask.on_validation_epoch_end

    def steps(self, closure=None):
        nonlocal total
        loss, weight = step(self, closure), self.param_groups[-1]["lr_max"] ** 2
        total += weight
        for parameter, state in self.state.items():  # z is the iterate of AdamW; a mean with lr^2 as weights
            sums[parameter] = sums.get(parameter, 0) + state["z"].double() * weight
        return loss

    def scores(self):
        seen.extend((p.detach().double(), sums[p] / total) for p in self.network.parameters() if p in sums)
        score(self)
        scored.append(self)

    monkeypatch.setattr(AdamWScheduleFree, "step", steps)
    monkeypatch.setattr(SegmentationTask, "on_validation_epoch_end", scores)
    folder = trained(tiny_setup, FREE, tmp_path, monkeypatch)
    assert len(scored) == 5 and len(seen) >= 5 * len(list(scored[0].network.parameters())) * 0.9
    for weights, mean in seen[-len(sums) :]:
        torch.testing.assert_close(weights, mean, atol=1e-5, rtol=1e-3)
    saved, best = read_checkpoint(folder / "model.safetensors"), scored[0].best["weights"]
    assert all(torch.equal(saved[name], best[name]) for name in best)


def test_gradients_are_taken_elsewhere(tiny_setup, tmp_path, monkeypatch):
    """In training the network holds y, 0.1 of the way from the mean to the iterate."""
    seen, whole = [], SegmentationTask.training_step

    def look(self, batch, batch_idx):
        (optimizer,) = self.trainer.optimizers
        stepped = {p: state["z"] for p, state in optimizer.state.items() if state}
        trained = {p: p.detach().clone() for p in stepped}
        optimizer.eval()
        seen.extend((y, 0.9 * p.detach() + 0.1 * stepped[p]) for p, y in trained.items())
        optimizer.train()
        return whole(self, batch, batch_idx)

    monkeypatch.setattr(SegmentationTask, "training_step", look)
    trained(tiny_setup, FREE, tmp_path, monkeypatch)
    assert len(seen) > 9
    for y, expected in seen:
        torch.testing.assert_close(y, expected, atol=1e-5, rtol=1e-4)


def interrupted(where, run: Finetuning, folder, monkeypatch):
    """The last.ckpt of a run that was killed at step 7 of 10."""
    whole = Recorder.on_train_batch_end

    def breaks(self, trainer, *args):
        if trainer.global_step == 7:
            raise InterruptedError
        whole(self, trainer, *args)

    with monkeypatch.context() as patch, pytest.raises(InterruptedError):
        patch.setattr(Recorder, "on_train_batch_end", breaks)
        trained(where, run, folder, monkeypatch)
    (last,) = folder.rglob("last.ckpt")
    return last


def test_a_resumed_run_equals_an_undisturbed_one_and_no_other_optimiser_resumes_it(tiny_setup, tmp_path, monkeypatch):
    whole = trained(tiny_setup, FREE, tmp_path / "whole", monkeypatch)
    last = interrupted(tiny_setup, FREE, tmp_path / "broken", monkeypatch)
    state = torch.load(last, weights_only=True)["optimizer_states"][0]
    assert all("z" in one for one in state["state"].values()) and not state["param_groups"][0]["train_mode"]
    cosine = Finetuning(num_labeled=2, seed=3)
    other = tmp_path / "other" / last.relative_to(tmp_path / "broken").as_posix().replace(FREE.name, cosine.name)
    other.parent.mkdir(parents=True)
    shutil.copy(last, other)
    folder = trained(tiny_setup, FREE, tmp_path / "broken", monkeypatch)
    assert runs.history(whole)["train_loss"].tolist() == runs.history(folder)["train_loss"].tolist()
    expected, found = (read_checkpoint(run / "model.safetensors") for run in (whole, folder))
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    words = (
        r"last\.ckpt: was written with optimizer=schedule_free, not adamw_cosine; resume with optimizer=schedule_free"
    )
    with pytest.raises(CourseError, match=words) as fault:
        trained(tiny_setup, cosine, tmp_path / "other", monkeypatch)
    assert "\n" not in str(fault.value)


def test_batch_norm_and_averages_do_not_go_together(tiny_setup):
    words = "optimizer='schedule_free': unet_plain has batch norm.*choose optimizer=adamw_cosine"
    with pytest.raises(CourseError, match=words):
        experiments.build_network(tiny_setup, Finetuning(network="unet_plain", optimizer="schedule_free"))
    with pytest.raises(CourseError, match="simmim on unet_plain has batch norm"):
        experiments.build_task(tiny_setup, Pretraining.of("simmim", network="unet_plain", optimizer="schedule_free"))


def test_rates_of_parts_hold_and_the_default_is_that_of_the_optimiser(tiny_setup, tmp_path, monkeypatch):
    made = []
    monkeypatch.setattr("ssl_utils.experiments.finetuning.fit", lambda module, **_: made.append(module) or exit())
    for run in (FREE, Finetuning(num_labeled=2), Finetuning(num_labeled=2, lr=0.5, optimizer="schedule_free")):
        with pytest.raises(SystemExit):
            trained(tiny_setup, run, tmp_path, monkeypatch)
    assert [module.lr for module in made] == [2.7e-3, tiny_setup.scale.finetune_lr, 0.5]
    groups = made[0].configure_optimizers()["optimizer"].param_groups
    assert groups[0]["lr"] == pytest.approx(2.7e-4) and groups[-1]["lr"] == 2.7e-3, "encoder and decoder"


def test_pretraining_ends_with_the_average_too(tiny_setup, tmp_path, monkeypatch):
    monkeypatch.setenv("SSL_RUNS_ROOT", str(tmp_path))
    short = replace(tiny_setup, scale=replace(tiny_setup.scale, pretrain_steps=2))
    modes, whole = [], AdamWScheduleFree.eval
    monkeypatch.setattr(AdamWScheduleFree, "eval", lambda self: (whole(self), modes.append(self)))
    folder = experiments.pretrain(short, Pretraining.of("simmim", optimizer="schedule_free"))
    assert folder.name == "simmim__optimizer=schedule_free" and not modes[-1].param_groups[0]["train_mode"]
    saved = read_checkpoint(folder / "task.safetensors").values()
    weights = [p for group in modes[-1].param_groups for p in group["params"]]
    assert all(any(torch.equal(p.cpu(), one) for one in saved if one.shape == p.shape) for p in weights)
