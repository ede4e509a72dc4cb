"""Tumours of the procedural brain: a necrotic core, a rim that takes up contrast, and oedema; they push aside the rest.

Distances are millimetres; label values are those of BraTS since 2023.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

NECROSIS, OEDEMA, ENHANCING = 1, 2, 3
KINDS = {  # kind: how often, radius of the core, rim, oedema around them (mm, least and most)
    "ring": (0.60, (9, 20), (2.5, 5.0), (6, 16)),
    "solid": (0.15, (7, 14), (30, 30), (5, 14)),  # the rim fills the core: nothing is necrotic
    "without enhancement": (0.15, (12, 22), (0, 0), (4, 9)),
    "without oedema": (0.10, (8, 15), (2.5, 5.0), (0, 0)),
}
COUNTS = (0.6, 0.25, 0.15)  # one, two, three lesions


@dataclass(frozen=True)
class Lesion:
    """A lesion: its place and its sizes (mm)."""

    centre: np.ndarray
    radii: np.ndarray
    rim: float
    oedema: float
    push: float  # by which the tissue at its border is moved


def draw_lesions(rng: np.random.Generator, radii: Sequence[float]) -> list[Lesion]:
    """One to three lesions inside the upper part of an ellipsoid; satellites are smaller than the first."""
    kind = rng.choice(list(KINDS), p=[chance for chance, *_ in KINDS.values()])
    _, size, rim, oedema = KINDS[kind]
    lesions = []
    for number in range(1 + int(rng.choice(len(COUNTS), p=COUNTS))):
        radius = rng.uniform(*size) * (1 if number == 0 else rng.uniform(0.35, 0.6))
        direction = rng.standard_normal(3)
        direction *= rng.uniform(0.3, 0.75) / np.linalg.norm(direction)
        direction[2] = np.abs(direction[2]) - 0.15
        shape = radius * np.clip(rng.normal(1, 0.15, 3), 0.7, 1.3)
        sizes = (rng.uniform(*rim), rng.uniform(*oedema), 0.35 * radius)
        lesions.append(Lesion(direction * radii, shape, *map(float, sizes)))
    return lesions


def pushed(axes: Sequence[np.ndarray], lesions: Sequence[Lesion]) -> list[np.ndarray]:
    """Mass effect: coordinates (D, H, W) at which the anatomy is drawn. It moves away from a lesion, most at its border
    and not at all beyond three radii, so that no tissue is torn."""
    moved = [np.broadcast_to(axis, np.broadcast_shapes(*(a.shape for a in axes))).copy() for axis in axes]
    for lesion in lesions:
        radius = np.float32(lesion.radii.mean())
        away = [axis - np.float32(c) for axis, c in zip(axes, lesion.centre, strict=True)]
        distance = np.sqrt(away[0] ** 2 + away[1] ** 2 + away[2] ** 2) + np.float32(1e-3)
        fade = np.clip((3 * radius - distance) / (2 * radius), 0, 1)
        share = np.float32(lesion.push) * fade * fade * (3 - 2 * fade) * np.minimum(1, distance / radius) / distance
        for axis, direction in zip(moved, away, strict=True):
            axis -= share * direction
    return moved


def grow(head: Any, lesions: Sequence[Lesion]) -> None:
    """Lay the lesions into a `brain.Head`: shares of three tissues, and the label."""
    edge = np.float32(np.mean(head.spacing))
    rough, ragged = head.noise(11.0), head.noise(16.0)
    head.label = np.zeros(head.depth.shape, np.uint8)
    inside = head.depth > 3
    white = 1 - head.shares["grey"] - head.shares["fluid"]  # oedema follows the white matter
    cores, waters, rims = [], [], []
    for lesion in lesions:
        away = [(axis - np.float32(c)) for axis, c in zip(head.axes, lesion.centre, strict=True)]
        scaled = [d / np.float32(r) for d, r in zip(away, lesion.radii, strict=True)]
        radius = np.float32(lesion.radii.mean())
        distance = (np.sqrt(scaled[0] ** 2 + scaled[1] ** 2 + scaled[2] ** 2) - 1) * radius + 0.13 * radius * rough
        cores.append(distance)
        rims.append(distance + np.float32(lesion.rim))
        reach = lesion.oedema * (0.4 + 0.6 * np.clip(white, 0, 1)) * np.clip(1 + 0.5 * ragged, 0.2, 2)
        waters.append(np.where(lesion.oedema > 0, distance - reach, 99).astype(np.float32))
    core, rim, water = (np.minimum.reduce(parts) for parts in (cores, rims, waters))
    for tissue, value, depth in (
        ("oedema", OEDEMA, water), ("enhancing", ENHANCING, core), ("necrosis", NECROSIS, rim)
    ):  # fmt: skip
        head.mix(tissue, np.clip(0.5 - depth / edge, 0, 1) * inside)
        head.label[(depth < 0) & inside] = value
