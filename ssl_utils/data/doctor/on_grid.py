"""What a grid costs: windows of a prediction, and what the labels lose on it."""

from collections.abc import Sequence

import numpy as np

from ssl_utils.data import own_grid, round_trip, volumes
from ssl_utils.data.cases import Datalist
from ssl_utils.data.dataset import Grid
from ssl_utils.data.doctor.findings import Finding
from ssl_utils.data.formats.stored import shape_text


def on_grid(datalist: Datalist, grid: Grid, *, patch_size: Sequence[int], scale: str) -> tuple[list[Finding], str]:
    """A line about the grid of a scale, and a warning when a structure keeps less than a Dice of .9 on the round trip
    through it. Images that cannot be read are left out."""
    headers = volumes.ras_grids(case.image for case in datalist.all_cases())
    if not headers:
        return [], ""
    extent = np.median([np.prod(header, axis=0) for header in headers], axis=0)
    spacing = grid.spacing if not grid.fit else tuple(extent / grid.roi)
    millimetres = " x ".join(f"{size:.3g}" for size in spacing)
    line = (
        f"Scale {scale}: grid of {millimetres} mm, ROI {shape_text(grid.roi)}, patches of {shape_text(patch_size)}; "
        f"windows for a typical volume: {own_grid.windows(extent, grid)}"
    )
    labels = [case.label for case in datalist.training if case.label and case.label.exists()]
    parts = round_trip.parts(labels, round_trip.structures(datalist.labels, datalist.regions))
    if not parts:
        return [], line
    dices = round_trip.dices(parts, spacing)
    worst = min(dices, key=dices.get)
    line += f"; worst round trip of a structure: Dice {dices[worst]:.2f} ({worst})"
    if dices[worst] >= own_grid.LEAST:
        return [], line
    reason = f"{worst} keeps a Dice of {dices[worst]:.2f} on the round trip through the grid of scale {scale}"
    fix = "expect little more of a network; choose scale paper, or a finer --spacing, which takes more windows"
    return [Finding("grid", "warning", reason, fix)], line
