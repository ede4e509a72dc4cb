"""nnU-Net's `ignore`: voxels that nobody has annotated count in no loss, share, crop, score, probe or finding."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from monai.losses import DeepSupervisionLoss
from own_folder import SIZE, ball, write_pair

from ssl_utils import experiments
from ssl_utils.data import datalists, datasets, doctor, volumes
from ssl_utils.data.doctor.show import tables
from ssl_utils.errors import CourseError
from ssl_utils.experiments import Finetuning, Setup, prediction
from ssl_utils.files import read_json
from ssl_utils.networks.vit import ViT
from ssl_utils.pretext import probes, task_class
from ssl_utils.pretext.inside import Fixed, Inside
from ssl_utils.segmentation import average_label, ensembles, metrics, overlaps
from ssl_utils.segmentation.finetune import IGNORED, SegmentationTask, class_shares

LABELS = {"background": 0, "organ": 1, "ignore": 2}
REGIONS = {"background": 0, "whole": [1, 2], "core": 2, "ignore": 3}


def write_list(root: Path, labels: dict) -> Path:
    root.mkdir(parents=True, exist_ok=True)
    (root / "dataset.json").write_text(json.dumps({"channel_names": {"0": "MRI"}, "labels": labels}))
    return root


def write_folder(root: Path, labels: dict = LABELS) -> Path:
    """Six cases of which one octant is annotated, and the organ in the others is not."""
    ignore = labels["ignore"]
    for number in range(6):
        label = ball(number) * (ignore - 1)
        label[np.max(np.indices((SIZE,) * 3), axis=0) > SIZE / 2] = ignore
        write_pair(root, f"c{number}", number, label=label)
    return write_list(root, labels)


def task(regions: dict | None = None, **more) -> SegmentationTask:
    numbers = dict(
        values=[0, 1, 2], shares=np.full(2 if regions else 3, 1 / 3), ignore=3, lr=1e-3, steps=1, roi=(8,) * 3
    )
    network = torch.nn.Module()
    network.out_biases, network.encoder = [], torch.nn.Identity()
    return SegmentationTask(network=network, regions=regions, held_out=[], overlap=0.25, **numbers | more)


# ---- the list


def test_the_value_is_no_label_and_is_written_again(tmp_path):
    for labels in (LABELS, {"0": "background", "1": "organ", "2": "Ignore"}):
        found = datalists.as_listed(write_folder(tmp_path / "data") and write_list(tmp_path / "data", labels))
        assert (found.labels, found.ignore) == ({0: "background", 1: "organ"}, 2)
    datalists.write(found, tmp_path / "again.json", root=tmp_path / "data")
    assert datalists.read(tmp_path / "again.json", root=tmp_path / "data").ignore == 2
    found = datalists.as_listed(write_list(tmp_path / "data", REGIONS))
    assert (found.regions, found.ignore) == ({"whole": (1, 2), "core": (2,)}, 3) and 3 not in found.labels


@pytest.mark.parametrize(
    ("labels", "part"),
    [
        ({"background": 0, "ignore": 1, "organ": 2}, "not one value above all others"),
        ({"ignore": 0, "organ": 1}, "not one value above all others"),
        ({"background": 0, "organ": 1, "ignore": 2, "Ignore": 3}, "ignore is 2, 3, not one value"),
        ({"background": 0, "whole": [1, 3], "core": 1, "ignore": 3}, "label values must be different"),
    ],
)
def test_a_value_that_cannot_be_ignored_is_refused(tmp_path, labels, part):
    with pytest.raises(CourseError, match=part):
        datalists.as_listed(write_list(write_folder(tmp_path), labels))


def test_the_doctor_counts_it_as_no_structure(tmp_path):
    root = write_folder(tmp_path / "data")
    report = doctor.examine([root])
    assert report.errors == 0 and all({*case.millilitres} <= {1} for case in report.cases)
    assert all(0.8 < case.ignored < 0.9 for case in report.cases)
    assert "ignored:" in "".join(str(cell) for table in tables(report) for c in table.columns for cell in c.cells)
    found = " ".join(finding.reason for finding in doctor.examine([write_list(root, {"background": 0, "organ": 1})]))
    assert "label value 2 is not among 0, 1" in found


# ---- the loss


@pytest.mark.parametrize("regions", [None, {"whole": (1, 2), "core": (2,)}])
def test_ignored_voxels_have_no_loss_and_no_gradient(regions):
    module, label = task(regions), torch.randint(0, 3, (2, 1, 8, 8, 8))
    hidden = torch.rand(2, 1, 8, 8, 8) < 0.9
    targets = module.targets(torch.where(hidden, 3, label))
    assert ((targets == IGNORED) == hidden).all()
    logits = torch.randn(2, 2 if regions else 3, 8, 8, 8, requires_grad=True)
    loss = module.loss(logits, targets)
    other = torch.where(hidden, 50 * torch.randn_like(logits), logits)
    torch.testing.assert_close(module.loss(other, targets), loss, rtol=0, atol=0)
    loss.backward()
    assert (logits.grad.abs().sum(1, keepdim=True) > 0).eq(~hidden).all()
    everything = task(regions, ignore=None)
    torch.testing.assert_close(
        module.loss(logits, module.targets(label)), everything.loss(logits, everything.targets(label))
    )


def test_a_batch_without_annotation_has_no_loss():
    module, logits = task(), torch.randn(1, 3, 8, 8, 8, requires_grad=True)
    loss = module.loss(logits, module.targets(torch.full((1, 1, 8, 8, 8), 3)))
    loss.backward()
    assert loss == 0 and not logits.grad.any()


def test_every_level_of_deep_supervision_leaves_them_out():
    module, label = task(), torch.randint(0, 3, (1, 1, 8, 8, 8))
    label[..., 4:] = 3
    levels = [torch.randn(1, 3, side, side, side) for side in (8, 4)]
    others = [level.clone() for level in levels]
    for level in others:
        level[..., level.shape[-1] // 2 :] += 9
    loss, targets = DeepSupervisionLoss(module.loss), module.targets(label).float()
    torch.testing.assert_close(loss(levels, targets), loss(others, targets))


def test_shares_are_those_of_annotated_voxels():
    label = np.repeat(np.uint8([0, 0, 0, 1, 2, 2, 2, 2, 2, 2]), 10)
    np.testing.assert_allclose(class_shares([label], [0, 1], None), [0.75, 0.25])
    np.testing.assert_allclose(class_shares([label], [0, 1], {"organ": (1,)}), [0.25])


# ---- scores


def test_a_prediction_is_not_scored_where_nobody_annotated(tmp_path):
    setup = Setup(datasets.get("folder", write_folder(tmp_path)), experiments.scales.get("smoke"))
    case = setup.datalist.training[0]
    label = volumes.read_label(case.label).array[0]
    found = metrics.evaluate([case], dataset=setup.dataset, predict=lambda image: {"organ": label > 0})
    assert found["dice"].tolist() == [1.0] and found["hd95"].tolist() == [0.0]
    both = (overlaps.with_background({"organ": mask}) for mask in (label > 0, label == 1))
    counts = overlaps.overlap(*both, label != 2)
    assert counts.dice().tolist() == [1.0, 1.0] and counts.reference.sum() == (label != 2).sum()


def test_baseline_ensemble_and_crops_leave_ignored_voxels_out(tmp_path):
    setup = Setup(datasets.get("folder", write_folder(tmp_path)), experiments.scales.get("smoke"))
    first, second = setup.prepared(setup.datalist.training[:2])
    average = average_label.of_cases([first, second], dataset=setup.dataset, grid=setup.grid)
    both = [np.asarray(case.label) for case in (first, second)]
    assert setup.grid.roi == both[0].shape  # nothing is stretched
    sure = (both[0] == 1) & (both[1] == 1)
    assert (average[0].numpy()[sure] == 1).all() and average.max() <= 1
    network = torch.nn.Conv3d(1, 2, 1)
    torch.nn.init.zeros_(network.weight)
    network.bias.data = torch.tensor([-1.0, 1.0])  # the organ everywhere
    seen = ensembles.probabilities(network, first, dataset=setup.dataset, roi=setup.grid.roi, overlap=0.25)
    assert (ensembles.masks(seen, setup.dataset)["organ"] == (both[0] != 2)).all()
    assert 0 in first.positions and 1 in first.positions and 2 not in first.positions  # no crop is centred on it


def test_probes_read_annotated_tokens_alone(tmp_path):
    torch.manual_seed(0)
    encoder = ViT(
        in_channels=1, img_size=(16,) * 3, patch_size=8, hidden_size=24, mlp_dim=24, num_layers=1, num_heads=2
    )
    module = task_class("simmim")(encoder=encoder, lr=1e-3, steps=1)
    images, labels = torch.randn(3, 1, 16, 16, 16), torch.randint(0, 2, (3, 1, 16, 16, 16))
    labels[..., 8:] = 2  # every second token
    side = Fixed(images, [1, 2, 3], labels)
    found = Inside(tmp_path, held_out=side, labelled=side, values=(0, 1)).look(module, 0)
    with torch.no_grad():
        tokens = module.eval().encoder(images)[0].double()[:, ::2].flatten(0, 1)
    shares = probes.class_shares(labels[..., :8], (0, 1), (8, 8, 8)).double().flatten(0, 1)
    guess = probes.linear_probe(tokens, shares, tokens)
    assert found["linear"] == pytest.approx(probes.token_dice(guess, shares), abs=1e-3)
    nothing = Fixed(images, [1, 2, 3], torch.full_like(labels, 2))
    assert np.isnan(Inside(tmp_path, held_out=nothing, labelled=nothing, values=(0, 1)).look(module, 0)["linear"])


# ---- from the folder to a prediction


@pytest.mark.parametrize("labels", [LABELS, REGIONS])
def test_a_network_trains_on_the_rest_and_never_writes_the_value(tmp_path, tiny_setup, monkeypatch, labels):
    monkeypatch.setenv("SSL_RUNS_ROOT", str(tmp_path / "runs"))
    root = write_folder(tmp_path / "data", labels)
    setup = Setup(datasets.get("folder", root), replace(tiny_setup.scale, finetune_steps=3))
    folder = experiments.finetune(setup, Finetuning(init="random", num_labeled=2))
    assert read_json(folder / "config.json")["settings"]["ignore"] == labels["ignore"]
    assert f"label is {labels['ignore']} (ignore) are not scored" in (folder / "README.md").read_text()
    image = setup.datalist.test[0].image
    (result,) = prediction.predict(folder / "model.safetensors", [image], tmp_path / "out")
    assert volumes.read_label(result, values=setup.dataset.labels).shape == (SIZE,) * 3
    table = experiments.runs.read_scores(folder / "per_case.csv")
    assert {*table["class"]} == {*(("whole", "core") if labels is REGIONS else ("organ",))}
