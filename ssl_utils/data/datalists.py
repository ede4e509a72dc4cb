"""Datalists: which case is on which side, in the JSON style of the Medical Segmentation Decathlon (MSD).

    {"name": ..., "description": ..., "licence": ..., "reference": ..., "channels": ["CT"],
     "labels": {"0": "background", "1": "spleen"}, "regions": {"WT": [1, 2, 4]},
     "training": [{"image": "imagesTr/a.nii.gz", "label": "labelsTr/a.nii.gz", "patient": "7"}],
     "validation": [...], "test": [...], "unlabeled": ["imagesTs/b.nii.gz"]}

Paths are relative to the dataset's folder. A list without `labels` holds images alone.
"""

from collections import defaultdict
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePath
from typing import Any

from ssl_utils.data import volumes
from ssl_utils.data.cases import Case, by_patient, draw_labels, in_turn, split_by_patient
from ssl_utils.errors import CourseError
from ssl_utils.files import read_json, write_json

__all__ = [
    "Case", "Datalist", "by_patient", "draw_labels", "faults", "from_folder", "in_turn", "leaks", "problems", "read",
    "split_by_patient", "write",
]  # fmt: skip

SIDES = ("training", "validation", "test", "unlabeled")
POOL = ("training", "unlabeled")  # what pretraining may see: one side as far as leaks go


@dataclass(frozen=True)
class Datalist:
    """Cases by side.

    Attributes:
        channels: names of the image's channels; more than one means 4D files, channels last.
        labels: value -> name, 0 (background) included; empty for a list of images alone.
        regions: name -> label values it unites (BraTS: TC, WT, ET); regions may overlap.
    """

    name: str
    description: str = ""
    licence: str = ""
    reference: str = ""
    channels: tuple[str, ...] = ("image",)
    labels: dict[int, str] = field(default_factory=dict)
    regions: dict[str, tuple[int, ...]] = field(default_factory=dict)
    training: tuple[Case, ...] = ()
    validation: tuple[Case, ...] = ()
    test: tuple[Case, ...] = ()
    unlabeled: tuple[Case, ...] = ()

    def sides(self) -> dict[str, tuple[Case, ...]]:
        return {side: getattr(self, side) for side in SIDES}


def read(path: Path | str, *, root: Path | str) -> Datalist:
    """Read a datalist; its paths are taken relative to `root`. No file it names is opened.

    Accepts MSD's `modality` for `channels`, bare strings as entries, and labels as value -> name or name -> value.
    A case's id is its file name without suffix; its patient, when none is given, is its id.

    Raises:
        CourseError: the file is not JSON, or a key or an entry has the wrong form.
    """
    path, root = Path(path), Path(root)
    content = read_json(path)
    if not isinstance(content, dict):
        raise CourseError(f"{path}: is not a datalist; it must be one JSON object with a list named training")
    entries = {side: _entries(path, side, content.get(side)) for side in SIDES}
    if not any(entries.values()):
        raise CourseError(f"{path}: lists no case; fill training, validation, test or unlabeled")
    name_of = _ids([entry["image"] for side in SIDES for entry in entries[side]])
    labels = _labels(path, content.get("labels") or {})
    return Datalist(
        name=str(content.get("name") or path.stem),
        description=str(content.get("description", "")),
        licence=str(content.get("licence") or content.get("license") or "not stated"),
        reference=str(content.get("reference", "")),
        channels=_channels(path, content.get("channels") or content.get("modality") or ["image"]),
        labels=labels,
        regions=_regions(path, content.get("regions") or {}, labels),
        **{side: tuple(_case(entry, root, name_of) for entry in entries[side]) for side in SIDES},
    )


def write(datalist: Datalist, path: Path | str, *, root: Path | str) -> None:
    """Write a datalist with paths relative to `root`.

    Raises:
        CourseError: a file lies outside `root`.
    """
    default = _ids([_relative(case.image, root) for cases in datalist.sides().values() for case in cases])

    def entry(case: Case) -> dict[str, str]:
        image = _relative(case.image, root)
        label = {} if case.label is None else {"label": _relative(case.label, root)}
        return {"image": image, **label, "patient": case.patient} | (
            {} if default[image] == case.id else {"id": case.id}
        )

    content: dict[str, Any] = {key: getattr(datalist, key) for key in ("name", "description", "licence", "reference")}
    content["channels"] = list(datalist.channels)
    if datalist.labels:
        content["labels"] = {str(value): name for value, name in datalist.labels.items()}
    if datalist.regions:
        content["regions"] = {name: list(values) for name, values in datalist.regions.items()}
    write_json(path, content | {side: [entry(case) for case in cases] for side, cases in datalist.sides().items()})


def problems(datalist: Datalist) -> list[str]:
    """One line per fault that needs no voxel to be seen: the case, the reason, the cure."""
    return [f"{case}: {reason}; {cure}" for case, reason, cure in faults(datalist)]


