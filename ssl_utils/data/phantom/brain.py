"""Procedural MRI of a head without its skull, in four sequences, with a tumour coded as BraTS codes it since 2023.

Coordinates are millimetres: x to the patient's right, y to the front, z to the head; the origin is the middle of the
brain. A case is a pile of tissue shares (`Head`), into which the tumour is laid; `scan` turns it into sequences.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from ssl_utils.data.phantom.canvas import smooth_noise
from ssl_utils.data.phantom.scanning_brains import SITES, scan
from ssl_utils.data.phantom.tumours import Lesion, draw_lesions, grow, pushed
from ssl_utils.errors import CourseError

SIZE = (150.0, 186.0, 144.0)  # mm, of the field of view
RADII = (66.0, 82.0, 61.0)  # mm, of the brain
VENTRICLES = (  # centre and radii (mm) on the right, the left ones are their mirror image
    ((11.0, 22.0, 8.0), (6.0, 20.0, 8.0)),
    ((13.0, -14.0, 10.0), (7.0, 24.0, 8.0)),
    ((22.0, -34.0, -4.0), (6.0, 16.0, 8.0)),
)
NUCLEI = (  # caudate, putamen, thalamus
    ((15.0, 18.0, 6.0), (6.0, 14.0, 9.0)),
    ((27.0, 6.0, -2.0), (6.0, 17.0, 11.0)),
    ((10.0, -12.0, -1.0), (8.0, 13.0, 9.0)),
)


@dataclass
class Head:
    """A brain being drawn: coordinates after the mass effect, shares of tissue (D, H, W), label, random generator."""

    rng: np.random.Generator
    spacing: tuple[float, float, float]
    axes: list[np.ndarray]
    depth: np.ndarray  # mm below the surface, negative outside
    shares: dict[str, np.ndarray] = field(default_factory=dict)
    label: np.ndarray | None = None

    def noise(self, wavelength: float) -> np.ndarray:
        return smooth_noise(self.rng, SIZE, self.spacing, wavelength)

    def mix(self, tissue: str, share: np.ndarray) -> None:
        """Put `share` (0..1) of a tissue everywhere, in place of what was there."""
        for other in self.shares.values():
            other *= 1 - share
        self.shares[tissue] = self.shares.get(tissue, 0) + share.astype(np.float32)


def make_brain(
    seed: int, *, site: str, spacing: Sequence[float] = (1.5, 1.5, 1.5)
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """One patient: image int16 (4, D, H, W) in the order of `SEQUENCES`, label uint8 (D, H, W), affine (4, 4) in mm.

    Axes are right, anterior, superior (RAS). Voxels outside the brain are 0, in it at least 1, in a unit that differs
    from case to case. Label values: 1 necrotic core, 2 oedema, 3 enhancing tumour; in some cases one is missing.
    The same seed at another spacing is the same patient with other noise; at another site, with another scanner too.

    Raises:
        CourseError: unknown site, or a spacing that is not three numbers from 1 to 6 mm.
    """
    if site not in SITES:
        raise CourseError(f"site={site!r}: no such scanner; choose one of {', '.join(SITES)}")
    if len(spacing) != 3 or not all(1 <= h <= 6 for h in spacing):
        raise CourseError(f"spacing={spacing!r}: the brain needs three numbers from 1 to 6 mm")
    rng = np.random.default_rng([seed, 12])
    head = _empty(rng, tuple(spacing))
    lesions = draw_lesions(rng, RADII)
    _tissues(head, lesions)
    grow(head, lesions)
    image = scan(head, SITES[site])
    affine = np.diag([*spacing, 1.0])
    affine[:3, 3] = -np.array(SIZE) / 2 + rng.uniform(-6, 6, 3)
    return image, head.label, affine


def _empty(rng: np.random.Generator, spacing: tuple[float, float, float]) -> Head:
    counts = [round(s / h) for s, h in zip(SIZE, spacing, strict=True)]
    lines = [(h * (np.arange(n) + 0.5) - s / 2) for n, h, s in zip(counts, spacing, SIZE, strict=True)]
    axes = [line.astype(np.float32).reshape([-1 if a == b else 1 for b in range(3)]) for a, line in enumerate(lines)]
    radii = np.multiply(RADII, np.clip(rng.normal(1, 0.04, 3), 0.9, 1.1)).astype(np.float32)
    head = Head(rng, spacing, axes, np.zeros(counts, np.float32))
    bends = 2.5 * head.noise(40.0)
    head.depth = bends - _ellipsoid(axes, (0, 0, 0), radii)
    base = axes[2] + 34 + np.abs(axes[1] + 20) * 0.12  # the brain is flat below, but for the cerebellum
    back = np.maximum(-_ellipsoid(axes, (0, -44, -36), (46, 34, 24)), -_ellipsoid(axes, (0, -22, -44), (14, 16, 34)))
    head.depth = np.maximum(np.minimum(head.depth, base), back + bends)
    return head


def _ellipsoid(axes: Sequence[np.ndarray], centre: Sequence[float], radii: Sequence[float]) -> np.ndarray:
    """Distance to the surface in mm, nearly; negative inside."""
    first, second = np.float32(0), np.float32(1e-9)
    for axis, c, r in zip(axes, centre, radii, strict=True):
        square = ((axis - np.float32(c)) / np.float32(r)) ** 2
        first, second = first + square, second + square / np.float32(r * r)
    first = np.sqrt(first)
    return first * (first - 1) / np.sqrt(second)


def _tissues(head: Head, lesions: Sequence[Lesion]) -> None:
    """Fluid, grey and white matter and the deep nuclei, pushed aside by the lesions; the surface stays."""
    edge, rng = np.float32(np.mean(head.spacing)), head.rng
    bent = [2.0 * head.noise(30.0) for _ in range(2)]
    x, y, z = pushed(head.axes, lesions)
    x, y = x + bent[0], y + bent[1]
    folds = np.abs(head.noise(11.0))  # its zeros are sheets: the sulci
    midline = np.clip(np.abs(x) - 1.2 + 0.05 * np.clip(10 - z, 0, None), 0, None)
    inward = np.minimum(head.depth, np.where(z > 8, midline + 1, 99))
    fluid = np.clip((1.5 + 13 * np.clip(1 - folds / 0.2, 0, 1) - inward) / edge + 0.5, 0, 1)
    grey = np.clip((4.5 + 13 * np.clip(1 - folds / 0.75, 0, 1) - inward) / edge + 0.5, 0, 1)
    cerebellum = (z < -30) & (y < -20)
    grey = np.where(cerebellum, np.clip(0.55 + 0.9 * head.noise(6.0), 0, 1), grey)
    head.shares = {"white": np.ones_like(fluid), "grey": np.zeros_like(fluid)}
    head.mix("grey", grey)
    wide = rng.uniform(0.75, 1.5)
    for parts, tissue, size in ((NUCLEI, "grey", 1.0), (VENTRICLES, "fluid", wide)):
        for centre, radii in parts:  # on both sides at once
            distance = _ellipsoid((np.abs(x), y, z), centre, np.multiply(radii, size * rng.uniform(0.9, 1.1)))
            head.mix(tissue, np.clip(0.5 - distance / edge, 0, 1))
    head.mix("fluid", fluid)
    sinus = np.sqrt(x**2 + (head.depth - 2) ** 2)  # bright after contrast, as the tumour's rim is
    head.mix("vessel", np.clip((2.4 - sinus) / edge + 0.5, 0, 1) * (z > 0))
