"""Examine every file before training: what is wrong, in which file, and how to correct it."""

import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ssl_utils.data import datalists, datasets, marks, volumes
from ssl_utils.data.cases import Case, Datalist
from ssl_utils.data.dataset import FILLED, PERCENTILES, Dataset, Grid, Intensity
from ssl_utils.data.doctor import cohort, fingerprints
from ssl_utils.data.doctor.findings import Facts, Finding, Report
from ssl_utils.data.formats import names
from ssl_utils.data.formats.stored import shape_text
from ssl_utils.data.volumes import Volume, reorient
from ssl_utils.errors import CourseError

Progress = Callable[[int, int], None]


def examine(
    paths: Iterable[Path | str], *, channels: int = 1, grid: str = "coarse", progress: Progress | None = None
) -> Report:
    """Read single files, DICOM series, and every volume in folders, as the course would, each of them once.

    A file whose folder or name marks a label (labelsTr, t2_seg.nii.gz) is read as one, every other as an image with
    `channels` channels. A folder in a layout of datasets is examined as `examine_folder` does.
    """
    report, single, files, contents = Report(), Report(), {}, {}
    for path in map(Path, paths):
        if datalists.has_layout(path):
            report.join(examine_folder(path, grid=grid, progress=progress))
        else:
            for file in _files(path, report):
                files.setdefault(os.path.realpath(file), file)
    for number, path in enumerate(files.values(), start=1):
        _file(path, channels, single, contents)
        if progress:
            progress(number, len(files))
    images = [case for case in single.cases if case.kind == "image"]
    single += cohort.compare(images, {})
    report.join(single)
    return report


def examine_folder(root: Path, *, grid: str = "coarse", progress: Progress | None = None) -> Report:
    """A person's own folder in MSD layout, as training would use it; where it cannot be split, its list as it is."""
    try:
        dataset = datasets.get("folder", root)
        datalist = datasets.datalist(dataset)
    except CourseError as error:
        report = Report([_finding(root, error)])
        with suppress(CourseError):  # the same error
            listed = datalists.as_listed(root)
            report.join(examine_datalist(listed, progress=progress))
            report += _unread(root, listed)
        return report
    return examine_dataset(dataset, datalist, grid=dataset.grids[grid], progress=progress)


def examine_dataset(dataset: Dataset, datalist: Datalist, *, grid: Grid, progress: Progress | None = None) -> Report:
    """The cases of `datalist`, by the rules of their dataset, and what is in a person's own folder besides them.

    The doctor and the check before training both call it, so that they find the same.
    """
    roi, spacing = grid.required_roi, grid.spacing
    report = examine_datalist(datalist, roi=roi, spacing=spacing, rule=dataset.intensity, progress=progress)
    if dataset.is_folder:
        report += _unread(dataset.root, datasets.datalist(dataset))
    return report


def examine_datalist(
    datalist: Datalist,
    *,
    roi: Sequence[int] | None = None,
    spacing: Sequence[float] | None = None,
    rule: Intensity = PERCENTILES,
    progress: Progress | None = None,
) -> Report:
    """Everything that can be wrong with a list and its files, by reading all of them once.

    Args:
        roi: size of a training crop in voxels along the RAS axes; None skips the size check.
        spacing: millimetres to which volumes will be resampled; None keeps each file's own.
        rule: how intensities become 0 to 1.
        progress: called with (cases done, cases).
    """
    report, contents = Report(), {}
    report.labels, report.patients = dict(datalist.labels), datalists.grouped(datalist)
    report += (Finding(case, "error", reason, fix) for case, reason, fix in datalists.faults(datalist))
    cases = {case: split for split, members in datalist.sides().items() for case in members}  # each case once
    for number, (case, split) in enumerate(cases.items(), start=1):
        facts, pair = Facts(case.id, split, ignore=datalist.ignore), _case(case, datalist, report)
        report += _predicted(case, split)
        for volume, kind in zip(pair, ("image", "label"), strict=True):
            if volume is not None:
                look = partial(_volume, volume, facts, kind, contents, rule)
                report += _attempt(lambda _, look=look: [*look()], volume.path, report) or []
                report += _size(volume, case.id, roi, spacing) if kind == "image" and roi is not None else ()
        report.cases += [facts] if facts.shape else []
        if progress:
            progress(number, len(cases))
    report += cohort.compare(report.cases, datalist.labels, channels=datalist.channels)
    return report


def _unread(root: Path, datalist: Datalist) -> list[Finding]:
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


