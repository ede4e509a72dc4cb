"""MAE: the encoder sees visible tokens alone, drawings land where they belong, only hidden voxels count."""

import pytest
import torch
from torch.nn import functional as F

from ssl_utils import experiments
from ssl_utils.errors import CourseError
from ssl_utils.experiments import Pretraining
from ssl_utils.networks.checkpoints import read_checkpoint
from ssl_utils.networks.transfer import load_encoder
from ssl_utils.networks.unetr import UNETR
from ssl_utils.networks.vit import ViT
from ssl_utils.pretext.mae import MAETask, gather, put_back, visible_indices

ROI = (16, 32, 16)  # 2 x 4 x 2 tokens of 8^3 voxels
NUMBERS = {"patch_size": 8, "hidden_size": 24, "mlp_dim": 24, "num_layers": 2, "num_heads": 2}


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def mae(roi=ROI, channels: int = 1, **options) -> MAETask:
    return MAETask(encoder=ViT(in_channels=channels, img_size=roi, **NUMBERS), lr=1e-3, steps=10, **options)


def drawn(task: MAETask, images, seed: int = 0):
    """Mask (B, N), hidden voxels (B, C, D, H, W) and prediction of the same shape."""
    mask = task.mask(images, generator(seed))
    with torch.no_grad():
        return mask, task.voxel_mask(mask, images.shape[1]), task(images, mask)


# tokens


def test_put_back_is_the_inverse_of_gather():
    mask = torch.tensor([[True, False, True, False], [False, False, True, True]])
    indices = visible_indices(mask)
    assert indices.tolist() == [[1, 3], [0, 1]], "visible tokens, in token order"
    tokens, fill = torch.randn(2, 4, 5), torch.full((2, 4, 5), 9.0)
    back = put_back(gather(tokens, indices), indices, fill)
    assert torch.equal(back[~mask], tokens[~mask]) and (back[mask] == 9).all()


def test_masks_that_keep_different_numbers_are_refused():
    with pytest.raises(CourseError, match="keeps 1 to 2 tokens") as caught:
        visible_indices(torch.tensor([[True, False, False], [True, True, False]]))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "hidden"), [({}, 12), ({"mask_ratio": 0.6}, 10), ({"mask_unit": 2}, 8), ({"mask_ratio": 0.5}, 8)]
)
def test_every_crop_hides_exactly_the_asked_share(options, hidden):
    mask = mae(**options).mask(torch.zeros(5, 1, *ROI), generator())  # 16 tokens; 2 units of 2^3
    assert mask.sum(1).tolist() == [hidden] * 5


@pytest.mark.parametrize(("ratio", "visible"), [(0.75, 4), (0.5, 8)])
def test_only_visible_tokens_enter_the_encoder(ratio, visible):
    task, entered = mae(mask_ratio=ratio), []
    task.encoder.blocks[0].register_forward_pre_hook(lambda _, inputs: entered.append(inputs[0].detach()))
    images = torch.randn(3, 1, *ROI)
    mask, _, _ = drawn(task, images)
    assert [tokens.shape for tokens in entered] == [(3, visible, 24)]
    expected = (task.encoder.embed(images) + task.encoder.positions)[~mask].view(3, visible, 24)
    torch.testing.assert_close(entered[0], expected.detach())


def test_hidden_voxels_do_not_influence_the_drawing_and_visible_ones_do():
    task, images = mae().eval(), torch.randn(2, 1, *ROI)
    mask, hidden, prediction = drawn(task, images)
    with torch.no_grad():
        spoiled = task(torch.where(hidden, 1e3, images), mask)
        moved = task(torch.where(hidden, images, images + 1), mask)
    assert torch.equal(prediction, spoiled)
    assert (prediction - moved)[hidden].abs().min() > 0


