"""MedNeXt: published sizes and weights, UpKern, deep supervision, gradient checkpointing, gradients of its kernels."""

import pytest
import torch
from torch.nn import functional as F

from ssl_utils import experiments
from ssl_utils.errors import CourseError
from ssl_utils.experiments import Finetuning, Pretraining
from ssl_utils.networks import checkpoints, network_class
from ssl_utils.networks.depthwise import Depthwise
from ssl_utils.networks.mednext import VARIANTS, MedNeXt
from ssl_utils.networks.transfer import load_encoder, load_network
from ssl_utils.networks.upkern import upkern
from ssl_utils.segmentation.finetune import level_weights

WIDTH = 4
PUBLISHED = {"S": 5.55, "B": 10.53, "M": 17.55, "L": 61.78}  # million parameters, with deep supervision


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def small(variant: str = "S", **changes) -> MedNeXt:
    sizes = {"in_channels": 2, "out_channels": 3, "img_size": 16, "feature_size": WIDTH, "levels": 3}
    return MedNeXt(variant=variant, **sizes | changes)


@pytest.mark.parametrize("variant", VARIANTS)
def test_sizes_are_the_published_ones(variant):
    with torch.device("meta"):
        network = network_class(VARIANTS[variant].network)(in_channels=4, out_channels=3, deep_supervision=True)
    assert network.config["network"] == VARIANTS[variant].network
    assert sum(p.numel() for p in network.parameters()) / 1e6 == pytest.approx(PUBLISHED[variant], abs=0.005)


# gradients


