"""Examine every file before training: what is wrong, in which file, and how to correct it."""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ssl_utils.data import datalists, volumes
from ssl_utils.data.cases import Case, Datalist
from ssl_utils.data.dataset import FILLED
from ssl_utils.data.doctor import cohort
from ssl_utils.data.doctor.findings import Facts, Finding, Report
from ssl_utils.data.formats import names
from ssl_utils.data.formats.stored import shape_text
from ssl_utils.data.volumes import Volume
from ssl_utils.errors import CourseError

Progress = Callable[[int, int], None]


def examine(paths: Iterable[Path | str], *, channels: int = 1, progress: Progress | None = None) -> Report:
    """Read single files, DICOM series, and every volume in folders, as the course would.

    A file whose folder or name marks a label (labelsTr, t2_seg.nii.gz) is read as one, every other as an image with
    `channels` channels. A folder with a dataset.json, imagesTr or sub-*/anat (BIDS) is examined as a dataset.
    """
    report, single, files, contents = Report(), Report(), {}, {}
    for path in map(Path, paths):
        if datalists.has_layout(path):
            dataset = _dataset(path, progress)
            report += dataset
            report.cases += dataset.cases
        else:
            files |= dict.fromkeys(_files(path, report))
    for number, path in enumerate(files, start=1):
        _file(path, channels, single, contents)
        if progress:
            progress(number, len(files))
    images = [case for case in single.cases if case.kind == "image"]
    return Report([*report, *single, *cohort.compare(images, {})], report.cases + single.cases)


def examine_datalist(
    datalist: Datalist,
    *,
    roi: Sequence[int] | None = None,
    spacing: Sequence[float] | None = None,
    progress: Progress | None = None,
) -> Report:
    """Everything that can be wrong with a dataset, by reading all of it once.

    Args:
        roi: size of a training crop in voxels along the RAS axes; None skips the size check.
        spacing: millimetres to which volumes will be resampled; None keeps each file's own.
        progress: called with (cases done, cases).
    """
    leak = "error" if datalist.labels else "warning"  # without labels no result is reported on a split
    report, contents = Report(), {}
    for case, reason, fix in datalists.faults(datalist):
        report.append(Finding(case, leak if reason.startswith("its patient") else "error", reason, fix))
    cases = {case: split for split, members in datalist.sides().items() for case in members}  # each case once
    for number, (case, split) in enumerate(cases.items(), start=1):
        facts, pair = Facts(case.id, split), _case(case, datalist, report)
        for volume, kind in zip(pair, ("image", "label"), strict=True):
            if volume is not None:
                report += _volume(volume, facts, kind, contents)
                report += _size(volume, case.id, roi, spacing) if kind == "image" and roi is not None else ()
        report.cases += [facts] if facts.shape else []
        if progress:
            progress(number, len(cases))
    report += cohort.compare(report.cases, datalist.labels, leak=leak, channels=datalist.channels)
    return report


def _dataset(root: Path, progress: Progress | None) -> Report:
    """A folder in MSD layout as it is: the splits of its dataset.json, none added."""
    try:
        datalist = datalists.as_listed(root)
    except CourseError as error:
        return Report([_finding(root, error)])
    report = examine_datalist(datalist, progress=progress)
    return Report([*report, *unread(root, datalist)], report.cases)


def unread(root: Path, datalist: Datalist) -> list[Finding]:
    """What is in a person's own folder and in no case of its list."""
    left = [Finding(str(path), "warning", reason, fix) for path, reason, fix in datalists.leftovers(root, datalist)]
    odd = [Finding(str(path), "error", reason, fix) for path, reason, fix in datalists.overlooked(root)]
    return left + odd


def _files(path: Path, report: Report) -> list[Path]:
    """The file itself, or the volumes in a folder."""
    if not path.is_dir():
        return [path]
    inside = names.volumes_in(path, deep=True) + ([path] if names.is_series(path) else [])
    for other in names.strangers(path):
        fix = "convert it to .nii.gz, or move it out of the folder"
        report.append(Finding(str(other), "error", "has a format that is not supported", fix))
    if not inside:
        fix = f"name another folder; supported are {names.NAMES}"
        report.append(Finding(str(path), "error", "contains no volume", fix))
    return inside


