"""For nnU-Net's users: `resenc_unet` is their network, and what was pretrained arrives there tensor by tensor.

make nnunet runs what needs nnU-Net's packages.
"""

import re
import shutil
import sys
from dataclasses import replace

import pytest
import torch
from nnunet_packages import NETWORKS, needs

from benchmarks import nnunet_peer
from ssl_utils import experiments
from ssl_utils.errors import CourseError
from ssl_utils.experiments import Pretraining, exports, runs, scales
from ssl_utils.files import read_json
from ssl_utils.networks import build, checkpoints
from ssl_utils.networks.resenc_unet import plan

SIZES = {"network": "resenc_unet", "in_channels": 1, "out_channels": 3, "img_size": (16, 24, 16), "feature_size": 4}


def reversed_axes(maps: torch.Tensor) -> torch.Tensor:
    return maps.permute(0, 1, 4, 3, 2)


def one_line(call, words: str) -> None:
    with pytest.raises(CourseError, match=words) as caught:
        call()
    assert "\n" not in str(caught.value)


def test_the_sizes_are_those_of_nnunets_plans():
    sizes = plan(32, 6)
    assert sizes["features_per_stage"] == [32, 64, 128, 256, 320, 320], "as in every ResEnc preset"
    assert sizes["n_blocks_per_stage"] == [1, 3, 4, 6, 6, 6] and sizes["n_conv_per_stage_decoder"] == [1] * 5
    assert plan(32, (4, 4, 2))["strides"] == [[1, 1, 1], [2, 2, 1], [2, 2, 1], [2, 2, 2]], "thick slices last"


def test_without_the_package_one_line_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "dynamic_network_architectures.architectures.unet", None)
    one_line(lambda: build(SIZES), r"dynamic-network-architectures is not installed; install the extra \[nnunet\]")


def test_what_nnunet_cannot_load_is_refused(tiny_setup, tmp_path, monkeypatch):
    monkeypatch.setenv("SSL_RUNS_ROOT", str(tmp_path / "runs"))
    export, run, new = exports.FORMATS["nnunet"], tmp_path / "run", tmp_path / "new"
    one_line(lambda: export(run, new), "is no finished pretraining")
    encoder = experiments.build_task(tiny_setup, Pretraining.of("simmim", network="unet")).encoder
    meta = {"task": "simmim", "data_licence": "CC0-1.0", "spacing": (1, 1, 1)}
    checkpoints.save_model(run / "encoder.safetensors", encoder, metadata=meta)
    one_line(lambda: export(run, new), "is no finished pretraining")
    (run / "config.json").write_text("{}")
    runs.finish(run, {"task": "simmim"})
    one_line(lambda: export(run, new), "is of unet, and nnU-Net loads its own; pretrain with --network resenc_unet")
    one_line(lambda: export(run, tmp_path), "is not empty")
    checkpoints.save_model(run / "encoder.safetensors", encoder, metadata=meta | {"data_licence": ""})
    one_line(lambda: export(run, new), "nobody has stated the licence.*--licence")
    assert not new.exists()


def test_the_page_has_the_rows_of_the_record():
    page = (runs.PROJECT / "docs" / "nnunet.md").read_text(encoding="utf-8")
    rows = read_json(nnunet_peer.REFERENCE)
    assert {row["name"] for row in rows} <= {*nnunet_peer.ARMS} and {"nnunet", "unetr"} <= {row["name"] for row in rows}
    for row in rows:
        assert f"| `{row['name']}` | {row['steps']} | {row['seconds']:.0f} | {row['dice']:.3f} |" in page


