"""Checks for chapter 02: three L1 losses, and NT-Xent from its formula."""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from course.exercises import Wrong, array, exercise, number, refuse


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
    return _cross_entropy(rows @ rows.T / temperature, torch.arange(len(rows)).roll(len(first)))


def _cross_entropy(similarity: Tensor, partner: Tensor) -> Tensor:
    """Of every row among all others."""
    return F.cross_entropy(similarity.clone().fill_diagonal_(-math.inf), partner)


def _mistakes(first: Tensor, second: Tensor, temperature: float) -> dict[str, Tensor]:
    """What to say of a loss with one mistake, and its value."""
    raw = torch.cat([first, second])
    rows, partner, true = (
        F.normalize(raw, dim=1),
        torch.arange(len(raw)).roll(len(first)),
        _nt_xent(first, second, temperature),
    )
    across = rows[: len(first)] @ rows[len(first) :].T / temperature
    return {
        "The sum runs over all rows; which one does the formula leave out?": F.cross_entropy(
            rows @ rows.T / temperature, partner
        ),
        "The similarity is a cosine: lengths must not matter.": _cross_entropy(raw @ raw.T / temperature, partner),
        "Rows are compared with those of the other view only.": F.cross_entropy(across, torch.arange(len(first))),
        "Should a lower temperature make similarities count more, or less?": _cross_entropy(
            rows @ rows.T * temperature, partner
        ),
        "This is a sum over the rows; the loss is their mean.": true * len(rows),
        "The sign is wrong.": -true,
    }


@exercise("02.2")
def _(answer):
    state = torch.Generator().manual_seed(1)
    for crops, width, temperature in ((2, 2, 1.0), (4, 3, 0.5), (3, 8, 0.2)):
        first, second = (torch.randn(crops, width, generator=state) for _ in range(2))
        yours, true = number(answer(first, second, temperature)), float(_nt_xent(first, second, temperature))
        if abs(yours - true) > 1e-4:
            refuse(
                yours,
                {why: float(value) for why, value in _mistakes(first, second, temperature).items()},
                tolerance=1e-4,
            )
            error = "high" if yours > true else "low"
            raise Wrong(
                f"For {crops} crops at temperature {temperature} it is too {error}. Is the partner the right row?"
            )
    return "A cross entropy over all other rows; equal rows give its value at chance, whatever the temperature."
