"""NIfTI files as they lie on disk: found, told from everything else, and decoded whole or refused in one line."""

import gzip
import logging
import zlib
from collections.abc import Iterable
from pathlib import Path

import nibabel as nib
import numpy as np

from ssl_utils.errors import CourseError

nib.imageglobals.logger.setLevel(logging.CRITICAL)  # what matters is raised below, in one line

SUFFIXES = (".nii.gz", ".nii")
_OTHER_FORMATS = {
    ".nrrd": "NRRD", ".nhdr": "NRRD", ".mha": "MetaImage", ".mhd": "MetaImage", ".dcm": "DICOM", ".ima": "DICOM",
    ".mnc": "MINC", ".hdr": "an ANALYZE or NIfTI pair", ".img": "an ANALYZE or NIfTI pair", ".gipl": "GIPL",
    ".mgz": "FreeSurfer MGH", ".mgh": "FreeSurfer MGH", ".npy": "a NumPy array", ".npz": "a NumPy archive",
}  # fmt: skip


def is_nifti(path: Path | str) -> bool:
    """Does the name say NIfTI?"""
    return Path(path).name.lower().endswith(SUFFIXES)


def niftis(folder: Path, *, deep: bool = False) -> list[Path]:
    """The NIfTI files in a folder, sorted; hidden ones are left out. `deep` looks into folders inside it."""
    inside = folder.rglob("*") if deep else folder.glob("*")
    return sorted(path for path in inside if is_nifti(path) and not path.name.startswith("."))


def open_nifti(path: Path) -> nib.Nifti1Image:
    """The parsed file, its voxels still encoded but known to be all there."""
    content = _content(path)
    second = content[4:8] == b"n+2\0"
    if not second and content[344:348] != b"n+1\0":
        raise CourseError(f"{path}: is not a NIfTI file, whatever its name; export or download it again")
    try:
        nifti = (nib.Nifti2Image if second else nib.Nifti1Image).from_bytes(content)
        shape, dtype, affine = nifti.shape, nifti.get_data_dtype(), nifti.affine
        needed = int(nifti.dataobj.offset) + int(np.prod(shape, dtype=object)) * dtype.itemsize
    except Exception as error:  # a damaged header fails in many ways inside the parser; the reader needs one
        raise CourseError(f"{path}: is not a readable NIfTI file ({error}); export or download it again") from None
    if len(content) < needed:
        raise CourseError(
            f"{path}: is truncated ({len(content)} of {needed} bytes, uncompressed); copy or download it again"
        )
    if dtype.kind not in "iuf":
        what = "colour" if dtype.names else "complex" if dtype.kind == "c" else str(dtype)
        raise CourseError(f"{path}: holds {what} voxels; export one plain number per voxel (for example int16)")
    if affine is None or not _usable(affine):
        raise CourseError(f"{path}: its affine is singular or not finite; export it again with voxel sizes")
    return nifti


def decode(path: Path, nifti: nib.Nifti1Image, dtype: type | None) -> np.ndarray:
    """The scaled voxels; `dtype` None keeps integers as they are stored."""
    if 0 in nifti.shape:
        raise CourseError(f"{path}: has no voxels (shape {shape_text(nifti.shape)}); export it again")
    try:
        with np.errstate(all="ignore"):
            return np.asanyarray(nifti.dataobj) if dtype is None else nifti.get_fdata(dtype=dtype, caching="unchanged")
    except Exception as error:  # as in open_nifti
        raise CourseError(f"{path}: its voxels cannot be decoded ({error}); export or download it again") from None


def _content(path: Path) -> bytes:
    """All bytes of the file, uncompressed, with the checksum verified."""
    content = _bytes(path)
    _refuse_text(path, content)
    zipped, named_zipped = content[:2] == b"\x1f\x8b", path.name.lower().endswith(".gz")
    if zipped != named_zipped:
        name = path.name + ".gz" if zipped else path.name[:-3]
        state = "is gzip-compressed" if zipped else "is not gzip-compressed"
        raise CourseError(f"{path}: {state}, against its name; rename it to {name} or download it again")
    if zipped:
        try:
            content = gzip.decompress(content)
        except (EOFError, OSError, zlib.error, MemoryError) as error:
            raise CourseError(f"{path}: is truncated or damaged ({error}); copy or download it again") from None
        _refuse_text(path, content)
    return content


def _bytes(path: Path) -> bytes:
    try:
        if not path.exists():
            raise CourseError(f"{path}: no such file; check the path or the datalist")
        if not path.is_file():
            raise CourseError(f"{path}: is not a file; name a .nii or .nii.gz (dcm2niix converts a DICOM series)")
        if not is_nifti(path):
            suffix = path.with_suffix("").suffix if path.suffix.lower() == ".gz" else path.suffix
            what = _OTHER_FORMATS.get(suffix.lower(), "not named .nii or .nii.gz")
            raise CourseError(f"{path}: is {what}; convert it to .nii.gz, the one format read here")
        return path.read_bytes()
    except OSError as error:
        raise CourseError(f"{path}: cannot be read ({error.strerror}); check its name and permissions") from None


def _refuse_text(path: Path, content: bytes) -> None:
    start = content[:512].lstrip().lower()
    if not start:
        raise CourseError(f"{path}: is empty; copy or download it again")
    if start.startswith(b"version https://git-lfs"):
        raise CourseError(f"{path}: is a Git LFS pointer, not the image; run `git lfs pull` in its repository")
    if start.startswith((b"<!doctype", b"<html", b"<?xml")):
        raise CourseError(f"{path}: is a web page, not an image; the download needs a login or another address")


def _usable(affine: np.ndarray) -> bool:
    if not np.abs(affine).max() < 1e9:  # NaN too
        return False
    sizes = np.linalg.norm(affine[:3, :3], axis=0)
    return bool(sizes.min() > 1e-6 and abs(np.linalg.det(affine[:3, :3] / sizes)) > 1e-3)


def shape_text(shape: Iterable[int]) -> str:
    return "x".join(str(int(size)) for size in shape)
