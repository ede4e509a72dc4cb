"""The score of one set of predictions under the Dice conventions of five published systems.

The honest score is that of `metrics`: Dice per structure and case on the voxels of the label file, mean over the
structures of a case (absent from both masks: not counted), then over cases. Every other function changes one part of
it, or all that one system changes. Nested regions instead of labels and Dice per lesion are other tasks, and left out.
"""

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd

from ssl_utils.errors import CourseError
from ssl_utils.segmentation.overlaps import Overlap, Scored


def case_scores(
    cases: Sequence[Scored], *, on: str = "file", background: bool = False, absent: float = float("nan")
) -> np.ndarray:
    """Mean Dice of each case (N,); a structure that is in neither mask counts as `absent`, NaN: not at all."""
    dice = np.array([getattr(case, on).dice()[0 if background else 1 :] for case in cases])
    return _mean(np.where(np.isnan(dice), absent, dice), axis=1)


def _mean(values: np.ndarray, axis: int | None = None) -> np.ndarray:
    """Mean of the numbers that are not NaN; NaN, without a warning, where there is none."""
    known = np.isfinite(values)
    total, count = np.where(known, values, 0).sum(axis), known.sum(axis)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def honest(cases: Sequence[Scored]) -> float:
    """This course: structures only, then the mean over cases, on the voxels of the label file."""
    return float(_mean(case_scores(cases)))


def background_in(cases: Sequence[Scored]) -> float:
    """MONAI tutorial. Different, and optimistic: background is easy, and adds most to a poor network; a gain over K
    structures shrinks to K / (K + 1) of itself."""
    return float(_mean(case_scores(cases, background=True)))


def mean_of_running_means(values: np.ndarray) -> float:
    """MONAI tutorial: the metric is read inside the loop and never reset. Wrong: case i of N counts 1/i + ... + 1/N
    times, so the score depends on the order of the files."""
    return float(np.mean([values[: i + 1].mean() for i in range(len(values))]))


def running_means(cases: Sequence[Scored]) -> float:
    """MONAI tutorial: `mean_of_running_means` of the cases in the order of the files. Wrong."""
    return _running(case_scores(cases))


def monai_tutorial(cases: Sequence[Scored]) -> float:
    """MONAI tutorial, all together: background in, running means, on the network's grid. Wrong."""
    return _running(case_scores(cases, on="grid", background=True))


def _running(values: np.ndarray) -> float:
    known = values[np.isfinite(values)]
    return mean_of_running_means(known) if known.size else float("nan")


def pooled(cases: Sequence[Scored], background: bool = False) -> float:
    """TransSeg: the voxels of all cases are counted as one large case, a Dice per structure. Different: a large organ
    outweighs a small one, a failed small case has little effect, and without a spread over cases there is no
    interval."""
    parts = [np.sum([getattr(case.file, part) for case in cases], 0) for part in ("both", "predicted", "reference")]
    return float(_mean(Overlap(*parts).dice()[0 if background else 1 :]))


def pooled_with_background(cases: Sequence[Scored]) -> float:
    """TransSeg, the score that chooses its checkpoints: pooled, with background as one more structure. Different, and
    optimistic."""
    return pooled(cases, background=True)


def on_grid(cases: Sequence[Scored]) -> float:
    """MONAI tutorial, SimMIM3D, RadioSSL, TransSeg: on the grid of the network, with the label resampled to it.
    Different: the resampling error of the label is not penalised, and small structures have few voxels."""
    return float(_mean(case_scores(cases, on="grid")))


def soft_on_crop(cases: Sequence[Scored]) -> float:
    """RadioSSL: 2 sum(p g) / (sum(p) + sum(g)) of probabilities in one centre crop per case. Different: it depends on
    confidence, and on the crop only (structures without a voxel in it are left out)."""
    dice = np.array([np.where(case.crop.reference > 0, case.crop.dice(), np.nan)[1:] for case in cases])
    return float(_mean(_mean(dice, axis=1)))


def absent_is_zero(cases: Sequence[Scored]) -> float:
    """SimMIM3D: NaN is turned into 0. Wrong: a correct empty prediction gets the lowest score."""
    return float(_mean(case_scores(cases, absent=0.0)))


def absent_is_one(cases: Sequence[Scored]) -> float:
    """BraTS-UGRIP (where predictions below 200 voxels are erased first), and (2 both + s) / (sizes + s) with a small s.
    Different: correct, but every network then scores high on a rare structure."""
    return float(_mean(case_scores(cases, absent=1.0)))


def absent_is_skipped(cases: Sequence[Scored]) -> float:
    """MONAI's default (`ignore_empty`): a structure without a voxel in the label is skipped. Different: false positives
    there are not penalised."""
    dice = np.array([np.where(case.file.reference > 0, case.file.dice(), np.nan)[1:] for case in cases])
    return float(_mean(_mean(dice, axis=1)))


def best_validation(scores: Sequence[float]) -> float:
    """MONAI tutorial, SimMIM3D, BraTS-UGRIP, and on one or two of their sets TransSeg and RadioSSL: the highest of all
    validation scores, on the cases that chose it. Wrong: a maximum over noise, which grows with their number."""
    return float(np.nanmax(scores))


CONVENTIONS: dict[str, tuple[str, bool, Callable[[Sequence[Scored]], float]]] = {  # name -> used by, wrong?, score
    "per case, structures only": ("this course", False, honest),
    "background counted in": ("MONAI tutorial", False, background_in),
    "mean of running means": ("MONAI tutorial", True, running_means),
    "both, and on the network's grid": ("MONAI tutorial, together", True, monai_tutorial),
    "pooled over cases": ("TransSeg", False, pooled),
    "pooled, background counted in": ("TransSeg, monitored", False, pooled_with_background),
    "on the network's grid": ("all but BraTS-UGRIP", False, on_grid),
    "soft, on one centre crop": ("RadioSSL", False, soft_on_crop),
    "absent in both: 0": ("SimMIM3D", True, absent_is_zero),
    "absent in both: 1": ("BraTS-UGRIP", False, absent_is_one),
    "absent in the label: skipped": ("MONAI's default", False, absent_is_skipped),
}
BEST = "best of the validations"


def lens(cases: Sequence[Scored], validations: Sequence[float] = ()) -> pd.DataFrame:
    """A row per convention, the honest one first: convention, used_by, wrong, same_cases, score, points (score minus
    the honest one, times 100), low and high (the score in the worst and in the best order of the files).

    `validations`: all validation scores of the run, which are on other cases (`same_cases` is False).

    Raises:
        CourseError: no case was scored.
    """
    if not cases:
        raise CourseError("lens: no case to score; measure at least one test case first")
    rows = []
    for name, (used_by, wrong, score) in CONVENTIONS.items():
        rising = sorted(cases, key=lambda case, score=score: np.nan_to_num(score([case])))
        low, high = score(rising), score(rising[::-1])
        rows.append([name, used_by, wrong, True, score(cases), low, high])
    if len(validations):
        best = best_validation(validations)
        rows.append([BEST, "all five, on some set", True, False, best, best, best])
    table = pd.DataFrame(rows, columns=["convention", "used_by", "wrong", "same_cases", "score", "low", "high"])
    table.insert(5, "points", 100 * (table["score"] - table["score"].iloc[0]))
    return table
