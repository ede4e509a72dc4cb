"""Measure a pretraining while it runs, in the same way for every pretext task and on the same few cases.

Does it reconstruct better than interpolation? How much of the labels can be read from its tokens? Have its features
collapsed? Labels never train the encoder and never choose a checkpoint. (A recipe that is chosen by these curves is
chosen with the labels of these cases, none of which is a test case.)
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
from ssl_utils.pretext.base import PretextTask, trivial_predictions

LEAST_STD = 0.1  # of 1: all tokens have nearly the same direction
LEAST_RANK = 0.03  # of the largest possible; at initialisation about half, of positions alone 0.04
LEAST_CONTENT = 0.01  # of 1: tokens encode their position only
PROBES = ("linear", "knn", "position")
BASELINES = {"psnr_mean": "mean", "psnr_interpolation": "interpolation"}  # column -> name in `trivial_predictions`


@dataclass(frozen=True)
class Fixed:
    """One crop per case, always the same: images (B, C, D, H, W) standardised, labels (B, 1, D, H, W) if all have one,
    and a seed per case for its masks."""

    images: Tensor
    seeds: list[int]
    labels: Tensor | None = None


def fixed(cases: Sequence[Prepared], roi: Sequence[int]) -> Fixed:
    """A crop and a seed per case, from its id alone; about half of the crops with labels are centred on a structure."""
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
) -> "Inside":
    """The callback of a run folder.

    Args:
        labelled: training cases whose labels the probes learn from.
        held_out: validation cases on which everything is measured.
        values: label values, background first. Without labels, or with background only, there are no probes.
    Raises:
        CourseError: there is no held-out case.
    """
    if not held_out:
        raise CourseError(f"{folder}: no held-out case to measure on; add validation cases to the dataset")
    training = fixed(labelled, roi) if labelled and len(values) > 1 else None
    return Inside(folder, held_out=fixed(held_out, roi), labelled=training, values=values)


class Inside(L.Callback):
    """Writes a row of inside.csv before step 1 and at every validation of any pretext task.

    step, seconds_probe (time of the measurement); psnr, psnr_mean, psnr_interpolation (dB over hidden voxels on fixed
    masks: network, mean fill, trilinear interpolation); linear, knn (Dice 0..1 of token label shares from frozen tokens
    after the final norm, no positions added), position (the same of the average label at each position, without the
    image); feature_std, content, rankme and rank_most (the largest possible); alarm and its reason.

    Global random numbers, modes and gradients of the module are left alone, so weights are those of a run without it.
    """

    def __init__(
        self, folder: Path, *, held_out: Fixed, labelled: Fixed | None = None, values: Sequence[int] = ()
    ) -> None:
        self.folder, self.held_out, self.values = Path(folder), held_out, tuple(values)
        both = labelled is not None and labelled.labels is not None and held_out.labels is not None
        self.labelled = labelled if both and len(self.values) > 1 else None
        self.rows: list[dict] = []

    @property
    def seconds(self) -> float:
        """Wall-clock seconds of all measurements since training began."""
        return sum(row["seconds_probe"] for row in self.rows if row["step"] > 0)

    def state_dict(self) -> dict:
        return {"rows": self.rows}

    def load_state_dict(self, state: dict) -> None:
        self.rows = list(state["rows"])

    def on_train_start(self, trainer, module) -> None:
        if trainer.global_step == 0 and not self.rows:
            self.look(module, 0)

    def on_validation_epoch_end(self, trainer, module) -> None:  # before the checkpoint of the epoch is written
        if trainer.state.fn == "fit" and not trainer.sanity_checking:
            self.look(module, trainer.global_step)

    def look(self, module: PretextTask, step: int) -> dict:
        """Measure, add a row, write the file."""
        started = time.perf_counter()
        with evaluating(module):
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
        """Mean PSNR over cases; those of the baselines are measured once. NaN for a task that reconstructs nothing."""
        scores = {"psnr": [], **({} if self.rows else {column: [] for column in BASELINES})}
        for image, seed in zip(self.held_out.images.to(module.device).split(1), self.held_out.seeds, strict=True):
            shown = module.reconstruct(image, module.generator(seed))
            if not shown:
                return dict.fromkeys(("psnr", *BASELINES), nan)
            guesses = {"psnr": shown["reconstruction"]}
            if not self.rows:
                guesses |= trivial(module, image, shown["hidden"])
            for name, guess in guesses.items():
                scores[name].append(probes.masked_psnr(guess, image, shown["hidden"]))
        row = {name: round(float(torch.cat(values).nanmean()), 4) for name, values in scores.items()}
        return row | {column: self.rows[0][column] for column in BASELINES if self.rows}

    def _probes(self, module: PretextTask, tokens: Tensor) -> dict[str, float]:
        if self.labelled is None:
            return dict.fromkeys(PROBES, nan)
        shares, true = (
            probes.class_shares(crops.labels, self.values, module.encoder.patch_size).double()
            for crops in (self.labelled, self.held_out)
        )  # (B, N, K) each, whose sum over K is the annotated share of the patch
        known, scored = (values.sum(2) > 0.5 for values in (shares, true))
        if not (known.any() and scored.any()):
            return dict.fromkeys(PROBES, nan)
        examples, queries = (tokens_of(module, self.labelled.images)[known], of_one(shares[known])), tokens[scored]
        guesses = probes.linear_probe(*examples, queries), probes.propagate(*examples, queries)
        guesses += (of_one(shares.sum(0)).expand_as(true)[scored],)
        scores = (probes.token_dice(guess, of_one(true[scored])) for guess in guesses)
        return {name: round(score, 4) for name, score in zip(PROBES, scores, strict=True)}


@contextmanager
def evaluating(module: L.LightningModule) -> Iterator[None]:
    """Evaluation mode without gradients; every part of the module then gets its own mode back."""
    modes = [(part, part.training) for part in module.modules()]  # parents before their children
    module.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for part, mode in modes:
            part.train(mode)


def of_one(shares: Tensor) -> Tensor:
    """Shares (..., K) of the annotated voxels, from those of all voxels."""
    return shares / shares.sum(-1, keepdim=True).clamp(min=1e-6)


def tokens_of(module: PretextTask, images: Tensor) -> Tensor:
    """Tokens (B, N, E) of clean crops after the encoder's final norm, float64 on the CPU."""
    return torch.cat([module.encoder(image.to(module.device))[0].cpu().double() for image in images.split(1)])


