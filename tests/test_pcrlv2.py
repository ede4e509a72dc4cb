"""PCRLv2: views lie where their coordinates say, the losses are the published ones, features do not collapse."""

import math

import pytest
import torch
from torch.nn import functional as F

from ssl_utils import experiments
from ssl_utils.errors import CourseError
from ssl_utils.experiments import Finetuning, Pretraining, runs
from ssl_utils.networks import build
from ssl_utils.networks.vit import ViT
from ssl_utils.pretext import pcrlv2, probes
from ssl_utils.pretext.pcrlv2 import Agreement, PCRLv2Task, blur, degrade, iou, sample, swap_cells, turns, view_boxes

ROI = (16, 24, 16)
SIZES = {"hidden_size": 24, "mlp_dim": 24, "num_layers": 2, "num_heads": 2, "patch_size": 8}


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def whole(name: str = "unetr", **options) -> PCRLv2Task:
    config = {"network": name, "in_channels": 1, "out_channels": 1, "img_size": ROI, "feature_size": 4}
    network = build(config | (SIZES if name == "unetr" else {}))
    task = PCRLv2Task(encoder=network.encoder, lr=1e-3, steps=10, **options)
    task.reconstruct_with(network)
    return task


def smooth(number: int, channels: int = 1) -> torch.Tensor:
    return torch.randn(number, channels, *ROI).cumsum(2).cumsum(3) / 8


# views and their coordinates


def test_iou_by_hand():
    unit = torch.tensor([[0.0, 0, 0], [1, 1, 1]])
    assert iou(unit, unit) == 1 and iou(unit, unit + 2) == 0
    assert iou(unit, unit + torch.tensor([0.5, 0, 0])).item() == pytest.approx(0.5 / 1.5)


def test_large_views_overlap_and_small_ones_are_in_both():
    for seed in range(100):
        boxes = view_boxes(generator(seed))
        assert boxes.shape == (8, 2, 3) and boxes.min() >= 0 and boxes.max() <= 1
        assert iou(boxes[0], boxes[1]) > 0.3 and not torch.equal(boxes[0], boxes[1])
        for large in boxes[:2]:
            assert (boxes[2:, 0] >= large[0] - 1e-6).all() and (boxes[2:, 1] <= large[1] + 1e-6).all()
        assert (boxes[2:, 1] - boxes[2:, 0]).max() <= 0.5 + 1e-6


def test_a_view_shows_what_lies_at_its_coordinates():
    """A crop whose channels are the positions of its voxels: every view then says where it is."""
    shape = (12, 20, 8)
    axes = [(torch.arange(n) + 0.5) / n for n in shape]
    image = torch.stack(torch.meshgrid(*axes, indexing="ij"))  # (3, D, H, W), 0..1
    boxes = torch.tensor([[[0.25, 0.1, 0.2], [0.75, 0.9, 0.6]], [[0.3, 0.2, 0.3], [0.5, 0.7, 0.8]]])
    size = (6, 10, 4)
    views = sample(image, boxes, size)
    for view, (low, high) in zip(views, boxes, strict=True):
        places = [a + (b - a) * (torch.arange(n) + 0.5) / n for a, b, n in zip(low, high, size, strict=True)]
        torch.testing.assert_close(view, torch.stack(torch.meshgrid(*places, indexing="ij")), atol=1e-5, rtol=0)
    full = torch.tensor([[[0.0, 0, 0], [1, 1, 1]]])
    torch.testing.assert_close(sample(image, full, shape)[0], image, atol=1e-5, rtol=0)
    mirror = torch.diag(torch.tensor([-1.0, 1, 1]))[None]
    torch.testing.assert_close(sample(image, full, shape, mirror)[0], image.flip(1), atol=1e-5, rtol=0)


def test_turned_views_are_rotated_scaled_and_mirrored():
    matrices = turns(200, generator())
    assert (matrices.det() < 0).float().mean().item() == pytest.approx(0.5, abs=0.12)
    scale = matrices.det().abs() ** (1 / 3)
    assert scale.min() >= 0.9 and scale.max() <= 1.1
    rotations = matrices / scale[:, None, None]
    torch.testing.assert_close(rotations @ rotations.mT, torch.eye(3).expand(200, 3, 3), atol=1e-5, rtol=0)
    upright = rotations * torch.where(matrices.det() < 0, -1.0, 1.0)[:, None, None] ** torch.tensor([1.0, 0, 0])
    angle = ((upright.diagonal(dim1=1, dim2=2).sum(1) - 1) / 2).clamp(max=1).acos()
    assert angle.max() <= math.sqrt(3) * math.radians(10) + 1e-3 and angle.mean() > math.radians(5)


# corruption


