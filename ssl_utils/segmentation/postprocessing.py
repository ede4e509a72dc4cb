"""From probabilities of nested regions to masks: thresholds, filtered components, a rule for a small enhancing tumour.

The regions of BraTS are nested: enhancing tumour (ET) in tumour core (TC) in whole tumour (WT). They are cleaned from
the inside outwards. A component that contains a kept inner one is kept; any other must be large and certain enough.
The numbers of `BRATS_UGRIP` are those of BraTS-UGRIP (2024). They were chosen on the cases that were reported: choose
your own on validation cases (`choose`), and report on others.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product

import numpy as np
from scipy import ndimage

from ssl_utils.errors import CourseError
from ssl_utils.segmentation.lesionwise import TOUCHING
from ssl_utils.segmentation.metrics import dice


@dataclass(frozen=True)
class Rule:
    """How the mask of one region is made.

    Args:
        threshold: a voxel belongs to the region above this probability.
        voxels: a component needs at least so many,
        probability: and at least this mean probability.
        most: only so many of these components are kept, the largest ones; None for all.
    """

    threshold: float = 0.5
    voxels: int = 0
    probability: float = 0.0
    most: int | None = None

    def __post_init__(self) -> None:
        for name in ("threshold", "probability"):
            if not 0 <= getattr(self, name) <= 1:
                raise CourseError(f"{name}={getattr(self, name)}: is a probability; choose 0 to 1")


HELD = 0.5  # of an inner component: what holds so much of it is kept whatever its size
Rules = Mapping[str, Rule]  # region -> rule, the innermost region first
BRATS_UGRIP: Rules = {
    "ET": Rule(voxels=60, probability=0.825, most=5),
    "TC": Rule(voxels=60, probability=0.775),
    "WT": Rule(voxels=60, probability=0.825, most=5),
}


def cleaned(probabilities: Mapping[str, np.ndarray], rules: Rules) -> dict[str, np.ndarray]:
    """Nested boolean masks (D, H, W) by region, in the order of `probabilities`.

    Args:
        probabilities: of each region, after the sigmoid, (D, H, W) in 0..1.
        rules: from the innermost region to the outermost; each mask includes the masks before it.

    Raises:
        CourseError: the rules are for other regions.
    """
    if {*probabilities} != {*rules}:
        raise CourseError(
            f"rules for {', '.join(rules)}: the regions are {', '.join(probabilities)}; give one for each"
        )
    kept: dict[str, np.ndarray] = {}
    inner = np.zeros(next(iter(probabilities.values())).shape, bool)
    for name, rule in rules.items():
        inner = kept[name] = filtered((probabilities[name] > rule.threshold) | inner, probabilities[name], inner, rule)
    return {name: kept[name] for name in probabilities}


def filtered(mask: np.ndarray, probability: np.ndarray, inner: np.ndarray, rule: Rule) -> np.ndarray:
    """The 26-connected components of a mask (D, H, W) that hold an inner one, or are large and certain enough."""
    components, number = ndimage.label(mask, TOUCHING)
    if not number:
        return mask
    numbers = np.arange(1, number + 1)
    sizes = np.bincount(components.ravel(), minlength=number + 1)[1:]
    certain = ndimage.mean(probability, components, numbers) >= rule.probability
    holding = np.isin(numbers, holders(components, ndimage.label(inner, TOUCHING)[0], HELD))
    others = numbers[(sizes >= rule.voxels) & certain & ~holding]
    largest = others[np.argsort(-sizes[others - 1], kind="stable")][: rule.most]
    return np.isin(components, [*numbers[holding], *largest])


def holders(outer: np.ndarray, inner: np.ndarray, share: float) -> np.ndarray:
    """Numbers of the outer components that hold at least this share of an inner component.

    `outer` and `inner` are maps of component numbers (D, H, W), 0 where there is none.
    """
    both = (outer > 0) & (inner > 0)
    pairs, shared = np.unique(np.stack([outer[both], inner[both]]), axis=1, return_counts=True)
    sizes = np.bincount(inner.ravel())
    return np.unique(pairs[0][shared >= share * sizes[pairs[1]]])


def without_small(
    masks: Mapping[str, np.ndarray], *, inner: str = "ET", outer: str = "TC", voxels: int = 200
) -> dict[str, np.ndarray]:
    """Masks in which `inner` is empty if it has fewer voxels than this; its voxels then belong to `outer`."""
    if masks[inner].sum() >= voxels:
        return dict(masks)
    return {**masks, inner: np.zeros_like(masks[inner]), outer: masks[outer] | masks[inner]}


def score(cases: Sequence[tuple[Mapping[str, np.ndarray], Mapping[str, np.ndarray]]], rules: Rules) -> dict[str, float]:
    """Mean Dice of each region over cases of (probabilities, reference masks); a region that is in neither mask of a
    case is not counted."""
    rows = []
    for probabilities, reference in cases:
        masks = cleaned(probabilities, rules)
        rows.append([dice(masks[name], reference[name]) for name in rules])
    return dict(zip(rules, np.nanmean(rows, axis=0).tolist(), strict=True))


def choose(
    cases: Sequence[tuple[Mapping[str, np.ndarray], Mapping[str, np.ndarray]]],
    rules: Rules,
    *,
    thresholds: Iterable[float],
    voxels: Iterable[int],
) -> tuple[dict[str, Rule], int]:
    """Rules with the threshold and the size of each region that score highest on these validation cases, and the number
    of rules that were tried. From the inside outwards, since the outer masks include the inner ones.

    The given rules stay where nothing is better.
    """
    chosen, tried, pairs = dict(rules), 0, list(product(thresholds, voxels))
    for name in rules:
        candidates = [chosen[name], *(replace(chosen[name], threshold=t, voxels=v) for t, v in pairs)]
        rows = [list(score(cases, chosen | {name: rule}).values()) for rule in candidates]
        scores = [np.nanmean(row) if np.isfinite(row).any() else -np.inf for row in rows]  # nan: in none of the cases
        chosen[name], tried = candidates[int(np.argmax(scores))], tried + len(candidates)
    return chosen, tried
