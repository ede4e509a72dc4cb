"""Pretext tasks: masks, views, losses and baselines do what their chapters say they do."""

import math

import pytest
import torch
from monai.losses import ContrastiveLoss
from torch.nn import functional as F

from ssl_utils.errors import CourseError
from ssl_utils.networks.heads import unpatchify
from ssl_utils.networks.vit import ViT
from ssl_utils.pretext import TASKS, task_class
from ssl_utils.pretext.base import PretextTask, interpolate
from ssl_utils.pretext.restoration import RestorationTask, corrupt, local_shuffle, nt_xent, random_boxes
from ssl_utils.pretext.simmim import SimMIMTask, block_mask

ROI = (16, 24, 16)  # 2 x 3 x 2 tokens of 8^3 voxels
UNCHANGED = {"genesis": {"flips": False, "intensity": False}, "pcrlv2": {"intensity": False}}  # but for lost voxels
RECONSTRUCTING = [name for name in TASKS if task_class(name).reconstruct is not PretextTask.reconstruct]


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def encoder(img_size=ROI, in_channels: int = 1) -> ViT:
    numbers = {"patch_size": 8, "hidden_size": 24, "mlp_dim": 24, "num_layers": 2, "num_heads": 2}
    return ViT(in_channels=in_channels, img_size=img_size, **numbers)


def simmim(**options) -> SimMIMTask:
    return SimMIMTask(encoder=encoder(), lr=1e-3, steps=10, **options)


def restoration(**options) -> RestorationTask:
    return RestorationTask(encoder=encoder(), lr=1e-3, steps=10, **options)


def batches(number: int = 3) -> list[dict]:
    return [{"image": torch.randn(1, 1, *ROI), "seed": torch.tensor([7 + i])} for i in range(number)]


# masks


@pytest.mark.parametrize(("mask_ratio", "unit"), [(0.1, 1), (0.5, 1), (0.6, 2), (0.75, 2), (0.25, 4)])
def test_exact_share_of_units_is_hidden(mask_ratio, unit):
    mask = block_mask(5, (4, 8, 4), mask_ratio=mask_ratio, unit=unit, generator=generator())
    units = 128 // unit**3
    assert mask.dtype == torch.bool and mask.shape == (5, 128)
    assert (mask.sum(1) == max(round(units * mask_ratio), 1) * unit**3).all()


def test_mask_is_made_of_whole_units():
    mask = block_mask(4, (4, 6, 4), mask_ratio=0.5, unit=2, generator=generator()).view(4, 2, 2, 3, 2, 2, 2)
    cubes = mask.permute(0, 1, 3, 5, 2, 4, 6).flatten(4)
    assert (cubes.all(-1) | ~cubes.any(-1)).all()


def test_units_that_do_not_divide_the_grid_are_cut():
    mask = block_mask(1, (6, 5, 4), mask_ratio=0.5, unit=2, generator=generator()).view(6, 5, 4)
    assert mask.shape == (6, 5, 4) and 0 < mask.sum() < mask.numel()
    assert torch.equal(mask[0::2], mask[1::2]) and torch.equal(mask[:, 0:4:2], mask[:, 1:4:2])


def test_masks_are_reproducible_and_differ():
    one, again = (block_mask(8, (4, 6, 4), mask_ratio=0.6, unit=1, generator=generator(3)) for _ in range(2))
    other = block_mask(8, (4, 6, 4), mask_ratio=0.6, unit=1, generator=generator(4))
    assert torch.equal(one, again) and not torch.equal(one, other)
    assert len({tuple(row) for row in one.tolist()}) == 8


@pytest.mark.parametrize("mask_ratio", [1e-6, 1 - 1e-6])
def test_something_is_hidden_and_something_is_visible(mask_ratio):
    mask = block_mask(2, (2, 3, 2), mask_ratio=mask_ratio, unit=1, generator=generator())
    assert mask.any(1).all() and (~mask).any(1).all()


# SimMIM


def test_hidden_tokens_at_different_places_give_different_outputs():
    """The mask token goes in before the positions; put in after them, all hidden tokens come out identical."""
    task, mask = simmim().eval(), torch.tensor([[False, True] * 6])
    images, vit = torch.randn(1, 1, *ROI), task.encoder
    with torch.no_grad():
        tokens = vit.embed(images)
        right = torch.where(mask[..., None], task.mask_token, tokens) + vit.positions
        wrong = torch.where(mask[..., None], task.mask_token, tokens + vit.positions)
        outputs = {name: vit.encode(order)[0][mask] for name, order in (("right", right), ("wrong", wrong))}
        predicted = task(images, mask)
    assert outputs["wrong"].std(0).max() < 1e-5
    assert outputs["right"].std(0).mean() > 0.01
    torch.testing.assert_close(predicted, task.head(vit.encode(right)[0], vit.grid))


