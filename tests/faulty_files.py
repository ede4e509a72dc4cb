"""Files that break loaders: made here, and the real ones where they lie beside the project."""

import gzip
import io
import os
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

DATA = Path(os.environ.get("SSL_TEST_DATA") or Path(__file__).resolve().parents[2] / "shared" / "data")


def real_oddities() -> list[Path]:
    """Every file of the collection of oddities; empty where it is not there."""
    return sorted(path for path in (DATA / "oddities").rglob("*") if path.is_file())


def nifti_bytes(array: np.ndarray, affine: np.ndarray | None = None) -> bytes:
    return nib.Nifti1Image(array, np.eye(4) if affine is None else affine).to_bytes()


def nrrd_bytes(array: np.ndarray, affine: np.ndarray, *, encoding: str = "gzip", extra: str = "") -> bytes:
    """Written by hand, from the definition of the format and not by the reader's library."""
    rows = " ".join(f"({','.join(f'{x:.17g}' for x in column)})" for column in affine[:3, :3].T)
    kind = {"int16": "short", "uint8": "uchar", "float32": "float", "float64": "double"}[array.dtype.name]
    origin = ",".join(f"{x:.17g}" for x in affine[:3, 3])
    header = (
        f"NRRD0004\ntype: {kind}\ndimension: 3\nspace: right-anterior-superior\n"
        f"sizes: {' '.join(map(str, array.shape))}\nspace directions: {rows}\nkinds: domain domain domain\n"
        f"endian: little\nencoding: {encoding}\nspace origin: ({origin})\n{extra}\n"
    )
    data = array.tobytes(order="F")
    return header.encode() + (gzip.compress(data) if encoding == "gzip" else data)


def mha_bytes(array: np.ndarray, affine: np.ndarray, *, compressed: bool = True, extra: str = "") -> bytes:
    """As `nrrd_bytes`, for MetaImage: its world is LPS."""
    lps = np.diag([-1.0, -1, 1, 1]) @ affine
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    data = array.tobytes(order="F")
    data = zlib.compress(data) if compressed else data
    kind = {"int16": "MET_SHORT", "uint8": "MET_UCHAR", "float32": "MET_FLOAT"}[array.dtype.name]

    def line(values: np.ndarray) -> str:
        return " ".join(f"{value:.17g}" for value in np.ravel(values))

    size = f"CompressedDataSize = {len(data)}\n" if compressed else ""
    header = (
        f"ObjectType = Image\nNDims = 3\nBinaryData = True\nBinaryDataByteOrderMSB = False\n"
        f"CompressedData = {compressed}\n{size}TransformMatrix = {line((lps[:3, :3] / spacing).T)}\n"
        f"Offset = {line(lps[:3, 3])}\nElementSpacing = {line(spacing)}\n{extra}"
        f"DimSize = {line(np.array(array.shape))}\nElementType = {kind}\nElementDataFile = LOCAL\n"
    )
    return header.encode() + data


def mgh_bytes(array: np.ndarray, affine: np.ndarray) -> bytes:
    return nib.MGHImage(array, affine).to_bytes()


def dicom_slices(
    array: np.ndarray, affine: np.ndarray, *, heights: Sequence[float] | None = None, **tags
) -> list[bytes]:
    """An (columns, rows, slices) int16 array as the files of a series; `heights` moves the slices along the normal."""
    lps = np.diag([-1.0, -1, 1, 1]) @ affine
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    axes = lps[:3, :3] / spacing
    series, files = generate_uid(entropy_srcs=["series"]), []
    for index in range(array.shape[2]):
        height = index * spacing[2] if heights is None else heights[index]
        one = pydicom.Dataset()
        one.file_meta = pydicom.dataset.FileMetaDataset()
        one.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        one.SOPClassUID = one.file_meta.MediaStorageSOPClassUID = CTImageStorage
        one.SOPInstanceUID = one.file_meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=[str(index)])
        one.SeriesInstanceUID, one.Modality, one.InstanceNumber = series, "CT", index + 1
        one.Rows, one.Columns = array.shape[1], array.shape[0]
        one.PixelSpacing = [f"{spacing[1]:.10g}", f"{spacing[0]:.10g}"]
        one.ImageOrientationPatient = [f"{x:.10g}" for x in np.ravel(axes[:, :2].T)]
        one.ImagePositionPatient = [f"{x:.10g}" for x in lps[:3, 3] + height * axes[:, 2]]
        one.SamplesPerPixel, one.PhotometricInterpretation = 1, "MONOCHROME2"
        one.BitsAllocated = one.BitsStored = 16
        one.HighBit, one.PixelRepresentation = 15, 1
        one.RescaleSlope, one.RescaleIntercept = 1, 0
        one.PixelData = np.ascontiguousarray(array[:, :, index].T.astype("<i2")).tobytes()
        for name, value in tags.items():
            setattr(one, name, value[index] if isinstance(value, list) else value)
        stream = io.BytesIO()
        pydicom.dcmwrite(stream, one, enforce_file_format=True)
        files.append(stream.getvalue())
    return files


