"""Crops of neighbouring numbers and seeds have nothing in common: each number has a random state of its own."""

from pathlib import Path

import numpy as np
import pytest

from ssl_utils.data.cache import Prepared
from ssl_utils.data.cases import Case
from ssl_utils.data.crops import Crops, FixedCrops
from ssl_utils.files import write_json

SIDE, ROI = 40, (8, 8, 8)


def prepared(folder: Path, name: str) -> Prepared:
    """A case of noise."""
    (folder / name).mkdir()
    np.save(folder / name / "image.npy", np.random.default_rng(0).random((1, SIDE, SIDE, SIDE)).astype(np.float16))
    write_json(folder / name / "case.json", {"mean": 0.5, "std": 0.25})
    return Prepared(name, name, folder / name, Case(name, folder, None, ""))


@pytest.fixture
def case(tmp_path):
    return prepared(tmp_path, "a")


def crops(case: Prepared, seed: int, augment=None) -> Crops:
    return Crops([case], roi=ROI, seed=seed, augment=augment)


def corners(crops: Crops, count: int) -> np.ndarray:
    return np.array([(crops[i]["bounds"][0].numpy() * SIDE).round() for i in range(count)])


def test_neighbouring_numbers_share_no_random_state(case):
    at = corners(crops(case, 0), 100)
    assert len({tuple(corner) for corner in at}) == 100, "33 ** 3 corners, and two crops have the same"
    for step in (1, 2, 3):
        same = (at[step:] == at[:-step]).mean(0)
        assert (same < 0.15).all(), f"coordinates of crops {step} apart: {same}"  # 1 / 33 by chance
        assert abs(np.corrcoef(at[step:].ravel(), at[:-step].ravel())[0, 1]) < 0.25


def test_a_seed_is_no_other_seed_moved_on(case):
    one, two = (corners(crops(case, seed), 20) for seed in (0, 1))
    assert not {tuple(corner) for corner in one} & {tuple(corner) for corner in two}


def test_every_corner_can_be_drawn(case):
    at = corners(crops(case, 0), 600)
    assert at.min() == 0 and at.max() == SIDE - ROI[0]


def test_every_crop_is_augmented_with_a_seed_of_its_own(case):
    seeds = [crops(case, seed, augment=lambda crop, own: own)[i] for seed in (0, 1) for i in range(100)]
    assert len(set(seeds)) == 200 and min(seeds) >= 0 and max(seeds) > 2**30


def test_validation_crops_of_two_cases_lie_in_two_places(tmp_path):
    both = [prepared(tmp_path, name) for name in ("a", "b")]
    one, two = (crop["bounds"][0] for crop in (FixedCrops(both, roi=ROI)[i] for i in (0, 1)))
    assert not np.array_equal(one, two)
