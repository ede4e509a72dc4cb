"""Look at every file before training: what is wrong, where, and how to mend it."""

import hashlib
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ssl_utils.data import volumes
from ssl_utils.data.datalists import Case, Datalist, faults
from ssl_utils.data.nifti import niftis
from ssl_utils.data.volumes import Volume
from ssl_utils.errors import CourseError


@dataclass(frozen=True)
class Finding:
    """One thing the doctor found. An error stops a run; a warning is to be looked at."""

    file: str
    severity: str
    reason: str
    cure: str

    def line(self) -> str:
        return f"{self.file}: {self.reason}; {self.cure}"


def examine(paths: Iterable[Path | str], *, channels: int = 1) -> list[Finding]:
    """Read single files, and every .nii and .nii.gz in folders, as the course would.

    A file in a folder named like labelsTr is read as a label, every other as an image with `channels` channels.
    """
    found: list[Finding] = []
    files: dict[Path, None] = {}
    for path in map(Path, paths):
        inside = niftis(path, deep=True) if path.is_dir() else [path]
        files.update(dict.fromkeys(inside))
        if not inside:
            found.append(Finding(str(path), "error", "holds no .nii or .nii.gz file", "name another folder"))
    contents: dict[str, str] = {}
    for path in files:
        kind = "label" if "label" in path.parent.name.lower() else "image"
        read = volumes.read_label if kind == "label" else lambda path: volumes.read_image(path, channels=channels)
        volume = _attempt(read, path, found)
        if volume is not None:
            found += _plain(volume, str(path), kind) + _same_content(volume, str(path), kind, contents)
    return found


def examine_datalist(
    datalist: Datalist,
    *,
    roi: Sequence[int] | None = None,
    spacing: Sequence[float] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> list[Finding]:
    """Everything that can be wrong with a dataset, by reading all of it once.

    Args:
        roi: voxels a training crop has along the RAS axes; None skips the size check.
        spacing: millimetres to which volumes will be resampled; None keeps each file's own.
        progress: called with (cases done, cases).
    """
    leak = "error" if datalist.labels else "warning"  # without labels no result is reported on a side
    found = [
        Finding(case, leak if reason.startswith("its patient") else "error", reason, cure)
        for case, reason, cure in faults(datalist)
    ]
    contents: dict[str, str] = {}
    cases = {case: None for side in datalist.sides().values() for case in side}  # each case once
    for done, case in enumerate(cases, start=1):
        found += _examine_case(case, datalist, contents, roi, spacing)
        if progress:
            progress(done, len(cases))
    return found


def summary(findings: Iterable[Finding], *, most: int = 5) -> list[str]:
    """The lines to print: each error, then warnings; more than `most` that differ in numbers alone are one."""
    lines, alike = [], defaultdict(list)
    for finding in findings:
        line = f"{finding.severity}: {finding.line()}"
        if finding.severity == "error":
            lines.append(line)
        else:
            alike[re.sub(r"\d+", "0", finding.reason)].append(line)
    for same in alike.values():
        lines += same if len(same) <= most else [f"{same[0]} (and {len(same) - 1} more like it)"]
    return lines


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
            rows.append({
                "case": case.id,
                "side": side,
                "shape": image.shape,
                "spacing": tuple(round(size, 3) for size in image.spacing),
                "orientation": image.orientation,
                "min": float(image.array.min()),
                "max": float(image.array.max()),
                "dtype": image.stored,
                "label voxels": None if label is None else int(np.count_nonzero(label.array)),
            })  # fmt: skip
    return rows


def _examine_case(
    case: Case,
    datalist: Datalist,
    contents: dict[str, str],
    roi: Sequence[int] | None,
    spacing: Sequence[float] | None,
) -> list[Finding]:
    found: list[Finding] = []
    image = label = None
    if case.image.is_file():  # a missing one is among the faults already
        image = _attempt(lambda path: volumes.read_image(path, channels=len(datalist.channels)), case.image, found)
    if case.label is not None and case.label.is_file():
        label = _attempt(lambda path: volumes.read_label(path, values=datalist.labels or None), case.label, found)
    if image is not None and label is not None:
        _attempt(lambda _: volumes.check_pair(image, label), case.label, found)
    if image is not None:
        found += _plain(image, case.id, "image") + _same_content(image, case.id, "image", contents)
        found += _size(image, case.id, roi, spacing) if roi is not None else []
    if label is not None:
        found += _plain(label, case.id, "label") + _same_content(label, case.id, "label", contents)
    return found


def _attempt(action: Callable[[Path], Any], path: Path, found: list[Finding]) -> Any:
    """The result, or None and a finding."""
    try:
        return action(path)
    except CourseError as error:
        reason, _, cure = str(error).removeprefix(f"{path}: ").rpartition("; ")
        found.append(Finding(str(path), "error", reason, cure))
    except MemoryError:
        found.append(Finding(str(path), "error", "does not fit into memory", "crop or resample it, or close programs"))
    return None


def _plain(volume: Volume, name: str, kind: str) -> list[Finding]:
    """A volume of one single value teaches nothing."""
    low, high = volume.array.min(), volume.array.max()
    if low != high:
        return []
    what = "its label is empty" if kind == "label" and high == 0 else f"its {kind} is {high:g} everywhere"
    return [Finding(name, "warning", what, "look at the file, and leave it out if that is not meant")]


def _same_content(volume: Volume, name: str, kind: str, contents: dict[str, str]) -> list[Finding]:
    """Equal voxels under two names, however they are compressed."""
    if volume.array.min() == volume.array.max():
        return []
    digest = hashlib.blake2b(volume.array.data, digest_size=16)
    digest.update(f"{kind}{volume.array.shape}".encode())
    first = contents.setdefault(digest.hexdigest(), name)
    if first == name:
        return []
    severity = "error" if kind == "image" else "warning"
    return [Finding(name, severity, f"its {kind} has the same voxels as that of {first}", "delete one of the two")]


def _size(image: Volume, name: str, roi: Sequence[int], spacing: Sequence[float] | None) -> list[Finding]:
    """Does the volume, turned to RAS and resampled, cover a training crop?"""
    image_spacing = np.array(image.spacing)
    order = volumes.axis_order(image)
    voxels = np.array(image.shape)[order]
    if spacing is not None:
        voxels = np.maximum(np.rint(voxels * image_spacing[order] / np.array(spacing)), 1).astype(int)
    if (4 * voxels >= 3 * np.array(roi)).all():  # a thin rim of padding is nothing to worry about
        return []
    sizes = f"covers only {'x'.join(map(str, voxels))} voxels of the ROI {'x'.join(map(str, roi))}"
    if (2 * voxels < roi).any():
        return [
            Finding(name, "error", f"{sizes}, less than half along an axis", "leave it out or choose a smaller ROI")
        ]
    return [Finding(name, "warning", f"{sizes} and will be padded", "choose a smaller ROI if many cases are")]
