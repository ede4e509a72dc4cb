"""Other people's data: inputs of public reports on which nothing may go wrong in silence."""

from itertools import permutations

import numpy as np
import pytest

from ssl_utils.segmentation import metrics

BRATS = {0: "background", 1: "NCR", 2: "ED", 4: "ET"}
REGIONS = {"TC": (1, 4), "WT": (1, 2, 4), "ET": (4,)}


# ---- regions


@pytest.mark.parametrize("order", list(permutations(REGIONS)))
def test_regions_in_any_order_give_back_the_label_values_of_the_data_set(order):
    regions = {name: REGIONS[name] for name in order}
    labels = np.array([0, 1, 2, 4, 2, 1, 0, 4], np.uint8).reshape(2, 2, 2)
    decided = np.stack([np.isin(labels, values) for values in regions.values()])
    assert np.array_equal(metrics.label_map(decided, regions), labels)
    drawn = metrics.numbered(dict(zip(regions, decided, strict=True)), regions)
    assert {order[number - 1] for number in np.unique(drawn) if number} == {*REGIONS}, "every region is drawn"


def test_regions_that_contradict_each_other_give_the_nearest_value_of_the_smallest():
    decided = np.array([[1, 0, 0, 0], [0, 0, 1, 0], [0, 1, 1, 0]], bool).reshape(3, 4, 1, 1)  # TC, WT, ET
    assert metrics.label_map(decided, REGIONS).ravel().tolist() == [1, 4, 4, 0]
    crossing = {"A": (1, 2), "B": (2, 3)}
    both = np.array([[1, 1, 0], [0, 1, 1]], bool).reshape(2, 3, 1, 1)
    assert metrics.label_map(both, crossing).ravel().tolist() == [1, 2, 3]


def test_the_model_card_says_where_each_label_value_is_written():
    assert metrics.written_values(BRATS, REGIONS) == {1: "in TC and WT", 2: "in WT", 4: "in TC and WT and ET"}
    lost = metrics.written_values({0: "background", 1: "a", 2: "b", 3: "c"}, {"all": (1, 2)})
    assert lost == {1: "in all", 2: "never: in all, as 1", 3: "never: in no region"}
