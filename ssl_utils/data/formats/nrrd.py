"""NRRD files (.nrrd, .nhdr): pynrrd reads the header, the voxels are unzipped strictly.

pynrrd reads a zipped file whose checksum is missing; it and ITK read, without an error, a file in metres and one whose
space does not define where left is.
"""

import io
import re
import warnings
from pathlib import Path
from typing import Any

import nrrd
import numpy as np

from ssl_utils.data.formats import stored
from ssl_utils.data.formats.stored import Note, Stored
from ssl_utils.errors import CourseError

_SPACES = {"left-posterior-superior": (1, 1, 1), "right-anterior-superior": (-1, -1, 1), "lps": (1, 1, 1)}
_SPACES |= {"left-anterior-superior": (1, -1, 1), "ras": (-1, -1, 1), "las": (1, -1, 1)}  # how a point becomes LPS
_COLOURS = {"RGB-color", "RGBA-color", "3-color", "4-color", "HSV-color", "XYZ-color"}
_SKIPS = ("line skip", "lineskip", "byte skip", "byteskip")
Geometry = tuple[list[int], np.ndarray, tuple[Note, ...]]  # the order of axes (space first), the affine, notes


def open_nrrd(path: Path) -> Stored:
    data = stored.raw(path)
    if not data.startswith(b"NRRD"):
        raise CourseError(f"{path}: is not an NRRD file, whatever its name; export or download it again")
    with stored.one_error(path, "is not a readable NRRD file"):
        header, start, dtype = _header(data)
        sizes = tuple(int(size) for size in header["sizes"])
        axes, affine, notes = _geometry(path, header, sizes)
    voxels = _bytes(path, header, data[start:], stored.byte_count(sizes, dtype))
    return stored.from_bytes(path, voxels, dtype, sizes, axes, affine, notes)


def _header(data: bytes) -> tuple[dict[str, Any], int, np.dtype]:
    """The fields, where the voxels begin, and their type."""
    stream = io.BytesIO(data)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # pynrrd warns of a field given twice, and keeps one
        header = nrrd.read_header(stream)
    dtype = np.dtype(nrrd.reader._TYPEMAP_NRRD2NUMPY[header["type"]])
    if dtype.itemsize > 1:
        dtype = dtype.newbyteorder({"little": "<", "big": ">"}[header["endian"]])
    if header["dimension"] != len(header["sizes"]) or min(header["sizes"]) < 0:
        raise ValueError("sizes do not fit the dimension")
    return header, stream.tell(), dtype


def _bytes(path: Path, header: dict[str, Any], attached: bytes, needed: int) -> bytes:
    if any(int(header.get(key, 0)) for key in _SKIPS):
        raise CourseError(f"{path}: skips lines or bytes before its voxels; save it again as a plain .nrrd")
    name = header.get("data file", header.get("datafile"))
    data = attached if name is None else stored.beside(path, str(name))
    encoding = {"gz": "gzip", "bz2": "bzip2"}.get(header["encoding"], header["encoding"])
    if encoding not in ("raw", "gzip", "bzip2"):
        raise CourseError(f"{path}: its voxels are encoded as {encoding}; save it again with gzip")
    return data if encoding == "raw" else stored.unzipped(path, data, needed, encoding)


def _geometry(path: Path, header: dict[str, Any], sizes: tuple[int, ...]) -> Geometry:
    axis_kinds = {*header.get("kinds", [])}
    if _COLOURS & axis_kinds:
        raise CourseError(f"{path}: {stored.COLOUR}")
    if "complex" in axis_kinds:
        raise CourseError(f"{path}: has complex voxels; export their magnitude")
    units = {str(unit).strip('"').lower() for unit in header.get("space units", [])} - {"mm", "", "millimeter"}
    if units:
        raise CourseError(f"{path}: its header measures in {', '.join(sorted(units))}; convert it to millimetres")
    if "space directions" not in header:
        return _without_directions(header, len(sizes))
    directions = np.array([[np.nan] * 3 if row is None else row for row in header["space directions"]], float)
    order, space = _space_first(np.isnan(directions).all(axis=1), len(sizes))
    name = re.sub(r"-time$", "", str(header.get("space", "not named")).lower())
    if name not in _SPACES:
        raise CourseError(f"{path}: its space is {name}, which does not say where left is; save it again in LPS or RAS")
    if len(space) != 3 or directions.shape[1] != 3:
        return order, np.eye(4), ()  # not 3D: refused when axes are counted
    to_lps = np.diag(_SPACES[name]).astype(float)
    if "space origin" not in header:
        raise CourseError(f"{path}: has directions but no space origin; save it again with its origin")
    return order, stored.lps_to_ras(to_lps @ directions[space].T, to_lps @ np.array(header["space origin"], float)), ()


def _without_directions(header: dict[str, Any], count: int) -> Geometry:
    """With spacings at most, axes are assumed to be left-posterior-superior, as ITK does; with a note."""
    spacings = np.array(header.get("spacings", [1.0] * count), float)
    order, space = _space_first(np.isnan(spacings), count)
    origin = np.array(header.get("axis mins", header.get("axismins", [0.0] * count)), float)[space]
    steps, origin = np.append(spacings[space], [1.0] * 3)[:3], np.append(np.nan_to_num(origin), [0.0] * 3)[:3]
    note = stored.no_orientation("its header has no space directions")
    return order, stored.lps_to_ras(np.diag(steps), origin), (note,)


def _space_first(other: np.ndarray, count: int) -> tuple[list[int], list[int]]:
    """All axes, those of space before the `other` ones; and the axes of space alone."""
    if len(other) != count:
        raise ValueError(f"{len(other)} directions or spacings for {count} axes")
    return np.argsort(other, kind="stable").tolist(), np.flatnonzero(~other).tolist()
