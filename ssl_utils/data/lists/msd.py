"""The JSON of a datalist, in the style of the Medical Segmentation Decathlon (MSD): checked when read, and written.

    {"name": ..., "description": ..., "licence": ..., "reference": ..., "channels": ["CT"],
     "labels": {"0": "background", "1": "spleen"}, "regions": {"WT": [1, 2, 4]},
     "training": [{"image": "imagesTr/a.nii.gz", "label": "labelsTr/a.nii.gz", "patient": "7"}],
     "validation": [...], "test": [...], "unlabeled": ["imagesTs/b.nii.gz"]}

Paths are relative to the dataset's folder. A list without `labels` has images only.
"""

from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path, PurePath
from typing import Any

from ssl_utils.data.cases import SIDES, Case, Datalist
from ssl_utils.data.formats.names import stem
from ssl_utils.data.lists import keys
from ssl_utils.data.lists.patients import patients_of
from ssl_utils.errors import CourseError
from ssl_utils.files import read_json, write_json


def read(path: Path | str, *, root: Path | str) -> Datalist:
    """Read a datalist; its paths are relative to `root`. The files in it are not opened.

    Accepts the spellings of MSD and nnU-Net (`keys.SPELLINGS`), bare strings as entries, and labels as value -> name or
    name -> value.
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
    default = _ids([_relative(case.image, root) for case in datalist.all_cases()])

    def entry(case: Case) -> dict[str, str]:
        image = _relative(case.image, root)
        label = {} if case.label is None else {"label": _relative(case.label, root)}
        named = {} if default[image] == case.id else {"id": case.id}
        return {"image": image, **label, "patient": case.patient, **named}

    content: dict[str, Any] = {key: getattr(datalist, key) for key in ("name", "description", "licence", "reference")}
    content["channels"] = list(datalist.channels)
    if datalist.labels:
        content["labels"] = {str(value): name for value, name in datalist.labels.items()}
    if datalist.regions:
        content["regions"] = {name: list(values) for name, values in datalist.regions.items()}
    write_json(path, content | {split: [entry(case) for case in cases] for split, cases in datalist.sides().items()})


def parse(content: Any, path: Path, *, root: Path) -> Datalist:
    """The datalist that the JSON `content` of `path` describes; errors as `read`."""
    if not isinstance(content, dict):
        raise CourseError(f"{path}: is not a datalist; it must be one JSON object with a list named training")
    content = keys.spelled(content, keys.LIST, str(path))
    entries = {split: _entries(path, split, content.get(split)) for split in SIDES}
    if not any(entries.values()):
        raise CourseError(f"{path}: lists no case; fill training, validation, test or unlabeled")
    name_of = _ids([entry["image"] for split in SIDES for entry in entries[split]])
    cases = iter(_cases([entry for split in SIDES for entry in entries[split]], root, name_of))
    labels = _labels(path, content.get("labels") or {})
    return Datalist(
        name=str(content.get("name") or path.stem),
        description=str(content.get("description", "")),
        licence=str(content.get("licence") or "not stated"),
        reference=str(content.get("reference", "")),
        channels=_channels(path, content.get("channels") or ["image"]),
        labels=labels,
        regions=_regions(path, content.get("regions") or {}, labels),
        **{split: tuple(next(cases) for _ in entries[split]) for split in SIDES},
    )


def _entries(path: Path, split: str, entries: Any) -> list[dict[str, str]]:
    """Every entry as a dictionary of strings with an image."""
    if entries is None:
        return []
    if not isinstance(entries, list):
        raise CourseError(f'{path}: {split} is not a list; write [{{"image": ..., "label": ...}}, ...]')
    checked = []
    for number, entry in enumerate(entries):
        entry = {"image": entry} if isinstance(entry, str) else entry
        if isinstance(entry, dict):
            entry = keys.spelled(entry, keys.ENTRY, f"{path}: {split}[{number}]")
        if not isinstance(entry, dict) or not isinstance(entry.get("image"), str) or not entry["image"]:
            raise CourseError(f"{path}: {split}[{number}] names no image file; give one path (4D if it has channels)")
        if not isinstance(entry.get("label"), str | None):
            raise CourseError(f"{path}: the label of {split}[{number}] is not one path; name a file or leave it out")
        if {*"/\\"} & {*str(entry.get("id", ""))}:
            raise CourseError(f"{path}: id {entry['id']} of {split}[{number}] has a slash; choose another id")
        checked.append({key: str(value) for key, value in entry.items() if value is not None})
    return checked


def _cases(entries: list[dict[str, str]], root: Path, name_of: dict[str, str]) -> list[Case]:
    images, labels = ([root / e[key] if e.get(key) else None for e in entries] for key in ("image", "label"))
    names = [entry.get("id", name_of[entry["image"]]) for entry in entries]
    patients = patients_of([(name, e["image"], e.get("patient")) for name, e in zip(names, entries, strict=True)])
    return [Case(*fields) for fields in zip(names, images, labels, patients, strict=True)]


def _ids(images: Iterable[str]) -> dict[str, str]:
    """File name without suffix; with its folders where two files would share it."""
    images = list(images)
    paths_of: dict[str, set[PurePath]] = defaultdict(set)
    for path in images:
        paths_of[stem(path)].add(PurePath(path))
    alone = {name for name, paths in paths_of.items() if len(paths) == 1}
    folders = {path: PurePath(path.strip("/")).parts[:-1] for path in images}
    return {path: stem(path) if stem(path) in alone else "_".join([*folders[path], stem(path)]) for path in images}


def _relative(path: Path, root: Path | str) -> str:
    try:
        return path.relative_to(root).as_posix()
    except ValueError:
        raise CourseError(f"{path}: lies outside {root}; move it there, or choose a root above both") from None


def _labels(path: Path, labels: Any) -> dict[int, str]:
    """value -> name with the background; nnU-Net's name -> value is inverted."""
    try:
        pairs = [(key, name) if isinstance(name, str) else (name, key) for key, name in labels.items()]
        names = {int(value): str(name).strip() for value, name in pairs}
        if any(isinstance(value, float) and value != int(value) for value, _ in pairs):
            raise ValueError
    except (AttributeError, TypeError, ValueError):
        fix = "correct them (nnU-Net's lists of values are regions here)"
        raise CourseError(f'{path}: labels must look like {{"0": "background", "1": "liver"}}; {fix}') from None
    if len(names) < len(pairs) or any(not 0 <= value <= 255 for value in names):
        raise CourseError(f"{path}: label values must be different whole numbers in 0 to 255; correct labels")
    names = {0: "background"} | names if names else {}
    for name in names.values():  # scores are kept by name
        if [*names.values()].count(name) > 1:
            raise CourseError(f"{path}: two labels are called {name!r}; give each value a name of its own")
        if name.lower() == "ignore":
            why = "labels has 'ignore', which nnU-Net leaves out of training and scores and this course cannot"
            raise CourseError(f"{path}: {why}; make those voxels background, or give the label another name")
    return dict(sorted(names.items()))


def _channels(path: Path, channels: Any) -> tuple[str, ...]:
    names = keys.in_order(channels)
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise CourseError(f'{path}: channels must be a list of names such as ["CT"]; correct it')
    return tuple(names)


def _regions(path: Path, regions: Any, labels: dict[int, str]) -> dict[str, tuple[int, ...]]:
    try:
        parsed = {str(name): tuple(int(value) for value in values) for name, values in regions.items()}
    except (AttributeError, TypeError, ValueError):
        raise CourseError(f'{path}: regions must look like {{"WT": [1, 2, 4]}}; correct them') from None
    for name, values in parsed.items():
        if not values or 0 in values or not set(values) <= set(labels):
            why = f"region {name} unites {list(values)}, not all of them labels"
            raise CourseError(f"{path}: {why}; correct it or labels")
    return parsed
