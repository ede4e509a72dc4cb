"""Checks of chapter 04: the soft Dice loss of a batch, and an encoder found under an unknown prefix."""

import torch
from torch.nn import functional as F

from course.exercises import Wrong, exercise, number


def _batch() -> tuple[torch.Tensor, torch.Tensor]:
    """Logits (2, 3, 4, 3, 2) and labels (2, 1, 4, 3, 2); class 2 is in the first crop only."""
    state = torch.Generator().manual_seed(4)
    label = torch.randint(0, 3, (2, 1, 4, 3, 2), generator=state)
    label[1][label[1] == 2] = 0
    return torch.randn(2, 3, 4, 3, 2, generator=state), label


def _dice(logits, label, *, softmax=True, each=(0, 2, 3, 4), factor=2.0, first=1) -> torch.Tensor:
    """Mean soft Dice; `each`: the axes that are summed."""
    p = logits.softmax(1) if softmax else logits
    g = F.one_hot(label[:, 0], logits.shape[1]).movedim(-1, 1)
    dice = factor * (p * g).sum(each) / (p.sum(each) + g.sum(each))
    return dice[..., first:].mean()


@exercise("04.1")
def _(answer):
    logits, label = _batch()
    yours, right = number(answer(logits.clone(), label.clone())), float(1 - _dice(logits, label))
    hard = F.one_hot(logits.argmax(1), 3).movedim(-1, 1)
    mistakes = {
        "That is the Dice; a loss falls as it rises.": 1 - right,
        "Background is counted.": 1 - _dice(logits, label, first=0),
        "The logits are not probabilities yet.": 1 - _dice(logits, label, softmax=False),
        "That is the Dice of the chosen classes; it has no gradient.": 1 - _dice(hard, label, softmax=False),
        "Each crop has a Dice of its own; sum over the batch.": 1 - _dice(logits, label, each=(2, 3, 4)),
        "A perfect prediction does not give 0; check the numerator.": 1 - _dice(logits, label, factor=1),
    }
    if abs(yours - right) < 2e-3:
        return "A crop that lacks a structure no longer counts against it, since the sums run over the batch."
    for sentence, value in mistakes.items():
        if abs(yours - float(value)) < 2e-3:
            raise Wrong(sentence)
    raise Wrong("The value is another one on two crops of three classes; which axes are summed, in which order?")


WANTED = ["patch.weight", "blocks.0.weight", "norm.weight"]
CASES = (  # prefix of the encoder, what else is in the checkpoint, what is missing from the encoder
    ("module.net.encoder.", ["module.net.head.weight"], []),
    ("", ["head.weight"], []),
    ("vit.", ["decoder.norm.weight", "norm.weight", "out.weight"], []),
    ("student.", ["decoder.norm.weight"], ["norm.weight"]),
)


@exercise("04.2")
def _(answer):
    for prefix, others, missing in CASES:
        names = [prefix + name for name in WANTED if name not in missing] + others
        checkpoint = {name: torch.full((2,), float(i)) for i, name in enumerate(names)}
        true = {name: checkpoint[prefix + name] for name in WANTED if name not in missing}
        yours = answer(dict(checkpoint), list(WANTED))
        context = f"In a checkpoint with the names {', '.join(names)}"
        if not isinstance(yours, dict):
            raise Wrong("A mapping from names to tensors is wanted.")
        if extra := [name for name in yours if name not in WANTED]:
            raise Wrong(f"{context} you return {extra[0]}, which is no name of the encoder.")
        if invented := [name for name in yours if name not in true]:
            raise Wrong(f"{context} the encoder lacks {invented[0]}; yours comes from another module.")
        if lost := [name for name in true if name not in yours]:
            raise Wrong(f"{context} you do not find {lost[0]}.")
        if other := [name for name in true if not torch.equal(torch.as_tensor(yours[name]), true[name])]:
            raise Wrong(f"{context} your {other[0]} comes from another module. Do all your names have one prefix?")
    return "One prefix for all names, so no tensor of a decoder or a head can slip into the encoder."
