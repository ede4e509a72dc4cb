"""A case, cases by split, and how cases are grouped by patient, drawn and split: equal on every machine."""

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path

from ssl_utils.errors import CourseError

SIDES = ("training", "validation", "test", "unlabeled")
IGNORE = "ignore"  # nnU-Net's name for the value of voxels that nobody has annotated
Image = Path | tuple[Path, ...]  # one file, or one for each channel, in the order of the channels


@dataclass(frozen=True)
class Case:
    """One image, its label if it has one, the patient it came from, and the scanner or hospital where it is known."""

    id: str
    image: Image
    label: Path | None
    patient: str
    site: str = ""

    @property
    def files(self) -> list[tuple[str, Path]]:
        """("image" or "label", path) of every file."""
        images = self.image if isinstance(self.image, tuple) else (self.image,)
        return [*(("image", path) for path in images), *([("label", self.label)] if self.label else [])]


@dataclass(frozen=True)
class Datalist:
    """Cases by split.

    Attributes:
        channels: names of the image's channels; more than one means 4D files, channels last, or a file for each.
        labels: value -> name, 0 (background) included; empty for a list of images alone.
        regions: name -> label values it unites (BraTS: TC, WT, ET); regions may overlap.
        ignore: the label value of voxels that nobody has annotated; it is not among `labels`.
        grid: spacing, roi and patch_size, as far as the list gives them (`own_grid.parsed`).
    """

    name: str
    description: str = ""
    licence: str = ""
    reference: str = ""
    channels: tuple[str, ...] = ("image",)
    labels: dict[int, str] = field(default_factory=dict)
    regions: dict[str, tuple[int, ...]] = field(default_factory=dict)
    ignore: int | None = None
    training: tuple[Case, ...] = ()
    validation: tuple[Case, ...] = ()
    test: tuple[Case, ...] = ()
    unlabeled: tuple[Case, ...] = ()
    grid: dict[str, tuple] = field(default_factory=dict)

    @property
    def names(self) -> dict[int, str]:
        """Value -> name of all that a label file may contain; empty for a list of images alone."""
        return with_ignored(self.labels, self.ignore)

    def sides(self) -> dict[str, tuple[Case, ...]]:
        """Split -> its cases."""
        return {side: getattr(self, side) for side in SIDES}

    def all_cases(self) -> list[Case]:
        """The cases of all splits, one split after the other."""
        return [case for cases in self.sides().values() for case in cases]


def with_ignored(labels: dict[int, str], ignore: int | None) -> dict[int, str]:
    """Value -> name of the labels, and of the value that is ignored, if there is one."""
    return labels if ignore is None else labels | {ignore: IGNORE}


def label_subset(cases: Sequence[Case], num_labeled: int, subset: int = 0) -> tuple[Case, ...]:
    """The label subset of a run: `num_labeled` cases whose labels it may use.

    Subsets are nested: 6 cases are the first 6 of the 12 of the same subset. Subset 0 is the file's order; every other
    one is a permutation of its own in which patients take turns, so that few labels come from many patients.

    Raises:
        CourseError: more labels than there are labelled cases, or numbers that make no sense.
    """
    labeled = [case for case in cases if case.label is not None]
    if not labeled:
        raise CourseError(
            f"num_labeled={num_labeled}: no training case has a label; add labels (labelsTr), or pretrain only"
        )
    if not 1 <= num_labeled <= len(labeled):
        raise CourseError(f"num_labeled={num_labeled}: there are {len(labeled)} labelled cases; choose 1 to that many")
    if subset < 0:
        raise CourseError(f"subset={subset}: subsets are numbered from 0; choose 0 or more")
    return (tuple(labeled) if subset == 0 else in_turn(labeled, seed=subset))[:num_labeled]


def in_turn(cases: Iterable[Case], *, seed: int) -> tuple[Case, ...]:
    """A seeded permutation in which no patient comes a second time before every patient came once."""
    rounds = zip_longest(*by_patient(cases, seed=seed))
    return tuple(case for turn in rounds for case in turn if case is not None)


def split_by_patient(cases: Sequence[Case], *, sizes: dict[str, int], seed: int) -> dict[str, tuple[Case, ...]]:
    """Assign whole patients to splits, one split after the other in the order of `sizes`.

    A split has exactly its size when some set of the remaining patients adds up to it, else the nearest size that can
    be reached. The remaining cases are under "rest". Cases keep their order.

    Raises:
        CourseError: the sizes exceed the number of cases.
    """
    if sum(sizes.values()) > len(cases) or min(sizes.values(), default=0) < 0:
        raise CourseError(f"sizes {sizes}: there are only {len(cases)} cases; ask for fewer")
    left, splits = by_patient(cases, seed=seed), {}
    for name, size in sizes.items():
        chosen = _adding_up(left, size)
        splits[name] = _in_order(cases, chosen)
        left = [group for group in left if group not in chosen]
    return splits | {"rest": _in_order(cases, left)}


def by_patient(cases: Iterable[Case], *, seed: int) -> list[list[Case]]:
    """Cases grouped by patient; the order of groups, and of cases in them, depends on names and seed alone."""

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
    """Groups, early ones first, with `size` cases in total, or as near as groups allow (0 only if `size` is 0)."""
    reached: dict[int, tuple[int, ...]] = {0: ()}
    for index, group in enumerate(groups):
        if size in reached:
            break
        for total in [total for total in reached if total < size]:
            reached.setdefault(total + len(group), (*reached[total], index))
    totals = [total for total in reached if total or not size] or [0]
    return [groups[index] for index in reached[min(totals, key=lambda total: (abs(total - size), total))]]
