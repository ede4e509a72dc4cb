"""The belly of the procedural trunk CT: bowel, the thirteen labelled organs and their vessels.

Positions and sizes are millimetres of the standard trunk (see `canvas`), intensities Hounsfield units.
"""

import numpy as np

from ssl_utils.data.phantom.canvas import FAT, Canvas, smooth_min
from ssl_utils.data.phantom.trunk import GAS, spine_y


def bowel(c: Canvas, *, oral: bool) -> None:
    """Small bowel as a winding tube, colon as a frame around it; gas floats to the front."""
    rng = c.rng
    grid = np.mgrid[-80:81:27, -8:70:25, -172:-22:25].reshape(3, -1).T
    grid = grid + rng.normal(0, 7, grid.shape)
    path = wander(grid[(np.abs(grid[:, 0]) > 45) | (grid[:, 1] > 14)], rng)
    radius = np.clip(rng.normal(11.5, 2.2, len(path)), 7, 16)
    hollow(
        c, c.tube(path, radius, pieces=2 * len(path)), wall=2.6, gas=rng.uniform(66, 90), content=180 if oral else 18
    )
    frame = np.array(
        [
            (96, 12, -180),
            (104, 0, -110),
            (112, 4, -62),
            (96, 40, -42),
            (60, 70, -52),
            (0, 80, -60 + rng.normal(0, 10)),
            (-55, 70, -40),
            (-98, 38, -5),
            (-116, -2, 8),
            (-118, -26, -45),
            (-106, -12, -110),
            (-88, 14, -180),
        ]
    )
    path = frame * (rng.uniform(0.95, 1.05), 1, 1) + rng.normal(0, 4, frame.shape)
    box, distance = c.tube(path, [27, 26, 23, 20, 19, 18, 18, 18, 17, 15, 15, 16], pieces=44)
    px, py, pz = c.at(box)
    haustra = 2.2 * np.sin((px - pz + 0.5 * py) / 6.5)
    hollow(c, (box, distance + haustra), wall=2.4, gas=rng.uniform(20, 70), content=30, speckle=70)


def wander(points: np.ndarray, rng) -> np.ndarray:
    """Order the points so that each is followed by one close by."""
    left, path = list(points[1:]), [points[0]]
    while left:
        gaps = np.linalg.norm(np.array(left) - path[-1], axis=1) * rng.uniform(0.8, 1.4, len(left))
        path.append(left.pop(int(gaps.argmin())))
    return np.array(path)


def hollow(
    c: Canvas, shape, *, wall: float, gas: float, content: float, speckle: float = 0.0, label: int | None = 0
) -> None:
    """A gut: wall, content, and gas in front of the plane y = `gas`."""
    box, distance = c.inside(shape, 3.0)
    c.paint((box, distance), c.tissue["gut"], label, halo=1.5)
    fill = content + speckle * (c.grain[box] - 0.5) if speckle else content
    c.paint((box, distance + wall), fill)
    c.paint((box, np.maximum(distance + wall + 0.5, gas - c.Y[box])), GAS)


def liver(c: Canvas) -> None:
    move, scale, turn = c.jitter(3, 0.05)
    right = c.ellipsoid(np.add((80, -2, 30), move), np.multiply((78, 92, 96), scale), turn, reach=30)
    left = c.ellipsoid(
        np.add((2, 46, 58), move), np.multiply((66 + c.rng.uniform(-10, 14), 40, 32), scale), turn, reach=30
    )
    box = tuple(slice(min(a.start, b.start), max(a.stop, b.stop)) for a, b in zip(right[0], left[0], strict=True))
    both = []
    for inner, distance in (right, left):
        full = np.full([s.stop - s.start for s in box], 60, np.float32)
        full[tuple(slice(i.start - o.start, i.stop - o.start) for i, o in zip(inner, box, strict=True))] = distance
        both.append(full)
    x, y, z = c.at(box, move)
    under = 0.72 * (-62 + 0.95 * np.clip(112 - x, -10, 110) - 0.12 * y - z)
    distance = -smooth_min(-smooth_min(*both, 28), -under, 14)
    column = (
        24 - np.hypot(c.X[box] - 26, c.Y[box] + 48) - 0.5 * np.clip(z - 45, 0, 20)
    )  # adrenal, crus and spine lie there
    distance = -smooth_min(-distance, -column, 6)
    c.paint(c.inside((box, distance), 2.5), c.tissue["liver"], 6, halo=1.5)
    for points, r in (  # hepatic veins to the cava, portal branches from the hilum
        ([(24, -22, 84), (60, 5, 70), (95, 15, 40)], "cava"),
        ([(24, -20, 84), (30, 30, 70), (40, 60, 45)], "cava"),
        ([(20, -20, 84), (0, 20, 76), (-25, 45, 66)], "cava"),
        ([(44, 2, 34), (80, -5, 32), (112, -20, 20)], "portal"),
        ([(70, -2, 33), (95, 25, 50), (110, 30, 62)], "portal"),
        ([(44, 2, 34), (28, 30, 46), (-10, 48, 56)], "portal"),
        ([(75, -4, 32), (95, -20, 0), (105, -22, -25)], "portal"),
    ):
        branch = c.tube(np.add(points, move) + c.rng.normal(0, 3, (3, 3)), [5.5, 4.5, 1.5], pieces=5)
        c.paint((branch[0], np.where(c.label[branch[0]] == 6, branch[1], 99)), c.tissue[r])
    return move