def test_blur_is_gaussian_and_keeps_the_mean():
    spot = torch.zeros(2, 1, 15, 15, 15)
    spot[:, :, 7, 7, 7] = 1
    views = blur(spot, torch.tensor([0.0, 1.0]))
    torch.testing.assert_close(views[0], spot[0])
    torch.testing.assert_close(views[1].sum(), torch.tensor(1.0))
    line = views[1, 0, 7, 7]
    assert (line[8] / line[7]).item() == pytest.approx(math.exp(-0.5), rel=1e-3)


def test_intensities_of_ct_and_mri_are_changed_alike_and_stay_in_range():
    """B16 of RadioSSL: the rule of CT turned an MRI of 0 to several 1000 into values of .5 to 1, most of them 1."""
    ct = smooth(6, channels=2)
    mri = 4000 + 1000 * ct
    by_rule = ((mri + 1000) / 2000).clamp(0, 1)
    assert (by_rule == 1).float().mean() > 0.5
    views = degrade(mri, generator())
    torch.testing.assert_close((views - 4000) / 1000, degrade(ct, generator()), atol=1e-2, rtol=0)
    low, high = mri.amin((2, 3, 4)), mri.amax((2, 3, 4))
    assert (views.amin((2, 3, 4)) >= low - 1).all() and (views.amax((2, 3, 4)) <= high + 1).all()
    assert (views.std((2, 3, 4)) > 0.4 * mri.std((2, 3, 4))).all()
    assert degrade(torch.full((2, 1, 8, 8, 8), 3.0), generator()).isfinite().all()


def test_a_fifth_of_the_cells_change_their_place():
    images = torch.rand(3, 2, 64, 64, 32)
    views, moved = swap_cells(images, generator())
    assert torch.equal(views[~moved], images[~moved]) and (views[moved] != images[moved]).float().mean() > 0.99
    assert moved.float().mean().item() == pytest.approx(200 / 1024, abs=1e-3)
    assert torch.equal(views.flatten(2).sort(2).values, images.flatten(2).sort(2).values), "nothing is lost for good"
    cells = moved[:, 0].unflatten(1, (8, 8)).unflatten(3, (16, 4)).unflatten(5, (8, 4))
    assert (cells.float().mean((2, 4, 6)) % 1 == 0).all(), "whole cells of 8 x 4 x 4 voxels"
    assert not torch.equal(moved[0], moved[1])


# losses


def test_the_feature_loss_is_simsiams():
    module, features = Agreement(6, stop_gradient=True), torch.randn(5, 8, 6)
    between, within = module(features)
    projected = module.project(features.flatten(0, 1)).view(5, 8, 6)
    predicted = module.predict(projected)

    def simsiam(i: int, j: int) -> torch.Tensor:
        pairs = ((predicted[:, i], projected[:, j]), (predicted[:, j], projected[:, i]))
        return -sum(F.cosine_similarity(p, z.detach(), dim=1).mean() for p, z in pairs) / 2

    torch.testing.assert_close(between, simsiam(0, 1))
    torch.testing.assert_close(within, sum(simsiam(i, j) for i in range(2, 8) for j in (0, 1)) / 12)


def test_without_the_stop_gradient_another_gradient_flows():
    features = torch.randn(5, 8, 6, requires_grad=True)
    module = Agreement(6, stop_gradient=True)
    (stopped,) = torch.autograd.grad(sum(module(features)), features)
    module.stop_gradient = False
    (free,) = torch.autograd.grad(sum(module(features)), features)
    assert not torch.allclose(stopped, free)


def test_the_weight_of_the_middle_mask_falls_along_a_cosine(monkeypatch):
    task, weights = whole(), []
    for step in (0, 5, 10, 20):
        monkeypatch.setattr(PCRLv2Task, "global_step", step)
        weights.append(task.mask_weight())
    assert weights == pytest.approx([1, 0.5, 0, 0])


@pytest.mark.parametrize("name", ["unet", "unetr"])
def test_every_level_of_the_decoder_is_drawn_and_the_loss_is_the_sum_of_its_terms(name):
    task, images, drawn = whole(name), smooth(2), set()
    assert task.freezes and len(task.agreements) == len(task.middle) == 3
    for seed in range(6):
        task.zero_grad()
        losses = task.losses(images, generator(seed))
        terms = {key: value for key, value in losses.items() if key != "loss"}
        assert set(terms) == {"restored", "large", "small", "middle"}
        torch.testing.assert_close(losses["loss"], sum(terms.values()))
        losses["loss"].backward()
        used = [i for i, one in enumerate(task.agreements) if one.predict[0].weight.grad is not None]
        assert len(used) == 1 and task.middle[used[0]].weight.grad is not None
        assert all(weight.grad is not None for part in (task.encoder, task.decoder) for weight in part.parameters())
        drawn |= {*used}
    assert drawn == {0, 1, 2}


