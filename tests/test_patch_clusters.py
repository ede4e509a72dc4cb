"""Patch clusters: pairs overlap and say where they are, maps are aligned exactly, assignments are balanced, features
do not collapse; and what the published code gets wrong is found by one number each."""

import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from ssl_utils import experiments
from ssl_utils.data.crop_pairs import LEAST, SIZES, FixedPairs, Pairs, iou, overlapping_boxes
from ssl_utils.errors import CourseError
from ssl_utils.experiments import Pretraining, runs
from ssl_utils.networks import network_class
from ssl_utils.networks.vit import ViT
from ssl_utils.pretext import probes
from ssl_utils.pretext.patch_clusters import PatchClustersTask, align, common_region, sinkhorn, swapped_loss

ROI = (16, 24, 16)  # 2 x 3 x 2 tokens of 8^3 voxels
GRID = (4, 5, 6)
WHOLE = torch.tensor([[0.0] * 3, [1.0] * 3])


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def task(img_size=ROI, channels: int = 1, steps: int = 10, **options) -> PatchClustersTask:
    encoder = ViT(
        in_channels=channels, img_size=img_size, patch_size=8, hidden_size=24, mlp_dim=24, num_layers=2, num_heads=2
    )
    return PatchClustersTask(encoder=encoder, lr=1e-3, steps=steps, **options)


def boxes_of(number: int, seed: int = 0) -> torch.Tensor:
    """Boxes of pairs (B, 2, 2, 3), as shares of a volume."""
    rng, shape = np.random.default_rng(seed), (90, 80, 70)
    return torch.tensor(np.stack([overlapping_boxes(shape, (48, 40, 32), rng) / shape for _ in range(number)])).float()


def places(boxes: torch.Tensor, grid=GRID) -> torch.Tensor:
    """Where the cells of crops are in their volume, (B, 2, 3, d, h, w)."""
    axes = [(torch.arange(n) + 0.5) / n for n in grid]
    inside = torch.stack(torch.meshgrid(*axes, indexing="ij"))  # (3, d, h, w)
    low, high = boxes[..., None, None, None].unbind(2)
    return low + (high - low) * inside


# pairs


@pytest.mark.parametrize("shape", [(90, 80, 70), (48, 40, 32), (50, 200, 33), (300, 300, 40)])
def test_boxes_lie_in_the_volume_overlap_and_differ_in_size(shape):
    roi, rng = np.array([48, 40, 32]), np.random.default_rng(0)
    pairs = np.stack([overlapping_boxes(shape, roi, rng) for _ in range(200)])
    sides = pairs[:, :, 1] - pairs[:, :, 0]
    assert pairs.min() >= 0 and (pairs[:, :, 1] <= shape).all()
    assert min(iou(boxes) for boxes in pairs) >= LEAST
    assert (sides <= np.minimum(np.ceil(SIZES[1] * roi), shape)).all() and (sides >= np.floor(SIZES[0] * roi)).all()
    assert len({*map(tuple, sides[:, 0])}) > 10, "sizes are drawn, too"
    assert pairs[:, :, 0].min((0, 1)).max() == 0 and (pairs[:, :, 1].max((0, 1)) == shape).any()


def test_iou_by_hand():
    assert iou(np.array([[[0, 0, 0], [4, 4, 4]], [[2, 0, 0], [6, 4, 4]]])) == pytest.approx(32 / 96)
    assert iou(np.array([[[0, 0, 0], [4, 4, 4]], [[5, 0, 0], [9, 4, 4]]])) == 0


