"""Your own volumes: a datalist and a dataset from a folder in MSD layout, without writing code."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ssl_utils.data import own_grid, round_trip, volumes
from ssl_utils.data.cases import Case, Datalist, by_patient, split_by_patient
from ssl_utils.data.dataset import ABDOMEN, Dataset, Intensity
from ssl_utils.data.formats.names import NAMES, is_series, stem, strangers, volumes_in
from ssl_utils.data.lists.msd import parse, read
from ssl_utils.errors import CourseError
from ssl_utils.files import read_json, write_json

FOLDERS = ("imagesTr", "labelsTr", "imagesTs", "labelsTs")
RULE = 1  # version of the choice of a grid by labels; what earlier ones have written is not used


def describe(root: Path, *, name: str, chosen: Mapping[str, tuple] | None = None, cache: Path | None = None) -> Dataset:
    """Read the datalist and the headers of `root`, and choose intensity rule, spacing, ROI and patch from them.

    `name` is used for its runs. CT (by the modality in dataset.json) gets the soft-tissue window; everything else its
    own percentiles. Grids are those of `own_grid.choose`; what `chosen` or the list gives of them is kept. Smaller
    volumes are padded to the ROI. Crops around structures (`round_trip.crops`) that one ROI holds are resampled to it.

    Args:
        chosen: values of the grid as `own_grid.parsed`; they take precedence over those of the list.
        cache: file in which the spacing that labels need is kept, since measuring it takes seconds. None: labels are
            not read, and the extents alone decide.

    Raises:
        CourseError: no such folder, or nothing usable in it.
    """
    datalist = from_folder(root)
    headers = [volumes.ras_grid(case.image) for case in datalist.all_cases()]
    shapes, spacings = (np.array(values) for values in zip(*headers, strict=True))
    extents, spacing = shapes * spacings, np.median(spacings, axis=0)
    chosen = dict(datalist.grid) | dict(chosen or {})
    labels = _Labels(datalist, cache) if cache and "spacing" not in chosen else None
    labels = labels if labels and labels.paths else None
    grids = own_grid.choose(extents, spacing, chosen, labels and labels.survive)
    if labels and labels.around_structures():
        typical = np.median(extents, axis=0)
        grids = {kind: replace(grid, fit=own_grid.windows(typical, grid) == 1) for kind, grid in grids.items()}
    is_ct = all(channel.lower() == "ct" for channel in datalist.channels)
    return Dataset(
        name=name,
        title=datalist.name,
        source=str(root),
        licence=datalist.licence or "not stated",
        channels=datalist.channels,
        labels=datalist.labels,
        regions=datalist.regions or None,
        intensity=ABDOMEN if is_ct else Intensity("percentile", 1, 99),
        grids=grids,
        tolerance=float(np.round(spacing.max(), 2)),
        folders=(),
        root=root,
    )


class _Labels:
    """What some training labels say about a grid, remembered in a file, since to read them takes seconds."""

    def __init__(self, datalist: Datalist, cache: Path) -> None:
        self.paths = [case.label for case in datalist.training if case.label and case.label.exists()]
        self.values = round_trip.structures(datalist.labels, datalist.regions)
        self.cache, self.answers, self.parts = cache, {}, None
        states = [(str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in self.paths]
        self.key = hashlib.sha256(f"{RULE}{self.values}{states}".encode()).hexdigest()[:16]
        with suppress(CourseError, AttributeError):  # not there, or damaged: measured again
            before = read_json(cache)
            self.answers = before["answers"] if before.get("key") == self.key else {}

    def survive(self, spacing: Sequence[float]) -> bool:
        name = " ".join(map(str, spacing))
        return self._answer(name, lambda parts: round_trip.survive(parts, spacing, own_grid.LEAST))

    def around_structures(self) -> bool:
        return self._answer("crops", round_trip.crops)

    def _answer(self, question: str, measure: Callable[[dict], bool]) -> bool:
        if question not in self.answers:
            self.parts = round_trip.parts(self.paths, self.values) if self.parts is None else self.parts
            self.answers[question] = measure(self.parts)
            write_json(self.cache, {"key": self.key, "answers": self.answers})
        return self.answers[question]


def from_folder(root: Path | str) -> Datalist:
    """A person's own folder: a dataset.json, or imagesTr and labelsTr (imagesTs and labelsTs) with equal file names.

    Labelled validation and test cases of a dataset.json, or of labelsTs, stay in their split. Missing splits are drawn
    from the training cases by patient, always the same ones: about 30 % test, 15 % validation, at least one patient
    each. Images without a label become unlabeled; those of patients drawn for test and validation are left out. Without
    any label 15 % of the images are held out for validation. Without a dataset.json the label files are read once, to
    learn which values occur.

    Raises:
        CourseError: no such layout, a file that cannot be read, or labelled cases of fewer than three patients.
    """
    root = Path(root)
    listed = as_listed(root)
    if not (root / "dataset.json").is_file():
        for path, reason, fix in overlooked(root):
            raise CourseError(f"{path}: {reason}; {fix}")
    labelled = {split: [case for case in cases if case.label] for split, cases in listed.sides().items()}
    images = {case.image for cases in labelled.values() for case in cases}
    unlabelled = {case.image: case for case in listed.all_cases() if case.image not in images}
    if not images:
        splits = _split(root, [*unlabelled.values()], {"validation": 0.15})
        return replace(listed, training=(), test=(), validation=splits["validation"], unlabeled=splits["training"])
    missing = {split: share for split, share in (("test", 0.3), ("validation", 0.15)) if not labelled[split]}
    drawn = _split(root, labelled["training"] + labelled["unlabeled"], missing)
    splits = {split: tuple(drawn.get(split) or labelled[split]) for split in ("training", "validation", "test")}
    held_out = {case.patient for split in missing for case in splits[split]}
    unlabelled = tuple(case for case in unlabelled.values() if case.patient not in held_out)
    return replace(listed, **splits, unlabeled=unlabelled)


def as_listed(root: Path) -> Datalist:
    """The cases of a person's own folder before any are moved to other splits.

    Raises:
        CourseError: there is no such layout.
    """
    if not root.is_dir():
        raise CourseError(f"{root}: no such folder; give the folder that holds imagesTr and labelsTr with DATA=/path")
    return _named(read(root / "dataset.json", root=root) if (root / "dataset.json").is_file() else _scan(root))


def overlooked(root: Path) -> list[tuple[Path, str, str]]:
    """(path, reason, fix): files in the folders of images and labels that are neither."""
    problems = []
    for folder in (root / name for name in FOLDERS):
        if is_series(folder):
            problems.append((folder, "has loose DICOM slices", "give each series a folder of its own inside it"))
        fix = "convert it to .nii.gz, or move it elsewhere"
        problems += [(path, "has a format that is not supported", fix) for path in strangers(folder)]
    return problems


def leftovers(root: Path, datalist: Datalist) -> list[tuple[Path, str, str]]:
    """(path, reason, fix): volumes that belong to no case of the list, and folders that are no series."""
    listed = {path for case in datalist.all_cases() for path in (case.image, case.label)}
    problems = []
    for folder in (root / name for name in FOLDERS):
        fix = "add it to dataset.json, give it the name of its image, or delete it"
        extra = [path for path in volumes_in(folder) if path not in listed]
        problems += [(path, "belongs to no case of the dataset", fix) for path in extra]
        folders = [p for p in sorted(folder.glob("[!.]*")) if p.is_dir() and not is_series(p)]
        fix = "move the volume in it up into its place, or the folder elsewhere"
        problems += [(path, "is a folder without a DICOM series and is not read", fix) for path in folders]
    return problems


def _split(root: Path, cases: list[Case], shares: dict[str, float]) -> dict[str, tuple[Case, ...]]:
    """Training and the splits named in `shares`, none of them empty."""
    patients = by_patient(cases, seed=0)
    if len(patients) < 1 + len(shares):
        kind = "labelled cases" if cases and cases[0].label else "images"
        why = f"{kind} of {len(patients)} patients are there, {1 + len(shares)} are needed to train and test"
        raise CourseError(
            f"{root}: {why}; add cases to imagesTr and labelsTr (equal names), or name patients in dataset.json"
        )
    sizes = {split: max(1, round(share * len(cases))) for split, share in shares.items()}
    splits = split_by_patient(cases, sizes=sizes, seed=0)
    if not all(splits.values()):  # few patients with many cases each: one patient per split
        splits = {split: tuple(group) for split, group in zip(shares, patients, strict=False)}
        splits["rest"] = tuple(case for group in patients[len(shares) :] for case in group)
    return {"training": splits.pop("rest"), **splits}


def _scan(root: Path) -> Datalist:
    """imagesTr, labelsTr, imagesTs, labelsTs as a Datalist: labelled cases in training and in test."""
    images = {name: volumes_in(root / name) for name in FOLDERS}
    if not images["imagesTr"] + images["imagesTs"]:
        why = "has no dataset.json and no volume in imagesTr"
        raise CourseError(f"{root}: {why}; put images there, labels in labelsTr ({NAMES})")
    content: dict[str, Any] = {"name": root.resolve().name, "description": "found by file name", "unlabeled": []}
    for split, end in (("training", "Tr"), ("test", "Ts")):
        labels, content[split] = _by_stem(images[f"labels{end}"]), []
        for image in images[f"images{end}"]:
            entry = {"image": image.relative_to(root).as_posix()}
            if label := labels.get(stem(image)):
                content[split].append(entry | {"label": label.relative_to(root).as_posix()})
            else:
                content["unlabeled"].append(entry)
    return parse(content, root, root=root)


def _by_stem(labels: list[Path]) -> dict[str, Path]:
    paths: dict[str, Path] = {}
    for path in labels:
        if paths.setdefault(stem(path), path) != path:
            raise CourseError(f"{path}: {paths[stem(path)].name} is a label of the same case; delete one of the two")
    return paths


def _named(datalist: Datalist) -> Datalist:
    """Label and channel names from the files where the list has none. Unreadable files are left to the doctor."""
    cases = datalist.all_cases()
    if not datalist.labels and any(case.label for case in cases):
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
