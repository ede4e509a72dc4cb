"""Curves for other programs: one point per step also after a run was interrupted, W&B only when asked for."""

import json
import sys
from types import SimpleNamespace

import pytest
from tensorboardX.proto.event_pb2 import Event

from ssl_utils import __main__ as cli, experiments
from ssl_utils.errors import CourseError
from ssl_utils.experiments import Finetuning, Pretraining, runs
from ssl_utils.training import logs, recorder
from ssl_utils.training.recorder import Recorder


def points(folder) -> dict[str, list[tuple[int, float]]]:
    """Tag -> (step, value) of every event file of a run."""
    found = {}
    for path in sorted((folder / "tensorboard").glob("events.out.tfevents.*")):
        content = path.read_bytes()
        while content:  # length (8 bytes), its checksum (4), the event, its checksum (4)
            size = int.from_bytes(content[:8], "little")
            event, content = Event.FromString(content[12 : 12 + size]), content[16 + size :]
            for value in event.summary.value:
                found.setdefault(value.tag, []).append((event.step, value.simple_value))
    return found


def interrupt_at(monkeypatch, step: int) -> None:
    whole = Recorder.on_train_batch_end

    def breaks(self, trainer, *args):
        whole(self, trainer, *args)
        if trainer.global_step == step:
            raise InterruptedError("the power went")

    monkeypatch.setattr(Recorder, "on_train_batch_end", breaks)


def same(found: dict, expected: dict) -> bool:
    """The same curves, but for the seconds."""
    return all(found[tag] == expected[tag] for tag in expected if tag != "seconds") and found.keys() == expected.keys()


def test_tensorboard_holds_the_history_and_the_loss_between_validations(tiny_setup, tmp_path, monkeypatch):
    monkeypatch.setenv("SSL_RUNS_ROOT", str(tmp_path))
    folder = experiments.finetune(tiny_setup, Finetuning(init="random", num_labeled=2))
    found, history = points(folder), runs.history(folder)
    assert found.keys() == {"train_loss_step", *history.columns} - {"step"}
    assert [step for step, _ in found["train_loss_step"]] == list(range(1, 11))
    for column in history.columns.drop("step"):
        assert [step for step, _ in found[column]] == history["step"].tolist()
        assert [value for _, value in found[column]] == pytest.approx(history[column].tolist(), rel=1e-6)
    assert not [path for path in (folder / "tensorboard").iterdir() if "tfevents" not in path.name]


def test_a_long_run_has_no_more_points_than_a_curve_needs(tiny_setup, tmp_path, monkeypatch):
    monkeypatch.setenv("SSL_RUNS_ROOT", str(tmp_path))
    monkeypatch.setattr(recorder, "POINTS", 4)
    folder = experiments.pretrain(tiny_setup, Pretraining.of("simmim"))  # 20 steps
    assert [step for step, _ in points(folder)["train_loss_step"]] == [5, 10, 15, 20]


@pytest.mark.parametrize("step", [7, 8])  # between two checkpoints, and at the last step before one
def test_a_run_that_goes_on_has_every_point_once(tiny_setup, tmp_path, monkeypatch, step):
    monkeypatch.setenv("SSL_RUNS_ROOT", str(tmp_path / "whole"))
    whole = experiments.pretrain(tiny_setup, Pretraining.of("restoration"))
    monkeypatch.setenv("SSL_RUNS_ROOT", str(tmp_path / "broken"))
    with monkeypatch.context() as patch, pytest.raises(InterruptedError):
        interrupt_at(patch, step)
        experiments.pretrain(tiny_setup, Pretraining.of("restoration"))
    folder = tmp_path / "broken" / whole.relative_to(tmp_path / "whole")
    assert points(folder)["train_loss_step"][-1][0] == step, "what was written when the power went can be looked at"
    experiments.pretrain(tiny_setup, Pretraining.of("restoration"))
    assert same(points(folder), points(whole))
    assert len(list((folder / "tensorboard").iterdir())) == 1


def test_a_folder_that_cannot_be_removed_is_used_again(tmp_path, monkeypatch):
    """A network disk keeps a file that another program has open."""
    monkeypatch.setattr(logs.shutil, "rmtree", lambda *_, **__: None)
    (tmp_path / "tensorboard").mkdir()
    writer = logs.Logs(tmp_path, headline="test", points=[(1, {"loss": 0.5})])
    writer.close(failed=False)
    assert points(tmp_path) == {"loss": [(1, 0.5)]}


