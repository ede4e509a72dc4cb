"""Weights in the naming of Models Genesis and RadioSSL: they compute here what they computed there, or are refused."""

import argparse
import os
from dataclasses import replace

import pytest
import torch
from commands import command
from torch.nn import functional as F

from ssl_utils import experiments
from ssl_utils.errors import CourseError
from ssl_utils.experiments import Finetuning, Pretraining, runs
from ssl_utils.networks import checkpoints, released
from ssl_utils.networks.transfer import load_encoder, load_network
from ssl_utils.networks.unet import UNet
from ssl_utils.networks.unet_plain import PlainUNet

LEVELS = ("64", "128", "256", "512")  # names; the networks of these tests have an eighth of these channels
WIDTH = 8


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def layer(name: str, inputs: int, outputs: int) -> dict[str, torch.Tensor]:
    return {
        f"{name}.conv1.weight": torch.randn(outputs, inputs, 3, 3, 3) / (27 * inputs) ** 0.5,
        f"{name}.conv1.bias": 0.1 * torch.randn(outputs),
        f"{name}.bn1.weight": 1 + 0.1 * torch.randn(outputs),
        f"{name}.bn1.bias": 0.1 * torch.randn(outputs),
        f"{name}.bn1.running_mean": 0.1 * torch.randn(outputs),
        f"{name}.bn1.running_var": 1 + torch.rand(outputs),
        f"{name}.bn1.num_batches_tracked": torch.tensor(3),
    }


