"""Damaged on purpose: a mutated header or stream is refused in one line, or read as two other readers read it.

Seeded, so that a failure can be repeated. SimpleITK may abort the process on some headers: it reads in a child.
"""

import gzip
import random
import subprocess
import sys
import time
import warnings
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from faulty_files import dicom_slices, mgh_bytes, mha_bytes, nifti_bytes, nrrd_bytes, write_series

from ssl_utils.data import volumes
from ssl_utils.errors import CourseError

AFFINE = np.array([[0.0, -2, 0, 5], [1.5, 0, 0, -7], [0, 0, 3, 9], [0, 0, 0, 1]])
VOXELS = np.random.default_rng(0).integers(-200, 999, (7, 6, 5)).astype(np.int16)
FIELDS = [  # of a NIfTI-1 header: offset, length
    (0, 4),
    (40, 2),
    (42, 2),
    (44, 2),
    (46, 2),
    (48, 2),
    (70, 2),
    (72, 2),
    (76, 4),
    (80, 4),
    (84, 4),
    (88, 4),
    (92, 4),
    (108, 4),
    (112, 4),
    (116, 4),
    (123, 1),
    (252, 2),
    (254, 2),
    (256, 4),
    (260, 4),
    (264, 4),
    (268, 4),
    (280, 4),
    (284, 4),
    (296, 4),
    (312, 4),
    (328, 4),
    (344, 4),
]
SECONDS = 60
ITK = """
import sys, numpy as np, SimpleITK
for path in sys.argv[1:]:
    try:
        image = SimpleITK.ReadImage(path)
        if image.GetNumberOfComponentsPerPixel() == 1:
            np.savez(path + ".npz", voxels=SimpleITK.GetArrayFromImage(image).astype(float).T,
                     direction=image.GetDirection(), spacing=image.GetSpacing(), origin=image.GetOrigin())
    except Exception:
        pass
"""


def mutated(content: bytes, rng: random.Random, *, header: int) -> bytes:
    """A field of another value, a flipped bit, a cut, a run of zeros, bytes inserted, or bytes left out."""
    content, kind = bytearray(content), rng.randrange(7)
    at = rng.randrange(min(header, len(content)) if rng.random() < 0.6 else len(content))
    if kind == 0:
        content[at] ^= 1 << rng.randrange(8)
    elif kind == 1:
        return bytes(content[: rng.randrange(len(content))])
    elif kind == 2:
        content[at : at + rng.randrange(1, 40)] = b""
    elif kind == 3:
        content[at:at] = rng.randbytes(rng.randrange(1, 40))
    elif kind == 4:
        width = max(0, min(rng.randrange(1, 40), len(content) - at))
        content[at : at + width] = bytes(width)
    elif kind == 5:
        content += rng.randbytes(rng.randrange(1, 400))
    else:
        for _ in range(rng.randrange(1, 9)):
            content[rng.randrange(min(header, len(content)))] = rng.randrange(256)
    return bytes(content)


def field_changed(content: bytes, rng: random.Random) -> bytes:
    content, (at, width) = bytearray(content), rng.choice(FIELDS)
    value = rng.choice([rng.randbytes(width), bytes(width), b"\xff" * width, b"\x7f" + b"\xff" * (width - 1)])
    if width == 4 and rng.random() < 0.5:
        value = np.float32(rng.choice([np.nan, np.inf, -1, 0, 1e-30, 1e30, 3.5, -7])).tobytes()
    if width == 2 and rng.random() < 0.7:
        value = np.int16(rng.choice([-1, 0, 1, 2, 3, 4, 5, 7, 8, 16, 32, 64, 128, 256, 512, 768, 1024])).tobytes()
    content[at : at + width] = value
    return bytes(content)


def read(path: Path, reader=volumes.read_image) -> volumes.Volume | None:
    """The volume, or None for a refusal in one line; any other exception fails the test."""
    started = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # a warning on screen is not one line with a cure
        try:
            found = reader(path)
        except CourseError as error:
            assert str(error).startswith(str(path)) and "; " in str(error) and "\n" not in str(error)
            found = None
    assert time.perf_counter() - started < 10
    return found


def second_opinion(paths: list[Path]) -> dict[Path, tuple[np.ndarray, np.ndarray]]:
    """What ITK makes of each file that it can read; a file on which it aborts ends one child, not the test."""
    left = list(paths)
    while left:
        done = subprocess.run([sys.executable, "-c", ITK, *map(str, left)], capture_output=True, timeout=SECONDS)
        if done.returncode == 0:
            break
        written = [index for index, path in enumerate(left) if path.with_name(path.name + ".npz").exists()]
        left = left[(written[-1] + 2 if written else 1) :]
    found = {}
    for path in paths:
        if path.with_name(path.name + ".npz").exists():
            seen = np.load(path.with_name(path.name + ".npz"))
            if len(seen["origin"]) == 3:
                affine = np.eye(4)
                affine[:3, :3] = seen["direction"].reshape(3, 3) * seen["spacing"]
                affine[:3, 3] = seen["origin"]
                found[path] = seen["voxels"], np.diag([-1.0, -1, 1, 1]) @ affine
    return found


