"""Checks for chapter 05: points and percent, and how many test cases a claim needs."""

import math

from course.exercises import Wrong, array, exercise, number, refuse


@exercise("05.1")
def _(answer):
    for low, high in ((0.6307, 0.7009), (0.80, 0.78)):
        points, percent = array(answer(low, high), (2,))
        case, gain = f"Dice {low} without and {high} with pretraining: ", high - low
        mistakes = {
            "the first number is a fraction. A Dice of 1 has 100 points.": gain,
            "the first number has the wrong sign.": -100 * gain,
        }
        refuse(points, mistakes, case=case)
        if abs(points - 100 * gain) > 1e-6:
            raise Wrong(case + "the first number is not the gain in points.")
        pretrained = "the second number is relative to the network with pretraining. Which one is the baseline?"
        refuse(percent, {pretrained: 100 * gain / high}, case=case)
        if abs(percent - 100 * gain / low) > 1e-6:
            raise Wrong(case + "the second number is not the gain in percent of the baseline.")
    return "Seven points and eleven percent are the same result, so a paper has to name the unit."


@exercise("05.2")
def _(answer):
    for deviation, half_width in ((0.05, 0.01), (0.03, 0.005), (0.2, 0.05)):
        cases, exact = number(answer(deviation, half_width)), (1.96 * deviation / half_width) ** 2
        case = f"Standard deviation {deviation}, half width {half_width}: "
        if cases != int(cases):
            raise Wrong(case + "the number of patients must be whole; yours is a fraction.")
        mistakes = {
            "the interval is twice as wide as it should be; the half width is that of one side.": math.ceil(exact / 4),
            "just too few, the interval is still a little too wide.": math.floor(exact),
        }
        refuse(cases, mistakes, case=case)
        if cases != math.ceil(exact):
            raise Wrong(case + f"the interval of {cases:.0f} cases does not have this width.")
    return "A half width of one point takes a hundred cases or more; a paired gain varies less and needs fewer."