def faults(datalist: Datalist) -> list[tuple[str, str, str]]:
    """(case, reason, cure): missing file, image without label, duplicate, patient on two sides."""
    found = []
    for side, cases in datalist.sides().items():
        for case in cases:
            for kind, path in (("image", case.image), ("label", case.label)):
                if path is not None and not path.is_file():
                    found.append((case.id, f"its {kind} {path} is missing", "put the file there or delete the entry"))
            if case.label is None and datalist.labels and side != "unlabeled":
                found.append((case.id, f"is in {side} without a label", "name its label or move it to unlabeled"))
    for patient, sides in leaks(datalist).items():
        first = next(iter(sides.values()))[0]
        found.append((first, f"its patient {patient} is in {_where(sides)}", "keep a patient on one side"))
    return found + _duplicates(datalist)


def leaks(datalist: Datalist) -> dict[str, dict[str, list[str]]]:
    """Patients on two sides or more: patient -> side -> case ids. Training and unlabeled are one side, "pool"."""
    places: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for side, cases in datalist.sides().items():
        for case in cases:
            places[case.patient]["pool" if side in POOL else side].append(case.id)
    return {
        patient: {side: sorted(ids) for side, ids in sides.items()}
        for patient, sides in sorted(places.items())
        if len(sides) > 1
    }


def from_folder(root: Path | str) -> Datalist:
    """A person's own folder: a dataset.json, or imagesTr and labelsTr (and imagesTs) with equal file names.

    Labelled validation and test cases of a dataset.json stay where they are. Sides it does not have are dealt from its
    training cases by patient, always alike: about 30 % test, 15 % validation, at least one patient each. Images without
    a label become unlabeled. Without a dataset.json the label files are read once, to learn which values occur.

    Raises:
        CourseError: there is no such layout, a file cannot be read, or labelled cases of three patients are not there.
    """
    root = Path(root)
    if not root.is_dir():
        raise CourseError(f"{root}: no such folder; name the folder that holds imagesTr and labelsTr")
    given = read(root / "dataset.json", root=root) if (root / "dataset.json").is_file() else _scan(root)
    held = {side: [case for case in getattr(given, side) if case.label is not None] for side in SIDES}
    known = {case.image for cases in held.values() for case in cases}
    bare = {case.image: case for side in SIDES for case in getattr(given, side) if case.image not in known}
    needed = {side: share for side, share in (("test", 0.3), ("validation", 0.15)) if not held[side]}
    dealt = _deal(root, held["training"] + held["unlabeled"], needed)
    sides = {side: tuple(dealt.get(side) or held[side]) for side in ("training", "validation", "test")}
    return replace(_named(given), **sides, unlabeled=tuple(bare.values()))


def _deal(root: Path, cases: list[Case], shares: dict[str, float]) -> dict[str, tuple[Case, ...]]:
    """Training and the sides named in `shares`, none of them empty."""
    patients = by_patient(cases, seed=0)
    if len(patients) < 1 + len(shares):
        raise CourseError(
            f"{root}: labelled cases of {len(patients)} patients are there, {1 + len(shares)} are needed to train, "
            "choose and test; add cases to imagesTr and labelsTr (equal names), or to dataset.json"
        )
    sizes = {side: max(1, round(share * len(cases))) for side, share in shares.items()}
    sides = split_by_patient(cases, sizes=sizes, seed=0)
    if not all(sides.values()):  # few patients with many cases each: one patient a side
        sides = {side: tuple(group) for side, group in zip(shares, patients, strict=False)}
        sides["rest"] = tuple(case for group in patients[len(shares) :] for case in group)
    return {"training": sides.pop("rest"), **sides}


def _scan(root: Path) -> Datalist:
    """imagesTr, labelsTr, imagesTs as a Datalist: all labelled cases in training."""
    images = [path for folder in ("imagesTr", "imagesTs") for path in _niftis(root / folder)]
    if not images:
        raise CourseError(
            f"{root}: has no dataset.json and no .nii.gz in imagesTr; put images there, labels in labelsTr"
        )
    labels = {path.name: path for path in _niftis(root / "labelsTr")}
    name_of = _ids([_relative(path, root) for path in images])
    cases = []
    for image in images:
        name = name_of[_relative(image, root)]
        label = labels.get(image.name) if image.parent.name == "imagesTr" else None
        cases.append(Case(name, image, label, patient=name))
    return Datalist(
        name=root.resolve().name,
        description="found by file name",
        licence="not stated",
        training=tuple(case for case in cases if case.label is not None),
        unlabeled=tuple(case for case in cases if case.label is None),
    )


