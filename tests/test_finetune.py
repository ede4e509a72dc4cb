"""Fine-tuning: targets, the prior start, freezing, layer-wise learning rates, overlapping regions."""

import json
from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest
import torch

from ssl_utils import experiments
from ssl_utils.errors import CourseError
from ssl_utils.experiments import Finetuning, Pretraining, Setup, runs
from ssl_utils.segmentation import finetune
from ssl_utils.segmentation.finetune import ALWAYS, SegmentationTask, class_shares, start_from_prior


def task(where, **more) -> SegmentationTask:
    network, _ = experiments.build_network(where, Finetuning(init="random", seed=0))
    channels = more.get("regions") or where.dataset.regions or more.get("values") or where.dataset.labels
    shares = np.full(len(channels), 1 / len(channels))
    numbers = dict(values=sorted(where.dataset.labels), regions=where.dataset.regions, lr=1e-3, steps=10, shares=shares)
    return SegmentationTask(network=network, roi=where.grid.roi, overlap=0.25, held_out=[], **numbers | more)


def test_label_values_become_consecutive_classes(tiny_setup):
    module = task(tiny_setup, values=[0, 3, 7])
    found = module.targets(torch.tensor([0, 7, 3, 3]).view(1, 1, 4, 1, 1))
    assert found.flatten().tolist() == [0, 2, 1, 1]


def test_regions_overlap(tiny_setup):
    regions = {"tumour core": (1, 3), "whole tumour": (1, 2, 3), "enhancing tumour": (3,)}
    module = task(tiny_setup, regions=regions)
    found = module.targets(torch.tensor([0, 1, 2, 3]).view(1, 1, 4, 1, 1))
    assert found.shape == (1, 3, 4, 1, 1)
    assert found[0, :, :, 0, 0].tolist() == [[0, 1, 0, 1], [0, 1, 1, 1], [0, 0, 0, 1]]


def test_an_untrained_network_predicts_classes_as_often_as_they_occur(tiny_setup):
    network, _ = experiments.build_network(tiny_setup, Finetuning(init="random", seed=0))
    label = np.zeros((10, 10, 10), np.uint8)
    label[:2] = 1
    label[2:3] = 2
    shares = class_shares([label], [0, 1, 2], None)
    np.testing.assert_allclose(shares, [0.7, 0.2, 0.1])
    network.out.conv.conv.weight.data.zero_()
    start_from_prior(network, shares, regions=False)
    logits = network(torch.randn(1, 1, *tiny_setup.grid.roi))
    np.testing.assert_allclose(logits.softmax(1).mean((0, 2, 3, 4)).detach(), shares, atol=1e-4)
    core = class_shares([label], [0, 1, 2], {"a": (1, 2), "b": (2,), "c": (1,)})
    np.testing.assert_allclose(core, [0.3, 0.1, 0.2])
    start_from_prior(network, core, regions=True)
    logits = network(torch.randn(1, 1, *tiny_setup.grid.roi))
    np.testing.assert_allclose(logits.sigmoid().mean((0, 2, 3, 4)).detach(), core, atol=1e-4)


def test_a_list_without_a_test_set_is_scored_on_validation(tiny_setup, tmp_path, monkeypatch):
    monkeypatch.setenv("SSL_RUNS_ROOT", str(tmp_path))
    setup = replace(tiny_setup, scale=replace(tiny_setup.scale, finetune_steps=1))
    setup.__dict__["datalist"] = replace(tiny_setup.datalist, test=())  # as in the published protocol of BTCV
    folder = experiments.finetune(setup, Finetuning(init="random", num_labeled=2))
    assert {*runs.read_scores(folder / "per_case.csv")["case"]} == {case.id for case in setup.datalist.validation}


@pytest.mark.parametrize(("freeze_epochs", "epochs"), [(0, []), (2, [0, 1]), (ALWAYS, [0, 1, 2, 3, 4])])
def test_the_encoder_is_frozen_as_long_as_asked(tiny_setup, tmp_path, monkeypatch, freeze_epochs, epochs):
    monkeypatch.setenv("SSL_RUNS_ROOT", str(tmp_path))
    seen, whole = {}, SegmentationTask.training_step

    def look(self, batch, batch_idx):
        seen[self.current_epoch] = not any(p.requires_grad for p in self.network.vit.parameters())
        return whole(self, batch, batch_idx)

    monkeypatch.setattr(SegmentationTask, "training_step", look)
    experiments.finetune(tiny_setup, Finetuning(init="random", num_labeled=2, freeze_epochs=freeze_epochs))
    assert [epoch for epoch, frozen in seen.items() if frozen] == epochs and len(seen) == 5


def test_lower_layers_learn_slower(tiny_setup):
    module = task(tiny_setup, layer_decay=0.5)
    rates = {}
    for group in module.configure_optimizers()["optimizer"].param_groups:
        for parameter in group["params"]:
            rates[id(parameter)] = group["initial_lr"]
    network = module.network
    assert rates[id(network.vit.positions)] == pytest.approx(1e-3 * 0.5**3)  # 2 blocks, then the embedding
    assert [rates[id(b.mlp.linear1.weight)] for b in network.vit.blocks] == pytest.approx([2.5e-4, 5e-4])
    assert rates[id(network.out.conv.conv.weight)] == pytest.approx(1e-3)
    assert len(rates) == len(list(network.parameters())), "every parameter is in exactly one group"