def gallbladder(c: Canvas, move) -> None:
    turn = (c.rng.uniform(10, 35), c.rng.uniform(0, 25), 0)
    shape = c.inside(
        c.ellipsoid(np.add((62, 50, -22), move), np.multiply((16, 17, 30), c.rng.uniform(0.88, 1.12)), turn), 4
    )
    c.paint(shape, c.tissue["liver"] * 0.5 + 20, 4)
    c.paint((shape[0], shape[1] + 2.5), c.tissue["gallbladder"])


def spleen(c: Canvas) -> None:
    move, scale, turn = c.jitter(4, 0.07)
    scale *= 1.35 if "large spleen" in c.findings else 1.0
    box, distance = c.ellipsoid(
        np.add((-102, -40, 36), move), np.multiply((37, 49, 52), scale), np.add(turn, (15, -12, 20))
    )
    hollowed = 26 - np.hypot(c.X[box] + 60, c.Y[box] + 2)  # the stomach and kidney dent its inner face
    c.paint(c.inside((box, np.maximum(distance, hollowed)), 2.5), c.tissue["spleen"], 1, halo=2)


def stomach(c: Canvas, *, oral: bool) -> None:
    move, scale, _ = c.jitter(4, 0.08)
    points = np.add(
        [(-46, -8, 82), (-64, 4, 71), (-68, 28, 42), (-52, 52, 6), (-18, 62, -10), (14, 50, -4), (26, 40, -2)], move
    )
    shape = c.tube(points, np.multiply([22, 31, 30, 24, 19, 14, 10], scale), pieces=14)
    folds = (shape[0], shape[1] + 1.5 * np.clip(c.fold[shape[0]], -1.5, 1.5))
    hollow(
        c,
        folds,
        wall=4.2,
        gas=c.rng.uniform(42, 66),
        content=c.rng.uniform(120, 190) if oral else 22,
        speckle=16,
        label=7,
    )
    path = [(28, 40, -4), (48, 26, -4), (56, 8, -30), (46, -2, -62), (12, -6, -70), (-22, 0, -58)]
    duodenum = c.tube(np.add(path, move * 0.4), [11, 12, 12, 11.5, 10.5, 10], pieces=14)
    hollow(c, duodenum, wall=2.8, gas=60, content=120 if oral else 15)


def pancreas(c: Canvas, move) -> None:
    line = np.add(
        [(36, 6, -34), (33, 12, -18), (16, 24, -4), (-8, 25, 8), (-38, 6, 14), (-62, -16, 18), (-78, -28, 22)], move
    )
    radii = np.multiply([11.5, 14, 10, 10.5, 11.5, 11, 7.5], c.jitter(0, 0.08)[1])
    box, distance = c.tube(line, radii, pieces=14)
    lobes = distance + 1.6 * np.clip(c.fold[box], -1.5, 1.5)
    c.paint(c.inside((box, lobes), 3), c.tissue["pancreas"] + 8 * c.fold[box], 11, halo=1.5)


def kidney(c: Canvas, side: int, label: int) -> np.ndarray:
    """Cortex, pyramids and the fat of the sinus; returns where vessels enter."""
    move, scale, turn = c.jitter(3.5, 0.06)
    centre = np.add((side * 66, -46, -34 if side > 0 else -22), move * (1, 0.6, 1.6))
    tilt = np.add(turn, (14, side * -10, side * 28))  # upper pole towards the spine and the back, hilum to the front
    box, distance = c.ellipsoid(centre, np.multiply((27, 29, 56), scale), tilt, reach=14)
    hilum = np.add(centre, (side * -19, 12, 0))
    sinus_box, sinus = c.ellipsoid(hilum, np.multiply((19, 14, 24), scale), tilt, reach=40)
    hollowed = np.full(c.hu.shape, 40, np.float32)
    hollowed[sinus_box] = sinus
    distance = -smooth_min(-distance, hollowed[box], 8)
    c.paint((box, hollowed[box]), FAT + 10, 0)
    x, y, z = c.at(box, centre)
    spokes = np.cos(4 * np.arctan2(z / 2, side * x + 8)) + 0.6 * np.cos(y / 4.5)
    pyramid = np.clip((-distance - 6) / 3, 0, 1) * np.clip(0.6 + 0.6 * spokes, 0, 1)
    hu = c.tissue["cortex"] + pyramid * (c.tissue["medulla"] - c.tissue["cortex"])
    c.paint(c.inside((box, distance), 4), hu, label, halo=c.perirenal)
    c.paint(c.ellipsoid(np.add(hilum, (side * 3, -4, 0)), (7, 5, 13), tilt), 15)
    c.taken[box] = np.minimum(c.taken[box], distance)
    return hilum


