"""Models Genesis: the four deformations are the published ones, follow their seeds, and fit CT and MRI."""

import math

import numpy as np
import pytest
import torch
from scipy.stats import chisquare

from ssl_utils.errors import CourseError
from ssl_utils.networks import build
from ssl_utils.networks.vit import ViT
from ssl_utils.pretext import genesis
from ssl_utils.pretext.genesis import GenesisTask, bezier, boxes, curved, flipped_axes, paint, shuffle_blocks, shuffled

ROI = (16, 24, 16)
PUBLISHED = (64, 64, 32)


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def task(**options) -> GenesisTask:
    encoder = ViT(in_channels=1, img_size=ROI, patch_size=8, hidden_size=24, mlp_dim=24, num_layers=2, num_heads=2)
    return GenesisTask(encoder=encoder, lr=1e-3, steps=10, **options)


# flips


def test_flips_are_as_frequent_as_up_to_three_draws_of_an_axis_make_them():
    drawn = [flipped_axes(generator(seed)) for seed in range(2000)]
    assert {axis for axes in drawn for axis in axes} == {1, 2, 3}
    none = 0.6 + 0.4 * 0.4 * (1 / 3) * 0.6  # no draw, or two of the same axis; after a third one an axis is left
    assert np.mean([not axes for axes in drawn]) == pytest.approx(none, abs=0.04)


# shuffling


def test_blocks_keep_their_voxels_when_they_do_not_overlap(monkeypatch):
    monkeypatch.setattr(genesis, "COVERED", 1e-9)  # one block
    for seed in range(20):
        address = shuffled(PUBLISHED, generator(seed))
        moved = (address != torch.arange(len(address))).nonzero().ravel()
        assert torch.equal(address[moved].sort().values, moved), "a permutation"
        places = [axis.unique() for axis in torch.unravel_index(moved, PUBLISHED)]
        assert all(
            len(axis) == 0 or axis.max() - axis.min() < most for axis, most in zip(places, (6, 6, 3), strict=True)
        )


def test_every_order_of_a_block_is_equally_likely(monkeypatch):
    monkeypatch.setattr(genesis, "COVERED", 1e-9)
    found = [tuple(shuffled((1, 1, 3), generator(seed)).tolist()) for seed in range(1200)]  # blocks of 1 or 2 voxels
    swaps, rest = [(1, 0, 2), (0, 2, 1)], found.count((0, 1, 2))
    assert set(found) == {(0, 1, 2), *swaps}
    assert chisquare([rest, *(found.count(swap) for swap in swaps)], [900, 150, 150]).pvalue > 0.001


