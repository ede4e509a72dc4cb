"""What every reader returns, and the strict steps they share: read all bytes, unzip with the checksum."""

import bz2
import gzip
import io
import math
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil

from ssl_utils.errors import CourseError

START = 1 << 10  # bytes that contain every header whose file may be zipped as a whole
SMALL = 1 << 20  # bytes for which the free memory is not looked up, which takes longer than to read them
SURPLUS = 1 << 24  # bytes that may follow the voxels in a zipped file, such as the tags of MGH
COLOUR = "has colour voxels; export one plain number per voxel (for example int16)"
Note = tuple[str, str]  # what is odd though readable, and what to do


@dataclass(frozen=True, eq=False)
class Stored:
    """A volume on disk: its header is parsed, its voxels are known to be complete but not decoded yet.

    Attributes:
        shape: (D, H, W), or (D, H, W, ...) with further axes such as channels or time.
        dtype: the voxel type on disk.
        affine: (4, 4) float64, voxel index to millimetres in RAS+ world space.
        voxels: `voxels(None)` decodes and scales, integers staying integers; `voxels(np.float32)` gives that type.
        notes: for the doctor.
    """

    shape: tuple[int, ...]
    dtype: np.dtype
    affine: np.ndarray
    voxels: Callable[[type | None], np.ndarray]
    notes: tuple[Note, ...] = ()


def byte_count(shape: Iterable[int], dtype: np.dtype) -> int:
    """Bytes of an array; exact also where a damaged header gives enormous sizes."""
    return math.prod(map(int, shape)) * dtype.itemsize


def from_bytes(path: Path, data: bytes, dtype: np.dtype, sizes: Sequence[int], axes: Sequence[int], affine, notes):
    """Stored from plain voxels whose first axis runs fastest; `axes`: the wanted order of the axes."""
    notes = (*notes, *exactly(path, data, byte_count(sizes, dtype)))

    def voxels(wanted: type | None) -> np.ndarray:
        array = np.frombuffer(data, dtype, count=math.prod(sizes)).reshape(sizes, order="F").transpose(axes)
        return array.astype(wanted or dtype.newbyteorder("="), copy=False)

    return Stored(tuple(sizes[axis] for axis in axes), dtype, affine, voxels, notes)


def decode(path: Path, stored: Stored, dtype: type | None) -> np.ndarray:
    """The scaled voxels; `dtype` None keeps integers as they are stored."""
    if 0 in stored.shape:
        raise CourseError(f"{path}: has no voxels (shape {shape_text(stored.shape)}); export it again")
    needed = byte_count(stored.shape, np.dtype(dtype or stored.dtype))
    refuse_huge(path, needed)
    with one_error(path, "its voxels cannot be decoded"), np.errstate(all="ignore"):
        try:
            return stored.voxels(dtype)
        except MemoryError:
            raise too_large(path, needed) from None


@contextmanager
def one_error(path: Path, what: str, fix: str = "export or download it again") -> Iterator[None]:
    """Parsers fail in many ways on a damaged file: every exception becomes a CourseError of one line."""
    try:
        yield
    except CourseError:
        raise
    except Exception as error:
        reason = (str(error) or type(error).__name__).splitlines()[0].rstrip(":")
        raise CourseError(f"{path}: {what} ({reason}); {fix}") from None


def exactly(path: Path, data: bytes, needed: int) -> tuple[Note, ...]:
    """Refuse fewer bytes than the header requires; a note when there are more."""
    if len(data) < needed:
        sizes = f"{len(data)} of {needed} bytes, uncompressed"
        raise CourseError(f"{path}: is truncated ({sizes}); copy or download it again")
    surplus = f"has {len(data) - needed} bytes more than its header says"
    return ((surplus, "look at the picture: the header may be damaged"),) if len(data) > needed else ()


def no_orientation(why: str) -> Note:
    """The note on a file without an orientation."""
    return f"{why}: left and right cannot be told", "look at the picture, and export it again with its orientation"


def refuse_huge(path: Path, needed: int) -> None:
    """Raises: CourseError: more bytes than this machine has free memory."""
    if needed > SMALL and needed > psutil.virtual_memory().available:
        raise too_large(path, needed)


def too_large(path: Path, needed: int) -> CourseError:
    why = f"needs {needed / 1e9:.3g} GB of memory by its header, more than is free"
    return CourseError(f"{path}: {why}; crop or resample it elsewhere, or export it again if the header is damaged")