def trivial(module: PretextTask, image: Tensor, hidden: Tensor) -> dict[str, Tensor]:
    """The trivial predictions of `hidden` voxels. A task that regresses normalised patches is given mean and standard
    deviation of the true patch, and then so are these."""
    guesses = trivial_predictions(image, hidden)
    return {column: module.intensities(module.target(guesses[name]), image) for column, name in BASELINES.items()}


def spread(tokens: Tensor) -> dict[str, float]:
    """How much the tokens (B, N, E) of different cases and positions differ."""
    rows = tokens.flatten(0, 1)
    return {
        "feature_std": round(probes.feature_std(rows), 4),
        "content": round(probes.content_share(tokens), 4),
        "rankme": round(probes.rankme(rows), 3),
        "rank_most": min(rows.shape),
    }


def alarm(row: dict) -> str:
    """Why these features count as collapsed; empty if they do not."""
    floor = max(2.0, LEAST_RANK * row["rank_most"])
    if not row["feature_std"] >= LEAST_STD:
        return f"all tokens point nearly the same way (feature std {row['feature_std']:.3f} of 1, floor {LEAST_STD})"
    if not row["rankme"] >= floor:
        return f"features span few directions (RankMe {row['rankme']:.1f} of {row['rank_most']}, floor {floor:.1f})"
    if row["content"] < LEAST_CONTENT:
        share = f"{row['content']:.1%} of their variance is between cases, floor {LEAST_CONTENT:.0%}"
        return f"tokens encode their position and not the image ({share})"
    return ""