@pytest.mark.parametrize("name", ["unet", "unetr"])
def test_the_second_large_view_is_not_restored_and_the_target_is_the_first(name, monkeypatch):
    task, images = whole(name), smooth(2)
    monkeypatch.setattr(pcrlv2, "swap_cells", lambda views, _: (views, views > 0))
    task.intensity = False
    restored = []
    known = task.decoder.out.forward
    monkeypatch.setattr(task.decoder.out, "forward", lambda x: restored.append(known(x)) or restored[-1])
    losses = task.losses(images, generator())
    assert [len(one) for one in restored] == [2]
    own = task.generators(len(images), (state := generator(), torch.randint(3, (), generator=state))[0])
    clean = torch.stack([task.views(*pair)[0] for pair in zip(images, own, strict=True)])
    torch.testing.assert_close(losses["restored"], F.mse_loss(restored[0], clean))


def test_validation_is_on_swapped_cells_of_the_crop_itself():
    task, images = whole().eval(), smooth(2)
    seen = task.reconstruct(images, generator())
    expected = (seen["reconstruction"] - images)[seen["hidden"]].abs().mean()
    torch.testing.assert_close(task.losses(images, generator())["reconstruction"], expected)
    plain = whole(intensity=False).eval().reconstruct(images, generator())
    assert torch.equal(plain["corrupted"][~plain["hidden"]], images[~plain["hidden"]])


def test_small_views_go_through_a_vit_with_interpolated_positions():
    task = whole()
    assert task.small == (8, 16, 8)
    tokens, hidden = task.encode(torch.zeros(1, 1, 8, 16, 8))
    assert tokens.shape == (1, 2, 24) and len(hidden) == 2
    full = torch.randn(1, 1, *ROI)
    assert torch.equal(task.encode(full)[0], task.encoder(full)[0])
    assert task.levels(torch.zeros(1, 1, 8, 16, 8))[-1].shape == (1, 4, 8, 16, 8)


def test_the_encoder_alone_can_be_pretrained():
    task = PCRLv2Task(encoder=ViT(in_channels=1, img_size=ROI, **SIZES), lr=1e-3, steps=10)
    losses = task.losses(smooth(2), generator())
    losses["loss"].backward()
    assert "middle" not in losses and all(weight.grad is not None for weight in task.parameters())


@pytest.mark.long
@pytest.mark.parametrize("name", ["genesis", "pcrlv2"])
def test_a_whole_network_is_pretrained_validated_up_to_its_last_step_and_moved(name, tiny_setup, tmp_path, monkeypatch):
    """In RadioSSL there was no validation loss, and a run of 150 epochs kept the weights of epoch 100 (its B17)."""
    monkeypatch.setenv("SSL_RUNS_ROOT", str(tmp_path))
    folder = experiments.pretrain(tiny_setup, Pretraining.of(name, steps=3))
    done = runs.metrics(folder)
    assert done["last"]["step"] == 3 and math.isfinite(done["last"]["validation_loss"])
    assert done["baselines"].keys() == {"mean", "interpolation", "input"}
    network, report = experiments.build_network(tiny_setup, Finetuning(init=folder.name))
    assert report.share == 1
    trained = experiments.load_task(tiny_setup, Pretraining.of(name, steps=3)).whole_network()
    moved = {key: value for key, value in network.state_dict().items() if not key.startswith("out")}
    assert all(torch.equal(value, trained[key]) for key, value in moved.items())


# collapse


def agreed(stop_gradient: bool, steps: int = 150) -> dict[str, float]:
    """What is left of features that are trained to agree and for nothing else."""
    torch.manual_seed(0)
    encoder = torch.nn.Sequential(torch.nn.Linear(20, 64), torch.nn.ReLU(), torch.nn.Linear(64, 16))
    module = Agreement(16, stop_gradient=stop_gradient)
    optimizer = torch.optim.SGD([*encoder.parameters(), *module.parameters()], lr=0.1, momentum=0.9)
    crops = torch.randn(32, 1, 20)
    for _ in range(steps):
        loss = sum(module(encoder(crops + 0.3 * torch.randn(32, 8, 20))))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        projected = module.project(encoder(crops[:, 0]))
    return {"loss": loss.item(), "rankme": probes.rankme(projected), "std": probes.feature_std(projected)}


def test_leaving_out_the_stop_gradient_makes_features_collapse():
    kept, left_out = agreed(True), agreed(False)
    assert left_out["rankme"] < 0.6 * kept["rankme"]


def test_windows_are_refused_in_one_line(tiny_setup):
    with pytest.raises(CourseError, match="window_vit takes windows of one size, and views have two; choose unetr"):
        experiments.build_task(tiny_setup, Pretraining.of("pcrlv2", network="window_vit"))
