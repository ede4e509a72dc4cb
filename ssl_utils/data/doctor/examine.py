"""Look at every file before training: what is wrong, where, and how to correct it."""

import hashlib
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ssl_utils.data import datalists, volumes
from ssl_utils.data.cases import SIDES, Case, Datalist
from ssl_utils.data.doctor import cohort
from ssl_utils.data.doctor.findings import Facts, Finding, Report
from ssl_utils.data.formats import names
from ssl_utils.data.volumes import Volume
from ssl_utils.errors import CourseError

Progress = Callable[[int, int], None]
_LABEL_WORDS = {"seg", "dseg", "label", "labels", "mask", "segmentation", "gt", "gtv"}
NOT_READ = "is of a format that is not read"


def examine(paths: Iterable[Path | str], *, channels: int = 1, progress: Progress | None = None) -> Report:
    """Read single files, DICOM series, and every volume in folders, as the course would.

    A file whose folder or name says so (labelsTr, t2_seg.nii.gz) is read as a label, every other as an image with
    `channels` channels. A folder with a dataset.json or imagesTr is examined as a dataset.
    """
    done, alone, files, contents = Report(), Report(), {}, {}
    for path in map(Path, paths):
        if path.is_dir() and ((path / "dataset.json").is_file() or (path / "imagesTr").is_dir()):
            folder = _dataset(path, progress)
            done += folder
            done.cases += folder.cases
        else:
            files |= dict.fromkeys(_files(path, done))
    for number, path in enumerate(files, start=1):
        _file(path, channels, alone, contents)
        if progress:
            progress(number, len(files))
    images = [case for case in alone.cases if case.kind == "image"]
    return Report([*done, *alone, *cohort.compare(images, {})], done.cases + alone.cases)


def examine_datalist(
    datalist: Datalist,
    *,
    roi: Sequence[int] | None = None,
    spacing: Sequence[float] | None = None,
    progress: Progress | None = None,
) -> Report:
    """Everything that can be wrong with a dataset, by reading all of it once.

    Args:
        roi: voxels a training crop has along the RAS axes; None skips the size check.
        spacing: millimetres to which volumes will be resampled; None keeps each file's own.
        progress: called with (cases done, cases).
    """
    leak = "error" if datalist.labels else "warning"  # without labels no result is reported on a side
    done, contents = Report(), {}
    for case, reason, cure in datalists.faults(datalist):
        done.append(Finding(case, leak if reason.startswith("its patient") else "error", reason, cure))
    cases = {case: side for side, members in datalist.sides().items() for case in members}  # each case once
    for number, (case, side) in enumerate(cases.items(), start=1):
        facts, pair = Facts(case.id, side), _case(case, datalist, done)
        for volume, kind in zip(pair, ("image", "label"), strict=True):
            if volume is not None:
                done += _volume(volume, facts, kind, contents)
                done += _size(volume, case.id, roi, spacing) if kind == "image" and roi is not None else ()
        done.cases += [facts] if facts.shape else []
        if progress:
            progress(number, len(cases))
    done += cohort.compare(done.cases, datalist.labels, leak=leak)
    return done


def _dataset(root: Path, progress: Progress | None) -> Report:
    """A folder in MSD layout as it lies: sides as dataset.json has them, nothing dealt."""
    try:
        found = datalists.as_listed(root)
    except CourseError as error:
        return Report([_finding(root, error)])
    done = examine_datalist(found, progress=progress)
    listed = {path for side in SIDES for case in getattr(found, side) for path in (case.image, case.label)}
    cure = "add it to dataset.json, give it the name of its image, or delete it"
    for folder in ("imagesTr", "labelsTr", "imagesTs"):
        extra = [path for path in names.volumes_in(root / folder) if path not in listed]
        done += [Finding(str(path), "warning", "belongs to no case of the dataset", cure) for path in extra]
    done += [Finding(str(path), "error", reason, cure) for path, reason, cure in datalists.overlooked(root)]
    return done


def _files(path: Path, done: Report) -> list[Path]:
    """The volumes that a path stands for."""
    if not path.is_dir():
        return [path]
    inside = names.volumes_in(path, deep=True) + ([path] if names.is_series(path) else [])
    cure = "convert it to .nii.gz, or move it out of the folder"
    done += [Finding(str(other), "error", NOT_READ, cure) for other in names.strangers(path)]
    if not inside:
        done.append(Finding(str(path), "error", "holds no volume", f"name another folder; read are {names.NAMES}"))
    return inside


