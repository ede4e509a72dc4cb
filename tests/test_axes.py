"""Slices along all three axes: the mean of three known predictions, in the space of the file, for slices only."""

import numpy as np
import pytest
import torch
from torch import nn

from ssl_utils import experiments
from ssl_utils.data import volumes
from ssl_utils.errors import CourseError
from ssl_utils.experiments import Finetuning, building, prediction
from ssl_utils.networks import build
from ssl_utils.segmentation.axes import predict_along_axes
from ssl_utils.segmentation.inference import predict_logits


class MeanOfSlice(nn.Module):
    """Says of every voxel of a slice how bright the slice is."""

    def __init__(self, axis: int, classes: int) -> None:
        super().__init__()
        self.axis, self.classes, self.unused = axis, classes, nn.Parameter(torch.zeros(1))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        plane = [2 + i for i in range(3) if i != self.axis]
        mean = images.mean(plane, keepdim=True).expand_as(images).clone()
        return mean if self.classes == 1 else torch.cat([torch.zeros_like(mean), mean], 1)


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("classes", [1, 2])
def test_the_mean_of_three_known_probabilities(axis, classes):
    image = np.random.default_rng(0).normal(size=(1, 8, 8, 8)).astype(np.float32)
    logits = predict_along_axes(MeanOfSlice(axis, classes), image, roi=(8, 8, 8), overlap=0.5, regions=classes == 1)
    means = [image[0].mean(tuple(i for i in range(3) if i != a), keepdims=True) for a in range(3)]
    expected = sum(1 / (1 + np.exp(-mean)) for mean in means) / 3
    probability = logits.sigmoid()[0] if classes == 1 else logits.softmax(0)[1]
    np.testing.assert_allclose(probability.numpy(), expected, atol=1e-5)


def test_a_network_that_looks_at_no_neighbour_gains_nothing():
    """Sliding windows over a volume of three different sides, along the axis of the network and along all."""
    voxelwise = nn.Conv3d(1, 3, 1)
    voxelwise.axis, roi = 2, (8, 8, 4)
    image = np.random.default_rng(0).normal(size=(1, 10, 12, 7)).astype(np.float32)
    alone = predict_logits(voxelwise, image, roi=roi, overlap=0.25).softmax(0)
    along = predict_along_axes(voxelwise, image, roi=roi, overlap=0.25, regions=False)
    torch.testing.assert_close(along.exp(), alone, atol=2e-3, rtol=0)  # bfloat16 where it is fast


def test_predict_takes_the_option_and_keeps_the_space_of_the_file(tiny_setup, tmp_path):
    torch.manual_seed(0)
    network = build({**building.network_config(tiny_setup, "window_vit"), "out_channels": 3, "network": "window_vit"})
    prediction.save_network(tmp_path / "model.safetensors", network, tiny_setup, init="random")
    (case, *_) = tiny_setup.datalist.test
    image = volumes.read_image(case.image, channels=1)
    (written,) = experiments.predict(
        tmp_path / "model.safetensors", [case.image], tmp_path / "out", all_axes=True, overwrite=True
    )
    label = volumes.read_label(written, values={0: "", 1: "", 2: ""})
    assert label.shape == image.shape and np.allclose(label.affine, image.affine)
    maps = [experiments.predict_case(tiny_setup, network, image, all_axes=choice) for choice in (True, False)]
    assert np.array_equal(label.array[0], maps[0]) and not np.array_equal(*maps)


def test_only_slices_have_an_axis(tiny_setup):
    for run in (Finetuning(all_axes=True), Finetuning(all_axes=True, network="unet")):
        with pytest.raises(CourseError, match=r"all_axes=True: unet\w* reads volumes, not slices; leave it out"):
            building.build_network(tiny_setup, run)
    assert building.build_network(tiny_setup, Finetuning(all_axes=True, network="window_vit"))[0].axis == 2
