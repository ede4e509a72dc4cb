"""MetaImage files (.mha, .mhd): a few lines of text, then the voxels, unzipped strictly."""

from pathlib import Path

import numpy as np

from ssl_utils.data.formats.nifti import no_orientation
from ssl_utils.data.formats.stored import Stored, exactly, lps_to_ras, neighbour, raw, refuse_text, scaled, unzipped
from ssl_utils.errors import CourseError

_TYPES = {
    "MET_CHAR": "i1",
    "MET_UCHAR": "u1",
    "MET_SHORT": "i2",
    "MET_USHORT": "u2",
    "MET_INT": "i4",
    "MET_UINT": "u4",
    "MET_LONG_LONG": "i8",
    "MET_ULONG_LONG": "u8",
    "MET_FLOAT": "f4",
    "MET_DOUBLE": "f8",
}
_MOST_HEADER = 1 << 16  # bytes in which ElementDataFile, the last line of a header, must come


def open_metaimage(path: Path) -> Stored:
    found = raw(path)
    refuse_text(path, found)
    header, start = _header(path, found)
    try:
        sizes = tuple(int(size) for size in header["DimSize"].split())
        dtype, channels = np.dtype(_order(header) + _TYPES[header["ElementType"]]), _count(header)
        affine, notes = _geometry(header, len(sizes))
        if len(sizes) != int(header["NDims"]) or min(sizes) < 0 or channels < 1:
            raise ValueError("DimSize does not fit NDims")
    except (KeyError, ValueError) as error:
        raise CourseError(f"{path}: is not a readable MetaImage file ({error}); export or download it again") from None
    if channels in (3, 4) and dtype.itemsize == 1:
        raise CourseError(f"{path}: holds colour voxels; export one plain number per voxel (for example int16)")
    stored_sizes = (channels, *sizes)
    needed = int(np.prod(stored_sizes, dtype=object)) * dtype.itemsize
    data = _bytes(path, header, found[start:], needed)
    notes += exactly(path, data, needed)

    def voxels(wanted: type | None) -> np.ndarray:
        array = np.frombuffer(data, dtype, count=int(np.prod(stored_sizes))).reshape(stored_sizes, order="F")
        return scaled(array[0] if channels == 1 else np.moveaxis(array, 0, -1), wanted)

    return Stored(sizes if channels == 1 else (*sizes, channels), dtype, affine, voxels, notes)


def _header(path: Path, found: bytes) -> tuple[dict[str, str], int]:
    """The fields, and where the voxels begin."""
    fields, start = {}, 0
    while "ElementDataFile" not in fields:
        end = found.find(b"\n", start, _MOST_HEADER)
        key, sign, value = found[start : max(end, 0)].decode("latin-1").partition("=")
        if end < 0 or not sign or not key.strip().isidentifier() or key.strip() in fields:
            raise CourseError(f"{path}: is not a MetaImage file, whatever its name; export or download it again")
        fields[key.strip()], start = value.strip(), end + 1
    if fields.get("ObjectType", "Image") != "Image":
        raise CourseError(f"{path}: holds a {fields['ObjectType']}, not an image; export the image")
    return fields, start


def _bytes(path: Path, header: dict[str, str], attached: bytes, needed: int) -> bytes:
    odd = {"BinaryData": "True", "HeaderSize": "0", "ElementToIntensityFunctionSlope": "1"}
    for key, usual in odd.items():
        if key in header and header[key].capitalize() not in (usual, usual + ".0"):
            raise CourseError(f"{path}: has {key} = {header[key]}; save it again as plain binary")
    name = header["ElementDataFile"]
    data = attached if name.upper() == "LOCAL" else raw(neighbour(path, name or "nothing named"))
    if not _true(header.get("CompressedData")):
        return data
    size = header.get("CompressedDataSize", str(len(data)))
    return unzipped(path, data[: int(size)] if size.isdigit() else data, needed, "zlib")


def _geometry(header: dict[str, str], axes: int) -> tuple[np.ndarray, tuple[tuple[str, str], ...]]:
    """ITK's reading: row i of the matrix is the direction of axis i in LPS world space. Axes beyond three are cut."""

    def numbers(*keys: str, default: np.ndarray) -> np.ndarray:
        text = next((header[key] for key in keys if key in header), None)
        found = default if text is None else np.array([float(word) for word in text.split()])
        return found.reshape(default.shape)

    directions = numbers("TransformMatrix", "Rotation", "Orientation", default=np.eye(axes))
    spacing = numbers("ElementSpacing", "ElementSize", default=np.ones(axes))
    origin = numbers("Offset", "Position", "Origin", default=np.zeros(axes))
    if axes < 3:
        return np.eye(4), ()  # refused where axes are counted
    known = {"TransformMatrix", "Rotation", "Orientation"} & set(header)
    notes = () if known else (no_orientation("its header holds no TransformMatrix"),)
    return lps_to_ras(directions[:3, :3].T * spacing[:3], origin[:3]), notes


def _order(header: dict[str, str]) -> str:
    return ">" if _true(header.get("BinaryDataByteOrderMSB", header.get("ElementByteOrderMSB"))) else "<"


def _count(header: dict[str, str]) -> int:
    return int(header.get("ElementNumberOfChannels", "1"))


def _true(text: str | None) -> bool:
    return str(text).strip().lower() in ("true", "1", "t", "yes", "y")
