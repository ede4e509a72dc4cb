"""Look inside while it learns: a callback that asks every pretext task the same questions on the same few cases.

Does it reconstruct better than interpolation? How much of the labels is in its tokens? Have its features collapsed?
Labels are used to look only: they never train the encoder and never choose a checkpoint. (They do reach whoever looks:
a recipe chosen by these curves is chosen with the labels of these cases, none of which is a test case.)
"""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import nan
from pathlib import Path
from zlib import crc32

import lightning as L
import numpy as np
import pandas as pd
import torch
from torch import Tensor

from ssl_utils.data.cache import Prepared
from ssl_utils.data.crops import crop_at, random_corner
from ssl_utils.errors import CourseError
from ssl_utils.files import atomic
from ssl_utils.pretext import probes
from ssl_utils.pretext.base import PretextTask, infill

LEAST_STD = 0.1  # of 1: tokens that point nearly the same way
LEAST_RANK = 0.03  # of what is possible; a fresh encoder has about half, a bare table of positions 0.04
LEAST_CONTENT = 0.01  # of 1: tokens that encode their position only
NO_PROBES = {"linear": nan, "knn": nan, "place": nan}


@dataclass(frozen=True)
class Fixed:
    """One crop per case, always the same: images (B, C, D, H, W) standardised, labels (B, 1, D, H, W) if all have one,
    and a seed per case for its masks."""

    images: Tensor
    seeds: list[int]
    labels: Tensor | None = None


def fixed(cases: Sequence[Prepared], roi: Sequence[int]) -> Fixed:
    """The crop and the seed depend on the case's id alone; half of the labelled cases' crops are centred on a
    structure."""
    seeds = [crc32(case.id.encode()) for case in cases]
    corners = [random_corner(c, roi, np.random.default_rng(n), True) for c, n in zip(cases, seeds, strict=True)]
    crops = [crop_at(case, corner, roi) for case, corner in zip(cases, corners, strict=True)]
    labels = torch.stack([crop["label"] for crop in crops]) if all("label" in crop for crop in crops) else None
    return Fixed(torch.stack([crop["image"] for crop in crops]), seeds, labels)


def callback(
    folder: Path,
    *,
    labelled: Sequence[Prepared],
    held_out: Sequence[Prepared],
    roi: Sequence[int],
    values: Sequence[int],
    cases: int = 8,
    every: int = 1,
) -> "Inside":
    """The callback for a run folder, on the first `cases` of either side.

    Args:
        labelled: cases whose labels the probes learn from; of the training side.
        held_out: cases that everything is measured on; of the validation set, never of the test set.
        values: label values, background first. Without labels, or with background only, there are no probes.
        every: look at every so manieth validation.
    Raises:
        CourseError: there is no held-out case.
    """
    if not held_out:
        raise CourseError(f"{folder}: no held-out case to look at; give the dataset a validation side")
    known = fixed(labelled[:cases], roi) if labelled and len(values) > 1 else None
    return Inside(folder, held_out=fixed(held_out[:cases], roi), labelled=known, values=values, every=every)


