"""What the doctor sees in one volume alone."""

import hashlib
from collections.abc import Sequence

import numpy as np

from ssl_utils.data import volumes
from ssl_utils.data.doctor.casebook import Facts
from ssl_utils.data.doctor.findings import Finding
from ssl_utils.data.volumes import Volume


def plain(volume: Volume, name: str, kind: str) -> list[Finding]:
    """What is odd about one volume alone."""
    found = [Finding(name, "warning", *note) for note in volume.notes]
    low, high = volume.array.min(), volume.array.max()
    if low == high:
        what = "its label is empty" if kind == "label" and high == 0 else f"its {kind} is {high:g} everywhere"
        return [*found, Finding(name, "warning", what, "look at the file, and leave it out if that is not meant")]
    if min(volume.shape) == 1:
        found.append(Finding(name, "warning", "is a single slice", "leave it out: the course learns from volumes"))
    if kind == "image" and _few_values(volume.array):
        reason = "its image holds nothing but whole numbers up to 20, like a label"
        found.append(Finding(name, "warning", reason, "if it is a label, move it to labelsTr"))
    return found


def _few_values(array: np.ndarray) -> bool:
    """Does it look like a label map?"""
    return array.min() >= 0 and array.max() <= 20 and bool((np.rint(array) == array).all())


def same_content(volume: Volume, facts: Facts, kind: str, contents: dict[str, str]) -> list[Finding]:
    """Equal voxels under two names, however they are compressed."""
    if volume.array.min() == volume.array.max():
        return []
    digest = hashlib.blake2b(volume.array.data, digest_size=16)
    digest.update(f"{kind}{volume.array.shape}".encode())
    facts.digest = digest.hexdigest() if kind == "image" else facts.digest
    first = contents.setdefault(digest.hexdigest(), facts.name)
    if first == facts.name:
        return []
    severity = "error" if kind == "image" else "warning"
    reason = f"its {kind} has the same voxels as that of {first}"
    return [Finding(facts.name, severity, reason, "delete one of the two")]


def size(image: Volume, name: str, roi: Sequence[int], spacing: Sequence[float] | None) -> list[Finding]:
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