@pytest.mark.long
def test_a_run_that_starts_over_forgets_the_old_curves(tiny_setup, tmp_path, monkeypatch):
    monkeypatch.setenv("SSL_RUNS_ROOT", str(tmp_path))
    folder = experiments.finetune(tiny_setup, Finetuning(init="random", num_labeled=2))
    before = points(folder)
    assert experiments.finetune(tiny_setup, Finetuning(init="random", num_labeled=2)) == folder
    assert points(folder) == before, "a finished run is left alone"
    config = json.loads((folder / "config.json").read_text())
    config["settings"]["lr"] = 1.0
    (folder / "config.json").write_text(json.dumps(config))
    experiments.finetune(tiny_setup, Finetuning(init="random", num_labeled=2))
    assert same(points(folder), before)


# Weights & Biases, played by a module that keeps what it is told


class Wandb(SimpleNamespace):
    Error = type("Error", (Exception,), {})

    def __init__(self):
        super().__init__(runs=[])

    def init(self, **words):
        run = SimpleNamespace(words=words, logged=[], ended=None)
        run.log = lambda values, step: run.logged.append((step, values))
        run.finish = lambda exit_code: setattr(run, "ended", exit_code)
        self.runs.append(run)
        return run


@pytest.fixture
def wandb(tmp_path, monkeypatch):
    monkeypatch.setenv("SSL_RUNS_ROOT", str(tmp_path))
    monkeypatch.delenv("SSL_WANDB", raising=False)
    module = Wandb()
    monkeypatch.setitem(sys.modules, "wandb", module)
    return module


def test_wandb_is_not_asked_for_by_default(tiny_setup, wandb):
    experiments.finetune(tiny_setup, Finetuning(init="random", num_labeled=2))
    assert not wandb.runs


def test_wandb_gets_the_points_of_tensorboard_and_decides_nothing(tiny_setup, wandb, monkeypatch):
    monkeypatch.setenv("SSL_WANDB", "1")
    folder = experiments.finetune(tiny_setup, Finetuning(init="random", num_labeled=2))
    (run,) = wandb.runs
    settings = json.loads((folder / "config.json").read_text())["settings"]
    assert run.words == {"project": "ssl-utils", "name": "finetune random n=2", "dir": folder, "config": settings}
    assert "wandb" not in json.dumps(settings).lower() and run.ended == 0
    found = {}
    for step, values in run.logged:
        for tag, value in values.items():
            found.setdefault(tag, []).append((step, pytest.approx(value, rel=1e-6)))
    assert same(points(folder), found)
    steps = [step for step, _ in run.logged]
    assert steps == sorted(steps), "W&B drops a point whose step lies before the last one"
    monkeypatch.delenv("SSL_WANDB")
    stamp = (folder / "metrics.json").stat().st_mtime_ns
    experiments.finetune(tiny_setup, Finetuning(init="random", num_labeled=2))
    assert (folder / "metrics.json").stat().st_mtime_ns == stamp, "with and without W&B it is the same run"


def test_a_broken_off_run_ends_as_failed_and_the_next_one_has_all_points(tiny_setup, wandb, monkeypatch):
    monkeypatch.setenv("SSL_WANDB", "1")
    with monkeypatch.context() as patch, pytest.raises(InterruptedError):
        interrupt_at(patch, 7)
        experiments.pretrain(tiny_setup, Pretraining.of("restoration"))
    experiments.pretrain(tiny_setup, Pretraining.of("restoration"))
    first, second = wandb.runs
    assert (first.ended, second.ended) == (1, 0)
    assert [step for step, values in second.logged if "train_loss_step" in values] == list(range(1, 21))


@pytest.mark.parametrize(
    ("fault", "line"),
    [
        (None, r"wandb: is not installed; pip install -e '\.\[wandb\]'"),
        ("no key\nhere", "wandb: no key here; run `wandb login`, or set WANDB_MODE=offline"),
    ],
)
def test_what_wandb_lacks_is_one_line_before_any_step(tiny_setup, wandb, monkeypatch, fault, line):
    monkeypatch.setenv("SSL_WANDB", "1")
    if fault is None:
        monkeypatch.setitem(sys.modules, "wandb", None)

    def refuse(**_):
        raise Wandb.Error(fault)

    wandb.init = refuse
    with pytest.raises(CourseError, match=line):
        experiments.finetune(tiny_setup, Finetuning(init="random", num_labeled=2))
    assert not list(runs.runs_root().rglob("history.csv")) and not list(runs.runs_root().rglob("*tfevents*"))


@pytest.mark.parametrize("words", [["pretrain", "simmim"], ["finetune", "random", "--num-labeled", "2"]])
def test_the_flag_of_the_command_line(tiny_setup, wandb, monkeypatch, blobs, words):
    monkeypatch.setitem(cli.scales.SCALES, "smoke", tiny_setup.scale)
    monkeypatch.setenv("SSL_WANDB", "0")  # so that it is put back
    own = ["--dataset", "folder", "--data", str(blobs), "--scale", "smoke"]
    monkeypatch.setattr(sys, "argv", ["ssl_utils", *words, *own, "--wandb"])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    assert not stop.value.code and [run.ended for run in wandb.runs] == [0]
