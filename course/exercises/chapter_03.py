"""Checks for chapter 03: how many voxels a block mask hides, and flips that a seed can repeat."""

import itertools
import math

import torch

from course.exercises import Wrong, array, exercise, number, refuse

CROPS = (  # grid, patch_size, mask_ratio, unit
    ((4, 6, 4), 8, 0.6, 1),
    ((4, 6, 4), 8, 0.6, 2),
    ((6, 6, 6), 16, 0.75, 3),
    ((2, 2, 2), 4, 0.99, 1),
    ((4, 4, 4), 8, 0.05, 2),
)


def _hidden(grid, patch_size, mask_ratio, unit) -> int:
    units = math.prod(g // unit for g in grid)
    return max(min(round(units * mask_ratio), units - 1), 1) * (unit * patch_size) ** 3


@exercise("03.1")
def _(answer):
    for crop in CROPS:
        yours, true = number(answer(*crop)), _hidden(*crop)
        if yours == true:
            continue
        grid, patch_size, ratio, unit = crop
        case = f"For a grid of {grid}, patches of {patch_size}, ratio {ratio} and unit {unit}"
        refuse(yours * patch_size**3, {" you count tokens; voxels are wanted.": true}, case=case)
        if yours >= math.prod(grid) * patch_size**3:
            raise Wrong(f"{case} nothing is left visible.")
        if yours <= 0:
            raise Wrong(f"{case} nothing is hidden.")
        raise Wrong(f"{case} your number is too {'high' if yours > true else 'low'}. What is drawn, tokens or units?")
    return "Ratio, unit and patch can be chosen separately, and the share of hidden voxels is the same for every crop."


@exercise("03.2")
def _(answer):
    image = torch.rand(2, 3, 4, 5, generator=torch.Generator().manual_seed(0))  # (C, D, H, W)
    ways = [axes for n in range(4) for axes in itertools.combinations((1, 2, 3), n)]
    flips, seen = [torch.flip(image, axes) for axes in ways], []
    for seed in range(80):
        one, again = (torch.as_tensor(array(answer(image.clone(), seed), image.shape)) for _ in range(2))
        if not torch.equal(one, again):
            raise Wrong(f"Number {seed} gives another result the second time; the flips must depend on it alone.")
        equal = [i for i, flip in enumerate(flips) if torch.equal(one, flip)]
        if not equal:
            raise Wrong("The result is not the crop, flipped along spatial axes (the first axis is the channel).")
        seen += equal
    if set(seen) == {0}:
        raise Wrong("Nothing is ever flipped.")
    if len(set(seen)) < len(ways):
        raise Wrong(
            f"Of the eight ways to flip only {len(set(seen))} occur in 80 draws. Is every axis drawn by itself?"
        )
    shares = [sum(axis in ways[i] for i in seen) / len(seen) for axis in (1, 2, 3)]
    if not all(0.3 < share < 0.7 for share in shares):
        raise Wrong(f"The axes are flipped in {', '.join(f'{s:.0%}' for s in shares)} of the draws; half is wanted.")
    return "A random change that its seed repeats: two runs with and without flips then differ in nothing else."
