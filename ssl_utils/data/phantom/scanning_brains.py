"""Four MRI sequences of a procedural brain, as scanners of several hospitals would show it."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.ndimage import gaussian_filter

SEQUENCES = ("t1n", "t1c", "t2w", "t2f")  # T1, T1 after contrast, T2, FLAIR: the names of BraTS since 2023
BRIGHTNESS = {  # of each tissue in the four sequences; only the order within a sequence has a meaning
    "white": (860, 880, 560, 600), "grey": (660, 690, 760, 780), "fluid": (300, 310, 1450, 260),
    "vessel": (420, 1500, 420, 420), "oedema": (600, 620, 1120, 1220), "enhancing": (640, 1420, 900, 880),
    "necrosis": (400, 440, 1300, 640),
}  # fmt: skip


@dataclass(frozen=True)
class Site:
    """A scanner and its protocol.

    Attributes:
        contrast: how far tissues differ from the mean of a sequence, over the usual.
        uptake: how bright the rim becomes after contrast, over the usual.
        noise: standard deviation in the units of `BRIGHTNESS`.
        blur: standard deviation of the point spread along x, y, z (mm); thick slices have a large third one.
        unevenness: relative standard deviation of the bias field.
    """

    contrast: float
    uptake: float
    noise: float
    blur: tuple[float, float, float]
    unevenness: float


SITES = {
    "north": Site(contrast=1.0, uptake=1.0, noise=28, blur=(0.6, 0.6, 0.6), unevenness=0.06),
    "east": Site(contrast=1.15, uptake=0.9, noise=45, blur=(0.8, 0.8, 0.8), unevenness=0.10),
    "south": Site(contrast=0.75, uptake=0.95, noise=60, blur=(1.1, 1.1, 2.2), unevenness=0.16),  # low field
    "west": Site(contrast=0.9, uptake=1.1, noise=36, blur=(0.7, 0.7, 2.6), unevenness=0.08),  # thick slices
}


def scan(head: Any, site: Site) -> np.ndarray:
    """Image int16 (4, D, H, W) of a `brain.Head`: 0 outside the brain, from 1 on inside, in a unit of its own."""
    inside, texture, rng = head.depth > 0, head.noise(5.0), head.rng
    field = 1 + np.float32(site.unevenness) * head.noise(90.0)
    sigmas = [blur / h for blur, h in zip(site.blur, head.spacing, strict=True)]
    image = np.zeros((len(SEQUENCES), *head.depth.shape), np.int16)
    for number, sequence in enumerate(SEQUENCES):
        spread = rng.uniform(0.95, 1.05, len(BRIGHTNESS))
        mean = np.mean([row[number] for row in BRIGHTNESS.values()])
        volume = 14 * texture
        for factor, (tissue, row) in zip(spread, BRIGHTNESS.items(), strict=True):
            gain = site.uptake if tissue == "enhancing" and sequence == "t1c" else 1.0
            value = (mean + site.contrast * (row[number] - mean)) * factor * gain
            volume += np.float32(value) * head.shares[tissue]
        volume = gaussian_filter(np.where(inside, volume, 500), sigmas, truncate=2.5)
        volume += np.float32(site.noise) * rng.standard_normal(volume.shape, dtype=np.float32)
        unit = np.float32(rng.uniform(0.4, 2.5))
        image[number] = np.where(inside, np.clip(np.rint(volume * field * unit), 1, 32000), 0)
    return image
