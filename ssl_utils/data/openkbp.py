"""OpenKBP, head-and-neck CT with contours for radiotherapy: from the tables of its repository to NIfTI volumes.

A patient is a folder of tables on one grid of 128 x 128 x 128 voxels, whose axes run to posterior, left and inferior:
`ct.csv` (flat index; HU + 1000, nothing outside the body), a table of indices for each contour, and
`voxel_dimensions.csv` (mm). They were made for predicting the dose. As segmentation data they mislead in several ways;
each function says which one it deals with.

Source: github.com/ababier/open-kbp (MIT); Babier et al. 2021, Med Phys 48:5549; images from The Cancer Imaging Archive.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.ndimage import binary_dilation, find_objects, label as components

from ssl_utils.data.volumes import write_nifti
from ssl_utils.errors import CourseError

PATIENTS = 340
GRID = (128, 128, 128)
VOXELS = 128**3
ORGANS = ("Brainstem", "SpinalCord", "RightParotid", "LeftParotid", "Mandible")  # label values 1 to 5
CORD = 2
CONTOURS = (*ORGANS, "Larynx", "Esophagus")
AIR, TISSUE = -1000, -700  # HU outside the body, and what the box of a volume is drawn around
MARGIN = 2  # voxels between them
SCANNED = 400  # voxels outside the contours that a scanned slice has more than
FEWEST_SLICES = 12
LARGEST_CORD = 100.0  # ml; good contours have up to 52, wrong ones 422 and more
MOST_AIR = (0.01, 0.01, 0.1, 0.1, 0.1)  # of the voxels around an organ; brainstem and cord lie in bone
AGAIN = "delete the unpacked repository and run again to load it anew"


def convert(source: Path, target: Path, progress: Callable[[int, int], None] | None = None) -> Path:
    """Convert all patients of the unpacked repository `source` and return `target`.

    Patients with all five organs and a label that `trusted` accepts go to imagesTr and labelsTr, others to imagesUn: an
    organ without a contour is not absent, it was not drawn. Patients with a volume in `target` already are skipped, and
    those with fewer than 12 scanned slices left out. `progress(done, total)` counts patients.

    Raises:
        CourseError: not 340 patients, a table that is missing or damaged, or a disk that is full or write-protected.
    """
    folders = sorted(source.glob("provided-data/*-pats/pt_*"), key=_number)
    if len(folders) != PATIENTS:
        raise CourseError(f"{source}: has {len(folders)} folders provided-data/*-pats/pt_*, not {PATIENTS}; {AGAIN}")
    for done, folder in enumerate(folders):
        if progress:
            progress(done, len(folders))
        name = f"openkbp_{_number(folder):03d}.nii.gz"
        if not any((target / images / name).exists() for images in ("imagesTr", "imagesUn")):
            _write(target, name, read_patient(folder))
    return target


def _number(folder: Path) -> int:
    return int(folder.name.removeprefix("pt_"))


def _write(target: Path, name: str, patient: tuple | None) -> None:
    if patient is None:
        return
    image, label, spacing = patient
    affine = np.diag([*spacing, 1.0])
    affine[:3, 3] = -(np.array(image.shape) - 1) / 2 * spacing  # the true origin is not given
    if label is not None:
        write_nifti(target / "labelsTr" / name, label, affine)
    write_nifti(target / ("imagesUn" if label is None else "imagesTr") / name, image, affine)  # last: it is the mark


def read_patient(folder: Path) -> tuple[np.ndarray, np.ndarray | None, np.ndarray] | None:
    """Image int16 (D, H, W) in HU, label uint8 (D, H, W) or None, and spacing (3,) in mm, all in RAS.

    None for a patient with fewer than 12 scanned slices. Where contours overlap, the lower label value wins. The
    contour of the cord ends before the scan does in a third of the patients: labelled volumes end with it, so that
    no cord is left without a label.

    Raises:
        CourseError: a table is missing or damaged.
    """
    ct, label, drawn = (np.zeros(VOXELS, dtype) for dtype in (np.int16, np.uint8, bool))
    path = folder / "ct.csv"
    indices, values = _table(path, 2).T
    ct[_whole(path, indices, 0, VOXELS - 1)] = _whole(path, values, -(2**15), 2**15 - 1).clip(0)  # none below AIR
    for value, name in reversed([*enumerate(CONTOURS, 1)]):
        if (path := folder / f"{name}.csv").exists():
            indices = _whole(path, _table(path, 1)[:, 0], 0, VOXELS - 1)
            drawn[indices] = True
            label[indices] = value if name in ORGANS else 0
    spacing = _spacing(folder / "voxel_dimensions.csv")
    ct, label, drawn = map(_ras, (ct, label, drawn))
    kept = scanned(ct, drawn)
    if kept.stop - kept.start < FEWEST_SLICES:
        return None
    lowest = kept.start + int(np.argmax((label[..., kept] == CORD).any((0, 1))))
    labelled = _cut(ct, label, slice(lowest, kept.stop))
    if trusted(*labelled, spacing):
        return *labelled, spacing
    return _cut(ct, label, kept)[0], None, spacing


def scanned(ct: np.ndarray, drawn: np.ndarray) -> slice:
    """The longest run of slices that show more than contours; `ct` and `drawn` (D, H, W), 0 where nothing is.

    Beyond the scan the CT is 0, but not inside of contours: there the image is a silhouette of the label.
    """
    full = ((ct > 0) & ~drawn).sum((0, 1)) > SCANNED
    runs = [run for (run,) in find_objects(components(full)[0])]
    return max(runs, key=lambda run: run.stop - run.start, default=slice(0, 0))


def trusted(image: np.ndarray, label: np.ndarray, spacing: np.ndarray) -> bool:
    """Whether all five organs are there, the cord has a possible size, and no organ is a silhouette in the air."""
    sizes = np.bincount(label.ravel(), minlength=1 + len(ORGANS))[1:] * np.prod(spacing) / 1000  # ml
    if sizes.min() == 0 or sizes[CORD - 1] > LARGEST_CORD:
        return False
    return all(air_around(image, label == value) <= most for value, most in enumerate(MOST_AIR, 1))


def air_around(image: np.ndarray, organ: np.ndarray) -> float:
    """The share of the voxels next to an organ (D, H, W) that are outside of the body."""
    return float((image[binary_dilation(organ) & ~organ] == AIR).mean())


def _cut(ct: np.ndarray, label: np.ndarray, slices: slice) -> tuple[np.ndarray, np.ndarray]:
    """Image in HU and label of these slices, in a box around the tissue."""
    image = ct[..., slices] + np.int16(AIR)
    box = find_objects((image > TISSUE).astype(np.uint8))[0][:2]
    box = tuple(slice(max(one.start - MARGIN, 0), one.stop + MARGIN) for one in box)
    return image[box], label[..., slices][box]


def _ras(flat: np.ndarray) -> np.ndarray:
    return flat.reshape(GRID).transpose(1, 0, 2)[::-1, ::-1, ::-1]


def _spacing(path: Path) -> np.ndarray:
    sizes = _table(path, 1, header=None)[:, 0]
    if sizes.shape != (3,) or not ((sizes > 0.5) & (sizes < 10)).all():
        raise CourseError(f"{path}: has {sizes.tolist()} instead of three voxel sizes in mm; {AGAIN}")
    return sizes[[1, 0, 2]]


def _whole(path: Path, numbers: np.ndarray, low: int, high: int) -> np.ndarray:
    """Numbers from `low` to `high` as integers."""
    if ((numbers < low) | (numbers > high)).any():
        raise CourseError(f"{path}: has {numbers.min():.7g} to {numbers.max():.7g}, not {low} to {high}; {AGAIN}")
    return numbers.astype(np.int64)


def _table(path: Path, columns: int, *, header: int | None = 0) -> np.ndarray:
    """The first `columns` columns of a table, (rows, columns): all numbers are finite."""
    try:
        numbers = pd.read_csv(path, header=header, usecols=range(columns), dtype=np.float64).to_numpy()
    except (OSError, ValueError) as error:
        raise CourseError(f"{path}: is missing or damaged ({error}); {AGAIN}") from None
    if not np.isfinite(numbers).all():
        raise CourseError(f"{path}: has a row without its number; {AGAIN}")
    return numbers
