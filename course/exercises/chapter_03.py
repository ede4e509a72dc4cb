"""Checks for chapter 03: a block mask, and the L1 over hidden voxels."""

import torch

from course.exercises import Wrong, array, exercise, number, refuse

CROPS = (  # grid, unit, mask_ratio
    ((4, 6, 4), 1, 0.6),
    ((4, 6, 4), 2, 0.6),
    ((6, 6, 6), 3, 0.75),
    ((5, 4, 3), 2, 0.5),
    ((2, 2, 2), 1, 0.99),
    ((4, 4, 4), 2, 0.05),
)


def _cubes(mask: torch.Tensor, unit: int) -> list[torch.Tensor]:
    return [c for a in mask.split(unit, 0) for b in a.split(unit, 1) for c in b.split(unit, 2)]


def _hidden(units: int, ratio: float) -> int:
    return max(min(round(units * ratio), units - 1), 1)


@exercise("03.1")
def _(answer):
    for grid, unit, ratio in CROPS:
        case, masks = f"For a grid of {grid}, unit {unit} and ratio {ratio}", []
        for seed in range(60):
            mask, again = (torch.as_tensor(array(answer(grid, unit, ratio, seed), grid)) for _ in range(2))
            if mask.dtype != torch.bool:
                raise Wrong("The mask should be boolean: True where a token is hidden.")
            if not torch.equal(mask, again):
                raise Wrong(f"Number {seed} gives another mask the second time; it must depend on the number alone.")
            if mask.all() or not mask.any():
                raise Wrong(f"{case} {'no token stays visible' if mask.all() else 'nothing is hidden'}.")
            hidden = [bool(cube.any()) for cube in _cubes(mask, unit)]
            if hidden != [bool(cube.all()) for cube in _cubes(mask, unit)]:
                raise Wrong(f"{case} some cubes are hidden in part only.")
            if sum(hidden) != _hidden(len(hidden), ratio):
                raise Wrong(f"{case} one mask hides {sum(hidden)} of {len(hidden)} cubes. Is the share always exact?")
            masks.append(torch.tensor(hidden).float())
        shares = torch.stack(masks).mean(0)
        if (shares - shares.mean()).abs().max() > 0.35:
            raise Wrong(f"{case} some cubes are hidden far more often than others.")
    return "Unit and ratio are set independently, and every mask hides the same number of cubes."


@exercise("03.2")
def _(answer):
    state = torch.Generator().manual_seed(0)
    for patch, channels in ((2, 1), (3, 2)):
        mask = torch.tensor([[[True], [False], [True]], [[False], [False], [False]]])  # (2, 3, 1)
        voxels = torch.kron(mask.int(), torch.ones(patch, patch, patch).int()).bool()
        image = torch.randn(channels, *voxels.shape, generator=state)
        prediction = image + torch.rand(image.shape, generator=state) * torch.where(voxels, 1.0, -5.0)
        yours, error = number(answer(prediction, image, mask, patch)), (prediction - image).abs()
        if abs(yours - float(error[:, voxels].mean())) < 1e-5:
            continue
        mistakes = {
            "Visible voxels count too; the network could gain by copying them.": error.mean(),
            "This is the loss on the visible voxels.": error[:, ~voxels].mean(),
            "The sum is over hidden voxels, but it is divided by the number of all voxels.": (error * voxels).mean(),
            "This is a sum; the loss is a mean over hidden voxels.": error[:, voxels].sum(),
            "This is the squared error.": error[:, voxels].square().mean(),
            "Your mask of voxels repeats the whole mask of tokens.": error[:, mask.repeat(patch, patch, patch)].mean(),
            "Only the first channel counts.": error[0, voxels].mean(),
        }
        refuse(yours, {why: float(value) for why, value in mistakes.items()}, tolerance=1e-5)
        raise Wrong(f"With patches of {patch} and {channels} channels the loss is another. Which voxels does it count?")
    return "Nonsense at visible voxels changes nothing, and the loss has one scale at every mask ratio."
