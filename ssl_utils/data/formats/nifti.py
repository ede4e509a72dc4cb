"""NIfTI-1, NIfTI-2 and FreeSurfer MGH files: nibabel parses them, this reader makes sure that they are complete.

nibabel reads a zipped file whose checksum is wrong or missing, and ITK a truncated one, both without an error. Where a
header has two voxel sizes or orientations they choose different ones, and nibabel ignores units other than mm.
"""

import gzip
import logging
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np

from ssl_utils.data.formats import stored
from ssl_utils.data.formats.stored import Note, Stored
from ssl_utils.errors import CourseError

nib.imageglobals.logger.setLevel(logging.CRITICAL)  # problems are raised below as errors
_UNITS = {1: "metres", 3: "micrometres"}


def open_nifti(path: Path) -> Stored:
    """The parsed file, its voxels complete but still encoded."""
    data, nifti, needed = _parsed(path, "NIfTI")
    units = int(nifti.header["xyzt_units"]) & 7
    if units in _UNITS:  # some readers convert, others do not
        raise CourseError(f"{path}: its header measures in {_UNITS[units]}; convert affine and units to millimetres")
    with stored.one_error(path, "its header is damaged"):
        return _stored(nifti, (*stored.exactly(path, data, needed), *_two_frames(nifti), *_two_sizes(path, nifti)))


def open_mgh(path: Path) -> Stored:
    """An .mgh or .mgz file."""
    data, image, needed = _parsed(path, "MGH")
    guessed = not int(image.header["goodRASFlag"])
    notes = (stored.no_orientation("its header says that its axes are guessed"),) if guessed else ()
    return _stored(image, stored.exactly(path, data[:needed], needed) + notes)  # scan parameters and tags may follow


def quick_header(path: Path) -> tuple[tuple[int, ...], np.ndarray]:
    """Shape and affine from the first bytes, without unzipping the file or reading what comes before its voxels."""
    with (gzip.open if path.name.lower().endswith(".gz") else open)(path, "rb") as stream:
        start = stream.read(stored.START)
    header = _header(_reader(path, "NIfTI", start), start)
    return header.get_data_shape(), header.get_best_affine()


def _reader(path: Path, kind: str, data: bytes) -> type:
    """nibabel's class for the content, whatever the file is called."""
    second = data[4:8] == b"n+2\0"
    size = (540 if second else 348).to_bytes(4, "little")
    if kind == "MGH" and data[:4] == b"\0\0\0\1":
        return nib.MGHImage
    if kind == "NIfTI" and (second or data[344:348] == b"n+1\0") and data[:4] in (size, size[::-1]):
        return nib.Nifti2Image if second else nib.Nifti1Image
    article = "an" if kind == "MGH" else "a"
    raise CourseError(f"{path}: is not {article} {kind} file, whatever its name; export or download it again")


def _header(reader: type, data: bytes, *, check: bool = True) -> nib.spatialimages.SpatialHeader:
    return reader.header_class(data[: reader.header_class.template_dtype.itemsize], check=check)


def _parsed(path: Path, kind: str) -> tuple[bytes, nib.spatialimages.SpatialImage, int]:
    """All bytes, the image, and the bytes that header and voxels need."""
    what = f"is not a readable {kind} file"

    def needed(start: bytes) -> int:
        reader = _reader(path, kind, start)
        with stored.one_error(path, what):
            header = _header(reader, start, check=False)  # the checks take ten times as long; the image has them
            return int(header.get_data_offset()) + stored.byte_count(header.get_data_shape(), header.get_data_dtype())

    data = stored.content(path, needed)
    size = needed(data)
    with stored.one_error(path, what):
        image = _reader(path, kind, data).from_bytes(data)
        _ = image.affine  # computed here, so that an error in it is reported
    return data, image, size


def _stored(image: nib.spatialimages.SpatialImage, notes: tuple[Note, ...]) -> Stored:
    def voxels(dtype: type | None) -> np.ndarray:
        return np.asanyarray(image.dataobj) if dtype is None else image.get_fdata(dtype=dtype, caching="unchanged")

    affine = None if image.affine is None else image.affine.astype(np.float64)
    return Stored(image.shape, image.get_data_dtype(), affine, voxels, notes)


def _two_frames(nifti: nib.Nifti1Image) -> tuple[Note, ...]:
    """A header may have two orientations (sform, qform) or none; readers choose differently when they disagree."""
    sform, qform = (int(nifti.header[f"{name}_code"]) for name in ("sform", "qform"))
    if not sform and not qform:
        return (stored.no_orientation("its header has no orientation (sform and qform code 0)"),)
    frames = _frame(nifti.get_sform), _frame(nifti.get_qform)
    if sform and qform and stored.usable(frames[0]) and frames[1] is None:
        return (("its qform has no rotation (its quaternion is too long); sform is used", "save it again"),)
    if not sform or not qform or not all(map(stored.usable, frames)):
        return ()
    s, q = ("".join(map(str, nib.aff2axcodes(affine))) for affine in frames)
    two = f"its header has two orientations, {s} (sform) and {q} (qform)"
    return () if s == q else ((two, "find out which is right; sform is used"),)


def _frame(get: Callable[[], np.ndarray]) -> np.ndarray | None:
    """An affine of the header; None where nibabel cannot compute it."""
    try:
        return get()
    except ValueError:
        return None


def _two_sizes(path: Path, nifti: nib.Nifti1Image) -> tuple[Note, ...]:
    """Voxel sizes are in pixdim and in the sform; ITK uses the first, nibabel the second."""
    if not int(nifti.header["sform_code"]) or not stored.usable(nifti.get_sform()):
        return ()
    pixdim, sform = nifti.header["pixdim"][1:4], np.linalg.norm(nifti.get_sform()[:3, :3], axis=0)
    with np.errstate(all="ignore"):
        off = np.abs(pixdim[: nifti.ndim] / sform[: nifti.ndim] - 1)
    if (off < 1e-3).all():
        return ()
    sizes = " and ".join(f"{' x '.join(f'{s:.4g}' for s in numbers)} mm" for numbers in (pixdim, sform))
    two, fix = f"its header gives two voxel sizes, {sizes} (pixdim, sform)", "find out which is right, and save it so"
    if not (off < 0.02).all():
        raise CourseError(f"{path}: {two}; {fix}")
    return ((two, fix),)
