"""Your own volumes: a datalist from a folder, without writing code."""

import functools
import os
from collections import Counter
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from ssl_utils.data import volumes
from ssl_utils.data.cases import Case, Datalist, by_patient, split_by_patient
from ssl_utils.data.formats.names import is_series, state, strangers, volumes_in
from ssl_utils.data.lists import keys, layouts
from ssl_utils.data.lists.msd import parse
from ssl_utils.errors import CourseError
from ssl_utils.files import read_json

SAMPLE = 3  # images whose channels are counted: one of them may be an odd one


def from_folder(root: Path | str) -> Datalist:
    """A person's own folder: a dataset.json, or one of the layouts of `layouts`.

    Labelled validation and test cases of a dataset.json, or of labelsTs, stay in their split. Missing splits are drawn
    from the training cases by patient, always the same ones: about 30 % test, 15 % validation, at least one patient
    each. Images without a label become unlabeled; those of patients drawn for test and validation are left out. Without
    any label the validation images of a dataset.json stay in their split; where it has none, 15 % of the images are
    held out. Without a dataset.json the label files are read once, to learn which values occur.

    Raises:
        CourseError: no such layout, a file that cannot be read, or labelled cases of fewer than three patients.
    """
    root = Path(root)
    listed = as_listed(root)
    labelled = {split: [case for case in cases if case.label] for split, cases in listed.sides().items()}
    images = {case.image for cases in labelled.values() for case in cases}
    unlabelled = {case.image: case for case in listed.all_cases() if case.image not in images}
    if not images:
        held_out = {case.image for case in listed.validation}
        pool = [case for case in unlabelled.values() if case.image not in held_out]
        splits = {"validation": listed.validation} | _split(root, pool, {} if held_out else {"validation": 0.15})
        return replace(listed, training=(), test=(), validation=splits["validation"], unlabeled=splits["training"])
    missing = {split: share for split, share in (("test", 0.3), ("validation", 0.15)) if not labelled[split]}
    drawn = _split(root, labelled["training"] + labelled["unlabeled"], missing)
    splits = {split: tuple(drawn.get(split) or labelled[split]) for split in ("training", "validation", "test")}
    held_out = {case.patient for split in missing for case in splits[split]}
    unlabelled = tuple(case for case in unlabelled.values() if case.patient not in held_out)
    return replace(listed, **splits, unlabeled=unlabelled)


def as_listed(root: Path) -> Datalist:
    """The cases of a person's own folder before any are moved to other splits: by its dataset.json, or its layout.

    Raises:
        CourseError: there is no such layout, or it is faulty.
    """
    if not root.is_dir():
        fix = "give the one with imagesTr and labelsTr by DATA=/path or --data /path"
        raise CourseError(f"{root}: no such folder; {fix}")
    return _named(_cases(root))


def _cases(root: Path) -> Datalist:
    """`as_listed` without the names of labels and channels that only the files know."""
    path = root / "dataset.json"
    content = layouts.with_cases(read_json(path) if path.is_file() else {}, root)
    listed = parse(content, path if path.is_file() else root, root=root)
    if any(case.label for case in listed.test):
        return listed
    return replace(listed, test=(), unlabeled=listed.unlabeled + listed.test)  # as in the Decathlon


def overlooked(root: Path) -> list[tuple[Path, str, str]]:
    """(path, reason, fix): files in the folders of images and labels that are neither."""
    problems = []
    folders = [root / name for name in layouts.FOLDERS] if layouts.has_layout(root) else [root]
    for folder in folders:
        if is_series(folder):
            problems.append((folder, "has loose DICOM slices", "give each series a folder of its own inside it"))
        fix = "convert it to .nii.gz, or move it elsewhere"
        problems += [(path, "has a format that is not supported", fix) for path in strangers(folder)]
    return problems


def leftovers(root: Path, datalist: Datalist) -> list[tuple[Path, str, str]]:
    """(path, reason, fix): folders of images that are no series, volumes anywhere in the folder that belong to no case
    or are left out, lists that are not read, and numbers of cases that are not those of the list."""
    inside = [path for name in layouts.FOLDERS for path in sorted((root / name).glob("[!.]*")) if path.is_dir()]
    odd = [path for path in inside if not is_series(path)]
    fix = "move the volume in it up into its place, or the folder elsewhere"
    problems = [(path, "is a folder without a DICOM series and is not read", fix) for path in odd]
    listed = {os.path.realpath(path) for case in datalist.all_cases() for _, path in case.files}
    left_out = {os.path.realpath(path): case.patient for case in _cases(root).all_cases() for _, path in case.files}
    for path in volumes_in(root, deep=True):
        if os.path.realpath(path) in listed or {*path.parents} & {*odd}:
            continue
        reason, fix = (
            "belongs to no case of the dataset",
            "to use it, put it into imagesTr or labelsTr under the name of its case, or list it in dataset.json",
        )
        if patient := left_out.get(os.path.realpath(path)):
            reason = f"is not used: other images of its patient {patient} are in validation or test"
            fix = "give it a label, or delete it"
        problems.append((path, reason, fix))
    return problems + _lists(root)


def _lists(root: Path) -> list[tuple[Path, str, str]]:
    """Lists of another name, and numbers in dataset.json that are not those of its cases."""
    problems = []
    for path in sorted(root.glob("[!.]*.json")):
        content: Any = {}
        with suppress(CourseError):  # not JSON
            content = read_json(path)
        if not isinstance(content, dict) or not isinstance(content.get("training"), list):
            continue
        if path.name != "dataset.json":
            problems.append((path, "is a list and is not read", "rename it to dataset.json, or move it elsewhere"))
        elif content["training"]:
            counts = {split: len(cases) for split, cases in content.items() if isinstance(cases, list)}
            reasons = keys.miscounted(content, {"test": counts.get("testing", 0)} | counts)
            problems += [(path, reason, "complete the list, or correct the number") for reason in reasons]
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


def _named(datalist: Datalist) -> Datalist:
    """Label and channel names from the files where the list has none. Unreadable files are left to the doctor."""
    cases = datalist.all_cases()
    if not datalist.labels and any(case.label for case in cases):
        values = {0}
        for label in (case.label for case in cases if case.label is not None):
            values.update(_values_in(label, state(label)))
        names = {value: f"label {value}" if value else "background" for value in sorted(values)}
        datalist = replace(datalist, labels=names)
    if datalist.channels == ("image",):
        count = _most_common_count(cases)
        names = tuple(f"channel {number}" for number in range(count)) if count > 1 else ("image",)
        datalist = replace(datalist, channels=names)
    return datalist


@functools.cache
def _values_in(label: Path, state: tuple) -> list[int]:
    """Cached, since the list is made several times, and to read all labels takes minutes."""
    with suppress(CourseError):
        return volumes.present_values(volumes.read_label(label).array)
    return []


def _most_common_count(cases: list[Case]) -> int:
    """Channels of most of the first images that can be read."""
    counts: Counter[int] = Counter()
    for case in cases:
        with suppress(CourseError):
            counts[volumes.count_channels(case.image)] += 1
        if counts.total() == SAMPLE:
            break
    return max(counts, key=counts.get, default=1)
