"""Your own volumes: a datalist and a dataset from a folder in MSD layout, without writing code."""

from collections import Counter
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ssl_utils.data import volumes
from ssl_utils.data.cases import Case, Datalist, by_patient, split_by_patient
from ssl_utils.data.dataset import ABDOMEN, Dataset, Grid, Intensity
from ssl_utils.data.formats.names import NAMES, is_series, stem, strangers, volumes_in
from ssl_utils.data.lists.msd import parse, read
from ssl_utils.errors import CourseError

COARSE_EXTENT = 48  # voxels along the longest axis: what a laptop can afford
FOLDERS = ("imagesTr", "labelsTr", "imagesTs", "labelsTs")
SAMPLE = 3  # images whose channels are counted: one of them may be an odd one
PATCH = 16  # the ROI is a multiple of it, so that patches of 8 and 16 both fit


def describe(root: Path, *, name: str) -> Dataset:
    """Read the datalist and the headers of `root`, and choose intensity rule, spacing and ROI from them.

    `name` is used for its runs. CT (by the modality in dataset.json) gets the soft-tissue window; everything else its
    own percentiles. The fine grid has the median spacing; the coarse one is widened until the median volume is 48
    voxels long, but not below 16 voxels along its other axes. Smaller volumes are padded to the ROI. Headers that
    cannot be read are left to the doctor.

    Raises:
        CourseError: no such folder, or nothing usable in it.
    """
    datalist = from_folder(root)
    shapes, spacings = (np.array(values) for values in zip(*_grids(datalist), strict=True))
    extents, spacing = shapes * spacings, np.median(spacings, axis=0)
    typical = np.median(extents, axis=0)
    coarse = np.maximum(spacing, np.minimum(typical.max() / COARSE_EXTENT, typical / PATCH))
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
        grids={"coarse": _grid(extents, coarse, 48), "fine": _grid(extents, spacing, 96)},
        tolerance=float(np.round(spacing.max(), 2)),
        folders=(),
        root=root,
    )


def _grids(datalist: Datalist) -> list[volumes.RasGrid]:
    grids, error = [], None
    for case in datalist.all_cases():
        try:
            grids.append(volumes.ras_grid(case.image))
        except CourseError as first:
            error = error or first
    if not grids:
        raise error
    return grids


def _grid(extents: np.ndarray, spacing: np.ndarray, most: int) -> Grid:
    typical = np.round(np.median(extents, axis=0) / spacing / PATCH)
    largest = np.floor(2 * extents.min(0) / spacing / PATCH)  # no volume may be less than half of the ROI
    roi = np.clip(np.minimum(typical, largest) * PATCH, PATCH, most).astype(int)
    return Grid(tuple(np.round(spacing, 3).tolist()), tuple(roi.tolist()))


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
        raise CourseError(
            f"{root}: no such folder; give the one with imagesTr and labelsTr by DATA=/path or --data /path"
        )
    return _named(_unnamed(root))


def _unnamed(root: Path) -> Datalist:
    return read(root / "dataset.json", root=root) if (root / "dataset.json").is_file() else _scan(root)


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
    left_out = {case.image: case.patient for case in _unnamed(root).all_cases()}
    listed = {path for case in datalist.all_cases() for path in (case.image, case.label)}
    problems = []
    for folder in (root / name for name in FOLDERS):
        for path in (path for path in volumes_in(folder) if path not in listed):
            reason, fix = (
                "belongs to no case of the dataset",
                "name it in dataset.json, name it as its image, or delete it",
            )
            if path in left_out:
                reason = f"is not used: other images of its patient {left_out[path]} are in validation or test"
                fix = "give it a label, or delete it"
            problems.append((path, reason, fix))
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
        count = _most_common_count(cases)
        names = tuple(f"channel {number}" for number in range(count)) if count > 1 else ("image",)
        datalist = replace(datalist, channels=names)
    return datalist


def _most_common_count(cases: list[Case]) -> int:
    """Channels of most of the first images that can be read."""
    counts: Counter[int] = Counter()
    for case in cases:
        with suppress(CourseError):
            counts[volumes.count_channels(case.image)] += 1
        if counts.total() == SAMPLE:
            break
    return max(counts, key=counts.get, default=1)
