"""Shapes and painting of the procedural trunk CT: a part is a signed distance (mm, negative inside) put on a canvas.

Coordinates are millimetres in a standard trunk: x to the patient's right, y to the front, z to the head; the origin is
the middle of the body at the level of vertebra L1. The canvas bends them for each case, so all parts move together.
"""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from scipy.spatial.transform import Rotation

AIR, FAT, MUSCLE, WATER, CORTICAL, SPONGY = -1000.0, -105.0, 55.0, 8.0, 520.0, 190.0
PHASES = ("native", "arterial", "venous")
CONTRAST = {  # HU in the three phases
    "aorta": (42, 300, 155), "cava": (40, 75, 140), "portal": (42, 105, 172), "liver": (58, 72, 110),
    "spleen": (48, 120, 118), "cortex": (34, 190, 178), "medulla": (32, 75, 150), "pancreas": (40, 102, 88),
    "adrenal": (30, 72, 66), "gut": (38, 75, 82), "gallbladder": (10, 10, 12), "myocardium": (44, 95, 110),
}  # fmt: skip
Box = tuple[slice, slice, slice]
Shape = tuple[Box, np.ndarray]  # where the part can be, and its signed distance there


def smooth_noise(rng, size: Sequence[float], spacing: Sequence[float], wavelength: float) -> np.ndarray:
    """Random field of unit variance on the grid: cubic B-spline through white noise on nodes `wavelength` mm apart.

    A matrix product would be faster, but its last digit depends on the processor and on the number of threads.
    """
    steps = [round(s / h) for s, h in zip(size, spacing, strict=True)]
    field = rng.standard_normal([int(s / wavelength) + 4 for s in size]).astype(np.float32) * 3.0
    for n, h in zip(steps, spacing, strict=True):
        u = np.abs(np.arange(n)[:, None] * h / wavelength + 1 - np.arange(field.shape[0])[None])
        weights = np.where(u < 1, 2 / 3 - u**2 + u**3 / 2, np.clip(2 - u, 0, None) ** 3 / 6).astype(np.float32)
        nodes = np.ascontiguousarray(field, float)
        field = np.zeros((n, *nodes.shape[1:]), np.float32)
        for plane, row in zip(field, weights, strict=True):
            for node in np.flatnonzero(row):
                plane[:] = plane + nodes[node] * float(row[node])  # exact in float64, then rounded to float32
        field = np.moveaxis(field, 0, -1)  # after three turns the order of the axes is back
    return np.ascontiguousarray(field)


def smooth_min(a: np.ndarray, b: np.ndarray, k: float) -> np.ndarray:
    h = np.clip(k - np.abs(a - b), 0, None)
    return np.minimum(a, b) - h * h / (4 * k)


def curve(nodes: np.ndarray, pieces: int) -> np.ndarray:
    """`pieces` + 1 points of the cubic Hermite curve through the nodes (n, k)."""
    t = np.linspace(0, len(nodes) - 1, pieces + 1)
    i = np.minimum(t.astype(int), len(nodes) - 2)
    u, slope = (t - i)[:, None], np.gradient(nodes, axis=0)
    a, b = nodes[i], nodes[i + 1]
    blend = u * u * (3 - 2 * u)
    return a + blend * (b - a) + u * (1 - u) * ((1 - u) * slope[i] - u * slope[i + 1])


def part_of(outer: Box, inner: Box) -> Box:
    """The box `inner` in the indices of an array that covers `outer`."""
    return tuple(slice(i.start - o.start, i.stop - o.start) for i, o in zip(inner, outer, strict=True))


