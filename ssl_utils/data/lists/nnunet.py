"""What nnU-Net adds to a list: a file for each channel, and label names for several values, which are regions.

    imagesTr/CASE_0000.nii.gz, CASE_0001.nii.gz ...   labelsTr/CASE.nii.gz
    "labels": {"background": 0, "WT": [1, 2, 3], "TC": [2, 3], "ET": 3}, "regions_class_order": [1, 2, 3]

Source: nnU-Net v2, documentation/dataset_format.md and region_based_training.md.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from itertools import count, takewhile
from pathlib import Path
from typing import Any

from ssl_utils.data.cases import IGNORE, Image
from ssl_utils.data.formats.names import stem, suffix
from ssl_utils.errors import CourseError


def is_channel(image: Path) -> bool:
    """Whether the file has the name of a channel file."""
    return bool(re.fullmatch(r".+_\d{4}", stem(image), re.ASCII))


def has_channel_files(images: Iterable[Path], labels: Iterable[Path]) -> bool:
    """Whether CASE_0000 is the first channel of CASE, and not a case of that name.

    It is when a label is called CASE and no image is; without labels, when several cases have the same channels.
    """
    images = list(images)
    numbers: dict[str, set[int]] = defaultdict(set)
    for case, _, number in (stem(image).rpartition("_") for image in images if is_channel(image)):
        numbers[case].add(int(number))
    if names := {stem(label) for label in labels}:
        return bool(names & {*numbers} - {stem(image) for image in images})
    every = [*numbers.values()]
    alike = all(own == {*range(len(every[0]))} for own in every)
    return len(every) > 1 and alike and sum(map(len, every)) == len(images)


def by_case(images: Iterable[Path], channels: Sequence[str] = ()) -> dict[str, tuple[Path, ...]]:
    """Case -> its files in the order of the channels; files of other names are left out.

    Args:
        channels: their names; none: as many as the highest number says.

    Raises:
        CourseError: a channel is missing, there is one more than are named, or a number is there twice.
    """
    files: dict[str, dict[int, Path]] = defaultdict(dict)
    for image in filter(is_channel, images):
        case, _, number = stem(image).rpartition("_")
        if (first := files[case].setdefault(int(number), image)) != image:
            raise CourseError(f"{image}: is the same channel of {case} as {first}; move one of the two elsewhere")
    wanted = {*range(len(channels) or 1 + max((n for numbers in files.values() for n in numbers), default=0))}
    for case, numbers in files.items():
        known = next(iter(numbers.values()))
        for number in sorted(wanted - {*numbers}):
            name = f"channel {number}" + (f" ({channels[number]})" if channels else "")
            path = known.with_name(f"{case}_{number:04d}{suffix(known) or ''}")
            raise CourseError(f"{path}: is missing, {name} of {case}; add it, or move the case elsewhere")
        if more := sorted({*numbers} - wanted):
            why = f"is channel {more[0]} of {case}, where {len(wanted)} are named ({', '.join(channels)})"
            raise CourseError(f"{numbers[more[0]]}: {why}; name it in channel_names, or move it elsewhere")
    return {case: tuple(numbers[number] for number in sorted(numbers)) for case, numbers in files.items()}


def on_disk(image: Path, channels: Sequence[str] = ()) -> Image:
    """The channel files that version 1 of nnU-Net means by `imagesTr/CASE.nii.gz`; itself where it is there."""
    if image.exists():
        return image
    names = (image.with_name(f"{stem(image)}_{number:04d}{suffix(image) or ''}") for number in count())
    if not (there := [*takewhile(Path.exists, names)]):
        return image
    files = by_case(there, channels)[stem(image)]
    return files if len(files) > 1 else files[0]


def with_training(content: dict[str, Any], path: Path) -> dict[str, Any]:
    """The cases that nnU-Net's optional key `dataset` lists become `training`.

    Raises:
        CourseError: it has another form, or `training` lists cases too.
    """
    listed = content.get("dataset")
    if listed is None:
        return content
    if not isinstance(listed, dict) or not all(isinstance(files, dict) for files in listed.values()):
        example = '{"case": {"images": [...], "label": ...}}'
        raise CourseError(f"{path}: dataset must look like {example}; correct it (a name goes into the key name)")
    if content.get("training"):
        raise CourseError(f"{path}: lists cases twice, in dataset and in training; delete one of them")
    cases = [{"id": case, "image": files.get("images"), "label": files.get("label")} for case, files in listed.items()]
    return content | {"training": cases}


def with_regions(content: dict[str, Any], path: Path) -> dict[str, Any]:
    """Label names that have several values become `regions`, and their values labels; all other lists stay.

    Raises:
        CourseError: there are `regions` too.
    """
    labels = content.get("labels")
    if not isinstance(labels, dict) or not any(isinstance(values, list) for values in labels.values()):
        return content
    if "regions" in content:
        raise CourseError(f"{path}: has regions twice, in regions and as labels with several values; delete one")
    plain = {name: value for name, value in labels.items() if value == 0 or str(name).lower() == IGNORE}
    regions = {name: v if isinstance(v, list) else [v] for name, v in labels.items() if name not in plain}
    values = {f"label {value}": value for united in regions.values() for value in united}
    return content | {"labels": plain | values, "regions": regions}


def check_order(order: Any, regions: dict[str, tuple[int, ...]], path: Path) -> None:
    """Refuse a `regions_class_order` that does not give back the label values.

    nnU-Net writes the value of one region after the other; here the value follows from the nesting of the regions
    (`metrics.label_map`). Both must be the same, or predictions would have other values than their user expects.

    Raises:
        CourseError: it has another length than `regions`, or another value.
    """
    if order is None or not regions:  # nnU-Net does not read it either where there are no regions
        return
    fix = "list larger regions before those inside them, or delete it: the nesting gives the values"
    if not isinstance(order, list) or len(order) != len(regions) or not all(type(one) is int for one in order):
        why = f"is not a list with one label value for each of the {len(regions)} regions"
        raise CourseError(f"{path}: regions_class_order {why}; {fix}")
    inside = {v: frozenset(n for n, values in regions.items() if v in values) for v in sum(regions.values(), ())}
    for value, names in sorted(inside.items()):
        expected = min(other for other in inside if inside[other] == names)
        written = [number for number, name in zip(order, regions, strict=True) if name in names][-1]
        if written != expected:
            raise CourseError(f"{path}: regions_class_order writes {written} where labels have {value}; {fix}")
