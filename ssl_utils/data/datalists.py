"""Datalists: which case is on which side, what is wrong with that, and how a person's own folder becomes one.

The file they are kept in is described in `datalist_json`.
"""

from collections import defaultdict
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from ssl_utils.data import volumes
from ssl_utils.data.cases import SIDES, Case, Datalist, by_patient, draw_labels, in_turn, split_by_patient
from ssl_utils.data.formats.names import NAMES, is_series, stem, strangers, volumes_in
from ssl_utils.data.lists.datalist_json import parse, read, write
from ssl_utils.errors import CourseError

__all__ = [
    "Case",
    "Datalist",
    "as_listed",
    "by_patient",
    "draw_labels",
    "faults",
    "from_folder",
    "in_turn",
    "leaks",
    "overlooked",
    "problems",
    "read",
    "split_by_patient",
    "write",
]

POOL = ("training", "unlabeled")  # what pretraining may see: one side as far as leaks go


def problems(datalist: Datalist) -> list[str]:
    """One line per fault that needs no voxel to be seen: the case, the reason, the cure."""
    return [f"{case}: {reason}; {cure}" for case, reason, cure in faults(datalist)]


def faults(datalist: Datalist) -> list[tuple[str, str, str]]:
    """(case, reason, cure): missing file, image without label, duplicate, patient on two sides."""
    found = []
    for side, cases in datalist.sides().items():
        for case in cases:
            for kind, path in (("image", case.image), ("label", case.label)):
                if path is not None and not path.exists():
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


def from_folder(root: Path | str) -> Datalist:
    """A person's own folder: a dataset.json, or imagesTr and labelsTr (and imagesTs) with equal file names.

    Labelled validation and test cases of a dataset.json stay where they are. Sides it does not have are dealt from its
    training cases by patient, always alike: about 30 % test, 15 % validation, at least one patient each. Images without
    a label become unlabeled. Without a dataset.json the label files are read once, to learn which values occur.

    Raises:
        CourseError: there is no such layout, a file cannot be read, or labelled cases of three patients are not there.
    """
    root = Path(root)
    given = as_listed(root)
    if not (root / "dataset.json").is_file():
        for path, reason, cure in overlooked(root):
            raise CourseError(f"{path}: {reason}; {cure}")
    held = {side: [case for case in getattr(given, side) if case.label is not None] for side in SIDES}
    known = {case.image for cases in held.values() for case in cases}
    bare = {case.image: case for side in SIDES for case in getattr(given, side) if case.image not in known}
    needed = {side: share for side, share in (("test", 0.3), ("validation", 0.15)) if not held[side]}
    dealt = _deal(root, held["training"] + held["unlabeled"], needed)
    sides = {side: tuple(dealt.get(side) or held[side]) for side in ("training", "validation", "test")}
    return replace(given, **sides, unlabeled=tuple(bare.values()))


def as_listed(root: Path) -> Datalist:
    """The cases of a person's own folder before any are dealt to other sides.

    Raises:
        CourseError: there is no such layout.
    """
    if not root.is_dir():
        raise CourseError(f"{root}: no such folder; name the folder that holds imagesTr and labelsTr")
    return _named(read(root / "dataset.json", root=root) if (root / "dataset.json").is_file() else _scan(root))


def overlooked(root: Path) -> list[tuple[Path, str, str]]:
    """(path, reason, cure): what lies where images and labels are searched and is neither."""
    found = []
    for folder in (root / name for name in ("imagesTr", "labelsTr", "imagesTs")):
        if is_series(folder):
            found.append((folder, "DICOM slices lie in it loosely", "give each series a folder of its own inside it"))
        cure = "convert it to .nii.gz, or move it elsewhere"
        found += [(path, "is of a format that is not read", cure) for path in strangers(folder)]
    return found


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
    images = [path for folder in ("imagesTr", "imagesTs") for path in volumes_in(root / folder)]
    if not images:
        raise CourseError(
            f"{root}: has no dataset.json and no volume in imagesTr; put images there, labels in labelsTr ({NAMES})"
        )
    names: dict[str, str] = {}
    for path in volumes_in(root / "labelsTr"):
        if names.setdefault(stem(path), path.name) != path.name:
            raise CourseError(f"{path}: {names[stem(path)]} is a label of the same case; delete one of the two")
    pairs = {}
    for path in images:
        label = names.get(stem(path)) if path.parent.name == "imagesTr" else None
        pairs[path.relative_to(root).as_posix()] = label and f"labelsTr/{label}"
    content = {
        "name": root.resolve().name,
        "description": "found by file name",
        "training": [{"image": image, "label": label} for image, label in pairs.items() if label],
        "unlabeled": [image for image, label in pairs.items() if not label],
    }
    return parse(content, root, root=root)


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
