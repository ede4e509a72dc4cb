"""A datalist as a folder for other programs, so that they train and test on the very same cases: nnU-Net v2, and the
Medical Segmentation Decathlon (MSD), which MONAI reads too.

Files are links where they have the form that is wanted, else they are written. `split.json` says whose split it is.
"""

import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from ssl_utils.data import volumes
from ssl_utils.data.cache import content
from ssl_utils.data.cases import SIDES, Case, Datalist
from ssl_utils.data.formats.names import NIFTI, suffix
from ssl_utils.data.lists import msd
from ssl_utils.errors import CourseError
from ssl_utils.files import atomic, read_json, write_json

TEST = ("test", "unlabeled")  # in the folders ...Ts


def fingerprint(datalist: Datalist) -> str:
    """A hash of a split: of the ids, patients and file contents of its cases, side by side; not of unlabelled ones."""
    labelled = replace(datalist, unlabeled=()).sides()
    sides = {side: [[case.id, case.patient, content(case)] for case in labelled[side]] for side in SIDES}
    return hashlib.sha256(json.dumps(sides).encode()).hexdigest()[:16]


def check_folder(folder: Path) -> None:
    """Raises CourseError when no new folder can be made there."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise CourseError(f"{folder}: is not empty; choose a new folder, or delete it")
    above = next(parent for parent in folder.absolute().parents if parent.exists())
    if not above.is_dir() or not os.access(above, os.W_OK | os.X_OK):
        why = "is not writable" if above.is_dir() else "is a file"
        raise CourseError(f"{folder}: {above} {why}; choose another folder")


def write_nnunet(datalist: Datalist, folder: Path, *, copy: bool = False) -> Path:
    """Write a folder of nnUNet_raw. Cases of validation are in imagesTr too, and in `splits_final.json`, which belongs
    into the folder of the same name in nnUNet_preprocessed. Unlabelled cases are left out.

    Raises:
        CourseError: `folder` has no name such as Dataset501_Trunk or is not empty, a case has no label, label values
            are not consecutive, or a region has no value of its own.
    """
    if not re.fullmatch(r"Dataset\d{3}_\w+", folder.name):
        raise CourseError(f"{folder}: nnU-Net wants a name such as Dataset501_Trunk; choose another folder")
    datalist = replace(datalist, unlabeled=())
    if bare := next((case for case in datalist.all_cases() if case.label is None), None):
        raise CourseError(f"{bare.id}: has no label; move it to unlabeled, or label it")
    about = _about_nnunet(datalist) | {"numTraining": len(datalist.training) + len(datalist.validation)}
    ids = {side: [case.id for case in datalist.sides()[side]] for side in ("training", "validation")}
    with _new(datalist, folder, copy=copy, endings=(".nii.gz",), numbered=True) as (temporary, _):
        write_json(temporary / "dataset.json", about)
        write_json(temporary / "splits_final.json", [{"train": ids["training"], "val": ids["validation"]}])
    return folder


def write_msd(datalist: Datalist, folder: Path, *, copy: bool = False) -> Path:
    """Write a folder in the layout of the Decathlon, whose `dataset.json` has validation, patients and labels of test
    cases besides. Errors as `atomic`, or when `folder` is not empty."""
    with _new(datalist, folder, copy=copy, endings=NIFTI, numbered=False) as (temporary, placed):
        msd.write(placed, temporary / "dataset.json", root=temporary)
        about = read_json(temporary / "dataset.json")
        channels = {str(number): name for number, name in enumerate(about.pop("channels"))}
        counts = {"numTraining": len(datalist.training), "numTest": len(datalist.test)}
        write_json(temporary / "dataset.json", {**about, "modality": channels, **counts, "tensorImageSize": "3D"})
    return folder


PEERS: dict[str, Callable[..., Path]] = {"nnunet": write_nnunet, "msd": write_msd}


def _about_nnunet(datalist: Datalist) -> dict[str, Any]:
    """dataset.json, but for the number of cases."""
    values = sorted(datalist.names)
    if values != [*range(len(values))] or datalist.ignore not in (None, values[-1]):
        written = ", ".join(map(str, values))
        raise CourseError(f"label values {written}: nnU-Net wants 0, 1, 2 ..., and ignore last; renumber the labels")
    about: dict[str, Any] = {name: getattr(datalist, name) for name in ("name", "description", "licence", "reference")}
    about["channel_names"] = {str(number): name for number, name in enumerate(datalist.channels)}
    about["labels"] = {datalist.names[value]: value for value in values}
    if datalist.regions:
        nested = dict(sorted(datalist.regions.items(), key=lambda region: -len(region[1])))
        ignored = {} if datalist.ignore is None else {"ignore": datalist.ignore}
        about["labels"] = {"background": 0, **{name: list(united) for name, united in nested.items()}, **ignored}
        about["regions_class_order"] = _order(nested)
    return about | {"file_ending": ".nii.gz"}


def _order(nested: Mapping[str, Sequence[int]]) -> list[int]:
    """The value that each region writes, larger regions first: the lowest one that no later region has."""
    order, regions = [], list(nested.items())
    for number, (name, values) in enumerate(regions):
        own = {*values} - {value for _, inner in regions[number + 1 :] for value in inner}
        if not own:
            raise CourseError(f"region {name}: has no value of its own for nnU-Net to write; leave it out of the list")
        order.append(min(own))
    return order


@contextmanager
def _new(
    datalist: Datalist, folder: Path, *, copy: bool, endings: Sequence[str], numbered: bool
) -> Iterator[tuple[Path, Datalist]]:
    """A temporary folder with the files of all cases, which becomes `folder`, and the list of these files.

    `numbered`: also the file of a single channel has its number.
    """
    check_folder(folder)
    with atomic(folder) as temporary:
        sides = {}
        for side, cases in datalist.sides().items():
            part = "Ts" if side in TEST else "Tr"
            sides[side] = tuple(
                _placed(case, temporary, part, datalist, copy=copy, endings=endings, numbered=numbered)
                for case in cases
            )
        about = {"fingerprint": fingerprint(datalist), "dataset": datalist.name, "licence": datalist.licence}
        ids = {side: [case.id for case in cases] for side, cases in sides.items()}
        write_json(temporary / "split.json", about | {"cases": ids})
        yield temporary, replace(datalist, **sides)


def _placed(
    case: Case, folder: Path, part: str, datalist: Datalist, *, copy: bool, endings: Sequence[str], numbered: bool
) -> Case:
    """The case with its files in `imagesTr` and `labelsTr`, or `...Ts`."""
    files = case.image if isinstance(case.image, tuple) else (case.image,)
    wanted = all(suffix(file) in endings for file in files) and (not numbered or len(files) == len(datalist.channels))
    count = len(files) if wanted else len(datalist.channels)
    numbers = [f"_{number:04d}" if numbered or count > 1 else "" for number in range(count)]
    ending = suffix(files[0]) if wanted else ".nii.gz"
    targets = tuple(folder / f"images{part}" / f"{case.id}{number}{ending}" for number in numbers)
    if wanted:
        for file, target in zip(files, targets, strict=True):
            _put(file, target, copy=copy)
    else:
        volume = volumes.read_image(case.image, channels=count)
        for channel, target in zip(volume.array, targets, strict=True):
            volumes.write_nifti(target, channel, volume.affine)
    label = case.label and _label(case, folder / f"labels{part}", copy=copy, endings=endings)
    return replace(case, image=targets if count > 1 else targets[0], label=label)


def _label(case: Case, folder: Path, *, copy: bool, endings: Sequence[str]) -> Path:
    if suffix(case.label) in endings:
        target = folder / f"{case.id}{suffix(case.label)}"
        _put(case.label, target, copy=copy)
    else:
        target, volume = folder / f"{case.id}.nii.gz", volumes.read_label(case.label)
        volumes.write_nifti(target, volume.array[0], volume.affine)
    return target


def _put(file: Path, target: Path, *, copy: bool) -> None:
    if not os.access(file, os.R_OK):  # `atomic` would say that the target cannot be written
        raise CourseError(f"{file}: cannot be read; check its name and permissions, or leave the case out")
    target.parent.mkdir(parents=True, exist_ok=True)
    if copy:
        shutil.copyfile(file, target)
    else:
        os.symlink(file.resolve(), target)