def test_gradient_reaches_the_mask_token():
    task = simmim()
    task.losses(torch.randn(2, 1, *ROI), generator())["loss"].backward()
    assert task.mask_token.grad.abs().sum() > 0
    assert task.encoder.positions.grad.abs().sum() > 0


def test_visible_voxels_are_not_charged():
    task, images = simmim(), torch.randn(2, 1, *ROI)
    hidden = task.voxel_mask(task.mask(images, generator()), 1)
    prediction = torch.randn_like(images)
    loss = task.score(prediction, images, hidden)
    assert torch.equal(loss, task.score(torch.where(hidden, prediction, 1e3), images, hidden))
    assert torch.equal(loss, task.score(prediction, torch.where(hidden, images, 1e3), hidden))
    torch.testing.assert_close(loss, (prediction - images).abs()[hidden].mean())


def test_hidden_voxels_are_not_seen():
    task, images = simmim().eval(), torch.randn(1, 1, *ROI)
    mask = task.mask(images, generator())
    hidden = task.voxel_mask(mask, 1)
    with torch.no_grad():
        torch.testing.assert_close(task(images, mask), task(torch.where(hidden, 1e3, images), mask))


def test_voxel_mask_covers_the_hidden_patches():
    task = simmim()
    mask = torch.zeros(1, 12, dtype=torch.bool)
    mask[0, 1 * 6 + 2 * 2 + 1] = True  # token (1, 2, 1) of a 2 x 3 x 2 grid
    voxels = task.voxel_mask(mask, 2)
    assert voxels.shape == (1, 2, *ROI) and voxels.sum() == 2 * 8**3 and voxels[:, :, 8:, 16:, 8:].all()


def test_normalised_target_has_mean_0_and_deviation_1_in_every_patch():
    task, images = simmim(normalise_target=True), 5 * torch.randn(2, 1, *ROI) + 3
    patches = task.target(images).unfold(2, 8, 8).unfold(3, 8, 8).unfold(4, 8, 8).flatten(5)
    torch.testing.assert_close(patches.mean(-1), torch.zeros(2, 1, 2, 3, 2), atol=1e-4, rtol=0)
    torch.testing.assert_close(patches.std(-1), torch.ones(2, 1, 2, 3, 2), atol=1e-3, rtol=0)
    assert task.target(torch.ones(1, 1, *ROI)).abs().max() < 1e-3  # a constant patch, such as air, is no accident
    assert torch.equal(simmim().target(images), images)


def test_normalised_target_is_shown_and_compared_in_its_own_units():
    task, images = simmim(normalise_target=True).eval(), 100 + 5 * torch.randn(1, 1, *ROI)
    assert abs(task.reconstruct(images, generator())["reconstruction"].mean() - 100) < 5
    baselines = task.baselines([{"image": images, "seed": torch.tensor([0])}])
    assert all(0.3 < value < 2 for value in baselines.values())  # the mean of |N(0, 1)| is .8


def test_foreground_weight_charges_bright_voxels_more():
    images = torch.where(torch.arange(16).view(1, 1, 1, 1, 16) < 8, 1.0, -1.0).expand(1, 1, *ROI)
    hidden = torch.ones_like(images, dtype=torch.bool)
    prediction = torch.where(images > 0, images + 3, images + 1)  # errors 3 and 1
    assert simmim().score(prediction, images, hidden).item() == pytest.approx(2)
    assert simmim(foreground_weight=3.0).score(prediction, images, hidden).item() == pytest.approx((3 * 3 + 1) / 4)


# restoration


def test_boxes_lie_inside_and_have_the_asked_sides():
    for seed in range(20):
        inside = random_boxes((20, 30, 10), number=1, smallest=0.2, largest=0.5, generator=generator(seed))
        spans = [inside.any(dim=tuple(a for a in range(3) if a != axis)).sum().item() for axis in range(3)]
        assert inside.sum() == math.prod(spans)
        assert all(math.floor(0.2 * n) <= span <= 0.5 * n for span, n in zip(spans, (20, 30, 10), strict=True))


@pytest.mark.parametrize("fill", ["noise", "mean"])
def test_views_are_clean_outside_hidden_and_two_of_them_differ(fill):
    task, images = restoration(fill=fill), torch.randn(3, 1, *ROI)
    state = generator()
    first, hidden = task.views(images, state)
    second, other = task.views(images, state)
    assert torch.equal(first[~hidden], images[~hidden]) and (first[hidden] != images[hidden]).all()
    assert all(0 < share < 1 for share in hidden.float().mean((1, 2, 3, 4)))
    assert all(not torch.equal(a, b) for a, b in zip(hidden, other, strict=True)) and not torch.equal(first, second)
    assert first.min() >= images.min() and first.max() <= images.max()


