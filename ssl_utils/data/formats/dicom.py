"""A folder with the slices of one DICOM series, read as one volume: evenly spaced and not tilted, or refused.

pydicom reads the headers and checks how many bytes a slice must have; GDCM unpacks compressed slices. ITK reads
a series with missing or doubled slices as evenly spaced and ignores the tilt of a tilted one, without an error.
"""

import warnings
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pydicom
from pydicom.filereader import read_file_meta_info
from pydicom.pixels import pixel_array

from ssl_utils.data.formats.stored import COLOUR, Stored, lps_to_ras, one_error, raw, shape_text
from ssl_utils.errors import CourseError

_NO_IMAGES = {"SEG", "RTDOSE", "RTSTRUCT", "RTPLAN", "SR", "PR", "KO", "REG"}
_CONVERT = "convert it with dcm2niix and give the NIfTI file"


@dataclass(frozen=True, eq=False)
class _Slice:
    path: Path
    series: str
    position: np.ndarray  # (3,) mm, LPS, of the first voxel
    rows: tuple[float, ...]  # ImageOrientationPatient: directions of columns and rows
    size: tuple[int, int]  # columns, rows
    step: tuple[float, float]  # mm between columns, between rows
    dtype: np.dtype
    scale: tuple[float, float]  # slope, intercept


def open_series(folder: Path, files: list[Path]) -> Stored:
    """The slices as one volume, axes: columns, rows, slices in the direction of the slice normal."""
    slices = [_header(path) for path in files]
    _same(folder, slices)
    first = slices[0]
    across = np.cross(first.rows[:3], first.rows[3:])
    slices.sort(key=lambda s: float(s.position @ across))
    _even(folder, slices, np.array([s.position @ across for s in slices]))
    first = slices[0]
    between = (slices[-1].position - first.position) / (len(slices) - 1)
    along = np.array([first.rows[:3], first.rows[3:]]) * np.array(first.step)[:, None]
    affine = lps_to_ras(np.stack([*along, between], axis=1), first.position)
    shape = (*first.size, len(slices))

    def voxels(wanted: type | None) -> np.ndarray:
        plain = all(s.scale == (1, 0) for s in slices) and len({s.dtype for s in slices}) == 1
        volume = np.empty(shape, wanted or (first.dtype if plain else np.float64))
        for index, one in enumerate(slices):
            volume[:, :, index] = _pixels(one).T
        return volume

    return Stored(shape, first.dtype, affine, voxels)


def refuse_single(path: Path) -> None:
    """Raises: CourseError: one file of a series is not a volume."""
    what = f"is one DICOM slice ({shape_text(_header(path).size)}), not a volume"
    raise CourseError(f"{path}: {what}; name the folder that holds its series")


