"""The frame of the procedural trunk CT: skin, fat, muscle, bones, diaphragm, lungs and heart.

Positions and sizes are millimetres of the standard trunk (see `canvas`), intensities Hounsfield units.
"""

import numpy as np

from ssl_utils.data.phantom.canvas import CORTICAL, FAT, MUSCLE, SPONGY, Canvas, Shape, smooth_min

GAS = -960.0
HEART, HEART_TURN = (-22, 36, 128), (0, 25, 20)
# tubes: points, radii, pieces, HU or tissue, label, halo
MUSCLES = (  # of the right side
    ([(34, -96, -170), (34, -94, -20), (28, -108, 100), (24, -106, 290)], [21, 21, 14, 9], 9, MUSCLE + 3, None, 0),
    ([(15, -88, -170), (15, -86, -20), (13, -112, 110)], [13, 12, 8], 6, MUSCLE, None, 0),
    ([(62, -72, -170), (60, -76, -90), (48, -78, 10)], [15, 14, 7], 5, MUSCLE, None, 0),
    ([(54, -34, -170), (46, -44, -90), (34, -54, 5)], [22, 19, 6], 6, MUSCLE + 5, None, 2),
    ([(9, -22, -45), (15, -25, 10), (21, -35, 60), (25, -42, 84)], [3, 5, 5, 3], 10, MUSCLE, None, 0),
)
AORTIC_ARCH = [(6, 12, 150), (16, 24, 182), (-6, 10, 212), (-20, -20, 217), (-25, -46, 196)]
GREAT_VESSELS = (
    (AORTIC_ARCH, [16, 15, 13, 12.5, 12], 14, "aorta", None, 0),
    ([(16 * 0.7 - 8, 6, 216), (16, 12, 300)], [6, 5], 3, "aorta", None, 0),
    ([(-14 * 0.7 - 8, 2, 216), (-14, 4, 300)], [6, 5], 3, "aorta", None, 0),
    ([(-26 * 0.7 - 8, -7, 216), (-26, -14, 300)], [6, 5], 3, "aorta", None, 0),
    ([(28, 16, 232), (0, 22, 244), (-32, 16, 300)], [7, 7, 6], 5, "cava", None, 0),
    ([(28, 14, 140), (30, 12, 215), (26, 18, 300)], [11, 10, 8], 6, "cava", None, 0),
    ([(-10, 30, 155), (-12, 12, 186), (-44, -14, 182)], [14, 13, 9], 6, "lung artery", None, 0),
    ([(-10, 14, 184), (20, -2, 178), (46, -14, 172)], [11, 10, 8], 6, "lung artery", None, 0),
)


def profile(c: Canvas, *values: float) -> np.ndarray:
    """A size that changes with height: its values (mm) at z = -170, -60, 40, 120, 200 and 290, for every slice."""
    return np.interp(c.axes[2], [-170, -60, 40, 120, 200, 290], values).astype(np.float32)


def depth(c: Canvas, a: np.ndarray, front: np.ndarray, back: np.ndarray) -> np.ndarray:
    """Distance (mm) into a rounded oval with half axes a to the sides, `front` and `back` (all per slice)."""
    b = np.where(c.Y > 0, front, back)
    x2, y2 = (c.X / a) ** 2, (c.Y / b) ** 2
    plain = x2 + y2 + np.float32(1e-6)
    rho = 0.5 * np.sqrt(plain) + 0.5 * np.sqrt(np.sqrt(x2 * x2 + y2 * y2))
    return (1 - rho) * np.sqrt(plain / (x2 / (a * a) + y2 / (b * b) + np.float32(1e-9)))


