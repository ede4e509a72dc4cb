"""Changes of a list, drawn at random: keys, values, entries and pairs that are not as they should be.

Each takes the content of a dataset.json and a random generator, and changes the content.
"""

import math
import random
from collections.abc import Callable
from typing import Any

ODD = [None, True, 0, -1, 1.5, 7, math.nan, math.inf, 10**30, "", " ", "x", "nan", "a\nb", "\udce9", "x" * 3000]
ODD += [[], [[]], [None], ["x"], [["x", "y"], 3], {}, {"a": None}, {"0": ["x"]}, {"": {}}]
PATHS = ["../outside.nii.gz", "/nowhere/x.nii.gz", ".", "", "a\0b", "y" * 5000, "imagesTr", "~/x.nii.gz", "imagesTr\\c"]
SPELLED = ["train", "Training", "trainning", "val", "testing", "unlabelled", "license", "modality", "channel_names"]
SPELLED += ["patientID", "subject", "Image", "labels", "fold", "dataset", "numTraining", "regions", "", "x", "\udce9"]
LABEL_KEYS = [{"0": "background", "1": "a", "2": "b", "3": "c"}, {"background": 0, "a": 1}, {"1": "a", "2": "a"}]
LABEL_KEYS += [{"background": 0, "a": 1, "ignore": 2}, {"0": "background", "1": "a", "255": "b"}, {"0.0": "a"}]
LABEL_KEYS += [{"background": 0, "a": [1, 2, 3], "b": [2, 3], "c": 3}, {"background": 0, "a": [1, 2], "b": [2, 3]}]
LABEL_KEYS += [
    {"background": 0, "a": 1.0},
    {"background": 0, "a": 1.5},
    {"a": math.inf},
    {"1": "background"},
    {"1": ""},
]
LABEL_KEYS += [{"-1": "a"}, {"01": "a", "1": "b"}]
REGIONS = [{"W": [1, 2], "T": [2]}, {"W": [1], "W ": [1]}, {"W": 1}, {"W": [0, 1]}, {"W": [9]}, {"W": []}, {"W": ["1"]}]
REGIONS += [{"W": [1.5]}, {"W": "12"}, {"A": [1, 2], "B": [2, 3]}, {"A": [1, 1]}, {"": [1]}, {"W": [math.inf]}]
NUMBERS = [1, [1, 1, 1], [2, 2], "4,4,4", [4, 4, 4], [8, 8, 8], 0, -1, 1e-6, 1e9, [1, math.nan, 1], [64, 64, 64]]
NUMBERS += [[3, 5, 7]]
TEXTS = ["", "{", "[]", "null", "3", '{"training": 1, "training": 2}', "[" * 100_000, "\ufeff{}", "{}", "\0"]
TEXTS += ['{"a": 1e999}']


def _entry(content: dict, rng: random.Random) -> tuple[list, int]:
    sides = [value for value in content.values() if isinstance(value, list) and value]
    chosen = rng.choice(sides) if sides else [{}]
    return chosen, rng.randrange(len(chosen))


def _field(content: dict, rng: random.Random, value: Any, keys: str = "image label patient id fold") -> None:
    entries, at = _entry(content, rng)
    if isinstance(entries[at], dict):
        entries[at][rng.choice(keys.split())] = value


def another_key(content: dict, rng: random.Random) -> None:
    content[rng.choice(SPELLED)] = content.pop(rng.choice([*content])) if content else 1


def another_entry_key(content: dict, rng: random.Random) -> None:
    entries, at = _entry(content, rng)
    if isinstance(entries[at], dict) and entries[at]:
        entries[at][rng.choice(SPELLED)] = entries[at].pop(rng.choice([*entries[at]]))


def odd_value(content: dict, rng: random.Random) -> None:
    more = ["name", "licence", "regions", "channels", "fold", "file_ending", "numTraining", "dataset", "spacing"]
    content[rng.choice([*content, *more])] = rng.choice(ODD)


def odd_entry(content: dict, rng: random.Random) -> None:
    entries, at = _entry(content, rng)
    entries[at] = rng.choice(ODD)


def odd_field(content: dict, rng: random.Random) -> None:
    _field(content, rng, rng.choice(ODD))


def odd_path(content: dict, rng: random.Random) -> None:
    _field(content, rng, rng.choice(PATHS), "image label")


def other_field(content: dict, rng: random.Random) -> None:
    """The image or label of another entry: the same file twice."""
    entries, at = _entry(content, rng)
    if isinstance(entries[at], dict):
        kind = rng.choice(["image", "label", "patient"])
        _field(content, rng, entries[at].get(kind), rng.choice([kind, kind, "image label"]))


def swapped(content: dict, rng: random.Random) -> None:
    entries, at = _entry(content, rng)
    if isinstance(entries[at], dict) and "label" in entries[at] and "image" in entries[at]:
        entries[at] |= {"image": entries[at]["label"], "label": entries[at]["image"]}


def several_channels(content: dict, rng: random.Random) -> None:
    """All images of two channels, the second that of the next entry."""
    for entries in (value for value in content.values() if isinstance(value, list)):
        images = [e.get("image") if isinstance(e, dict) else e for e in entries]
        for entry, pair in zip(entries, zip(images, images[1:] + images[:1], strict=True), strict=True):
            if isinstance(entry, dict):
                entry["image"] = list(pair)


def moved(content: dict, rng: random.Random) -> None:
    """An entry in another split as well."""
    entries, at = _entry(content, rng)
    side = content.setdefault(rng.choice(["training", "validation", "test", "unlabeled"]), [])
    if isinstance(side, list):
        side.append(entries[at] if rng.random() < 0.5 else entries.pop(at))


def given_patients(content: dict, rng: random.Random) -> None:
    _field(
        content, rng, rng.choice([7, 7.0, "7", "07", " 7", "A", "a", "é", "e\u0301", True, "case_1", "p1"]), "patient"
    )


def label_names(content: dict, rng: random.Random) -> None:
    content["labels"] = rng.choice(LABEL_KEYS)


def regions(content: dict, rng: random.Random) -> None:
    content["regions"] = rng.choice(REGIONS)
    if rng.random() < 0.3:
        content["regions_class_order"] = rng.choice([[1, 2], [2, 1], [1], 3, ["1", "2"], [None, None], [1.0, 2.0]])


def grid_values(content: dict, rng: random.Random) -> None:
    content[rng.choice(["spacing", "roi", "patch_size"])] = rng.choice(NUMBERS)


def channels(content: dict, rng: random.Random) -> None:
    names = [["CT"], ["T1", "T2"], "CT", {"0": "CT"}, {"1": "T2", "0": "T1"}, {"a": "CT"}, ["CT", "CT"]]
    names += [{"²": "x", "0": "y"}, [""], {"00": "a", "0": "b"}, ["a" * 500]]
    content["channels"] = rng.choice(names)


CHANGES: list[Callable] = [another_key, another_entry_key, odd_value, odd_entry, odd_field, odd_path, other_field]
CHANGES += [swapped, several_channels, moved, given_patients, label_names, regions, grid_values, channels]
