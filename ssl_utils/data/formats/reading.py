"""Choose the reader of a volume, and the checks that hold for all formats."""

from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np

from ssl_utils.data.formats import dicom, metaimage, names, nifti, nrrd
from ssl_utils.data.formats.stored import COLOUR, Stored, usable
from ssl_utils.errors import CourseError

SLANTED, SKEWED = 0.5, 5.0  # degrees off perpendicular: noted, refused
READERS = {
    **dict.fromkeys(names.NIFTI, nifti.open_nifti),
    **dict.fromkeys((".seg.nrrd", ".nrrd", ".nhdr"), nrrd.open_nrrd),
    **dict.fromkeys((".mha", ".mhd"), metaimage.open_metaimage),
    **dict.fromkeys((".mgz", ".mgh.gz", ".mgh"), nifti.open_mgh),
}


def open_volume(path: Path) -> Stored:
    """Parse the header of a volume; its voxels are decoded later.

    Raises:
        CourseError: no such file, not a format that is read, damaged, or without usable geometry or voxels.
    """
    try:
        is_folder, is_file, is_there = path.is_dir(), path.is_file(), path.exists()
        slices = names.slices(path) if is_folder and names.is_series(path) else []
    except OSError as error:
        raise CourseError(f"{path}: cannot be read ({error.strerror}); check its name and permissions") from None
    if slices:
        return _checked(path, dicom.open_series(path, slices))
    if is_folder:
        raise CourseError(f"{path}: is a folder without DICOM slices, not a volume; name a file in it")
    if not is_there:
        raise CourseError(f"{path}: no such file; check the path or the datalist")
    if not is_file:
        raise CourseError(f"{path}: is not a file; name a volume")
    if ending := names.suffix(path):
        return _checked(path, READERS[ending.lower()](path))
    if names.is_slice(path):
        dicom.refuse_single(path)
    what = names.other_format(path) or "not named as a volume"
    raise CourseError(f"{path}: is {what}; convert it to .nii.gz, or give {names.NAMES}")


def header(path: Path) -> tuple[tuple[int, ...], np.ndarray]:
    """Shape and affine, without unzipping a whole NIfTI file or checking that it is complete.

    Raises:
        CourseError: as `open_volume`.
    """
    if (names.suffix(path) or "").lower() in names.NIFTI and path.is_file():  # a pipe would be waited for
        with suppress(Exception):  # nibabel raises many kinds of errors
            shape, affine = nifti.quick_header(path)
            if usable(affine):
                return shape, affine
    stored = open_volume(path)
    return stored.shape, stored.affine


def _checked(path: Path, stored: Stored) -> Stored:
    """Refuse voxels that are not plain numbers, an unusable affine, and axes that are not perpendicular."""
    if stored.dtype.kind not in "iuf":
        what = "colour" if stored.dtype.names else "complex" if stored.dtype.kind == "c" else str(stored.dtype)
        raise CourseError(f"{path}: {COLOUR.replace('colour', what)}")
    if not usable(stored.affine):
        raise CourseError(f"{path}: its affine is singular or not finite; export it again with voxel sizes")
    axes = stored.affine[:3, :3] / np.linalg.norm(stored.affine[:3, :3], axis=0)
    off = float(np.degrees(np.arcsin(np.abs(axes.T @ axes - np.eye(3)).max().clip(0, 1))))  # at the worst pair of axes
    if off > SKEWED:
        why = f"its axes are {off:.0f} degrees off perpendicular (gantry tilt, or slices cut out of a series)"
        raise CourseError(f"{path}: {why}; resample it onto a rectangular grid, for example with dcm2niix or ITK-SNAP")
    if off <= SLANTED:
        return stored
    note = f"its axes are {off:.1f} degrees off perpendicular", "resample it, or accept slightly wrong distances"
    return replace(stored, notes=(*stored.notes, note))
