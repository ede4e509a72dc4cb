"""One way to train: a run that was interrupted and goes on ends with the numbers of an undisturbed one."""

import json
import math
import re
from dataclasses import replace

import pandas as pd
import pytest
import torch

from ssl_utils import experiments
from ssl_utils.errors import CourseError
from ssl_utils.experiments import Finetuning, Pretraining, pretraining, runs
from ssl_utils.networks.checkpoints import read_checkpoint
from ssl_utils.training import loop as training
from ssl_utils.training.loop import Clip, parameter_groups
from ssl_utils.training.recorder import Recorder

RUNS = {
    "pretrain": lambda where: experiments.pretrain(where, Pretraining.of("restoration", seed=3)),
    "finetune": lambda where: experiments.finetune(where, Finetuning(init="random", num_labeled=2, seed=3)),
}
WEIGHTS = {"pretrain": "task.safetensors", "finetune": "model.safetensors"}


def interrupt_at(monkeypatch, step: int) -> None:
    whole = Recorder.on_train_batch_end

    def breaks(self, trainer, *args):
        if trainer.global_step == step:
            raise InterruptedError("the power went")
        whole(self, trainer, *args)

    monkeypatch.setattr(Recorder, "on_train_batch_end", breaks)


@pytest.mark.long
@pytest.mark.parametrize("kind", RUNS)
def test_a_resumed_run_equals_an_undisturbed_one(tiny_setup, tmp_path, monkeypatch, kind):
    monkeypatch.setenv("SSL_RUNS_ROOT", str(tmp_path / "whole"))
    whole = RUNS[kind](tiny_setup)
    monkeypatch.setenv("SSL_RUNS_ROOT", str(tmp_path / "broken"))
    with monkeypatch.context() as patch, pytest.raises(InterruptedError):
        interrupt_at(patch, 7)
        RUNS[kind](tiny_setup)
    folder = tmp_path / "broken" / whole.relative_to(tmp_path / "whole")
    assert (folder / "last.ckpt").exists() and not (folder / "metrics.json").exists()
    assert RUNS[kind](tiny_setup) == folder
    expected, found = (read_checkpoint(run / WEIGHTS[kind]) for run in (whole, folder))
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    columns = ["step", "epoch", "train_loss", "lr"]
    pd.testing.assert_frame_equal(runs.history(whole)[columns], runs.history(folder)[columns])
    assert not (folder / "last.ckpt").exists(), "training state is dropped when the run is done"


@pytest.mark.long
def test_a_finished_run_is_not_run_again_but_other_settings_are(tiny_setup, tmp_path, monkeypatch):
    monkeypatch.setenv("SSL_RUNS_ROOT", str(tmp_path))
    first = experiments.pretrain(tiny_setup, Pretraining.of("simmim", seed=0))
    stamp = (first / "metrics.json").stat().st_mtime_ns
    assert experiments.pretrain(tiny_setup, Pretraining.of("simmim", seed=0)) == first
    assert (first / "metrics.json").stat().st_mtime_ns == stamp
    as_the_chapter = Pretraining.of("simmim", seed=0, mask_ratio=None, mask_unit=None)
    experiments.pretrain(tiny_setup, as_the_chapter)
    assert (first / "metrics.json").stat().st_mtime_ns == stamp
    longer = replace(tiny_setup, scale=replace(tiny_setup.scale, pretrain_steps=21))
    assert experiments.pretrain(longer, Pretraining.of("simmim")) == first
    assert (first / "metrics.json").stat().st_mtime_ns != stamp
    another = experiments.pretrain(tiny_setup, Pretraining.of("simmim", seed=1))
    assert another.name == "simmim__seed=1" and another != first
    other = experiments.pretrain(tiny_setup, Pretraining.of("simmim", seed=0, mask_ratio=0.3))
    assert other.name == "simmim__mask_ratio=0.3" and other != first


def test_what_starts_over_leaves_no_weights_of_before(tiny_setup, tmp_path, monkeypatch):
    """Were it interrupted, a fine-tuning would begin with those of other data."""
    monkeypatch.setenv("SSL_RUNS_ROOT", str(tmp_path))
    done = experiments.pretrain(tiny_setup, Pretraining.of("simmim", steps=2))
    assert list(done.glob("*.safetensors"))
    settings = json.loads((done / "config.json").read_text())["settings"]
    assert runs.begin(done, settings) and list(done.glob("*.safetensors"))
    assert not runs.begin(done, settings | {"data": "of more volumes"})
    with pytest.raises(CourseError, match="does not exist; run chapter 03_simmim_masking first"):
        experiments.build_network(tiny_setup, Finetuning(init=done.name))