@pytest.mark.parametrize("kernel", [3, 5])
def test_gradients_of_kernels_are_those_of_pytorch(kernel):
    plain = torch.nn.Conv3d(4, 4, kernel, padding=kernel // 2, groups=4).double()
    images, gradient = torch.randn(2, 4, 6, 7, 8).double().requires_grad_(), torch.randn(2, 4, 6, 7, 8).double()
    inputs, fast = (images, plain.weight, plain.bias), Depthwise(plain)
    assert torch.equal(fast(images), plain(images)) and list(fast.state_dict()) == list(plain.state_dict())
    expected, found = (torch.autograd.grad(f(images), inputs, gradient) for f in (plain, fast))
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("frozen", [False, True])
def test_checkpointing_gives_the_same_gradients_and_keeps_less(frozen):
    images, kept = torch.randn(1, 2, 16, 16, 16), {}

    def gradients(network) -> list:
        total = 0

        def pack(tensor):
            nonlocal total
            total += tensor.numel()
            return tensor

        network.down[0].requires_grad_(not frozen)
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            loss = network(images).square().mean()
        kept[network.config["checkpointing"]] = total
        loss.backward()
        return [p.grad for p in network.parameters()]

    plain, less = small(), small(checkpointing=True)
    less.load_state_dict(plain.state_dict())
    for one, other in zip(gradients(plain), gradients(less), strict=True):
        assert (one is None and other is None) or torch.equal(one, other)
    assert kept[True] < 0.5 * kept[False]


def test_weights_of_levels_sum_to_one_and_halve():
    assert level_weights(1) == [1] and level_weights(3) == pytest.approx([4 / 7, 2 / 7, 1 / 7])
    assert sum(level_weights(5)) == pytest.approx(1)


# UpKern


def test_upkern_interpolates_kernels_and_copies_the_rest():
    ramp = torch.arange(3.0).view(1, 1, 3, 1, 1).expand(2, 1, 3, 3, 3)
    grown = upkern(ramp, torch.empty(2, 1, 5, 5, 5))
    torch.testing.assert_close(grown[1, 0, :, 2, 2], torch.tensor([0, 0.4, 1, 1.6, 2]))  # centres of 5 cells on 3
    for same in (torch.randn(4, 2, 1, 1, 1), torch.randn(4), torch.randn(2, 1, 3, 3, 3)):
        assert upkern(same, torch.empty_like(same)) is same


def test_a_network_of_large_kernels_starts_from_one_of_small_kernels(tmp_path):
    source, target = small(), small(kernel_size=5)
    checkpoints.save_model(tmp_path / "network.safetensors", source, metadata={})
    report = load_network(target, tmp_path / "network.safetensors")
    kernels = {key for key, value in source.state_dict().items() if value.shape[-1:] == (3,) and value.ndim == 5}
    named = {f"down.{key}" if not key.startswith("up.") else key for key in report.resized}
    assert named == kernels and report.share == 1 and not report.missing
    before, after = source.state_dict(), target.state_dict()
    for key in before:
        if not key.startswith("out"):
            torch.testing.assert_close(after[key], upkern(before[key], after[key]), atol=0, rtol=0)
    assert "(4, 1, 3, 3, 3) -> (4, 1, 5, 5, 5)" in report.table()
    with pytest.raises(
        CourseError, match=r"has kernels of 5 voxels, which UpKern cannot shrink to 3; choose kernel_si"
    ) as e:
        load_encoder(small().encoder, target.encoder.state_dict())
    assert "\n" not in str(e.value)


def test_kernels_and_checkpointing_are_options_of_a_run(tiny_setup, tmp_path, monkeypatch):
    monkeypatch.setenv("SSL_RUNS_ROOT", str(tmp_path))
    pretrained = Pretraining.of("simmim", network="mednext", scope="network", steps=1)
    init = experiments.pretrain(tiny_setup, pretrained).name
    run = Finetuning(init=init, kernel_size=5, checkpointing=True)
    assert run.name == f"{init}__checkpointing=True__kernel_size=5"
    network, report = experiments.build_network(tiny_setup, run)
    assert (network.config["kernel_size"], network.config["checkpointing"]) == (5, True) and report.resized
    with pytest.raises(CourseError, match="kernel_size=5: unet does not support it; choose network=mednext"):
        experiments.build_network(tiny_setup, Finetuning(network="unet", kernel_size=5))
    with pytest.raises(CourseError, match="kernel_size=4: must be odd"):
        experiments.build_network(tiny_setup, Finetuning(network="mednext", kernel_size=4))


# weights of the original


def original(variant: str, *, kernel: int = 3, monai: bool = False) -> dict[str, torch.Tensor]:
    """A state dict in the naming of the original; with the blocks that halve the map as in MONAI's, if asked."""
    _, expansion, blocks = VARIANTS[variant]
    width, weights = [WIDTH * 2**i for i in range(5)], {}

    def convolution(name: str, *shape: int) -> None:
        weights[f"{name}.weight"] = torch.randn(*shape) / max(torch.tensor(shape[1:]).prod(), 1) ** 0.5
        weights[f"{name}.bias"] = 0.1 * torch.randn(shape[0])

    def block(name: str, inputs: int, outputs: int, ratio: int) -> None:
        convolution(f"{name}.conv1", inputs, 1, kernel, kernel, kernel)
        weights.update({f"{name}.norm.weight": 1 + 0.1 * torch.randn(inputs), f"{name}.norm.bias": torch.zeros(inputs)})
        convolution(f"{name}.conv2", ratio * inputs, inputs, 1, 1, 1)
        convolution(f"{name}.conv3", outputs, ratio * inputs, 1, 1, 1)

    convolution("stem", WIDTH, 2, 1, 1, 1)
    for i in range(5):
        for kind in ("enc_block", "dec_block") if i < 4 else ("bottleneck",):
            for j in range(blocks[i]):
                block(f"{kind}_{i}.{j}" if i < 4 else f"{kind}.{j}", width[i], width[i], expansion[i])
    for i in range(4):
        block(f"down_{i}", width[i], width[i + 1], expansion[i if monai else i + 1])
        convolution(f"down_{i}.res_conv", width[i + 1], width[i], 1, 1, 1)
        block(f"up_{i}", width[i + 1], width[i], expansion[i])
        weights[f"up_{i}.res_conv.weight"] = torch.randn(width[i + 1], width[i], 1, 1, 1) / width[i + 1] ** 0.5
        weights[f"up_{i}.res_conv.bias"] = torch.zeros(width[i])
    for i in range(5):
        weights[f"out_{i}.conv_out.weight"], weights[f"out_{i}.conv_out.bias"] = (
            torch.randn(width[i], 3, 1, 1, 1),
            torch.zeros(3),
        )
    return weights | {"dummy_tensor": torch.ones(1)}


def last_map(weights: dict[str, torch.Tensor], x: torch.Tensor) -> torch.Tensor:
    """What the original computes before its output layer, by functions alone."""

    def inner(name: str, x: torch.Tensor, first) -> torch.Tensor:
        w = {key.removeprefix(f"{name}."): value for key, value in weights.items() if key.startswith(f"{name}.")}
        channels = len(w["norm.weight"])
        y = first(x, w["conv1.weight"], w["conv1.bias"], padding=w["conv1.weight"].shape[-1] // 2, groups=channels)
        y = F.group_norm(y, channels, w["norm.weight"], w["norm.bias"])
        return F.conv3d(F.gelu(F.conv3d(y, w["conv2.weight"], w["conv2.bias"])), w["conv3.weight"], w["conv3.bias"])

    def row(name: str, x: torch.Tensor) -> torch.Tensor:
        for j in range(len({key for key in weights if key.startswith(name) and key.endswith("norm.bias")})):
            x = x + inner(f"{name}.{j}", x, F.conv3d)
        return x

    def halve(x, *weight, **more):
        return F.conv3d(x, *weight, stride=2, **more)

    def double(x, *weight, **more):
        return F.conv_transpose3d(x, *weight, stride=2, **more)

    x, maps = F.conv3d(x, weights["stem.weight"], weights["stem.bias"]), []
    for i in range(4):
        maps.append(row(f"enc_block_{i}", x))
        rest = halve(maps[-1], weights[f"down_{i}.res_conv.weight"], weights[f"down_{i}.res_conv.bias"])
        x = inner(f"down_{i}", maps[-1], halve) + rest
    x = row("bottleneck", x)
    for i in (3, 2, 1, 0):
        rest = double(x, weights[f"up_{i}.res_conv.weight"], weights[f"up_{i}.res_conv.bias"])
        x = F.pad(inner(f"up_{i}", x, double), (1, 0) * 3) + F.pad(rest, (1, 0) * 3) + maps[i]
        x = row(f"dec_block_{i}", x)
    return x


@pytest.mark.parametrize(("variant", "kernel"), [("S", 3), ("B", 3), ("M", 5), ("L", 3)])
def test_weights_of_the_original_compute_what_they_computed(variant, kernel, tmp_path):
    weights, images = original(variant, kernel=kernel), torch.randn(1, 2, 32, 16, 16)
    torch.save({"state_dict": {f"model.{key}": value for key, value in weights.items()}}, tmp_path / "model.pt")
    network = small(variant, levels=5, kernel_size=kernel).eval()
    report = load_network(network, tmp_path / "model.pt")
    assert report.share == 1 and not report.missing and all(key.startswith("out") for key in report.unexpected)
    with torch.no_grad():
        torch.testing.assert_close(network.features(images)[-1], last_map(weights, images), atol=1e-4, rtol=1e-4)


def test_they_are_adopted_in_their_own_width_and_depth(tiny_setup, tmp_path, monkeypatch):
    monkeypatch.setenv("SSL_RUNS_ROOT", str(tmp_path / "runs"))
    torch.save(original("B"), tmp_path / "model.pt")
    setup = tiny_setup
    setup.dataset.grids["coarse"] = setup.grid.__class__(setup.grid.spacing, (16, 16, 16))
    report = experiments.adopt(setup, "mednext_elsewhere", tmp_path / "model.pt")
    assert report.share == 1 and [*report.resized] == ["0.0.weight"]  # two channels there, one here
    network, moved = experiments.build_network(setup, Finetuning(init="mednext_elsewhere"))
    assert moved.share == 1 and network.config["network"] == "mednext_b"
    assert (network.config["feature_size"], network.config["levels"]) == (WIDTH, 5)


@pytest.mark.parametrize(
    ("variant", "weights", "words"),
    [
        ("S", lambda: original("B"), "is a MedNeXt, mednext_b, and mednext has other blocks; choose network=mednext_b"),
        ("B", lambda: original("B", monai=True), "of none of the sizes S, B, M and L; those of MONAI differ"),
        ("S", lambda: original("S", kernel=5), "has kernels of 5 voxels, which UpKern cannot shrink to 3"),
    ],
)
def test_others_are_refused_in_one_line(variant, weights, words, tmp_path):
    network = small(variant, levels=5)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    with pytest.raises(CourseError, match=words) as fault:
        load_encoder(network.encoder, weights())
    assert "\n" not in str(fault.value)
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())
