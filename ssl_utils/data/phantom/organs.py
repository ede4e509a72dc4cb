"""The abdomen of the procedural trunk CT: bowel, the thirteen labelled organs and their vessels.

Positions and sizes are millimetres of the standard trunk (see `canvas`), intensities Hounsfield units.
"""

import numpy as np

from ssl_utils.data.phantom.canvas import FAT, WATER, Canvas, Shape, part_of, smooth_min
from ssl_utils.data.phantom.trunk import GAS, spine_y

TUBES = {  # x, y, z and radius along an organ
    "colon": [(96, 12, -180, 27), (104, 0, -110, 26), (112, 4, -62, 23), (96, 40, -42, 20), (60, 70, -52, 19),
              (0, 80, -60, 18), (-55, 70, -40, 18), (-98, 38, -5, 18), (-116, -2, 8, 17), (-118, -26, -45, 15),
              (-106, -12, -110, 15), (-88, 14, -180, 16)],
    "stomach": [(-46, -8, 82, 22), (-64, 4, 71, 31), (-68, 28, 42, 30), (-52, 52, 6, 24), (-18, 62, -10, 19),
                (14, 50, -4, 14), (26, 40, -2, 10)],
    "duodenum": [(28, 40, -4, 11), (48, 26, -4, 12), (56, 8, -30, 12), (46, -2, -62, 11.5), (12, -6, -70, 10.5),
                 (-22, 0, -58, 10)],
    "pancreas": [(36, 6, -34, 11.5), (33, 12, -18, 14), (16, 24, -4, 10), (-8, 25, 8, 10.5), (-38, 6, 14, 11.5),
                 (-62, -16, 18, 11), (-78, -28, 22, 7.5)],
    "cava": [(20, -8, 112, 12), (24, -18, 92, 12), (24, -20, 70, 11.5), (23, -16, 40, 11), (21, -14, 0, 10.5),
             (20, -12, -50, 10), (18, -12, -112, 9.5)],
    "portal vein": [(46, 2, 34, 6.5), (34, 6, 22, 7), (17, 9, 4, 7), (14, 9, -8, 5.5)],
    "splenic vein": [(17, 9, 4, 5.2), (-6, 8, 8, 5), (-38, -5, 17, 4.8), (-62, -24, 24, 4.5), (-82, -34, 28, 3.6)],
    "esophagus": [(-2, -20, 215, 8.5), (-2, -28, 170, 8.5), (-10, -28, 125, 8.5), (-18, -26, 100, 9),
                  (-26, -20, 86, 9.5), (-36, -14, 78, 9)],
}  # fmt: skip
LIVER_VESSELS = (  # hepatic veins to the cava, portal branches from the hilum
    ([(24, -22, 84), (60, 5, 70), (95, 15, 40)], "cava"),
    ([(24, -20, 84), (30, 30, 70), (40, 60, 45)], "cava"),
    ([(20, -20, 84), (0, 20, 76), (-25, 45, 66)], "cava"),
    ([(44, 2, 34), (80, -5, 32), (112, -20, 20)], "portal"),
    ([(70, -2, 33), (95, 25, 50), (110, 30, 62)], "portal"),
    ([(44, 2, 34), (28, 30, 46), (-10, 48, 56)], "portal"),
    ([(75, -4, 32), (95, -20, 0), (105, -22, -25)], "portal"),
)
MESENTERY = (  # coeliac and upper mesenteric artery, upper mesenteric vein: as `Canvas.draw` takes them
    ([(-8, -16, 12), (-6, 2, 16), (24, 2, 24)], 3.2, 6, "aorta", 0, 0),
    ([(-7, -16, -2), (-6, 2, -20), (-4, 6, -90)], 3.4, 6, "aorta", 0, 0),
    ([(14, 9, -6), (8, 12, -40), (6, 16, -90)], [5.2, 5, 4], 6, "portal", 0, 0),
)


def along(name: str) -> tuple[np.ndarray, np.ndarray]:
    """Points (n, 3) and radii (n,) of a tube of the table."""
    return np.array(TUBES[name], float)[:, :3], np.array(TUBES[name], float)[:, 3]


