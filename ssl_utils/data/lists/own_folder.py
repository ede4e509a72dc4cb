"""A person's own volumes: a folder in MSD layout becomes a dataset without writing code."""

from pathlib import Path

import numpy as np

from ssl_utils.data import datalists, volumes
from ssl_utils.data.dataset import ABDOMEN, Dataset, Grid, Intensity
from ssl_utils.errors import CourseError

COARSE_EXTENT = 48  # voxels along the longest axis: what a laptop can afford
PATCH = 16  # the ROI is a multiple of it, so that patches of 8 and 16 both fit


def describe(root: Path, *, name: str) -> Dataset:
    """Read the datalist and a few headers of `root`, and choose intensity rule, spacing and ROI from them.

    `name` is that of its runs.

    CT (by the modality in dataset.json) gets the soft-tissue window; everything else its own percentiles. The fine grid
    has the median spacing; the coarse one is widened until the median volume is 48 voxels long. Smaller volumes are
    padded to the ROI.

    Raises:
        CourseError: no such folder, or nothing usable in it.
    """
    if not root.is_dir():
        raise CourseError(f"{root}: no such folder; give the folder that holds imagesTr and labelsTr with DATA=/path")
    found = datalists.from_folder(root)
    cases = [case for side in found.sides().values() for case in side]
    shapes, spacings = (np.array(side) for side in zip(*(volumes.ras_grid(case.image) for case in cases), strict=True))
    extents, spacing = shapes * spacings, np.median(spacings, axis=0)
    coarse = np.maximum(spacing, np.median(extents, axis=0).max() / COARSE_EXTENT)
    is_ct = all(channel.lower() == "ct" for channel in found.channels)
    return Dataset(
        name=name,
        title=found.name,
        source=str(root),
        licence=found.licence or "not stated",
        channels=found.channels,
        labels=found.labels,
        regions=found.regions or None,
        intensity=ABDOMEN if is_ct else Intensity("percentile", 1, 99),
        grids={"coarse": _grid(extents, coarse, 48), "fine": _grid(extents, spacing, 96)},
        tolerance=float(np.round(spacing.max(), 2)),
        folders=(),
        root=root,
    )


def _grid(extents: np.ndarray, spacing: np.ndarray, most: int) -> Grid:
    typical = np.round(np.median(extents, axis=0) / spacing / PATCH)
    largest = np.floor(2 * extents.min(0) / spacing / PATCH)  # no volume may be less than half of the ROI
    roi = np.clip(np.minimum(typical, largest) * PATCH, PATCH, most).astype(int)
    return Grid(tuple(float(np.round(s, 3)) for s in spacing), tuple(int(r) for r in roi))