def test_a_pair_depends_on_its_number_alone_and_is_what_its_boxes_say(tiny_setup):
    """The published code seeds Python's generator, and draws sizes from NumPy's; its workers share one state."""
    cases, roi = tiny_setup.prepared(tiny_setup.pool), (8, 8, 8)
    one, two = Pairs(cases, roi=roi, seed=3), Pairs(cases, roi=roi, seed=3)
    np.random.seed(1)
    later = [two[i] for i in (7, 5)][1]
    assert all(torch.equal(value, later[key]) for key, value in one[5].items())
    assert not torch.equal(one[5]["boxes"], one[6]["boxes"])
    assert not torch.equal(one[5]["boxes"], Pairs(cases, roi=roi, seed=4)[5]["boxes"])
    case, pair = one.cases[one._turn(5)], one[5]
    whole = torch.from_numpy(case.standardised(case.image[:]))
    for image, (low, high) in zip((pair["image"], pair["partner"]), pair["boxes"], strict=True):
        shape = torch.tensor(whole.shape[1:])
        box = [slice(*ends) for ends in zip((low * shape).round().int(), (high * shape).round().int(), strict=True)]
        expected = F.interpolate(whole[(slice(None), *box)][None], size=roi, mode="trilinear")[0]
        torch.testing.assert_close(image, expected)
    first, second = (FixedPairs(cases, roi=roi)[1] for _ in range(2))
    assert first["id"] == cases[1].id and torch.equal(first["partner"], second["partner"])


# alignment


def test_aligned_maps_of_both_crops_are_of_the_same_places():
    boxes = boxes_of(20)
    positions = align(places(boxes), boxes)
    torch.testing.assert_close(positions[:, 0], positions[:, 1], atol=1e-5, rtol=0)
    region = common_region(boxes, GRID)
    torch.testing.assert_close(positions[:, 0, :, 0, 0, 0], region[:, 0], atol=1e-5, rtol=0)
    torch.testing.assert_close(positions[:, 0, :, -1, -1, -1], region[:, 1], atol=1e-5, rtol=0)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_known_shift_is_undone_to_the_last_digit(axis):
    volume, size = torch.randn(1, 3, 8, 9, 10), torch.tensor(GRID)
    corner = torch.zeros(3)
    corner[axis] = 2  # cells
    crops = [volume[..., x : x + 4, y : y + 5, z : z + 6] for x, y, z in (torch.zeros(3).int(), corner.int())]
    boxes = torch.stack([torch.stack([low, low + size]) for low in (torch.zeros(3), corner)])[None]
    first, second = align(torch.stack(crops, 1), boxes).unbind(1)
    torch.testing.assert_close(first, second, atol=1e-5, rtol=0)
    assert first.std() > 0.3, "cells of the volume, not a constant"


def test_index_rounding_as_published_is_off_by_up_to_a_cell():
    """Slices of the truncated indices, resized by the nearest neighbour."""
    boxes = boxes_of(40)
    maps, size = places(boxes), boxes[:, :, 1] - boxes[:, :, 0]
    low, high = boxes[:, :, 0].amax(1, keepdim=True), boxes[:, :, 1].amin(1, keepdim=True)
    first, last = (((end - boxes[:, :, 0]) / size * torch.tensor(GRID)).int() for end in (low, high))
    off = []
    for pair, starts, ends in zip(maps, first, last, strict=True):
        cut = [
            F.interpolate(one[(slice(None), *map(slice, a, b.clamp(min=a + 1)))][None], size=GRID)
            for one, a, b in zip(pair, starts, ends, strict=True)
        ]
        off.append(((cut[0] - cut[1]).abs() / (size[0, 0] / torch.tensor(GRID)).view(1, 3, 1, 1, 1)).amax())
    aligned = align(maps, boxes)
    assert max(off) > 0.7 and (aligned[:, 0] - aligned[:, 1]).abs().max() < 1e-5


@pytest.mark.filterwarnings("ignore:Since version 1.3.0")  # on axes of one cell
def test_alignment_keeps_its_digits_in_mixed_precision():
    maps, boxes = torch.randn(2, 2, 3, *GRID), boxes_of(2)
    expected = align(maps, boxes)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(align(maps, boxes), expected, atol=1e-5, rtol=0)


def test_alignment_has_a_gradient_and_takes_a_single_cell_along_an_axis():
    maps = torch.randn(2, 2, 3, 1, 5, 6, requires_grad=True)
    align(maps, boxes_of(2)).square().sum().backward()
    assert (maps.grad != 0).any(2).float().mean() > 0.1
    same = align(torch.randn(1, 2, 3, *GRID), WHOLE.expand(1, 2, 2, 3))
    assert same.isfinite().all()