def same(image: volumes.Volume, voxels: np.ndarray, affine: np.ndarray) -> bool:
    if image.array[0].shape != voxels.shape or not np.allclose(image.affine, affine, rtol=1e-3, atol=1e-3):
        return False
    return np.allclose(image.array[0], voxels, rtol=1e-4, atol=1e-4, equal_nan=True)


@pytest.mark.timeout(300)
def test_a_mutated_nifti_is_refused_or_read_as_others_read_it(tmp_path):
    rng = random.Random(0)
    kinds = {
        "int16": nifti_bytes(VOXELS, AFFINE),
        "float32": nifti_bytes(VOXELS.astype(np.float32), AFFINE),
        "uint8": nifti_bytes((VOXELS % 3).astype(np.uint8), AFFINE),
        "nifti2": nib.Nifti2Image(VOXELS, AFFINE).to_bytes(),
    }
    kept: list[tuple[Path, volumes.Volume]] = []
    for number in range(600):
        name = rng.choice(list(kinds))
        second = name == "nifti2"
        content = (
            mutated(kinds[name], rng, header=540 if second else 348)
            if second or number % 2
            else field_changed(kinds[name], rng)
        )
        zipped = number % 3 == 0
        path = tmp_path / f"m{number}.nii{'.gz' if zipped else ''}"
        path.write_bytes(gzip.compress(content) if zipped else content)
        image = read(path)
        read(path, volumes.read_label)
        if image is not None:
            kept.append((path, image))
    assert 60 < len(kept) < 560, "both outcomes must be met"
    for path, image in kept:
        other = nib.load(path)
        voxels = np.asarray(other.dataobj, float).reshape(image.shape)
        assert same(image, voxels, other.affine), path
    opinions = second_opinion([path for path, _ in kept])
    assert len(opinions) > 40
    doubtful = [path for path, image in kept if path in opinions and not same(image, *opinions[path])]
    noted = {path for path, image in kept if image.notes}
    assert set(doubtful) <= noted, sorted(set(doubtful) - noted)


def test_a_mutated_gzip_stream_is_refused_or_whole(tmp_path):
    rng = random.Random(1)
    content = gzip.compress(nifti_bytes(VOXELS, AFFINE), mtime=0)
    refused = 0
    for number in range(200):
        path = tmp_path / f"z{number}.nii.gz"
        path.write_bytes(mutated(content, rng, header=10))
        image = read(path)
        refused += image is None
        assert image is None or same(image, VOXELS, AFFINE), path
    assert 100 < refused < 200


@pytest.mark.parametrize(("suffix", "header"), [(".nrrd", 260), (".mha", 300), (".mgh", 284), (".mgz", 284)])
def test_a_mutated_file_of_another_format_is_refused_or_read(tmp_path, suffix, header):
    rng = random.Random(2)
    made = {".nrrd": nrrd_bytes, ".mha": mha_bytes, ".mgh": mgh_bytes, ".mgz": mgh_bytes}[suffix](VOXELS, AFFINE)
    kept = []
    for number in range(120):
        content = mutated(made, rng, header=header)
        path = tmp_path / f"m{number}{suffix}"
        path.write_bytes(gzip.compress(content) if suffix == ".mgz" else content)
        image = read(path)
        read(path, volumes.read_label)
        if image is not None:
            kept.append((path, image))
    assert kept and len(kept) < 110
    if suffix in (".nrrd", ".mha"):
        opinions = second_opinion([path for path, _ in kept])
        for path, image in kept:  # ITK may hand out garbage for a stream that it could not unzip: the truth counts too
            right = path not in opinions or same(image, *opinions[path]) or same(image, VOXELS, AFFINE)
            assert right or image.notes, path


def test_a_mutated_dicom_slice_is_refused_or_read(tmp_path):
    rng = random.Random(3)
    files = dicom_slices(VOXELS, AFFINE)
    outcomes = {True: 0, False: 0}
    for number in range(120):
        changed = [*files[:2], mutated(files[2], rng, header=900), *files[3:]]
        folder = write_series(tmp_path / f"s{number}", changed)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            try:
                image = volumes.read_image(folder)
            except CourseError as error:
                assert str(error).startswith(str(folder)) and "\n" not in str(error)
                outcomes[False] += 1
            else:
                assert np.isfinite(image.array).all()
                outcomes[True] += 1
    assert min(outcomes.values()) > 10
