"""Test-time flips: the mean of probabilities over flipped copies, only along axes that the anatomy allows."""

from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest
import torch
from torch import nn

from ssl_utils import experiments
from ssl_utils.errors import CourseError
from ssl_utils.experiments import Finetuning, Setup, prediction
from ssl_utils.segmentation.inference import predict_flipped, predict_logits

WINDOWS = {"roi": (8, 8, 8), "overlap": 0.25}


class Sided(nn.Module):
    """Two logits that depend on the side: an image and its flip are not answered alike."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(2, 1, 8, 8, 8))

    def forward(self, x):
        return 4 * x * self.weight[:, 0]


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.mark.parametrize("regions", [False, True])
def test_probabilities_are_averaged_over_every_combination_of_axes(regions):
    network, image = Sided(), np.random.default_rng(0).normal(size=(1, 8, 8, 8)).astype(np.float32)
    axes = ("left-right", "up-down")
    copies = []
    for dims in ((), (1,), (3,), (1, 3)):
        logits = predict_logits(network, np.flip(image, dims), **WINDOWS).flip(dims)
        copies.append(logits.sigmoid() if regions else logits.softmax(0))
    found = predict_flipped(network, image, axes=axes, regions=regions, **WINDOWS)
    found = found.sigmoid() if regions else found.softmax(0)
    torch.testing.assert_close(found, torch.stack(copies).mean(0), atol=1e-5, rtol=1e-4)
    assert not torch.allclose(found, copies[0], atol=0.01)


def test_what_is_certain_stays_certain():
    network, image = Sided(), np.full((1, 8, 8, 8), 1e4, np.float32)
    assert not predict_flipped(network, image, axes=["up-down"], regions=False, **WINDOWS).isnan().any()


def test_a_prediction_flips_where_its_dataset_allows(tiny_setup, tmp_path):
    network, _ = experiments.build_network(tiny_setup, Finetuning())
    allowing = Setup(replace(tiny_setup.dataset, mirrored=("left-right",)), tiny_setup.scale)
    model, image = tmp_path / "model.safetensors", tiny_setup.datalist.test[0].image
    prediction.save_network(model, network, allowing, init="random")
    (written,) = experiments.predict(model, [image], tmp_path / "flipped", flips="left-right")
    loaded, setup = prediction.load_saved(model)
    volume = prediction.volumes.read_image(image, channels=1)
    expected = prediction.predict_case(setup, loaded, volume, flips=["left-right"])
    assert np.array_equal(np.asarray(nib.load(written).dataobj), expected)
    for flips, words in (
        ("left-right+up-down", "allows only left-right; leave up-down out"),
        ("sideways", "unknown axis sideways; choose of left-right, front-back, up-down"),
    ):
        with pytest.raises(CourseError, match=words):
            experiments.predict(model, [image], tmp_path / "no", flips=flips)
    prediction.save_network(model, network, tiny_setup, init="random")
    with pytest.raises(CourseError, match=r"the dataset of .*model.safetensors allows none; leave left-right out"):
        experiments.predict(model, [image], tmp_path / "no", flips="left-right")
