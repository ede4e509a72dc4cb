"""Which files are volumes, what a volume is called, and which reader opens it."""

from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial
from pathlib import Path

import numpy as np

from ssl_utils.data.formats import dicom
from ssl_utils.data.formats.metaimage import open_metaimage
from ssl_utils.data.formats.nifti import open_mgh, open_nifti, quick_header
from ssl_utils.data.formats.nrrd_file import open_nrrd
from ssl_utils.data.formats.stored import Stored, checked, usable
from ssl_utils.errors import CourseError

NIFTI = (".nii.gz", ".nii")
READERS: dict[str, Callable[[Path], Stored]] = {
    **dict.fromkeys(NIFTI, open_nifti),
    **dict.fromkeys((".seg.nrrd", ".nrrd", ".nhdr"), open_nrrd),
    **dict.fromkeys((".mha", ".mhd"), open_metaimage),
    **dict.fromkeys((".mgz", ".mgh.gz", ".mgh"), open_mgh),
}
NAMES = "NIfTI (.nii, .nii.gz), NRRD, MetaImage (.mha, .mhd), MGZ or a folder with a DICOM series"
_NOT_READ = {
    ".mnc": "MINC",
    ".hdr": "an ANALYZE or NIfTI pair",
    ".img": "an ANALYZE or NIfTI pair",
    ".gipl": "GIPL",
    ".npy": "a NumPy array",
    ".npz": "a NumPy archive",
    ".par": "Philips PAR/REC",
    ".rec": "Philips PAR/REC",
    ".v": "ECAT",
    ".head": "AFNI",
    ".brik": "AFNI",
    ".nia": "a NIfTI without a usual name",
    ".vtk": "VTK",
}
_BESIDE_SLICES = {  # what may lie in the folder of a series without being a slice
    ".txt",
    ".md",
    ".json",
    ".csv",
    ".tsv",
    ".xml",
    ".html",
    ".htm",
    ".pdf",
    ".png",
    ".jpg",
    ".jpeg",
    ".yaml",
    ".yml",
    ".bval",
    ".bvec",
    ".zip",
    ".db",
    ".log",
    ".ini",
    ".url",
    ".raw",
    ".zraw",
    ".py",
    ".sh",
}
_NAMES_BESIDE = {"dicomdir", "license", "licence", "readme", "version", "lockfile"}


def open_volume(path: Path) -> Stored:
    """Parse the header of a volume; its voxels are decoded when asked for.

    Raises:
        CourseError: no such file, not a format that is read, damaged, or without usable geometry or voxels.
    """
    return checked(path, _reader(path)(path))


def header(path: Path) -> tuple[tuple[int, ...], np.ndarray]:
    """Shape and affine, without unzipping a whole NIfTI file; whether all of it is there, `open_volume` tells.

    Raises:
        CourseError: as `open_volume`.
    """
    if suffix(path) in NIFTI:
        with suppress(Exception):  # nibabel raises a different one for every way a file can be wrong
            shape, affine = quick_header(path)
            if usable(affine):
                return shape, affine
    found = open_volume(path)
    return found.shape, found.affine


def suffix(path: Path | str) -> str | None:
    """The ending by which a volume's file is known, as written, such as ".nii.gz"; None for every other file."""
    name = Path(path).name
    return next((name[-len(end) :] for end in READERS if name.lower().endswith(end)), None)


def stem(path: Path | str) -> str:
    """The name of a file or of a series folder without such an ending."""
    name = Path(path).name
    return name.removesuffix(suffix(path) or "") or name


def volumes_in(folder: Path, *, deep: bool = False) -> list[Path]:
    """Files with volumes in a folder and folders in it that hold a DICOM series, sorted; hidden ones are left out.

    `deep` looks into folders inside folders.
    """
    found = []
    for path in sorted(folder.iterdir()) if folder.is_dir() else []:
        if path.name.startswith("."):
            continue
        if path.is_dir():
            found += [path] if is_series(path) else []
            found += volumes_in(path, deep=True) if deep else []
        elif suffix(path):
            found.append(path)
    return found


def collected(paths: Iterable[Path]) -> list[Path]:
    """Volumes under each path: the file, the series that a folder is, or the volumes that it holds.

    Raises:
        CourseError: a folder without any.
    """
    found: list[Path] = []
    for path in paths:
        inside = volumes_in(path) or ([path] if is_series(path) else []) if path.is_dir() else [path]
        if not inside:
            raise CourseError(f"{path}: holds no volume; give {NAMES}")
        found += inside
    return found


def strangers(folder: Path) -> list[Path]:
    """Files under a folder that hold a volume in a format that is not read here."""
    return sorted(p for p in folder.rglob("*") if p.is_file() and _other(p) and not p.name.startswith("."))


def is_series(folder: Path) -> bool:
    """Does the folder hold DICOM slices?"""
    return folder.is_dir() and any(p.suffix.lower() in dicom.SUFFIXES or dicom.is_dicom(p) for p in _slices(folder))


def parts(path: Path) -> list[Path]:
    """The files that a volume is made of."""
    if path.is_dir():
        return _slices(path)
    if path.suffix.lower() not in (".mhd", ".nhdr"):
        return [path]
    return [path] + [p for p in sorted(path.parent.glob(f"{path.stem}.*")) if p != path]  # the voxels lie beside it


def _slices(folder: Path) -> list[Path]:
    def may_be_slice(path: Path) -> bool:
        name = path.name.lower()
        known = name.startswith(".") or name in _NAMES_BESIDE or path.suffix.lower() in _BESIDE_SLICES
        return path.is_file() and not known and not suffix(path) and not _other(path)

    return sorted(path for path in folder.iterdir() if may_be_slice(path))


def _other(path: Path) -> str | None:
    """The name of a format that is not read here, by the ending of the file."""
    ending = path.with_suffix("").suffix if path.suffix.lower() == ".gz" else path.suffix
    return _NOT_READ.get(ending.lower())


def _reader(path: Path) -> Callable[[Path], Stored]:
    try:
        if path.is_dir():
            if not is_series(path):
                raise CourseError(f"{path}: is a folder without DICOM slices, not a volume; name a file in it")
            return partial(dicom.open_series, files=_slices(path))
        if not path.exists():
            raise CourseError(f"{path}: no such file; check the path or the datalist")
        if not path.is_file():
            raise CourseError(f"{path}: is not a file; name a volume")
    except OSError as error:
        raise CourseError(f"{path}: cannot be read ({error.strerror}); check its name and permissions") from None
    ending = suffix(path)
    if ending:
        return READERS[ending.lower()]
    if path.suffix.lower() in dicom.SUFFIXES or dicom.is_dicom(path):
        dicom.refuse_single(path)
    what = _other(path) or "not named as a volume"
    raise CourseError(f"{path}: is {what}; convert it to .nii.gz, or give {NAMES}")
