"""Checks for chapter 16: the Dice of a case under three rules for absent structures, and a mean without background."""

import numpy as np

from course.exercises import Wrong, exercise, number, refuse

CASES = (  # both, predicted, reference; the last has a structure in the prediction alone
    ([900, 1], [1000, 10], [1000, 10]),
    ([40, 0, 30], [50, 0, 60], [70, 0, 40]),
    ([12, 0, 0], [20, 0, 5], [16, 0, 0]),
)


def _case_dice(both, predicted, reference, absent=None) -> float:
    values = []
    for inside, guess, truth in zip(both, predicted, reference, strict=True):
        if guess + truth:
            values.append(2 * inside / (guess + truth))
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
            text = f"For {case[0]} voxels in both, {case[1]} predicted, {case[2]} in the label and absent={absent}"
            pooled, seen = 2 * both.sum() / (predicted + reference).sum(), reference > 0
            refuse(yours, {" you pool the voxels of all structures; weight structures equally.": pooled}, case=text)
            for rule in (None, 0.0, 1.0):
                scored = _case_dice(both, predicted, reference, rule)
                refuse(yours, {" the structure in neither mask is scored by another rule.": scored}, case=text)
            labelled = (2 * both[seen] / (predicted + reference)[seen]).mean()
            refuse(yours, {" a structure that was only predicted is left out; it is not absent.": labelled}, case=text)
            raise Wrong(f"{text} the mean is another.")
    return "Three rules give three numbers for the same masks: report the rule with the number."


@exercise("16.2")
def _(answer):
    for reported, background, structures in ((0.63, 0.99, 13), (0.75, 0.99, 1), (0.80, 0.97, 2)):
        yours = number(answer(reported, background, structures))
        true = ((structures + 1) * reported - background) / structures
        case = f"Reported {reported} over background ({background}) and {structures} structures: "
        if abs(yours - true) < 1e-6:
            continue
        too_few = (structures * reported - background) / (structures - 1 or 1)
        mistakes = {
            "that is the reported mean itself.": reported,
            "how many numbers were averaged? Background is one more than the structures.": too_few,
        }
        refuse(yours, mistakes, case=case)
        if yours > reported:
            raise Wrong(case + "without the background, which is above the mean, the mean must be lower.")
        raise Wrong(case + "your mean and the background do not give the reported one.")
    return "The fewer the structures and the worse the network, the more of the reported mean is background."