def bowel(c: Canvas, *, oral: bool) -> None:
    """Small bowel as a winding tube, colon as a frame around it; gas floats to the front."""
    rng = c.rng
    grid = np.mgrid[-80:81:27, -8:70:25, -172:-22:25].reshape(3, -1).T
    grid = grid + rng.normal(0, 7, grid.shape)
    path = wander(grid[(np.abs(grid[:, 0]) > 45) | (grid[:, 1] > 14)], rng)
    shape = c.tube(path, np.clip(rng.normal(11.5, 2.2, len(path)), 7, 16), pieces=2 * len(path))
    hollow(c, shape, wall=2.6, gas=rng.uniform(66, 90), content=180 if oral else 18)
    path, radii = along("colon")
    path[5, 2] += rng.normal(0, 10)
    path = path * (rng.uniform(0.95, 1.05), 1, 1) + rng.normal(0, 4, path.shape)
    box, distance = c.tube(path, radii, pieces=44)
    px, py, pz = c.at(box)
    haustra = 2.2 * np.sin((px - pz + 0.5 * py) / 6.5)
    hollow(c, (box, distance + haustra), wall=2.4, gas=rng.uniform(20, 70), content=30, speckle=70)


def wander(points: np.ndarray, rng) -> np.ndarray:
    """Order the points so that each is followed by a near one."""
    left, path = list(points[1:]), [points[0]]
    while left:
        gaps = np.linalg.norm(np.array(left) - path[-1], axis=1) * rng.uniform(0.8, 1.4, len(left))
        path.append(left.pop(int(gaps.argmin())))
    return np.array(path)


def hollow(c: Canvas, shape: Shape, *, wall: float, gas: float, content: float, speckle=0.0, label=0) -> None:
    """A gut: wall, content, and gas in front of the plane y = `gas`."""
    box, distance = c.inside(shape, 3.0)
    c.paint((box, distance), c.tissue["gut"], label, halo=1.5)
    fill = content + speckle * (c.grain[box] - 0.5) if speckle else content
    c.paint((box, distance + wall), fill)
    if "gas" in c.findings or "fluid" in c.findings:
        gas += -60 if "gas" in c.findings else 60
    above = c.Y[box] - (60 - gas) if "prone" in c.findings else gas - c.Y[box]
    c.paint((box, np.maximum(distance + wall + 0.5, above)), GAS)


def liver(c: Canvas) -> np.ndarray:
    """Returns the shift of the liver from its standard position (mm)."""
    move, scale, turn = c.jitter(3, 0.05, part="liver")
    right = c.ellipsoid(np.add((80, -2, 30), move), np.multiply((78, 92, 96), scale), turn, reach=30)
    radii = np.multiply((66 + c.rng.uniform(-10, 14), 40, 32), scale)
    left = c.ellipsoid(np.add((2, 46, 58), move), radii, turn, reach=30)
    box = tuple(slice(min(a.start, b.start), max(a.stop, b.stop)) for a, b in zip(right[0], left[0], strict=True))
    both = np.full((2, *c.X[box].shape), 60, np.float32)
    for full, (inner, distance) in zip(both, (right, left), strict=True):
        full[part_of(box, inner)] = distance
    x, y, z = c.at(box, move)
    under = 0.72 * (-62 + 0.95 * np.clip(112 - x, -10, 110) - 0.12 * y - z)
    distance = -smooth_min(-smooth_min(*both, 28), -under, 14)
    column = 24 - np.hypot(c.X[box] - 26, c.Y[box] + 48) - 0.5 * np.clip(z - 45, 0, 20)  # adrenal, crus and spine
    distance = -smooth_min(-distance, -column, 6)
    if "left lobe only" in c.findings:
        distance = np.maximum(distance, x - 42 - 0.3 * y)
    if "right lobe only" in c.findings:
        distance = np.maximum(distance, 30 - x + 0.2 * y)
    if "shrunken liver" in c.findings:  # a nodular surface
        distance = distance + 2.5 * c.fold[box]
    c.paint(c.inside((box, distance), 2.5), c.tissue["liver"], 6, halo=1.5)
    for points, vessel in LIVER_VESSELS:
        box, distance = c.tube(np.add(points, move) + c.rng.normal(0, 3, (3, 3)), [5.5, 4.5, 1.5], pieces=5)
        c.paint((box, np.where(c.label[box] == 6, distance, 99)), c.tissue[vessel])
    return move


