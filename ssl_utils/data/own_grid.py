"""The grid of a person's own folder: spacing, ROI and patch that its volumes need and its scale can afford.

A coarse grid has no more voxels in a crop than those of the named datasets. It is refined, with more crops to a volume,
until labels survive the round trip through it. If a prediction would then take too many windows, crops show at least a
third of a volume: with few training steps, crops that show more of the body beat finer voxels (docs/own_data.md).
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import product
from typing import Any, NamedTuple

import numpy as np

from ssl_utils.data.dataset import FILLED, Grid
from ssl_utils.errors import CourseError

KEYS = {  # what a person may choose: in what, and as in
    "spacing": ("millimetres from 0.01 to 100", "1.5,1.5,8"),
    "roi": ("whole voxels up to 1024", "64,64,8"),
    "patch_size": ("1, 2, 4, 8, 16 or 32 voxels", "8,8,2"),
}
LEAST = 0.9  # round-trip Dice of the worst structure
SPACINGS = [digits * 10.0**power for power in range(-2, 3) for digits in (1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8)]  # mm
MOST = 12  # windows of a volume, at most
SHOWN = 1 / 3  # of a typical volume that a crop shows where labels do not survive (trunk CT: .45 gave more than .26)
ALIKE = 1.5  # longest side of a crop over the shortest that cuts the volume; beyond, it counts against the ROI
FINEST = 50  # times finer than the volumes a given spacing may be; more would not fit into memory
TOKENS = 256  # of a crop at most
OVERLAP = 0.25  # of neighbouring windows at scale laptop


class Budget(NamedTuple):
    """Voxels of a crop, and the largest side of a patch, which is the patch of the scales with that grid."""

    voxels: int
    patch: int


BUDGETS = {"coarse": Budget(48 * 48 * 32, 8), "fine": Budget(96**3, 16)}  # the largest ROIs of named datasets
Survive = Callable[[Sequence[float]], bool]


def choose(
    extents: np.ndarray, native: np.ndarray, chosen: Mapping[str, tuple], survive: Survive | None = None
) -> dict[str, Grid]:
    """The coarse and the fine grid for volumes of these extents (n, 3) in mm and this median spacing (3,).

    The fine one has the median spacing. The coarse one is the first, from about one crop per volume downwards, at whose
    spacing labels `survive` and that at most `MOST` windows cover; where there is none, and without labels, the finest
    of which a crop shows `SHOWN` of a volume.
    `chosen`: values under `KEYS` that a person has given.

    Raises:
        CourseError: a given spacing far below that of the volumes, or as `changed`.
    """
    if "spacing" in chosen:
        if (np.multiply(chosen["spacing"], FINEST) < native).any():
            own, given = (",".join(f"{size:.3g}" for size in sizes) for sizes in (native, chosen["spacing"]))
            raise CourseError(f"spacing={given}: is far below {own} mm, that of the volumes; write it in millimetres")
        native = np.array(chosen["spacing"])
    median, coarse = np.median(extents, axis=0), []
    fine = changed(_fit(extents, native, BUDGETS["fine"]), chosen, patch=BUDGETS["fine"].patch)
    reach = np.minimum(median, extents.min(0) / FILLED)  # mm that one crop can cover at most
    coarsest = 1.25 * np.cbrt(reach.prod() / BUDGETS["coarse"].voxels)  # ROIs grow by whole patches
    for size in (0, *(size for size in SPACINGS if size > native.min())):
        grid = _fit(extents, np.maximum(native, size), BUDGETS["coarse"])
        coarse.append(changed(grid, chosen, patch=BUDGETS["coarse"].patch))
        if size > coarsest or windows(median, coarse[-1]) == 1 or "spacing" in chosen:
            break
    affordable = [grid for grid in coarse if windows(median, grid) <= MOST] or coarse[-1:]
    good = (grid for grid in reversed(affordable) if survive and survive(grid.spacing))
    shown = (grid for grid in affordable if _shown(median, grid) >= SHOWN)
    return {"coarse": next(good, None) or next(shown, affordable[-1]), "fine": fine}


def _fit(extents: np.ndarray, spacing: np.ndarray, budget: Budget) -> Grid:
    """The ROI within the budget that covers most of the median volume, equally along its axes, with sides in mm that
    are `ALIKE`, in patches of which two fit along every axis. Every volume fills `FILLED` of it."""
    voxels, smallest = np.maximum(np.rint(np.median(extents, axis=0) / spacing), 1), extents.min(0) / spacing
    patch = [min(budget.patch, 1 << max(int(n).bit_length() - 2, 0)) for n in voxels]
    most = [
        min(math.ceil(n / p), max(int(s / FILLED / p), 1), 12) for n, s, p in zip(voxels, smallest, patch, strict=True)
    ]
    rois = [tuple(np.multiply(tokens, patch).tolist()) for tokens in product(*(range(1, n + 1) for n in most))]
    largest = min(budget.voxels, TOKENS * math.prod(patch))
    affordable = [roi for roi in rois if math.prod(roi) <= largest or roi == rois[0]]

    def cost(roi: tuple[int, ...]) -> tuple[float, float, int]:
        covered = np.minimum(roi, voxels)
        sides, cut = covered * spacing, covered < voxels
        ratio = sides.max() / sides[cut].min() if cut.any() else 1
        times = voxels / covered
        return round(max(ratio, ALIKE) * times.prod(), 6), times.max(), math.prod(roi)

    own = None if set(patch) == {budget.patch} else tuple(patch)
    return Grid(tuple(np.round(spacing, 3).tolist()), min(affordable, key=cost), patch_size=own)


def _shown(extent: np.ndarray, grid: Grid) -> float:
    """Share of a volume of this extent in mm that a crop shows."""
    return float(np.minimum(np.multiply(grid.roi, grid.spacing) / extent, 1).prod())


def windows(extent: Sequence[float], grid: Grid, overlap: float = OVERLAP) -> int:
    """Sliding windows that a prediction of a volume of this extent in mm takes."""
    if grid.fit:
        return 1
    voxels = np.rint(np.divide(extent, grid.spacing))
    steps = (max(int(r * (1 - overlap)), 1) for r in grid.roi)
    return math.prod(max(math.ceil((n - r) / s), 0) + 1 for n, r, s in zip(voxels, grid.roi, steps, strict=True))


def changed(grid: Grid, chosen: Mapping[str, tuple], *, patch: int) -> Grid:
    """The grid with the values that a person has given; `patch` is that of the scale. Where a given ROI is no multiple
    of the grid's patch, the patch shrinks.

    Raises:
        CourseError: the ROI is not a multiple of the patch, or a patch is a voxel.
    """
    if "spacing" in chosen:
        grid = replace(grid, spacing=chosen["spacing"], fit=False)
    if "roi" in chosen:
        own = grid.patch_size or (patch,) * 3
        sides = tuple(min(p, r & -r) for p, r in zip(own, chosen["roi"], strict=True))  # the largest power of two in r
        grid = replace(grid, roi=chosen["roi"], patch_size=None if set(sides) == {patch} else sides)
    if "patch_size" in chosen:
        grid = replace(grid, patch_size=None if set(chosen["patch_size"]) == {patch} else chosen["patch_size"])
        if "roi" not in chosen:
            roi = tuple(p * max(r // p, 1) for r, p in zip(grid.roi, chosen["patch_size"], strict=True))
            grid = replace(grid, roi=roi)
    size = grid.patch_size or (patch,) * 3
    if {*size} == {1}:
        roi = ",".join(map(str, grid.roi))
        if "patch_size" in chosen:
            raise CourseError("patch_size=1,1,1: a patch of one voxel is none; give it a side of 2 or more")
        raise CourseError(f"roi={roi}: no patch of two voxels or more fits; give it an even side")
    if any(r % p for r, p in zip(grid.roi, size, strict=True)):
        roi, size = (",".join(map(str, sides)) for sides in (grid.roi, size))
        raise CourseError(f"roi={roi}: is not a multiple of patch_size={size}; change one of the two")
    return grid


def parsed(values: Mapping[str, Any], source: str = "") -> dict[str, tuple]:
    """Values under `KEYS` as tuples of three: from a list or one number, or from words such as 64,64,8; None is left
    out. `source` begins the error.

    Raises:
        CourseError: not one or three numbers, or impossible ones.
    """
    chosen = {}
    for key, (what, example) in KEYS.items():
        if (value := values.get(key)) is None:
            continue
        words = value.split(",") if isinstance(value, str) else value if isinstance(value, list | tuple) else [value]
        try:
            numbers = tuple(float(word) if key == "spacing" else int(str(word)) for word in words)
        except (TypeError, ValueError):
            numbers = ()
        numbers = numbers * 3 if len(numbers) == 1 else numbers
        if len(numbers) != 3 or not all(_possible(key, number) for number in numbers):
            raise CourseError(f"{source}{key}={value!r}: is not {what} along three axes; write it as {example}")
        chosen[key] = numbers
    return chosen


def _possible(key: str, number: float) -> bool:
    if key == "spacing":
        return 0.01 <= number <= 100
    return 1 <= number <= 1024 if key == "roi" else number in (1, 2, 4, 8, 16, 32)
