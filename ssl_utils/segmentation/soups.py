"""Model soups: one network whose weights are a mean over several fine-tunings (Wortsman et al. 2022).

To apply a soup costs as much as one network, and an ensemble as much as all of them. It works when the members were
fine-tuned from the same weights, so that the loss stays low on the straight lines between them. The members of a greedy
soup and the shares of a learnt one are chosen on validation cases; those cases cannot score it any more.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.modules.batchnorm import _BatchNorm

from ssl_utils.errors import CourseError

KINDS = ("uniform", "greedy", "learned")
Weights = Mapping[str, Tensor]


def mix(members: Sequence[Weights], shares: Sequence[float]) -> dict[str, Tensor]:
    """Weights that are the sum of all members, each times its share; the shares add up to 1.

    Integers, such as a count of batches, cannot be averaged: they are those of the member with the largest share.

    Raises:
        CourseError: the members have tensors of other names or shapes.
    """
    check_alike(members)
    first = max(range(len(members)), key=lambda i: shares[i])
    return {
        name: sum(share * member[name] for share, member in zip(shares, members, strict=True) if share)
        if tensor.is_floating_point()
        else tensor.clone()
        for name, tensor in members[first].items()
    }


def uniform(members: Sequence[Weights]) -> dict[str, Tensor]:
    """The mean of all members."""
    return mix(members, [1 / len(members)] * len(members))


def check_alike(members: Sequence[Weights], names: Sequence[str] | None = None) -> None:
    """Raise CourseError when members differ in the names or shapes of their tensors; `names` are for the message."""
    names = names or [f"member {number}" for number in range(len(members))]
    if len(members) < 2:
        raise CourseError(f"{', '.join(names) or 'no member'}: a soup needs at least two networks")
    for name, member in zip(names[1:], members[1:], strict=True):
        for key in sorted({*members[0], *member}):
            ours, theirs = (tuple(m[key].shape) if key in m else "missing" for m in (members[0], member))
            if ours != theirs:
                raise CourseError(f"{name}: {key} is {theirs}, in {names[0]} {ours}; a soup needs one architecture")


@dataclass(frozen=True)
class Greedy:
    """What the greedy recipe chose, in the order of choosing, the score of that soup, and every score it looked at."""

    kept: tuple[int, ...]
    score: float
    scores: Mapping[tuple[int, ...], float]

    @property
    def keeps_one(self) -> bool:
        """Whether it is the best single network, unchanged."""
        return len(self.kept) == 1


def greedy(number: int, score: Callable[[tuple[int, ...]], float]) -> Greedy:
    """Start from the best of `number` members; add the others, best first, wherever the score of the soup rises.

    `score` takes the numbers of the members of a uniform soup. Every soup is scored once: 2 number - 1 calls.
    """
    scores: dict[tuple[int, ...], float] = {}
    for member in range(number):
        scores[member,] = score((member,))
    ranked = sorted(range(number), key=lambda member: -scores[member,])
    kept = (ranked[0],)
    for member in ranked[1:]:
        candidate = (*kept, member)
        scores[candidate] = score(candidate)
        if scores[candidate] > scores[kept]:
            kept = candidate
    return Greedy(kept, scores[kept], scores)


def greedy_soup(members: Sequence[Weights], score: Callable[[Weights], float]) -> tuple[dict[str, Tensor], Greedy]:
    """The greedy soup of these members and its choice; `score` is of weights, on validation cases."""
    check_alike(members)
    made: dict[tuple[int, ...], Weights] = {}  # the soup so far, and the last candidate

    def soup(numbers: tuple[int, ...]) -> Weights:
        before, last = numbers[:-1], members[numbers[-1]]
        base = made.get(before) or members[numbers[0]]
        mixed = last if not before else mix([base, last], [len(before) / len(numbers), 1 / len(numbers)])
        for old in {*made} - {before}:
            del made[old]
        made[numbers] = mixed
        return mixed

    chosen = greedy(len(members), lambda numbers: score(soup(numbers)))
    return dict(made.get(chosen.kept) or members[chosen.kept[0]]), chosen


def learned(
    network: nn.Module,
    members: Sequence[Weights],
    loss: Callable[[Tensor, Tensor], Tensor],
    batches: Iterable[tuple[Tensor, Tensor]],
    *,
    lr: float = 0.1,
) -> tuple[dict[str, Tensor], list[float]]:
    """The soup whose shares were learnt, and these shares; one step of Adam for every batch (images, targets).

    The shares are a softmax, equal at first. Only they are trained: the gradient of the loss with respect to the mixed
    weights is projected on the members. The members' dropout and batch statistics stay as in evaluation.
    """
    check_alike(members)
    device = next(network.parameters()).device
    members = [{name: value.to(device) for name, value in member.items()} for member in members]
    logits = torch.zeros(len(members), device=device, requires_grad=True)
    optimiser = torch.optim.Adam([logits], lr=lr)
    learnable = {name for name, _ in network.named_parameters()}
    network.eval()
    for images, targets in batches:
        mixed = mix(members, list(logits.softmax(0)))
        mixed = {name: value if name in learnable else value.detach() for name, value in mixed.items()}
        value = loss(functional_call(network, mixed, (images,)), targets)
        optimiser.zero_grad()
        value.backward()
        optimiser.step()
    shares = logits.detach().softmax(0).tolist()
    return {name: value.cpu() for name, value in mix(members, shares).items()}, shares


@torch.no_grad()
def recalibrate(network: nn.Module, batches: Iterable[Tensor]) -> int:
    """Measure the statistics of batch norm again, on images (B, C, D, H, W); returns the number of such layers.

    The mean of two networks' running statistics is not the statistics of their mean. Networks with instance or group
    norm have none, and stay as they are.
    """
    layers = [module for module in network.modules() if isinstance(module, _BatchNorm) and module.track_running_stats]
    if not layers:
        return 0
    momenta = [layer.momentum for layer in layers]
    network.eval()
    for layer in layers:
        layer.reset_running_stats()
        layer.momentum = None  # the plain mean over all batches
        layer.train()
    for images in batches:
        network(images)
    for layer, momentum in zip(layers, momenta, strict=True):
        layer.momentum = momentum
        layer.eval()
    return len(layers)
