"""Checks of chapter 02: three L1 losses, and NT-Xent from its formula."""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from course.exercises import Wrong, array, exercise, number


@exercise("02.1")
def _(answer):
    state = torch.Generator().manual_seed(0)
    for shape, share in (((1, 4, 5, 6), 0.2), ((2, 3, 4, 2), 0.7)):
        image, restored = (torch.randn(shape, generator=state) for _ in range(2))
        hidden = torch.rand(shape, generator=state) < share
        error = (restored - image).abs()
        true = torch.stack([error.mean(), error[hidden].mean(), error[~hidden].mean()])
        yours = torch.as_tensor(array(answer(restored, image, hidden))).float()
        if yours.shape != (3,):
            raise Wrong(f"Three numbers are wanted, your result has the shape {tuple(yours.shape)}.")
        if (yours - true).abs().max() < 1e-5:
            continue
        if (yours < 0).any():
            raise Wrong("A mean absolute error cannot be negative.")
        if (yours - true[[0, 2, 1]]).abs().max() < 1e-5:
            raise Wrong("Damaged and untouched voxels are exchanged; the mask is True where the view was damaged.")
        if (yours[1:] - true[1:] * torch.stack([hidden.float().mean(), (~hidden).float().mean()])).abs().max() < 1e-5:
            raise Wrong("The second and third sum are divided by the number of all voxels, not of those in the sum.")
        if abs(yours[0] - true[0]) > 1e-5:
            raise Wrong("The first number, the mean absolute error over all voxels, is off.")
        raise Wrong("The first number is right; the second or the third is a mean over other voxels, or no mean.")
    return "The first is the other two, weighted by their shares of the voxels: it hides which of them is large."


def _nt_xent(first: Tensor, second: Tensor, temperature: float) -> Tensor:
    rows = F.normalize(torch.cat([first, second]), dim=1)
    similarity = (rows @ rows.T / temperature).fill_diagonal_(float("-inf"))
    return F.cross_entropy(similarity, torch.arange(len(rows)).roll(len(first)))


def _slips(first: Tensor, second: Tensor, t: float) -> list[tuple[Tensor, str]]:
    """Losses with one mistake each, and what to say of it."""
    z = F.normalize(torch.cat([first, second]), dim=1)
    s, rows = z @ z.T / t, torch.arange(len(z)).roll(len(first))
    raw, cross = torch.cat([first, second]), F.normalize(first, dim=1) @ F.normalize(second, dim=1).T / t
    return [
        (F.cross_entropy(s, rows), "The sum runs over all rows; which one does the formula leave out?"),
        (
            (raw @ raw.T / t).fill_diagonal_(-math.inf).log_softmax(1)[range(len(z)), rows].mean().neg(),
            "Cosine, not dot.",
        ),
        (F.cross_entropy(cross, torch.arange(len(first))), "Rows are compared with those of the other view only."),
        (
            (s * t * t).fill_diagonal_(-math.inf).log_softmax(1)[range(len(z)), rows].mean().neg(),
            "Which way does the temperature act?",
        ),
        (_nt_xent(first, second, t) * len(z), "This is a sum over the rows; the loss is their mean."),
        (-_nt_xent(first, second, t), "The sign is wrong."),
    ]


@exercise("02.2")
def _(answer):
    state = torch.Generator().manual_seed(1)
    for crops, width, temperature in ((2, 2, 1.0), (4, 3, 0.5), (3, 8, 0.2)):
        first, second = (torch.randn(crops, width, generator=state) for _ in range(2))
        yours = number(answer(first, second, temperature))
        if abs(yours - float(_nt_xent(first, second, temperature))) < 1e-4:
            continue
        for wrong, why in _slips(first, second, temperature):
            if abs(yours - float(wrong)) < 1e-4:
                raise Wrong(why)
        side = "high" if yours > float(_nt_xent(first, second, temperature)) else "low"
        raise Wrong(f"For {crops} crops at temperature {temperature} it is too {side}. Is the partner the right row?")
    return "A cross entropy over all other rows; equal rows give its value at chance, whatever the temperature."


def _neighbour(first, second, t):
    rows = F.normalize(torch.cat([first, second]), dim=1)
    return F.cross_entropy((rows @ rows.T / t).fill_diagonal_(-math.inf), torch.arange(len(rows)).roll(1))


WRONG = {
    "02.1": [
        lambda restored, image, hidden: (restored - image).abs().mean(),
        lambda restored, image, hidden: torch.stack([((restored - image) * m).mean() for m in (1, hidden, ~hidden)]),
        lambda restored, image, hidden: torch.stack(
            [(restored - image).abs()[m].mean() for m in (hidden | ~hidden, ~hidden, hidden)]
        ),
        lambda restored, image, hidden: torch.stack(
            [((restored - image).abs() * m).mean() for m in (1, hidden, ~hidden)]
        ),
        lambda restored, image, hidden: torch.stack([(restored - image).square().mean()] * 3),
        lambda restored, image, hidden: torch.stack([(restored - image).abs().mean()] * 3),
    ],
    "02.2": [
        *(lambda first, second, t, i=i: _slips(first, second, t)[i][0] for i in range(6)),
        _neighbour,
        lambda first, second, t: math.log(2 * len(first) - 1),
    ],
}
