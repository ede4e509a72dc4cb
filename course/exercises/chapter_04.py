"""Exercises of chapter 04: one Dice over all cases, and the largest piece of a mask."""

import numpy as np
from scipy import ndimage

from course.exercises import Wrong, array, exercise, number


def _pairs():
    """(prediction, reference) of a large structure half covered, and of a small one that was missed."""
    large, half, small = (np.zeros((10, 10, 10), bool) for _ in range(3))
    large[2:8], half[2:5], small[0, 0, 0] = True, True, True
    return [(half, large), (np.zeros_like(small), small)]


@exercise("04.1")
def _(answer):
    pairs = _pairs()
    found = number(answer(pairs))
    both = [int((a & b).sum()) for a, b in pairs]
    sizes = [int(a.sum()) + int(b.sum()) for a, b in pairs]
    if abs(found - 2 * sum(both) / sum(sizes)) < 1e-6:
        return "A missed small structure hardly moves it: it weighs cases by their size, the mean of cases does not."
    if abs(found - np.mean([2 * b / s for b, s in zip(both, sizes, strict=True)])) < 1e-6:
        raise Wrong("That is the mean of the cases' own Dice. Pooled means: count over all cases before you divide.")
    if abs(found - sum(both) / sum(sizes)) < 1e-6:
        raise Wrong("It is half as large as it should be: a Dice of equal masks is 1.")
    raise Wrong("The counts of both masks, over all cases, belong into it; yours gives another number on two cases.")


@exercise("04.2")
def _(answer):
    crumb, cube, empty = (np.zeros((20, 20, 20), bool) for _ in range(3))
    crumb[1:4, 1:4, 1:4], cube[6:10, 6:10, 6:10] = True, True
    left = array(answer(crumb | cube), cube.shape).astype(bool)
    if not left.any():
        raise Wrong("Nothing is left of a mask that has two pieces.")
    if ndimage.label(left)[1] > 1:
        raise Wrong("More than one piece is left.")
    if not np.array_equal(left, cube):
        raise Wrong("One piece is left, but it is not the one with the most voxels, or not all of it.")
    if array(answer(empty), empty.shape).astype(bool).any():
        raise Wrong("An empty mask comes back with voxels in it.")
    return "Crumbs hardly move Dice and move HD95 by centimetres; for what comes in several pieces it would be wrong."


def _per_case(pairs):
    return np.mean([2 * (a & b).sum() / (a.sum() + b.sum()) for a, b in pairs])


def _no_factor(pairs):
    return sum((a & b).sum() for a, b in pairs) / sum(a.sum() + b.sum() for a, b in pairs)


def _reference_alone(pairs):
    return sum((a & b).sum() for a, b in pairs) / sum(b.sum() for _, b in pairs)


def _first_piece(mask):
    return ndimage.label(mask)[0] == 1


def _counts_the_outside(mask):
    numbered, _ = ndimage.label(mask)
    return numbered == np.bincount(numbered.ravel()).argmax()


def _invents(mask):
    numbered, pieces = ndimage.label(mask)
    return numbered == (1 + np.bincount(numbered.ravel())[1:].argmax() if pieces else 0)


WRONG = {
    "04.1": [_per_case, _no_factor, _reference_alone, lambda pairs: 0.0, lambda pairs: [1.0, 0.0]],
    "04.2": [lambda mask: mask, np.zeros_like, _first_piece, _counts_the_outside, _invents, lambda mask: mask[:5]],
}