def trunk(c: Canvas, *, fat: float, domes: tuple[float, float]) -> None:
    """Skin, fat, muscle wall, diaphragm and lungs. `domes`: extra height of the diaphragm, right and left."""
    wide = profile(c, 138, 139, 143, 139, 124, 90)
    front, back = profile(c, 86, 90, 95, 97, 86, 58), profile(c, 88, 91, 96, 99, 96, 84)
    skin_wide, skin_front = profile(c, 153, 154, 158, 158, 156, 150), profile(c, 102, 105, 110, 112, 106, 92)
    skin_back = profile(c, 119, 121, 128, 132, 130, 124)
    wall = c.wall = depth(c, wide, front, back)
    grow = np.array([1.0, 0.9, 0.4]) * fat
    surface = depth(c, skin_wide + grow[0], skin_front + grow[1], skin_back + grow[2])
    c.fill(surface, 20.0)
    c.fill(surface - 2.5, FAT - 3)
    x = c.axes[0][:, None, None]
    seams = 5 * np.exp(-((x / 7) ** 2)) + 5 * np.exp(-(((np.abs(x) - 76) / 6) ** 2))  # between the bellies of the wall
    muscle = depth(
        c, wide + profile(c, 13, 13, 13, 15, 24, 32), skin_front - 3, back + profile(c, 13, 13, 13, 14, 24, 30)
    )
    c.fill(muscle - seams * np.clip(c.Y / 20, 0, 1), MUSCLE)
    right = 1 / (1 + np.exp(-x / 12))
    outward = (np.clip(np.abs(c.X) - 50, 0, None) / 84) ** 2 + ((c.Y - 10) / 104) ** 2
    dome = 86 + domes[1] + right * (12 + domes[0] - domes[1]) - 8 * np.exp(-((x / 30) ** 2))
    square = outward * outward
    dome = dome - (24 * outward + 20 * square + 34 * square * square)
    c.room = np.minimum(wall, 0.7 * (dome - c.Z) - 3)
    c.fill(c.room, FAT + 3)
    above = np.minimum(wall - 2, 0.75 * (c.Z - dome))
    c.fill(above, FAT + 20)  # the mediastinum is fat until its organs are painted
    middle = np.sqrt(np.minimum(c.X**2 + ((c.Y - 10) / 4) ** 2, c.X**2 + (c.Y + 66) ** 2)) - 28.5
    box, heart = c.ellipsoid(HEART, (64, 49, 49), HEART_TURN, reach=12)
    middle[box] = smooth_min(middle[box], heart, 12)
    c.lung = np.minimum(above, middle)
    c.fill(c.lung, -860 - 0.5 * c.Y)


def spine_y(z):
    """The y coordinate of the middle of the vertebral bodies at height z: lordosis below, kyphosis above."""
    return -47 - 16 * np.exp(-(((z - 150) / 95) ** 2)) + 5 * np.exp(-(((z + 90) / 60) ** 2))


def vertebra(z):
    """(number counted downwards from T1 = 1, so that L1 = 13; height of one, mm) at height z."""
    pitch = np.where(z > 15, 28.0, 34.0).astype(np.float32)
    return 12.5 - (z - 15) / pitch, pitch


def skeleton(c: Canvas) -> None:
    box = c.box((-48, -130, -400), (48, -20, 400))
    x, y, z = c.at(box)
    y = y - spine_y(z)
    number, pitch = vertebra(z)
    f = number - np.round(number)  # -0.5 top, 0 middle, 0.5 bottom of a vertebra
    size = np.clip(1.0 - 0.0011 * (z + 60), 0.72, 1.08)
    body = np.sqrt((x / 1.38) ** 2 + (y + 2) ** 2 * np.where(y > 0, 1.0, 1.15)) - size * (17 + 8 * f * f)
    disc = (np.abs(f) - 0.5) * pitch + np.where(z > 15, 2.2, 4.2)
    canal = np.hypot(x / 1.25, y + 25) - 8.0
    arch = np.maximum(np.maximum(canal - 5.5, 1.5 - canal), (np.abs(f - 0.05) - 0.33) * pitch)
    spinous = np.maximum(np.maximum(np.abs(x) - 3.4, np.abs(y + 44 - 9 * f) - 13), (np.abs(f - 0.2) - 0.3) * pitch)
    beam = np.hypot(y + 23 + 0.15 * np.abs(x), f * pitch) - 4.2
    cross = np.maximum(np.maximum(beam, np.abs(x) - np.where(z > 15, 30, 40)), 9 - np.abs(x))
    c.paint((box, np.maximum(canal - 1.5, -1e3)), 28.0, 0)
    c.paint((box, body), 85.0, 0)  # discs remain where no bone is painted
    bone = np.minimum(np.minimum(np.maximum(body, disc), arch), np.minimum(spinous, cross))
    c.paint((box, bone), np.where(bone > -2.6, CORTICAL - 90, SPONGY + 10 * c.rng.standard_normal()), 0)
    ribs(c)


