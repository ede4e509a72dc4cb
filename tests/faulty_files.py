"""Files that break loaders: made here, and the real ones where they lie beside the project."""

import gzip
import os
import struct
from pathlib import Path

import nibabel as nib
import numpy as np

DATA = Path(os.environ.get("SSL_TEST_DATA") or Path(__file__).resolve().parents[2] / "shared" / "data")


def real_oddities() -> list[Path]:
    """Every file of the collection of oddities; empty where it is not there."""
    return sorted(path for path in (DATA / "oddities").rglob("*") if path.is_file())


def nifti_bytes(array: np.ndarray, affine: np.ndarray | None = None) -> bytes:
    return nib.Nifti1Image(array, np.eye(4) if affine is None else affine).to_bytes()


def _patched(offset: int, layout: str, *values: float) -> bytes:
    content = bytearray(nifti_bytes(np.zeros((4, 5, 6), np.int16)))
    struct.pack_into(layout, content, offset, *values)
    return bytes(content)


def _with_nan() -> bytes:
    array = np.ones((4, 5, 6), np.float32)
    array[1, 2, 3] = np.nan
    return nifti_bytes(array)


_GOOD = nifti_bytes(np.arange(120, dtype=np.int16).reshape(4, 5, 6))
_NOISE = nifti_bytes(np.random.default_rng(0).integers(0, 999, (16, 16, 16)).astype(np.int16))
_COLOUR = np.zeros((3, 3, 3), dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")])

# name -> (bytes, a word of the reason)
FAULTY: dict[str, tuple[bytes, str]] = {
    "empty.nii": (b"", "empty"),
    "empty.nii.gz": (b"", "empty"),
    "gz_of_nothing.nii.gz": (gzip.compress(b""), "empty"),
    "truncated.nii.gz": (gzip.compress(_NOISE)[:-2000], "truncated"),
    "without_its_last_bytes.nii.gz": (gzip.compress(_NOISE)[:-4], "truncated"),
    "flipped_bit.nii.gz": (gzip.compress(_NOISE)[:-8] + b"\0\0\0\0" + gzip.compress(_NOISE)[-4:], "damaged"),
    "short.nii": (_NOISE[:-1], "truncated"),
    "short_inside.nii.gz": (gzip.compress(_NOISE[:2000]), "truncated"),
    "header_only.nii": (_GOOD[:348], "truncated"),
    "half_a_header.nii": (_GOOD[:200], "not a NIfTI"),
    "text.nii": (b"hello " * 200, "not a NIfTI"),
    "page.nii.gz": (b"<!DOCTYPE html><html>sign in</html>", "web page"),
    "gz_of_page.nii.gz": (gzip.compress(b"<html>404</html>"), "web page"),
    "pointer.nii.gz": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", "Git LFS"),
    "plain.nii.gz": (_GOOD, "not gzip"),
    "zipped.nii": (gzip.compress(_GOOD), "is gzip"),
    "image.nrrd": (b"NRRD0004\n", "NRRD"),
    "slice.dcm": (b"\0" * 128 + b"DICM", "DICOM"),
    "7106": (b"\0" * 400, "not named"),
    "image.gipl.gz": (gzip.compress(b"\0" * 400), "GIPL"),
    "flat.nii": (nifti_bytes(np.zeros((8, 8), np.int16)), "2D"),
    "series.nii": (nifti_bytes(np.zeros((4, 5, 6, 3), np.int16)), "4D"),
    "tensor.nii": (nifti_bytes(np.zeros((4, 5, 6, 1, 3), np.int16)), "5D"),
    "colour.nii": (nifti_bytes(_COLOUR), "colour"),
    "complex.nii": (nifti_bytes(np.ones((3, 3, 3), np.complex64)), "complex"),
    "nan.nii": (_with_nan(), "NaN"),
    "overflow.nii": (nifti_bytes(np.full((3, 3, 3), 1e300)), "infinite"),
    "singular.nii": (_patched(312, "<4f", 0, 0, 0, 0), "affine"),
    "nan_affine.nii": (_patched(280, "<4f", *[np.nan] * 4), "affine"),
    "unknown_type.nii": (_patched(70, "<h", -9510), "not a readable"),
    "negative_size.nii": (_patched(42, "<h", -4), ""),
    "no_voxels.nii": (_patched(42, "<h", 0), ""),
    "enormous.nii": (_patched(40, "<4h", 3, 32767, 32767, 32767), "truncated"),
    "far_offset.nii": (_patched(108, "<f", 1e9), "truncated"),
    "negative_offset.nii": (_patched(108, "<f", -1e9), ""),
    "no_offset.nii": (_patched(108, "<f", np.nan), ""),
}


def write_faulty(folder: Path) -> dict[str, Path]:
    for name, (content, _) in FAULTY.items():
        (folder / name).write_bytes(content)
    return {name: folder / name for name in FAULTY}
