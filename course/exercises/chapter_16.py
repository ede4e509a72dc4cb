"""Checks of chapter 16: the Dice of a case under three rules for absent structures, and a mean without background."""

import numpy as np

from course.exercises import Wrong, exercise, number

CASES = (  # both, predicted, reference; the last has a structure in the prediction alone
    ([900, 1], [1000, 10], [1000, 10]),
    ([40, 0, 30], [50, 0, 60], [70, 0, 40]),
    ([12, 0, 0], [20, 0, 5], [16, 0, 0]),
)


def _case_dice(both, predicted, reference, absent=None) -> float:
    values = []
    for inside, found, wanted in zip(both, predicted, reference, strict=True):
        if found + wanted:
            values.append(2 * inside / (found + wanted))
        elif absent is not None:
            values.append(absent)
    return sum(values) / len(values)


@exercise("16.1")
def _(answer):
    for case in CASES:
        both, predicted, reference = (np.array(part, float) for part in case)
        for absent in (None, 0.0, 1.0):
            yours = number(answer(both.copy(), predicted.copy(), reference.copy(), absent))
            if abs(yours - _case_dice(both, predicted, reference, absent)) < 1e-6:
                continue
            told = f"For {case[0]} voxels in both, {case[1]} predicted, {case[2]} in the label and absent={absent}"
            if abs(yours - 2 * both.sum() / (predicted + reference).sum()) < 1e-6:
                raise Wrong(f"{told} you pool the voxels of all structures; every structure is to count alike.")
            if any(abs(yours - _case_dice(both, predicted, reference, rule)) < 1e-6 for rule in (None, 0.0, 1.0)):
                raise Wrong(f"{told} the structure in neither mask is scored by another rule.")
            seen = reference > 0
            if abs(yours - (2 * both[seen] / (predicted + reference)[seen]).mean()) < 1e-6:
                raise Wrong(f"{told} a structure that was only predicted is left out; it is not absent.")
            raise Wrong(f"{told} the mean is another.")
    return "Three rules, three numbers, one pair of masks: name the rule beside the number."


@exercise("16.2")
def _(answer):
    for reported, background, structures in ((0.63, 0.99, 13), (0.75, 0.99, 1), (0.80, 0.97, 2)):
        yours = number(answer(reported, background, structures))
        true = ((structures + 1) * reported - background) / structures
        told = f"Reported {reported} over background ({background}) and {structures} structures: "
        if abs(yours - true) < 1e-6:
            continue
        if abs(yours - (structures * true + background) / (structures + 1)) < 1e-6:
            raise Wrong(told + "that is the reported mean itself.")
        if abs(yours - (structures * reported - background) / (structures - 1 or 1)) < 1e-6:
            raise Wrong(told + "how many numbers were averaged? Background is one more than the structures.")
        if yours > reported:
            raise Wrong(told + "without the background, which is above the mean, the mean must be lower.")
        raise Wrong(told + "your mean and the background do not give back the reported one.")
    return "The fewer the structures and the worse the network, the more of the reported mean is background."


WRONG = {
    "16.1": [
        lambda both, predicted, reference, absent=None: 2 * both.sum() / (predicted + reference).sum(),
        lambda both, predicted, reference, absent=None: _case_dice(both, predicted, reference, 0.0),
        lambda both, predicted, reference, absent=None: _case_dice(both, predicted, reference),
        lambda both, predicted, reference, absent=None: (
            2 * both[reference > 0] / (predicted + reference)[reference > 0]
        ).mean(),
        lambda both, predicted, reference, absent=None: ((2 * both + 1e-5) / (predicted + reference + 1e-5)).mean(),
        lambda both, predicted, reference, absent=None: (both / np.maximum(reference, 1)).mean(),
    ],
    "16.2": [
        lambda reported, background, structures: reported,
        lambda reported, background, structures: reported - background / (structures + 1),
        lambda reported, background, structures: (structures * reported - background) / (structures - 1 or 1),
        lambda reported, background, structures: (structures * reported + background) / (structures + 1),
        lambda reported, background, structures: reported - (background - reported) / (structures + 1),
    ],
}
