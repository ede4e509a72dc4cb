"""What version 2 does to the painted body: pose on the table, metal, streaks, field of view, kernel and noise."""

import numpy as np
from scipy.ndimage import affine_transform, gaussian_filter

from ssl_utils.data.phantom.canvas import AIR, FAT, Canvas


def turn(c: Canvas, degrees: float) -> None:
    """Rotate the painted body about its long axis, image linearly and labels to the nearest voxel."""
    cos, sin = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    ratio = c.spacing[1] / c.spacing[0]
    matrix = np.array([[cos, -sin * ratio, 0], [sin / ratio, cos, 0], [0, 0, 1]])
    middle = (np.array(c.hu.shape) - 1) / 2
    offset = middle - (matrix * middle).sum(1)
    c.hu = affine_transform(c.hu, matrix, offset, order=1, cval=AIR)
    c.label = affine_transform(c.label, matrix, offset, order=0, cval=0)


def streaks(c: Canvas) -> None:
    """Bands from side to side in the slices with arms beside the trunk or metal."""
    _, ny, nz = c.hu.shape
    bands = gaussian_filter(c.rng.standard_normal((ny, nz)), (4 / c.spacing[1], 0)).astype(np.float32)
    c.hu += np.where(c.hu > -300, bands / bands.std() * np.float32(c.rng.uniform(10, 24)), 0)


def narrow(c: Canvas) -> None:
    """Cut the image and the labels outside a circle, as a small field of view does."""
    x, y = c.axes[0][:, None], c.axes[1][None]
    radius = 0.5 * (c.axes[1][-1] - c.axes[1][0]) * c.rng.uniform(0.88, 1.05)
    outside = np.hypot(x - c.rng.uniform(-25, 25), y - y.mean()) > radius
    c.hu[outside], c.label[outside] = AIR, 0


def blurred(c: Canvas, hu: np.ndarray) -> np.ndarray:
    """The image after the point spread of the scanner; at a low dose mottle of 7 mm grains is added."""
    has = c.findings
    plane = 1.5 + 1.6 * ("soft kernel" in has) - 0.6 * ("sharp kernel" in has)
    thick = 3.6 if "thick slices" in has else 1.5
    hu = gaussian_filter(hu, [s / h for s, h in zip((plane, plane, thick), c.spacing, strict=True)], truncate=2.5)
    if "low dose" in has:
        hu += c.grain[::-1, ::-1] * np.float32(c.rng.uniform(10, 18))
    return hu


def on_table(c: Canvas, fat: float) -> None:
    """Lay the painted body on the table of the scanner, with its arms and implants."""
    rng, has = c.rng, c.findings
    if "brittle bone" in has:
        c.hu[(c.label == 0) & (c.hu > 150)] *= np.float32(rng.uniform(0.45, 0.7))
    if "rods" in has:
        for side in (1, -1):
            c.draw([([(side * 22, -74, -160), (side * 20, -72, -20), (side * 20, -78, 60)], 4.5, 6, 3000.0, None, 0)])
    if "arms" in has:
        arms(c, fat)
    if "situs inversus" in has:
        mirror(c)
    turn(c, rng.uniform(-16, 16) if "turned" in has else rng.uniform(-4, 4))
    if has & {"arms", "rods"}:
        streaks(c)
    if "narrow field" in has:
        narrow(c)


def mirror(c: Canvas) -> None:
    """Situs inversus: left and right exchanged; kidneys and adrenals keep the name of their side."""
    swap = np.arange(256, dtype=np.uint8)
    swap[[2, 3, 12, 13]] = 3, 2, 13, 12
    c.hu, c.label = np.ascontiguousarray(c.hu[::-1]), swap[c.label[::-1]]


def arms(c: Canvas, fat: float) -> None:
    """Arms beside the trunk, cut by the field of view."""
    for side in (1, -1):
        x, y = side * (162 + fat + 42), c.rng.uniform(-40, 10)
        line = [(x, y - 10, -400), (x + side * 10, y, 0), (x, y - 20, 400)]
        for radius, hu in ((34 + 0.3 * fat, FAT), (29, 55), (11, 700), (6, 150)):
            c.paint(c.tube(line, radius, pieces=3), hu)