def test_the_same_box_twice_changes_nothing():
    maps = torch.randn(1, 2, 3, *GRID)
    torch.testing.assert_close(align(maps, WHOLE.expand(1, 2, 2, 3)), maps, atol=1e-5, rtol=0)


def test_crops_that_do_not_overlap_are_refused_in_one_line():
    boxes = boxes_of(3)
    boxes[1, 1] += 5
    with pytest.raises(CourseError, match="crops of pair 1 do not overlap") as caught:
        align(torch.randn(3, 2, 1, *GRID), boxes)
    assert "\n" not in str(caught.value)


# Sinkhorn


def cosines(rows: int = 240, clusters: int = 8, features: int = 16) -> torch.Tensor:
    return F.normalize(torch.randn(rows, features), dim=1) @ F.normalize(torch.randn(clusters, features), dim=1).T


def test_rows_sum_to_one_and_clusters_are_equally_frequent():
    scores = cosines() + torch.tensor([1.0, 0, 0, 0, 0, 0, 0, 0])  # one cluster is most similar to every row
    rows = sinkhorn(scores)
    torch.testing.assert_close(rows.sum(1), torch.ones(240))
    assert (rows.sum(0) / 30 - 1).abs().max() < 0.4
    converged = sinkhorn(scores, iterations=100)
    torch.testing.assert_close(converged.sum(0), torch.full((8,), 30.0), atol=0.01, rtol=0)
    assert (sinkhorn(scores, iterations=0).argmax(1) == 0).float().mean() > 0.9, "a softmax is not balanced"
    assert rows.argmax(1).bincount(minlength=8).min() > 10


def test_it_is_the_published_one_without_logarithms_and_survives_where_that_overflows():
    scores = cosines()
    q = (scores / 0.05).exp().T  # (K, R)
    for _ in range(3):
        q = q / q.sum(1, keepdim=True) / 8
        q = q / q.sum(0, keepdim=True) / 240
    torch.testing.assert_close(sinkhorn(scores), (240 * q).T, atol=1e-5, rtol=1e-4)
    assert not (100 * scores / 0.05).exp().isfinite().all() and sinkhorn(100 * scores).isfinite().all()


@pytest.mark.parametrize("iterations", [1, 3, 40])
def test_it_is_the_one_in_logarithms_for_scores_of_any_size(iterations):
    scores, far = cosines(), torch.tensor([0.0, 0, 0, -90, 0, 40, 0, 0])  # e^(-1800) of a cluster's weight
    for given in (scores, 30 * scores, scores + far, scores + 20 * torch.randn(240, 1)):
        log_q = given.double() / 0.05
        for _ in range(iterations):
            log_q = log_q - log_q.logsumexp(0, keepdim=True)
            log_q = log_q - log_q.logsumexp(1, keepdim=True)
        torch.testing.assert_close(sinkhorn(given, iterations=iterations), log_q.exp().float(), atol=1e-3, rtol=0)


def test_an_assignment_that_is_transposed_twice_is_scrambled():
    """The published helper returns (R, K) already; its caller transposes once more and reshapes."""
    rows = sinkhorn(cosines(2400, 10))
    scrambled = rows.T.reshape(rows.shape)
    agreement = (scrambled.argmax(1) == rows.argmax(1)).float().mean()
    assert 0.05 < agreement < 0.2, "near chance, 1 of 10"
    assert (scrambled.sum(1) - 1).abs().max() > 0.5 and (rows.sum(1) - 1).abs().max() < 1e-5


# the loss


def test_each_crop_predicts_the_other_one():
    targets = torch.tensor([[[1.0, 0.0], [0.0, 1.0]]]).view(1, 2, 2, 1, 1, 1)  # crop 0 in cluster 0, crop 1 in 1
    logits = torch.tensor([[[0.0, 3.0], [3.0, 0.0]]]).view(1, 2, 2, 1, 1, 1)
    assert swapped_loss(logits, targets).item() == pytest.approx(math.log(1 + math.exp(-3)))
    assert swapped_loss(logits.flip(1), targets).item() == pytest.approx(3 + math.log(1 + math.exp(-3)))


