"""File names: whether a file is a volume, what the volume is called, which files belong to it."""

import glob
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from ssl_utils.errors import CourseError

NIFTI = (".nii.gz", ".nii")
ENDINGS = (*NIFTI, ".seg.nrrd", ".nrrd", ".nhdr", ".mha", ".mhd", ".mgz", ".mgh.gz", ".mgh")
NAMES = "NIfTI (.nii, .nii.gz), NRRD, MetaImage (.mha, .mhd), MGZ or a folder with a DICOM series"
LABEL_WORDS = {"seg", "dseg", "label", "labels", "mask", "segmentation", "gt", "gtv"}
_OTHERS = {
    "an ANALYZE or NIfTI pair": (".hdr", ".img"),
    "MINC": (".mnc",),
    "GIPL": (".gipl",),
    "a NumPy array": (".npy",),
    "a NumPy archive": (".npz",),
    "Philips PAR/REC": (".par", ".rec"),
    "ECAT": (".v",),
    "AFNI": (".head", ".brik"),
    "a NIfTI without a usual name": (".nia",),
    "VTK": (".vtk",),
}
_BESIDE_SLICES = """txt md json csv tsv xml html htm pdf png jpg jpeg yaml yml bval bvec zip db log ini url raw zraw
py sh dicomdir license licence readme version lockfile"""  # endings and whole names: may be in the folder of a series
_VOXELS = re.compile(rb"^(?:ElementDataFile\s*=|data ?file:)[ \t]*(.+?)\s*$", re.MULTILINE)  # in .mhd and in .nhdr


def suffix(path: Path | str) -> str | None:
    """The ending of a volume's file name, as written, such as ".nii.gz"; None for every other file."""
    name = path.name if isinstance(path, Path) else Path(path).name
    low = name.lower()
    return next((name[-len(end) :] for end in ENDINGS if low.endswith(end)), None) if low.endswith(ENDINGS) else None


def stem(path: Path | str) -> str:
    """The name of a file or of a series folder without such an ending."""
    name = Path(path).name
    return name.removesuffix(suffix(path) or "") or name


def says_label(path: Path) -> bool:
    """Whether the name of the file marks a label, as in t2_seg.nii.gz."""
    return bool(LABEL_WORDS & {*re.split(r"[^a-z]+", stem(path).lower())})


def other_format(path: Path) -> str | None:
    """The name of a format that is not supported, by the ending of the file."""
    ending = path.with_suffix("").suffix if path.suffix.lower() == ".gz" else path.suffix
    return next((name for name, endings in _OTHERS.items() if ending.lower() in endings), None)


def is_slice(path: Path) -> bool:
    """Whether it is a file of a DICOM series, by its name or its first bytes."""
    try:
        with path.open("rb") as stream:
            return path.suffix.lower() in (".dcm", ".ima") or stream.read(132)[128:] == b"DICM"
    except OSError:
        return path.suffix.lower() in (".dcm", ".ima")


def slices(folder: Path) -> list[Path]:
    """The files of a folder that may be slices of a series: not hidden, and not of another known type."""

    def may_be_slice(path: Path) -> bool:
        name = path.name.lower()
        known = name.startswith(".") or (path.suffix.lower().lstrip(".") or name) in _BESIDE_SLICES.split()
        return path.is_file() and not known and not suffix(path) and not other_format(path)

    return sorted(path for path in folder.iterdir() if may_be_slice(path))


def is_series(folder: Path) -> bool:
    """Whether there are DICOM slices in the folder; true of one that cannot be listed, so that reading it says why."""
    try:
        return folder.is_dir() and any(is_slice(path) for path in slices(folder))
    except OSError:
        return True


def parts(path: Path | tuple[Path, ...]) -> list[Path]:
    """The files that a volume, or several that are its channels, are made of."""
    if isinstance(path, tuple):
        return [part for channel in path for part in parts(channel)]
    if path.is_dir():
        return slices(path)
    if path.suffix.lower() not in (".mhd", ".nhdr"):
        return [path]
    beside = {*path.parent.glob(f"{glob.escape(path.stem)}.*")}
    with suppress(OSError), path.open("rb") as stream:
        named = [path.parent / name.decode("latin-1") for name in _VOXELS.findall(stream.read(1 << 16))]
        beside |= {file for file in named if file.is_file()}
    return [path, *sorted(beside - {path})]


def state(path: Path) -> tuple[tuple[str, int, int], ...]:
    """Name, size and time of the last change of every file of a volume that is there: another state, other voxels."""
    stats = [(str(file), file.stat()) for file in parts(path) if file.exists()]
    return tuple((name, stat.st_size, stat.st_mtime_ns) for name, stat in stats)


def volumes_in(folder: Path, *, deep: bool = False) -> list[Path]:
    """Volumes in a folder, sorted: files, and folders with a DICOM series. Hidden ones are left out.

    `deep` includes folders inside folders, each once: links may lead back, or to a folder that was there before.
    """
    return list(_walk(folder, deep, set()))


def _walk(folder: Path, deep: bool, seen: set[str]) -> Iterator[Path]:
    here = os.path.realpath(folder)  # unlike Path.resolve it takes a link to itself
    seen.add(here)
    entries: list[os.DirEntry] = []
    with suppress(OSError), os.scandir(folder) as inside:
        entries = sorted((entry for entry in inside if not entry.name.startswith(".")), key=lambda entry: entry.name)
    for entry in entries:
        real = os.path.realpath(entry.path) if entry.is_symlink() else os.path.join(here, entry.name)
        if deep and real in seen:
            continue
        path = folder / entry.name
        if path.is_dir():
            if is_series(path):
                yield path
            if deep:
                yield from _walk(path, deep, seen)
        elif suffix(path):
            seen.add(real)
            yield path


def collected(paths: Iterable[Path]) -> list[Path]:
    """Volumes under each path: the file itself, the series in a folder, or the volumes in it.

    Raises:
        CourseError: a folder without any.
    """
    volumes: list[Path] = []
    for path in paths:
        inside = volumes_in(path) or ([path] if is_series(path) else []) if path.is_dir() else [path]
        if not inside:
            raise CourseError(f"{path}: has no volume directly in it; name the folder that has them, or give {NAMES}")
        volumes += inside
    return volumes


def strangers(folder: Path) -> list[Path]:
    """Files under a folder with a volume in a format that is not supported."""
    return sorted(p for p in folder.rglob("*") if p.is_file() and other_format(p) and not p.name.startswith("."))
