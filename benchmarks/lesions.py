"""The lesion-wise score of a whole BraTS case, against the published way: whole-volume masks for every lesion."""

import numpy as np
from scipy import ndimage

from benchmarks.race import furthest, race
from ssl_utils.segmentation import lesionwise
from ssl_utils.segmentation.metrics import dice, hd95

SHAPE = (240, 240, 155)


def case(shape: tuple[int, int, int] = SHAPE, *, lesions: int = 6, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Prediction and reference (D, H, W): a large tumour, small ones around it, one missed and one false."""
    rng, radius = np.random.default_rng(seed), max(min(shape) // 8, 4)
    middle, axes = np.array(shape) / 2, np.ogrid[tuple(slice(n) for n in shape)]

    def ball(centre: np.ndarray, radius: float) -> np.ndarray:
        return sum((axis - c) ** 2 for axis, c in zip(axes, centre, strict=True)) < radius**2

    reference, prediction = ball(middle, radius), ball(middle + 2, radius)
    for number in range(lesions):
        centre = middle + rng.uniform(-0.4, 0.4, 3) * np.array(shape)
        if number != 0:
            reference |= ball(centre, radius / 4)
        if number != 1:
            prediction |= ball(centre + 1, radius / 4)
    return prediction, reference


def published_way(prediction: np.ndarray, reference: np.ndarray, *, spacing: tuple[float, ...]) -> dict[str, float]:
    """As the code of the challenge goes about it: for every lesion it compares, dilates and masks whole volumes."""
    grown = ndimage.binary_dilation(reference, lesionwise.GROWTH, iterations=lesionwise.DILATIONS)
    lesion_of = ndimage.label(grown, lesionwise.TOUCHING)[0] * reference
    components, number = ndimage.label(prediction, lesionwise.TOUCHING)
    matched: set[int] = set()
    scores = []
    for lesion in range(1, int(lesion_of.max()) + 1):
        true = lesion_of == lesion
        around = ndimage.binary_dilation(true, lesionwise.GROWTH, iterations=lesionwise.DILATIONS)
        touching = np.setdiff1d(np.unique(components * around), 0)
        matched |= {*touching.tolist()}
        if true.sum() <= lesionwise.SMALLEST:
            continue
        found = np.isin(components, touching) & (components > 0)
        scores.append((dice(found, true), hd95(found, true, spacing) if found.any() else lesionwise.WORST_MM))
    scores += [(0.0, lesionwise.WORST_MM)] * (number - len(matched))
    means = np.mean(scores, axis=0) if scores else (1.0, 0.0)
    return {"dice": float(means[0]), "hd95": float(means[1])}


def lesionwise_score(*, repeats: int, shape: tuple[int, int, int] = SHAPE) -> dict:
    pair, spacing = case(shape), (1.0, 1.0, 1.0)
    ours, theirs = lesionwise.score(lesionwise.lesions(*pair, spacing=spacing)), published_way(*pair, spacing=spacing)
    apart = furthest(*(np.array(list(score.values())) for score in (ours, theirs)))
    return race(
        "lesionwise_score",
        lambda: lesionwise.lesions(*pair, spacing=spacing),
        lambda: published_way(*pair, spacing=spacing),
        equality=f"Dice and HD95 within {apart:.0e}",
        repeats=repeats,
        unit="seconds a region",
    )