def unzipped(path: Path, data: bytes, needed: int, kind: str = "gzip") -> bytes:
    """The whole stream with its checksum verified: readers that skip this give wrong voxels for a damaged file.

    `needed` is the number of bytes by the header; a stream with far more is refused before it fills the memory.
    """
    refuse_huge(path, needed)
    most = max(needed, 0) + SURPLUS
    try:
        inflated = _inflated(path, data, most + 1, kind)
    except MemoryError:
        raise too_large(path, needed) from None
    if len(inflated) > most:
        why = f"unzips to more than {most} bytes, {needed} by its header"
        raise CourseError(f"{path}: {why}; it is damaged or made to fill the memory, export it again")
    return inflated


def _inflated(path: Path, data: bytes, most: int, kind: str) -> bytes:
    """The first `most` bytes; the checksum is verified where the stream ends before."""
    try:
        if kind != "zlib":
            with {"gzip": gzip.open, "bzip2": bz2.open}[kind](io.BytesIO(data)) as stream:
                return stream.read(most)
        stream = zlib.decompressobj()
        inflated = stream.decompress(data, most)
        if len(inflated) < most and not stream.eof:
            raise EOFError("the stream ends early")
        return inflated
    except (EOFError, OSError, ValueError, zlib.error) as error:
        raise CourseError(f"{path}: is truncated or damaged ({error}); copy or download it again") from None


def content(path: Path, size: Callable[[bytes], int]) -> bytes:
    """All bytes of a file that may be zipped as a whole; text instead of an image is refused.

    `size` computes from the first `START` bytes how many bytes header and voxels have, or raises CourseError.
    """
    data = raw(path)
    zipped, named_zipped = data[:2] == b"\x1f\x8b", path.name.lower().endswith((".gz", ".mgz"))
    if zipped != named_zipped:
        end = {".mgz": ".mgh", ".mgh": ".mgz"}.get(path.suffix.lower())
        name = path.stem + end if end else path.name + ".gz" if zipped else path.name[:-3]
        state = "is gzip-compressed" if zipped else "is not gzip-compressed"
        raise CourseError(f"{path}: {state}, against its name; rename it to {name} or download it again")
    if not zipped:
        return data
    start = _inflated(path, data, START, "gzip")
    refuse_text(path, start)
    return unzipped(path, data, size(start))


def raw(path: Path, *, image: bool = True, most: int = -1) -> bytes:
    """All bytes of a file, or the first `most`; of an `image` at least one, and no text."""
    try:
        with path.open("rb") as stream:
            data = stream.read(most)
    except OSError as error:
        raise CourseError(f"{path}: cannot be read ({error.strerror}); check its name and permissions") from None
    if image:
        refuse_text(path, data)
    return data


def refuse_text(path: Path, data: bytes) -> None:
    start = data[:512].lstrip().lower()
    if not start:
        raise CourseError(f"{path}: is empty; copy or download it again")
    if start.startswith(b"version https://git-lfs"):
        raise CourseError(f"{path}: is a Git LFS pointer, not the image; run `git lfs pull` in its repository")
    if start.startswith((b"<!doctype", b"<html", b"<?xml")):
        raise CourseError(f"{path}: is a web page, not an image; the download needs a login or another address")


def beside(path: Path, name: str) -> bytes:
    """The bytes of the data file that a header names; it must be in the same folder."""
    data_file = path.parent / name
    if Path(name).name != name or any(mark in name for mark in "%*") or name.split()[0].upper() == "LIST":
        raise CourseError(f"{path}: keeps its voxels in {name!r}; save header and voxels as one file")
    if not data_file.is_file():
        raise CourseError(f"{path}: its voxels should be in {name}, which is not there; copy both files together")
    return raw(data_file, image=False)


def lps_to_ras(matrix: np.ndarray, origin: np.ndarray) -> np.ndarray:
    """(4, 4) affine from directions times spacing as columns and an origin, both in LPS world space."""
    return np.diag([-1.0, -1, 1, 1]) @ np.vstack([np.column_stack([matrix, origin]), [0, 0, 0, 1]])


def usable(affine: np.ndarray | None) -> bool:
    if affine is None or not np.abs(affine).max() < 1e9:  # NaN too
        return False
    sizes = np.linalg.norm(affine[:3, :3], axis=0)
    return bool(sizes.min() > 1e-6 and abs(np.linalg.det(affine[:3, :3] / sizes)) > 1e-3)


def shape_text(shape: Iterable[int]) -> str:
    return "x".join(str(int(size)) for size in shape)
