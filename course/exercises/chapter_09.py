"""Checks for chapter 09: cosines with prototypes, Sinkhorn-Knopp, the swapped loss."""

import torch
from torch import Tensor
from torch.nn import functional as F

from course.exercises import Wrong, array, exercise, number, refuse
from ssl_utils.pretext.patch_clusters import sinkhorn, swapped_loss


def _draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def _same(value, right: Tensor) -> bool:
    return bool(abs(array(value, right.shape) - array(right)).max() < 1e-4)


def _cosines(tokens: Tensor, prototypes: Tensor) -> Tensor:
    return F.normalize(tokens, dim=1) @ F.normalize(prototypes, dim=1).T


@exercise("09.1")
def _(answer):
    tokens, prototypes = 3 * _draw(7, 5), 2 * _draw(4, 5, seed=1)
    value, right = answer(tokens.clone(), prototypes.clone()), _cosines(tokens, prototypes)
    if _same(value, right):
        return "No cluster can win by a long prototype, and no token by a long vector."
    mistakes = {
        "The length of a prototype still counts.": F.normalize(tokens, dim=1) @ prototypes.T,
        "The length of a token still counts.": tokens @ F.normalize(prototypes, dim=1).T,
        "The lengths of tokens and prototypes still count.": tokens @ prototypes.T,
        "You normalise along the wrong axis.": F.normalize(tokens, dim=0) @ F.normalize(prototypes, dim=0).T,
    }
    for mistake, wrong in mistakes.items():
        if _same(value, wrong):
            raise Wrong(mistake)
    raise Wrong("Some of the values are no cosines: for equal directions 1, for opposite ones -1.")


@exercise("09.2")
def _(answer):
    scores = _cosines(_draw(24, 6), _draw(4, 6, seed=1)) + torch.tensor([0.8, 0.0, 0.0, 0.0])
    for iterations in (3, 1, 0):
        value, right = answer(scores.clone(), iterations), sinkhorn(scores, iterations=iterations)
        if _same(value, right):
            continue
        rows = torch.as_tensor(array(value, right.shape))
        if iterations and _same(rows, sinkhorn(scores, iterations=0)):
            raise Wrong("This is a softmax: clusters are not equally frequent yet.")
        if abs(rows.sum(1) - 1).max() > 1e-4:
            raise Wrong(f"After {iterations} iterations a row does not sum to 1; which step must be the last one?")
        if iterations > 1 and _same(rows, sinkhorn(scores, iterations=1)):
            raise Wrong("You normalise once only, however many iterations are wanted.")
        raise Wrong(
            f"With {iterations} iterations the assignment is another; is epsilon 0.05, and which axis is which?"
        )
    large = answer(20 * scores, 3)
    if hasattr(large, "isfinite") and not large.isfinite().all():
        raise Wrong("With larger scores there is a nan: exp(scores / 0.05) overflows. Stay in logarithms.")
    if not _same(large, sinkhorn(20 * scores)):
        raise Wrong("With larger scores the assignment is another.")
    return "Rows sum to 1, clusters are about equally frequent, and large scores do not overflow."


@exercise("09.3")
def _(answer):
    logits = 3 * _draw(2, 10, 4)
    targets = sinkhorn(_draw(20, 4, seed=1) / 4).view(2, 10, 4)
    value, own = number(answer(logits.clone(), targets.clone())), logits.log_softmax(2)
    right = -(targets.flip(0) * own).sum(2).mean().item()
    if abs(value - right) > 1e-4:
        mistakes = {
            "Each crop predicts its own targets: nothing is swapped.": -(targets * own).sum(2).mean(),
            "You average over clusters as well, so the loss shrinks with K.": -(targets.flip(0) * own).mean(),
            "Only the second crop predicts the first one.": -(targets[0] * own[1]).sum(1).mean(),
            "Only the first crop predicts the second one.": -(targets[1] * own[0]).sum(1).mean(),
            "You sum over the two crops; the mean is wanted.": -(targets.flip(0) * own).sum(2).mean(1).sum(),
            "You sum over tokens; the mean is wanted.": -(targets.flip(0) * own).sum(2).sum(1).mean(),
            "The softmax is over tokens and not over clusters.": -(targets.flip(0) * logits.log_softmax(1))
            .sum(2)
            .mean(),
            "The sign is wrong: a good prediction must have a low loss.": -torch.tensor(right),
        }
        refuse(value, {mistake: wrong.item() for mistake, wrong in mistakes.items()}, tolerance=1e-4)
        raise Wrong(f"Your loss is too {'high' if value > right else 'low'}.")
    certain = torch.zeros(2, 10, 4)
    certain[..., 0] = 300.0
    expected = swapped_loss(
        certain[None].transpose(2, 3)[..., None, None], targets[None].transpose(2, 3)[..., None, None]
    )
    extreme = torch.as_tensor(answer(certain, targets.clone()), dtype=torch.float)
    if not extreme.isfinite():
        raise Wrong("With large logits the loss is infinite: the logarithm of a softmax that is 0.")
    if abs(extreme.item() - expected.item()) > 1e-2:
        raise Wrong("With large logits the loss is another: take the logarithm and the softmax in one step.")
    return "A uniform prediction costs ln K, and a certain wrong one is expensive but finite."
