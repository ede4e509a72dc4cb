"""A soup of finished fine-tunings as a run folder of its own, whose model `predict` takes like any other."""

import hashlib
import json
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ssl_utils.data.crops import Crops
from ssl_utils.errors import CourseError
from ssl_utils.experiments import model_card, runs
from ssl_utils.experiments.building import with_crop
from ssl_utils.experiments.finetuning import labelled_for, score
from ssl_utils.experiments.prediction import load_saved, save_network
from ssl_utils.experiments.setups import Setup
from ssl_utils.files import read_json, sha256
from ssl_utils.networks import checkpoints
from ssl_utils.networks.interface import SegmentationNetwork
from ssl_utils.segmentation import soups
from ssl_utils.segmentation.finetune import SegmentationTask, class_shares
from ssl_utils.training.devices import autocast, device

STEPS = 20  # of learning the shares
MEASURED = 8  # crops for the statistics of batch norm


@dataclass(frozen=True)
class Member:
    """A finished fine-tuning."""

    name: str  # its folder below the course
    model: Path
    weights: dict[str, Tensor]
    about: dict[str, Any]  # what its network was made for: architecture, grid, intensity rule, labels
    settings: dict[str, Any]
    done: dict[str, Any]

    @property
    def start(self) -> tuple:
        """What its fine-tuning began with: pretrained weights, what became of them, and the seed of what was drawn."""
        changes = [self.settings.get(key) for key in ("permuted", "reset")]
        kept = self.settings["scope"] == "network" and not any(changes)
        return (
            self.settings["encoder"],
            *changes,
            None if kept else 1000 * self.settings["subset"] + self.settings["seed"],
        )


def runs_in(folder: Path) -> list[Path]:
    """The run folders in a folder, such as the one that a sweep has filled; the folder itself if it is a run."""
    inside = sorted(path.parent for path in folder.glob("*/metrics.json"))
    return [folder] if (folder / "metrics.json").exists() or not inside else inside


def read_member(setup: Setup, folder: Path) -> Member:
    """Raises CourseError when the folder is no finished fine-tuning of this course."""
    folder = folder.resolve()
    done, config, model = runs.metrics(folder), folder / "config.json", folder / "model.safetensors"
    if done is None or "members" in done or not (config.exists() and model.exists()):
        why = "is no finished fine-tuning; give folders such as finetune/random/n6/subset0_seed0"
        raise CourseError(f"{folder}: {why}")
    settings, course = read_json(config)["settings"], (setup.dataset.name, setup.scale.name)
    if (settings["dataset"], settings["scale"]) != course:
        theirs = f"dataset {settings['dataset']}, scale {settings['scale']}"
        why = f"was made with {theirs}, not with {', '.join(course)}"
        raise CourseError(f"{folder}: {why}; choose --dataset and --scale")
    own = with_crop(setup, settings.get("crop", 1))
    used = [*labelled_for(own, settings), *own.datalist.validation, *own.datalist.test]
    if settings["data"] != own.digest(used):
        raise CourseError(f"{folder}: was made with other cases or another split than there is now; run it again")
    weights, metadata = checkpoints.read(model)
    name = folder.relative_to(setup.folder).as_posix() if folder.is_relative_to(setup.folder) else folder.name
    return Member(name, model, weights, json.loads(metadata["course"]), settings, done)


def check(members: Sequence[Member]) -> None:
    """Raise CourseError when there are less than two members, or their networks are not of one kind."""
    for number, member in enumerate(members[1:], start=1):
        if any(os.path.samefile(member.model, other.model) for other in members[:number]):  # also by a link
            raise CourseError(f"{member.name}: is given twice; name each run once")
        ours, theirs = (_flat(m) for m in (members[0], member))
        for key in {**ours, **theirs}:
            if ours.get(key) != theirs.get(key):
                different = f"{member.name}: {key} is {theirs.get(key)}, in {members[0].name} {ours.get(key)}"
                raise CourseError(f"{different}; a soup needs networks of one kind")
    soups.check_alike([member.weights for member in members], [member.name for member in members])


def _flat(member: Member) -> dict[str, Any]:
    """The sizes of the network one by one, and how it is applied."""
    applied = {"crop": member.settings.get("crop", 1), "all_axes": member.settings.get("all_axes", False)}
    return {**member.about["architecture"], **applied, **{k: v for k, v in member.about.items() if k != "architecture"}}


class Judge:
    """Scores weights on the validation cases of a setup as the fine-tuning of a member did."""

    def __init__(self, setup: Setup, network: SegmentationNetwork, settings: dict[str, Any], *, seed: int) -> None:
        self.setup, self.seed, dataset = setup, seed, setup.dataset
        self.labelled = setup.prepared(labelled_for(setup, settings))
        values = sorted(dataset.labels)
        self.task = SegmentationTask(
            network=network,
            values=values,
            regions=dataset.regions,
            ignore=dataset.ignore,
            shares=class_shares([case.label for case in self.labelled], values, dataset.regions),
            held_out=setup.prepared(setup.datalist.validation),
            roi=setup.grid.roi,
            overlap=setup.scale.overlap,
            lr=setup.scale.finetune_lr,
            steps=STEPS,
        ).to(device())

    def put(self, weights: soups.Weights) -> None:
        """Put weights into the network, and measure its statistics of batch norm again."""
        crops = Crops(self.labelled, roi=self.setup.grid.roi, seed=self.seed)
        images = (crops[number]["image"][None].to(device()) for number in range(MEASURED))
        self.task.network.load_state_dict(weights)
        soups.recalibrate(self.task.network, images)

    def score(self, weights: soups.Weights) -> float:
        """Put weights into the network, and return its mean validation Dice."""
        self.put(weights)
        dice = [self.task.case_dice(case) for case in self.task.held_out]
        return sum(dice) / len(dice)

    def learned(self, members: Sequence[soups.Weights]) -> tuple[dict[str, Tensor], list[float]]:
        """The soup whose shares were learnt on crops of the validation cases."""
        size = self.setup.scale.finetune_batch_size
        crops = Crops(self.task.held_out, roi=self.setup.grid.roi, seed=self.seed, balanced=True)
        batches = []
        for step in range(STEPS):
            drawn = [crops[number] for number in range(step * size, (step + 1) * size)]
            images, labels = (torch.stack([crop[key] for crop in drawn]).to(device()) for key in ("image", "label"))
            batches.append((images, self.task.targets(labels)))

        def loss(logits: Tensor, targets: Tensor) -> Tensor:
            return self.task.loss(logits.float(), targets)

        with autocast():
            return soups.learned(self.task.network, members, loss, batches)


