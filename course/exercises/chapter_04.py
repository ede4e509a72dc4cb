"""Checks for chapter 04: one Dice over all cases, and the largest component of a mask."""

import numpy as np
from scipy import ndimage

from course.exercises import Wrong, array, exercise, number, refuse


def _pairs():
    """(prediction, reference) of a large structure half covered, and of a small one that was missed."""
    large, half, small = (np.zeros((10, 10, 10), bool) for _ in range(3))
    large[2:8], half[2:5], small[0, 0, 0] = True, True, True
    return [(half, large), (np.zeros_like(small), small)]


@exercise("04.1")
def _(answer):
    pairs = _pairs()
    dice = number(answer(pairs))
    both = [int((a & b).sum()) for a, b in pairs]
    sizes = [int(a.sum()) + int(b.sum()) for a, b in pairs]
    if abs(dice - 2 * sum(both) / sum(sizes)) < 1e-6:
        return "A missed small structure hardly changes it: it weights cases by size, the mean over cases does not."
    per_case = np.mean([2 * b / s for b, s in zip(both, sizes, strict=True)])
    mistakes = {
        "That is the mean of the cases' own Dice. Pooled means: count over all cases before you divide.": per_case,
        "It is half as large as it should be: a Dice of equal masks is 1.": sum(both) / sum(sizes),
    }
    refuse(dice, mistakes)
    raise Wrong("It needs the counts of both masks over all cases; yours gives another number on two cases.")


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
        raise Wrong("The result for an empty mask is not empty.")
    return "Small false components hardly change Dice, but HD95 by centimetres. Some organs do have several components."