def _file(path: Path, channels: int, report: Report, contents: dict[str, str]) -> None:
    is_label = "label" in path.parent.name.lower() or names.says_label(path)
    read = volumes.read_label if is_label else partial(volumes.read_image, channels=channels)
    volume = _attempt(read, path, report)
    if volume is not None:
        facts = Facts(str(path), kind="label" if is_label else "image")
        report += _volume(volume, facts, facts.kind, contents)
        report.cases.append(facts)


def _case(case: Case, datalist: Datalist, report: Report) -> tuple[Volume | None, Volume | None]:
    """Image and label, where they can be read; a missing file is reported with the errors of the list."""
    image = label = None
    if all(path.exists() for kind, path in case.files if kind == "image"):
        image = _attempt(partial(volumes.read_image, channels=len(datalist.channels)), case.image, report)
    if case.label is not None and case.label.exists():
        label = _attempt(partial(volumes.read_label, values=datalist.labels or None), case.label, report)
    if image is not None and label is not None:
        _attempt(lambda _: volumes.check_pair(image, label), case.label, report)
    return image, label


def _volume(volume: Volume, facts: Facts, kind: str, contents: dict[str, str]) -> Iterator[Finding]:
    """Record the facts of a volume, and report what is odd about it or whether another has the same voxels."""
    (facts.label if kind == "label" else facts.image)(volume)
    name, array = facts.name, volume.array
    yield from (Finding(name, "warning", *note) for note in volume.notes)
    low, high = array.min(), array.max()
    if low == high:
        what = "its label is empty" if kind == "label" and high == 0 else f"its {kind} is {high:g} everywhere"
        yield Finding(name, "warning", what, "look at the file, and leave it out if that is not meant")
        return
    if min(volume.shape) == 1:
        yield Finding(name, "warning", "is a single slice", "leave it out: networks here need volumes")
    if kind == "image" and low >= 0 and high <= 20 and (np.rint(array) == array).all():
        reason = "its image has only whole numbers up to 20, like a label"
        yield Finding(name, "warning", reason, "if it is a label, move it to labelsTr")
    digest = hashlib.blake2b(array.data, digest_size=16)
    digest.update(f"{kind}{array.shape}".encode())
    facts.digest = digest.hexdigest() if kind == "image" else facts.digest
    first = contents.setdefault(digest.hexdigest(), name)
    if first != name:
        reason = f"its {kind} has the same voxels as that of {first}"
        yield Finding(name, "error" if kind == "image" else "warning", reason, "delete one of the two")


def _size(image: Volume, name: str, roi: Sequence[int], spacing: Sequence[float] | None) -> Iterator[Finding]:
    """Whether the volume, reoriented to RAS and resampled, covers a training crop."""
    voxels, own_spacing = map(np.array, image.ras_grid)
    if spacing is not None:
        voxels = np.maximum(np.rint(voxels * own_spacing / np.array(spacing)), 1).astype(int)
    sizes = f"covers only {shape_text(voxels)} voxels of the ROI {shape_text(roi)}"
    if (voxels < FILLED * np.array(roi)).any():
        fix = "leave it out, or choose a smaller ROI (--roi)"
        yield Finding(name, "error", f"{sizes}, less than a quarter along an axis", fix)
    elif (4 * voxels < 3 * np.array(roi)).any():  # a thin rim of padding does no harm
        yield Finding(name, "warning", f"{sizes} and will be padded", "choose a smaller ROI (--roi) if many cases are")


def _attempt(action: Callable[[Path], Any], path: Path, report: Report) -> Any:
    """The result; after an error None, and a finding in the report."""
    try:
        return action(path)
    except CourseError as error:
        report.append(_finding(path, error))
    except MemoryError:
        report.append(Finding(str(path), "error", "does not fit into memory", "crop or resample it, or close programs"))
    return None


def _finding(path: Path, error: CourseError) -> Finding:
    """The parts of an error's line: the file (of a series, the slice), the reason, the fix."""
    text = str(error)
    file = next((part for part in (str(path), *map(str, names.parts(path))) if text.startswith(f"{part}: ")), "")
    reason, _, fix = text.removeprefix(f"{file}: ").rpartition("; ")
    return Finding(file or str(path), "error", reason, fix)
