"""Checks for chapter 02: the loss of an untrained network, and a fill that texture does not give away."""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from course.exercises import Wrong, array, exercise, number


@exercise("02.1")
def _(answer):
    for crops in (2, 5, 16):
        yours, true = number(answer(crops)), math.log(2 * crops - 1)
        if abs(yours) < 1e-6:
            raise Wrong("A loss of 0 would mean that every row has probability 1 for its partner.")
        if abs(yours - true) > 1e-4:
            error = "high" if yours > true else "low"
            raise Wrong(f"For {crops} crops your value is too {error}. Among how many rows does a row choose?")
    return "Compare a contrastive loss with this value: at it, the features say nothing about the partner."


def _tissue() -> Tensor:
    """A smooth random crop (1, 16, 20, 12): blobs with some texture on them."""
    state = torch.Generator().manual_seed(3)
    blobs = F.interpolate(torch.randn(1, 1, 4, 5, 3, generator=state), size=(16, 20, 12), mode="trilinear")[0]
    return blobs + 0.1 * torch.randn(blobs.shape, generator=state)


def _roughness(image: Tensor) -> float:
    return float((image[:, 1:] - image[:, :-1]).abs().mean())


@exercise("02.2")
def _(answer):
    image = _tissue()
    filled = torch.as_tensor(array(answer(image.clone()), image.shape)).float()
    if torch.equal(filled, image):
        raise Wrong("The result is the crop itself: nothing would be lost.")
    ratio = _roughness(filled) / _roughness(image)
    if not 0.7 < ratio < 1.4:
        texture = "rougher" if ratio > 1 else "smoother"
        raise Wrong(f"The fill is {texture} than tissue ({ratio:.1f} times its roughness), so texture gives it away.")
    if (filled - image).abs().mean() < 0.5 * image.std():
        raise Wrong("The fill is nearly the original tissue, so that hardly anything is lost.")
    if not torch.isin(filled, image).all():
        raise Wrong("Some values do not occur in the crop; take all of them from it.")
    return "Texture no longer gives the damage away; only anatomy in the wrong place does."
