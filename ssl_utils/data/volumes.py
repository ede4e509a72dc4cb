"""Read volumes strictly: a file is read correctly, or rejected with a one-line error. Volumes are written as NIfTI."""

import gzip
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import nibabel as nib
import numpy as np

from ssl_utils.data.cases import Image
from ssl_utils.data.formats.names import NIFTI
from ssl_utils.data.formats.reading import header, open_volume
from ssl_utils.data.formats.stored import decode, shape_text
from ssl_utils.errors import CourseError
from ssl_utils.files import atomic

OTHER_YEAR = {  # values of BraTS, and the value that is too much: what it means
    (0, 1, 2, 3, 4): "4 is the enhancing tumour of BraTS up to 2022: use dataset brats21 or brats18, or make it 3",
    (0, 1, 2, 4, 3): "3 is the enhancing tumour of BraTS since 2023: use dataset brats, or make it 4",
}
RasGrid = tuple[tuple[int, ...], tuple[float, ...]]


@dataclass(frozen=True, eq=False)
class Volume:
    """One volume in the axes of its file.

    Attributes:
        array: (C, D, H, W). D, H, W are the first, second and third axis of the file (nibabel's order).
        affine: (4, 4) float64, voxel index to millimetres in RAS+ world space.
        path: the file it came from.
        stored: the voxel type on disk, such as "int16".
        notes: (what is odd about the file though it is readable, fix).
    """

    array: np.ndarray
    affine: np.ndarray
    path: Path
    stored: str = ""
    notes: tuple[tuple[str, str], ...] = ()

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.array.shape[1:]

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Millimetres between voxel centres along D, H, W."""
        return tuple(np.linalg.norm(self.affine[:3, :3], axis=0).tolist())

    @property
    def orientation(self) -> str:
        """Where each axis points, such as "RAS" (right, anterior, superior)."""
        return "".join(nib.orientations.ornt2axcodes(self.turn))

    @property
    def ras_grid(self) -> RasGrid:
        """Voxels and spacing (mm) along right, anterior, superior."""
        return _ras_grid(self.shape, self.affine, self.turn)

    @cached_property
    def turn(self) -> np.ndarray:
        """For each axis of the file the axis of RAS along which it runs, and 1 or -1 for its direction: (3, 2)."""
        return nib.io_orientation(self.affine)


def read_image(path: Image | str, *, channels: int = 1) -> Volume:
    """Read an image as float32 (C, D, H, W), scaled by the slope and intercept in its header.

    Several files are its channels, in their order; they must have one grid.

    Raises:
        CourseError: a file is missing, empty, truncated, of another format, has another number of axes or
            channels, NaN, infinite, complex or colour voxels, or no usable affine; or the grids of channels differ.
    """
    if isinstance(path, tuple):
        return _stacked(path, channels)
    path = Path(path)
    stored = open_volume(path)
    _count_axes(path, stored.shape, channels)
    array = _channels_first(decode(path, stored, np.float32), channels)
    bad = array.size - int(np.count_nonzero(np.isfinite(array)))
    if bad:
        raise CourseError(f"{path}: {bad} voxels are NaN or infinite in float32; replace them with a background value")
    return Volume(array, stored.affine, path, str(stored.dtype), stored.notes)


def _stacked(paths: Sequence[Path], channels: int) -> Volume:
    if len(paths) != channels:
        why = f"is the first of {len(paths)} channel files where {channels} channels are named"
        raise CourseError(f"{paths[0]}: {why}; list one file for each channel, or correct channels")
    first, *others = [read_image(path) for path in paths]
    for other in others:
        check_pair(first, other, kind="channel")
    notes = dict.fromkeys(note for volume in (first, *others) for note in volume.notes)
    return replace(first, array=np.concatenate([v.array for v in (first, *others)]), notes=tuple(notes))


def read_label(path: Path | str, *, values: Iterable[int] | None = None) -> Volume:
    """Read a label as uint8 (1, D, H, W).

    Args:
        values: the allowed values (0 is always allowed); None allows 0 to 255.

    Raises:
        CourseError: as `read_image`, and when a voxel is not a whole number or not among `values`.
    """
    path = Path(path)
    stored = open_volume(path)
    _count_axes(path, stored.shape, 1)
    label = _whole_numbers(path, _channels_first(decode(path, stored, None), 1))
    allowed = {0, *map(int, values)} if values is not None else {*range(256)}
    if odd := [value for value in present_values(label) if value not in allowed]:
        why = f"label value {_some(odd)} is not among {_some(sorted(allowed), 20)}"
        fix = OTHER_YEAR.get((*sorted(allowed), *odd), "correct the label, or add the value to the datalist's labels")
        raise CourseError(f"{path}: {why}; {fix}")
    return Volume(label, stored.affine, path, str(stored.dtype), stored.notes)


def count_channels(path: Image | str) -> int:
    """The number of channels of an image, by its header alone where that is quick to read."""
    if isinstance(path, tuple):
        return len(path)
    shape, _ = header(Path(path))
    return int(shape[3]) if len(shape) > 3 else 1


def ras_grid(path: Image | str) -> RasGrid:
    """Voxels and spacing (mm) along right, anterior, superior, by the header alone where that is quick to read."""
    shape, affine = header(Path(path[0] if isinstance(path, tuple) else path))
    return _ras_grid((*shape, 1, 1)[:3], affine, nib.io_orientation(affine))


def ras_grids(images: Iterable[Image]) -> list[RasGrid]:
    """`ras_grid` of every image whose header can be read."""
    grids = []
    for image in images:
        with suppress(CourseError):
            grids.append(ras_grid(image))
    return grids


def _ras_grid(shape: Sequence[int], affine: np.ndarray, turn: np.ndarray) -> RasGrid:
    order, spacing = turn[:, 0].argsort(), np.linalg.norm(affine[:3, :3], axis=0)
    return tuple(int(shape[axis]) for axis in order), tuple(spacing[order].tolist())


def present_values(label: np.ndarray) -> list[int]:
    """The values that occur in a uint8 array, sorted."""
    present = np.zeros(256, dtype=bool)
    for part in np.array_split(label.ravel(), 1 + label.size // 2**20):  # an index needs eight times the memory
        present[part] = True
    return [int(value) for value in np.flatnonzero(present)]


def check_pair(image: Volume, label: Volume, *, kind: str = "label") -> None:
    """Refuse a label, or another channel, that is not on the grid of its image.

    Affines may differ by rounding: no corner of the volume may move by more than a tenth of a voxel.

    Raises:
        CourseError: the shapes differ, or a corner is at different points by the two affines.
    """
    if image.shape != label.shape:
        why = f"shape {shape_text(label.shape)} differs from {shape_text(image.shape)} of its image {image.path.name}"
        raise CourseError(f"{label.path}: {why}; resample the {kind} onto the image, or pair the right files")
    corners = np.array(list(np.ndindex(2, 2, 2))) * (np.array(image.shape) - 1)  # (8, 3) voxel indices
    moved = nib.affines.apply_affine(image.affine, corners) - nib.affines.apply_affine(label.affine, corners)
    distance = float(np.linalg.norm(moved, axis=1).max())
    if distance > 0.1 * min(image.spacing):
        why = f"affine differs from its image {image.path.name} by up to {float(f'{distance:.2g}'):g} mm"
        fix = f"resample the {kind} onto the image, or copy its affine if voxels match"
        raise CourseError(f"{label.path}: {why}; {fix}")


def reorient(volume: Volume, orientation: str = "RAS") -> Volume:
    """Flip and permute the axes of a volume to the given orientation, without interpolation; a volume that has it
    already is returned itself."""
    wanted = nib.orientations.axcodes2ornt(tuple(orientation))
    if np.array_equal(volume.turn, wanted):
        return volume
    change = nib.orientations.ornt_transform(volume.turn, wanted)
    channels = [nib.orientations.apply_orientation(channel, change) for channel in volume.array]
    affine = volume.affine @ nib.orientations.inv_ornt_aff(change, volume.shape)
    return replace(volume, array=np.ascontiguousarray(np.stack(channels)), affine=affine)


def axis_order(volume: Volume) -> list[int]:
    """Which axis of the file runs right-left, which front-back, which head-foot."""
    return volume.turn[:, 0].argsort().tolist()


def write_nifti(path: Path | str, array: np.ndarray, affine: np.ndarray, *, mark: str = "") -> None:
    """Write (D, H, W) voxels; the file appears whole or not at all, and equal input gives equal bytes. `mark` is the
    description in its header (`marks`)."""
    path = Path(path)
    if not path.name.lower().endswith(NIFTI) or array.ndim != 3:
        raise CourseError(f"{path}: only a (D, H, W) array can be written, to a name ending in .nii or .nii.gz")
    narrow = {"bool": np.uint8, "int64": np.int32, "uint64": np.uint32, "float16": np.float32}
    nifti = nib.Nifti1Image(np.asarray(array, dtype=narrow.get(array.dtype.name, array.dtype)), affine)
    nifti.header.set_xyzt_units("mm")
    nifti.header["descrip"] = mark
    content = nifti.to_bytes()
    with atomic(path) as temporary:
        compress = path.name.lower().endswith(".gz")
        temporary.write_bytes(gzip.compress(content, compresslevel=4, mtime=0) if compress else content)


def _count_axes(path: Path, shape: tuple[int, ...], channels: int) -> None:
    """Refuse another number of axes or channels than expected, before a voxel is decoded."""
    kept = list(shape)
    while len(kept) > 3 and kept[-1] == 1:
        kept.pop()
    if len(kept) not in (3, 4):
        raise CourseError(f"{path}: is {len(kept)}D (shape {shape_text(shape)}), not 3D; export one 3D volume per file")
    count = kept[3] if len(kept) == 4 else 1
    if count != channels:
        actual = "is 3D with 1 channel" if count == 1 else f"is 4D with {count} volumes"
        expected = "one 3D volume" if channels == 1 else f"4D with {channels} channels"
        why = f"{actual} (shape {shape_text(shape)}), not {expected}"
        raise CourseError(f"{path}: {why}; split or merge it, or name its channels")


def _channels_first(array: np.ndarray, channels: int) -> np.ndarray:
    """(D, H, W), (D, H, W, 1...) or (D, H, W, C) to (C, D, H, W)."""
    return np.ascontiguousarray(np.moveaxis(array.reshape(*array.shape[:3], channels), -1, 0))


def _whole_numbers(path: Path, array: np.ndarray) -> np.ndarray:
    """uint8; values such as 1.0000001, left by a header's scale factor, are rounded."""
    if array.dtype.kind == "f":
        if not np.isfinite(array).all():
            raise CourseError(f"{path}: the label has NaN or infinite values; save it again as uint8")
        off = np.abs(array - np.rint(array))
        if off.max() > 1e-3:
            odd = float(array.flat[int(off.argmax())])
            raise CourseError(f"{path}: the label has {odd:.4g}, not a whole number; threshold it and save as uint8")
        array = np.rint(array)
    low, high = array.min(), array.max()
    if low < 0 or high > 255:
        raise CourseError(f"{path}: label values run from {low:.6g} to {high:.6g}; renumber them to 0 to 255")
    return array.astype(np.uint8)


def _some(values: list[int], most: int = 5) -> str:
    return ", ".join(map(str, values[:most])) + (", ..." if len(values) > most else "")