def soup(setup: Setup, folders: Sequence[Path], *, kind: str = "greedy", seed: int = 0) -> Path:
    """Mix fine-tunings, choose on the validation set, and score the test set once; returns the run folder.

    Args:
        folders: run folders of at least two fine-tunings of this course, or folders of such folders.
        kind: uniform, greedy, or learned.
        seed: of the crops on which shares are learnt and batch norm is measured.

    Raises:
        CourseError: an unknown kind, a folder without a finished run, or networks of different kinds.
    """
    if kind not in soups.KINDS:
        raise CourseError(f"kind={kind!r}: unknown; choose one of {', '.join(soups.KINDS)}")
    members = [read_member(setup, run) for folder in folders for run in runs_in(Path(folder))]
    check(members)
    setup = with_crop(setup, members[0].settings.get("crop", 1))
    hashes = [sha256(member.model) for member in members]
    key = hashlib.sha256(f"{hashes} {seed}".encode()).hexdigest()[:8]
    folder = setup.folder / "soups" / f"{kind}_{len(members)}_{key}"
    settings = {"kind": kind, "members": [member.name for member in members], "weights": hashes, "seed": seed}
    used = [*setup.datalist.validation, *setup.datalist.test]
    if runs.begin(folder, setup.settings(used, **settings), device=device()):
        return folder
    started = time.perf_counter()
    network, _ = load_saved(members[0].model)
    chosen = _mixed(Judge(setup, network, members[0].settings, seed=seed), members, kind)
    chosen["seconds"] = round(time.perf_counter() - started, 1)
    save_network(
        folder / "model.safetensors", network, setup, init=f"{kind} soup", sources=tuple(m.model for m in members)
    )
    _finish(setup, folder, network, members, {"kind": kind, **chosen})
    return folder


def summary(folder: Path) -> str:
    """What a soup is made of, its score and that of its best member, in three lines."""
    done = runs.metrics(folder)
    shares = ", ".join(f"{share:.2f}" for share in done["shares"])
    lines = [f"Shares {shares}. Dice {done['dice']:.3f} on {model_card.scored_cases(done)}. Soup in {folder}"]
    lines += [f"The best run by validation, {done['best_member']}, has {done['best_member_dice']:.3f}."]
    if not done["same_start"]:
        lines += ["warning: the runs began with different weights; their mean is seldom a good network"]
    return "\n".join(lines)


def _mixed(judge: Judge, members: Sequence[Member], kind: str) -> dict[str, Any]:
    """Put the soup into the judge's network: the shares of the members, its validation Dice, what was looked at."""
    weights, equal = [member.weights for member in members], [1 / len(members)] * len(members)
    if kind != "greedy":
        mixed, shares = judge.learned(weights) if kind == "learned" else (soups.uniform(weights), equal)
        return {"shares": shares, "validation_dice": judge.score(mixed)}
    mixed, chosen = soups.greedy_soup(weights, judge.score)
    judge.put(mixed)  # the candidate that was scored last may be another one
    return {
        "shares": [1 / len(chosen.kept) if i in chosen.kept else 0.0 for i in range(len(members))],
        "validation_dice": chosen.score,
        "kept": list(chosen.kept),
        "keeps_one": chosen.keeps_one,
        "scores": {" + ".join(map(str, numbers)): value for numbers, value in chosen.scores.items()},
    }


def _finish(
    setup: Setup, folder: Path, network: SegmentationNetwork, members: Sequence[Member], chosen: dict[str, Any]
) -> None:
    """Score the soup on the test set; write per_case.csv, the card, and metrics.json last."""
    best = max(members, key=lambda member: member.done["validation_dice"])
    done = {
        "members": [member.name for member in members],
        **chosen,
        "best_member": best.name,
        "best_member_dice": best.done["dice"],
        "same_start": len({member.start for member in members}) == 1,
        **score(setup, network, folder, all_axes=members[0].settings.get("all_axes", False)),
        "device": device(),
    }
    values = {key: dict.fromkeys(str(member.done[key]) for member in members) for key in runs.OF_ONE_RUN}
    about = {key: ", ".join(several) for key, several in values.items()}
    about["synthetic"] = "; ".join(dict.fromkeys(m.done["synthetic"] for m in members if m.done.get("synthetic")))
    model_card.write_network_card(folder, dataset=setup.dataset, grid=setup.grid, done=about | done, weights=None)
    runs.finish(folder, done)
