"""Checks for chapter 16: the Dice of a case under three rules for absent structures; metrics that depend on order."""

import numpy as np

from course.exercises import Wrong, exercise, number

CASES = (  # both, predicted, reference; the last has a structure in the prediction alone
    ([900, 1], [1000, 10], [1000, 10]),
    ([40, 0, 30], [50, 0, 60], [70, 0, 40]),
    ([12, 0, 0], [20, 0, 5], [16, 0, 0]),
)


def _case_dice(both, predicted, reference, absent=None) -> float:
    values = []
    for in_both, in_prediction, in_label in zip(both, predicted, reference, strict=True):
        if in_prediction + in_label:
            values.append(2 * in_both / (in_prediction + in_label))
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
            start = f"For {case[0]} voxels in both, {case[1]} predicted, {case[2]} in the label and absent={absent}"
            if abs(yours - 2 * both.sum() / (predicted + reference).sum()) < 1e-6:
                raise Wrong(f"{start} the voxels of all structures are pooled; every structure is to count alike.")
            if any(abs(yours - _case_dice(both, predicted, reference, rule)) < 1e-6 for rule in (None, 0.0, 1.0)):
                raise Wrong(f"{start} the structure in neither mask is scored by another rule.")
            labelled = reference > 0
            if abs(yours - (2 * both[labelled] / (predicted + reference)[labelled]).mean()) < 1e-6:
                raise Wrong(f"{start} a structure that was only predicted is left out; it is not absent.")
            raise Wrong(f"{start} the mean is another.")
    return "Three rules, three numbers, one pair of masks: name the rule beside the number."


SCORES = np.array([0.90, 0.82, 0.70, 0.65, 0.55, 0.394])
METRICS = {  # name -> (metric, whether it depends on the order)
    "the mean": (np.mean, False),
    "the mean, added up case by case": (lambda scores: sum(scores.tolist()) / len(scores), False),
    "the highest": (np.max, False),
    "the mean of running means": (lambda scores: np.mean([scores[: i + 1].mean() for i in range(len(scores))]), True),
    "the first and the last case": (lambda scores: (scores[0] + scores[-1]) / 2, True),
    "a mean in which the order changes little": (lambda scores: scores.mean() + 1e-4 * scores[2], True),
}


@exercise("16.2")
def _(answer):
    for name, (metric, depends) in METRICS.items():
        scores = SCORES.copy()
        yours = number(answer(metric, scores))
        if not np.array_equal(scores, SCORES):
            raise Wrong("The scores themselves were reordered; shuffle a copy.")
        if yours not in (0, 1):
            raise Wrong("True or False is wanted.")
        if yours and not depends:
            raise Wrong(
                f"The metric is {name}: it does not depend on the order. Rounding may differ in the last digits."
            )
        if depends and not yours:
            raise Wrong(f"The metric is {name}: another order gives another number. Were enough orders tried?")
    return "A mean over cases has no order; a metric that is never reset fails this test."
