"""Checks for chapter 01: from nibabel to ITK, the inverse of an affine, a datalist without a leak."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from course.exercises import Wrong, array, exercise
from ssl_utils.data.cases import Case, Datalist
from ssl_utils.data.datalists import leaks


def _affine(axes: tuple[int, int, int], steps: tuple[float, float, float], first: tuple[float, ...]) -> np.ndarray:
    """Index axis k runs along patient axis axes[k], steps[k] mm a voxel, from the point `first`."""
    affine = np.eye(4)
    affine[:3, :3] = 0
    for k, (axis, step) in enumerate(zip(axes, steps, strict=True)):
        affine[axis, k] = step
    affine[:3, 3] = first
    return affine


FILES = {
    "a file along R, A, S": _affine((0, 1, 2), (2.0, 2.0, 3.0), (-90.0, -126.0, -72.0)),
    "a file whose first axis points to the left": _affine((0, 1, 2), (-0.8, 0.8, 2.5), (90.0, -110.0, 40.0)),
    "a file whose axes are stored in another order": _affine((2, 0, 1), (3.0, -1.0, 1.5), (30.0, -20.0, 10.0)),
}


@exercise("01.1")
def _(for_itk: Any) -> str:
    voxels = np.arange(60.0).reshape(3, 4, 5)
    for file, affine in FILES.items():
        given = for_itk(voxels.copy(), affine.copy())
        if not isinstance(given, tuple | list) or len(given) != 2:
            raise Wrong("Two results are expected: the array and the affine.")
        turned, lps = array(given[0]), array(given[1], (4, 4))
        if turned.shape != (5, 4, 3):
            raise Wrong(f"From an array (3, 4, 5) you make {turned.shape}; ITK's slowest axis is z, its fastest is x.")
        if any(turned[k, j, i] != voxels[i, j, k] for i, j, k in np.ndindex(3, 4, 5)):
            raise Wrong("The shape is right, but some voxels are not where they belong: were axes flipped or reshaped?")
        for index in ((0, 0, 0, 1), (2, 1, 4, 1)):
            (x, y, z, _), point = lps @ index, (affine @ index)[:3]
            if not np.allclose((x, y, z), point * (-1, -1, 1)):
                end = "first voxel" if not any(index[:3]) else "voxel (2, 1, 4)"
                at = ", ".join(f"{value:g}" for value in point)
                raise Wrong(f"In {file} the {end} is at ({at}) in RAS; your affine maps it to ({x:g}, {y:g}, {z:g}).")
    return "The array is transposed, the patient axes change sign, and no voxel moves in the patient."


@exercise("01.2")
def _(voxel_at: Any) -> str:
    for file, affine in FILES.items():
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


def _lists() -> tuple[Datalist, Datalist]:
    """Three shared patients, one of them with two scans in each split; and every validation patient in training."""

    def cases(split: str, *people: str) -> tuple[Case, ...]:
        return tuple(Case(f"{split}{i}_{name}", Path("x.nii.gz"), None, name) for i, name in enumerate(people))

    training = cases("t", "Ada", "Ben", "Cyd", "Ben", "Dora", "Eve")
    some = Datalist(name="toy", training=training, validation=cases("v", "Ben", "Finn", "Ben", "Cyd", "Gus", "Eve"))
    return some, replace(some, validation=cases("v", "Ben", "Cyd", "Eve"))


@exercise("01.3")
def _(repair: Any) -> str:
    for before, which in zip(_lists(), ("our list", "a list whose validation patients all train, too"), strict=True):
        after = repair(before)
        if not isinstance(after, Datalist):
            raise Wrong("The result should be a datalist; `dataclasses.replace` makes a changed copy of one.")
        old, new = (sorted(case.id for cases in one.sides().values() for case in cases) for one in (before, after))
        if old != new:
            lost, twice = len(set(old) - set(new)), len(new) - len(set(new))
            raise Wrong(f"In {which}, {lost} of {len(old)} cases were lost, and {twice} are listed twice.")
        if leaks(after):
            raise Wrong(f"In {which}, {len(leaks(after))} of 3 shared patients are still in both splits.")
        if not after.training or not after.validation:
            raise Wrong(
                f"In {which}, one split is empty now: there is no leak, but nothing to train on or to validate."
            )
    return "No patient is shared, no case was lost, and both splits have patients, even in the worst list."