def published(*, skips: bool = True, channels: int = 1, decoder: bool = True) -> dict[str, torch.Tensor]:
    """A state dict in their naming: two convolutions a level, the second one twice as wide."""
    width, weights = [WIDTH * 2**i for i in range(4)], {}
    for i, name in enumerate(LEVELS):
        weights |= layer(f"down_tr{name}.ops.0", width[i - 1] if i else channels, width[i] // 2)
        weights |= layer(f"down_tr{name}.ops.1", width[i] // 2, width[i])
    for i in (2, 1, 0) if decoder else ():
        name, wide = f"up_tr{LEVELS[i]}", width[i + 1]
        weights |= {f"{name}.up_conv.weight": torch.randn(wide, wide, 2, 2, 2) / wide**0.5}
        weights |= {f"{name}.up_conv.bias": torch.zeros(wide)}
        weights |= layer(f"{name}.ops.0", wide + skips * width[i], width[i]) | layer(
            f"{name}.ops.1", width[i], width[i]
        )
    head = {"out_tr.final_conv.weight": torch.randn(1, WIDTH, 1, 1, 1), "out_tr.final_conv.bias": torch.zeros(1)}
    return weights | (head if decoder else {})


def theirs(weights, x, *, skips: bool):
    """Their last map before the output layer, by functions alone."""

    def both(name, x):
        for part in (f"{name}.ops.0", f"{name}.ops.1"):
            x = F.conv3d(x, weights[f"{part}.conv1.weight"], weights[f"{part}.conv1.bias"], padding=1)
            norm = (weights[f"{part}.bn1.{key}"] for key in ("running_mean", "running_var", "weight", "bias"))
            x = F.relu(F.batch_norm(x, *norm))
        return x

    maps = []
    for i, name in enumerate(LEVELS):
        x = both(f"down_tr{name}", F.max_pool3d(x, 2) if i else x)
        maps.append(x)
    for i in (2, 1, 0):
        name = f"up_tr{LEVELS[i]}"
        x = F.conv_transpose3d(x, weights[f"{name}.up_conv.weight"], weights[f"{name}.up_conv.bias"], stride=2)
        x = both(name, torch.cat([x, maps[i]], 1) if skips else x)
    return x


def network(**changes) -> PlainUNet:
    return PlainUNet(**{"in_channels": 1, "out_channels": 2, "feature_size": WIDTH, **changes}).eval()


def genesis(path, weights=None):
    """A file as Models Genesis has it."""
    weights = published() if weights is None else weights
    state = {f"module.{name}": value for name, value in weights.items()}
    torch.save({"epoch": 7, "state_dict": state, "optimizer_state_dict": {"state": {}, "param_groups": []}}, path)
    return weights


def radiossl(path, weights, **options):
    """A file as RadioSSL has it, with the options of its command."""
    state = {
        "opt": argparse.Namespace(lr=1e-3, gpus="0,1", **options),
        "state_dict": weights,
        "optimizer": {},
        "epoch": 240,
    }
    torch.save(state, path)


def refused(call, words: str) -> None:
    with pytest.raises(CourseError, match=words) as caught:
        call()
    assert "\n" not in str(caught.value)


@torch.no_grad()
def test_models_genesis_computes_what_it_did(tmp_path):
    weights, target, image = genesis(tmp_path / "chest.pt"), network(), torch.randn(2, 1, 16, 24, 16)
    report = load_network(target, tmp_path / "chest.pt")
    assert report.share == 1 and not report.missing and not report.resized
    assert {"out_tr.final_conv.weight", "out_tr.final_conv.bias"} == report.unexpected.keys()
    assert "loaded 100.00%" in report.table()
    torch.testing.assert_close(target.features(image)[-1], theirs(weights, image, skips=True), atol=1e-5, rtol=1e-5)
    assert target(image).shape == (2, 2, 16, 24, 16)


def test_a_network_pretrained_without_skips_computes_the_same_and_learns_them(tmp_path):
    weights = published(skips=False)
    extras = layer("up_tr256.deep_supervision_head", 4 * WIDTH, 1) | {
        "up_tr256.predictor_head.0.weight": torch.ones(2, 2)
    }
    radiossl(tmp_path / "pcrlv2.pt", weights | extras)
    target, image = network(), torch.randn(1, 1, 16, 16, 16)
    report = load_network(target, tmp_path / "pcrlv2.pt")
    assert report.share == 1 and "up.0.predictor_head.0.weight" in report.unexpected
    with torch.no_grad():
        expected = theirs(weights, image, skips=False)
    torch.testing.assert_close(target.features(image)[-1], expected, atol=1e-5, rtol=1e-5)
    target(image).square().sum().backward()
    kernel = target.up[-1].ops[0].conv1.weight
    assert (kernel[:, -WIDTH:] == 0).all() and (kernel.grad[:, -WIDTH:] != 0).any()


def test_an_encoder_alone_is_taken_as_one(tmp_path):
    heads = {"prototypes.weight": torch.ones(50, 64), "cluster_projection_head.0.weight": torch.ones(64, 512)}
    radiossl(tmp_path / "patch.pt", published(decoder=False) | heads)
    report = load_encoder(network().encoder, tmp_path / "patch.pt")
    assert report.share == 1 and {*heads} == {*report.unexpected}
    refused(lambda: load_network(network(), tmp_path / "patch.pt"), "its decoder lacks up.0.*scope=encoder")


def test_the_first_convolution_keeps_its_scale_for_four_channels(tmp_path):
    weights, image = genesis(tmp_path / "chest.pt"), torch.randn(1, 1, 16, 16, 16)
    target = network(in_channels=4)
    assert load_network(target, tmp_path / "chest.pt").resized.keys() == {"0.ops.0.conv1.weight"}
    own, name = target.encoder[0].ops[0].conv1, "down_tr64.ops.0.conv1"
    with torch.no_grad():
        before = F.conv3d(image, weights[f"{name}.weight"], weights[f"{name}.bias"], padding=1)
        torch.testing.assert_close(own(image.expand(-1, 4, -1, -1, -1)), before, atol=1e-5, rtol=1e-5)
        repeated = F.conv3d(image.expand(-1, 4, -1, -1, -1), weights[f"{name}.weight"].repeat(1, 4, 1, 1, 1), padding=1)
        without_bias = before - weights[f"{name}.bias"].view(1, -1, 1, 1, 1)
        torch.testing.assert_close(
            repeated, 4 * without_bias, atol=1e-4, rtol=1e-4
        )  # as published: four times too large


def test_what_would_compute_something_else_is_refused(tmp_path):
    genesis(tmp_path / "chest.pt")
    residual = UNet(in_channels=1, out_channels=2, feature_size=WIDTH)
    refused(lambda: load_network(residual, tmp_path / "chest.pt"), "unet has other blocks; choose network=unet_plain")
    refused(lambda: load_encoder(residual.encoder, tmp_path / "chest.pt"), "choose network=unet_plain")
    refused(lambda: load_network(network(feature_size=16), tmp_path / "chest.pt"), "feature_size and channels")
    refused(
        lambda: load_encoder(network(feature_size=16).encoder, tmp_path / "chest.pt"), r"\(4, 1, 3, 3, 3\) -> \(8, 1,"
    )
    tuned = {name: value for name, value in published().items() if "running" not in name and "tracked" not in name}
    radiossl(tmp_path / "tuned.pt", tuned)
    refused(
        lambda: load_network(network(), tmp_path / "tuned.pt"), "norms without running statistics.*before fine-tuning"
    )
    diverged = published()
    diverged["up_tr64.ops.0.conv1.weight"][0, 0] = float("nan")
    genesis(tmp_path / "nan.pt", diverged)
    refused(lambda: load_network(network(), tmp_path / "nan.pt"), "holds NaN or infinity")


class Payload:
    def __reduce__(self):
        return os.mkdir, ("executed",)


def test_options_with_code_in_them_are_not_executed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    radiossl(tmp_path / "code.pt", published(), data=Payload())
    refused(lambda: load_network(network(), tmp_path / "code.pt"), "could run code")
    assert not (tmp_path / "executed").exists()


def test_names_of_our_own_networks_stay():
    for own in (network(), UNet(in_channels=1, out_channels=2, feature_size=4)):
        state = own.state_dict()
        assert released.renamed(state).keys() == state.keys()
    assert released.renamed(network().state_dict())["up.0.ops.0.conv1.weight"].shape[1] == 12 * WIDTH


# adopting


@pytest.fixture
def setup(tiny_setup, tmp_path, monkeypatch):
    monkeypatch.setenv("SSL_RUNS_ROOT", str(tmp_path / "runs"))
    return replace(tiny_setup, scale=replace(tiny_setup.scale, finetune_steps=2))


def test_fine_tuning_starts_from_adopted_weights_in_their_width(setup, tmp_path):
    weights = genesis(tmp_path / "chest.pt")
    assert experiments.adopt(setup, "genesis_chest_ct", tmp_path / "chest.pt").share == 1
    network, report = experiments.build_network(setup, Finetuning(init="genesis_chest_ct"))
    assert network.config["network"] == "unet_plain" and network.config["feature_size"] == WIDTH and report.share == 1
    assert torch.equal(network.up[0].up_conv.weight, weights["up_tr256.up_conv.weight"])
    encoder_alone, _ = experiments.build_network(setup, Finetuning(init="genesis_chest_ct", scope="encoder"))
    assert torch.equal(encoder_alone.down[0].ops[0].conv1.weight, network.down[0].ops[0].conv1.weight)
    assert not torch.equal(encoder_alone.up[0].up_conv.weight, network.up[0].up_conv.weight)
    folder = experiments.finetune(setup, Finetuning(init="genesis_chest_ct", num_labeled=2))
    done = runs.metrics(folder)
    assert done["transfer_share"] == 1 and 0 <= done["dice"] <= 1
    spent = runs.spent(runs.course_dir(setup.dataset.name, setup.scale.name))
    assert spent["pretraining"].tolist() == [0] and "unet_plain" in (folder / "README.md").read_text()


def test_an_encoder_of_another_course_is_adopted(setup, tmp_path):
    folder = experiments.pretrain(setup, Pretraining.of("simmim", steps=2))
    source = folder / "encoder.safetensors"
    experiments.adopt(setup, "simmim_of_brains", source)
    adopted = runs.pretrain_dir(setup.dataset.name, setup.scale.name, "simmim_of_brains")
    one, two = (checkpoints.read_checkpoint(path) for path in (source, adopted / source.name))
    assert one.keys() == two.keys() and all(torch.equal(one[key], two[key]) for key in one)
    assert not (adopted / "network.safetensors").exists()
    known, kept = (checkpoints.read_metadata(path) for path in (source, adopted / source.name))
    assert all(kept[key] == known[key] for key in ("data_licence", "images"))
    written = (adopted / "metrics.json").stat().st_mtime_ns
    experiments.adopt(setup, "simmim_of_brains", source)
    assert (adopted / "metrics.json").stat().st_mtime_ns == written, "a second time changes nothing"
    genesis(tmp_path / "chest.pt")
    with pytest.raises(CourseError, match=r"has the weights of encoder\.safetensors; choose another"):
        experiments.adopt(setup, "simmim_of_brains", tmp_path / "chest.pt")


@pytest.mark.parametrize("name", ["simmim", "random", "Genesis", "a__b", "a=b", "../x", ""])
def test_names_that_runs_have_are_refused(setup, tmp_path, name):
    genesis(tmp_path / "chest.pt", published(decoder=False))
    refused(
        lambda: experiments.adopt(setup, name, tmp_path / "chest.pt"), "cannot be the name of weights from elsewhere"
    )


def test_weights_of_unknown_networks_are_not_adopted(setup, tmp_path):
    torch.save(torch.nn.Conv3d(1, 2, 3).state_dict(), tmp_path / "other.pt")
    refused(lambda: experiments.adopt(setup, "other", tmp_path / "other.pt"), "other.pt: are no weights of this course")
    refused(lambda: experiments.adopt(setup, "other", tmp_path / "absent.pt"), "absent.pt: no such file")
    assert not runs.pretrain_dir(setup.dataset.name, setup.scale.name, "other").exists()


def test_the_command_prints_the_report(setup, tmp_path, monkeypatch, capsys, blobs):
    genesis(tmp_path / "chest.pt")
    words = (
        "adopt",
        "chest",
        str(tmp_path / "chest.pt"),
        "--dataset",
        "folder",
        "--data",
        str(blobs),
        "--scale",
        "smoke",
    )
    assert command(monkeypatch, *words) == (0, "")
    out = capsys.readouterr().out
    assert "loaded 100.00% of the encoder's parameters" in out and "finetune chest" in out
