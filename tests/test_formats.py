"""Formats beside NIfTI: what was written by hand is read back, voxel for voxel and place for place."""

import gzip
from pathlib import Path

import numpy as np
import pytest
from faulty_files import dicom_slices, mgh_bytes, mha_bytes, nrrd_bytes, write_series

from ssl_utils.data import cache, datalists, datasets, formats, volumes
from ssl_utils.data.dataset import Grid
from ssl_utils.data.formats import names, reading
from ssl_utils.errors import CourseError

AFFINE = np.array([[0.0, -2, 0, 5], [1.5, 0, 0, -7], [0, 0, 3, 9], [0, 0, 0, 1]])  # axes A, L, S
VOXELS = np.random.default_rng(0).integers(-200, 999, (7, 6, 5)).astype(np.int16)
LABEL = (VOXELS % 3).astype(np.uint8)


def oblique(degrees: float) -> np.ndarray:
    turn, (c, s) = np.eye(4), (np.cos(np.radians(degrees)), np.sin(np.radians(degrees)))
    turn[1:3, 1:3] = [[c, -s], [s, c]]
    return turn @ AFFINE


def refusal(path: Path) -> str:
    with pytest.raises(CourseError) as caught:
        volumes.read_image(path)
    assert str(caught.value).startswith(str(path)) and "\n" not in str(caught.value)
    return str(caught.value)


FILES = {
    "a.nrrd": lambda a, m: nrrd_bytes(a, m),
    "raw.nrrd": lambda a, m: nrrd_bytes(a, m, encoding="raw"),
    "a.seg.nrrd": lambda a, m: nrrd_bytes(a, m),
    "a.mha": lambda a, m: mha_bytes(a, m),
    "raw.mha": lambda a, m: mha_bytes(a, m, compressed=False),
    "a.mgh": lambda a, m: mgh_bytes(a, m),
    "a.mgz": lambda a, m: gzip.compress(mgh_bytes(a, m)),
}


@pytest.mark.parametrize("degrees", [0, 35])
@pytest.mark.parametrize("name", FILES)
def test_a_file_is_read_back(tmp_path, name, degrees):
    path, affine = tmp_path / name, oblique(degrees)
    path.write_bytes(FILES[name](VOXELS, affine))
    image = volumes.read_image(path)
    assert np.array_equal(image.array[0], VOXELS) and np.allclose(image.affine, affine, atol=1e-4)
    assert np.dtype(image.stored).newbyteorder("=") == np.int16 and not image.notes
    path.write_bytes(FILES[name](LABEL, affine))
    label = volumes.read_label(path, values=[1, 2])
    assert np.array_equal(label.array[0], LABEL)
    volumes.check_pair(image, label)


@pytest.mark.parametrize("degrees", [0, 35])
def test_a_dicom_series_is_read_back_whatever_the_order_of_its_files(tmp_path, degrees):
    files = dicom_slices(VOXELS, oblique(degrees), RescaleSlope=[1, 2, 1, 1, 0.5], RescaleIntercept=-10)
    folder = write_series(tmp_path / "s", files[::-1])
    (folder / "readme.txt").touch()
    image = volumes.read_image(folder)
    expected = VOXELS * np.array([1, 2, 1, 1, 0.5]) - 10  # a scale of its own for each slice, as PET has
    assert np.allclose(image.array[0], expected) and np.allclose(image.affine, oblique(degrees), atol=1e-4)


def test_a_slice_is_known_by_its_ending_or_by_its_first_bytes(tmp_path):
    slices = {"IM0001": b"\0" * 128 + b"DICM", "a.dcm": b"", "b.IMA": b"", "notes": b"\0" * 128 + b"text", "c.txt": b""}
    for name, content in slices.items():
        (tmp_path / name).write_bytes(content)
    assert [name for name in slices if names.is_slice(tmp_path / name)] == ["IM0001", "a.dcm", "b.IMA"]
    assert names.is_slice(tmp_path / "gone.dcm") and not names.is_slice(tmp_path / "gone")


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz", "a.mha"])
def test_a_header_is_read_without_the_voxels(tmp_path, name):
    if name.endswith("mha"):
        (tmp_path / name).write_bytes(mha_bytes(VOXELS, AFFINE))
    else:
        volumes.write_nifti(tmp_path / name, VOXELS, AFFINE)
    shape, affine = reading.header(tmp_path / name)
    assert shape == VOXELS.shape and np.allclose(affine, AFFINE)


def series(folder: Path, **how) -> Path:
    return write_series(folder, dicom_slices(VOXELS, AFFINE, **how))


