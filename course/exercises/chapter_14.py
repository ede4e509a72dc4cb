"""Checks for chapter 14: noise in one step, merging the adapter of a convolution, ratios of memorisation."""

import torch
from torch import Tensor
from torch.nn import functional as F

from course.exercises import Wrong, array, exercise
from ssl_utils.synthesis import audit, diffusion


def _normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def _near(answer: Tensor, right: Tensor) -> bool:
    return torch.allclose(torch.as_tensor(array(answer, right.shape)).float(), right, atol=1e-4)


@exercise("14.1")
def _(answer):
    image, noise, kept = _normal(2, 3, 4, 5, 6), _normal(2, 3, 4, 5, 6, seed=1), torch.tensor([0.64, 0.04])
    given = answer(image.clone(), noise.clone(), kept.clone())
    share, rest = (part.view(-1, 1, 1, 1, 1) for part in (kept, 1 - kept))
    mistakes = {
        "The variances add up to 1 here only if the factors are roots of them.": share * image + rest * noise,
        "Image and noise have each other's factors.": rest.sqrt() * image + share.sqrt() * noise,
        "The noise is not weakened where much of the image is left.": share.sqrt() * image + noise,
    }
    for mistake, wrong in mistakes.items():
        if _near(given, wrong):
            raise Wrong(mistake)
    if not _near(given, diffusion.noised(image, noise, kept)):
        raise Wrong("The values are others; does each volume of the batch have its own share?")
    return "The variance stays 1 at every timestep, so the network always sees inputs of one size."


@exercise("14.2")
def _(answer):
    w, a, b = _normal(5, 4, 3, 3, 3), _normal(2, 4, 3, 3, 3, seed=1), _normal(5, 2, seed=2)
    image = _normal(1, 4, 6, 6, 6, seed=3)
    given = torch.as_tensor(array(answer(w.clone(), a.clone(), b.clone(), 6.0), w.shape)).float()
    low = F.conv3d(image, a)
    for scale, mistake in ((1.0, "The scale is missing."), (6.0, "The scale is alpha, without the rank."), (3.0, "")):
        wanted = F.conv3d(image, w) + scale * F.conv3d(low, b[..., None, None, None])
        if torch.allclose(F.conv3d(image, given), wanted, atol=1e-3, rtol=1e-3):
            if mistake:
                raise Wrong(mistake)
            return "One convolution does what three did, so an adapted network is as fast as before."
    if torch.allclose(F.conv3d(image, given), 3 * F.conv3d(low, b[..., None, None, None]), atol=1e-3, rtol=1e-3):
        raise Wrong("That is the adapter alone; what is it added to?")
    raise Wrong("The merged convolution gives other values than the convolution and its adapter.")


@exercise("14.3")
def _(answer):
    training = _normal(8, 5)
    training[7] = training[6] + 0.05  # two patients that are nearly alike
    drawn = torch.cat([training[2:3], training[6:7] + 0.3, _normal(3, 5, seed=1)])
    given = answer(drawn.clone(), training.clone())
    right = torch.tensor(audit.memorisation(drawn, training, [str(n) for n in range(8)])["ratio"].to_numpy()).float()
    if _near(given, right):
        return "The first row is a copy and has 0; the second is far away only for a pair of patients that are alike."
    distances = torch.cdist(drawn, training)
    if _near(given, distances.min(1).values):
        raise Wrong("These are distances; over which distance are they divided?")
    among = torch.cdist(training, training).fill_diagonal_(float("inf")).min(1).values
    if _near(given, distances.min(1).values / among.mean()):
        raise Wrong("Every row is divided by one number; the nearest training case has a neighbour of its own.")
    raise Wrong("The ratios are others; is the distance of a training row to itself left out?")
