"""How cases are grouped by patient, drawn and dealt to sides: decided by names and a seed, equal on every machine."""

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Sequence
from itertools import zip_longest

from ssl_utils.data.cases import Case
from ssl_utils.errors import CourseError


def draw_labels(cases: Sequence[Case], num_labeled: int, draw: int = 0) -> tuple[Case, ...]:
    """The `num_labeled` cases whose labels a run may use.

    Draws are nested: 6 cases are the first 6 of the 12 of the same draw. Draw 0 is the file's order; every other draw
    is a permutation of its own in which patients take turns, so that few labels come from many patients.

    Raises:
        CourseError: more labels are asked for than there are, or the numbers make no sense.
    """
    labeled = [case for case in cases if case.label is not None]
    if not 1 <= num_labeled <= len(labeled):
        raise CourseError(f"num_labeled={num_labeled}: {len(labeled)} labelled cases are there; choose 1 to that many")
    if draw < 0:
        raise CourseError(f"draw={draw}: draws are numbered from 0; choose 0 or more")
    return (tuple(labeled) if draw == 0 else in_turn(labeled, seed=draw))[:num_labeled]


def in_turn(cases: Iterable[Case], *, seed: int) -> tuple[Case, ...]:
    """A seeded permutation in which no patient comes a second time before every patient came once."""
    rounds = zip_longest(*by_patient(cases, seed=seed))
    return tuple(case for turn in rounds for case in turn if case is not None)


def split_by_patient(cases: Sequence[Case], *, sizes: dict[str, int], seed: int) -> dict[str, tuple[Case, ...]]:
    """Deal whole patients to sides, one side after the other in the order of `sizes`.

    A side has the size asked for when some set of the patients left adds up to it, else the nearest that can be
    reached. What is left over is under "rest". Cases keep their order.

    Raises:
        CourseError: the sizes exceed the number of cases.
    """
    if sum(sizes.values()) > len(cases) or min(sizes.values(), default=0) < 0:
        raise CourseError(f"sizes {sizes}: only {len(cases)} cases are there; ask for fewer")
    left, sides = by_patient(cases, seed=seed), {}
    for side, size in sizes.items():
        chosen = _adding_up(left, size)
        sides[side] = _in_order(cases, chosen)
        left = [group for group in left if group not in chosen]
    return sides | {"rest": _in_order(cases, left)}


def by_patient(cases: Iterable[Case], *, seed: int) -> list[list[Case]]:
    """Cases grouped by patient; groups, and cases in them, are in an order that only names and seed decide."""

    def rank(name: str) -> bytes:  # a hash, not a random generator: equal on every machine and version
        return hashlib.sha256(f"{seed}/{name}".encode()).digest()

    groups: dict[str, list[Case]] = defaultdict(list)
    for case in sorted(cases, key=lambda case: rank(case.id)):
        groups[case.patient].append(case)
    return [groups[patient] for patient in sorted(groups, key=rank)]


def _in_order(cases: Sequence[Case], groups: list[list[Case]]) -> tuple[Case, ...]:
    patients = {group[0].patient for group in groups}
    return tuple(case for case in cases if case.patient in patients)


def _adding_up(groups: list[list[Case]], size: int) -> list[list[Case]]:
    """Groups, early ones first, whose members number `size`, or as near as groups allow (0 only if asked)."""
    reached: dict[int, tuple[int, ...]] = {0: ()}
    for index, group in enumerate(groups):
        if size in reached:
            break
        for total in [total for total in reached if total < size]:
            reached.setdefault(total + len(group), (*reached[total], index))
    totals = [total for total in reached if total or not size] or [0]
    return [groups[index] for index in reached[min(totals, key=lambda total: (abs(total - size), total))]]
