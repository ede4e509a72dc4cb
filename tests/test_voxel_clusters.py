"""Voxel clusters follow value and position, do not depend on the crop, and a whole UNETR learns them."""

import pytest
import torch
from threadpoolctl import threadpool_limits

from ssl_utils import experiments
from ssl_utils.data.crops import crop_at
from ssl_utils.errors import CourseError
from ssl_utils.experiments import Finetuning, Pretraining
from ssl_utils.experiments.building import pretrained_weights
from ssl_utils.networks.checkpoints import read_checkpoint
from ssl_utils.networks.vit import ViT
from ssl_utils.pretext.voxel_clusters import VoxelClustersTask, box_grid, describe, kmeans, nearest

ROI = (16, 24, 16)


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def clusters(channels: int = 1, **options) -> VoxelClustersTask:
    encoder = ViT(
        in_channels=channels, img_size=ROI, patch_size=8, hidden_size=24, mlp_dim=24, num_layers=2, num_heads=2
    )
    return VoxelClustersTask(encoder=encoder, lr=1e-3, steps=10, **{"clusters": 4} | options)


def whole(images: torch.Tensor) -> list[dict]:
    return [{"image": image, "bounds": torch.tensor([[0.0] * 3, [1.0] * 3])} for image in images]


# input features of k-means


def test_the_features_of_a_voxel_are_value_neighbours_and_position():
    image = torch.zeros(1, 1, 4, 3, 3)
    image[0, 0, 1, 1, 1] = 27.0
    features = describe(image)
    assert features.shape == (1, 4, 3, 3, 5)
    assert features[0, 1, 1, 1, :2].tolist() == [27.0, pytest.approx(1.0)]
    assert features[0, 3, 1, 1, :2].tolist() == [0.0, 0.0]
    assert features[0, 0, 0, 0, 1] == pytest.approx(27 / 8), "a corner has eight voxels around it, not 27"
    assert features[0, :, 1, 1, 2].tolist() == pytest.approx([(i - 1.5) / 4 * 12**0.5 for i in range(4)])
    assert features[0, 1, 1, 1, 3:].tolist() == pytest.approx([0.0, 0.0]), "the middle"


def test_position_and_value_have_the_same_spread():
    features = describe(torch.randn(2, 3, 16, 24, 32))
    assert features.shape[-1] == 2 * 3 + 3
    spread = features.flatten(0, -2).std(0)
    assert (spread[[0, 1, 2, 6, 7, 8]] - 1).abs().max() < 0.05


def test_features_do_not_depend_on_the_crop(tiny_setup):
    case = tiny_setup.prepared(tiny_setup.pool)[0]
    shape, roi = case.image.shape[1:], [n - 4 for n in case.image.shape[1:]]
    corner = [2, 3, 1]
    full, part = crop_at(case, [0, 0, 0], shape), crop_at(case, corner, roi)
    assert full["bounds"].tolist() == [[0.0] * 3, [1.0] * 3]
    features = [describe(crop["image"][None], crop["bounds"][None])[0] for crop in (full, part)]
    inner = [slice(1, -1)] * 3  # at its border a crop does not see all 27
    box = [slice(c, c + n) for c, n in zip(corner, roi, strict=True)]
    torch.testing.assert_close(features[0][tuple(box)][tuple(inner)], features[1][tuple(inner)], atol=1e-5, rtol=0)


# k-means


