"""Kept tokens of a frozen encoder: equal to computing them again, once a crop, and only where nothing changes them."""

import pytest
import torch

from ssl_utils import experiments
from ssl_utils.data.crops import Crops
from ssl_utils.errors import CourseError
from ssl_utils.experiments import Finetuning, finetuning, runs
from ssl_utils.segmentation.frozen import FrozenTokens


def test_crops_begin_again_and_are_numbered(tiny_setup):
    cases = tiny_setup.prepared(tiny_setup.datalist.training[:3])
    crops = Crops(cases, roi=(16, 16, 16), seed=0, balanced=True, repeated=4)
    endless = Crops(cases, roi=(16, 16, 16), seed=0, balanced=True)
    for i in range(4):
        first, again = crops[i], crops[i + 4]
        assert first["number"] == again["number"] == i
        assert torch.equal(first["image"], again["image"]) and torch.equal(first["image"], endless[i]["image"])
    assert crops.ids(range(8)) == 2 * endless.ids(range(4)) and not torch.equal(
        endless[4]["image"], endless[0]["image"]
    )


@pytest.mark.parametrize("network", ["window_vit", "unet"])
def test_a_run_is_the_same_as_without_keeping(tiny_setup, network, tmp_path, monkeypatch):
    """Every weight after five steps on three crops; the encoder is asked once for each crop."""
    run = Finetuning(num_labeled=2, network=network, freeze_epochs=-1, repeated_crops=3, budget=0.5)
    cases, held_out = (tiny_setup.prepared(side) for side in (tiny_setup.datalist.training[:2], []))
    asked = []

    def trained(folder, keep: bool):
        net, _ = experiments.build_network(tiny_setup, run)
        with monkeypatch.context() as patch:
            patch.setattr(finetuning, "VALIDATIONS", 1)
            patch.setattr(finetuning.SegmentationTask, "on_validation_epoch_end", lambda self: None)
            forward = net.encoder.forward
            net.encoder.forward = lambda images: asked.append((keep, len(images))) or forward(images)
            if not keep:
                patch.setattr(FrozenTokens, "__call__", lambda self, images, _: self.encoder(images))
            finetuning.train(tiny_setup, run, net, cases=cases, held_out=held_out, folder=tmp_path / folder)
        return net.state_dict()

    kept, computed = trained("kept", True), trained("computed", False)
    assert all(torch.equal(value, computed[name]) for name, value in kept.items())
    assert [sum(n for keep, n in asked if keep == which) for which in (True, False)] == [3, 5]


def test_only_for_an_encoder_that_stays_frozen(tiny_setup, monkeypatch, tmp_path):
    for options in ({}, {"freeze_epochs": 1}, {"freeze_epochs": -1, "deep_supervision": True}):
        with pytest.raises(CourseError, match="repeated_crops=8: needs an encoder that is frozen throughout; choose"):
            Finetuning(repeated_crops=8, **options)
    monkeypatch.setenv("SSL_RUNS_ROOT", str(tmp_path))
    folder = experiments.finetune(tiny_setup, Finetuning(num_labeled=2, freeze_epochs=-1, repeated_crops=2))
    assert "repeated_crops=2" in str(folder) and runs.metrics(folder)["cases"] == 2