def test_hidden_indices_are_told_apart():
    """The decoder's mask token is one vector: without positions every hidden patch would be the same."""
    task, images = mae().eval(), torch.randn(1, 1, *ROI)
    mask, _, prediction = drawn(task, images)
    task.head.positions.zero_()
    _, _, without = drawn(task, images)
    spread = [task.patch_statistics(p)[0][:, :, ::8, ::8, ::8].flatten(1)[mask].std() for p in (prediction, without)]
    assert spread[0] > 1e-3 and spread[1] < 1e-5


# loss


def test_only_hidden_voxels_are_charged():
    task, images = mae(), torch.randn(2, 1, *ROI)
    _, hidden, prediction = drawn(task, images)
    loss = task.losses(images, generator())["loss"]
    assert loss.item() == pytest.approx(F.l1_loss(prediction[hidden], images[hidden]).item(), rel=1e-5)
    assert torch.equal(task.score(torch.where(hidden, prediction, 1e3), images, hidden), loss.detach())


def test_gradient_reaches_every_parameter():
    task = mae()
    task.losses(torch.randn(2, 1, *ROI), generator())["loss"].backward()
    without = [name for name, p in task.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert not without


def test_normalised_targets_are_undone_in_pictures():
    task, images = mae(normalise_target=True).eval(), 100 + 5 * torch.randn(1, 1, *ROI)
    seen, hidden = task.reconstruct(images, generator()), drawn(task, images)[1]
    mean, deviation = task.patch_statistics(images)
    raw = drawn(task, images)[2]
    torch.testing.assert_close(seen["reconstruction"], torch.where(hidden, raw * deviation + mean, images))
    assert abs(seen["reconstruction"][hidden].mean() - 100) < 5 and raw.abs().mean() < 20
    assert all(0.3 < v < 2 for v in task.baselines([{"image": images, "seed": torch.tensor([0])}]).values())


def test_one_crop_is_soon_drawn_better_than_by_its_mean():
    task, images = mae(roi=(32, 32, 32)), torch.randn(1, 1, 32, 32, 32).cumsum(2).cumsum(3) / 8
    mask = task.mask(images, generator())
    hidden = task.voxel_mask(mask, 1)
    mean = task.score(torch.full_like(images, float(images[~hidden].mean())), images, hidden).item()
    optimizer = torch.optim.AdamW(task.parameters(), lr=3e-3)
    for _ in range(150):
        loss = task.score(task(images, mask), images, hidden)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.5 * mean


# runs


@pytest.mark.long
def test_a_run_is_reproducible_and_its_encoder_moves_whole_into_unetr(tiny_setup, tmp_path, monkeypatch):
    weights = []
    for name, seed in (("one", 0), ("again", 0), ("other", 1)):
        monkeypatch.setenv("SSL_RUNS_ROOT", str(tmp_path / name))
        folder = experiments.pretrain(tiny_setup, Pretraining.of("mae", seed=seed))
        weights.append(read_checkpoint(folder / "encoder.safetensors"))
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])
    assert any(not torch.equal(weights[0][key], weights[2][key]) for key in weights[0])
    network = UNETR(out_channels=3, feature_size=4, **tiny_setup.encoder_config())
    report = load_encoder(network.vit, folder / "encoder.safetensors")
    assert report.share == 1.0 and not report.missing
    assert torch.equal(network.vit.positions, weights[2]["patch_embedding.position_embeddings"])


@pytest.mark.parametrize("options", [{"mask_ratio": 1.0}, {"mask_unit": 0}, {"mask_unit": 3}, {"mask_unit": 4}])
def test_bad_options(options):
    with pytest.raises(CourseError, match=next(iter(options))) as caught:
        mae(**options)
    assert "\n" not in str(caught.value)


def test_a_whole_unetr_cannot_be_pretrained_by_it():
    network = UNETR(in_channels=1, out_channels=1, img_size=ROI, feature_size=4, **NUMBERS)
    with pytest.raises(CourseError, match="scope='network': is not possible with MAE") as caught:
        mae().reconstruct_with(network)
    assert "\n" not in str(caught.value)
