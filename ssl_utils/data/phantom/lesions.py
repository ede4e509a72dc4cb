"""Findings in the procedural trunk CT: lesions, cysts and fluid (a large spleen is drawn with the organs).

Positions and sizes are millimetres of the standard trunk (see `canvas`), intensities Hounsfield units.
"""

import numpy as np
from scipy.ndimage import binary_erosion

from ssl_utils.data.phantom.canvas import WATER, Canvas

FINDINGS = {  # possible findings by field of view
    "abdomen": ("liver lesions", "kidney cyst", "ascites", "large spleen", "effusion"),
    "chest": ("effusion", "ground glass", "liver lesions", "large spleen"),
}


def abnormal(c: Canvas) -> None:
    """Paint the findings. A lesion keeps the label of its organ; fluid and cysts are background."""
    rng = c.rng
    if "liver lesions" in c.findings:
        step = max(1, round(7 / c.edge))
        voxels = np.argwhere(binary_erosion(c.label[::step, ::step, ::step] == 6, iterations=2)) * step
        for index in voxels[rng.integers(len(voxels), size=rng.integers(3, 7))]:
            centre = [q[tuple(index)] for q in (c.X, c.Y, c.Z)]
            r = rng.uniform(9, 22)
            box, distance = c.ellipsoid(centre, r * rng.uniform(0.85, 1.15, 3))
            distance = np.where(c.label[box] == 6, distance + 1.5 * c.fold[box], 99)
            c.paint((box, distance), c.tissue["liver"] - 32)
            c.paint((box, distance + 0.25 * r), max(c.tissue["liver"] - 62, 14))
    if "kidney cyst" in c.findings:
        side = rng.choice((1, -1))
        centre = (side * 92, -48 + rng.normal(0, 6), -38 + rng.normal(0, 14))
        box, distance = c.ellipsoid(centre, [rng.uniform(14, 24)] * 3)
        distance = np.maximum(distance, 3 - c.room[box])
        c.paint((box, distance), WATER)
        c.label[box][(distance < 0) & ~np.isin(c.label[box], (2, 3))] = 0
    if "ascites" in c.findings:
        free = (c.label == 0) & (c.hu < -60) & (c.hu > -140) & (c.Y > -45 + 0.1 * c.Z)
        rim = np.clip((c.room - 1.5) / c.edge, 0, 1) * np.clip((rng.uniform(16, 26) - c.room) / c.edge, 0, 1)
        c.hu += np.where(free, rim, 0) * (WATER + 4 - c.hu)
    if "effusion" in c.findings:
        level = np.clip((rng.uniform(-62, -45) - c.Y - 8 * c.fold) / c.edge, 0, 1) * (c.X * rng.choice((1, -1)) > 0)
        c.hu += level * np.clip(c.lung / c.edge + 0.5, 0, 1) * (WATER + 6 - c.hu)
    if "ground glass" in c.findings:
        cloud = np.clip(1.1 * c.cloud + 0.4 * c.fold - 0.5, 0, 1) * np.clip(c.lung / 4, 0, 1)
        cloud *= np.clip(1.4 - c.lung / 40, 0.15, 1)
        c.hu += np.where(c.hu < -400, cloud * rng.uniform(260, 460), 0).astype(np.float32)