def gallbladder(c: Canvas, move: np.ndarray) -> None:
    turn = (c.rng.uniform(10, 35), c.rng.uniform(0, 25), 0)
    size, displaced = c.parts.get("gallbladder", (1.0, 0))
    radii = np.multiply((16, 17, 30), c.rng.uniform(0.88, 1.12) * size)
    box, distance = c.inside(c.ellipsoid(np.add((62, 50, -22), move + displaced), radii, turn), 4)
    c.paint((box, distance), c.tissue["liver"] * 0.5 + 20, 4)
    c.paint((box, distance + 2.5), c.tissue["gallbladder"])
    if "gallstones" in c.findings:  # they lie at the back
        c.paint((box, np.maximum(distance + 3, c.Y[box] - 44 - 3 * c.grain[box])), c.rng.uniform(90, 420))


def spleen(c: Canvas) -> None:
    move, scale, turn = c.jitter(4, 0.07, part="spleen")
    radii = np.multiply((37, 49, 52), scale * (1.35 if "large spleen" in c.findings else 1.0))
    box, distance = c.ellipsoid(np.add((-102, -40, 36), move), radii, np.add(turn, (15, -12, 20)))
    hollowed = 26 - np.hypot(c.X[box] + 60, c.Y[box] + 2)  # the stomach and kidney dent its inner face
    hu = c.tissue["spleen"] + c.mottle * np.sin(5 * c.fold[box]) if c.mottle else c.tissue["spleen"]
    c.paint(c.inside((box, np.maximum(distance, hollowed)), 2.5), hu, 1, halo=2)


def stomach(c: Canvas, *, oral: bool) -> None:
    move, scale, _ = c.jitter(4, 0.08, part="stomach")
    path, radii = along("stomach")
    box, distance = c.tube(path + move, radii * scale, pieces=14)
    folds = (box, distance + 1.5 * np.clip(c.fold[box], -1.5, 1.5))
    gas, content = c.rng.uniform(42, 66), c.rng.uniform(120, 190) if oral else 22
    if c.has("stomach"):
        hollow(c, folds, wall=4.2, gas=gas, content=content, speckle=16, label=7)
    path, radii = along("duodenum")
    hollow(c, c.tube(path + move * 0.4, radii, pieces=14), wall=2.8, gas=60, content=120 if oral else 15)


def pancreas(c: Canvas, move: np.ndarray) -> None:
    path, radii = along("pancreas")
    box, distance = c.tube(path + move, radii * c.jitter(0, 0.08, part="pancreas")[1], pieces=14)
    lobes = distance + 1.6 * np.clip(c.fold[box], -1.5, 1.5)
    c.paint(c.inside((box, lobes), 3), c.tissue["pancreas"] + 8 * c.fold[box], 11, halo=1.5)


def kidney(c: Canvas, side: int, label: int) -> np.ndarray:
    """Cortex, pyramids and the fat of the sinus; returns the point at which vessels enter."""
    name = "right kidney" if side > 0 else "left kidney"
    move, scale, turn = c.jitter(3.5, 0.06, part=name)
    centre = np.add((side * 66, -46, -34 if side > 0 else -22), move * (1, 0.6, 1.6))
    hilum = np.add(centre, (side * -19, 12, 0))
    if not c.has(name):
        return hilum
    tilt = np.add(turn, (14, side * -10, side * 28))  # upper pole towards the spine and the back, hilum to the front
    box, distance = c.ellipsoid(centre, np.multiply((27, 29, 56), scale), tilt, reach=14)
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
    c.paint(c.ellipsoid(np.add(hilum, (side * 3, -4, 0)), (7, 5, 13), tilt), c.urine)
    if "hydronephrosis" in c.findings and c.rng.random() < 0.6:
        c.paint(c.ellipsoid(np.add(hilum, (side * 5, -2, 0)), c.rng.uniform((13, 11, 22), (20, 15, 36)), tilt), WATER)
    c.taken[box] = np.minimum(c.taken[box], distance)
    return hilum


