"""The JSON of a datalist, in the style of the Medical Segmentation Decathlon (MSD): checked when read, and written.

    {"name": ..., "description": ..., "licence": ..., "reference": ..., "channels": ["CT"],
     "labels": {"0": "background", "1": "spleen"}, "regions": {"WT": [1, 2, 4]},
     "spacing": [1.5, 1.5, 8], "roi": [64, 64, 8], "patch_size": [8, 8, 2],
     "training": [{"image": "imagesTr/a.nii.gz", "label": "labelsTr/a.nii.gz", "patient": "7"}],
     "validation": [...], "test": [...], "unlabeled": ["imagesTs/b.nii.gz"]}

Paths are relative to the dataset's folder, or absolute. An image is one path, or a list of one path a channel. A list
without `labels` has images only. What nnU-Net and MONAI add is in docs/own_data.md.
"""

import json
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from itertools import takewhile
from pathlib import Path, PurePath
from typing import Any

from ssl_utils.data import own_grid
from ssl_utils.data.cases import IGNORE, SIDES, Case, Datalist, Image
from ssl_utils.data.formats.names import NAMES, stem, suffix
from ssl_utils.data.lists import classes, keys, nnunet, sequences
from ssl_utils.data.lists.patients import patients_of
from ssl_utils.errors import CourseError
from ssl_utils.files import read_json, write_json


def read(path: Path | str, *, root: Path | str) -> Datalist:
    """Read a datalist; its paths are relative to `root`. The files in it are not opened.

    Accepts the spellings of MSD, nnU-Net and MONAI (`keys.SPELLINGS`), bare strings as entries, and labels as value ->
    name or name -> value. Of training cases with a `fold`, those of the list's own `fold` (default 0) are validation.
    A case's id is its file name without suffix; its patient, where it has none, is read from its id (`patients_of`).

    Raises:
        CourseError: the file is not JSON, a key is not known, or a key or an entry has the wrong form.
    """
    return parse(read_json(path), Path(path), root=Path(root))


def write(datalist: Datalist, path: Path | str, *, root: Path | str) -> None:
    """Write a datalist with paths relative to `root`.

    Raises:
        CourseError: a file is outside `root`.
    """

    def image_of(case: Case) -> str | tuple[str, ...]:
        several = isinstance(case.image, tuple)
        return tuple(_relative(path, root) for path in case.image) if several else _relative(case.image, root)

    default = _ids(map(image_of, datalist.all_cases()))

    def entry(case: Case) -> dict[str, Any]:
        image = image_of(case)
        label = {} if case.label is None else {"label": _relative(case.label, root)}
        named = {} if default[image] == case.id else {"id": case.id}
        site = {"site": case.site} if case.site else {}
        return {"image": image, **label, "patient": case.patient, **site, **named}

    content: dict[str, Any] = {key: getattr(datalist, key) for key in ("name", "description", "licence", "reference")}
    content["channels"] = list(datalist.channels)
    if datalist.labels:
        content["labels"] = {str(value): name for value, name in datalist.names.items()}
    if datalist.regions:
        content["regions"] = {name: list(values) for name, values in datalist.regions.items()}
    content |= {key: list(numbers) for key, numbers in datalist.grid.items()}
    write_json(path, content | {split: [entry(case) for case in cases] for split, cases in datalist.sides().items()})


def parse(content: Any, path: Path, *, root: Path) -> Datalist:
    """The datalist that the JSON `content` of `path` describes; errors as `read`."""
    if not isinstance(content, dict):
        raise CourseError(f"{path}: is not a datalist; it must be one JSON object with a list named training")
    text = json.dumps([str(root), content], ensure_ascii=False)
    if not text.isascii() and (odd := re.search('[^"/]*[\ud800-\udfff][^"/]*', text)):
        fix = "rename the file or folder, or correct the list"
        raise CourseError(f"{path}: the name {odd[0][:40]!a} is not UTF-8; {fix}")
    content = nnunet.with_training(nnunet.with_regions(keys.spelled(content, keys.LIST, str(path)), path), path)
    entries = {split: _entries(path, split, content.get(split)) for split in SIDES}
    if not any(entries.values()):
        raise CourseError(f"{path}: lists no case; fill training, validation, test or unlabeled")
    _check_ending(path, content.get("file_ending"), entries)
    entries |= _by_fold(path, content.get("fold"), entries)
    name_of = _ids([entry["image"] for split in SIDES for entry in entries[split]])
    channels, names = (
        classes.channels(path, content.get("channels") or []),
        classes.labels(path, content.get("labels") or {}),
    )
    labels = {value: name for value, name in names.items() if name.lower() != IGNORE}
    regions = classes.regions(path, content.get("regions") or {}, labels)
    nnunet.check_order(content.get("regions_class_order"), regions, path)
    cases = iter(_cases([entry for split in SIDES for entry in entries[split]], root, name_of, channels))
    return Datalist(
        name=str(content.get("name") or path.stem),
        description=str(content.get("description", "")),
        licence=str(content.get("licence") or "not stated"),
        reference=str(content.get("reference", "")),
        channels=channels or ("image",),
        labels=labels,
        regions=regions,
        ignore=next((value for value in names if value not in labels), None),
        grid=own_grid.parsed(content, f"{path}: "),
        **{split: tuple(next(cases) for _ in entries[split]) for split in SIDES},
    )