def test_the_dice_of_a_case_is_the_mean_over_the_structures_that_are_in_a_mask(tiny_setup, monkeypatch):
    case = tiny_setup.prepared(tiny_setup.datalist.test[:1])[0]
    module, label = task(tiny_setup), torch.from_numpy(case.label.astype(np.int64))

    def score(decided: torch.Tensor) -> float:
        logits = torch.nn.functional.one_hot(decided, 3).movedim(-1, 0).float()
        monkeypatch.setattr(finetune, "predict_logits", lambda *_, **__: logits)
        return module.case_dice(case)

    assert score(label) == 1 and score(torch.zeros_like(label)) == 0
    one, two = int((label == 1).sum()), int((label == 2).sum())
    assert score(label.clamp(max=1)) == pytest.approx(2 * one / (2 * one + two) / 2)  # and 0 for the core
    monkeypatch.setattr(type(case), "label", np.zeros(label.shape, np.uint8))
    assert score(torch.zeros_like(label)) == 0, "no structure in either mask"
    assert score((label > 0).long()) == 0


def test_overlapping_regions_train_score_and_predict(tiny_setup, tmp_path, monkeypatch):
    monkeypatch.setenv("SSL_RUNS_ROOT", str(tmp_path))
    dataset = replace(tiny_setup.dataset, regions={"whole": (1, 2), "core": (2,)})
    folder = experiments.finetune(Setup(dataset, tiny_setup.scale), Finetuning(init="random", num_labeled=2))
    (case,) = set(runs.per_case(dataset.name, "smoke")["case"].iloc[:1])
    table = runs.per_case(dataset.name, "smoke")
    assert set(table["class"]) == {"whole", "core"} and table["dice"].between(0, 1).all()
    image = tiny_setup.datalist.test[0].image
    (written,) = experiments.predict(folder / "model.safetensors", [image], tmp_path / "out")
    assert set(np.unique(np.asarray(nib.load(written).dataobj))) <= {0, 1, 2} and case
    assert "| 1 | label 1 | in whole |" in (folder / "README.md").read_text(encoding="utf-8")


@pytest.mark.long
def test_several_channels_go_from_file_to_prediction(tiny_setup, tmp_path, monkeypatch):
    monkeypatch.setenv("SSL_RUNS_ROOT", str(tmp_path / "runs"))
    root = tmp_path / "two channels"
    for case in tiny_setup.datalist.training + tiny_setup.datalist.validation + tiny_setup.datalist.test:
        image, label = (np.asarray(nib.load(path).dataobj) for path in (case.image, case.label))
        for folder, array in (("imagesTr", np.stack([image, image * 2], -1)), ("labelsTr", label)):
            (root / folder).mkdir(parents=True, exist_ok=True)
            nib.save(nib.Nifti1Image(array, np.eye(4)), root / folder / case.image.name)
    from ssl_utils.data import datasets

    where = Setup(datasets.get("folder", root), tiny_setup.scale)
    assert len(where.dataset.channels) == 2
    experiments.pretrain(where, Pretraining.of("simmim"))
    folder = experiments.finetune(where, Finetuning(init="simmim", num_labeled=2))
    assert runs.metrics(folder)["transfer_share"] == 1.0


@pytest.mark.parametrize(
    ("network", "chosen", "factor"), [("unetr", None, 0.1), ("unetr", 0.5, 0.5), ("unet", None, 1)]
)
def test_a_transformer_is_trained_at_the_rate_of_the_scale(tiny_setup, monkeypatch, network, chosen, factor):
    made = []
    monkeypatch.setattr("ssl_utils.experiments.finetuning.fit", lambda module, **_: made.append(module) or exit())
    tiny = replace(tiny_setup, scale=replace(tiny_setup.scale, transformer_lr=0.1))
    with pytest.raises(SystemExit):
        experiments.finetune(tiny, Finetuning(network=network, num_labeled=2, encoder_lr=chosen))
    assert made[0].layers()[0][1] == factor and made[0].layers()[-1][1] == 1


def test_the_size_of_the_crops_is_all_that_an_option_changes(tiny_setup, tmp_path, monkeypatch):
    monkeypatch.setenv("SSL_RUNS_ROOT", str(tmp_path))
    folders = [experiments.finetune(tiny_setup, Finetuning(num_labeled=2, crop=crop, budget=0.1)) for crop in (1, 0.6)]
    plain, smaller = (json.loads((folder / "config.json").read_text())["settings"] for folder in folders)
    roi = tiny_setup.grid.roi
    assert plain["img_size"] == list(roi) and smaller["img_size"] == [max(round(0.6 * n / 8), 1) * 8 for n in roi]
    assert {key for key in plain if plain[key] != smaller[key]} == {"img_size", "crop", "data", "init"}
    assert runs.metrics(folders[1])["cases"] == runs.metrics(folders[0])["cases"]


def test_volumes_that_are_resampled_to_the_crop_keep_it(tiny_setup):
    grids = {"coarse": replace(tiny_setup.grid, fit=True)}
    fitted = replace(tiny_setup, dataset=replace(tiny_setup.dataset, grids=grids))
    with pytest.raises(CourseError, match=r"crop=2: volumes of .* are resampled to the crop; leave it at 1"):
        experiments.finetune(fitted, Finetuning(num_labeled=2, crop=2))


def test_labels_with_background_alone_are_refused_before_training(tiny_setup, tmp_path, monkeypatch):
    monkeypatch.setenv("SSL_RUNS_ROOT", str(tmp_path))
    empty = replace(tiny_setup, dataset=replace(tiny_setup.dataset, labels={0: "background"}))
    with pytest.raises(CourseError, match="its labels are background alone; name a structure in labels of"):
        experiments.finetune(empty, Finetuning(num_labeled=2))
    assert not list(tmp_path.rglob("config.json"))
