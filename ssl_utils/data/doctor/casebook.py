"""What the doctor writes down of each case while its voxels are in memory, so that cases can be compared later."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ssl_utils.data import volumes
from ssl_utils.data.doctor import fingerprints
from ssl_utils.data.volumes import Volume

SAMPLE = 200_000  # voxels of which percentiles are taken


@dataclass
class Facts:
    """One case. Shape and spacing are along right, anterior, superior; intensities are per channel.

    Attributes:
        side: training, validation, test or unlabeled; "" for a file that was named by itself.
        low, high: the 1st and 99th percentile; least, most: the extremes.
        millilitres: label value -> volume, 0 left out; None without a label.
        foreground: share of the voxels that are labelled.
        digest: of the image's voxels; equal ones are reported as copies, not as sharing a part.
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
    millilitres: dict[int, float] | None = None
    foreground: float | None = None
    digest: str = field(default="", repr=False)
    sketch: np.ndarray = field(default_factory=lambda: np.empty(0, np.uint64), repr=False)
    thumbnail: np.ndarray | None = field(default=None, repr=False)

    def image(self, image: Volume, *, compared: bool = True) -> None:
        order = volumes.axis_order(image)
        self.shape = tuple(int(image.shape[axis]) for axis in order)
        self.spacing = tuple(round(image.spacing[axis], 4) for axis in order)
        self.orientation, self.stored = image.orientation, image.stored
        percentiles = [np.percentile(_sample(channel), [1, 99]) for channel in image.array]
        self.low, self.high = (tuple(float(p[end]) for p in percentiles) for end in (0, 1))
        self.least = tuple(float(channel.min()) for channel in image.array)
        self.most = tuple(float(channel.max()) for channel in image.array)
        if compared:
            self.sketch, self.thumbnail = fingerprints.sketch(image), fingerprints.thumbnail(image)

    def label(self, label: Volume) -> None:
        self.shape = self.shape or tuple(int(label.shape[axis]) for axis in volumes.axis_order(label))
        self.spacing = self.spacing or tuple(round(label.spacing[axis], 4) for axis in volumes.axis_order(label))
        self.orientation, self.stored = self.orientation or label.orientation, self.stored or label.stored
        voxel = abs(float(np.linalg.det(label.affine[:3, :3]))) / 1000
        counts = {value: int((label.array == value).sum()) for value in volumes.present_values(label.array) if value}
        self.millilitres = {value: count * voxel for value, count in counts.items()}
        self.foreground = sum(counts.values()) / label.array.size

    def record(self) -> dict[str, Any]:
        """For the JSON."""
        labels = None if self.millilitres is None else {str(v): round(ml, 4) for v, ml in self.millilitres.items()}
        plain = ("name", "side", "kind", "shape", "spacing", "orientation", "stored", "low", "high", "least", "most")
        return {key: getattr(self, key) for key in plain} | {"millilitres": labels, "foreground": self.foreground}


def _sample(channel: np.ndarray) -> np.ndarray:
    """Every n-th voxel, n odd and prime to most image sizes, so that no row is met again and again."""
    flat = channel.ravel()
    return flat[:: max(1, flat.size // SAMPLE) | 1]