def test_a_run_of_an_earlier_layout_is_one_line_and_stays_as_it_is(tiny_setup, tmp_path, monkeypatch):
    monkeypatch.setenv("SSL_RUNS_ROOT", str(tmp_path))
    folder = runs.pretrain_dir(tiny_setup.dataset.name, tiny_setup.scale.name, "simmim")
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"settings": {"mask_ratio": 0.6}, "commit": None}))
    (folder / "metrics.json").write_text("{}")
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(CourseError, match=f"^{folder}: was made by an earlier version .* SSL_RUNS_ROOT"):
        experiments.pretrain(tiny_setup, Pretraining(task="simmim"))
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_metrics_that_the_graph_deleted_come_back_without_training(tiny_setup, tmp_path, monkeypatch):
    monkeypatch.setenv("SSL_RUNS_ROOT", str(tmp_path))
    folder = experiments.pretrain(tiny_setup, Pretraining.of("simmim"))
    before = runs.metrics(folder)
    (folder / "metrics.json").unlink()
    monkeypatch.setattr(pretraining, "fit", None)
    assert experiments.pretrain(tiny_setup, Pretraining.of("simmim")) == folder and runs.metrics(folder) == before
    with pytest.raises(TypeError):  # of other settings they are not its own
        longer = replace(tiny_setup, scale=replace(tiny_setup.scale, pretrain_steps=21))
        experiments.pretrain(longer, Pretraining.of("simmim"))
    assert runs.metrics(folder) is None


def test_an_unreadable_checkpoint_is_named(tiny_setup, tmp_path, monkeypatch):
    monkeypatch.setenv("SSL_RUNS_ROOT", str(tmp_path))
    with monkeypatch.context() as patch, pytest.raises(InterruptedError):
        interrupt_at(patch, 7)
        RUNS["pretrain"](tiny_setup)
    (last,) = tmp_path.rglob("last.ckpt")
    last.write_bytes(last.read_bytes()[:1000])
    with pytest.raises(CourseError, match=r"last\.ckpt: cannot be resumed from"):
        RUNS["pretrain"](tiny_setup)


def test_a_loss_that_is_no_number_stops_the_run(tiny_setup, tmp_path, monkeypatch):
    monkeypatch.setenv("SSL_RUNS_ROOT", str(tmp_path))
    from ssl_utils.pretext.restoration import RestorationTask

    monkeypatch.setattr(RestorationTask, "score", lambda self, prediction, *_: prediction.mean() * math.nan)
    with pytest.raises(CourseError, match="the loss is nan at step 1, with crops of ") as fault:
        RUNS["pretrain"](tiny_setup)
    named = re.search("crops of (.*); run the doctor", str(fault.value))[1].split(", ")
    assert len(named) == tiny_setup.scale.pretrain_batch_size and set(named) <= {case.id for case in tiny_setup.pool}
    assert not list(tmp_path.rglob("metrics.json"))


def test_weight_decay_spares_norms_biases_positions_and_tokens():
    module = torch.nn.Module()
    module.weight = torch.nn.Parameter(torch.ones(2, 2))
    module.bias = torch.nn.Parameter(torch.ones(2))
    module.position_embeddings = torch.nn.Parameter(torch.ones(1, 2, 2))
    module.mask_token = torch.nn.Parameter(torch.ones(1, 1, 2))
    decayed, spared = parameter_groups([(module, 0.5)], lr=0.1, weight_decay=0.05)
    assert [p.shape for p in decayed["params"]] == [(2, 2)] and decayed["weight_decay"] == 0.05
    assert len(spared["params"]) == 3 and spared["weight_decay"] == 0 and spared["lr"] == 0.05


def test_gradients_have_a_norm_of_at_most_one():
    layer = torch.nn.Linear(4, 4)
    (1000 * layer(torch.ones(2, 4)).sum()).backward()
    Clip().on_before_optimizer_step(None, layer, None)
    assert torch.cat([p.grad.flatten() for p in layer.parameters()]).norm() == pytest.approx(1, rel=1e-4)


def test_the_precision_is_part_of_a_run(tiny_setup, tmp_path, monkeypatch):
    """Half precision is not the same numbers: a run made with it is not taken for one made without."""
    monkeypatch.setenv("SSL_RUNS_ROOT", str(tmp_path))
    monkeypatch.setattr(training.torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    assert training.device() != "cpu" or training.precision() == "32-true"
    folder = experiments.finetune(tiny_setup, Finetuning(init="random", num_labeled=2))
    assert json.loads((folder / "config.json").read_text())["settings"]["precision"] == training.precision()


def test_device_is_one_of_three():
    assert training.device() in ("cpu", "cuda", "mps")
