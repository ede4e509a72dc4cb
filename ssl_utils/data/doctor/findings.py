"""What the doctor reports: findings, and facts about each case by which cases are compared later."""

import re
from collections import defaultdict
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ssl_utils.data import volumes
from ssl_utils.data.dataset import Intensity
from ssl_utils.data.doctor import fingerprints
from ssl_utils.data.volumes import Volume
from ssl_utils.errors import CourseError
from ssl_utils.files import read_json

SAMPLE = 200_000  # voxels of which percentiles are taken
_RECORDED = "name side kind shape spacing orientation stored low high least most digest"


@dataclass(frozen=True)
class Finding:
    """One problem. An error stops a run or spoils its result; a warning needs a look at the file."""

    file: str
    severity: str
    reason: str
    cure: str

    def line(self) -> str:
        return " ".join(f"{self.file}: {self.reason}; {self.cure}".split())  # a file name may hold a line break


@dataclass
class Facts:
    """One case. Shape and spacing are along right, anterior, superior; intensities are per channel.

    Attributes:
        side: training, validation, test or unlabeled; "" for a single file.
        low, high: the 1st and 99th percentile; least, most: the extremes.
        inside: share of the voxels that the dataset's rule for intensities leaves strictly between 0 and 1.
        millilitres: label value -> volume, 0 left out; None without a label.
        foreground: share of the voxels that have a label other than 0.
        ignore: the label value that is no structure, and `ignored` the share of the voxels that have it.
        digest: of the image's voxels in RAS; equal ones are reported as copies, not as sharing a part.
    """

    name: str
    side: str = ""
    kind: str = "image"
    shape: tuple[int, ...] = ()
    spacing: tuple[float, ...] = ()
    orientation: str = ""
    stored: str = ""
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()
    least: tuple[float, ...] = ()
    most: tuple[float, ...] = ()
    inside: tuple[float, ...] = field(default=(), repr=False)
    millilitres: dict[int, float] | None = None
    foreground: float | None = None
    digest: str = field(default="", repr=False)
    sketch: np.ndarray = field(default_factory=lambda: np.empty(0, np.uint64), repr=False)
    thumbnail: np.ndarray | None = field(default=None, repr=False)
    ignore: int | None = field(default=None, repr=False)
    ignored: float | None = None

    def image(self, image: Volume, upright: Volume, rule: Intensity) -> None:
        """The facts about an image; `upright` is the image in RAS axes."""
        self._place(image)
        samples = [_sample(channel) for channel in image.array]
        percentiles = [np.percentile(sample, [1, 99]) for sample in samples]
        self.low, self.high = (tuple(float(p[end]) for p in percentiles) for end in (0, 1))
        self.least = tuple(float(channel.min()) for channel in image.array)
        self.most = tuple(float(channel.max()) for channel in image.array)
        self.inside = tuple(_inside(sample, rule) for sample in samples)
        self.digest = fingerprints.digest(upright)
        self.sketch = fingerprints.sketch(upright)
        self.thumbnail = fingerprints.thumbnail(upright, self.low[0], self.high[0])

    def label(self, label: Volume) -> None:
        if not self.shape:
            self._place(label)
        voxel = abs(float(np.linalg.det(label.affine[:3, :3]))) / 1000
        counts = {value: int((label.array == value).sum()) for value in volumes.present_values(label.array) if value}
        if self.ignore is not None:
            self.ignored = counts.pop(self.ignore, 0) / label.array.size
        self.millilitres = {value: count * voxel for value, count in counts.items()}
        self.foreground = sum(counts.values()) / label.array.size

    def record(self) -> dict[str, Any]:
        """For the JSON."""
        labels = None if self.millilitres is None else {str(v): round(ml, 4) for v, ml in self.millilitres.items()}
        plain = {key: getattr(self, key) for key in _RECORDED.split()}
        return plain | {"millilitres": labels, "foreground": self.foreground, "ignored": self.ignored}

    def _place(self, volume: Volume) -> None:
        self.shape, spacing = volume.ras_grid
        self.spacing = tuple(round(size, 4) for size in spacing)
        self.orientation, self.stored = volume.orientation, volume.stored


class Report(list[Finding]):
    """The findings; `cases` are the facts about each case, `labels` the names of label values, `patients` a line for
    every patient with several cases, `grid` a line about the grid of the scale."""

    def __init__(self, findings: Iterable[Finding] = ()) -> None:
        super().__init__(findings)
        self.cases: list[Facts] = []
        self.labels: dict[int, str] = {}
        self.patients: list[str] = []
        self.grid = ""

    def join(self, other: "Report") -> None:
        """Add another report, of other files, to this one."""
        self += other
        self.cases += other.cases
        self.labels |= other.labels
        self.patients += other.patients

    @property
    def errors(self) -> int:
        return sum(finding.severity == "error" for finding in self)

    def record(self) -> dict[str, Any]:
        """For the JSON."""
        findings, cases = [vars(finding) for finding in self], [case.record() for case in self.cases]
        counts = {"errors": self.errors, "warnings": len(self) - self.errors}
        return counts | {"findings": findings, "patients": self.patients, "cases": cases}


def gathered(findings: Iterable[Finding], *, most: int = 5) -> list[tuple[Finding, str]]:
    """Each error, then warnings; of more than `most` that differ only in numbers the first, and how many more."""
    kept, alike = [], defaultdict(list)
    for finding in findings:
        if finding.severity == "error":
            kept.append((finding, ""))
        else:
            alike[re.sub(r"\d+(\.\d+)?(e[+-]?\d+)?", "0", finding.reason)].append(finding)
    for same in alike.values():
        few = len(same) <= most
        kept += [(one, "") for one in same] if few else [(same[0], f" (and {len(same) - 1} more like it)")]
    return kept


def _sample(channel: np.ndarray) -> np.ndarray:
    """Every n-th voxel; n is odd, so that it is not a multiple of a usual row length."""
    flat = channel.ravel()
    return flat[:: max(1, flat.size // SAMPLE) | 1]


def _inside(sample: np.ndarray, rule: Intensity) -> float:
    low, high = rule.low, rule.high
    if rule.kind == "nonzero" and sample.any():
        sample = sample[sample != 0]
    if rule.kind != "window":
        low, high = np.percentile(sample, [low, high])
    return float(((sample > low) & (sample < high)).mean())


def refuse_other_file(path: Path) -> None:
    """Raises CourseError when a report would replace a file that the doctor did not write."""
    if path.name in ("dataset.json", "folds.json") and not path.exists():
        raise CourseError(f"{path}: is the name of a list of cases; choose another file for --json")
    with suppress(CourseError, TypeError):
        if not path.exists() or {"errors", "findings"} <= {*read_json(path)}:
            return
    raise CourseError(f"{path}: is there and is not a report of the doctor; choose another file for --json")
