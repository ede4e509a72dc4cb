"""NIfTI-1, NIfTI-2 and FreeSurfer MGH files, decoded whole or refused in one line."""

import gzip
import logging
from pathlib import Path

import nibabel as nib
import numpy as np

from ssl_utils.data.formats.stored import START, Stored, content, exactly, usable
from ssl_utils.errors import CourseError

nib.imageglobals.logger.setLevel(logging.CRITICAL)  # what matters is raised below, in one line

_UNITS = {1: "metres", 3: "micrometres"}


def open_nifti(path: Path) -> Stored:
    """The parsed file, its voxels still encoded but known to be all there."""
    found = content(path, lambda start: _needed(path, "NIfTI", _nifti(path, start), start))
    nifti, needed = _parsed(path, "NIfTI", _nifti(path, found), found)
    units = int(nifti.header["xyzt_units"]) & 7
    if units in _UNITS:  # readers differ in whether they heed this, so that a size would be a matter of luck
        raise CourseError(f"{path}: its header measures in {_UNITS[units]}; convert affine and units to millimetres")
    return _stored(nifti, (*exactly(path, found, needed), *_two_frames(nifti), *_two_sizes(path, nifti)))


def quick_header(path: Path) -> tuple[tuple[int, ...], np.ndarray]:
    """Shape and affine from the first bytes, without unzipping the file or reading what lies before its voxels."""
    with (gzip.open if path.name.lower().endswith(".gz") else open)(path, "rb") as stream:
        start = stream.read(START)
    header = _header(_nifti(path, start), start)
    return header.get_data_shape(), header.get_best_affine()


def open_mgh(path: Path) -> Stored:
    """An .mgh or .mgz file."""
    found = content(path, lambda start: _needed(path, "MGH", _mgh(path, start), start))
    image, needed = _parsed(path, "MGH", _mgh(path, found), found)
    notes = () if int(image.header["goodRASFlag"]) else (no_orientation("its header says that its axes are guessed"),)
    return _stored(image, exactly(path, found[:needed], needed) + notes)  # scan parameters and tags may follow


def _nifti(path: Path, found: bytes) -> type:
    second = found[4:8] == b"n+2\0"
    size = (540 if second else 348).to_bytes(4, "little")
    if (not second and found[344:348] != b"n+1\0") or found[:4] not in (size, size[::-1]):
        raise CourseError(f"{path}: is not a NIfTI file, whatever its name; export or download it again")
    return nib.Nifti2Image if second else nib.Nifti1Image


def _mgh(path: Path, found: bytes) -> type:
    if found[:4] != b"\0\0\0\1":
        raise CourseError(f"{path}: is not an MGH file, whatever its name; export or download it again")
    return nib.MGHImage


def no_orientation(why: str) -> tuple[str, str]:
    """The note on a file that does not say where left is."""
    return f"{why}: left and right cannot be told", "look at the picture, and export it again with its orientation"


def _header(reader: type, found: bytes) -> nib.spatialimages.SpatialHeader:
    return reader.header_class(found[: reader.header_class.template_dtype.itemsize])


def _needed(path: Path, kind: str, reader: type, found: bytes) -> int:
    """The bytes that header and voxels need, from the header alone."""
    try:
        header = _header(reader, found)
        voxels = int(np.prod(header.get_data_shape(), dtype=object))
        return int(header.get_data_offset()) + voxels * header.get_data_dtype().itemsize
    except Exception as error:  # a damaged header fails in many ways inside the parser; the reader needs one
        raise _unreadable(path, kind, error) from None


def _parsed(path: Path, kind: str, reader: type, found: bytes) -> tuple[nib.spatialimages.SpatialImage, int]:
    """The image and the bytes that header and voxels need."""
    needed = _needed(path, kind, reader, found)
    try:
        image = reader.from_bytes(found)
        _ = image.affine
    except Exception as error:  # as above
        raise _unreadable(path, kind, error) from None
    return image, needed


def _unreadable(path: Path, kind: str, error: Exception) -> CourseError:
    return CourseError(f"{path}: is not a readable {kind} file ({error}); export or download it again")


def _stored(image: nib.spatialimages.SpatialImage, notes: tuple[tuple[str, str], ...]) -> Stored:
    def voxels(dtype: type | None) -> np.ndarray:
        return np.asanyarray(image.dataobj) if dtype is None else image.get_fdata(dtype=dtype, caching="unchanged")

    affine = None if image.affine is None else image.affine.astype(np.float64)
    return Stored(image.shape, image.get_data_dtype(), affine, voxels, notes)


def _two_frames(nifti: nib.Nifti1Image) -> tuple[tuple[str, str], ...]:
    """A header may hold two orientations (sform, qform) or none; readers choose differently when they disagree."""
    sform, qform = (int(nifti.header[f"{name}_code"]) for name in ("sform", "qform"))
    if not sform and not qform:
        return (no_orientation("its header holds no orientation (sform and qform code 0)"),)
    if not sform or not qform or not (usable(nifti.get_sform()) and usable(nifti.get_qform())):
        return ()
    s, q = ("".join(map(str, nib.aff2axcodes(affine))) for affine in (nifti.get_sform(), nifti.get_qform()))
    if s == q:
        return ()
    two = f"its header holds two orientations, {s} (sform) and {q} (qform)"
    return ((two, "find out which is right; sform is used"),)


def _two_sizes(path: Path, nifti: nib.Nifti1Image) -> tuple[tuple[str, str], ...]:
    """Voxel sizes stand in pixdim and in the sform; ITK takes the first, nibabel the second."""
    if not int(nifti.header["sform_code"]) or not usable(nifti.get_sform()):
        return ()
    pixdim, sform = nifti.header["pixdim"][1:4], np.linalg.norm(nifti.get_sform()[:3, :3], axis=0)
    with np.errstate(all="ignore"):
        off = np.abs(pixdim[: nifti.ndim] / sform[: nifti.ndim] - 1)
    if (off < 1e-3).all():
        return ()
    sizes = " and ".join(f"{' x '.join(f'{s:.4g}' for s in numbers)} mm" for numbers in (pixdim, sform))
    two, cure = f"its header gives two voxel sizes, {sizes} (pixdim, sform)", "find out which is right, and save it so"
    if not (off < 0.02).all():
        raise CourseError(f"{path}: {two}; {cure}")
    return ((two, cure),)