def _named(datalist: Datalist) -> Datalist:
    """Label and channel names, where the list gives none, from the files. The doctor names unreadable ones."""
    cases = [case for cases in datalist.sides().values() for case in cases]
    if not datalist.labels:
        values = {0}
        for label in (case.label for case in cases if case.label is not None):
            with suppress(CourseError):
                values.update(volumes.present_values(volumes.read_label(label).array))
        names = {value: f"label {value}" if value else "background" for value in sorted(values)}
        datalist = replace(datalist, labels=names)
    if datalist.channels == ("image",):
        with suppress(CourseError):
            count = volumes.count_channels(cases[0].image)
            names = tuple(f"channel {number}" for number in range(count)) if count > 1 else ("image",)
            datalist = replace(datalist, channels=names)
    return datalist


def _niftis(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("*") if volumes.is_nifti(path) and not path.name.startswith("."))


def _duplicates(datalist: Datalist) -> list[tuple[str, str, str]]:
    places: dict[tuple[str, str], list[tuple[str, str]]] = defaultdict(list)
    for side, cases in datalist.sides().items():
        for case in cases:
            for kind, key in (("case", case.id), ("image", case.image), ("label", case.label)):
                if key is not None:
                    places[kind, str(key)].append((case.id, side))
    found: dict[tuple[tuple[str, str], ...], tuple[str, str, str]] = {}
    for (kind, key), where in places.items():
        if len(where) > 1:
            listed = " and ".join(f"{case} ({side})" for case, side in where)
            reason = f"its {kind} {'id' if kind == 'case' else Path(key).name} is listed {len(where)} times: {listed}"
            found.setdefault(tuple(where), (where[0][0], reason, "delete all but one of the entries"))
    return list(found.values())


def _where(sides: dict[str, list[str]]) -> str:
    return " and ".join(
        f"{side} ({', '.join(ids[:3])}{f' and {len(ids) - 3} more' if len(ids) > 3 else ''})"
        for side, ids in sides.items()
    )


def _entries(path: Path, side: str, entries: Any) -> list[dict[str, str]]:
    """Every entry as a dictionary of strings with an image."""
    if entries is None:
        return []
    if not isinstance(entries, list):
        raise CourseError(f'{path}: {side} is not a list; write [{{"image": ..., "label": ...}}, ...]')
    found = []
    for number, entry in enumerate(entries):
        entry = {"image": entry} if isinstance(entry, str) else entry
        if not isinstance(entry, dict) or not isinstance(entry.get("image"), str) or not entry["image"]:
            raise CourseError(f"{path}: {side}[{number}] names no image file; give one path (4D if it has channels)")
        if not isinstance(entry.get("label"), str | None):
            raise CourseError(f"{path}: the label of {side}[{number}] is not one path; name a file or leave it out")
        if any(mark in str(entry.get("id", "")) for mark in "/\\"):
            raise CourseError(
                f"{path}: id {entry['id']} of {side}[{number}] has a slash; ids name folders, choose another"
            )
        found.append(
            {key: str(entry[key]) for key in ("image", "label", "patient", "id") if entry.get(key) is not None}
        )
    return found


def _case(entry: dict[str, str], root: Path, name_of: dict[str, str]) -> Case:
    name = entry.get("id", name_of[entry["image"]])
    label = root / entry["label"] if entry.get("label") else None
    return Case(name, root / entry["image"], label, entry.get("patient", name))


def _ids(images: Iterable[str]) -> dict[str, str]:
    """File name without suffix; with its folders where two files would share it."""

    def stem(path: str) -> str:
        name = PurePath(path).name
        return next((name[: -len(end)] for end in volumes.SUFFIXES if name.lower().endswith(end)), name)

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
    """value -> name with the background; nnU-Net's name -> value is turned round."""
    try:
        pairs = [(key, name) if isinstance(name, str) else (name, key) for key, name in labels.items()]
        found = {int(value): name for value, name in pairs}
    except (AttributeError, TypeError, ValueError):
        raise CourseError(f'{path}: labels must look like {{"0": "background", "1": "liver"}}; mend them') from None
    if len(found) < len(pairs) or any(not 0 <= value <= 255 for value in found):
        raise CourseError(f"{path}: label values must be different whole numbers in 0 to 255; mend labels")
    return dict(sorted(({0: "background"} | found).items())) if found else {}


def _channels(path: Path, channels: Any) -> tuple[str, ...]:
    names = list(channels.values()) if isinstance(channels, dict) else channels
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise CourseError(f'{path}: channels must be a list of names such as ["CT"]; mend it')
    return tuple(names)


def _regions(path: Path, regions: Any, labels: dict[int, str]) -> dict[str, tuple[int, ...]]:
    try:
        found = {str(name): tuple(int(value) for value in values) for name, values in regions.items()}
    except (AttributeError, TypeError, ValueError):
        raise CourseError(f'{path}: regions must look like {{"WT": [1, 2, 4]}}; mend them') from None
    for name, values in found.items():
        if not values or 0 in values or not set(values) <= set(labels):
            raise CourseError(f"{path}: region {name} unites {list(values)}, not all of them labels; mend it or labels")
    return found
