"""MetaImage files (.mha, .mhd): a few lines of text, then the voxels, unzipped strictly.

ITK, the usual reader, returns wrong voxels for a damaged zipped file without an error.
"""

from pathlib import Path

import numpy as np

from ssl_utils.data.formats import stored
from ssl_utils.data.formats.stored import Note, Stored
from ssl_utils.errors import CourseError

_INTEGERS = {"CHAR": "1", "SHORT": "2", "INT": "4", "LONG_LONG": "8"}
_TYPES = {f"MET_{u}{name}": f"{'u' if u else 'i'}{size}" for name, size in _INTEGERS.items() for u in ("", "U")}
_TYPES |= {"MET_FLOAT": "f4", "MET_DOUBLE": "f8"}
_MOST_HEADER = 1 << 16  # bytes in which ElementDataFile, the last line of a header, must come
_USUAL = {"BinaryData": "True", "HeaderSize": "0"}  # any other value is refused
_USUAL |= {"ElementToIntensityFunctionSlope": "1", "ElementToIntensityFunctionOffset": "0"}
_DIRECTIONS = ("TransformMatrix", "Rotation", "Orientation")


def open_metaimage(path: Path) -> Stored:
    data = stored.raw(path)
    header, start = _header(path, data)
    with stored.one_error(path, "is not a readable MetaImage file"):
        sizes = tuple(int(size) for size in header["DimSize"].split())
        big = _true(header.get("BinaryDataByteOrderMSB", header.get("ElementByteOrderMSB")))
        dtype = np.dtype("<>"[big] + _TYPES[header["ElementType"]])
        channels = int(header.get("ElementNumberOfChannels", "1"))
        affine, notes = _geometry(header, len(sizes))
        if len(sizes) != int(header["NDims"]) or min(sizes) < 0 or channels < 1:
            raise ValueError("DimSize does not fit NDims")
    if channels in (3, 4) and dtype.itemsize == 1:
        raise CourseError(f"{path}: {stored.COLOUR}")
    axes = [*range(len(sizes))]
    if channels > 1:  # they vary fastest in the file and come last in the volume
        sizes, axes = (channels, *sizes), [*(axis + 1 for axis in axes), 0]
    voxels = _bytes(path, header, data[start:], stored.byte_count(sizes, dtype))
    return stored.from_bytes(path, voxels, dtype, sizes, axes, affine, notes)


def _header(path: Path, data: bytes) -> tuple[dict[str, str], int]:
    """The fields, and where the voxels begin."""
    fields, start = {}, 0
    while "ElementDataFile" not in fields:
        end = data.find(b"\n", start, _MOST_HEADER)
        key, sign, value = data[start : max(end, 0)].decode("latin-1").partition("=")
        if end < 0 or not sign or not key.strip().isidentifier() or key.strip() in fields:
            raise CourseError(f"{path}: is not a MetaImage file, whatever its name; export or download it again")
        fields[key.strip()], start = value.strip(), end + 1
    if fields.get("ObjectType", "Image") != "Image":
        raise CourseError(f"{path}: is a {fields['ObjectType']}, not an image; export the image")
    return fields, start


def _bytes(path: Path, header: dict[str, str], attached: bytes, needed: int) -> bytes:
    for key, usual in _USUAL.items():
        if key in header and header[key].capitalize() not in (usual, usual + ".0"):
            raise CourseError(f"{path}: has {key} = {header[key]}; save it again as plain binary")
    name = header["ElementDataFile"]
    data = attached if name.upper() == "LOCAL" else stored.beside(path, name or "nothing named")
    if not _true(header.get("CompressedData")):
        return data
    size = header.get("CompressedDataSize", str(len(data)))
    return stored.unzipped(path, data[: int(size)] if size.isdigit() else data, needed, "zlib")


def _geometry(header: dict[str, str], axes: int) -> tuple[np.ndarray, tuple[Note, ...]]:
    """ITK's reading: row i of the matrix is the direction of axis i in LPS world space. Axes beyond three are cut."""

    def numbers(*keys: str, default: np.ndarray) -> np.ndarray:
        text = next((header[key] for key in keys if key in header), None)
        values = default if text is None else np.array([float(word) for word in text.split()])
        return values.reshape(default.shape)

    directions = numbers(*_DIRECTIONS, default=np.eye(axes))
    spacing = numbers("ElementSpacing", "ElementSize", default=np.ones(axes))
    origin = numbers("Offset", "Position", "Origin", default=np.zeros(axes))
    if axes < 3:
        return np.eye(4), ()  # refused when axes are counted
    notes = () if {*_DIRECTIONS} & {*header} else (stored.no_orientation("its header has no TransformMatrix"),)
    return stored.lps_to_ras(directions[:3, :3].T * spacing[:3], origin[:3]), notes


def _true(text: str | None) -> bool:
    return str(text).strip().lower() in ("true", "1", "t", "yes", "y")