def published_shuffle(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The published loop, rebuilt: 10,000 blocks, one after the other, read from the image and written to a copy."""
    view = image.copy()
    for _ in range(10_000):
        sides = [int(rng.integers(1, n // 10 + 1)) for n in image.shape]
        box = tuple(
            slice(low := int(rng.integers(n - s + 1)), low + s) for n, s in zip(image.shape, sides, strict=True)
        )
        view[box] = rng.permutation(image[box].ravel()).reshape(sides)
    return view


def test_shuffling_is_like_the_published_loop():
    image = torch.rand(1, *PUBLISHED)
    ours = shuffle_blocks(image, generator())[0].numpy()
    clean = image[0].numpy()
    theirs = published_shuffle(clean, np.random.default_rng(0))
    share, their_share = (ours != clean).mean(), (theirs != clean).mean()
    assert share == pytest.approx(their_share, abs=0.01)
    near = image[:, :30].contiguous()
    assert (shuffle_blocks(near, generator()) != near).float().mean() > 0.9 * share, "as many in smaller crops"


def test_channels_are_shuffled_alike():
    image = torch.rand(1, *ROI).repeat(2, 1, 1, 1)
    image[1] *= 2
    view = shuffle_blocks(image, generator())
    assert not torch.equal(view, image) and torch.equal(view[1], 2 * view[0])


@pytest.mark.parametrize("shape", [(8, 8, 1), (1, 1, 1), (3, 40, 9)])
def test_thin_crops_are_shuffled_too(shape):
    assert shuffle_blocks(torch.rand(1, *shape), generator()).shape == (1, *shape)


@pytest.mark.alone
def test_shuffling_takes_at_most_fifteen_milliseconds_of_one_core():
    import time

    image, taken = torch.rand(1, *PUBLISHED), []
    for seed in range(12):
        started = time.process_time()
        shuffle_blocks(image, generator(seed))
        taken.append(time.process_time() - started)
    assert sorted(taken)[3] < 0.015


# intensities


def test_a_bezier_curve_is_bernsteins():
    points = torch.rand(2, 2)
    curve = bezier(points, steps=5)
    assert curve[0].tolist() == [0, 0] and curve[-1].tolist() == pytest.approx([1, 1])
    middle = (3 * points[0] + 3 * points[1] + 1) / 8
    torch.testing.assert_close(curve[2], middle)
    corners = torch.tensor([[[0.0, 0], [0, 0]], [[1, 1], [0, 0]], [[1, 0], [0, 1]], [[0, 1], [1, 0]]])
    for points in (*corners, *torch.rand(50, 2, 2)):
        assert (bezier(points).diff(dim=0) >= -1e-6).all(), "to sort it, as published, changes nothing"


def test_half_of_the_curves_rise_and_half_go_from_bright_to_dark():
    image, rising = torch.linspace(-1, 3, 64).view(1, 4, 4, 4), []
    for seed in range(60):
        view = curved(image, generator(seed)).ravel()
        assert view.min() >= -1 - 1e-5 and view.max() <= 3 + 1e-5, "in the range of the crop"
        rises = bool((view.diff() >= -1e-5).all())
        ends = (-1, 3) if rises else (3, -1)
        assert (view[0].item(), view[-1].item()) == pytest.approx(ends, abs=1e-4)
        rising.append(rises)
    assert 0.3 < np.mean(rising) < 0.7


def test_intensities_of_ct_and_mri_stay_in_range():
    """The rule of CT (clip to 1000, scale to 0..1) ruins an MRI; the range of the crop does not (B16 of RadioSSL)."""
    ct = torch.randn(1, 8, 8, 8)
    mri = 4000 * ct.exp()
    by_rule = ((mri + 1000) / 2000).clamp(0, 1)
    assert (by_rule == 1).float().mean() > 0.5 and by_rule.min() >= 0.5
    for image in (ct, mri, torch.full((1, 4, 4, 4), 7.0)):
        for seed in range(5):
            view = curved(image, generator(seed))
            assert view.isfinite().all() and image.min() <= view.min() + 1e-3 and view.max() <= image.max() * 1.0001
    assert len(curved(mri, generator(1)).unique()) > 0.9 * mri.numel()


# painting


def test_boxes_have_the_sides_that_were_asked_for_and_keep_from_the_border():
    least, most = torch.tensor([10, 10, 5]), torch.tensor([21, 21, 10])
    for seed in range(30):
        inside = boxes(PUBLISHED, least=1, shortest=least, longest=most, generator=generator(seed))
        assert inside.any() and inside.sum() <= 5 * most.prod()
        assert not inside[:3].any() and not inside[:, -3:].any() and not inside[..., :3].any()
    counts = [boxes(PUBLISHED, least=0, shortest=least, longest=most, generator=generator(s)).any() for s in range(150)]
    assert np.mean(counts) == pytest.approx(0.95, abs=0.05)


def test_out_painting_is_four_times_as_frequent_and_loses_more():
    image = torch.rand(1, *PUBLISHED)
    shares = []
    for seed in range(100):
        view, lost = paint(image, generator(seed))
        assert torch.equal(view[0][~lost], image[0][~lost]) and view.min() >= image.min() and view.max() <= image.max()
        shares.append(lost.float().mean().item())
    inside = [share for share in shares if share < 5 / 27]
    assert len(inside) / len(shares) == pytest.approx(0.2, abs=0.11)
    assert min(share for share in shares if share >= 5 / 27) > 0.3, "at most five windows of 4/7 of each side are kept"


# the task


def test_deformations_come_in_their_order(monkeypatch):
    calls = []
    for name in ("shuffle_blocks", "curved", "paint"):
        known = getattr(genesis, name)
        monkeypatch.setattr(genesis, name, lambda *of, name=name, known=known: (calls.append(name), known(*of))[1])
    for name in ("SHUFFLE", "CURVE", "PAINT"):
        monkeypatch.setattr(genesis, name, 1.0)
    task().deform(torch.rand(1, *ROI), generator())
    assert calls == ["shuffle_blocks", "curved", "paint"]


@pytest.mark.parametrize("only", ["shuffling", "intensity", "painting"])
def test_each_deformation_can_be_switched_off(only):
    others = {name: False for name in ("shuffling", "intensity", "painting") if name != only}
    module, images = task(flips=False, **others), torch.rand(12, 1, *ROI)
    clean, views, lost, _ = module.views(images, generator())
    assert torch.equal(clean, images) and not torch.equal(views, images)
    if only == "intensity":
        assert lost.all(), "nothing is lost, so every voxel is scored"
        values = torch.cat([views[0, 0].flatten()[:, None], images[0, 0].flatten()[:, None]], 1)
        assert len(values.unique(dim=0)) == len(images[0, 0].unique()), "one value for one value"
    else:
        assert torch.equal(views[~lost], images[~lost])


def test_with_nothing_left_to_restore_it_is_refused():
    with pytest.raises(CourseError, match="painting=False: nothing to restore") as caught:
        task(shuffling=False, intensity=False, painting=False)
    assert "\n" not in str(caught.value)


def test_crop_and_target_are_flipped_together_and_shown_as_they_were():
    module, images = task(shuffling=False, intensity=False).eval(), torch.rand(40, 1, *ROI)
    clean, views, lost, axes = module.views(images, generator())
    assert any(axes) and torch.equal(views[~lost], clean[~lost])
    for image, flipped, turned in zip(images, clean, axes, strict=True):
        assert torch.equal(image.flip(turned), flipped)
    seen = module.reconstruct(images, generator())
    assert torch.equal(seen["corrupted"][~seen["hidden"]], images[~seen["hidden"]])


def test_the_loss_is_squared_over_the_whole_crop_and_validation_absolute_over_lost_voxels():
    module, images = task(), torch.rand(3, 1, *ROI)
    clean, views, lost, _ = module.views(images, generator())
    losses = module.losses(images, generator())
    restored = module(views)
    torch.testing.assert_close(losses["loss"], (restored - clean).square().mean())
    torch.testing.assert_close(losses["reconstruction"], (restored - clean)[lost].abs().mean())


def test_deformations_do_not_depend_on_the_crops_nor_on_their_batch():
    module, images = task(flips=False, shuffling=False, intensity=False), torch.rand(4, 1, *ROI)
    lost = module.views(images, generator())[2]
    assert torch.equal(lost, module.views(images + 1, generator())[2])
    assert torch.equal(lost[:2], module.views(images[:2], generator())[2])
    assert not torch.equal(lost[0], lost[1])


@pytest.mark.parametrize("name", ["unet", "unetr"])
def test_a_whole_network_is_trained_and_scores_do_not_depend_on_the_batch(name):
    """Genesis' own network normalises by the batch also when it is evaluated (B7 of RadioSSL)."""
    sizes = {"hidden_size": 24, "mlp_dim": 24, "num_layers": 2, "num_heads": 2, "patch_size": 8}
    config = {"network": name, "in_channels": 1, "out_channels": 1, "img_size": ROI, "feature_size": 4}
    network = build(config | (sizes if name == "unetr" else {}))
    module = GenesisTask(encoder=network.encoder, lr=1e-3, steps=10)
    module.reconstruct_with(network)
    images = torch.rand(3, 1, *ROI)
    module.losses(images, generator())["loss"].backward()
    assert all(weight.grad is not None for weight in module.parameters())
    module.eval()
    with torch.no_grad():
        together = module(images)
        torch.testing.assert_close(torch.cat([module(image) for image in images.split(1)]), together)
    assert math.isfinite(together.sum())