def test_in_painting_and_out_painting_both_happen():
    image = torch.randn(1, 24, 24, 24)
    shares = [corrupt(image, generator(seed))[1].float().mean().item() for seed in range(40)]
    assert min(shares) < 0.3 and max(shares) > 0.6
    inner = [share for seed, share in enumerate(shares) if torch.rand(2, generator=generator(seed))[0] < 0.5]
    assert max(inner) < (6 * 7**3 + 10 * 2**3) / 24**3, "six boxes of at most a third of a side, ten cubes to shuffle"


@pytest.mark.parametrize("channels", [1, 2])
def test_local_shuffle_keeps_the_histogram(channels):
    image = torch.randn(channels, *ROI)
    shuffled = local_shuffle(image, number=5, side=4, generator=generator())
    assert torch.equal(shuffled.flatten(1).sort(1).values, image.flatten(1).sort(1).values)
    changed = (shuffled != image).any(0)
    assert changed.sum() + 5 >= 64 and changed.sum() <= 5 * 64  # some voxel of a cube may stay where it was
    assert not torch.equal(image, shuffled)


def test_nt_xent_is_monais():
    first, second = torch.randn(6, 10), torch.randn(6, 10)
    ours, monais = nt_xent(first, second, temperature=0.1), ContrastiveLoss(temperature=0.1)(first, second)
    torch.testing.assert_close(ours, monais)


def test_nt_xent_by_hand():
    first, second = torch.tensor([[1.0, 0], [0, 1]]), torch.tensor([[2.0, 0], [0, 5]])  # partners 1, all others 0
    assert nt_xent(first, second, temperature=1.0).item() == pytest.approx(math.log(math.e + 2) - 1)


def test_published_contrast_is_on_reconstructions_and_scaled_by_l1():
    task, images = restoration(contrast="published").eval(), torch.randn(3, 1, *ROI)
    losses, state = task.losses(images, generator()), generator()
    one, two = (task(task.views(images, state)[0])[0] for _ in range(2))
    l1 = F.l1_loss(one, images)
    expected = l1 + ContrastiveLoss(temperature=0.05)(one.flatten(1), two.flatten(1)) * l1
    torch.testing.assert_close(losses["loss"], expected)
    torch.testing.assert_close(losses["reconstruction"], l1)


def test_runs_with_and_without_contrast_are_compared_by_the_same_view():
    images = torch.randn(2, 1, *ROI)
    weights = restoration(contrast="none").state_dict()
    values = []
    for contrast in ("none", "latent", "published"):
        task = restoration(contrast=contrast)
        task.load_state_dict(weights, strict=False)
        values.append(task.losses(images, generator())["reconstruction"])
    assert values[0].item() == pytest.approx(values[1].item()) == pytest.approx(values[2].item())


def test_latent_contrast_is_weighted_and_added_to_the_mean_of_both_views():
    task, images = restoration(contrast="latent", contrast_weight=0.25).eval(), torch.randn(3, 1, *ROI)
    losses, state = task.losses(images, generator()), generator()
    (one, first), (two, second) = (task(task.views(images, state)[0]) for _ in range(2))
    agreement = ContrastiveLoss(temperature=0.1)(*(task.projector(tokens.mean(1)) for tokens in (first, second)))
    torch.testing.assert_close(losses["contrast"], agreement)
    torch.testing.assert_close(losses["loss"], (F.l1_loss(one, images) + F.l1_loss(two, images)) / 2 + 0.25 * agreement)


def test_latent_contrast_trains_the_encoder():
    task = restoration(contrast="latent")
    losses = task.losses(torch.randn(4, 1, *ROI), generator())
    losses["contrast"].backward()
    assert task.encoder.patch_embedding.patch_embeddings.weight.grad.abs().sum() > 0


# what tasks share


@pytest.mark.parametrize("name", TASKS)
def test_validation_is_the_same_in_every_epoch_and_training_is_not(name):
    task = task_class(name)(encoder=encoder(), lr=1e-3, steps=10).eval()
    seen, logged, batch = [], [], batches(1)[0]
    task.prepare([{"image": batch["image"][0]}])
    task.log = lambda key, value, **_: logged.append(value.item())
    for _ in range(2):
        task.validation_step(batch, 0)
        torch.rand(3)  # the global random state has no say
        seen.append(task.reconstruct(batch["image"], task.generator(int(batch["seed"][0]))).get("corrupted"))
    assert logged[0] == logged[1]
    if name not in RECONSTRUCTING:
        losses = [task.losses(batch["image"], task.generator(seed))["loss"] for seed in (0, 1)]
        assert seen == [None] * 2 and not torch.equal(*losses)
        return
    assert torch.equal(*seen)
    steps = [task.reconstruct(batch["image"], task.generator(0, step))["hidden"] for step in (0, 1)]
    seeds = [task.reconstruct(batch["image"], task.generator(seed, 0))["hidden"] for seed in (0, 1)]
    assert not torch.equal(*steps) and not torch.equal(*seeds)


