"""Checks for chapter 10: ranks with ties, steps for a budget of seconds, RankMe."""

import numpy as np
import torch
from scipy.stats import rankdata

from course.exercises import Wrong, array, exercise, number, refuse
from ssl_utils.pretext.probes import rankme


@exercise("10.1")
def _(answer):
    for dice in ([0.7, 0.9, 0.8], [0.6, 0.8, 0.6, 0.5], [0.5, 0.5, 0.5, 0.9, 0.9], [0.4]):
        dice = np.array(dice)
        yours, right = array(answer(dice.copy()), dice.shape).astype(float), rankdata(-dice)
        if np.allclose(yours, right):
            continue
        case = f"Dice {dice.tolist()}: "
        if np.allclose(yours, rankdata(dice)):
            raise Wrong(case + "the order is reversed: rank 1 is the highest Dice.")
        if np.allclose(yours, right - 1):
            raise Wrong(case + "you count from 0.")
        for method, mistake in {
            "min": "equal values get the best of their ranks, not the mean.",
            "max": "equal values get the worst of their ranks, not the mean.",
            "dense": "after equal values you continue with the next whole number, as if they were one.",
            "ordinal": "equal values get different ranks, by their place in the array.",
        }.items():
            if np.allclose(yours, rankdata(-dice, method=method)):
                raise Wrong(case + mistake)
        raise Wrong(case + "at least one rank is another; how many values are better, how many are equal?")
    return "The sum of the ranks is the same with ties and without, so no init gains by being equal to another."


@exercise("10.2")
def _(answer):
    for budget, spent in ((60, [9.0, 3.0, 0.4, 0.5, 0.6, 8.0, 0.5]), (10, [1.0, 1.0, 0.6, 0.6, 0.6]), (1, [9.0] * 5)):
        yours, kept = number(answer(budget, list(spent))), np.array(spent[2:])
        right = max(1, round(budget / np.median(kept)))
        if yours == right:
            continue
        case = f"{budget} seconds, steps of {spent} s: "
        if right == 1 and yours < 1:
            raise Wrong(case + "a training of no step at all; at least one is wanted.")
        if yours != round(yours):
            raise Wrong(case + "a number of steps is a whole number.")
        mistakes = {
            "you round down, and the nearest whole number is wanted.": int(budget / np.median(kept)),
            "the steps of warming up are counted.": round(budget / np.median(spent)),
            "one slow step decides: take the median, not the mean.": round(budget / kept.mean()),
            "the steps of warming up are counted, and slow steps decide: that is a mean of all.": round(
                budget / np.mean(spent)
            ),
            "you count the fastest step, which is not a typical one.": round(budget / kept.min()),
        }
        refuse(yours, mistakes, case=case)
        raise Wrong(case + f"{yours:g} steps are too {'many' if yours > right else 'few'}.")
    return "The number does not depend on the two first steps, nor on one that was interrupted."


@exercise("10.3")
def _(answer):
    draw = torch.Generator().manual_seed(0)
    full = torch.randn(40, 6, generator=draw, dtype=torch.float64)
    zero = torch.diag(torch.tensor([2.0, 1.0, 1.0, 0.0], dtype=torch.float64))  # singular values that are exactly 0
    for name, tokens in {"full": full, "low": full[:, :2] @ full[:2], "scaled": 100 * full, "zero": zero}.items():
        result = torch.as_tensor(answer(tokens.clone()), dtype=torch.float64)
        if result.isnan().any():
            raise Wrong("There is a nan: some singular values are 0, and 0 times ln 0 counts as 0.")
        yours, right = number(result), rankme(tokens)
        if abs(yours - right) < 1e-3:
            continue
        sigma = torch.linalg.svdvals(tokens)
        p, square = sigma / sigma.sum(), sigma**2 / (sigma**2).sum()
        centred = tokens - tokens.mean(0)
        mistakes = {
            "This is the entropy; its exponential is wanted.": float(torch.special.entr(p).sum()),
            "The singular values are squared; RankMe takes them as they are.": float(
                torch.special.entr(square).sum().exp()
            ),
            "The singular values are not divided by their sum.": float(torch.special.entr(sigma).sum().exp()),
            "You count the singular values above 0, each as much as the largest.": float((sigma > 1e-9).sum()),
            "The sign of the entropy is wrong.": float((-torch.special.entr(p).sum()).exp()),
            "You subtract the mean of the tokens first; RankMe does not.": rankme(centred),
        }
        refuse(yours, mistakes, tolerance=1e-3)
        raise Wrong(f"Tokens of {'rank 2' if name == 'low' else 'full rank'}: your number is another.")
    return "It is 1 for tokens of one direction, at most min(N, E), and a factor on the tokens changes nothing."
