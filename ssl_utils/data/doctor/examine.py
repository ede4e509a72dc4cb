"""Look at every file before training: what is wrong, where, and how to mend it."""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ssl_utils.data import datalists, volumes
from ssl_utils.data.cases import SIDES
from ssl_utils.data.datalists import Case, Datalist, faults
from ssl_utils.data.doctor import cohort
from ssl_utils.data.doctor.casebook import Facts
from ssl_utils.data.doctor.checkup import plain, same_content, size
from ssl_utils.data.doctor.findings import Finding, summary
from ssl_utils.data.formats import names
from ssl_utils.errors import CourseError

__all__ = ["Finding", "Report", "examine", "examine_datalist", "report", "report_datalist", "summary", "table"]

Progress = Callable[[int, int], None]
_LABEL_WORDS = {"seg", "dseg", "label", "labels", "mask", "segmentation", "gt", "gtv"}


@dataclass
class Report:
    """What is wrong, and what was seen of each case."""

    findings: list[Finding] = field(default_factory=list)
    cases: list[Facts] = field(default_factory=list)

    @property
    def errors(self) -> int:
        return sum(finding.severity == "error" for finding in self.findings)

    def record(self) -> dict[str, Any]:
        """For the JSON."""
        return {
            "errors": self.errors,
            "warnings": len(self.findings) - self.errors,
            "findings": [vars(finding) for finding in self.findings],
            "cases": [case.record() for case in self.cases],
        }


def examine(paths: Iterable[Path | str], *, channels: int = 1) -> list[Finding]:
    """The findings of `report`."""
    return report(paths, channels=channels).findings


def report(paths: Iterable[Path | str], *, channels: int = 1, progress: Progress | None = None) -> Report:
    """Read single files, DICOM series, and every volume in folders, as the course would.

    A file whose folder or name says so (labelsTr, t2_seg.nii.gz) is read as a label, every other as an image with
    `channels` channels. A folder with a dataset.json or imagesTr is examined as a dataset.
    """
    done, files = Report(), []
    for path in map(Path, paths):
        listed = path.is_dir() and ((path / "dataset.json").is_file() or (path / "imagesTr").is_dir())
        if listed:
            _add(done, _dataset(path, progress))
        else:
            files += _files(path, done.findings)
    alone = Report()
    contents: dict[str, str] = {}
    for number, path in enumerate(dict.fromkeys(files), start=1):
        _examine_file(path, channels, alone, contents)
        if progress:
            progress(number, len(files))
    alone.findings += cohort.compare([case for case in alone.cases if case.kind == "image"], {})
    _add(done, alone)
    return done


def examine_datalist(
    datalist: Datalist,
    *,
    roi: Sequence[int] | None = None,
    spacing: Sequence[float] | None = None,
    progress: Progress | None = None,
) -> list[Finding]:
    """The findings of `report_datalist`."""
    return report_datalist(datalist, roi=roi, spacing=spacing, progress=progress).findings


