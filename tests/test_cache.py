"""Preprocessing, the cache on disk, and crops that are functions of their number."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

from ssl_utils.data import cache, volumes
from ssl_utils.data.crops import Consecutive, Crops, FixedCrops, random_corner
from ssl_utils.data.dataset import Grid, Intensity
from ssl_utils.data.transforms import augmentation, preprocess, rescale
from ssl_utils.data.volumes import Volume
from ssl_utils.errors import CourseError
from ssl_utils.segmentation.inference import to_original
from ssl_utils.segmentation.metrics import dice

PERCENTILES = Intensity("percentile", 1, 99)


def volume(array, affine=None):
    return volumes.Volume(np.asarray(array, np.float32)[None], np.eye(4) if affine is None else affine, "here.nii")


@pytest.fixture
def prepared(tiny_setup, tmp_path):
    cases = tiny_setup.datalist.training
    return cache.prepare(cases, dataset=tiny_setup.dataset, grid=tiny_setup.grid, root=tmp_path / "cache")


def test_a_window_maps_hounsfield_units_to_zero_and_one():
    hu = np.array([-1000, -175, 37.5, 250, 2000], np.float32).reshape(1, 5, 1, 1)
    found = rescale(hu, Intensity("window", -175, 250))
    np.testing.assert_allclose(found.ravel(), [0, 0, 0.5, 1, 1])


def test_percentiles_make_volumes_of_any_range_alike():
    image = np.random.default_rng(0).normal(size=(1, 16, 16, 16)).astype(np.float32)
    np.testing.assert_allclose(rescale(image, PERCENTILES), rescale(image * 1e5 + 77, PERCENTILES), atol=1e-3)


def test_orientation_and_spacing_follow_the_affine():
    array = np.zeros((20, 24, 28), np.float32)
    array[2:6, 3:9, 20:26] = 1
    flipped = nib.as_closest_canonical(nib.Nifti1Image(array[::-1], np.diag([-2.0, 2, 2, 1])))
    assert nib.aff2axcodes(flipped.affine) == ("R", "A", "S")
    grid = Grid((2.0, 2.0, 2.0), (16, 16, 16))
    plain = preprocess(volume(array, np.diag([2.0, 2, 2, 1])), None, grid=grid, intensity=PERCENTILES)
    turned = preprocess(volume(array[::-1], np.diag([-2.0, 2, 2, 1])), None, grid=grid, intensity=PERCENTILES)
    np.testing.assert_allclose(plain.image, turned.image, atol=1e-5)
    grid = Grid((4.0,) * 3, (8, 8, 8))
    coarse = preprocess(volume(array, np.diag([2.0, 2, 2, 1])), None, grid=grid, intensity=PERCENTILES)
    assert coarse.image.shape == (1, 10, 12, 14)


def test_small_volumes_are_padded_and_tiny_ones_refused():
    grid = Grid((1.0, 1.0, 1.0), (16, 16, 16))
    done = preprocess(volume(np.random.rand(12, 20, 16)), None, grid=grid, intensity=PERCENTILES)
    assert done.image.shape == (1, 16, 20, 16)
    np.testing.assert_allclose(done.affine[:3, 3], [-2, 0, 0])
    with pytest.raises(CourseError, match=r"here\.nii: has 3x20x16 voxels .* less than a quarter of the ROI"):
        preprocess(volume(np.random.rand(3, 20, 16)), None, grid=grid, intensity=PERCENTILES)


def test_the_body_is_cropped_out_of_the_air():
    ct = np.full((40, 40, 40), -1000, np.float32)
    ct[10:34, 8:30, 5:38] = 40
    grid, window = Grid((1.0,) * 3, (16, 16, 16)), Intensity("window", -175, 250)
    done = preprocess(volume(ct), volume(ct > 0), grid=grid, intensity=window)
    assert done.image.shape == (1, 24, 22, 33) and done.label.all()
    np.testing.assert_allclose(done.affine[:3, 3], [10, 8, 5])


def test_a_label_is_resampled_as_its_image_though_their_affines_differ_by_rounding():
    """Of 25 voxels become 12 or 13; and near 45 degrees two axes may change places."""
    shape, grid = (25, 24, 24), Grid((2.0,) * 3, (12, 12, 12))
    array = np.random.default_rng(0).uniform(1, 2, shape)
    slightly = [np.diag([size, 1, 1, 1.0]) for size in (0.999, 1.001)]
    turned = [nib.affines.from_matvec(_about_z(45 + degrees)) for degrees in (-0.05, 0.05)]
    for one, other in (slightly, slightly[::-1], turned, turned[::-1]):
        image, label = volume(array, one), volume(array > 1.5, other)
        volumes.check_pair(image, label)
        done = preprocess(image, label, grid=grid, intensity=PERCENTILES)
        alike = preprocess(image, volume(array > 1.5, one), grid=grid, intensity=PERCENTILES)
        assert done.label.shape == done.image.shape[1:] and np.array_equal(done.label, alike.label)


def _about_z(degrees: float) -> np.ndarray:
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return np.array([[c, -s, 0], [s, c, 0], [0, 0, 1.0]])


def test_the_cache_is_used_again_and_follows_the_file(tiny_setup, tmp_path, prepared, monkeypatch):
    root = tmp_path / "cache"
    monkeypatch.setattr(cache, "_write", lambda *_: pytest.fail("preprocessed twice"))
    again = cache.prepare(tiny_setup.datalist.training, dataset=tiny_setup.dataset, grid=tiny_setup.grid, root=root)
    assert [c.folder for c in again] == [c.folder for c in prepared]
    other = Grid((2.0, 2.0, 2.0), (16, 16, 16))
    with pytest.raises(pytest.fail.Exception):
        cache.prepare(tiny_setup.datalist.training, dataset=tiny_setup.dataset, grid=other, root=root)


def test_a_case_whose_writing_was_broken_off_is_written_again(tiny_setup, tmp_path, prepared):
    (prepared[0].folder / "case.json").unlink()
    (prepared[0].folder / "image.npy").write_bytes(b"half")
    again = cache.prepare(
        tiny_setup.datalist.training, dataset=tiny_setup.dataset, grid=tiny_setup.grid, root=tmp_path / "cache"
    )
    assert again[0].image.shape[0] == 1


def test_a_standardised_volume_has_zero_mean_and_unit_deviation(prepared):
    whole = prepared[0].standardised(prepared[0].image)
    assert abs(whole.mean()) < 0.01 and abs(whole.std() - 1) < 0.01


def test_crops_are_functions_of_seed_and_number(prepared):
    crops = Crops(prepared, roi=(16, 16, 16), seed=1, balanced=True, augment=augmentation())
    again = Crops(prepared, roi=(16, 16, 16), seed=1, balanced=True, augment=augmentation())
    for number in (0, 5, 41):
        one, two = crops[number], again[number]
        assert torch.equal(one["image"], two["image"]) and torch.equal(one["label"], two["label"])
        assert one["image"].shape == (1, 16, 16, 16) and set(one["label"].unique().tolist()) <= {0, 1, 2}
    assert not torch.equal(crops[0]["image"], crops[len(prepared)]["image"])
    assert "label" not in Crops(prepared, roi=(16, 16, 16), seed=1)[0]


def test_a_small_rotation_is_small_on_a_grid_of_thick_slices_too():
    """In mm, along the slices: how far the middle slice moves at the edge of the crop, beside its centre."""
    roi, slices = (65, 65, 17), torch.arange(17, dtype=torch.uint8).expand(1, 65, 65, 17)
    thick = Grid((3.5, 3.5, 8.0), roi)

    def farthest(augment) -> float:
        crops = [augment({"image": torch.rand(1, *roi), "label": slices}, seed)["label"] for seed in range(60)]
        at_the_edge = torch.stack([crop[0, [0, -1, 32, 32], [32, 32, 0, -1], 8] for crop in crops])
        return float((at_the_edge.float() - 8).abs().max()) * thick.spacing[2]

    reach = 32 * thick.spacing[0] * np.sin(0.15) * 1.1  # with the scaling
    assert reach / 2 < farthest(augmentation(thick)) < reach + thick.spacing[2] / 2
    assert farthest(augmentation()) > 1.5 * reach


@pytest.mark.parametrize("grid", [Grid((6.0,) * 3, (48, 40, 32)), Grid((5.0, 5.0, 6.0), (32, 32, 32), fit=True)])
def test_on_cubes_and_fitted_grids_the_rotation_is_as_it_was(grid):
    crop = {"image": torch.rand(1, *grid.roi), "label": torch.ones(1, *grid.roi, dtype=torch.uint8)}
    for seed in range(5):
        plain, one = augmentation()(dict(crop), seed), augmentation(grid)(dict(crop), seed)
        assert torch.equal(plain["image"], one["image"]) and torch.equal(plain["label"], one["label"])


def test_every_case_comes_once_a_round(prepared):
    crops = Crops(prepared, roi=(8, 8, 8), seed=1)
    n = len(prepared)
    rounds = [[crops._turn(r * n + i) for i in range(n)] for r in range(4)]
    assert all(sorted(r) == list(range(n)) for r in rounds) and len({tuple(r) for r in rounds}) > 1


def test_half_of_the_balanced_crops_hold_the_chosen_structure(prepared):
    rng = np.random.default_rng(0)
    case, roi = prepared[0], (8, 8, 8)
    shares = []
    for balanced in (True, False):
        corners = [random_corner(case, roi, rng, balanced) for _ in range(300)]
        boxes = [tuple(slice(c, c + 8) for c in corner) for corner in corners]
        shares.append(np.mean([case.label[box].any() for box in boxes]))
        assert np.min(corners) >= 0 and all(case.image[(0, *box)].shape == roi for box in boxes)
    assert shares[0] > shares[1]


def test_validation_crops_never_change(prepared):
    first, second = FixedCrops(prepared, roi=(16, 16, 16)), FixedCrops(prepared[::-1], roi=(16, 16, 16))
    assert torch.equal(first[0]["image"], second[len(prepared) - 1]["image"])
    assert first[0]["seed"] == second[len(prepared) - 1]["seed"] != first[1]["seed"]


def test_crop_numbers_go_on_with_the_epoch():
    numbers = Consecutive(4)
    assert list(numbers) == [0, 1, 2, 3]
    numbers.set_epoch(2)
    assert list(numbers) == [8, 9, 10, 11]


@pytest.mark.parametrize("signs", [(1, 1, 1), (-1, -1, 1)])
def test_a_fitted_grid_holds_the_whole_field_of_view(signs):
    """Every volume fills the ROI, whatever its size and axes, and a label map finds its way back to the file."""
    shape, spacing, roi = (20, 33, 26), (2.0, 2.0, 3.0), (16, 16, 24)
    label = np.zeros((1, *shape), np.uint8)
    label[0, 4:12, 8:24, 6:20] = 1
    affine = np.diag([*(s * d for s, d in zip(signs, spacing, strict=True)), 1.0])
    image = Volume(label.astype(np.float32), affine, Path("image.nii.gz"))
    done = preprocess(
        image,
        Volume(label, affine, Path("label.nii.gz")),
        grid=Grid(spacing, roi, fit=True),
        intensity=Intensity("percentile", 0, 100),
    )
    assert done.image.shape == (1, *roi) and done.label.shape == roi
    extent = np.linalg.norm(done.affine[:3, :3], axis=0) * roi
    assert extent == pytest.approx(np.array(shape) * spacing, rel=0.01)
    assert done.label.mean() == pytest.approx(label.mean(), rel=0.1)
    logits = torch.from_numpy(np.stack([done.label == 0, done.label == 1]).astype(np.float32)) * 10
    back = to_original(logits, affine=done.affine, target_affine=affine, target_shape=shape, regions=False)
    assert dice(back == 1, label[0] == 1) > 0.8  # the grid is coarse, so borders move by up to half of its voxels
    centres = [np.argwhere(found == 1).mean(0) for found in (back, label[0])]
    assert np.abs(centres[0] - centres[1]).max() < 0.75
