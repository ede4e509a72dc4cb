"""Read and write NIfTI volumes strictly: a file is read whole and correct, or refused in one line."""

import gzip
import logging
import zlib
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import nibabel as nib
import numpy as np

from ssl_utils.errors import CourseError
from ssl_utils.files import atomic

nib.imageglobals.logger.setLevel(logging.CRITICAL)  # what matters is raised below, in one line

SUFFIXES = (".nii.gz", ".nii")
_OTHER_FORMATS = {
    ".nrrd": "NRRD", ".nhdr": "NRRD", ".mha": "MetaImage", ".mhd": "MetaImage", ".dcm": "DICOM", ".ima": "DICOM",
    ".mnc": "MINC", ".hdr": "an ANALYZE or NIfTI pair", ".img": "an ANALYZE or NIfTI pair", ".gipl": "GIPL",
    ".mgz": "FreeSurfer MGH", ".mgh": "FreeSurfer MGH", ".npy": "a NumPy array", ".npz": "a NumPy archive",
}  # fmt: skip


@dataclass(frozen=True, eq=False)
class Volume:
    """One volume in the axes of its file.

    Attributes:
        array: (C, D, H, W). D, H, W are the first, second and third axis of the file (nibabel's order).
        affine: (4, 4) float64, voxel index to millimetres in RAS+ world space.
        path: the file it came from.
        stored: the voxel type on disk, such as "int16".
    """

    array: np.ndarray
    affine: np.ndarray
    path: Path
    stored: str = ""

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.array.shape[1:]

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Millimetres between voxel centres along D, H, W."""
        return tuple(float(size) for size in np.linalg.norm(self.affine[:3, :3], axis=0))

    @property
    def orientation(self) -> str:
        """Where each axis points, such as "RAS" (right, anterior, superior)."""
        return "".join(nib.aff2axcodes(self.affine))


def is_nifti(path: Path | str) -> bool:
    """Does the name say NIfTI?"""
    return Path(path).name.lower().endswith(SUFFIXES)


def read_image(path: Path | str, *, channels: int = 1) -> Volume:
    """Read an image as float32 (C, D, H, W), scaled by the slope and intercept in its header.

    Raises:
        CourseError: the file is missing, empty, truncated, of another format, has another number of axes or
            channels, holds NaN, infinite, complex or colour voxels, or has no usable affine.
    """
    path = Path(path)
    nifti = _open(path)
    array = _channels_first(path, _decode(path, nifti, np.float32), channels)
    bad = array.size - int(np.count_nonzero(np.isfinite(array)))
    if bad:
        raise CourseError(
            f"{path}: {bad} voxels are NaN or infinite in float32; replace them with a background value and save again"
        )
    return Volume(array, nifti.affine.astype(np.float64), path, str(nifti.get_data_dtype()))


def read_label(path: Path | str, *, values: Iterable[int] | None = None) -> Volume:
    """Read a label as uint8 (1, D, H, W).

    Args:
        values: the values it may hold (0 is always allowed); None allows 0 to 255.

    Raises:
        CourseError: as `read_image`, and when a voxel is not a whole number or not among `values`.
    """
    path = Path(path)
    nifti = _open(path)
    array = _channels_first(path, _decode(path, nifti, None), 1)
    label = _whole_numbers(path, array)
    if values is not None:
        allowed = {0, *(int(value) for value in values)}
        odd = [value for value in present_values(label) if value not in allowed]
        if odd:
            raise CourseError(
                f"{path}: label value {_some(odd)} is not among {_some(sorted(allowed), 20)}; "
                "correct the label, or add the value to the datalist's labels"
            )
    return Volume(label, nifti.affine.astype(np.float64), path, str(nifti.get_data_dtype()))


def count_channels(path: Path | str) -> int:
    """How many channels the file holds, by its header."""
    shape = _open(Path(path)).shape
    return int(shape[3]) if len(shape) > 3 else 1


def present_values(label: np.ndarray) -> list[int]:
    """The values that occur in a uint8 array, sorted."""
    present = np.zeros(256, dtype=bool)
    for plane in label.reshape(-1, label.shape[-1]) if label.ndim < 3 else label.reshape(-1, *label.shape[-2:]):
        present[plane] = True
    return [int(value) for value in np.flatnonzero(present)]


def check_pair(image: Volume, label: Volume) -> None:
    """Refuse a label that does not lie on its image's grid.

    Affines may differ by rounding: no corner of the volume may move by more than a tenth of a voxel.

    Raises:
        CourseError: the shapes differ, or the affines place a corner at different points.
    """
    if image.shape != label.shape:
        raise CourseError(
            f"{label.path}: shape {_by(label.shape)} differs from {_by(image.shape)} of its image {image.path.name}; "
            "resample the label onto the image (nearest neighbour), or pair the right files"
        )
    corners = np.array(list(np.ndindex(2, 2, 2))) * (np.array(image.shape) - 1)  # (8, 3) voxel indices
    moved = nib.affines.apply_affine(image.affine, corners) - nib.affines.apply_affine(label.affine, corners)
    distance = float(np.linalg.norm(moved, axis=1).max())
    if distance > 0.1 * min(image.spacing):
        raise CourseError(
            f"{label.path}: affine differs from its image {image.path.name} by up to {distance:.2g} mm; resample the "
            "label onto the image, or copy the image's affine if the voxels are known to match"
        )


def reorient(volume: Volume, orientation: str = "RAS") -> Volume:
    """Flip and permute the axes of a volume, without interpolation, so that they point as `orientation` says."""
    now = nib.io_orientation(volume.affine)
    change = nib.orientations.ornt_transform(now, nib.orientations.axcodes2ornt(tuple(orientation)))
    channels = [nib.orientations.apply_orientation(channel, change) for channel in volume.array]
    affine = volume.affine @ nib.orientations.inv_ornt_aff(change, volume.shape)
    return replace(volume, array=np.ascontiguousarray(np.stack(channels)), affine=affine)


def axis_order(volume: Volume) -> list[int]:
    """Which axis of the file runs right-left, which front-back, which head-foot."""
    along = nib.io_orientation(volume.affine)[:, 0]
    return [int(np.flatnonzero(along == axis)[0]) for axis in range(3)]


def write_nifti(path: Path | str, array: np.ndarray, affine: np.ndarray) -> None:
    """Write (D, H, W) voxels; the file appears whole or not at all, and equal input gives equal bytes."""
    path = Path(path)
    if not is_nifti(path) or array.ndim != 3:
        raise CourseError(f"{path}: only a (D, H, W) array can be written, to a name ending in .nii or .nii.gz")
    narrow = {"bool": np.uint8, "int64": np.int32, "uint64": np.uint32, "float16": np.float32}
    nifti = nib.Nifti1Image(np.asarray(array, dtype=narrow.get(array.dtype.name, array.dtype)), affine)
    nifti.header.set_xyzt_units("mm")
    content = nifti.to_bytes()
    with atomic(path) as temporary:
        compress = path.name.lower().endswith(".gz")
        temporary.write_bytes(gzip.compress(content, compresslevel=4, mtime=0) if compress else content)


def _open(path: Path) -> nib.Nifti1Image:
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


def _decode(path: Path, nifti: nib.Nifti1Image, dtype: type | None) -> np.ndarray:
    """The scaled voxels; `dtype` None keeps integers as they are stored."""
    if 0 in nifti.shape:
        raise CourseError(f"{path}: has no voxels (shape {_by(nifti.shape)}); export it again")
    try:
        with np.errstate(all="ignore"):
            return np.asanyarray(nifti.dataobj) if dtype is None else nifti.get_fdata(dtype=dtype, caching="unchanged")
    except Exception as error:  # as in _open
        raise CourseError(f"{path}: its voxels cannot be decoded ({error}); export or download it again") from None


def _channels_first(path: Path, array: np.ndarray, channels: int) -> np.ndarray:
    """(D, H, W), (D, H, W, 1...) or (D, H, W, C) to (C, D, H, W)."""
    shape = array.shape
    while array.ndim > 3 and array.shape[-1] == 1:
        array = array[..., 0]
    if array.ndim not in (3, 4):
        raise CourseError(f"{path}: is {array.ndim}D (shape {_by(shape)}), not 3D; export one 3D volume a file")
    array = array[..., None] if array.ndim == 3 else array
    if array.shape[-1] != channels:
        found = "is 3D with 1 channel" if array.shape[-1] == 1 else f"is 4D with {array.shape[-1]} volumes"
        expected = "one 3D volume" if channels == 1 else f"4D with {channels} channels"
        raise CourseError(
            f"{path}: {found} (shape {_by(shape)}), not {expected}; split or merge it, or name its channels"
        )
    return np.ascontiguousarray(np.moveaxis(array, -1, 0))


def _whole_numbers(path: Path, array: np.ndarray) -> np.ndarray:
    """uint8; values such as 1.0000001, left by a header's scale factor, are rounded."""
    if array.dtype.kind == "f":
        if not np.isfinite(array).all():
            raise CourseError(f"{path}: the label holds NaN or infinite values; save it again as uint8")
        off = np.abs(array - np.rint(array))
        if off.max() > 1e-3:
            odd = float(array.flat[int(off.argmax())])
            raise CourseError(f"{path}: the label holds {odd:.4g}, not a whole number; threshold it and save as uint8")
        array = np.rint(array)
    low, high = array.min(), array.max()
    if low < 0 or high > 255:
        raise CourseError(f"{path}: label values run from {low:.6g} to {high:.6g}; renumber them to lie in 0 to 255")
    return array.astype(np.uint8)


def _by(shape: Iterable[int]) -> str:
    return "x".join(str(int(size)) for size in shape)


def _some(values: list[int], most: int = 5) -> str:
    return ", ".join(map(str, values[:most])) + (", ..." if len(values) > most else "")