def test_a_uniform_prediction_costs_ln_k_and_a_certain_wrong_one_is_finite():
    """The published loss is a mean over K, too, and the logarithm of a softmax."""
    targets = sinkhorn(cosines(48, 12)).T.reshape(1, 12, 4, 4, 3)[:, None].expand(1, 2, -1, -1, -1, -1)
    logits = torch.zeros_like(targets)
    assert swapped_loss(logits, targets).item() == pytest.approx(math.log(12), rel=1e-5)
    published = -(targets.flip(1) * logits.softmax(2).log()).mean()
    assert published.item() == pytest.approx(math.log(12) / 12, rel=1e-5)
    certain = torch.zeros_like(targets)
    certain[:, :, 0] = 200.0
    assert (certain.softmax(2).log() == -math.inf).any() and swapped_loss(certain, targets).isfinite()


def test_the_encoder_learns_from_both_crops_and_targets_have_no_gradient():
    module, pair = task(jitter=0.0), torch.randn(2, 2, 1, *ROI, requires_grad=True)
    boxes = WHOLE.expand(2, 2, 2, 3)
    module.losses(pair[:, 0], generator(), partner=pair[:, 1], boxes=boxes)["loss"].backward()
    assert (pair.grad.flatten(2).abs().sum(2) > 0).all()
    assert all(p.grad is not None for p in module.parameters())
    assert not module.assign(module(pair[:, 0])[:, None]).requires_grad


def test_scores_are_cosines_whatever_the_length_of_a_prototype():
    module, images = task(), torch.randn(2, 1, *ROI)
    before = module(images)
    module.prototypes.data *= torch.rand(module.clusters, 1) + 0.5
    torch.testing.assert_close(module(images), before)
    assert before.shape == (2, 12, 12) and before.abs().max() <= 1.0001
    assert module.cluster_of(images).shape == (2, 2, 3, 2)


def test_views_differ_in_contrast_and_brightness_only_and_follow_the_generator():
    module, images = task(jitter=0.3), torch.randn(4, 1, *ROI)
    seen = [module.views(images, images, generator(seed)) for seed in (0, 0, 1)]
    assert torch.equal(seen[0], seen[1]) and not torch.equal(seen[0], seen[2])
    rows = seen[0].flatten(0, 1).flatten(1)
    assert torch.corrcoef(rows.view(4, 2, -1)[0])[0, 1] > 0.9999 and len(rows.std(1).unique()) == 8
    assert (rows.std(1) / images.flatten(1).std(1).repeat_interleave(2) - 1).abs().max() <= 0.3
    assert torch.equal(task(jitter=0.0).views(images, images, generator())[:, 0], images)


# collapse


