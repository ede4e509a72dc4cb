"""The round trip of a label: resampled to a grid and back, how much of each structure is left (chapter 04)."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.ndimage import find_objects

from ssl_utils.data import volumes
from ssl_utils.errors import CourseError

CASES = 5  # labels that are read
DIFFERING = 0.2  # standard deviation of the logarithm of extents: about 20 %


@dataclass(frozen=True, eq=False)
class Part:
    """One structure of one label, in RAS: its mask (D, H, W) in its bounding box, the voxel in which the box begins,
    the spacing in mm, and the shape of the whole label."""

    mask: np.ndarray
    start: tuple[int, ...]
    spacing: tuple[float, ...]
    shape: tuple[int, ...]

    def dice(self, spacing: Sequence[float]) -> float:
        """Dice between the mask and its round trip: nearest voxels on the way to a grid of this spacing (mm), trilinear
        on the way back, as in training and in `inference.to_original`."""
        factors = [new / old for new, old in zip(spacing, self.spacing, strict=True)]
        margins = [int(np.ceil(factor)) for factor in factors]
        mask = np.pad(self.mask, [(margin, margin) for margin in margins])
        back = mask.astype(np.float32)
        for axis, (factor, margin, start) in enumerate(zip(factors, margins, self.start, strict=True)):
            position = np.arange(start - margin, start - margin + mask.shape[axis])  # of the voxels in the whole volume
            points = np.arange(np.ceil(position[0] / factor - 1e-6), np.floor(position[-1] / factor + 1e-6) + 1)
            near = np.rint(points * factor).astype(int) - position[0]
            back = back.take(near.clip(0, len(position) - 1), axis)
            at = (position / factor - points[0]).clip(0, len(points) - 1)
            low, shape = np.floor(at).astype(int), [-1 if axis == other else 1 for other in range(3)]
            share = (at - low).astype(np.float32).reshape(shape)
            high = (low + 1).clip(max=len(points) - 1)
            back = back.take(low, axis) * (1 - share) + back.take(high, axis) * share
        kept = back > 0.5
        return float(2 * (kept & mask).sum() / max(kept.sum() + mask.sum(), 1))


def structures(labels: Mapping[int, str], regions: Mapping[str, Sequence[int]] | None) -> dict[str, tuple[int, ...]]:
    """Name -> label values of every scored structure: the regions, or else the labels without the background."""
    if regions:
        return {name: tuple(values) for name, values in regions.items()}
    return {name: (value,) for value, name in labels.items() if value}


def parts(labels: Sequence[Path], structures: Mapping[str, Sequence[int]]) -> dict[str, list[Part]]:
    """Every structure (name -> the label values that it unites) in some of the labels, evenly spread over them, the
    smallest structure first. A label that cannot be read is left to the doctor."""
    by_name: dict[str, list[Part]] = defaultdict(list)
    count = min(CASES, len(labels))
    for path in (labels[i * len(labels) // count] for i in range(count)):
        with suppress(CourseError):
            label = volumes.reorient(volumes.read_label(path))
            boxes = [None, *find_objects(label.array[0])]
            for name, values in structures.items():
                if of_values := [box for box in (boxes[value] for value in values if value < len(boxes)) if box]:
                    sides = zip(*of_values, strict=True)
                    box = tuple(slice(min(s.start for s in side), max(s.stop for s in side)) for side in sides)
                    mask = np.isin(label.array[0][box], values)
                    by_name[name].append(Part(mask, tuple(side.start for side in box), label.spacing, label.shape))
    return dict(sorted(by_name.items(), key=lambda item: np.median([part.mask.sum() for part in item[1]])))


def dices(by_name: Mapping[str, Sequence[Part]], spacing: Sequence[float]) -> dict[str, float]:
    """Structure -> median Dice of its round trips through a grid of this spacing in mm."""
    return {name: _median(group, spacing) for name, group in by_name.items()}


def survive(by_name: Mapping[str, Sequence[Part]], spacing: Sequence[float], least: float) -> bool:
    """Whether there are structures and each keeps that Dice; the first that does not ends the search."""
    return bool(by_name) and all(_median(group, spacing) >= least for group in by_name.values())


def differ(extents: np.ndarray) -> bool:
    """Whether the extents (n, 3) in mm of all volumes differ along every axis, by `DIFFERING`. They come from headers:
    in the few labels that are read, their spread would be a matter of chance."""
    return bool(_spread(extents).min() >= DIFFERING)


def crops(by_name: Mapping[str, Sequence[Part]]) -> bool:
    """Whether volumes whose extents differ are crops around the structures: the share of the volume that a structure
    spans then differs less than its size in mm. A structure of one label says nothing about that."""
    groups = [group for group in by_name.values() if len(group) > 1]
    for group in groups:
        sizes = [np.multiply(part.mask.shape, part.spacing) for part in group]
        extents = [np.multiply(part.shape, part.spacing) for part in group]
        shares = [size / extent for size, extent in zip(sizes, extents, strict=True)]
        if (_spread(shares) >= _spread(sizes)).any():
            return False
    return bool(groups)


def _spread(sizes: Sequence[np.ndarray] | np.ndarray) -> np.ndarray:
    return np.log(sizes).std(0)


def _median(group: Sequence[Part], spacing: Sequence[float]) -> float:
    return float(np.median([part.dice(spacing) for part in group]))
