"""The trainings that test_parallel.py compares: alone in its own process, or shared by two that `python -m` starts."""

import json
import math
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from unittest import mock

import torch

from ssl_utils import experiments
from ssl_utils.data import datasets
from ssl_utils.errors import CourseError
from ssl_utils.experiments import Finetuning, Pretraining, Setup, finetuning, pretraining, scales
from ssl_utils.pretext.simmim import SimMIMTask
from ssl_utils.segmentation.finetune import SegmentationTask
from ssl_utils.training import loop, parallel
from ssl_utils.training.parallel import Team

RUNS = {
    # units that do not divide the 3 x 3 x 3 tokens, and weights: processes charge for different numbers of voxels
    "simmim": {"task": "simmim", "mask_unit": 2, "foreground_weight": 3.0},
    "mae": {"task": "mae"},
    "latent": {"task": "restoration", "contrast_weight": 0.5},
    "published": {"task": "restoration", "contrast": "published"},
    "patch_clusters": {"task": "patch_clusters", "clusters": 8},
    "finetune": {"init": "random", "num_labeled": 3, "freeze_epochs": 1, "layer_decay": 0.9},
}


def job(name: str, where: Setup, team: Team | None = None, **changes) -> Path:
    options = RUNS[name] | changes
    if "task" in options:
        return experiments.pretrain(where, Pretraining.of(**options), team=team)
    return experiments.finetune(where, Finetuning(**options), team=team)


JOBS: dict[str, Callable] = {name: partial(job, name) for name in RUNS}


def setup(blobs: Path) -> Setup:
    """9 steps of 4 crops in pretraining and of 2 in fine-tuning, with a network of 2 blocks."""
    scale = replace(
        scales.get("smoke"),
        pretrain_steps=9,
        pretrain_batch_size=4,
        finetune_steps=9,
        finetune_batch_size=2,
        hidden_size=24,
        mlp_dim=24,
        num_layers=2,
        num_heads=2,
        max_validation=1,
        max_test=1,
    )
    return Setup(datasets.get("folder", blobs), scale)


@contextmanager
def comparable() -> Iterator[None]:
    """Three validations a run, and nothing that makes much of a rounding: no half precision, no steps of full length
    where a gradient is nearly nothing (Adam's)."""
    calm = partial(torch.optim.AdamW, eps=1e-3)
    with (
        mock.patch.object(torch.optim, "AdamW", calm),
        mock.patch.object(torch.cpu, "_is_avx512_bf16_supported", lambda: False),
        mock.patch.object(pretraining, "VALIDATIONS", 3),
        mock.patch.object(finetuning, "VALIDATIONS", 3),
    ):
        yield


def breaks(task: type, *, at: int, here: bool):
    """The loss of this process is no number at a step, if it is here."""
    whole = task.losses

    def losses(self, images, generator):
        found = whole(self, images, generator)
        bad = here and self.training and self.global_step == at - 1
        return {**found, "loss": found["loss"] * (math.nan if bad else 1)}

    return mock.patch.object(task, "losses", losses)


def broken(where: Setup, task: str, team: Team | None = None) -> Path:
    """A run that one process or two break off, and two or one take up."""
    return experiments.pretrain(where, Pretraining.of(task, mask_ratio=0.5), team=team)


def shared(where: Setup, team: Team, told: Callable[[str, dict], None]) -> None:
    """Everything, by every process of the team."""
    fit, seen = loop.fit, {}

    def watched(module, **how):
        recorder = fit(module, **how)
        best = {key: value for key, value in getattr(module, "best", {}).items() if key != "weights"}
        weights = [float(value.abs().sum()) for value in module.state_dict().values()]
        rows = [{key: value for key, value in row.items() if key != "seconds"} for row in recorder.rows]
        seen.update(rows=rows, best=best, weights=weights)
        return recorder

    def opinion(self, case) -> float:  # of two processes that disagree
        return [0.1, 0.2, 0.3][self.current_epoch] if team.first else [0.9, 0.2, 0.3][self.current_epoch]

    with mock.patch.object(pretraining, "fit", watched), mock.patch.object(finetuning, "fit", watched):
        for name, job in JOBS.items():
            folder = job(where, team=team)
            told(name, {**seen, "done": (folder / "metrics.json").exists()})
        with mock.patch.object(SegmentationTask, "case_dice", opinion):
            JOBS["finetune"](where, team=team, seed=1)
        told("disagreeing", seen)
        with mock.patch.object(parallel, "everyone", lambda rows: rows):
            JOBS["latent"](where, team=team, temperature=0.1)  # the default, under another name
        told("apart", seen)
        broken(where, "mae", team=team)
        told("taken_up", seen)
    with breaks(SimMIMTask, at=5, here=not team.first):
        broken(where, "simmim", team=team)


def main(blobs: str, heard: str) -> None:
    team = Team(devices=2)

    def told(name: str, what: dict) -> None:
        (Path(heard) / f"{name}-{team.rank}.json").write_text(json.dumps(what))

    with comparable():
        try:
            shared(setup(Path(blobs)), team, told)
        except CourseError as error:
            sys.exit(f"error: {error}")


if __name__ == "__main__":
    main(*sys.argv[1:])