def vessels(c: Canvas, hila: dict[int, np.ndarray], move) -> None:
    """Aorta, inferior vena cava, portal and splenic veins with their labels; branches without."""
    t, z = c.tissue, np.array([185, 150, 110, 70, 30, -10, -50, -85, -108])
    sway = c.rng.normal(0, 2.0)
    aorta = np.column_stack([np.interp(z, [-108, 30, 110, 185], [-4, -8, -20, -25]) + sway, spine_y(z) + 29, z])
    aorta[:4, 1] -= (17, 12, 6, 2)
    wide = np.interp(z, [-108, 30, 150], [8.6, 10.5, 12.5]) * c.jitter(0, 0.07)[1]
    cava = np.array(
        [(20, -8, 112), (24, -18, 92), (24, -20, 70), (23, -16, 40), (21, -14, 0), (20, -12, -50), (18, -12, -112)]
    )
    for side, drop in ((1, -7), (-1, -5)):
        for root, r, hu in ((aorta[5], 3.0, t["aorta"]), (cava[4], 4.6, 0.5 * (t["cava"] + t["cortex"]))):
            bend = (root + hila[side]) / 2 + (0, 6 if hu != t["aorta"] else -2, 0)
            c.paint(c.tube([np.add(root, (0, 0, drop)), bend, hila[side]], r, pieces=5), hu)
        c.paint(
            c.tube([(-4, -14, -100), (side * 24, -22, -135), (side * 44, -24, -175)], [7, 6, 5.5], pieces=5),
            t["aorta"],
            0,
        )
        c.paint(
            c.tube([(16, -14, -105), (side * 28 + 6, -28, -135), (side * 48, -34, -175)], [9, 7.5, 6.5], pieces=5),
            t["cava"],
            0,
        )
    for points, r in (
        ([(-8, -16, 12), (-6, 2, 16), (24, 2, 24)], 3.2),
        ([(-7, -16, -2), (-6, 2, -20), (-4, 6, -90)], 3.4),
    ):
        c.paint(c.tube(points, r, pieces=6), t["aorta"], 0)  # coeliac and upper mesenteric artery
    portal = [(46, 2, 34), (34, 6, 22), (17, 9, 4), (14, 9, -8)]
    splenic = [(17, 9, 4), (-6, 8, 8), (-38, -5, 17), (-62, -24, 24), (-82, -34, 28)]
    c.paint(c.tube([(14, 9, -6), (8, 12, -40), (6, 16, -90)], [5.2, 5, 4], pieces=6), t["portal"], 0)
    c.paint(c.tube(np.add(portal, move), [6.5, 7, 7, 5.5], pieces=8), t["portal"], 10, halo=0.5)
    c.paint(c.tube(np.add(splenic, move), [5.2, 5, 4.8, 4.5, 3.6], pieces=10), t["portal"], 10, halo=0.5)
    c.paint(
        c.tube(cava, np.multiply([12, 12, 11.5, 11, 10.5, 10, 9.5], c.jitter(0, 0.08)[1]), pieces=12),
        t["cava"],
        9,
        halo=1,
    )
    c.paint(c.tube(aorta, wide, pieces=16), t["aorta"], 8, halo=1)
    gullet = [(-2, -20, 215), (-2, -28, 170), (-10, -28, 125), (-18, -26, 100), (-26, -20, 86), (-36, -14, 78)]
    for _ in range(22):  # small vessels of the mesentery, seen where they cross fat
        aim = c.rng.uniform((-85, 10, -150), (85, 66, -30))
        start = np.array([4, 12, c.rng.uniform(-70, -30)])
        box, distance = c.tube([start, (start + aim) / 2 + c.rng.normal(0, 6, 3), aim], [2.4, 2, 1.3], pieces=4)
        c.paint((box, np.where(c.hu[box] < -40, distance, 99)), t["portal"])
    shape = c.tube(gullet, [8.5, 8.5, 8.5, 9, 9.5, 9], pieces=12)
    c.paint(shape, 0.5 * t["gut"] + 20, 5, halo=1)
    c.paint((shape[0], np.maximum(shape[1] + 6, np.sin(c.Z[shape[0]] / 9) * 9)), -300)


def adrenal(c: Canvas, side: int, label: int) -> None:
    """Two thin limbs that part towards the back, like an upside-down V or Y, as high as a few slices."""
    move, scale, _ = c.jitter(1.5, 0.05)
    tip = np.add((33, -25, 28) if side > 0 else (-31, -22, 22), move * 0.7)
    parts = []
    for limb in ((-4, -24, 0), (side * 12, -20, 0)):
        box = c.box(np.subtract(tip, (18, 28, 18)), np.add(tip, (18, 10, 18)))
        x, y, z = c.at(box, tip)
        dx, dy = np.multiply(limb[:2], scale)
        t = np.clip((x * dx + y * dy) / (dx * dx + dy * dy), 0, 1)
        flat = np.hypot(x - t * dx, y - t * dy) - (3.0 - 0.5 * t)
        parts.append(np.maximum(flat, np.abs(z + 0.3 * y + 3) - 12 * scale))
    shape = (box, smooth_min(*parts, 3))
    c.paint(shape, c.tissue["adrenal"], label, halo=3)