def _entries(path: Path, split: str, entries: Any) -> list[dict[str, Any]]:
    """Every entry as a dictionary of strings with an image, which may be a tuple of them."""
    if entries is None:
        return []
    if not isinstance(entries, list):
        raise CourseError(f'{path}: {split} is not a list; write [{{"image": ..., "label": ...}}, ...]')
    checked = []
    for number, entry in enumerate(entries):
        entry = {"image": entry} if isinstance(entry, str | list) else entry
        if isinstance(entry, dict):
            known = (*keys.ENTRY, "fold") if split == "training" else keys.ENTRY
            entry = keys.spelled(entry, known, f"{path}: {split}[{number}]")
        image = entry.get("image") if isinstance(entry, dict) else None
        images = image if isinstance(image, list) else [image]
        if not images or not all(isinstance(one, str) and one for one in images):
            raise CourseError(f"{path}: {split}[{number}] names no image file; give one path, or one for each channel")
        if not isinstance(entry.get("label"), str | None):
            raise CourseError(f"{path}: the label of {split}[{number}] is not one path; name a file or leave it out")
        keys.check_values(entry, f"{path}: {split}[{number}]")
        text = {key: str(value) for key, value in entry.items() if value is not None}
        checked.append(text | {"image": tuple(images) if len(images) > 1 else images[0]})
    return checked


def _check_ending(path: Path, ending: Any, entries: dict[str, list[dict[str, Any]]]) -> None:
    """nnU-Net's file_ending holds for images and labels."""
    if ending is None:
        return
    if not isinstance(ending, str) or not suffix(f"x{ending}"):
        raise CourseError(f"{path}: files that end in {ending!r} (file_ending) are not read; convert them to {NAMES}")
    for entry in (entry for split in entries.values() for entry in split):
        images = entry["image"] if isinstance(entry["image"], tuple) else (entry["image"],)
        for file in (*images, *filter(None, [entry.get("label")])):
            if not file.lower().endswith(ending.lower()):
                why = f"{file} does not end in {ending}, the file_ending"
                raise CourseError(f"{path}: {why}; convert it, or correct the key")


def _by_fold(path: Path, fold: Any, entries: dict[str, list[dict[str, Any]]]) -> dict[str, list[dict[str, Any]]]:
    """Training and validation of a list whose training cases have a fold; nothing to change where none has."""
    folds = sorted({entry["fold"] for entry in entries["training"] if "fold" in entry})
    chosen = str(0 if fold is None else fold)
    if not folds and fold is None:
        return {}
    if chosen not in folds or chosen == "-1":  # which is always training
        there = f"of folds {', '.join(folds)}" if folds else "without a fold"
        fix = 'name the fold that is validation at the top, as in "fold": 1, or delete it'
        raise CourseError(f"{path}: validation would be fold {chosen}, and the training cases are {there}; {fix}")
    if entries["validation"]:
        raise CourseError(f"{path}: has validation cases and folds too; delete validation, or fold from the entries")
    held_out = [entry for entry in entries["training"] if entry.get("fold") == chosen]
    return {"training": [entry for entry in entries["training"] if entry.get("fold") != chosen], "validation": held_out}


def _cases(entries: list[dict[str, Any]], root: Path, name_of: dict[Any, str], channels: Sequence[str]) -> list[Case]:
    firsts = [e["image"][0] if isinstance(e["image"], tuple) else e["image"] for e in entries]
    names = [entry.get("id", name_of[entry["image"]]) for entry in entries]
    given = [entry.get("patient") for entry in entries]
    patients = patients_of(list(zip(names, firsts, given, strict=True)))
    images = [_files(entry["image"], root, channels) for entry in entries]
    labels = [root / entry["label"] if entry.get("label") else None for entry in entries]
    sites = [entry.get("site", "") for entry in entries]
    return [Case(*fields) for fields in zip(names, images, labels, patients, sites, strict=True)]


def _files(image: str | tuple[str, ...], root: Path, channels: Sequence[str]) -> Image:
    if isinstance(image, tuple):
        files = tuple(root / path for path in image)
        if len(files) > len(channels):  # refused when read; none is left out
            return files
        return sequences.ordered(files, channels)
    return nnunet.on_disk(root / image, channels)


def _ids(images: Iterable[str | tuple[str, ...]]) -> dict[str | tuple[str, ...], str]:
    """File name without suffix, of several what all begin with; with folders where two images would share it."""
    names = {image: _name(image) for image in images}
    first = {image: PurePath(image[0] if isinstance(image, tuple) else image) for image in names}
    paths_of: dict[str, set[PurePath]] = defaultdict(set)
    for image, name in names.items():
        paths_of[name].add(first[image])
    alone = {name for name, paths in paths_of.items() if len(paths) == 1}

    def with_folders(image: str | tuple[str, ...]) -> str:
        return "_".join([*first[image].relative_to(first[image].anchor).parts[:-1], names[image]])

    return {image: name if name in alone else with_folders(image) for image, name in names.items()}


def _name(image: str | tuple[str, ...]) -> str:
    if isinstance(image, str):
        return stem(image)
    words = zip(*(re.split(r"([-_. ])", stem(path)) for path in image), strict=False)
    common = takewhile(lambda same: len({*same}) == 1, words)  # whole words: t1 and t1ce have none in common
    return "".join(word for word, *_ in common).strip("-_. ") or PurePath(image[0]).parent.name or stem(image[0])


def _relative(path: Path, root: Path | str) -> str:
    try:
        return path.relative_to(root).as_posix()
    except ValueError:
        raise CourseError(f"{path}: lies outside {root}; move it there, or choose a root above both") from None