def _file(path: Path, channels: int, report: Report, contents: dict) -> None:
    in_labels = re.fullmatch("labels?(tr|ts|va)?", path.parent.name.lower())  # not unlabeled
    kind = "label" if in_labels or names.says_label(path) else "image"
    read = volumes.read_label if kind == "label" else partial(volumes.read_image, channels=channels)
    volume = _attempt(read, path, report)
    if volume is not None:
        facts = Facts(str(path), kind=kind)
        report += _attempt(lambda _: [*_volume(volume, facts, kind, contents, PERCENTILES)], path, report) or []
        report.cases.append(facts)


def _case(case: Case, datalist: Datalist, report: Report) -> tuple[Volume | None, Volume | None]:
    """Image and label, where they can be read; a missing file is reported with the errors of the list."""
    image = label = None
    if all(path.exists() for kind, path in case.files if kind == "image"):
        image = _attempt(partial(volumes.read_image, channels=len(datalist.channels)), case.image, report)
    if case.label is not None and case.label.exists():
        label = _attempt(partial(volumes.read_label, values=datalist.names or None), case.label, report)
    if image is not None and label is not None:
        _attempt(lambda _: volumes.check_pair(image, label), case.label, report)
    return image, label


def _predicted(case: Case, split: str) -> Iterator[Finding]:
    """A label that a network has made: training on it is a choice, a score against it is none."""
    if case.label and case.label.is_file() and marks.is_predicted(case.label):
        severity = "warning" if split == "training" else "error"
        fix = "give it a label by an expert, or leave its label out"
        yield Finding(case.id, severity, f"its label was written by predict, and it is in {split}", fix)


def _volume(volume: Volume, facts: Facts, kind: str, contents: dict, rule: Intensity) -> Iterator[Finding]:
    """Record the facts of a volume, and report what is odd about it or whether another has the same voxels."""
    name, upright = facts.name, reorient(volume)
    if kind == "image":
        facts.image(volume, upright, rule)
    else:
        facts.label(volume)
    yield from (Finding(name, "warning", *note) for note in volume.notes)
    if min(volume.shape) == 1:
        yield Finding(name, "warning", "is a single slice", "leave it out: networks here need volumes")
    for number, channel in enumerate(volume.array):
        of = f"channel {number} of its {kind}" if len(volume.array) > 1 else f"its {kind}"
        yield from (Finding(name, "warning", *oddity) for oddity in _channel(channel, kind, of))
    yield from _copies(upright, facts, kind, contents)


def _channel(channel: np.ndarray, kind: str, of: str) -> Iterator[tuple[str, str]]:
    """One value everywhere; an image that looks like a label."""
    low, high = channel.min(), channel.max()
    if low == high:
        what = f"{of} is empty" if kind == "label" and high == 0 else f"{of} is {high:g} everywhere"
        yield what, "look at the file, and leave it out if that is not meant"
    elif kind == "image" and low >= 0 and high <= 20 and (np.rint(channel) == channel).all():
        yield f"{of} has only whole numbers up to 20, like a label", "if it is a label, put its image in its place"


def _copies(upright: Volume, facts: Facts, kind: str, contents: dict[str, Facts]) -> Iterator[Finding]:
    """Another volume with the same voxels, or the same in a channel. Copies of an image within one split waste it and
    spoil no result."""
    several = range(len(upright.array)) if len(upright.array) > 1 else ()
    parts = {f"channel {n} of its {kind}": upright.array[n : n + 1] for n in several}
    for what, array in ({f"its {kind}": upright.array} | parts).items():
        if array.min() == array.max():
            continue
        first = contents.setdefault(fingerprints.digest(replace(upright, array=array)), facts)
        if first is not facts:
            severity = "error" if kind == "image" and cohort.apart(first, facts) else "warning"
            fix = "delete one of the two" if kind == "image" else "give each image a label of its own"
            yield Finding(facts.name, severity, f"{what} has the same voxels as that of {first.name}", fix)
            return


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
    """The result; after an error None, and a finding in the report: no file ends the examination of the others."""
    try:
        return action(path)
    except CourseError as error:
        report.append(_finding(path, error))
    except MemoryError:
        report.append(Finding(str(path), "error", "does not fit into memory", "crop or resample it, or close programs"))
    except Exception as error:
        what = " ".join(f"cannot be examined ({type(error).__name__}: {error})".split())
        report.append(Finding(str(path), "error", what, "export it again, or leave it out"))
    return None


def _finding(path: Path, error: CourseError) -> Finding:
    """The parts of an error's line: the file (of a series, the slice), the reason, the fix."""
    text, parts = str(error), []
    with suppress(OSError):
        parts = names.parts(path)
    lines = {" ".join(str(part).split()): str(part) for part in (path, *parts)}  # as errors write them
    start = next((line for line in lines if text.startswith(f"{line}: ")), "")
    reason, _, fix = text.removeprefix(f"{start}: ").rpartition("; ")
    return Finding(lines.get(start, str(path)), "error", reason, fix)