@pytest.mark.parametrize("name", TASKS)
@pytest.mark.parametrize("channels", [1, 2])
def test_a_task_learns_one_crop_by_heart(name, channels):
    options = UNCHANGED.get(name, {})
    task = task_class(name)(encoder=encoder(in_channels=channels), lr=3e-3, steps=60, **options)
    images, optimizer = torch.randn(2, channels, *ROI).cumsum(2) / 4, torch.optim.AdamW(task.parameters(), lr=3e-3)
    task.prepare({"image": image} for image in images)
    values = []
    for step in range(60):
        losses = task.losses(images, task.generator(0, step))
        optimizer.zero_grad()
        losses["loss"].backward()
        optimizer.step()
        values.append(losses["loss"].item())
    assert sum(values[-5:]) < 0.8 * sum(values[:5])


@pytest.mark.parametrize("name", RECONSTRUCTING)
def test_reconstruct_says_what_was_hidden(name):
    task = task_class(name)(encoder=encoder(), lr=1e-3, steps=10, **UNCHANGED.get(name, {})).eval()
    images = torch.randn(2, 1, *ROI)
    seen = task.reconstruct(images, generator())
    assert {key: value.shape for key, value in seen.items()} == dict.fromkeys(seen, images.shape)
    assert seen["hidden"].dtype == torch.bool
    assert torch.equal(seen["corrupted"][~seen["hidden"]], images[~seen["hidden"]])


@pytest.mark.parametrize("name", RECONSTRUCTING)
def test_baselines_of_a_smooth_volume(name):
    """Where neighbours tell the value, interpolation beats the mean, and the mean beats the corrupted input."""
    ramp = torch.linspace(-2, 2, 24).view(1, 1, 1, 24, 1).expand(1, 1, 24, 24, 24)
    task = task_class(name)(encoder=encoder((24, 24, 24)), lr=1e-3, steps=10)
    found = task.baselines([{"image": ramp, "seed": torch.tensor([seed])} for seed in range(8)])
    assert set(found) == {"mean", "interpolation", "input"}
    assert 0 < found["interpolation"] < found["mean"] < found["input"]


def test_infill_of_a_ramp_is_near_exact():
    ramp = torch.linspace(0, 1, 32).view(1, 1, 32, 1, 1).expand(1, 1, 32, 48, 32)
    hidden = torch.zeros_like(ramp, dtype=torch.bool)
    hidden[:, :, 12:20, 20:28, 12:20] = True
    assert (interpolate(ramp, hidden) - ramp).abs().max() < 1e-3
    mask = block_mask(1, (4, 6, 4), mask_ratio=0.6, unit=1, generator=generator())
    hidden = unpatchify(mask[..., None].expand(-1, -1, 512), (4, 6, 4), 8)
    filled = interpolate(ramp, hidden)
    assert torch.equal(filled[~hidden], ramp[~hidden])
    assert (filled - ramp).abs()[hidden].mean() < 0.3 * (ramp.mean() - ramp).abs()[hidden].mean()


def test_infill_changes_nothing_when_nothing_is_hidden_and_copes_with_little():
    image = torch.randn(2, 1, 5, 7, 3)
    assert torch.equal(interpolate(image, torch.zeros_like(image, dtype=torch.bool)), image)
    hidden = torch.ones_like(image, dtype=torch.bool)
    hidden[:, :, 0, 0, 0] = False
    torch.testing.assert_close(interpolate(torch.full_like(image, 3), hidden), torch.full_like(image, 3))
    assert interpolate(image, torch.ones_like(hidden)).isfinite().all()


@pytest.mark.parametrize(
    "options",
    [
        {"mask_ratio": 0.0},
        {"mask_ratio": 1.0},
        {"mask_ratio": -0.5},
        {"mask_ratio": float("nan")},
        {"mask_unit": 0},
        {"mask_unit": 3},
    ],
)
def test_bad_simmim_options(options):
    with pytest.raises(CourseError, match=next(iter(options))) as caught:
        simmim(**options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("options", [{"contrast": "strong"}, {"fill": "zero"}])
def test_bad_restoration_options(options):
    with pytest.raises(CourseError, match="choose one of"):
        restoration(**options)


def test_unknown_task():
    with pytest.raises(CourseError, match="choose one of restoration, simmim"):
        task_class("simnim")