def _file(path: Path, channels: int, done: Report, contents: dict[str, str]) -> None:
    words = re.split(r"[^a-z]+", names.stem(path).lower())
    is_label = "label" in path.parent.name.lower() or bool(_LABEL_WORDS & {*words})
    read = volumes.read_label if is_label else partial(volumes.read_image, channels=channels)
    volume = _attempt(read, path, done)
    if volume is not None:
        facts = Facts(str(path), kind="label" if is_label else "image")
        done += _volume(volume, facts, facts.kind, contents)
        done.cases.append(facts)


def _case(case: Case, datalist: Datalist, done: Report) -> tuple[Volume | None, Volume | None]:
    """Image and label, where they can be read; a missing file is among the faults of the list already."""
    image = label = None
    if case.image.exists():
        image = _attempt(partial(volumes.read_image, channels=len(datalist.channels)), case.image, done)
    if case.label is not None and case.label.exists():
        label = _attempt(partial(volumes.read_label, values=datalist.labels or None), case.label, done)
    if image is not None and label is not None:
        _attempt(lambda _: volumes.check_pair(image, label), case.label, done)
    return image, label


def _volume(volume: Volume, facts: Facts, kind: str, contents: dict[str, str]) -> Iterator[Finding]:
    """Write down the facts, and what is odd about one volume: alone, or because another has the same voxels."""
    (facts.label if kind == "label" else facts.image)(volume)
    name, array = facts.name, volume.array
    yield from (Finding(name, "warning", *note) for note in volume.notes)
    low, high = array.min(), array.max()
    if low == high:
        what = "its label is empty" if kind == "label" and high == 0 else f"its {kind} is {high:g} everywhere"
        yield Finding(name, "warning", what, "look at the file, and leave it out if that is not meant")
        return
    if min(volume.shape) == 1:
        yield Finding(name, "warning", "is a single slice", "leave it out: the course learns from volumes")
    if kind == "image" and low >= 0 and high <= 20 and (np.rint(array) == array).all():
        reason = "its image holds nothing but whole numbers up to 20, like a label"
        yield Finding(name, "warning", reason, "if it is a label, move it to labelsTr")
    digest = hashlib.blake2b(array.data, digest_size=16)
    digest.update(f"{kind}{array.shape}".encode())
    facts.digest = digest.hexdigest() if kind == "image" else facts.digest
    first = contents.setdefault(digest.hexdigest(), name)
    if first != name:
        reason = f"its {kind} has the same voxels as that of {first}"
        yield Finding(name, "error" if kind == "image" else "warning", reason, "delete one of the two")


def _size(image: Volume, name: str, roi: Sequence[int], spacing: Sequence[float] | None) -> Iterator[Finding]:
    """Does the volume, turned to RAS and resampled, cover a training crop?"""
    order = volumes.axis_order(image)
    voxels = np.array(image.shape)[order]
    if spacing is not None:
        voxels = np.maximum(np.rint(voxels * np.array(image.spacing)[order] / np.array(spacing)), 1).astype(int)
    sizes = f"covers only {'x'.join(map(str, voxels))} voxels of the ROI {'x'.join(map(str, roi))}"
    if (2 * voxels < roi).any():
        yield Finding(name, "error", f"{sizes}, less than half along an axis", "leave it out or choose a smaller ROI")
    elif (4 * voxels < 3 * np.array(roi)).any():  # a thin rim of padding is nothing to worry about
        yield Finding(name, "warning", f"{sizes} and will be padded", "choose a smaller ROI if many cases are")


def _attempt(action: Callable[[Path], Any], path: Path, done: Report) -> Any:
    """The result, or None and a finding."""
    try:
        return action(path)
    except CourseError as error:
        done.append(_finding(path, error))
    except MemoryError:
        done.append(Finding(str(path), "error", "does not fit into memory", "crop or resample it, or close programs"))
    return None


def _finding(path: Path, error: CourseError) -> Finding:
    """One line taken apart: the file (of a series, the slice), the reason, the cure."""
    text = str(error)
    file = next((part for part in (str(path), *map(str, names.parts(path))) if text.startswith(f"{part}: ")), "")
    reason, _, cure = text.removeprefix(f"{file}: ").rpartition("; ")
    return Finding(file or str(path), "error", reason, cure)