@needs(NETWORKS)
def test_it_computes_what_the_network_of_the_package_computes():
    torch.manual_seed(0)
    network = build(SIZES | {"levels": 4}).eval()
    for weight in network.parameters():  # the last norm of a block begins at 0, which would hide its convolutions
        torch.nn.init.normal_(weight, std=0.2)
    original, images = network.as_original().eval(), torch.randn(2, 1, 16, 24, 16)
    with torch.no_grad():
        assert torch.equal(network(images), original(images))
        assert all(map(torch.equal, network.encoder(images)[1], original.encoder(images)))
    count = sum(weight.numel() for weight in original.decoder.seg_layers[:-1].parameters())
    assert sum(map(torch.numel, network.parameters())) + count == sum(map(torch.numel, original.parameters()))
    assert len(network.state_dict()) == len(list(network.parameters())), "no tensor has two names"


@needs(NETWORKS)
def test_exported_weights_see_nnunets_axes():
    from ssl_utils.experiments.exports.nnunet_weights import configuration, network_weights

    torch.manual_seed(0)
    network = build(SIZES | {"levels": (4, 4, 2)}).eval()
    theirs = configuration(network.config, {"spacing": "[1.0, 2.0, 5.0]"})
    assert (theirs["patch_size"], theirs["spacing"]) == ([16, 24, 16], [5, 2, 1])
    assert theirs["architecture"]["arch_kwargs"]["strides"][1:] == [[1, 2, 2], [1, 2, 2], [2, 2, 2]]
    turned = build(SIZES | {"levels": (2, 4, 4)}).as_original()
    assert not turned.load_state_dict(network_weights(network), strict=False).unexpected_keys
    images = torch.randn(1, 1, 16, 24, 16)
    with torch.no_grad():
        for ours, other in zip(network.encoder(images)[1], turned.encoder(reversed_axes(images)), strict=True):
            torch.testing.assert_close(reversed_axes(other), ours)


@needs("nnunetv2")
def test_nnunet_begins_with_every_pretrained_tensor_and_trains(phantom_data, tmp_path, monkeypatch):
    monkeypatch.setenv("SSL_RUNS_ROOT", str(tmp_path / "runs"))
    monkeypatch.setenv("SSL_DATA_ROOT", str(phantom_data.parent))
    monkeypatch.setattr(nnunet_peer, "LABELED", 2)
    smoke = replace(scales.get("smoke"), max_validation=1, max_test=1)
    shutil.copytree(phantom_data / "imagesUn", tmp_path / "scans")  # a plain folder of images without labels
    scans = experiments.setup(dataset="folder", data=str(tmp_path / "scans"), scale=smoke)
    run = Pretraining.of("restoration", network="resenc_unet", scope="network", steps=1)
    exported = exports.FORMATS["nnunet"](experiments.pretrain(scans, run), tmp_path / "exported", licence="CC0-1.0")

    nnunet_peer.planned(experiments.setup(dataset="phantom", scale=smoke), tmp_path)
    (code,) = re.findall(r"^```python\n(.*?)^```$", (exported / "README.md").read_text(), re.DOTALL | re.MULTILINE)
    monkeypatch.chdir(exported)
    exec(code.replace("nnUNet_preprocessed/Dataset001_MINE", str(tmp_path / "preprocessed" / nnunet_peer.NAME)), {})
    nnunet_peer.command(tmp_path, "preprocess", "-d", "501", "-c", "ssl", "-np", "1")
    words = ("501", "ssl", "0", "-device", "cpu", "-pretrained_weights", str(exported / "checkpoint.pth"))
    nnunet_peer.command(tmp_path, "train", *words, epochs=1)
    (results,) = tmp_path.glob("results/*/*__ssl/fold_0")
    saved = torch.load(exported / "checkpoint.pth")["network_weights"]
    start = torch.load(results / "start.pth")
    new = {name for name, tensor in start.items() if name not in saved or not torch.equal(tensor, saved[name])}
    assert new == {name for name in start if ".seg_layers." in name} and saved.keys() == start.keys() - new
    assert {name.partition(".")[0] for name in saved} == {"encoder", "decoder"}
    trained = torch.load(results / "checkpoint_final.pth", weights_only=False)["network_weights"]
    assert not any(torch.equal(trained[name], saved[name]) for name in saved if name.endswith("conv.weight"))