class Inside(L.Callback):
    """Writes a row of inside.csv before step 1 and at every validation of any pretext task.

    step, seconds_probe (what the look cost); psnr, psnr_mean, psnr_infill (dB over hidden voxels on fixed masks, of the
    network, of mean fill and of trilinear in-filling); linear, knn (Dice 0..1 of token label shares from frozen tokens
    after the final norm, no positions added), place (the same for the average label of each place, the images unseen);
    feature_std, content, rankme and rank_most (the largest possible); alarm and its reason.

    Draws no global random number, and leaves modes and gradients of the module as they were: weights are those of a run
    without it.
    """

    def __init__(
        self,
        folder: Path,
        *,
        held_out: Fixed,
        labelled: Fixed | None = None,
        values: Sequence[int] = (),
        every: int = 1,
    ) -> None:
        self.folder, self.held_out, self.values, self.every = Path(folder), held_out, tuple(values), every
        both = labelled is not None and labelled.labels is not None and held_out.labels is not None
        self.labelled = labelled if both and len(self.values) > 1 else None
        self.rows: list[dict] = []

    @property
    def seconds(self) -> float:
        """What looking has cost since training began: wall-clock seconds that are not the task's."""
        return sum(row["seconds_probe"] for row in self.rows if row["step"] > 0)

    def state_dict(self) -> dict:
        return {"rows": self.rows}

    def load_state_dict(self, state: dict) -> None:
        self.rows = list(state["rows"])

    def on_train_start(self, trainer, module) -> None:
        if trainer.global_step == 0 and not self.rows:
            self.look(module, 0)

    def on_validation_epoch_end(self, trainer, module) -> None:  # before the checkpoint of the epoch is written
        if trainer.sanity_checking or trainer.state.fn != "fit":
            return
        done = trainer.current_epoch + 1
        if done % self.every == 0 or done == trainer.max_epochs:
            self.look(module, trainer.global_step)

    def look(self, module: PretextTask, step: int) -> dict:
        """Measure, add a row, write the file."""
        started = time.perf_counter()
        with at_rest(module):
            tokens = tokens_of(module, self.held_out.images)  # (B, N, E)
            row = {"step": int(step), "seconds_probe": 0.0, **self._reconstruction(module)}
            row |= self._probes(module, tokens) | spread(tokens)
        row["reason"] = alarm(row)
        row["alarm"] = bool(row["reason"])
        row["seconds_probe"] = round(time.perf_counter() - started, 3)
        self.rows.append(row)
        with atomic(self.folder / "inside.csv") as temporary:
            pd.DataFrame(self.rows).to_csv(temporary, index=False)
        return row

    def _reconstruction(self, module: PretextTask) -> dict[str, float]:
        images, once = self.held_out.images.to(module.device), not self.rows
        found = {"psnr": [], "psnr_mean": [], "psnr_infill": []}
        for image, seed in zip(images.split(1), self.held_out.seeds, strict=True):
            seen = module.reconstruct(image, module.generator(seed))
            guesses = {"psnr": seen["reconstruction"], **(trivial(module, image, seen["hidden"]) if once else {})}
            for name, guess in guesses.items():
                found[name].append(probes.masked_psnr(guess, image, seen["hidden"]))
        means = {name: round(float(torch.cat(values).nanmean()), 4) for name, values in found.items() if values}
        return means if once else means | {name: self.rows[0][name] for name in found if name != "psnr"}

    def _probes(self, module: PretextTask, tokens: Tensor) -> dict[str, float]:
        if self.labelled is None:
            return dict(NO_PROBES)
        patch, cases = module.encoder.patch_size, len(self.labelled.images)
        known, true = (
            probes.class_shares(side.labels, self.values, patch).double() for side in (self.labelled, self.held_out)
        )  # (B, N, K) each
        learn = tokens_of(module, self.labelled.images).flatten(0, 1), known.flatten(0, 1)
        guesses = {
            "linear": probes.linear_probe(*learn, tokens.flatten(0, 1)),
            "knn": probes.propagate(*learn, tokens.flatten(0, 1)),
            "place": (known.sum(0) / cases).expand_as(true).flatten(0, 1),
        }
        return {name: round(probes.token_dice(guess, true.flatten(0, 1)), 4) for name, guess in guesses.items()}


@contextmanager
def at_rest(module: L.LightningModule) -> Iterator[None]:
    """Evaluation mode without gradients; every part of the module then gets its own mode back."""
    modes = [(part, part.training) for part in module.modules()]  # parents before their children
    module.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for part, mode in modes:
            part.train(mode)


def tokens_of(module: PretextTask, images: Tensor) -> Tensor:
    """Tokens (B, N, E) of clean crops after the encoder's final norm, float64 on the CPU."""
    return torch.cat([module.encoder(image.to(module.device))[0].cpu().double() for image in images.split(1)])


def trivial(module: PretextTask, image: Tensor, hidden: Tensor) -> dict[str, Tensor]:
    """What nobody had to learn: hidden voxels as the mean of the visible ones, and filled in from around.

    A task that regresses normalised patches is handed mean and deviation of the true patch; then so are these.
    """
    mean = (image * ~hidden).sum() / (~hidden).sum().clamp(min=1)
    guesses = {"psnr_mean": torch.where(hidden, mean, image), "psnr_infill": infill(image, hidden)}
    if torch.equal(module.target(image), image):
        return guesses
    patch = module.encoder.patch_size
    return {name: probes.given_statistics(guess, image, patch) for name, guess in guesses.items()}


def spread(tokens: Tensor) -> dict[str, float]:
    """How far the tokens (B, N, E) of different cases and places lie apart."""
    rows = tokens.flatten(0, 1)
    return {
        "feature_std": round(probes.feature_std(rows), 4),
        "content": round(probes.content_share(tokens), 4),
        "rankme": round(probes.rankme(rows), 3),
        "rank_most": min(rows.shape),
    }


def alarm(row: dict) -> str:
    """Why these features count as collapsed, or nothing."""
    floor = max(2.0, LEAST_RANK * row["rank_most"])
    if not row["feature_std"] >= LEAST_STD:
        return f"all tokens point nearly the same way (feature std {row['feature_std']:.3f} of 1, floor {LEAST_STD})"
    if not row["rankme"] >= floor:
        return f"features lie in few directions (RankMe {row['rankme']:.1f} of {row['rank_most']}, floor {floor:.1f})"
    if row["content"] < LEAST_CONTENT:
        return (
            f"tokens know their place and not what is there ({row['content']:.1%} of their variance is between cases, "
            f"floor {LEAST_CONTENT:.0%})"
        )
    return ""