def write_series(folder: Path, files: Sequence[bytes]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for number, content in enumerate(files):
        (folder / f"slice{number:03d}.dcm").write_bytes(content)
    return folder


def _patched(offset: int, layout: str, *values: float) -> bytes:
    content = bytearray(nifti_bytes(np.zeros((4, 5, 6), np.int16)))
    struct.pack_into(layout, content, offset, *values)
    return bytes(content)


def _with_nan() -> bytes:
    array = np.ones((4, 5, 6), np.float32)
    array[1, 2, 3] = np.nan
    return nifti_bytes(array)


def _damaged(content: bytes, where: int) -> bytes:
    return content[:where] + b"zzz" + content[where + 3 :]


_GOOD = nifti_bytes(np.arange(120, dtype=np.int16).reshape(4, 5, 6))
_NOISE = nifti_bytes(np.random.default_rng(0).integers(0, 999, (16, 16, 16)).astype(np.int16))
_VOXELS = np.random.default_rng(0).integers(0, 999, (16, 16, 16)).astype(np.int16)
_SHEAR = np.array([[1, 0, 0.5, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]])
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
    "cut.nrrd": (nrrd_bytes(_VOXELS, np.eye(4))[:-900], "truncated"),
    "without_its_checksum.nrrd": (nrrd_bytes(_VOXELS, np.eye(4))[:-5], "truncated"),
    "short.nrrd": (nrrd_bytes(_VOXELS, np.eye(4), encoding="raw")[:-1], "truncated"),
    "ascii.nrrd": (nrrd_bytes(_VOXELS, np.eye(4), encoding="ascii"), "encoded as ascii"),
    "metres.nrrd": (nrrd_bytes(_VOXELS, np.eye(4), extra='space units: "m" "m" "m"\n'), "measures in m"),
    "nowhere.nrrd": (
        nrrd_bytes(_VOXELS, np.eye(4)).replace(b"right-anterior-superior", b"scanner-xyz"),
        "where left is",
    ),
    "elsewhere.nhdr": (nrrd_bytes(_VOXELS, np.eye(4), extra="data file: ../secret.raw\n"), "keeps its voxels in"),
    "damaged.mha": (_damaged(mha_bytes(_VOXELS, np.eye(4)), -3000), "damaged"),
    "cut.mha": (mha_bytes(_VOXELS, np.eye(4))[:-900], "truncated"),
    "short.mha": (mha_bytes(_VOXELS, np.eye(4), compressed=False)[:-1], "truncated"),
    "text.mha": (b"hello " * 200, "not a MetaImage"),
    "no_voxels.mhd": (mha_bytes(_VOXELS, np.eye(4)).split(b"LOCAL")[0] + b"voxels.raw\n", "is not there"),
    "scaled.mha": (mha_bytes(_VOXELS, np.eye(4), extra="ElementToIntensityFunctionSlope = 2\n"), "Slope"),
    "shifted.mha": (mha_bytes(_VOXELS, np.eye(4), extra="ElementToIntensityFunctionOffset = -1024\n"), "Offset"),
    "cut.mgz": (gzip.compress(mgh_bytes(_VOXELS, np.eye(4)))[:-900], "truncated"),
    "short.mgh": (mgh_bytes(_VOXELS, np.eye(4))[:4000], "truncated"),
    "text.mgh": (b"hello " * 200, "not an MGH"),
    "plain.mgz": (mgh_bytes(_VOXELS, np.eye(4)), "not gzip"),
    "metres.nii": (_patched(123, "<b", 1), "metres"),
    "sheared.nii": (nifti_bytes(_VOXELS, _SHEAR), "27 degrees"),
    "one_slice.dcm": (dicom_slices(_VOXELS, np.eye(4))[0], "one DICOM slice"),
    "frames.dcm": (dicom_slices(_VOXELS, np.eye(4), NumberOfFrames=16)[0], "multi-frame"),
    "minc.mnc": (b"CDF\1" + b"\0" * 400, "MINC"),
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
