"""The lesion-wise score on cases worked out by hand, and against the way in which the challenge computes it."""

import time

import numpy as np
import pytest

from benchmarks import lesions as published
from ssl_utils.errors import CourseError
from ssl_utils.segmentation import lesionwise

SHAPE = (40, 30, 24)
CUBE = 64  # voxels of 4 x 4 x 4


def box(*ranges: tuple[int, int]) -> np.ndarray:
    mask = np.zeros(SHAPE, bool)
    mask[tuple(slice(*span) for span in ranges)] = True
    return mask


def cube(x: int, y: int = 8, z: int = 8, size: int = 4) -> np.ndarray:
    return box((x, x + size), (y, y + size), (z, z + size))


def score(prediction: np.ndarray, reference: np.ndarray, spacing=(1.0, 1.0, 1.0)) -> tuple[float, float, str]:
    rows = lesionwise.lesions(prediction, reference, spacing=spacing)
    return *lesionwise.score(rows).values(), " ".join(rows["kind"])


NOTHING, TWO = np.zeros(SHAPE, bool), cube(8) | cube(25)
SMALL = box((8, 13), (8, 10), (8, 13))  # 50 voxels
CASES = {  # name -> (prediction, reference, dice, hd95, kinds)
    "both empty": (NOTHING, NOTHING, 1.0, 0.0, ""),
    "perfect": (TWO, TWO, 1.0, 0.0, "found found"),
    "missed": (cube(8), TWO, 1 / 2, 374 / 2, "found missed"),
    "false": (TWO, cube(8), 1 / 2, 374 / 2, "found false"),
    "reference empty": (cube(8), NOTHING, 0.0, 374.0, "false"),
    "prediction empty": (NOTHING, cube(8), 0.0, 374.0, "missed"),
    # two voxels of shift: half of the cube overlaps, and the face left behind is 2 mm away
    "shifted": (cube(10), cube(8), 1 / 2, 2.0, "found"),
    # a gap of 6 voxels closes when both sides grow by 3, and the halves become one lesion; one half is found
    "fragments": (cube(8), cube(8) | cube(18), 2 * CUBE / (3 * CUBE), None, "found"),
    # 7 voxels do not close
    "no fragments": (cube(8), cube(8) | cube(19), 1 / 2, 374 / 2, "found missed"),
    # 3 voxels off, in the dilated lesion but not in the lesion: assigned, so it is not false, and overlaps nothing
    "near": (cube(14), cube(8), 0.0, None, "found"),
    # 7 voxels off: false, and the lesion is missed
    "far": (cube(15), cube(8), 0.0, 374.0, "missed false"),
    # a component that touches two lesions is assigned to both
    "bridge": (box((8, 29), (8, 12), (8, 12)), TWO, 2 * CUBE / (CUBE + 21 * 16), None, "found found"),
    # two components in one lesion are both assigned to it
    "halves": (box((8, 9), (8, 12), (8, 12)) | box((11, 12), (8, 12), (8, 12)), cube(8), 2 * 32 / 96, 1.0, "found"),
    # a lesion of 50 voxels is left out, missed or found; 51 count
    "small, missed": (NOTHING, SMALL, 1.0, 0.0, "missed"),
    "small, found": (SMALL, SMALL, 1.0, 0.0, "found"),
    "small beside large": (cube(25), SMALL | cube(25), 1.0, 0.0, "missed found"),
    "51 voxels, missed": (NOTHING, SMALL | box((8, 9), (10, 11), (8, 9)), 0.0, 374.0, "missed"),
    # corners touch: 26 neighbours make one component, which is assigned as a whole
    "corners": (cube(8) | cube(12, 12, 12), cube(8), 2 * CUBE / (3 * CUBE), None, "found"),
}


@pytest.mark.parametrize("name", CASES)
def test_cases_by_hand(name):
    prediction, reference, dice, hd95, kinds = CASES[name]
    found = score(prediction, reference)
    assert found[0] == pytest.approx(dice) and found[2] == kinds
    assert hd95 is None or found[1] == pytest.approx(hd95)


def test_the_dilation_takes_18_neighbours():
    """Diagonally, 3 iterations of 18 neighbours reach (3, 3, 0) but not (3, 3, 3)."""
    one = np.zeros((15, 15, 15), bool)
    one[7, 7, 7] = True
    for step, kind in (((3, 3, 0), "found"), ((3, 3, 3), "missed false"), ((4, 0, 0), "missed false")):
        other = np.zeros_like(one)
        other[tuple(7 + s for s in step)] = True
        assert score(other, one)[2] == kind


def test_distances_are_in_millimetres_and_the_borders_of_the_volume_cut_the_dilation():
    assert score(cube(10), cube(8), spacing=(3.0, 1.0, 1.0))[1] == pytest.approx(3.0 * 2)
    corner = box((0, 4), (0, 4), (0, 4))
    assert score(corner, corner)[:2] == (1.0, 0.0)


def test_regions_are_scored_one_by_one_and_shapes_must_agree():
    rows = lesionwise.evaluate_case(
        {"TC": cube(8), "ET": NOTHING}, {"TC": TWO, "ET": SMALL}, spacing=(1.0, 1.0, 1.0), dilations=1
    )
    assert [(row["class"], row["dice"], row["found"], row["missed"], row["false"]) for row in rows] == [
        ("TC", 0.5, 1, 1, 0),
        ("ET", 1.0, 0, 0, 0),  # its lesion is too small to count
    ]
    with pytest.raises(CourseError, match=r"prediction \(40, 30, 24\), reference \(3, 3, 3\)"):
        score(NOTHING, np.zeros((3, 3, 3), bool))


@pytest.mark.parametrize("seed", range(4))
def test_it_is_the_score_of_the_published_way(seed):
    rng = np.random.default_rng(seed)
    prediction, reference = published.case((36, 40, 30), lesions=5, seed=seed)
    prediction |= rng.random(prediction.shape) < 0.0005
    reference |= rng.random(reference.shape) < 0.0002
    expected = published.published_way(prediction, reference, spacing=(1.0, 1.5, 2.0))
    found = lesionwise.score(lesionwise.lesions(prediction, reference, spacing=(1.0, 1.5, 2.0)))
    assert found == pytest.approx(expected)


@pytest.mark.alone
def test_a_region_of_a_whole_case_takes_well_below_a_second():
    pair = published.case()
    started = time.process_time()
    lesionwise.lesions(*pair, spacing=(1.0, 1.0, 1.0))
    assert time.process_time() - started < 1.0
