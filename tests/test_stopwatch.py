"""Where the seconds of a training went: a clock that moves only when a part of the training says so."""

import time

import lightning as L
import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from ssl_utils import experiments
from ssl_utils.experiments import Finetuning, Pretraining, finetuning, pretraining, runs, scales
from ssl_utils.training import loop as training, stopwatch
from ssl_utils.training.parallel import SharedStep
from ssl_utils.training.stopwatch import PARTS, Stopwatch

STEPS, VALIDATIONS = 6, 2
ALONE = {"data": 3.0, "forward": 5.0, "backward": 7.0, "optimiser": 11.0, "logging": 13.0}  # seconds of one step


class Clock:
    """Stands still but for what is spent on it."""

    now = 100.0

    def __call__(self) -> float:
        return self.now

    def spend(self, seconds: float) -> None:
        self.now += seconds


class Numbers(Dataset):
    def __init__(self, clock: Clock, seconds: float) -> None:
        self.clock, self.seconds = clock, seconds

    def __len__(self) -> int:
        return STEPS

    def __getitem__(self, index: int) -> torch.Tensor:
        self.clock.spend(self.seconds)
        return torch.ones(1)

    def ids(self, indices) -> list[str]:
        return ["a case"]


class Line(SharedStep):
    """One weight, each part of whose training takes the seconds it is told."""

    def __init__(self, clock: Clock, *, forward=0.0, backward=0.0, optimiser=0.0, validation=0.0) -> None:
        super().__init__()
        self.clock, self.weight = clock, torch.nn.Parameter(torch.ones(1))
        self.takes, self.held_out = {"forward": forward, "optimiser": optimiser}, validation
        self.weight.register_hook(lambda grad: clock.spend(backward))

    def training_step(self, batch, batch_idx):
        self.clock.spend(self.takes["forward"])
        return (self.weight * batch).sum()

    def on_before_optimizer_step(self, optimizer) -> None:
        self.clock.spend(self.takes["optimiser"])

    def validation_step(self, batch, batch_idx) -> None:
        self.clock.spend(self.held_out)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


class Slow(L.Callback):
    """Takes its time after every step."""

    def __init__(self, clock: Clock, seconds: float) -> None:
        self.clock, self.seconds = clock, seconds

    def on_train_batch_end(self, *_) -> None:
        self.clock.spend(self.seconds)


@pytest.fixture
def clock(monkeypatch) -> Clock:
    one = Clock()
    monkeypatch.setattr(stopwatch, "perf_counter", one)
    monkeypatch.setattr(training, "device", lambda: "cpu")
    return one


def spent(clock: Clock, folder, callbacks=(), **how) -> dict[str, float]:
    return fitted(clock, folder, callbacks, **how).stopwatch.spent


def fitted(
    clock: Clock, folder, callbacks=(), *, data=0.0, logging=0.0, steps=STEPS, validations=VALIDATIONS, **seconds
):
    return training.fit(
        Line(clock, **seconds),
        crops=Numbers(clock, data),
        validation=DataLoader(range(2)),
        folder=folder,
        steps=steps,
        batch_size=1,
        validations=validations,
        headline="a line",
        callbacks=[*callbacks, Slow(clock, logging)],
    )


@pytest.mark.parametrize("part", ALONE)
def test_what_is_slow_is_what_is_named(clock, tmp_path, part):
    found = spent(clock, tmp_path, **{part: 2.0})
    assert found == dict.fromkeys(PARTS, 0.0) | {part: 2.0 * STEPS}


def test_a_step_is_divided_and_nothing_is_lost(clock, tmp_path):
    began = clock.now
    found = spent(clock, tmp_path, **ALONE, validation=0.5)
    expected = {part: seconds * STEPS for part, seconds in ALONE.items()} | {"validation": 0.5 * 2 * VALIDATIONS}
    assert found == expected and sum(found.values()) == clock.now - began


