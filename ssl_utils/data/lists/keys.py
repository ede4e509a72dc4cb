"""The keys of a datalist: other spellings of them are understood, and a key that nobody knows is refused by name."""

import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ssl_utils.data import own_grid
from ssl_utils.data.cases import SIDES
from ssl_utils.errors import CourseError

LIST = ("name", "description", "licence", "reference", "channels", "labels", "regions", *own_grid.KEYS, *SIDES)
LIST += ("fold", "file_ending", "regions_class_order", "dataset")  # of MONAI, and of nnU-Net
ENTRY = ("image", "label", "patient", "id", "site")
COUNTS = {"numTraining": "training", "numTest": "test"}  # of the Medical Segmentation Decathlon
SPELLINGS = {
    **{"license": "licence", "modality": "channels", "channel_names": "channels", "unlabelled": "unlabeled"},
    **{"train": "training", "val": "validation", "testing": "test"},
    **dict.fromkeys(("patient_id", "patientID", "subject", "subject_id"), "patient"),
}
# of the Medical Segmentation Decathlon and of nnU-Net: nothing here depends on them
NOT_READ = {"release", "relase", "tensorImageSize", "overwrite_image_reader_writer"}  # relase: as the Decathlon has it
NOT_READ |= {"citation", "converted_by", "dataset_name", "author", "authors", "version", "date", "url", "relation"}
FIXES = {"fold": "only cases of training have a fold, delete it"}


def spelled(content: dict[str, Any], known: Sequence[str], source: str) -> dict[str, Any]:
    """The content by the keys in `known`; `source` names the file, and the entry in it.

    Raises:
        CourseError: a key is not known, or its two spellings have two values.
    """
    chosen: dict[str, Any] = {}
    for key, value in content.items():
        if known is LIST and (key in NOT_READ or re.match("num[A-Z]", key)):  # numbers: see `miscounted`
            continue
        name = SPELLINGS.get(key, key)
        if name not in known:
            raise CourseError(f"{source}: key {key!r} is not known; {_fix(key, known)}")
        if name in chosen and in_order(chosen[name]) != in_order(value):
            raise CourseError(f"{source}: has {name} twice, the second time as {key!r}; delete one of them")
        chosen[name] = value
    return chosen


def check_values(entry: dict[str, Any], source: str) -> None:
    """Refuse a file that no disk can have, and an id, patient, fold or site that is not its own text: 7.0 is not 7.

    Raises:
        CourseError: one of these; `source` names the list and the entry.
    """
    images = entry["image"] if isinstance(entry["image"], list) else [entry["image"]]
    for name in map(str, filter(None, (*images, entry.get("label"), entry.get("id")))):
        if "\0" in name or len(name) > 2000 or max(map(len, name.encode().split(b"/"))) > 255:
            raise CourseError(f"{source}: {name[:40]!r} has a zero byte, or is too long for a file; correct the name")
    for key in ("id", "patient", "fold", "site"):
        if not isinstance(entry.get(key), str | int | None) or isinstance(entry.get(key), bool):
            raise CourseError(f"{source}: {key} {entry[key]!r} is neither text nor a whole number; correct it")
    if {*"/\\"} & {*str(entry.get("id", ""))}:
        raise CourseError(f"{source}: id {entry['id']} has a slash; choose another id")


def in_order(channels: Any) -> Any:
    """{"1": "T1", "0": "CT"} as a list by its numbers; anything else as it is."""
    if not isinstance(channels, dict):
        return channels
    return [channels[key] for key in (sorted(channels, key=int) if all(map(str.isdecimal, channels)) else channels)]


def miscounted(content: dict[str, Any], counts: Mapping[str, int]) -> Iterator[str]:
    """numTraining and numTest where they differ from `counts`, split -> number of cases."""
    for key, split in COUNTS.items():
        if key in content and not isinstance(content[key], int):
            yield f"{key} is {content[key]!r}, not a whole number"
        elif key in content and content[key] != counts.get(split, 0):
            yield f"{key} is {content[key]}, and {split} has {counts.get(split, 0)} cases"


def _fix(key: str, known: Sequence[str]) -> str:
    names = {name.lower(): meant for name in (*known, *SPELLINGS) if (meant := SPELLINGS.get(name, name)) in known}
    if similar := difflib.get_close_matches(key.lower(), names, n=1):
        return f"did you mean {names[similar[0]]}? Rename or delete it"
    return FIXES.get(key, f"delete it; known are {', '.join(known)}")