def _header(path: Path) -> _Slice:
    raw(path, most=512)  # refuses an empty file or a web page
    with one_error(path, "is not a readable DICOM slice"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of values out of the standard; what matters is checked here
        syntax = read_file_meta_info(path).get("TransferSyntaxUID")
        if "Deflated" in getattr(syntax, "name", ""):  # pydicom would unzip all of it to read the header
            raise CourseError(f"{path}: is a zipped DICOM slice ({syntax.name}); {_CONVERT}")
        header = pydicom.dcmread(path, stop_before_pixels=True)
        if why := _no_slice(header):
            raise CourseError(f"{path}: {why}")
        return _parsed(path, header)


def _no_slice(header: pydicom.Dataset) -> str | None:
    """Why it is not a slice with one number per voxel and a position in the patient, and what to do."""
    kind = getattr(header.get("SOPClassUID"), "name", "")
    colour = header.get("PhotometricInterpretation")
    if header.get("Modality") in _NO_IMAGES:
        return f"is DICOM of another kind ({kind or header.Modality}), not a slice; convert it with dcmqi or 3D Slicer"
    if "Rows" not in header:
        return "is DICOM without an image; move it out of the folder, or export it again"
    if int(header.get("NumberOfFrames") or 1) > 1 or "Enhanced" in kind:
        return f"is multi-frame DICOM ({kind}); {_CONVERT}"
    if header.get("SamplesPerPixel", 1) != 1 or colour == "PALETTE COLOR":
        return COLOUR
    if colour != "MONOCHROME2" or "ModalityLUTSequence" in header:
        return f"its grey values are inverted or need a table; {_CONVERT}"
    missing = [t for t in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing") if not header.get(t)]
    return f"has no position in the patient (no {missing[0]}); leave the slice out" if missing else None


def _parsed(path: Path, header: pydicom.Dataset) -> _Slice:
    rows, bits = tuple(map(float, header.ImageOrientationPatient)), int(header.BitsAllocated)
    down, right = map(float, header.PixelSpacing)
    axes = np.array(rows).reshape(2, 3)
    if np.abs(axes @ axes.T - np.eye(2)).max() > 0.01:
        raise ValueError("its row and column directions are not perpendicular unit vectors")
    slope = header.get("RescaleSlope")
    scale = (1.0 if slope is None else float(slope), float(header.get("RescaleIntercept") or 0))
    if bits % 8 or not np.isfinite(scale).all() or scale[0] == 0:
        raise ValueError(f"{bits} bits per voxel, scale factor {scale[0]:g}")
    dtype = np.dtype(f"{'i' if int(header.PixelRepresentation) else 'u'}{bits // 8}")
    position, size = np.array(header.ImagePositionPatient, float), (int(header.Columns), int(header.Rows))
    return _Slice(path, str(header.get("SeriesInstanceUID")), position, rows, size, (right, down), dtype, scale)


def _same(folder: Path, slices: list[_Slice]) -> None:
    """One series, one plane, one size."""
    count = len({s.series for s in slices})
    if count > 1:
        raise CourseError(f"{folder}: has slices of {count} DICOM series; put each series into a folder of its own")
    if len(slices) < 2:
        raise CourseError(f"{folder}: has one DICOM slice, not a volume; put all slices of the series there")
    for what, field in (("matrix size", "size"), ("pixel spacing", "step"), ("orientation", "rows")):
        values = [getattr(one, field) for one in slices]
        usual = np.array(Counter(values).most_common(1)[0][0])
        for one, value in zip(slices, values, strict=True):
            if np.abs(np.array(value) - usual).max() > 1e-3:
                why = f"{one.path.name} has another {what} than the other slices"
                raise CourseError(f"{folder}: {why}; move it out of the folder")


def _even(folder: Path, slices: list[_Slice], heights: np.ndarray) -> None:
    gaps = np.diff(heights)
    usual = float(np.sort(gaps)[len(gaps) // 2])
    least, worst = int(gaps.argmin()), int(np.abs(gaps - usual).argmax())
    pair = {at: f"{slices[at].path.name} and {slices[at + 1].path.name}" for at in (least, worst)}
    if gaps[least] < 1e-3:
        why = f"{pair[least]} are at one position (a time series, two echoes, or a copy)"
        raise CourseError(f"{folder}: {why}; keep one slice per position")
    if abs(gaps[worst] - usual) > 0.02 * usual + 0.005:
        why = f"slices are unevenly spaced ({pair[worst]} are {gaps[worst]:.4g} mm apart, usually {usual:.4g})"
        raise CourseError(f"{folder}: {why}; find the missing slices, or resample the series with dcm2niix")


def _pixels(one: _Slice) -> np.ndarray:
    """(rows, columns), scaled by the slope and intercept of the header."""
    with one_error(one.path, "its voxels cannot be decoded"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pixels = pixel_array(one.path)
    if pixels.shape != one.size[::-1]:
        shapes = f"{shape_text(pixels.shape)} voxels, not {shape_text(one.size[::-1])}"
        raise CourseError(f"{one.path}: has {shapes}; copy or export it again")
    return pixels if one.scale == (1, 0) else pixels * one.scale[0] + one.scale[1]