def test_a_series_that_is_no_even_volume_is_refused(tmp_path):
    assert "unevenly spaced" in refusal(series(tmp_path / "gap", heights=[0, 3, 6, 12, 15]))
    assert "one position" in refusal(series(tmp_path / "twice", heights=[0, 3, 3, 6, 9]))
    assert "2 DICOM series" in refusal(series(tmp_path / "two", SeriesInstanceUID=["1.2", "1.2", "1.3", "1.2", "1.2"]))
    tilted = [[-5, 7 + 1.0 * n, 9 + 3.0 * n] for n in range(5)]
    assert "18 degrees off perpendicular" in refusal(series(tmp_path / "tilt", ImagePositionPatient=tilted))
    sizes = [["2", "1.5"]] * 4 + [["2", "1.6"]]
    assert "another pixel spacing" in refusal(series(tmp_path / "zoom", PixelSpacing=sizes))
    assert "colour" in refusal(series(tmp_path / "rgb", SamplesPerPixel=3))
    assert "inverted" in refusal(series(tmp_path / "film", PhotometricInterpretation="MONOCHROME1"))
    assert "multi-frame" in refusal(series(tmp_path / "frames", NumberOfFrames=4))
    assert "one DICOM slice" in refusal(write_series(tmp_path / "one", dicom_slices(VOXELS, AFFINE)[:1]))


def test_a_slice_that_is_cut_or_no_dicom_is_refused(tmp_path):
    folder = series(tmp_path / "s")
    whole = (folder / "slice002.dcm").read_bytes()
    (folder / "slice002.dcm").write_bytes(whole[:-10])
    assert "cannot be decoded" in refusal(folder)
    (folder / "slice002.dcm").write_bytes(b"")
    assert "is empty" in refusal(folder)
    (folder / "slice002.dcm").write_bytes(whole)
    (folder / "slice9").write_bytes(b"something else" * 50)
    assert "not a readable DICOM slice" in refusal(folder)


def test_voxels_beside_their_header_belong_to_the_volume(tmp_path):
    path = tmp_path / "a.mhd"
    header, _, voxels = mha_bytes(VOXELS, AFFINE, compressed=False).partition(b"LOCAL\n")
    path.write_bytes(header + b"a.raw\n")
    (tmp_path / "a.raw").write_bytes(voxels)
    assert np.array_equal(volumes.read_image(path).array[0], VOXELS)
    case = datalists.Case("a", path, None, "a")
    before = cache.content(case)
    (tmp_path / "a.raw").write_bytes(voxels[::-1])
    assert cache.content(case) != before


@pytest.mark.parametrize("ending", [".mhd", ".nhdr"])
@pytest.mark.parametrize("name", ["a", "[a", "a?*[1]"])
def test_voxels_of_another_name_than_their_header_belong_to_the_volume(tmp_path, name, ending):
    path, raw = tmp_path / f"{name}{ending}", tmp_path / "voxels of a.raw"
    nrrd = nrrd_bytes(VOXELS, AFFINE, encoding="raw", extra=f"data file: {raw.name}\n")
    meta = mha_bytes(VOXELS, AFFINE, compressed=False).replace(b"LOCAL\n", raw.name.encode() + b"\n")
    header = (meta if ending == ".mhd" else nrrd)[: -VOXELS.nbytes]
    for file, content in ((path, header), (raw, VOXELS.tobytes(order="F")), (tmp_path / f"{name}.txt", b"notes")):
        file.write_bytes(content)
    (tmp_path / "a1.other").touch()
    assert np.array_equal(volumes.read_image(path).array[0], VOXELS)
    assert names.parts(path) == [path, *sorted([raw, tmp_path / f"{name}.txt"])]
    before = names.state(path)
    raw.write_bytes(VOXELS[::-1].tobytes(order="F") + b"more")
    assert names.state(path) != before
    path.unlink()
    assert names.parts(path) == [path, tmp_path / f"{name}.txt"]


def test_an_own_folder_may_mix_formats(tmp_path):
    (tmp_path / "labelsTr").mkdir()
    (tmp_path / "imagesTr").mkdir()
    for name, write in {"a.nrrd": nrrd_bytes, "b.mha": mha_bytes, "c.mgh": mgh_bytes}.items():
        (tmp_path / "imagesTr" / name).write_bytes(write(VOXELS, AFFINE))
    series(tmp_path / "imagesTr" / "d")
    for name in "abcd":
        (tmp_path / "labelsTr" / f"{name}.seg.nrrd").write_bytes(nrrd_bytes(LABEL, AFFINE))
    found = datasets.datalist(datasets.get("folder", tmp_path))
    cases = [case for side in found.sides().values() for case in side]
    assert sorted(case.id for case in cases) == list("abcd") and all(case.label for case in cases)
    grid = Grid((2.0, 2.0, 2.0), (6, 6, 6))
    done = cache.prepare(cases, dataset=datasets.get("folder", tmp_path), grid=grid, root=tmp_path / "cache")
    first = done[0]
    assert all(np.array_equal(first.image, other.image) and np.array_equal(first.label, other.label) for other in done)
    assert formats.collected([tmp_path / "imagesTr"]) == [
        tmp_path / "imagesTr" / name for name in ("a.nrrd", "b.mha", "c.mgh", "d")
    ]


def test_a_folder_with_volumes_further_down_is_not_called_empty(tmp_path):
    volumes.write_nifti(tmp_path / "sub-01/anat/sub-01_T1w.nii.gz", VOXELS, AFFINE)
    with pytest.raises(CourseError, match="no volume directly in it; name the folder that has them"):
        formats.collected([tmp_path])
