"""Exercises of chapter 05: points and percent, and how many test cases a claim needs."""

import math

import numpy as np

from course.exercises import Wrong, array, exercise, number


@exercise("05.1")
def _(answer):
    for low, high in ((0.6307, 0.7009), (0.80, 0.78)):
        points, percent = array(answer(low, high), (2,))
        told = f"Dice {low} without and {high} with pretraining: "
        if abs(points - (high - low)) < 1e-6:
            raise Wrong(told + "the first number is a fraction. A Dice of 1 has 100 points.")
        if abs(points + 100 * (high - low)) < 1e-6:
            raise Wrong(told + "the first number has the wrong sign.")
        if abs(points - 100 * (high - low)) > 1e-6:
            raise Wrong(told + "the first number is not the gain in points.")
        if abs(percent - 100 * (high - low) / high) < 1e-6:
            raise Wrong(told + "the second number is relative to the network with pretraining. What was there before?")
        if abs(percent - 100 * (high - low) / low) > 1e-6:
            raise Wrong(told + "the second number is not the gain in percent of the baseline.")
    return "Seven points and eleven percent are one result; a paper that prints one of them leaves out the other."


@exercise("05.2")
def _(answer):
    for deviation, half_width in ((0.05, 0.01), (0.03, 0.005), (0.2, 0.05)):
        cases, exact = number(answer(deviation, half_width)), (1.96 * deviation / half_width) ** 2
        told = f"Deviation {deviation}, half width {half_width}: "
        if cases != int(cases):
            raise Wrong(told + "patients come whole; yours is a fraction.")
        if cases == math.ceil(exact / 4):
            raise Wrong(told + "the interval comes out twice as wide as it should; it reaches out to both sides.")
        if cases == math.floor(exact):
            raise Wrong(told + "just too few, the interval is still a little wider than asked for.")
        if cases != math.ceil(exact):
            raise Wrong(told + f"the interval of {cases:.0f} cases does not have this width.")
    return "One point takes a hundred cases and more; a paired gain has a smaller spread, and needs fewer."


WRONG = {
    "05.1": [
        lambda low, high: (high - low, (high - low) / low),
        lambda low, high: (100 * (low - high), 100 * (low - high) / low),
        lambda low, high: (100 * (high - low), 100 * (high - low) / high),
        lambda low, high: (100 * (high - low) / low, 100 * (high - low)),
        lambda low, high: 100 * (high - low),
    ],
    "05.2": [
        lambda s, w: (1.96 * s / w) ** 2,
        lambda s, w: int((1.96 * s / w) ** 2),
        lambda s, w: int(np.ceil(1.96 * s / w)),
        lambda s, w: int(np.ceil((1.96 * s / (2 * w)) ** 2)),
        lambda s, w: int(np.ceil((1.96 * w / s) ** 2)),
    ],
}
