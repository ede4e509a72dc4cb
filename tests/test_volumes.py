import warnings

import numpy as np
import pytest
from faulty_files import FAULTY, nifti_bytes, real_oddities, write_faulty

from ssl_utils.data import volumes
from ssl_utils.errors import CourseError

AFFINE = np.array([[0.0, -2, 0, 5], [1.5, 0, 0, -7], [0, 0, 3, 9], [0, 0, 0, 1]])  # axes A, L, S


def save(path, array, affine=None):
    path.write_bytes(nifti_bytes(array, affine))
    return path


def refusal(action) -> str:
    with pytest.raises(CourseError) as caught:
        action()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_an_image_is_float32_channels_first_with_its_geometry(tmp_path):
    voxels = np.arange(120, dtype=np.int16).reshape(4, 5, 6)
    image = volumes.read_image(save(tmp_path / "a.nii", voxels, AFFINE))
    assert image.array.dtype == np.float32 and image.array.shape == (1, 4, 5, 6) and image.shape == (4, 5, 6)
    assert np.array_equal(image.array[0], voxels) and np.allclose(image.affine, AFFINE)
    assert image.spacing == pytest.approx((1.5, 2, 3)) and image.orientation == "ALS" and image.stored == "int16"


def test_trailing_single_axes_fall_away_and_channels_come_first(tmp_path):
    assert volumes.read_image(save(tmp_path / "a.nii", np.ones((4, 5, 6, 1, 1), np.int16))).array.shape == (1, 4, 5, 6)
    assert volumes.read_image(save(tmp_path / "b.nii", np.ones((192, 8, 1), np.int16))).array.shape == (1, 192, 8, 1)
    four = np.arange(4 * 5 * 6 * 2, dtype=np.int16).reshape(4, 5, 6, 2)
    image = volumes.read_image(save(tmp_path / "c.nii", four), channels=2)
    assert np.array_equal(image.array[1], four[..., 1]) and volumes.count_channels(tmp_path / "c.nii") == 2
    assert "4D with 2 volumes" in refusal(lambda: volumes.read_image(tmp_path / "c.nii"))
    assert "4 channels" in refusal(lambda: volumes.read_image(tmp_path / "a.nii", channels=4))


@pytest.mark.parametrize("name", FAULTY)
def test_a_faulty_file_is_refused_in_one_line(name, tmp_path):
    path = write_faulty(tmp_path)[name]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        message = refusal(lambda: volumes.read_image(path))
    assert message.startswith(f"{path}: ") and "; " in message and FAULTY[name][1] in message
    refusal(lambda: volumes.read_label(path))


def test_what_is_not_a_file_is_refused(tmp_path):
    assert "no such file" in refusal(lambda: volumes.read_image(tmp_path / "none.nii.gz"))
    assert "without DICOM slices" in refusal(lambda: volumes.read_image(tmp_path))
    assert "cannot be read" in refusal(lambda: volumes.read_image(tmp_path / ("x" * 300 + ".nii")))


def test_real_oddities_are_read_or_refused():
    outcome = {"read": 0, "refused": 0}
    for path in real_oddities():  # none where the collection is not there; FAULTY stands in for it
        for read in (volumes.read_image, volumes.read_label):
            try:
                volume = read(path)
            except CourseError as error:
                assert str(error).startswith(f"{path}: ") and "\n" not in str(error)
                outcome["refused"] += read is volumes.read_image
            else:
                assert volume.array.ndim == 4 and np.isfinite(volume.array).all()
                outcome["read"] += read is volumes.read_image
    assert outcome["read"] > 0 or not real_oddities()


def test_a_label_is_whole_numbers_among_its_values(tmp_path):
    array = np.zeros((4, 5, 6), np.float32)
    array[1], array[2] = 1, 2.0000002
    label = volumes.read_label(save(tmp_path / "a.nii", array), values=[1, 2])
    assert label.array.dtype == np.uint8 and volumes.present_values(label.array) == [0, 1, 2]
    assert "value 2 is not among 0, 1" in refusal(lambda: volumes.read_label(tmp_path / "a.nii", values=[0, 1]))
    for value, word in ((0.5, "0.5"), (-1, "-1"), (300, "300"), (np.nan, "NaN")):
        array[0, 0, 0] = value
        assert word in refusal(lambda: volumes.read_label(save(tmp_path / "b.nii", array)))


def test_a_pair_must_share_its_grid(tmp_path):
    image = volumes.read_image(save(tmp_path / "i.nii", np.ones((4, 5, 6), np.int16), AFFINE))
    volumes.check_pair(image, volumes.read_label(save(tmp_path / "l.nii", np.ones((4, 5, 6), np.uint8), AFFINE + 1e-4)))
    shorter = volumes.read_label(save(tmp_path / "s.nii", np.ones((4, 5, 7), np.uint8), AFFINE))
    assert "shape 4x5x7" in refusal(lambda: volumes.check_pair(image, shorter))
    shift = np.zeros((4, 4))
    shift[0, 3] = 2
    moved = volumes.read_label(save(tmp_path / "m.nii", np.ones((4, 5, 6), np.uint8), AFFINE + shift))
    assert "2 mm" in refusal(lambda: volumes.check_pair(image, moved))


def test_turning_to_ras_and_back_moves_no_voxel(tmp_path):
    voxels = np.arange(120, dtype=np.int16).reshape(4, 5, 6)
    image = volumes.read_image(save(tmp_path / "a.nii", voxels, AFFINE))
    turned = volumes.reorient(image)
    assert turned.orientation == "RAS" and turned.shape == (5, 4, 6) and turned.spacing == pytest.approx((2, 1.5, 3))
    assert [image.shape[axis] for axis in volumes.axis_order(image)] == list(turned.shape)
    world = AFFINE @ [1, 2, 3, 1]
    i, j, k, _ = np.rint(np.linalg.inv(turned.affine) @ world).astype(int)
    assert turned.array[0, i, j, k] == voxels[1, 2, 3]
    back = volumes.reorient(turned, image.orientation)
    assert np.array_equal(back.array, image.array) and np.allclose(back.affine, AFFINE)


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.int16, np.int64, np.float16, np.float32])
def test_what_is_written_is_read_back(tmp_path, dtype):
    array = (np.arange(24).reshape(2, 3, 4) % 2).astype(dtype)
    for name in ("a.nii.gz", "b.nii.gz", "c.nii"):
        volumes.write_nifti(tmp_path / name, array, AFFINE)
        again = volumes.read_label(tmp_path / name)
        assert np.array_equal(again.array[0], array) and np.allclose(again.affine, AFFINE)
    assert (tmp_path / "a.nii.gz").read_bytes() == (tmp_path / "b.nii.gz").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.nii.gz", "b.nii.gz", "c.nii"]


def test_only_a_volume_is_written(tmp_path):
    refusal(lambda: volumes.write_nifti(tmp_path / "a.nrrd", np.zeros((2, 2, 2)), AFFINE))
    refusal(lambda: volumes.write_nifti(tmp_path / "a.nii", np.zeros((2, 2)), AFFINE))
    assert not list(tmp_path.iterdir())
