"""Moving encoders: nothing is lost without a word, and what is moved computes the same."""

import os
import pickle
import re

import monai.networks.nets
import numpy as np
import pytest
import torch
from torch import nn

from ssl_utils.errors import CourseError
from ssl_utils.networks.checkpoints import read_checkpoint, read_metadata, save_model
from ssl_utils.networks.heads import LinearHead, TransposedConvHead
from ssl_utils.networks.transfer import adapt_channels, load_encoder, resize_positions
from ssl_utils.networks.unetr import UNETR
from ssl_utils.networks.vit import ViT

SMALL = {"hidden_size": 48, "mlp_dim": 96, "num_layers": 3, "num_heads": 4}
ROI = (16, 24, 16)


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


class Pretraining(nn.Module):
    """The shape of a pretext task: an encoder, a head, here and there a mask token."""

    def __init__(self, encoder, head, mask_token=False):
        super().__init__()
        self.encoder, self.head = encoder, head
        if mask_token:
            self.mask_token = nn.Parameter(torch.zeros(1, 1, 48))


def vit(**changes):
    model = ViT(**{"in_channels": 1, "img_size": ROI, "patch_size": 8, **SMALL, **changes}).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))  # away from every initial value
    return model


def unetr(**changes):
    return UNETR(
        **{"in_channels": 1, "out_channels": 2, "img_size": ROI, "patch_size": 8, "feature_size": 4, **SMALL, **changes}
    ).eval()


def assert_same_hidden_states(source, target, x=None):
    x = torch.randn(2, 1, *ROI) if x is None else x
    with torch.no_grad():
        last, hidden = target(x)
        output, their_hidden = source(x)
    for mine, other in zip(hidden, their_hidden, strict=True):
        torch.testing.assert_close(mine, other, atol=1e-5, rtol=0)
    if output.shape == last.shape:  # an autoencoder gives an image instead
        torch.testing.assert_close(last, output, atol=1e-5, rtol=0)


# --- sources ---


@pytest.mark.parametrize("task", ["restoration", "simmim"])
def test_from_own_pretraining_into_unetr(task):
    head_class = {"restoration": TransposedConvHead, "simmim": LinearHead}[task]
    head = head_class(hidden_size=48, patch_size=8, out_channels=1)
    pretraining, model = Pretraining(vit(), head, mask_token=task == "simmim"), unetr()
    report = load_encoder(model.vit, pretraining.state_dict())
    assert report.share == 1 and not report.missing and not report.resized and report.prefix == "encoder."
    assert all(key.startswith(("head.", "mask_token")) for key in report.unexpected)
    assert ("mask_token" in report.unexpected) == (task == "simmim")
    assert_same_hidden_states(pretraining.encoder, model.vit)


@pytest.mark.parametrize(
    "prefix", ["", "module.", "_orig_mod.", "net.", "encoder.", "vit.", "module.net.encoder.vit.", "model.backbone."]
)
@pytest.mark.parametrize("network", ["ViT", "ViTAutoEnc"])
def test_from_monai_under_any_prefix(network, prefix):
    theirs = getattr(monai.networks.nets, network)(1, (32, 48, 32), 16, **SMALL).eval()
    model = unetr(img_size=(32, 48, 32), patch_size=16)
    report = load_encoder(model.vit, {prefix + key: value for key, value in theirs.state_dict().items()})
    assert report.share == 1 and not report.missing and len(report.ignored) == 2 * SMALL["num_layers"]
    assert len(report.unexpected) == (4 if network == "ViTAutoEnc" else 0)
    assert_same_hidden_states(theirs, model.vit, torch.randn(1, 1, 32, 48, 32))


def test_wrappers_inside_the_names():
    source, target = vit(), vit()
    state = {
        f"net._orig_mod.{key}".replace("blocks.1.", "blocks.1._orig_mod."): t for key, t in source.state_dict().items()
    }
    assert load_encoder(target, {"epoch": 3, "state_dict": state}).share == 1
    assert_same_hidden_states(source, target)


