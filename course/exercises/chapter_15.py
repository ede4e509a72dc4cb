"""Checks for chapter 15: runs of a grid, the expected best of n runs, and a label map that a challenge accepts."""

from itertools import product

import numpy as np

from course.exercises import Wrong, array, exercise, number, refuse

OWN = {"random": {"lr"}, "mae": {"lr", "mask_ratio"}, "simmim": {"lr", "mask_ratio", "unit"}}
GRIDS = (  # tasks, options
    (["mae"], {"lr": [0.1, 0.2], "mask_ratio": [0.5, 0.6]}),
    (["random", "mae"], {"mask_ratio": [0.5, 0.6], "lr": [0.1]}),
    (["random", "simmim", "mae"], {"lr": [0.1, 0.2], "mask_ratio": [0.5, 0.6, 0.7], "unit": [1, 2]}),
    (["random"], {"mask_ratio": [0.5, 0.6]}),
)


def _expanded(tasks, options, own) -> list[tuple[str, dict]]:
    runs = []
    for task in tasks:
        names = [name for name in options if name in own[task]]
        runs += [(task, dict(zip(names, values, strict=True))) for values in product(*(options[n] for n in names))]
    return runs


def _keys(runs) -> list[tuple]:
    """Runs that can be compared; raises Wrong where one is no pair of a task and a dictionary."""
    try:
        return [(task, *sorted(dict(chosen).items())) for task, chosen in runs]
    except (TypeError, ValueError):
        raise Wrong("A list of pairs is wanted: the task, and a dictionary of its chosen values.") from None


@exercise("15.1")
def _(answer):
    for tasks, options in GRIDS:
        given = {name: list(values) for name, values in options.items()}
        yours, right = _keys(answer(list(tasks), given, OWN)), _keys(_expanded(tasks, options, OWN))
        if sorted(yours, key=str) == sorted(right, key=str):
            continue
        start = f"Tasks {', '.join(tasks)} with {options}: you have {len(yours)} runs."
        if len(yours) > len({*yours}):
            raise Wrong(f"{start} Some of them are equal; which option does a task not have?")
        if any(pair[0] not in OWN[task] for task, *pairs in yours for pair in pairs):
            raise Wrong(f"{start} One has an option that its task lacks.")
        if any(len(pairs) < len(OWN[task] & {*options}) for task, *pairs in yours):
            raise Wrong(f"{start} One lacks an option of its task.")
        raise Wrong(f"{start} There should be {len(right)}.")
    return "A product of no lists has one element, so a task without options still has its run."


SCORES = (np.array([0.62, 0.58, 0.71, 0.66, 0.60]), np.array([0.5, 0.5, 0.8]), np.array([0.4]))


def _best(scores, n) -> float:
    ordered = np.sort(scores)
    return float((ordered * np.diff((np.arange(len(ordered) + 1) / len(ordered)) ** n)).sum())


@exercise("15.2")
def _(answer):
    for scores in SCORES:
        for n in (1, 2, 7, 40):
            yours = number(answer(scores.copy(), n))
            if abs(yours - _best(scores, n)) < 1e-9:
                continue
            start = f"For {n} of the scores {scores}: "
            mistakes = {
                "that is the largest score of all; it is not always drawn.": float(scores.max()),
                "that is the mean of the scores; the best of several lies above it.": float(scores.mean()),
                "the scores are not in order.": float(
                    (scores * np.diff((np.arange(len(scores) + 1) / len(scores)) ** n)).sum()
                ),
                "that is the smallest of the drawn ones.": -_best(-scores, n),
            }
            refuse(yours, mistakes, case=start)
            if abs(yours - _best(scores, n)) < 0.01:
                raise Wrong(f"{start}that is close, but drawn; it can be computed without drawing.")
            raise Wrong(f"{start}the number is another.")
    return "With this formula a budget of n runs is reported from the runs that you have."


AFFINE = np.diag([2.0, 2.0, 3.0, 1.0])
MOVED = AFFINE + np.array([[0, 0, 0, 1.0]] + [[0] * 4] * 3)
FULL = np.arange(24).reshape(2, 3, 4) % 3
MAPS = (  # labels, affine, right, what is special
    (FULL, AFFINE, True, "a map with every label on the grid of the scan"),
    (FULL.astype(float), AFFINE + 1e-5, True, "whole numbers stored as floats, an affine that is rounded"),
    (np.zeros((2, 3, 4), int), AFFINE, True, "a map in which no structure is present"),
    (FULL.transpose(2, 1, 0), AFFINE, False, "a map whose axes are exchanged"),
    (FULL, MOVED, False, "a map that is moved by a millimetre"),
    (FULL, np.diag([-2.0, 2.0, 3.0, 1.0]), False, "a map that is mirrored by its affine"),
    (FULL + 1, AFFINE, False, "a map with a label that the coding lacks"),
    (FULL * 0.5, AFFINE, False, "a map with the value 0.5, as interpolation leaves it"),
)


@exercise("15.3")
def _(answer):
    for labels, affine, right, special in MAPS:
        yours = array(answer(labels.copy(), affine.copy(), (2, 3, 4), AFFINE.copy(), [0, 1, 2]))
        if yours.size != 1:
            raise Wrong(f"True or False is wanted, you have {yours.size} values.")
        if bool(yours) != right:
            raise Wrong(f"You {'accept' if yours else 'refuse'} {special}.")
    return "Names, geometry, coding: a container that fails one of them is scored as if it had found nothing."