class Canvas:
    """The volume being painted: bent coordinates X, Y, Z (mm), HU, labels, and the random generator of the case."""

    def __init__(
        self, *, rng, size, spacing, low, scale, phase: int, findings: set[str], bends=(5.0, 1.3), lean: float = 0.0
    ) -> None:
        self.rng, self.spacing, self.findings = rng, spacing, findings
        self.parts: dict[str, tuple[float, np.ndarray]] = {}  # part: its size over the usual one, its shift (mm)
        self.spread, self.urine, self.mottle = 1.0, 15.0, 0.0
        self.tissue = {name: hu[phase] * rng.uniform(0.92, 1.08) for name, hu in CONTRAST.items()}
        self.edge = float(np.mean(spacing))
        shape = [round(s / h) for s, h in zip(size, spacing, strict=True)]
        self.axes, self.reach, bent = [], [], []
        for axis, (n, h) in enumerate(zip(shape, spacing, strict=True)):
            line = ((low[axis] + h * (np.arange(n) + 0.5)) / scale[axis]).astype(np.float32)
            bend = bends[0] * smooth_noise(rng, size, spacing, 90.0) + bends[1] * smooth_noise(rng, size, spacing, 32.0)
            if lean and axis == 0:  # the spine and all around it bent to a side
                height = low[2] + spacing[2] * (np.arange(shape[2]) + 0.5)
                bend += (lean * np.cos(height / 75)).astype(np.float32)
            self.axes.append(line)
            self.reach.append(float(np.abs(bend).max()))
            bent.append(bend + line.reshape([-1 if a == axis else 1 for a in range(3)]))
        self.X, self.Y, self.Z = bent
        self.hu = np.full(shape, AIR, np.float32)
        self.label = np.zeros(shape, np.uint8)
        self.taken = np.full(shape, 40, np.float32)  # distance to the kidneys, around which other organs mould

    def box(self, low, high, margin: float = 4.0) -> Box:
        out = []
        for line, reach, a, b in zip(self.axes, self.reach, low, high, strict=True):
            start, stop = np.searchsorted(line, (a - reach - margin, b + reach + margin))
            out.append(slice(int(start), int(stop)))
        return tuple(out)

    def at(self, box: Box, centre=(0, 0, 0)) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        return tuple(q[box] - np.float32(c) for q, c in zip((self.X, self.Y, self.Z), centre, strict=True))

    def ellipsoid(self, centre, radii, turn=(0, 0, 0), *, reach: float = 4.0) -> Shape:
        """`turn`: degrees about x, y, z."""
        matrix = Rotation.from_euler("xyz", turn, degrees=True).as_matrix().astype(np.float32)
        half = np.sqrt((matrix**2) @ (np.asarray(radii, float) ** 2))
        box = self.box(np.subtract(centre, half), np.add(centre, half), reach)
        p = self.at(box, centre)
        first = second = 0
        for column, r in zip(matrix.T, radii, strict=True):
            u = (column[0] * p[0] + column[1] * p[1] + column[2] * p[2]) / np.float32(r)
            first, second = first + u * u, second + (u / np.float32(r)) ** 2
        first = np.sqrt(first)
        return box, first * (first - 1) / np.sqrt(second + 1e-9)

    def tube(self, points, radii, *, pieces: int = 10, reach: float = 4.0) -> Shape:
        """Distance to a smooth curve through `points`, less the radius there."""
        nodes = np.column_stack([points, np.broadcast_to(radii, len(points))])
        line = curve(nodes, pieces)
        spread = line[:, 3:]
        outer = self.box((line[:, :3] - spread).min(0), (line[:, :3] + spread).max(0), reach)
        distance = np.full([max(s.stop - s.start, 0) for s in outer], 1e3, np.float32)
        for a, b in pairwise(line):
            r = max(a[3], b[3])
            box = self.box(np.minimum(a, b)[:3] - r, np.maximum(a, b)[:3] + r, reach)
            box = tuple(slice(max(s.start, o.start), min(s.stop, o.stop)) for s, o in zip(box, outer, strict=True))
            if any(s.start >= s.stop for s in box):
                continue
            local = part_of(outer, box)
            p, d = self.at(box, a[:3]), (b - a).astype(np.float32)
            t = np.clip((p[0] * d[0] + p[1] * d[1] + p[2] * d[2]) / (d[:3] @ d[:3] + 1e-6), 0, 1)
            square = (p[0] - t * d[0]) ** 2 + (p[1] - t * d[1]) ** 2 + (p[2] - t * d[2]) ** 2
            distance[local] = np.minimum(distance[local], np.sqrt(square) - (np.float32(a[3]) + t * d[3]))
        return outer, distance

    def inside(self, shape: Shape, margin: float = 2.0) -> Shape:
        """The part of a shape inside the abdominal cavity and outside the kidneys."""
        return shape[0], np.maximum(shape[1], np.maximum(margin - self.room[shape[0]], 2.5 - self.taken[shape[0]]))

    def fill(self, inward: np.ndarray, hu) -> None:
        """Mix `hu` into the whole volume where the distance `inward` (mm) is positive."""
        share = np.clip(inward / np.float32(self.edge) + np.float32(0.5), 0, 1)
        self.hu += share * (hu - self.hu)

    def paint(self, shape: Shape, hu, label: int | None = None, *, halo: float = 0.0) -> None:
        """Mix `hu` in with a soft edge; set `label` (None leaves labels); `halo` mm of fat are kept free around it."""
        box, distance = shape
        if halo:
            self.paint((box, np.maximum(distance - halo, 1.5 - self.room[box])), FAT, 0)
        share = np.clip(0.5 - distance / self.edge, 0, 1)
        self.hu[box] += share * (hu - self.hu[box])
        if label is not None:
            self.label[box][distance < 0] = label

    def draw(self, rows, side: int = 1) -> None:
        """Tubes of a table, mirrored for side -1: points, radii, pieces, HU or a tissue's name, label, halo (mm)."""
        for points, radii, pieces, hu, label, halo in rows:
            hu = self.tissue[hu] if isinstance(hu, str) else hu
            self.paint(self.tube(np.multiply(points, (side, 1, 1)), radii, pieces=pieces), hu, label, halo=halo)

    def has(self, part: str) -> bool:
        return self.parts.get(part, (1.0,))[0] > 0

    def jitter(self, shift: float, scale: float = 0.06, turn: float = 4.0, *, part: str = ""):
        """Pose of one organ: (mm, factor, degrees)."""
        size, displaced = self.parts.get(part, (1.0, np.zeros(3)))
        move = np.clip(self.rng.standard_normal(3), -2, 2) * shift * self.spread + displaced
        size *= float(np.exp(np.clip(self.rng.standard_normal(), -2, 2) * scale * self.spread))
        return move, size, self.rng.uniform(-turn, turn, 3) * self.spread