def test_from_a_whole_unetr():
    source, target = unetr(), vit()
    report = load_encoder(target, source.state_dict())
    assert report.prefix == "vit." and any(key.startswith("decoder4.") for key in report.unexpected)
    assert_same_hidden_states(source.vit, target)


@pytest.mark.parametrize("nest", ["plain", "lightning", "tutorial", "parts"])
def test_from_torch_files(tmp_path, nest):
    source, target = Pretraining(vit(), LinearHead(hidden_size=48, patch_size=8, out_channels=1)), unetr()
    state = source.state_dict()
    content = {
        "plain": state,
        "lightning": {
            "epoch": 1,
            "pytorch-lightning_version": "2.6",
            "state_dict": {f"net.{key}": value for key, value in state.items()},
            "hyper_parameters": {"lr": 1e-3},
        },
        "tutorial": {"epoch": 300, "state_dict": state, "optimizer": {"state": {}}, "best": np.float64(0.1)},
        "parts": {"model": {"encoder": source.encoder.state_dict(), "head": source.head.state_dict()}},
    }[nest]
    torch.save(content, tmp_path / "last.ckpt")
    assert load_encoder(target.vit, tmp_path / "last.ckpt").share == 1
    assert_same_hidden_states(source.encoder, target.vit)


def test_round_trip_by_safetensors(tmp_path):
    source, model = vit(), unetr()
    save_model(tmp_path / "encoder.safetensors", source, metadata={"licence": "CC0", "seed": 3})
    metadata = read_metadata(tmp_path / "encoder.safetensors")
    assert metadata["licence"] == "CC0" and metadata["seed"] == "3" and metadata["grid"] == "[2, 3, 2]"
    state = read_checkpoint(tmp_path / "encoder.safetensors")
    assert all(torch.equal(state[key], value) for key, value in source.state_dict().items())
    assert load_encoder(model.vit, tmp_path / "encoder.safetensors").share == 1
    assert_same_hidden_states(source, model.vit)
    save_model(tmp_path / "model.safetensors", model, metadata={})
    assert read_metadata(tmp_path / "model.safetensors")["grid"] == "[2, 3, 2]"
    assert not any(unetr().load_state_dict(read_checkpoint(tmp_path / "model.safetensors")))


def test_half_precision_is_taken():
    source, target = vit(), vit()
    report = load_encoder(target, {key: value.half() for key, value in source.state_dict().items()})
    assert report.share == 1 and target.norm.weight.dtype == torch.float32


def test_loaded_weights_go_on_learning():
    model = unetr()
    load_encoder(model.vit, vit().state_dict())
    model(torch.randn(1, 1, *ROI)).pow(2).mean().backward()
    assert all(p.grad is not None for p in model.parameters())


# --- other sizes ---


def test_positions_to_a_larger_crop():
    theirs = monai.networks.nets.ViT(1, 48, 16, **SMALL)  # 3^3 tokens, as 96 -> 128 is 6^3 -> 8^3
    target = vit(img_size=(64, 64, 64), patch_size=16)
    report = load_encoder(target, theirs.state_dict())
    assert report.resized == {"patch_embedding.position_embeddings": ((1, 27, 48), (1, 64, 48))} and report.share == 1
    expected = resize_positions(theirs.patch_embedding.position_embeddings.detach(), (3, 3, 3), (4, 4, 4))
    assert torch.equal(target.positions.data, expected)


def test_positions_are_interpolated_along_the_right_axes():
    ramp = torch.stack(torch.meshgrid(*(torch.arange(n).float() for n in (4, 6, 2)), indexing="ij"), -1).reshape(
        1, 48, 3
    )
    d, h, w = resize_positions(ramp, (4, 6, 2), (8, 3, 4))[0].reshape(8, 3, 4, 3).unbind(-1)
    torch.testing.assert_close(d[1:-1, 0, 0], torch.arange(1, 7) / 2 - 0.25)  # centres of halved tokens
    torch.testing.assert_close(h[0, :, 0], torch.tensor([0.5, 2.5, 4.5]))  # centres of paired tokens
    assert (d == d[:, :1, :1]).all() and (h == h[:1, :, :1]).all() and (w == w[:1, :1, :]).all()
    torch.testing.assert_close(resize_positions(ramp, (4, 6, 2), (4, 6, 2)), ramp)


