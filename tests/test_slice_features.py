"""Learnt features: up-sampling is exact where it can be, the networks see what they expect, bad input is one line."""

import dataclasses
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.nn import functional as F

from ssl_utils import experiments
from ssl_utils.data.crops import FixedCrops, crop_at
from ssl_utils.data.datasets import LISTS
from ssl_utils.errors import CourseError
from ssl_utils.experiments import Pretraining, runs
from ssl_utils.files import read_json, write_json
from ssl_utils.networks.checkpoints import save_model
from ssl_utils.networks.vit import ViT
from ssl_utils.networks.vit2d import IMAGENET
from ssl_utils.pretext import cluster_maps
from ssl_utils.pretext.cluster_maps import agreement, cluster_map, fit, minibatch_kmeans, volume_of
from ssl_utils.pretext.slice_features import (
    STRIDE,
    UPSAMPLING,
    SliceFeatures,
    WindowFeatures,
    at_voxels,
    bilinear,
    joint_bilateral,
)
from ssl_utils.pretext.voxel_clusters import VoxelClustersTask, box_grid, draw_boxes
from tests.test_vit2d import PATCH, E, hub_weights

ROI = (16, 24, 16)
DINO = Path(__file__).resolve().parents[2] / "shared/data/dinov2_s14/dinov2_s14.safetensors"


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.fixture
def dino(tmp_path) -> Path:
    save_file(hub_weights(), tmp_path / "tiny_dino.safetensors", metadata={"num_heads": "2"})
    return tmp_path / "tiny_dino.safetensors"


def vit(channels: int = 1) -> ViT:
    return ViT(in_channels=channels, img_size=ROI, patch_size=8, hidden_size=24, mlp_dim=24, num_layers=2, num_heads=2)


@pytest.fixture
def mae(tmp_path) -> Path:
    save_model(tmp_path / "encoder.safetensors", vit(), metadata={})
    return tmp_path / "encoder.safetensors"


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def clusters(channels: int = 1, **options) -> VoxelClustersTask:
    return VoxelClustersTask(encoder=vit(channels), lr=1e-3, steps=10, **{"clusters": 4} | options)


# up-sampling


@pytest.mark.parametrize("upsample", [bilinear, joint_bilateral])
def test_a_constant_stays_constant_and_no_value_is_new(upsample):
    guide = torch.randn(2, 1, 12, 20)
    torch.testing.assert_close(upsample(torch.full((2, 3, 3, 5), 7.0), guide), torch.full((2, 3, 12, 20), 7.0))
    maps = torch.rand(2, 3, 3, 5)
    fine = upsample(maps, guide)
    assert fine.shape == (2, 3, 12, 20) and maps.min() <= fine.min() and fine.max() <= maps.max()


def test_bilateral_keeps_the_edge_of_the_guide_where_bilinear_blurs_it():
    guide = torch.zeros(1, 1, 16, 16)
    guide[..., 10:] = 4.0  # an edge inside the third column of 4-pixel cells
    cells = torch.tensor([0.0, 0.0, 0.5, 1.0]).expand(1, 1, 4, 4)  # the feature is 1 where the guide is bright
    wanted = (guide > 0).float()
    wrong = {f: (f(cells, guide) - wanted).abs()[..., 8:12].max() for f in (bilinear, joint_bilateral)}
    assert wrong[joint_bilateral] < 0.1 < 0.3 < wrong[bilinear]


def test_bilateral_by_hand():
    """One row of two cells, a pixel at the centre of the first: weights exp(0) and exp(-1/(2 near^2) - c^2/(2 s^2))."""
    guide = torch.tensor([[[[0.0, 0.6]]]])  # as many pixels as cells, so the guide of a cell is its pixel
    other = math.exp(-1 / (2 * 0.5**2) - 0.6**2 / (2 * 0.4**2))
    found = joint_bilateral(torch.tensor([[[[0.0, 1.0]]]]), guide, near=0.5, similar=0.4)
    assert found[0, 0, 0, 0].item() == pytest.approx(other / (1 + other), rel=1e-5)


