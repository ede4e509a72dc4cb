"""The cases of a folder whose dataset.json lists none, or that has no dataset.json: by folders and file names."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ssl_utils.data.cases import SIDES
from ssl_utils.data.formats.names import NAMES, says_label, stem, volumes_in
from ssl_utils.data.lists import bids, keys, nnunet
from ssl_utils.errors import CourseError

PAIRS = (("imagesTr", "labelsTr", "training"), ("images", "labels", "training"), ("imagesTs", "labelsTs", "test"))
FOLDERS = tuple(folder for *pair, _ in PAIRS for folder in pair)


def has_layout(root: Path) -> bool:
    """Whether the folder is a dataset, and not just volumes."""
    known = (root / "dataset.json").is_file() or (root / "imagesTr").is_dir()
    return known or bool(volumes_in(root / "images")) or bids.is_bids(root)


def with_cases(content: Any, root: Path) -> Any:
    """The content of a dataset.json with the cases of the folder, where it lists none.

    Raises:
        CourseError: there are none in the folder either, they are ambiguous, or not as many as numTraining says.
    """
    source = str(root / "dataset.json")
    known = keys.spelled(content, keys.LIST, source) if isinstance(content, dict) else {}
    if not isinstance(content, dict) or any(known.get(key) for key in (*SIDES, "dataset")):
        return content
    channels = keys.in_order(known.get("channels"))
    channels = [*map(str, channels)] if isinstance(channels, list) else []  # `parse` refuses anything else
    pairs = [(volumes_in(root / images), volumes_in(root / labels), split) for images, labels, split in PAIRS]
    if any(images for images, *_ in pairs):
        entries, counts = _paired(root, pairs, channels)
        for error in keys.miscounted(content, counts):
            raise CourseError(f"{source}: {error} in its folder; complete the copy, or correct the number")
    elif bids.is_bids(root):
        entries = bids.scan(root)
    else:
        entries = {"unlabeled": _plain(root)}
    said = {key: value for key, value in known.items() if key not in SIDES or value not in ([], None)}
    return {"name": root.resolve().name, "description": "found by file name"} | entries | said


def _paired(
    root: Path, pairs: Sequence[tuple[list[Path], list[Path], str]], channels: Sequence[str]
) -> tuple[dict[str, list], dict[str, int]]:
    """Entries by split, labelled ones in training and test; and the number of cases by split, labelled or not."""
    entries: dict[str, list] = {"training": [], "test": [], "unlabeled": []}
    counts = {"training": 0, "test": 0}
    apart = nnunet.has_channel_files(*([path for pair in pairs for path in pair[which]] for which in (0, 1)))
    for images, labels, split in pairs:
        label_of = _by_stem(labels)
        cases = nnunet.by_case(images, channels).items() if apart else [(stem(image), (image,)) for image in images]
        for name, files in cases:
            paths = [file.relative_to(root).as_posix() for file in files]
            entry = {"image": paths if len(paths) > 1 else paths[0]} | ({"id": name} if apart else {})
            counts[split] += 1
            if label := label_of.get(name):
                entries[split].append(entry | {"label": label.relative_to(root).as_posix()})
            else:
                entries["unlabeled"].append(entry)
    labels = [label for pair in pairs for label in pair[1]]
    if labels and not entries["training"] + entries["test"]:
        why = f"is one of {len(labels)} labels, none of which has the name of an image"
        raise CourseError(f"{labels[0]}: {why}; call the label of imagesTr/CASE or CASE_0000 labelsTr/CASE")
    return entries, counts


def _by_stem(labels: list[Path]) -> dict[str, Path]:
    paths: dict[str, Path] = {}
    for path in labels:
        if paths.setdefault(stem(path), path) != path:
            raise CourseError(f"{path}: {paths[stem(path)].name} is a label of the same case; delete one of the two")
    return paths


def _plain(root: Path) -> list[str]:
    """Volumes that lie in the folder itself are images without labels."""
    if not (images := volumes_in(root)):
        why = "has no dataset.json and no volume in imagesTr, images, sub-*/anat or itself"
        raise CourseError(f"{root}: {why}; put images into imagesTr, labels into labelsTr ({NAMES})")
    if label := next(filter(says_label, images), None):
        fix = "put images into imagesTr and labels, under the names of their images, into labelsTr"
        raise CourseError(f"{label}: is called a label and lies among the images; {fix}")
    return [image.name for image in images]
