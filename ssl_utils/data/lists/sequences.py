"""MRI sequences by the names of files and channels, so that no order of files can exchange them in silence."""

import re
from collections import defaultdict
from collections.abc import Sequence
from pathlib import PurePath

from ssl_utils.data.formats.names import stem
from ssl_utils.errors import CourseError

SPELLINGS = {  # as BraTS calls them since 2023, and before, and the Medical Segmentation Decathlon
    "t1n": ("t1n", "t1", "t1w"),
    "t1c": ("t1c", "t1ce", "t1gd"),
    "t2w": ("t2w", "t2"),
    "t2f": ("t2f", "flair"),
}
NAMES = {spelling: name for name, spellings in SPELLINGS.items() for spelling in spellings}


def sequence(text: str | PurePath) -> str | None:
    """The sequence that a channel, or the last word of a file's name, is called after; None where it is another."""
    text = stem(text) if isinstance(text, PurePath) else text
    return NAMES.get(re.split(r"[-_. ]", text.lower())[-1])


def ordered(files: Sequence[PurePath], channels: Sequence[str]) -> tuple[PurePath, ...]:
    """The files of one image in the order of its channels, where the names of all files and channels are sequences;
    else as they are listed.

    Raises:
        CourseError: a channel has no file among them, or two.
    """
    wanted, present = [sequence(channel) for channel in channels], [sequence(file) for file in files]
    if None in (*wanted, *present) or len({*wanted}) < len(wanted):
        return tuple(files)
    for channel, name in zip(channels, wanted, strict=True):
        if present.count(name) != 1:
            count = "no file" if name not in present else f"{present.count(name)} files"
            raise CourseError(f"{files[0]}: its image has {count} of {channel}; list one file of each sequence")
    return tuple(files[present.index(name)] for name in wanted)


def by_case(files: Sequence[PurePath], channels: Sequence[str]) -> dict[str, tuple[PurePath, ...]]:
    """Case -> its files in the order of the channels, by names such as `CASE-t1c`; files of other names are left out.

    Raises:
        CourseError: a case lacks a channel.
    """
    cases: dict[str, list[PurePath]] = defaultdict(list)
    if all(map(sequence, channels)):
        for file in filter(sequence, files):
            cases[re.split(r"[-_. ](?=[^-_. ]*$)", stem(file))[0]].append(file)
    return {case: ordered(members, channels) for case, members in cases.items()}


def exchanged(one: Sequence[str], other: Sequence[str]) -> bool:
    """Whether both lists of channels are sequences of MRI, and not the same ones at each place."""
    names = [[sequence(channel) for channel in channels] for channels in (one, other)]
    return None not in names[0] + names[1] and names[0] != names[1]