def ribs(c: Canvas) -> None:
    """Twelve pairs of oblique arcs in the chest wall, their cartilage, the sternum, shoulder blades and hip bones."""
    shell = np.nonzero((c.wall < 1) & (c.wall > -14) & (c.Z > -75))
    x, y, z, wall = c.X[shell], c.Y[shell], c.Z[shell], c.wall[shell]
    angle = np.arctan2(np.abs(x), -(y + 15))  # 0 at the back, pi at the front
    number, pitch = 12.25 - (z + 54 * (1 - np.cos(1.3 * angle)) - 15) / 28, 28.0
    rib = np.round(number)
    limit = np.select([rib >= 12, rib == 11, rib == 10], [1.25, 1.8, 2.35], 2.8)
    across = np.sqrt(((number - rib) * pitch / 6.0) ** 2 + ((wall + 6) / 3.6) ** 2) * 3.8 - 3.8
    across = np.maximum(across, np.maximum((angle - limit) * 110, (0.24 - angle) * 100) + np.where(rib > 12, 99, 0))
    sternum = np.maximum(np.maximum(np.abs(x) - 15, np.abs(wall + 6) - 5), np.maximum(112 - z, -y))
    hard = np.where(across > -2.2, CORTICAL, SPONGY + 40)
    hard = np.where(angle > 2.25, 105 + 25 * np.sin(x / 4), hard)
    hu = np.where(sternum < across, SPONGY + 30, hard)
    share = np.clip(0.5 - np.minimum(across, sternum) / c.edge, 0, 1)
    c.hu[shell] += share * (hu - c.hu[shell])
    blade = np.maximum(np.abs(c.wall + 20 - 0.06 * (c.Z - 220)) - 3.2, np.maximum(150 - c.Z, c.Y + 45))
    blade = np.maximum(blade, np.maximum(52 - np.abs(c.X), np.abs(c.X) - 78 - 0.3 * (c.Z - 150)))
    c.fill(-blade, np.float32(CORTICAL - 120))
    for side in (1, -1):  # wings of the hip bones, cut along the crest
        box = c.box((side * 80 - 70, -110, -400), (side * 80 + 70, 60, -90))
        x, y, z = c.at(box, (side * 52, 12, 0))
        flare = 1 + np.clip(z + 180, 0, None) / 700
        plate = np.abs(np.hypot(x / flare, y) - 74) - np.clip(2.6 + (-96 - z) / 22, 2.6, 5)
        crest = z + 98 + ((np.arctan2(side * x, -y) - 1.2) / 0.11) ** 2 * 0.5
        bone = np.maximum(np.maximum(plate, crest), 16 - side * (x + side * 52))
        c.paint((box, bone), np.where(bone > -2.2, CORTICAL - 100, SPONGY), 0)


def chest(c: Canvas) -> None:
    """Heart, great vessels, airways, and the vessels of the lungs."""
    blood, cava = c.tissue["aorta"], c.tissue["cava"]
    move, scale, _ = c.jitter(4, 0.06)
    chambers = (
        ((0, 0, 0), (62, 46, 46), c.tissue["myocardium"]),
        ((-30, 6, -12), (34, 20, 22), blood),
        ((8, 18, -10), (30, 18, 24), 0.5 * (cava + blood)),
        ((36, -6, 2), (20, 24, 27), cava),
        ((-10, -24, 16), (28, 16, 18), blood),
    )
    for offset, radii, hu in chambers:
        c.paint(c.ellipsoid(np.add(HEART, move) + offset, np.multiply(radii, scale), HEART_TURN), hu)
    c.tissue["lung artery"] = 0.6 * blood + 20
    c.draw(GREAT_VESSELS)
    for side in (1, -1):
        lung_vessels(c, side, 0.7 * blood + 15)
        airway(c, c.tube([(9, -14, 205), (side * 26, -18, 184), (side * 52, -26, 160)], [7.5, 6, 4], pieces=6), 35)
    airway(c, c.tube([(5, -2, 310), (9, -14, 203)], [8.5, 8.5], pieces=3), 40)


def airway(c: Canvas, shape: Shape, hu: float) -> None:
    c.paint((shape[0], shape[1] - 1.8), hu)
    c.paint(shape, GAS - 20)


def lung_vessels(c: Canvas, side: int, hu: float) -> None:
    """Vessel trees that become thinner from the root of the lung to its surface."""
    for _ in range(18):
        aim = np.array([side * c.rng.uniform(50, 128), c.rng.uniform(-85, 80), c.rng.uniform(15, 270)])
        root = np.array([side * 42, -16, 170]) + c.rng.normal(0, 6, 3)
        knee = root + (aim - root) * 0.5 + c.rng.normal(0, 10, 3)
        for end, r in ((aim, 4.6), (knee + (aim - root) * 0.4 + c.rng.normal(0, 22, 3), 2.6)):
            start = root if r > 4 else knee
            box, distance = c.tube([start, (start + end) / 2 + c.rng.normal(0, 5, 3), end], [r, r * 0.6, 1.0], pieces=4)
            c.paint((box, np.maximum(distance, 3 - c.lung[box])), hu)