def test_kmeans_finds_three_clusters():
    means = torch.tensor([[0.0, 0], [9, 0], [0, 9]])
    points = (means[:, None] + 0.3 * torch.randn(3, 50, 2)).flatten(0, 1)
    one_of_each = (i for i in range(50) if len((torch.randperm(150, generator=generator(i))[:3] // 50).unique()) == 3)
    centres = kmeans(points, 3, generator=generator(next(one_of_each)))
    assert torch.cdist(means, centres).min(1).values.max() < 0.2
    found = nearest(points, centres).view(3, 50)
    assert (found == found[:, :1]).all() and len(found[:, 0].unique()) == 3


def test_nearest_is_that_of_all_distances():
    points, centres = torch.randn(70_000, 3), torch.randn(5, 3)
    assert torch.equal(nearest(points, centres), torch.cdist(points, centres).argmin(1))


def test_no_lloyd_iteration_makes_the_distances_larger():
    points, lost = torch.rand(500, 3), []
    initial = points[torch.randperm(500, generator=generator())[:8]]
    for centres in (initial, *(kmeans(points, 8, iterations=n, generator=generator()) for n in (1, 2, 5, 20))):
        lost.append(torch.cdist(points, centres).min(1).values.square().sum().item())
    assert lost == sorted(lost, reverse=True) and lost[-1] < 0.8 * lost[0]


def test_centres_without_points_are_finite_and_no_warning_is_given(recwarn):
    assert torch.equal(kmeans(torch.zeros(10, 2), 3, generator=generator()), torch.zeros(3, 2))
    assert not recwarn.list


def test_kmeans_is_the_same_with_several_threads():
    points = torch.randn(20_000, 4)
    first = kmeans(points, 16, generator=generator())
    with threadpool_limits(4):
        again = [kmeans(points, 16, generator=generator()) for _ in range(3)]
    assert all(torch.equal(first, centres) for centres in again)


@pytest.mark.parametrize("options", [{"clusters": 1}, {"mask_ratio": 1.0}])
def test_bad_options(options):
    with pytest.raises(CourseError, match=next(iter(options))) as caught:
        clusters(**options)
    assert "\n" not in str(caught.value)


def test_too_few_points_are_an_error():
    with pytest.raises(CourseError, match="clusters=11: there are only 10 points") as caught:
        kmeans(torch.randn(10, 2), 11, generator=generator())
    assert "\n" not in str(caught.value)


# the task


def test_paint_gives_every_voxel_the_value_of_its_cluster():
    task, images = clusters(channels=2), torch.randn(2, 2, *ROI)
    task.prepare(whole(images))
    found = task.cluster_of(images)
    assert found.shape == (2, *ROI) and found.unique().tolist() == [0, 1, 2, 3]
    sure = torch.nn.functional.one_hot(found, 4).movedim(-1, 1) * 100.0
    painted = task.paint(sure, 2)
    torch.testing.assert_close(painted.movedim(1, -1), task.centres[found][..., :2])
    one = images.movedim(1, -1)[found == 1].mean(0)
    torch.testing.assert_close(painted.movedim(1, -1)[0][found[0] == 1][0], one, atol=0.1, rtol=0)


def test_the_loss_is_the_cross_entropy_of_the_clusters_and_of_nothing_hidden():
    task, images = clusters(), torch.randn(2, 1, *ROI)
    task.prepare(whole(images))
    mask = task.mask(images, generator())
    logits = task(images, mask)
    expected = -logits.log_softmax(1).gather(1, task.cluster_of(images)[:, None]).mean()
    assert task.losses(images, generator())["loss"].item() == pytest.approx(expected.item(), rel=1e-5)
    spoiled = torch.where(task.voxel_mask(mask, 1), 1e3, images)
    assert torch.equal(task(spoiled, mask), logits), "what is hidden does not reach the network"


@pytest.mark.long
def test_a_whole_unetr_is_pretrained_and_moved_and_its_centres_are_kept(tiny_setup, tmp_path, monkeypatch):
    monkeypatch.setenv("SSL_RUNS_ROOT", str(tmp_path))
    folder = experiments.pretrain(tiny_setup, Pretraining.of("voxel_clusters", clusters=6))
    task = experiments.load_task(tiny_setup, Pretraining.of("voxel_clusters", clusters=6))
    assert task.decoder is not None and task.centres.abs().sum() > 0
    cases = tiny_setup.prepared(tiny_setup.pool)
    features = [
        describe(crop["image"][None], crop["bounds"][None]).flatten(0, -2)
        for crop in (crop_at(case, [0, 0, 0], case.image.shape[1:]) for case in cases)
    ]
    found = nearest(torch.cat(features), task.centres)
    assert len(found.unique()) == 6, "centres are of the whole pool, and each has its voxels"
    path, scope = pretrained_weights(tiny_setup, folder.name)
    assert (path, scope) == (folder / "network.safetensors", "network")
    network, report = experiments.build_network(tiny_setup, Finetuning(init=folder.name, seed=0))
    weights = read_checkpoint(path)
    assert weights["out.conv.conv.weight"].shape[0] == 6, "the output layer predicts clusters, and is not moved"
    assert all(
        torch.equal(value, weights[key])
        for key, value in network.state_dict().items()
        if key in report.matched and key in weights
    )
    assert report.share == 1.0


def test_the_encoder_alone_can_be_pretrained(tiny_setup, tmp_path, monkeypatch):
    monkeypatch.setenv("SSL_RUNS_ROOT", str(tmp_path))
    folder = experiments.pretrain(tiny_setup, Pretraining.of("voxel_clusters", clusters=6, scope="encoder"))
    assert not (folder / "network.safetensors").exists() and (folder / "encoder.safetensors").exists()


def test_places_in_a_box_keep_their_digits_in_mixed_precision():
    images, corners = torch.zeros(1, 1, 96, 8, 8), torch.tensor([[[0.1, 0.1, 0.1], [0.9, 0.9, 0.9]]])
    expected = box_grid(corners, images)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(box_grid(corners, images), expected)
