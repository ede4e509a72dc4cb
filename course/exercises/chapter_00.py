"""Checks for chapter 00: the Dice of a structure, the average label, which patients pretraining may see."""

import math
from pathlib import Path
from typing import Any

import numpy as np

from course.exercises import Wrong, array, exercise, number, refuse
from ssl_utils.data.cases import Case, Datalist


@exercise("00.1")
def _(dice_of: Any) -> str:
    reference, prediction = np.zeros((5, 6, 4), int), np.zeros((5, 6, 4), int)
    reference[1:4, 1:5, 1:3], reference[4] = 2, 1
    prediction[1:4, 2:6, 1:4], prediction[0] = 2, 1
    hit, size = 18, 24 + 36
    right = 2 * hit / size
    given = number(dice_of(prediction.copy(), reference.copy(), 2))
    refuse(given, {"You return overlap / union (the Jaccard index), which is never above Dice.": hit / (size - hit)})
    if abs(given - right) > 1e-6:
        low = "too low" if given < right else "too high"
        raise Wrong(f"Two boxes of 24 and 36 voxels that share 18 get {given:.3f}, which is {low}.")
    if number(dice_of(prediction, reference, 1)) != 0:
        raise Wrong("A structure that is in both arrays, but nowhere at the same voxel, should get 0.")
    if number(dice_of(reference, reference, 2)) != 1:
        raise Wrong("An array compared with itself should get 1.")
    empty = float(dice_of(prediction, reference, 3))
    if not math.isnan(empty):
        raise Wrong(f"A structure that is in neither array gets {empty:g}, as if it had been scored.")
    return "Dice ignores the voxels that both leave out, and an empty pair is not scored."


@exercise("00.2")
def _(most_frequent: Any) -> str:
    columns = np.array([[2, 0, 0, 7, 9], [0, 7, 7, 0, 7], [9, 2, 2, 0, 7], [0, 0, 0, 0, 0], [0, 9, 2, 9, 7]])
    right = np.array([0, 7, 2, 0, 9])  # at each of 5 voxels, the value that most of 5 cases have
    labels = np.ascontiguousarray(columns.T)[:, None, None, :]  # (n, 1, 1, 5)
    given = array(most_frequent(labels.copy()), (1, 1, 5))[0, 0]
    if not np.isin(given, labels).all():
        raise Wrong(f"Your result contains {given[~np.isin(given, labels)][0]:g}, which no label map contains.")
    wrong = np.flatnonzero(given != right)
    if len(wrong):
        at = columns[wrong[0]].tolist()
        raise Wrong(
            f"Where the cases have the values {at}, you return {given[wrong[0]]:g}; {len(wrong)} of 5 are wrong."
        )
    return "No network and no image, and yet a Dice far above 0: this is the baseline to beat."


def _datalist() -> Datalist:
    """Six patients; Dora was scanned twice, and by mistake is also in the test split."""

    def cases(*people: str, labelled: bool = True) -> tuple[Case, ...]:
        return tuple(
            Case(f"{name}_{i}", Path("image.nii.gz"), Path("label.nii.gz") if labelled else None, name)
            for i, name in enumerate(people)
        )

    splits = {"training": cases("Cyd", "Ben"), "validation": cases("Eve"), "test": cases("Dora", "Finn")}
    return Datalist(name="toy", unlabeled=cases("Ada", "Ben", "Dora", labelled=False), **splits)


@exercise("00.3")
def _(allowed: Any) -> str:
    given = allowed(_datalist())
    if not isinstance(given, set | frozenset | list | tuple) or not all(isinstance(name, str) for name in given):
        raise Wrong("The result should be a set of patients: the `patient` of the cases, not the cases.")
    given, scored = set(given), {"Dora", "Eve", "Finn"}
    if given & scored == {"Dora"}:
        raise Wrong("In our toy datalist a test patient has a second, unlabelled scan, and your set includes her.")
    if given & scored:
        raise Wrong(f"Your set includes {len(given & scored)} patients who are scored later.")
    if given != {"Ada", "Ben", "Cyd"}:
        raise Wrong(f"Your set has {len(given)} patients of our datalist; it lacks some, or has names we do not know.")
    return "The rule concerns patients, not files: no patient who is scored has been seen."
