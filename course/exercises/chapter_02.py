"""Checks of chapter 02: the value of ignorance, and a fill that texture does not give away."""

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
            raise Wrong("A loss of 0 would mean that every row is sure of its partner.")
        if abs(yours - true) > 1e-4:
            side = "high" if yours > true else "low"
            raise Wrong(f"For {crops} crops your value is too {side}. Among how many rows does a row choose?")
    return "A contrast means something only beside this value: at it, the features tell nothing about the partner."


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
        raise Wrong("The crop itself comes back: nothing would be lost.")
    ratio = _roughness(filled) / _roughness(image)
    if not 0.7 < ratio < 1.4:
        kind = "rougher" if ratio > 1 else "smoother"
        raise Wrong(f"The fill is {kind} than tissue ({ratio:.1f} times its roughness), so texture gives it away.")
    if (filled - image).abs().mean() < 0.5 * image.std():
        raise Wrong("The fill is nearly the tissue that was there: a hole filled like this is hardly a hole.")
    if not torch.isin(filled, image).all():
        raise Wrong("Some values do not occur in the crop; borrow them all from it.")
    return "Texture no longer gives the damage away; what is left to find is anatomy in the wrong place."


WRONG = {
    "02.1": [
        lambda B: 0.0,
        lambda B: math.log(B),
        lambda B: math.log(2 * B),
        lambda B: 2 * B - 1,
        lambda B: -math.log(2 * B - 1),
    ],
    "02.2": [
        lambda image: image,
        lambda image: image.mean().expand_as(image),
        lambda image: torch.rand(image.shape),
        lambda image: image.flatten()[torch.randperm(image.numel())].view(image.shape),
        lambda image: torch.roll(image, 1, dims=1),
        lambda image: torch.roll(image, 8, dims=1)[0],
        lambda image: -torch.flip(image, [1]) + 100,
    ],
}
