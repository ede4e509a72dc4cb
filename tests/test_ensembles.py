"""Ensembles weight probabilities as MONAI does, region by region, and find weights on the cases they are given."""

import numpy as np
import pytest
import torch
from monai.transforms import MeanEnsemble

from ssl_utils.errors import CourseError
from ssl_utils.segmentation import ensembles

SHAPE = (3, 2, 4, 5, 6)  # networks, regions, voxels


def drawn(seed: int = 0) -> torch.Tensor:
    return torch.rand(SHAPE, generator=torch.Generator().manual_seed(seed))


def test_equal_to_monai_with_and_without_weights():
    members, weights = drawn(), np.array([[1.0, 0.2], [2.0, 0.0], [0.5, 3.0]])
    torch.testing.assert_close(ensembles.weighted(members), MeanEnsemble()(members))
    theirs = MeanEnsemble(weights=torch.from_numpy(weights).float())(members)
    torch.testing.assert_close(ensembles.weighted(members, weights), theirs)


def test_the_mean_of_probabilities_is_not_that_of_logits():
    logits = torch.tensor([[[12.0]], [[-2.0]], [[-2.0]]])  # (N, K, V): one network is very sure
    assert ensembles.weighted(logits.sigmoid()) < 0.5 < logits.mean(0).sigmoid()


def test_each_region_has_weights_of_its_own():
    members = drawn()
    weights = np.array([[1.0, 0.0], [0.0, 0.0], [0.0, 1.0]])
    mean = ensembles.weighted(members, weights)
    torch.testing.assert_close(mean, torch.stack([members[0, 0], members[2, 1]]))


def test_weights_are_found_where_a_network_is_right_in_one_region():
    """Network 1 is right in region 0, network 2 in region 1, network 0 nowhere."""
    cases = []
    for seed in range(3):
        truth = drawn(seed)[0] > 0.6
        seen = 1 - truth.float().repeat(3, 1, 1, 1, 1)  # all wrong
        seen[1, 0], seen[2, 1] = truth[0], truth[1]
        cases.append((seen, truth))
    weights, tried = ensembles.find_weights(cases, parts=4)
    assert weights[1, 0] > 0.5 and weights[2, 1] > 0.5 and tried == 2 * 15
    mean = ensembles.weighted(cases[0][0], weights)
    assert torch.equal(mean > 0.5, cases[0][1])


def test_equal_weights_where_nothing_is_better_and_empty_regions_are_not_counted():
    truth = drawn()[0] > 0.6
    truth[1] = False
    same = truth.float().repeat(3, 1, 1, 1, 1)
    weights, _ = ensembles.find_weights([(same, truth)], parts=3)
    np.testing.assert_allclose(weights, 1 / 3)


def test_a_channel_needs_a_weight():
    for weights in (np.ones((2, 2)), np.array([[1, 0], [1, 0], [1, 0]]), np.array([[1, 1], [1, 1], [-1, 1]])):
        with pytest.raises(CourseError, match="give 3 networks x 2 channels, none negative"):
            ensembles.weighted(drawn(), weights)