def test_grid_of_the_source(tmp_path):
    source, target = vit(img_size=(16, 24, 32)), vit(img_size=(24, 16, 32))  # both 24 tokens, on other grids
    save_model(tmp_path / "encoder.safetensors", source, metadata={})
    report = load_encoder(target, tmp_path / "encoder.safetensors")
    assert "patch_embedding.position_embeddings" in report.resized
    larger = vit(img_size=(32, 32, 32))
    with pytest.raises(CourseError, match=r"24 positions.*grid=\(d, h, w\)"):
        load_encoder(larger, source.state_dict())
    assert load_encoder(larger, source.state_dict(), grid=(2, 3, 4)).share == 1
    with pytest.raises(CourseError, match="wrong grid"):
        load_encoder(larger, source.state_dict(), grid=(2, 3, 3))
    assert load_encoder(target, vit(img_size=16).state_dict()).share == 1  # a cube of 8, into (3, 2, 4)


@pytest.mark.parametrize(("old", "new"), [(1, 4), (4, 1), (2, 3)])
def test_channels(old, new):
    source, target = vit(in_channels=old), vit(in_channels=new)
    report = load_encoder(target, source.state_dict())
    assert report.resized.keys() == {"patch_embedding.patch_embeddings.weight"} and report.share == 1
    x = torch.randn(1, 1, *ROI)  # the same image in every channel
    with torch.no_grad():
        before, after = source(x.expand(-1, old, -1, -1, -1))[1], target(x.expand(-1, new, -1, -1, -1))[1]
    torch.testing.assert_close(after, before, atol=1e-4, rtol=0)
    weight = torch.randn(5, old, 2, 2, 2)
    torch.testing.assert_close(adapt_channels(weight, new).sum(1), weight.sum(1))


# --- refusals: one line, and nothing is loaded ---


def refused(target, source, words, **kwargs):
    before = {key: value.clone() for key, value in target.state_dict().items()}
    with pytest.raises(CourseError, match=words) as caught:
        load_encoder(target, source, **kwargs)
    assert "\n" not in str(caught.value)
    assert all(torch.equal(value, before[key]) for key, value in target.state_dict().items())


def test_too_small_a_share_names_what_is_missing():
    source = vit().state_dict()
    for key in [key for key in source if key.startswith("blocks.1.mlp")]:
        del source[key]
    refused(vit(), source, r"missing blocks.1.mlp.linear1.weight absent -> \(96, 48\)")
    report = load_encoder(vit(), source, minimum_share=0.5)
    assert 0.5 < report.share < 0.95 and report.missing["blocks.1.mlp.linear1.weight"] == (None, (96, 48))


def test_other_architectures():
    state = vit().state_dict()
    refused(vit(hidden_size=96), state, r"missing .*\(1, 12, 48\) -> \(1, 12, 96\).*hidden_size")
    refused(vit(num_layers=6), state, "missing blocks.3")
    refused(vit(num_layers=2), state, "has blocks.2.*num_layers")
    first = r"layer that reads the image.*\(48, 1, 8, 8, 8\) -> \(48, 1, 4, 4, 4\)"
    refused(vit(patch_size=4), state, first, grid=(2, 3, 2))
    biased = monai.networks.nets.ViT(1, ROI, 8, qkv_bias=True, **SMALL)
    refused(vit(), biased.state_dict(), "attn.qkv.bias")
    assert load_encoder(vit(patch_size=4), state, minimum_share=0, grid=(2, 3, 2)).missing.keys() == {
        "patch_embedding.patch_embeddings.weight"
    }


def test_patch_projection_is_not_optional():
    source = vit().state_dict()
    del source["patch_embedding.patch_embeddings.weight"]
    refused(vit(), source, "layer that reads the image must be", minimum_share=0.3)
    assert load_encoder(vit(), source, minimum_share=0).share < 1