@pytest.mark.parametrize(
    ("steps", "most", "at"),
    [(21, 10, range(3, 22, 3)), (20, 10, range(2, 21, 2)), (7, 3, (3, 6, 9)), (3, 10, (1, 2, 3)), (1, 5, (1,))],
)
def test_a_run_has_hardly_more_steps_than_it_should(clock, tmp_path, steps, most, at):
    """In place of 30 steps for 21, whose schedule had ended."""
    assert [row["step"] for row in fitted(clock, tmp_path, steps=steps, validations=most).rows] == [*at]


def test_no_scale_has_another_number_of_steps_or_validations():
    for scale in scales.SCALES.values():
        kinds = (scale.pretrain_steps, pretraining), (scale.finetune_steps, finetuning)
        assert all(steps % min(kind.VALIDATIONS, steps // 2) == 0 for steps, kind in kinds)


def test_a_run_that_goes_on_goes_on_counting(clock, tmp_path):
    class Breaks(L.Callback):
        def on_train_batch_start(self, trainer, *_) -> None:
            if trainer.global_step == 4:
                raise InterruptedError("the power went")

    with pytest.raises(InterruptedError):
        spent(clock, tmp_path, [Breaks()], **ALONE)
    assert (tmp_path / "last.ckpt").exists()
    clock.spend(1000)  # until somebody came back
    assert spent(clock, tmp_path, **ALONE) == {part: s * STEPS for part, s in ALONE.items()} | {"validation": 0.0}


def test_steps_that_were_not_waited_for_are_divided_as_those_that_were(clock, monkeypatch):
    """On a GPU a clock that does not wait sees a free forward and an expensive reading of the loss."""
    waits = []
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    monkeypatch.setattr(
        torch.accelerator,
        "synchronize",
        lambda: (waits.append(1), clock.spend(queue.pop())) if queue else waits.append(0),
    )
    module, watch, queue = L.LightningModule(), Stopwatch(every=4), []
    monkeypatch.setattr(L.LightningModule, "device", torch.device("cuda"))
    trainer = L.Trainer(logger=False, enable_checkpointing=False, enable_progress_bar=False, accelerator="cpu")
    watch.on_train_epoch_start(trainer, module)
    for step in range(8):
        monkeypatch.setattr(type(trainer), "global_step", step)
        clock.spend(1.0)
        watch.on_train_batch_start(trainer, module, None, step)
        sampled = step % 4 == 1
        for seconds, mark in ((2.0, watch.on_before_backward), (4.0, watch.on_after_backward)):
            queue.append(seconds)
            mark(trainer, module, *([None] if mark == watch.on_before_backward else []))
            assert bool(queue) != sampled, "whether it waited"
        watch.on_train_batch_end(trainer, module, None, None, step)
        clock.spend(sum(queue))  # the loss is read
        queue.clear()
        watch.end_of_step()
    assert watch.spent == dict.fromkeys(PARTS, 0.0) | {"data": 8.0, "forward": 16.0, "backward": 32.0}
    assert len(waits) == 2 * 4, "two steps of eight, four marks each"


@pytest.mark.parametrize("kind", ["pretrain", "finetune"])
def test_a_run_says_where_its_seconds_went(tiny_setup, tmp_path, monkeypatch, kind):
    """In seconds of this thread: those of the wall clock hold whatever else the machine does between two marks."""
    monkeypatch.setenv("SSL_RUNS_ROOT", str(tmp_path))
    monkeypatch.setattr(time, "perf_counter", time.thread_time)
    monkeypatch.setattr(stopwatch, "perf_counter", time.thread_time)
    run = {"pretrain": Pretraining(task="simmim"), "finetune": Finetuning(num_labeled=2)}[kind]
    done = runs.metrics(getattr(experiments, kind)(tiny_setup, run))
    found = done["spent"]
    assert set(found) == {*PARTS, *(["looking"] if kind == "pretrain" else [])}
    assert all(seconds >= 0 for seconds in found.values()) and found["forward"] > 0 and found["backward"] > 0
    trained = sum(found.values()) - found.get("looking", 0)
    assert trained == pytest.approx(done["seconds"], rel=0.15, abs=0.2)