# what the networks see


def test_slices_are_grey_pictures_in_the_statistics_of_the_2d_network_anterior_up(dino, monkeypatch):
    features, seen = SliceFeatures(dino, 1), []
    of_network = features.network.features
    monkeypatch.setattr(features.network, "features", lambda x: seen.append(x) or of_network(x))
    volume = torch.rand(1, 12, 20, 6) * 50 - 10
    maps = features.of(volume)(torch.tensor([1, 4]))
    (pictures,) = seen
    assert pictures.shape == (2, 3, 20 * PATCH // STRIDE, 12 * PATCH // STRIDE) and maps.shape == (2, E, 3, 5)
    mean, deviation = (torch.tensor(numbers)[:, None, None] for numbers in IMAGENET)
    grey = pictures * deviation + mean  # PATCH == STRIDE: no enlargement, so each pixel is a voxel
    unit = (volume - volume.min()) / (volume.max() - volume.min())
    torch.testing.assert_close(grey, grey[:, :1].expand_as(grey), atol=1e-5, rtol=0)
    torch.testing.assert_close(grey[1, 0], unit[0, :, :, 4].T.flip(0, 1), atol=1e-5, rtol=0)


def test_a_feature_stays_at_its_place(dino):
    """A bright corner changes the features there most, in the axes of the volume."""
    dark, bright = torch.zeros(2, 1, 12, 20, 4)
    dark[0, -1, 0, 0] = bright[0, -1, 0, 0] = 1.0  # the same range
    bright[0, :4, 16:] = 1.0
    change = [SliceFeatures(dino, 1).of(volume)(torch.tensor([2])) for volume in (dark, bright)]
    moved = (change[1] - change[0]).norm(dim=1)[0]  # (3, 5)
    assert moved.argmax().item() == 0 * 5 + 4


def test_channels_are_concatenated(dino):
    volume = torch.rand(2, 12, 20, 4)
    both = SliceFeatures(dino, 2).of(volume)(torch.tensor([0, 3]))
    low, high = volume.aminmax()
    assert both.shape == (2, 2 * E, 3, 5)
    for channel, of_channel in enumerate(both.split(E, 1)):
        alone = SliceFeatures(dino, 1)
        same_range = torch.cat([volume[channel], torch.stack([low, high]).expand(12, 20, 2)], -1)[None]
        torch.testing.assert_close(alone.of(same_range)(torch.tensor([0, 3])), of_channel, atol=1e-5, rtol=1e-4)


def test_a_window_gives_the_encoders_tokens_and_windows_are_averaged(mae):
    features, volume = WindowFeatures(mae, 1), torch.randn(1, *ROI)
    tokens, _ = features.network(volume[None])
    grid = tokens[0].T.unflatten(1, features.network.grid)  # (E, 2, 3, 2)
    middle = torch.tensor([3, 4, 8])  # of patches along the last axis: 3.5 is the centre of the first
    maps = features.of(volume)(middle)
    assert maps.shape == (3, 24, 2, 3)
    torch.testing.assert_close(maps[0], grid[..., 0])
    torch.testing.assert_close(maps[1], grid[..., 0] * (1 - 0.0625) + grid[..., 1] * 0.0625)
    longer = torch.randn(1, 24, 24, 16)
    parts = [features.network(longer[:, i : i + 16][None])[0][0].T.unflatten(1, (2, 3, 2)) for i in (0, 8)]
    torch.testing.assert_close(
        features.of(longer)(torch.tensor([0]))[0, :, 1], (parts[0][:, 1] + parts[1][:, 0])[..., 0] / 2
    )


def test_a_volume_is_padded_to_whole_patches_and_a_window(mae):
    features, volume = WindowFeatures(mae, 1), torch.randn(1, 17, 9, 30)
    padded = features.padded(volume)
    assert padded.shape == (1, 24, 24, 32) and torch.equal(padded[:, :17, :9, :30], volume)
    assert torch.equal(padded[:, 23, 23, 31], volume[:, -1, -1, -1])
    assert cluster_map(features, volume, torch.randn(3, 1 + 24), upsampling="bilinear").shape == (17, 9, 30)


def test_features_have_unit_length(dino):
    volume = torch.rand(1, 12, 20, 4)
    points = at_voxels(SliceFeatures(dino, 1).of(volume), volume, torch.arange(4), "bilateral")
    assert points.shape == (4, 12, 20, E)
    torch.testing.assert_close(points.norm(dim=-1), torch.ones(4, 12, 20))


# clusters


def test_minibatches_find_three_clusters_and_follow_the_seed():
    means = torch.tensor([[0.0, 0], [9, 0], [0, 9]])
    points = (means[:, None] + 0.3 * torch.randn(3, 500, 2)).flatten(0, 1)
    centres, again, other = (minibatch_kmeans(points, 3, seed=seed) for seed in (0, 0, 1))
    assert torch.cdist(means, centres).min(1).values.max() < 0.2
    assert torch.equal(centres, again) and not torch.equal(centres, other)


def test_centres_are_of_the_whole_pool_with_the_mean_intensities_first(tiny_setup, mae, monkeypatch):
    monkeypatch.setattr(cluster_maps, "POINTS", 600)
    cases, features = tiny_setup.prepared(tiny_setup.pool), WindowFeatures(mae, 1)
    visited = []
    monkeypatch.setattr(cluster_maps, "volume_of", lambda case: visited.append(case.id) or volume_of(case))
    centres = fit(features, cases, 3, upsampling="bilinear", seed=0)
    assert visited == [case.id for case in cases] and centres.shape == (3, 1 + 24)
    assert torch.equal(centres, fit(features, cases, 3, upsampling="bilinear", seed=0))
    volume = volume_of(cases[0])
    found = cluster_map(features, volume, centres, upsampling="bilinear")
    padded = features.padded(volume)
    points = at_voxels(features.of(padded), padded, torch.tensor([5]), "bilinear")[
        0, : found.shape[0], : found.shape[1]
    ]
    assert torch.equal(found[..., 5], torch.cdist(points, centres[:, 1:]).argmin(-1))
    values = torch.cat([volume_of(case).flatten() for case in cases])
    maps = torch.cat(
        [cluster_map(features, volume_of(case), centres, upsampling="bilinear").flatten() for case in cases]
    )
    assert (maps == 0).any()
    assert centres[0, 0].item() == pytest.approx(values[maps == 0].mean().item(), abs=0.3)


def test_agreement_does_not_depend_on_the_numbers_of_clusters():
    labels = torch.randint(3, (300,))
    assert agreement((labels + 1) % 3, labels) == pytest.approx({"homogeneity": 1, "NMI": 1, "ARI": 1})
    by_chance = agreement(torch.randint(5, (300,)), labels)
    assert all(abs(score) < 0.1 for score in by_chance.values())
    halves = agreement(labels * 2 + torch.randint(2, (300,)), labels)
    assert halves["homogeneity"] == pytest.approx(1) and halves["NMI"] < 0.9 and halves["ARI"] < 0.9


# the task


@pytest.fixture
def with_mae(tiny_setup, tmp_path, monkeypatch):
    """The tiny setup in which an encoder stands where a finished MAE leaves it."""
    monkeypatch.setenv("SSL_RUNS_ROOT", str(tmp_path / "runs"))
    module = experiments.build_task(tiny_setup, Pretraining.of("mae"))
    folder = runs.pretrain_dir(tiny_setup.dataset.name, tiny_setup.scale.name, "mae")
    save_model(folder / "encoder.safetensors", module.encoder, metadata={})
    write_json(folder / "metrics.json", {})
    return tiny_setup


MAE = {"features": "mae", "clusters": 4, "scope": "encoder", "steps": 2}


def test_a_run_predicts_maps_that_are_computed_once(with_mae, monkeypatch):
    folder = experiments.pretrain(with_mae, Pretraining.of("voxel_clusters", **MAE))
    assert folder.name == "voxel_clusters__clusters=4__features=mae__scope=encoder__steps=2"
    (targets,) = [path for path in (with_mae.folder / "targets").iterdir() if path.is_dir()]
    cases = with_mae.prepared(with_mae.pool), with_mae.prepared(with_mae.datalist.validation)
    assert {path.stem for path in targets.glob("*.npy")} == {
        "centres",
        *(c.folder.name for side in cases for c in side),
    }
    task = experiments.load_task(with_mae, Pretraining.of("voxel_clusters", **MAE))
    assert torch.equal(task.centres, torch.from_numpy(np.load(targets / "centres.npy")))
    monkeypatch.setattr("ssl_utils.pretext.voxel_clusters.fit", None)
    monkeypatch.setattr("ssl_utils.pretext.voxel_clusters.cluster_map", None)
    pool, held_out = task.targets(*cases, with_mae.folder / "targets")  # from the disk
    crop = FixedCrops(held_out, roi=with_mae.grid.roi)[0]
    assert crop["target"].shape == tuple(with_mae.grid.roi) and {*crop} == {"image", "bounds", "target", "seed", "id"}
    whole = crop_at(pool[0], [0, 0, 0], pool[0].target.shape)
    assert torch.equal(whole["target"], torch.from_numpy(pool[0].target.astype(int)))
    assert whole["target"].unique().numel() > 1 and whole["target"].max() < 4


@pytest.mark.long
def test_other_weights_are_another_run(with_mae):
    run = Pretraining.of("voxel_clusters", **MAE)
    folder = experiments.pretrain(with_mae, run)
    before = (folder / "encoder.safetensors").read_bytes()
    path = runs.pretrain_dir(with_mae.dataset.name, with_mae.scale.name, "mae") / "encoder.safetensors"
    save_model(path, experiments.build_task(with_mae, Pretraining.of("mae", seed=1)).encoder, metadata={})
    assert experiments.pretrain(with_mae, run) == folder and (folder / "encoder.safetensors").read_bytes() != before
    assert len([path for path in (with_mae.folder / "targets").iterdir() if path.is_dir()]) == 2


@pytest.mark.long
def test_dino_features_train_a_task_and_its_weights_are_not_in_the_checkpoint(tiny_setup, dino, tmp_path, monkeypatch):
    monkeypatch.setenv("SSL_RUNS_ROOT", str(tmp_path / "runs"))
    run = Pretraining.of(
        "voxel_clusters", **MAE | {"features": "dino", "weights": str(dino), "upsampling": "bilateral"}
    )
    assert run.name.endswith("upsampling=bilateral__weights=tiny_dino") and f"--weights={dino}" in run.words()
    folder = experiments.pretrain(tiny_setup, run)
    saved = load_file(folder / "task.safetensors")
    assert saved["centres"].shape == (4, 1 + E) and not [name for name in saved if "learnt" in name]


def test_the_loss_is_that_of_the_given_clusters_else_of_the_crop_alone(mae):
    task, images = clusters(features="mae", weights=str(mae)), torch.randn(2, 1, *ROI)
    task.centres.normal_()
    target = torch.randint(4, (2, *ROI))
    logits = task(images, task.mask(images, generator()))
    for given, expected in ((target, target), (None, task.cluster_of(images))):
        loss = task.losses(images, generator(), target=given)["loss"]
        assert loss.item() == pytest.approx(F.cross_entropy(logits, expected).item(), rel=1e-5)


# swapped prediction


def test_the_grid_of_the_whole_box_is_the_image_and_of_a_part_that_part():
    images = torch.randn(1, 2, 8, 12, 10)
    whole = box_grid(torch.tensor([[[0.0] * 3, [1.0] * 3]]), images)
    torch.testing.assert_close(F.grid_sample(images, whole, align_corners=False), images)
    ramp = torch.arange(8.0)[:, None, None].expand(8, 12, 10)[None, None]
    upper = box_grid(torch.tensor([[[0.5, 0.0, 0.0], [1.0, 1.0, 1.0]]]), ramp)
    rows = F.grid_sample(ramp, upper, padding_mode="border", align_corners=False)[0, 0, :, 3, 3]
    torch.testing.assert_close(rows, (torch.arange(8) / 2 + 3.75).clamp(max=7.0))


def test_boxes_are_inside_and_large_enough():
    boxes = draw_boxes(1000, generator())
    low, high = boxes.unbind(1)
    assert low.min() >= 0 and high.max() <= 1 and (high - low).min() >= 0.6 - 1e-6 and (high - low).max() > 0.95


def test_swapped_loss_of_equal_crops_is_the_plain_loss_and_clusters_of_one_teach_the_other(monkeypatch):
    task, images = clusters(swapped=True), torch.randn(2, 1, *ROI)
    task.prepare([{"image": image} for image in images])
    whole = torch.tensor([[0.0] * 3, [1.0] * 3]).expand(2, 2, 3)
    monkeypatch.setattr("ssl_utils.pretext.voxel_clusters.draw_boxes", lambda number, generator: whole)
    monkeypatch.setattr(task, "mask", lambda images, generator: torch.zeros(len(images), 12, dtype=torch.bool))
    plain = F.cross_entropy(task(images, task.mask(images, None)), task.cluster_of(images))
    assert task.losses(images, generator())["loss"].item() == pytest.approx(plain.item(), rel=1e-4)
    answers = iter([torch.zeros(2, *ROI, dtype=torch.long), torch.ones(2, *ROI, dtype=torch.long)])
    monkeypatch.setattr(task, "cluster_of", lambda images, bounds: next(answers))  # of the second, then of the first
    logits = iter([torch.zeros(2, 4, *ROI), torch.zeros(2, 4, *ROI)])
    first, second = next(logits), next(logits)
    first[:, 0], second[:, 1] = 20.0, 20.0  # the first crop predicts the clusters of the second, and vice versa
    outputs = iter([first, second])
    monkeypatch.setattr(task, "forward", lambda images, mask: next(outputs))
    assert task.losses(images, generator())["loss"].item() < 1e-3


def test_in_validation_swapped_is_scored_like_any_other():
    task, images = clusters(swapped=True).eval(), torch.randn(1, 1, *ROI)
    task.prepare([{"image": images[0]}])
    plain = clusters().eval()
    plain.load_state_dict(task.state_dict())
    one, other = (t.losses(images, generator()) for t in (task, plain))
    assert one["reconstruction"].item() == pytest.approx(other["reconstruction"].item())


# bad input


def one_line(match: str, call) -> None:
    with pytest.raises(CourseError, match=match) as caught:
        call()
    assert "\n" not in str(caught.value)


def test_options_that_do_not_fit(dino):
    one_line("weights=None: does not fit features=dino", lambda: clusters(features="dino"))
    one_line("does not fit features=intensity; leave it out", lambda: clusters(weights=str(dino)))
    one_line("features='vgg': unknown", lambda: clusters(features="vgg"))
    one_line("upsampling='cubic': unknown", lambda: clusters(upsampling="cubic"))


def test_wrong_weights(dino, mae, tmp_path):
    one_line("no such file", lambda: clusters(features="dino", weights=str(tmp_path / "no.safetensors")))
    one_line("no such file", lambda: clusters(features="mae", weights=str(tmp_path / "no.safetensors")))
    one_line("class token", lambda: clusters(features="dino", weights=str(mae)))
    one_line("is no 3D ViT of this course", lambda: clusters(features="mae", weights=str(dino)))
    one_line("takes 1 channels, the volumes have 2", lambda: clusters(2, features="mae", weights=str(mae)))
    grey = hub_weights()
    projection = "embeddings.patch_embeddings.projection.weight"
    save_file(
        grey | {projection: grey[projection][:, :1].contiguous()},
        tmp_path / "grey_dino.safetensors",
        metadata={"num_heads": "2"},
    )
    one_line("not RGB", lambda: clusters(features="dino", weights=str(tmp_path / "grey_dino.safetensors")))


def test_a_pretraining_that_is_not_there(tiny_setup, tmp_path, monkeypatch):
    monkeypatch.setenv("SSL_RUNS_ROOT", str(tmp_path))
    for options in ({}, {"weights": "mae__mask_ratio=0.5"}):
        run = Pretraining.of("voxel_clusters", features="mae", **options)
        one_line("pretrain mae first", lambda run=run: experiments.build_task(tiny_setup, run))


def test_one_volume_too_many_clusters_and_nan(tiny_setup, mae, monkeypatch):
    cases, features = tiny_setup.prepared(tiny_setup.pool), WindowFeatures(mae, 1)
    options = {"upsampling": "bilinear", "seed": 0}
    one_line("has one volume", lambda: fit(features, cases[:1], 3, **options))
    monkeypatch.setattr(cluster_maps, "POINTS", 4)
    one_line("clusters=9: there are only", lambda: fit(features, cases[:2], 9, **options))
    volume = torch.randn(1, *ROI)
    volume[0, 3, 3, 3] = torch.nan
    one_line("NaN", lambda: cluster_map(features, volume, torch.randn(3, 25), upsampling="bilinear"))


@pytest.mark.skipif(not DINO.exists(), reason="the weights of DINOv2 are not there")
def test_real_weights_tell_a_ball_from_its_surroundings():
    """Bright balls of noise in grey noise at random places: clusters find them without any label."""
    features, rng, volumes = SliceFeatures(DINO, 1), np.random.default_rng(0), []
    for _ in range(2):
        centre = rng.integers(10, 22, 2)
        ball = np.linalg.norm(np.indices((32, 32)) - centre[:, None, None], axis=0) < 9
        volumes.append((ball, rng.normal(size=(32, 32)) * 0.2 + 2 * ball))
    points, inside = [], []
    for ball, picture in volumes:
        volume = torch.from_numpy(picture).float()[None, ..., None]
        with torch.no_grad():
            points.append(at_voxels(features.of(volume), volume, torch.tensor([0]), "bilinear").flatten(0, 2))
        inside.append(torch.from_numpy(ball).flatten())
    centres = minibatch_kmeans(points[0], 2, seed=0)
    assert agreement(cluster_maps.nearest(points[1], centres), inside[1])["homogeneity"] > 0.3


def test_a_prepared_case_without_a_map_has_no_target(tiny_setup):
    (case,) = tiny_setup.prepared(tiny_setup.pool[:1])
    assert case.target is None and "target" not in crop_at(case, [0, 0, 0], (4, 4, 4))
    assert dataclasses.replace(case, target_file=None) == case


def test_the_record_has_every_clustering_with_the_command_that_measured_it():
    record = read_json(LISTS / "reference_cluster_anatomy.json")
    for dataset, run in record.items():
        assert run["command"].startswith(f"python -m benchmarks.cluster_anatomy {dataset} --weights ")
        assert len(run["weights"]["sha256"]) == 64 and run["clusters"] == 48
        rows = {row["clusters by"]: row for row in run["rows"]}
        learnt = {f"{network}, {way}" for network in ("mae", "dino") for way in UPSAMPLING}
        assert {*rows} == {"value", "position", "value and position", *learnt}
        assert rows["position"]["position"] == pytest.approx({"homogeneity": 1, "NMI": 1, "ARI": 1})
        held_out = json.dumps(read_json(LISTS / f"{dataset}.json")["validation"])
        assert run["cases"] and all(case in held_out for case in run["cases"]), "never test cases"