def vessels(c: Canvas, hila: dict[int, np.ndarray], move: np.ndarray) -> None:
    """Aorta, inferior vena cava, portal and splenic veins and oesophagus with their labels; branches without."""
    t, z = c.tissue, np.array([185, 150, 110, 70, 30, -10, -50, -85, -108])
    sway = c.rng.normal(0, 2.0)
    aorta = np.column_stack([np.interp(z, [-108, 30, 110, 185], [-4, -8, -20, -25]) + sway, spine_y(z) + 29, z])
    aorta[:4, 1] -= (17, 12, 6, 2)
    wide = np.interp(z, [-108, 30, 150], [8.6, 10.5, 12.5]) * c.jitter(0, 0.07, part="aorta")[1]
    if "winding aorta" in c.findings:
        aorta[:, 0] += 15 * np.sin(z / 32 + c.rng.uniform(0, 6))
    if "aneurysm" in c.findings:
        wide[5:8] += c.rng.uniform(8, 18)
        aorta[5:8, 1] += 8
    cava, cava_radii = along("cava")
    for side, drop in ((1, -7), (-1, -5)):
        for root, r, hu, lift in ((aorta[5], 3.0, t["aorta"], -2), (cava[4], 4.6, 0.5 * (t["cava"] + t["cortex"]), 6)):
            bend = (root + hila[side]) / 2 + (0, lift, 0)
            c.paint(c.tube([np.add(root, (0, 0, drop)), bend, hila[side]], r, pieces=5), hu)
        artery = [(-4, -14, -100), (side * 24, -22, -135), (side * 44, -24, -175)]
        vein = [(16, -14, -105), (side * 28 + 6, -28, -135), (side * 48, -34, -175)]
        c.draw([(artery, [7, 6, 5.5], 5, "aorta", 0, 0), (vein, [9, 7.5, 6.5], 5, "cava", 0, 0)])
    c.draw(MESENTERY)
    for name, pieces in (("portal vein", 8), ("splenic vein", 10)):
        path, radii = along(name)
        c.draw([(path + move, radii * c.parts.get("portal", (1.0,))[0], pieces, "portal", 10, 0.5)])
    wall = "myocardium" if "aneurysm" in c.findings else "aorta"  # a wide aorta is lined by a clot
    width = cava_radii * c.jitter(0, 0.08, part="cava")[1]
    c.draw([(cava, width, 12, "cava", 9, 1), (aorta, wide, 16, wall, 8, 1)])
    if "aneurysm" in c.findings:
        c.draw([(aorta, np.clip(wide - 1.5, 0, 13), 16, "aorta", None, 0)])
    if "dissection" in c.findings:
        box, distance = c.tube(aorta, wide, pieces=16)
        c.paint((box, np.maximum(distance, c.X[box] + 7 + 5 * np.sin(c.Z[box] / 40))), 0.35 * t["aorta"] + 30)
    for _ in range(22):  # small vessels of the mesentery, seen where they cross fat
        aim = c.rng.uniform((-85, 10, -150), (85, 66, -30))
        start = np.array([4, 12, c.rng.uniform(-70, -30)])
        box, distance = c.tube([start, (start + aim) / 2 + c.rng.normal(0, 6, 3), aim], [2.4, 2, 1.3], pieces=4)
        c.paint((box, np.where(c.hu[box] < -40, distance, 99)), t["portal"])
    path, radii = along("esophagus")
    wider = c.parts.get("esophagus", (1.0,))[0]
    box, distance = c.tube(path, radii * wider, pieces=12)
    c.paint((box, distance), 0.5 * t["gut"] + 20, 5, halo=1)
    if wider > 1:
        c.paint((box, distance + 5), 25 if "fluid" in c.findings else GAS)
    else:
        c.paint((box, np.maximum(distance + 6, np.sin(c.Z[box] / 9) * 9)), -300)


def adrenal(c: Canvas, side: int, label: int) -> None:
    """Two thin limbs that diverge towards the back, like an inverted V or Y, a few slices high."""
    move, scale, _ = c.jitter(1.5, 0.05)
    thick = c.parts.get("adrenals", (1.0,))[0]
    tip = np.add((33, -25, 28) if side > 0 else (-31, -22, 22), move * 0.7)
    box = c.box(np.subtract(tip, (18, 28, 18)), np.add(tip, (18, 10, 18)))
    x, y, z = c.at(box, tip)
    parts = []
    for dx, dy in np.multiply([(-4, -24), (side * 12, -20)], scale):
        t = np.clip((x * dx + y * dy) / (dx * dx + dy * dy), 0, 1)
        flat = np.hypot(x - t * dx, y - t * dy) - (3.0 - 0.5 * t) * thick
        parts.append(np.maximum(flat, np.abs(z + 0.3 * y + 3) - 12 * scale))
    c.paint((box, smooth_min(*parts, 3)), c.tissue["adrenal"], label, halo=3)
