"""Checks for chapter 01: volumes of structures, from a point to a voxel, a datalist without a leak."""

from pathlib import Path
from typing import Any

import numpy as np

from course.exercises import Wrong, array, exercise, number
from ssl_utils.data.cases import Case, Datalist
from ssl_utils.data.datalists import leaks


@exercise("01.1")
def _(millilitres: Any) -> str:
    label = np.zeros((10, 12, 8), np.uint8)
    label[2:7, 3:9, 1:5], label[7:9, :5, :5] = 1, 2
    for value, spacing in ((1, (2.0, 2.0, 3.0)), (2, (0.5, 1.0, 4.0))):
        volume = number(millilitres(label.copy(), spacing, value))
        right = float((label == value).sum() * np.prod(spacing)) / 1000
        if abs(volume - right) > 1e-6 * right:
            raise Wrong(
                f"On a small label with spacing {spacing} your result is {volume / right:.4g} times the volume of "
                f"structure {value}. A factor of 1000 is a unit; for another one, check which voxels you count."
            )
    return "A volume needs the spacing: the same voxels have another volume in another file."


def _affine(axes: tuple[int, int, int], steps: tuple[float, float, float], first: tuple[float, ...]) -> np.ndarray:
    """Index axis k runs along patient axis axes[k], steps[k] mm a voxel, from the point `first`."""
    affine = np.eye(4)
    affine[:3, :3] = 0
    for k, (axis, step) in enumerate(zip(axes, steps, strict=True)):
        affine[axis, k] = step
    affine[:3, 3] = first
    return affine


@exercise("01.2")
def _(voxel_at: Any) -> str:
    files = {
        "a file along R, A, S": _affine((0, 1, 2), (2.0, 2.0, 3.0), (-90.0, -126.0, -72.0)),
        "a file whose first axis runs to the left": _affine((0, 1, 2), (-0.8, 0.8, 2.5), (90.0, -110.0, 40.0)),
        "a file whose axes are stored in another order": _affine((2, 0, 1), (3.0, -1.0, 1.5), (30.0, -20.0, 10.0)),
    }
    for file, affine in files.items():
        for index, offset in (((10, 20, 4), 0.0), ((7, 3, 11), 0.3), ((5, 6, 7), -0.3)):
            point = (affine @ [*(np.add(index, offset)), 1])[:3]  # up to a third of a voxel beside the centre
            voxel = array(voxel_at(affine.copy(), tuple(point.tolist())), (3,))
            if (voxel != np.round(voxel)).any():
                raise Wrong("An index is made of whole numbers: take the nearest voxel.")
            if (voxel != index).any():
                one = np.abs(voxel - index).max() == 1
                distance = "one voxel, when the point is not quite on a centre" if one else "more than a voxel"
                raise Wrong(f"In {file} you miss the voxel by {distance}.")
    return "The inverse affine finds the voxel, whatever the order and direction of the axes."


def _split() -> Datalist:
    """Three patients in both splits, one of them with two scans in each."""

    def cases(split: str, *people: str) -> tuple[Case, ...]:
        return tuple(Case(f"{split}{i}_{name}", Path("x.nii.gz"), None, name) for i, name in enumerate(people))

    return Datalist(
        name="toy",
        training=cases("t", "Ada", "Ben", "Cyd", "Ben", "Dora", "Eve"),
        validation=cases("v", "Ben", "Finn", "Ben", "Cyd", "Gus", "Eve"),
    )


@exercise("01.3")
def _(repair: Any) -> str:
    before = _split()
    after = repair(before)
    if not isinstance(after, Datalist):
        raise Wrong("A datalist is wanted; `dataclasses.replace` makes a changed copy of one.")
    ids = [sorted(case.id for cases in some.sides().values() for case in cases) for some in (before, after)]
    if ids[0] != ids[1]:
        lost, new = set(ids[0]) - set(ids[1]), len(ids[1]) - len(set(ids[1]))
        raise Wrong(f"In our list of 12 cases {len(lost)} were lost, and {new} are there twice.")
    if leaks(after):
        raise Wrong(f"{len(leaks(after))} of 3 shared patients are still in both splits.")
    if not after.training or not after.validation:
        raise Wrong("One split is empty now. There is no leak, but nothing to train or to validate on.")
    return f"No patient is shared; {len(after.training)} cases train and {len(after.validation)} validate."