def report_datalist(
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
    done = Report(
        [
            Finding(case, leak if reason.startswith("its patient") else "error", reason, cure)
            for case, reason, cure in faults(datalist)
        ]
    )
    contents: dict[str, str] = {}
    cases = {case: side for side, members in datalist.sides().items() for case in members}  # each case once
    for number, (case, side) in enumerate(cases.items(), start=1):
        _examine_case(case, side, datalist, done, contents, roi, spacing)
        if progress:
            progress(number, len(cases))
    done.findings += cohort.compare(done.cases, datalist.labels, leak=leak)
    return done


def table(datalist: Datalist) -> list[dict[str, Any]]:
    """One row per case: side, shape, spacing (mm), orientation, min, max, dtype, label voxels (None without a label).

    Raises:
        CourseError: a file cannot be read; `examine_datalist` names all such files.
    """
    rows = []
    for side, cases in datalist.sides().items():
        for case in cases:
            image = volumes.read_image(case.image, channels=len(datalist.channels))
            label = None if case.label is None else volumes.read_label(case.label)
            rows.append(
                {
                    "case": case.id,
                    "side": side,
                    "shape": image.shape,
                    "spacing": tuple(round(size, 3) for size in image.spacing),
                    "orientation": image.orientation,
                    "min": float(image.array.min()),
                    "max": float(image.array.max()),
                    "dtype": image.stored,
                    "label voxels": None if label is None else int(np.count_nonzero(label.array)),
                }
            )
    return rows


def _dataset(root: Path, progress: Progress | None) -> Report:
    """A folder in MSD layout as it lies: sides as dataset.json has them, nothing dealt."""
    try:
        found = datalists.as_listed(root)
    except CourseError as error:
        return Report([_finding(root, error)])
    done = report_datalist(found, progress=progress)
    listed = {path for side in SIDES for case in getattr(found, side) for path in (case.image, case.label)}
    for folder in ("imagesTr", "labelsTr", "imagesTs"):
        extra = [path for path in names.volumes_in(root / folder) if path not in listed]
        cure = "add it to dataset.json, give it the name of its image, or delete it"
        done.findings += [Finding(str(path), "warning", "belongs to no case of the dataset", cure) for path in extra]
    done.findings += [Finding(str(path), "error", reason, cure) for path, reason, cure in datalists.overlooked(root)]
    return done


def _files(path: Path, found: list[Finding]) -> list[Path]:
    """The volumes that a path stands for."""
    if not path.is_dir():
        return [path]
    inside = names.volumes_in(path, deep=True) + ([path] if names.is_series(path) else [])
    found += _strangers(path)
    if not inside:
        found.append(Finding(str(path), "error", "holds no volume", f"name another folder; read are {names.NAMES}"))
    return inside


def _strangers(folder: Path) -> list[Finding]:
    cure = "convert it to .nii.gz, or move it out of the folder"
    return [Finding(str(path), "error", "is of a format that is not read", cure) for path in names.strangers(folder)]


def _examine_file(path: Path, channels: int, done: Report, contents: dict[str, str]) -> None:
    words = re.split(r"[^a-z]+", names.stem(path).lower())
    says_label = "label" in path.parent.name.lower() or any(word in _LABEL_WORDS for word in words)
    if says_label:
        volume = _attempt(volumes.read_label, path, done.findings)
    else:
        volume = _attempt(lambda path: volumes.read_image(path, channels=channels), path, done.findings)
    if volume is None:
        return
    facts = Facts(str(path), kind="label" if says_label else "image")
    facts.label(volume) if says_label else facts.image(volume)
    done.findings += plain(volume, str(path), facts.kind) + same_content(volume, facts, facts.kind, contents)
    done.cases.append(facts)


def _examine_case(
    case: Case,
    side: str,
    datalist: Datalist,
    done: Report,
    contents: dict[str, str],
    roi: Sequence[int] | None,
    spacing: Sequence[float] | None,
) -> None:
    found, facts = done.findings, Facts(case.id, side)
    image = label = None
    if case.image.exists():  # a missing one is among the faults already
        image = _attempt(lambda path: volumes.read_image(path, channels=len(datalist.channels)), case.image, found)
    if case.label is not None and case.label.exists():
        label = _attempt(lambda path: volumes.read_label(path, values=datalist.labels or None), case.label, found)
    if image is not None and label is not None:
        _attempt(lambda _: volumes.check_pair(image, label), case.label, found)
    if image is not None:
        facts.image(image)
        found += plain(image, case.id, "image") + same_content(image, facts, "image", contents)
        found += size(image, case.id, roi, spacing) if roi is not None else []
    if label is not None:
        facts.label(label)
        found += plain(label, case.id, "label") + same_content(label, facts, "label", contents)
    if image is not None or label is not None:
        done.cases.append(facts)


def _add(done: Report, more: Report) -> None:
    done.findings += more.findings
    done.cases += more.cases


def _attempt(action: Callable[[Path], Any], path: Path, found: list[Finding]) -> Any:
    """The result, or None and a finding."""
    try:
        return action(path)
    except CourseError as error:
        found.append(_finding(path, error))
    except MemoryError:
        found.append(Finding(str(path), "error", "does not fit into memory", "crop or resample it, or close programs"))
    return None


def _finding(path: Path, error: CourseError) -> Finding:
    """One line taken apart: the file (of a series, the slice), the reason, the cure."""
    text = str(error)
    file = next((part for part in (str(path), *map(str, names.parts(path))) if text.startswith(f"{part}: ")), "")
    reason, _, cure = text.removeprefix(f"{file}: ").rpartition("; ")
    return Finding(file or str(path), "error", reason, cure)
