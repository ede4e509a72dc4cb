"""Components that hold what was kept inside them stay; the others must be large and certain; rules are chosen."""

import numpy as np
import pytest

from ssl_utils.errors import CourseError
from ssl_utils.segmentation import postprocessing
from ssl_utils.segmentation.postprocessing import Rule, cleaned, holders

SHAPE = (30, 12, 12)


def block(start: int, stop: int, value: float = 0.9, width: int = 6) -> np.ndarray:
    """Probability `value` in a block along x, 0 elsewhere."""
    volume = np.zeros(SHAPE)
    volume[start:stop, 2 : 2 + width, 2 : 2 + width] = value
    return volume


def nested(et: np.ndarray, tc: np.ndarray, wt: np.ndarray) -> dict[str, np.ndarray]:
    return {"TC": tc, "WT": wt, "ET": et}  # the order of the network's channels


RULES = {name: Rule(voxels=60, probability=0.8, most=2) for name in ("ET", "TC", "WT")}


def test_small_and_uncertain_components_go_and_the_largest_stay():
    # 72 voxels at .9 stay, 36 are too few, 72 at .7 too uncertain
    et = block(0, 2) + block(10, 11) + block(20, 22, 0.7)
    kept = cleaned(nested(et, np.zeros(SHAPE), np.zeros(SHAPE)), RULES)
    assert kept["ET"].sum() == 72 and kept["ET"][0:2].any()
    assert np.array_equal(kept["TC"], kept["ET"]) and list(kept) == ["TC", "WT", "ET"]
    et = block(0, 2) + block(10, 13) + block(20, 24)
    assert cleaned(nested(et, et, et), RULES)["ET"].sum() == 36 * (3 + 4)


def test_an_outer_component_is_kept_for_what_it_holds():
    et, tc = block(1, 3), block(0, 4, 0.6) + block(20, 24, 0.6)
    kept = cleaned(nested(et, tc, tc), RULES)
    assert kept["TC"][0:4].any() and not kept["TC"][20:].any()  # both have .6, one holds an enhancing component
    assert kept["TC"].sum() == 36 * 4 and np.array_equal(kept["WT"], kept["TC"])


def test_what_is_held_does_not_count_among_the_most():
    et = block(0, 2) + block(5, 7)
    tc = et + block(10, 13) + block(15, 19) + block(22, 27)
    kept = cleaned(nested(et, tc, tc), RULES)["TC"]
    assert kept.sum() == 36 * (2 + 2 + 4 + 5) and not kept[10:13].any()


def test_containment_is_of_components_not_of_a_mask():
    outer, inner = np.zeros((3, 8), int), np.zeros((3, 8), int)
    outer[0], outer[2] = 1, 2  # two rows
    inner[2, :4], inner[1, 0] = 1, 1  # 4 of its 5 voxels are in the second row
    inner[0, 0], inner[1, 1:3] = 2, 2  # 1 of 3 in the first
    assert holders(outer, inner, 0.5).tolist() == [2]
    assert holders(outer, inner, 0.3).tolist() == [1, 2]
    assert holders(outer, np.zeros_like(inner), 0.5).tolist() == []
    # the published code compares the binary mask with the number of the component: right for number 1 alone
    mask = outer > 0
    assert [bool(((mask == k) & (inner == 1)).sum() >= 0.5 * 5) for k in (1, 2)] == [True, False]


def test_a_small_enhancing_tumour_becomes_core():
    masks = {"TC": block(0, 1) > 0, "WT": block(0, 9) > 0, "ET": block(1, 3) > 0}
    small = postprocessing.without_small(masks, voxels=73)
    assert not small["ET"].any() and small["TC"].sum() == 36 * 3 and small["WT"] is masks["WT"]
    assert postprocessing.without_small(masks, voxels=72)["ET"].sum() == 72


def test_rules_are_chosen_on_the_cases_given():
    truth = {"ET": block(0, 4) > 0, "TC": block(0, 6) > 0, "WT": block(0, 8) > 0}
    noise = block(20, 21, 0.8)  # 36 voxels of a false component
    seen = {"ET": 0.6 * truth["ET"] + noise, "TC": 0.9 * truth["TC"], "WT": 0.3 * truth["WT"]}
    plain = {name: Rule() for name in truth}
    rules, tried = postprocessing.choose([(seen, truth)], plain, thresholds=(0.25, 0.5), voxels=(0, 60))
    assert (rules["ET"].voxels, rules["WT"].threshold) == (60, 0.25) and tried == 15
    once = {"thresholds": iter((0.25, 0.5)), "voxels": iter((0, 60))}
    assert postprocessing.choose([(seen, truth)], plain, **once) == (rules, tried)
    before, after = (postprocessing.score([(seen, truth)], given) for given in (plain, rules))
    assert before["ET"] < 1 and after == {"ET": 1.0, "TC": 1.0, "WT": 1.0}


def test_a_region_that_no_case_has_does_not_end_the_search():
    inner = block(4, 10, 1.0)
    truth = {"ET": np.zeros(SHAPE), "TC": inner, "WT": inner}
    truth = {name: mask > 0 for name, mask in truth.items()}
    seen = {"ET": np.zeros(SHAPE), "TC": 0.4 * inner, "WT": 0.4 * inner}
    plain = {name: Rule() for name in truth}
    rules, _ = postprocessing.choose([(seen, truth)], plain, thresholds=(0.3, 0.5), voxels=(0,))
    found = postprocessing.score([(seen, truth)], rules)
    assert rules["TC"].threshold == 0.3 and (found["TC"], found["WT"]) == (1.0, 1.0)


def test_empty_probabilities_and_wrong_rules():
    nothing = np.zeros(SHAPE)
    assert not any(mask.any() for mask in cleaned(nested(nothing, nothing, nothing), RULES).values())
    with pytest.raises(CourseError, match="rules for ET: the regions are TC, WT, ET; give one for each"):
        cleaned(nested(nothing, nothing, nothing), {"ET": Rule()})
    with pytest.raises(CourseError, match=r"threshold=1.5: .* choose 0 to 1"):
        Rule(threshold=1.5)
