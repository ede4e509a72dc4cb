"""Preprocessed volumes on disk, memory-mapped: a crop reads a crop.

One folder per case, named by a hash of the files and of the preprocessing rule: `image.npy` (C, D, H, W) float16
in 0..1, `label.npy` (D, H, W) uint8, `voxels.npz` (some positions of each label value), `case.json`.
"""

import functools
import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from ssl_utils.data import volumes
from ssl_utils.data.datalists import Case
from ssl_utils.data.dataset import Dataset, Grid
from ssl_utils.data.formats.names import parts
from ssl_utils.files import atomic, read_json, sha256, write_json

VERSION = 2  # to be raised when preprocessing changes, so that old entries are no longer used
POSITIONS = 2000  # kept per label value, to centre crops on a structure without reading the whole label
OPEN = 100  # most memory maps at a time: a process may have 1024 open files, on some systems 256
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Prepared:
    """A cached case. Its arrays are memory maps: index them before computing, and do not keep them, since each keeps a
    file open."""

    id: str
    patient: str
    folder: Path
    source: Case
    target_file: Path | None = None  # what a pretext task predicts, where that is computed once per volume

    @cached_property
    def meta(self) -> dict:
        """mean, std (of the image in 0..1, or of each of its channels), affine, shape."""
        return read_json(self.folder / "case.json")

    @property
    def image(self) -> np.ndarray:
        """(C, D, H, W) float16 in 0..1."""
        return _mapped(self.folder / "image.npy")

    @property
    def label(self) -> np.ndarray | None:
        """(D, H, W) uint8, or None for an unlabelled case."""
        return None if self.source.label is None else _mapped(self.folder / "label.npy")

    @property
    def target(self) -> np.ndarray | None:
        """(D, H, W) integers, or None without such a file."""
        return None if self.target_file is None else _mapped(self.target_file)

    @cached_property
    def positions(self) -> dict[int, np.ndarray]:
        """Label value -> (n, 3) voxel positions."""
        path = self.folder / "voxels.npz"
        return {int(k): v for k, v in np.load(path).items()} if path.exists() else {}

    def standardised(self, crop: np.ndarray) -> np.ndarray:
        """A crop of `image` as network input: zero mean, unit standard deviation over the volume (rule `nonzero`: over
        the brain, in each channel); float32."""
        mean, std = self.moments
        return (crop.astype(np.float32) - mean) / std

    @cached_property
    def moments(self) -> tuple[np.ndarray, np.ndarray]:
        """Mean and standard deviation of the image in 0..1: one number each, or (C, 1, 1, 1) by the rule `nonzero`."""
        pair = (np.array(self.meta[name], np.float32) for name in ("mean", "std"))
        return tuple(numbers.reshape(-1, 1, 1, 1) if numbers.ndim else numbers for numbers in pair)


@functools.lru_cache(OPEN)
def _mapped(path: Path) -> np.ndarray:
    return np.load(path, mmap_mode="r")


def prepare(
    cases: Sequence[Case], *, dataset: Dataset, grid: Grid, root: Path, progress: Progress | None = None
) -> list[Prepared]:
    """Preprocess cases that are not in the cache yet, and return all of them in the same order.

    Raises:
        CourseError: a file that cannot be read, or an image that does not fit its label.
    """
    prepared = []
    for done, case in enumerate(cases):
        key = hashlib.sha256((rule(dataset, grid) + content(case)).encode()).hexdigest()[:16]
        folder = root / f"{case.id}-{key}"
        if not (folder / "case.json").exists():
            _write(case, dataset, grid, folder)
        prepared.append(Prepared(case.id, case.patient, folder, case))
        if progress:
            progress(done + 1, len(cases))
    return prepared


def rule(dataset: Dataset, grid: Grid) -> str:
    """All settings of the preprocessing, as text, and the size of a patch where it is the grid's own."""
    of_grid = {key: value for key, value in asdict(grid).items() if value is not None}
    ignored = [] if dataset.ignore is None else [dataset.ignore]
    return json.dumps([VERSION, asdict(dataset.intensity), of_grid, *ignored])


def content(case: Case) -> str:
    """Hash of the files of a case."""
    return _hash_of(case.image) + (_hash_of(case.label) if case.label else "")


def _hash_of(path: Path) -> str:
    """Hash of the file, or of all files of the volume."""
    files = parts(path)
    states = [(file, file.stat()) for file in files]
    hashes = [_hashed(file, state.st_size, state.st_mtime_ns) for file, state in states]
    return hashes[0] if files == [path] else hashlib.sha256("".join(hashes).encode()).hexdigest()


@functools.cache
def _hashed(path: Path, size: int, changed: int) -> str:
    """Cached, since both the settings of a run and the cache need it."""
    return sha256(path)


def _write(case: Case, dataset: Dataset, grid: Grid, folder: Path) -> None:
    from ssl_utils.data.transforms import preprocess  # imports MONAI, which takes seconds

    image = volumes.read_image(case.image, channels=len(dataset.channels))
    label = volumes.read_label(case.label, values=dataset.names) if case.label else None
    if label:
        volumes.check_pair(image, label)
    volume = preprocess(image, label, grid=grid, intensity=dataset.intensity)
    mean, std = (np.squeeze(numbers).tolist() for numbers in volume.moments())
    meta = {"id": case.id, "patient": case.patient, "affine": volume.affine.tolist(), "shape": list(volume.image.shape)}
    _save(folder / "image.npy", volume.image.astype(np.float16))
    if volume.label is not None:
        _save(folder / "label.npy", volume.label)
        with atomic(folder / "voxels.npz") as temporary:
            np.savez(temporary, **_positions(volume.label, dataset.labels))
    write_json(folder / "case.json", meta | {"mean": mean, "std": std})  # last: its presence means the case is complete


def _save(path: Path, array: np.ndarray) -> None:
    """As `np.save`, whose errors do not say why a file cannot be written."""
    array = np.ascontiguousarray(array)
    with atomic(path) as temporary, open(temporary, "wb") as stream:
        np.lib.format.write_array_header_1_0(stream, np.lib.format.header_data_from_array_1_0(array))
        stream.write(array.data)


def _positions(label: np.ndarray, values: Iterable[int]) -> dict[str, np.ndarray]:
    rng, positions = np.random.default_rng(0), {}
    for value in np.intersect1d(label, [*values]):
        flat = np.flatnonzero(label == value)
        flat = rng.choice(flat, POSITIONS, replace=False) if len(flat) > POSITIONS else flat
        positions[str(value)] = np.stack(np.unravel_index(flat, label.shape), 1).astype(np.int32)
    return positions
