"""Promises that only a small fault breaks: each of these tests noticed a change that the others had let pass."""

import numpy as np
import pytest
import torch
from torch import nn

from ssl_utils.data import volumes
from ssl_utils.data.doctor import cohort
from ssl_utils.data.phantom.writing import make_volume
from ssl_utils.networks import network_class
from ssl_utils.pretext.voxel_clusters import kmeans
from ssl_utils.segmentation.finetune import SegmentationTask

# Of every structure its voxels and mean HU, background first; then percentiles 5, 25, 50, 75, 95 and 99.9 of the image.
VOXELS = {
    ("abdomen", 1, False): [928053, 2605, 4913, 4606, 861, 698, 41490, 9185, 2681, 2566, 464, 1409, 196, 173],
    ("abdomen", 5, True): [901797, 3624, 4829, 7429, 1098, 663, 49456, 12444, 2394, 2312, 449, 1938, 190, 177],
    ("chest", 2, True): [833468, 5825, 271, 1069, 59, 966, 26938, 7784, 2048, 1256, 344, 937, 157, 158],
    ("abdomen", 4, False): [1212986, 1859, 4475, 4473, 1033, 642, 29013, 14108, 2103, 2358, 439, 824, 137, 175],
    ("chest", 22, True): [1170397, 0, 847, 3086, 154, 1106, 22784, 5304, 5582, 1789, 425, 906, 157, 213],
}
SECOND = ("abdomen", 4, False), ("chest", 22, True)  # of version 2; the others are of version 1
HU = {
    ("abdomen", 1, False): [-494.1, 101.5, 151, 151.2, 25.7, 7, 107.8, -280.2, 114.1, 110.4, 113.3, 62.2, 29.3, 23.9],
    ("abdomen", 5, True): [-466.2, 32.3, 24.3, 24.2, 18.9, -3.8, 55.2, -75.7, 16, 24, 14.9, 20.5, -6.4, -2.6],
    ("chest", 2, True): [-541.5, 106.3, 136, 140.4, 54.6, 11.4, 106.8, -62.8, 115.1, 96, 125.3, 65.4, 18.8, 21.2],
    ("abdomen", 4, False): [-551.3, 32.6, 26.4, 30.7, 28.4, -22.8, 92.3, 11.4, 11.2, 34.2, 13.9, 23.9, 5.2, 4.2],
    ("chest", 22, True): [-612.1, 0, 67.7, 55.2, 41.4, 3.2, 46.8, -179.1, 102.8, 30.7, 23.5, 30, -14.8, -7],
}
IMAGE = {
    ("abdomen", 1, False): [-1014, -989, -137, -44, 127, 433],
    ("abdomen", 5, True): [-1014, -985, -119, 12, 113, 438],
    ("chest", 2, True): [-1009, -991, -723, -84, 126, 439],
    ("abdomen", 4, False): [-1011, -997, -774, -4, 94, 589],
    ("chest", 22, True): [-1018, -996, -865, -81, 102, 552],
}


@pytest.mark.parametrize("which", VOXELS, ids=str)
def test_a_phantom_stays_the_one_that_results_were_recorded_on(which):
    kind, seed, abnormal = which
    image, label, _ = make_volume(seed, kind=kind, abnormal=abnormal, version=2 if which in SECOND else 1)
    structures = range(len(VOXELS[which]))
    np.testing.assert_allclose([(label == value).sum() for value in structures], VOXELS[which], rtol=0.002, atol=2)
    means = [image[label == value].mean() if (label == value).any() else 0 for value in structures]
    np.testing.assert_allclose(means, HU[which], atol=0.6)
    np.testing.assert_allclose(np.percentile(image, [5, 25, 50, 75, 95, 99.9]), IMAGE[which], atol=1.5)


def test_values_of_a_large_label_are_found_in_every_part():
    label = np.zeros((3 * 2**20,), np.uint8)
    label[[5, 2**20 + 5, -1]] = 7, 3, 255
    assert volumes.present_values(label) == [0, 3, 7, 255]


@pytest.mark.parametrize(("value", "unusual"), [(0.95, True), (-0.95, True), (0.85, False), (0.5, False)])
def test_six_deviations_are_unusual_where_the_deviation_is_that_of_a_normal_distribution(value, unusual):
    usual = [-0.2, -0.1, 0, 0.1, 0.2] * 2  # six robust deviations: 6 x 1.4826 x 0.1
    assert cohort._unusual(np.exp([*usual, value]), 2) == ([10] if unusual else [])


def test_as_many_clusters_as_points_are_the_points():
    points = torch.arange(6.0).view(3, 2)
    found = kmeans(points, 3, generator=torch.Generator().manual_seed(0))
    assert sorted(found.tolist()) == points.tolist()


def segmentation(shares: list[float]) -> SegmentationTask:
    torch.manual_seed(0)
    sizes = dict(patch_size=8, hidden_size=24, mlp_dim=24, num_layers=2, num_heads=2, feature_size=4)
    network = network_class("unetr")(in_channels=1, out_channels=len(shares), img_size=(16, 16, 16), **sizes)
    numbers = dict(values=list(range(len(shares))), regions=None, lr=1e-3, steps=10, roi=(16, 16, 16), overlap=0.25)
    return SegmentationTask(network=network, held_out=[], shares=np.array(shares), **numbers)


def test_a_class_weighs_as_the_root_of_how_rare_it_is_and_the_mean_weight_is_one():
    weight = segmentation([0.9, 0.09, 0.01]).loss.cross_entropy.weight
    torch.testing.assert_close(weight.mean(), torch.tensor(1.0))
    torch.testing.assert_close(weight[2] / weight[0], torch.tensor(90.0).sqrt())
    torch.testing.assert_close(weight[2] / weight[1], torch.tensor(3.0))


def test_a_class_that_no_label_holds_starts_as_very_rare():
    module = segmentation([0.9, 0.1, 0.0])
    biases = [bias for name, bias in module.network.named_parameters() if name.startswith("out") and "bias" in name]
    assert isinstance(biases[0], nn.Parameter) and biases[0].softmax(0)[2].item() == pytest.approx(1e-5, rel=0.01)
