<<<<<<< HEAD
"""Checks of chapter 04: the soft Dice loss of a batch, and an encoder found under an unknown prefix."""
=======
"""Checks for chapter 04: one Dice over all cases, and the largest component of a mask."""
>>>>>>> main

import torch
from torch.nn import functional as F

<<<<<<< HEAD
from course.exercises import Wrong, exercise, number
=======
from course.exercises import Wrong, array, exercise, number, refuse
>>>>>>> main


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
<<<<<<< HEAD
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
=======
    pairs = _pairs()
    dice = number(answer(pairs))
    both = [int((a & b).sum()) for a, b in pairs]
    sizes = [int(a.sum()) + int(b.sum()) for a, b in pairs]
    if abs(dice - 2 * sum(both) / sum(sizes)) < 1e-6:
        return "A missed small structure hardly changes it: it weights cases by size, the mean over cases does not."
    per_case = np.mean([2 * b / s for b, s in zip(both, sizes, strict=True)])
    mistakes = {
        "That is the mean of the cases' own Dice. Pooled means: count over all cases before you divide.": per_case,
        "It is half as large as it should be: a Dice of equal masks is 1.": sum(both) / sum(sizes),
    }
    refuse(dice, mistakes)
    raise Wrong("It needs the counts of both masks over all cases; yours gives another number on two cases.")
>>>>>>> main


@exercise("04.2")
def _(answer):
<<<<<<< HEAD
    for prefix, others, missing in CASES:
        names = [prefix + name for name in WANTED if name not in missing] + others
        checkpoint = {name: torch.full((2,), float(i)) for i, name in enumerate(names)}
        true = {name: checkpoint[prefix + name] for name in WANTED if name not in missing}
        yours = answer(dict(checkpoint), list(WANTED))
        where = f"In a checkpoint with the names {', '.join(names)}"
        if not isinstance(yours, dict):
            raise Wrong("A mapping from names to tensors is wanted.")
        if extra := [name for name in yours if name not in WANTED]:
            raise Wrong(f"{where} you return {extra[0]}, which is no name of the encoder.")
        if invented := [name for name in yours if name not in true]:
            raise Wrong(f"{where} the encoder lacks {invented[0]}; yours comes from another module.")
        if lost := [name for name in true if name not in yours]:
            raise Wrong(f"{where} you do not find {lost[0]}.")
        if other := [name for name in true if not torch.equal(torch.as_tensor(yours[name]), true[name])]:
            raise Wrong(f"{where} your {other[0]} comes from another module. Do all your names have one prefix?")
    return "One prefix for all names, so no tensor of a decoder or a head can slip into the encoder."


def _ends(checkpoint, wanted):
    return {key: value for key in wanted for name, value in checkpoint.items() if name.endswith(key)}


def _fixed(checkpoint, wanted, prefix="module.net.encoder."):
    return {name.removeprefix(prefix): tensor for name, tensor in checkpoint.items() if name.startswith(prefix)}


def _of_first(checkpoint, wanted):
    first = next(name for name in checkpoint if name.endswith(wanted[-1]))
    return _fixed(checkpoint, wanted, first.removesuffix(wanted[-1]))


WRONG = {
    "04.1": [
        _dice,
        lambda logits, label: 1 - _dice(logits, label, first=0),
        lambda logits, label: 1 - _dice(logits, label, softmax=False),
        lambda logits, label: 1 - _dice(logits, label, each=(2, 3, 4)),
        lambda logits, label: 1 - _dice(logits, label, factor=1.0),
        lambda logits, label: 1 - _dice(F.one_hot(logits.argmax(1), 3).movedim(-1, 1), label, softmax=False),
        lambda logits, label: F.cross_entropy(logits, label[:, 0]),
    ],
    "04.2": [_ends, _fixed, _of_first, lambda checkpoint, wanted: checkpoint, lambda checkpoint, wanted: {}],
}
=======
    crumb, cube, empty = (np.zeros((20, 20, 20), bool) for _ in range(3))
    crumb[1:4, 1:4, 1:4], cube[6:10, 6:10, 6:10] = True, True
    left = array(answer(crumb | cube), cube.shape).astype(bool)
    if not left.any():
        raise Wrong("Nothing is left of a mask that has two pieces.")
    if ndimage.label(left)[1] > 1:
        raise Wrong("More than one piece is left.")
    if not np.array_equal(left, cube):
        raise Wrong("One piece is left, but it is not the one with the most voxels, or not all of it.")
    if array(answer(empty), empty.shape).astype(bool).any():
        raise Wrong("The result for an empty mask is not empty.")
    return "Small false components hardly change Dice, but HD95 by centimetres. Some organs do have several components."
>>>>>>> main