def test_other_number_of_heads(tmp_path):
    save_model(tmp_path / "encoder.safetensors", vit(), metadata={})
    refused(vit(num_heads=3), tmp_path / "encoder.safetensors", "num_heads=4, this encoder has 3")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite(value):
    source = vit().state_dict()
    source["blocks.1.attn.qkv.weight"] = torch.full_like(source["blocks.1.attn.qkv.weight"], value)
    refused(vit(), source, "blocks.1.attn.qkv.weight holds NaN")


def test_several_encoders():
    state = {f"{who}.{key}": value for who in ("student", "teacher") for key, value in vit().state_dict().items()}
    refused(vit(), state, "'student.', 'teacher.'.*prefix=")
    report = load_encoder(vit(), state, prefix="teacher")
    assert report.share == 1 and all(key.startswith("student.") for key in report.unexpected)


def test_not_an_encoder():
    refused(vit(), nn.Conv3d(1, 2, 3).state_dict(), "no tensor has the name")
    refused(
        vit(), monai.networks.nets.resnet10(n_input_channels=1).state_dict(), "no tensor has the name|would be loaded"
    )
    refused(vit(), {}, "no tensor")


class Code:
    def __reduce__(self):
        return os.mkdir, ("executed",)


def test_unreadable_files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"state_dict": vit().state_dict(), "extra": Code()}, "code.pt")
    (tmp_path / "old_code.pt").write_bytes(pickle.dumps(Code()))
    torch.save(vit(), "whole_model.pt")
    torch.save(vit().state_dict(), "good.pt")
    save_model("good.safetensors", vit(), metadata={})
    for name in ("good.pt", "good.safetensors"):
        content = (tmp_path / name).read_bytes()
        (tmp_path / f"cut.{name}").write_bytes(content[: len(content) // 2])
        (tmp_path / f"short.{name}").write_bytes(content[:5])
        (tmp_path / f"empty.{name}").touch()
        (tmp_path / f"page.{name}").write_text("<html>404</html>")
    torch.save([1, 2], "list.pt")
    words = {"code.pt": "could run code", "whole_model.pt": "save its state_dict", "list.pt": "no weights"}
    names = sorted(path.name for path in tmp_path.iterdir() if not path.name.startswith("good"))
    assert len(names) == 12
    for name in [*names, "absent.pt"]:
        refused(vit(), name, f"^{name}: .*{words.get(name, '')}")
    assert not (tmp_path / "executed").exists()


def test_metadata_that_is_nonsense(tmp_path):
    save_model(tmp_path / "encoder.safetensors", nn.Linear(2, 2), metadata={"grid": "six"})
    refused(vit(), tmp_path / "encoder.safetensors", "no tensor")
    save_model(tmp_path / "encoder.safetensors", nn.ModuleDict({"net": vit()}), metadata={"grid": "six"})
    refused(vit(), tmp_path / "encoder.safetensors", "grid='six'")


# --- the report ---


def test_table_accounts_for_every_tensor():
    source = vit(img_size=16, in_channels=2)
    state = Pretraining(source, LinearHead(hidden_size=48, patch_size=8, out_channels=1), mask_token=True).state_dict()
    del state["encoder.blocks.2.norm2.bias"]
    report = load_encoder(vit(), state)
    assert len(report.matched) + len(report.resized) + len(report.unexpected) + len(report.ignored) == len(state)
    assert len(report.matched) + len(report.resized) + len(report.missing) == len(vit().state_dict())
    total = sum(p.numel() for p in vit().parameters())
    assert report.share == pytest.approx((total - 48) / total)
    table = report.table()
    for line in (
        "(1, 8, 48) -> (1, 12, 48)",
        "(48, 2, 8, 8, 8) -> (48, 1, 8, 8, 8)",
        "blocks.*.norm2.bias",
        "absent -> (48,)",
        "mask_token",
        "(144, 48)  x 3",
        f"loaded {report.share:.2%}",
    ):
        assert line in table
    assert re.search(r"blocks\.\*\.norm2\.bias +\(48,\)  x 2$", table, re.MULTILINE)