def trained(iterations: int) -> tuple[torch.Tensor, float]:
    """Frequencies of clusters, and spread of projected tokens, after 40 steps on pairs of shifted crops.

    All tokens begin nearly alike, as they do where a network has large biases.
    """
    torch.manual_seed(0)
    module = task(clusters=8, iterations=iterations)
    module.head.bias.data += 2 * torch.randn(64)
    volumes = 2 * F.interpolate(torch.randn(6, 1, 5, 6, 5), size=(24, 32, 24), mode="trilinear")
    images, partner = volumes[..., :16, :24, :16], volumes[..., 8:, 8:, 8:]
    low = torch.tensor([[0.0] * 3, [8.0] * 3])
    boxes = torch.stack([low, low + torch.tensor(ROI)], 1).expand(6, 2, 2, 3)
    optimizer = torch.optim.AdamW(module.parameters(), lr=3e-3)
    for step in range(40):
        loss = module.losses(images, module.generator(0, step), partner=partner, boxes=boxes)["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        found, tokens = module.cluster_of(images), module.head(module.encoder(images)[0])
    return found.flatten().bincount(minlength=8) / found.numel(), probes.feature_std(tokens.flatten(0, 1))


def test_equal_frequencies_prevent_the_collapse_and_without_them_all_tokens_join_one_cluster():
    (balanced, spread), (alone, narrow) = trained(3), trained(0)
    assert (balanced > 0.02).sum() >= 6 and balanced.max() < 0.5, balanced
    assert alone.max() > 0.95, alone
    assert narrow < 0.25 and spread > 0.4, (narrow, spread)


# a run


def test_a_run_has_a_validation_loss_on_fixed_pairs_and_a_baseline(tiny_setup, tmp_path, monkeypatch):
    """The published code has no validation loss, so no checkpoint can be chosen."""
    monkeypatch.setenv("SSL_RUNS_ROOT", str(tmp_path))
    run = Pretraining.of("patch_clusters", clusters=6, steps=6)
    folder = experiments.pretrain(tiny_setup, run)
    done = runs.metrics(folder)
    assert done["baselines"] == {"uniform": math.log(6)} and 0 < done["last"]["validation_loss"] < 2 * math.log(6)
    assert (folder / "encoder.safetensors").exists() and not (folder / "network.safetensors").exists()
    module = experiments.load_task(tiny_setup, run)
    pairs = FixedPairs(tiny_setup.prepared(tiny_setup.datalist.validation), roi=tiny_setup.grid.roi)
    batch = torch.utils.data.default_collate([pairs[0]])
    with torch.no_grad():
        again = module.losses(batch["image"], module.generator(int(batch["seed"][0])), **module.extra(batch))["loss"]
    assert again.item() == pytest.approx(done["last"]["validation_loss"], rel=0.02)
    card = (folder / "README.md").read_text()
    assert "the same probability for every cluster" in card and "Patch clusters: two overlapping crops" in card


@pytest.mark.parametrize("name", ["unet", "mednext"])
def test_the_cells_of_a_pyramid_are_clustered_as_tokens_are(name, tiny_setup):
    module = experiments.build_task(tiny_setup, Pretraining.of("patch_clusters", network=name, clusters=5))
    images, grid = torch.randn(2, 1, *tiny_setup.grid.roi), network_class(name) and module.encoder.grid
    assert module.cluster_of(images).shape == (2, *grid)
    module.losses(images, generator())["loss"].backward()
    assert all(p.grad is not None for p in module.parameters())


def test_a_volume_that_is_not_a_number_is_not_hidden():
    images = torch.randn(2, 1, *ROI)
    images[0, 0, 3, 3, 3] = math.nan
    assert task().losses(images, generator())["loss"].isnan()


def test_one_volume_in_the_pool_is_enough(tiny_setup):
    pairs = Pairs(tiny_setup.prepared(tiny_setup.pool[:1]), roi=tiny_setup.grid.roi, seed=0)
    assert not torch.equal(pairs[0]["boxes"], pairs[1]["boxes"])


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"clusters": 25}, "clusters=25: two crops have only 24 tokens"),
        ({"clusters": 1}, "clusters=1: must be at least 2"),
        ({"iterations": -1}, "iterations=-1: must be at least 0"),
        ({"temperature": 0.0}, "temperature=0.0: must be at least"),
        ({"epsilon": 0.0}, "epsilon=0.0: must be at least"),
        ({"jitter": 1.0}, "jitter=1.0: must be at least 0 and below 1"),
    ],
)
def test_bad_options(options, line):
    with pytest.raises(CourseError, match=line) as caught:
        task(**options)
    assert "\n" not in str(caught.value)


def test_other_channels_and_a_whole_network_are_refused_in_one_line(tiny_setup):
    with pytest.raises(CourseError, match=r"image of shape .* this encoder takes \(batch, 1,") as caught:
        task().losses(torch.randn(1, 2, *ROI), generator())
    assert "\n" not in str(caught.value)
    with pytest.raises(CourseError, match="choose scope='encoder', or the task voxel_clusters"):
        experiments.build_task(tiny_setup, Pretraining.of("patch_clusters", scope="network"))
