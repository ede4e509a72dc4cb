"""Ten ways in which a weight file is not what it seems: each loads right, with a report, or is refused in one line."""

import json
import os
import pickle

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from ssl_utils import experiments
from ssl_utils.errors import CourseError
from ssl_utils.experiments import Finetuning, prediction
from ssl_utils.experiments.setups import Setup
from ssl_utils.networks import checkpoints
from ssl_utils.networks.transfer import load_encoder, load_network
from ssl_utils.networks.unetr import UNETR
from ssl_utils.networks.vit import ViT
from ssl_utils.training import loop as training

ROI = (16, 24, 16)
SIZES = {
    "in_channels": 1,
    "img_size": ROI,
    "patch_size": 8,
    "hidden_size": 48,
    "mlp_dim": 96,
    "num_layers": 3,
    "num_heads": 4,
}
LOADS = {"a prefix", "another image size", "other channels"}


def encoder(**changes) -> ViT:
    torch.manual_seed(1)
    return ViT(**{**SIZES, **changes}).eval()


def without_a_block(weights):
    return {key: value for key, value in weights.items() if not key.startswith("blocks.1.")}


def transposed(weights):
    key = next(key for key in weights if key.endswith("mlp.linear1.weight"))
    return weights | {key: weights[key].T.contiguous()}


def with_nan(weights):
    (projection,) = ViT.reads_image
    return weights | {projection: torch.full_like(weights[projection], float("nan"))}


MUTATIONS = {
    "a prefix": lambda: {f"module.net.{key}": value for key, value in encoder().state_dict().items()},
    "a missing block": lambda: without_a_block(encoder().state_dict()),
    "another width": lambda: encoder(hidden_size=64).state_dict(),
    "another patch size": lambda: encoder(patch_size=4).state_dict(),
    "another image size": lambda: encoder(img_size=(24, 32, 16)).state_dict(),
    "other channels": lambda: encoder(in_channels=3).state_dict(),
    "a transposed tensor": lambda: transposed(encoder().state_dict()),
    "NaN weights": lambda: with_nan(encoder().state_dict()),
    "a truncated file": lambda: encoder().state_dict(),
    "another architecture": lambda: torch.nn.Sequential(torch.nn.Conv3d(1, 8, 3), torch.nn.Linear(8, 2)).state_dict(),
}
GRIDS = {"another image size": (3, 4, 2)}


@pytest.mark.parametrize("what", MUTATIONS)
@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_a_mutated_encoder_loads_with_a_report_or_is_refused(tmp_path, what, suffix):
    path = tmp_path / f"encoder{suffix}"
    weights = {key: value.contiguous() for key, value in MUTATIONS[what]().items()}
    if suffix == ".pt":
        torch.save(weights, path)
    else:
        save_file(weights, path)
    if what == "a truncated file":
        path.write_bytes(path.read_bytes()[:-100])
    target = ViT(**SIZES)
    before = {key: value.clone() for key, value in target.state_dict().items()}
    if what not in LOADS:
        with pytest.raises(CourseError) as refused:
            load_encoder(target, path)
        said = str(refused.value)
        assert said.startswith(f"{path}: ") and "\n" not in said and ";" in said
        assert all(torch.equal(value, before[key]) for key, value in target.state_dict().items()), "half loaded"
        return
    report = load_encoder(target, path, grid=GRIDS.get(what))
    assert report.share == 1 and not report.missing
    assert bool(report.resized) == (what != "a prefix") and str(path) in report.table()
    source = encoder(**({"in_channels": 3} if what == "other channels" else {}))
    if what == "a prefix":
        image = torch.randn(1, 1, *ROI)
        torch.testing.assert_close(target.eval()(image)[0], source(image)[0])
    if what == "other channels":  # an image alike in all channels gives the same tokens
        image = torch.randn(1, 1, *ROI)
        torch.testing.assert_close(target.eval()(image)[0], source(image.repeat(1, 3, 1, 1, 1))[0], atol=1e-4, rtol=0)


@pytest.fixture
def model(tiny_setup: Setup, tmp_path):
    network, _ = experiments.build_network(tiny_setup, Finetuning(init="random", seed=0))
    prediction.save_network(tmp_path / "model.safetensors", network, tiny_setup, init="random")
    return tmp_path / "model.safetensors"


def rewritten(path, *, weights=lambda w: w, about=lambda a: a):
    with safe_open(path, framework="pt") as file:
        kept, meta = {name: file.get_tensor(name) for name in file.keys()}, file.metadata()  # noqa: SIM118
    meta["course"] = json.dumps(about(json.loads(meta["course"])))
    save_file(weights(kept), path, metadata=meta)


SAVED = {
    "a missing tensor": {"weights": lambda w: dict(list(w.items())[1:])},
    "NaN in the decoder": {"weights": lambda w: {k: v.log() if k.startswith("out") else v for k, v in w.items()}},
    "another width": {"about": lambda a: a | {"architecture": a["architecture"] | {"hidden_size": 48}}},
    "an option nobody knows": {"about": lambda a: a | {"architecture": a["architecture"] | {"code": "x"}}},
    "no grid": {"about": lambda a: {key: value for key, value in a.items() if key != "grid"}},
    "not a mapping": {"about": lambda a: [1]},
}


@pytest.mark.parametrize("what", SAVED)
def test_a_model_that_is_not_what_it_says_is_refused(model, what):
    prediction.load_saved(model)
    rewritten(model, **SAVED[what])
    with pytest.raises(CourseError) as refused:
        prediction.load_saved(model)
    assert str(refused.value).startswith(f"{model}: ") and "\n" not in str(refused.value)


def test_a_decoder_with_nan_is_refused(tmp_path):
    network = UNETR(out_channels=1, feature_size=4, **SIZES)
    with torch.no_grad():
        next(p for n, p in network.named_parameters() if not n.startswith(("vit.", "out."))).fill_(float("inf"))
    checkpoints.save_model(tmp_path / "network.safetensors", network, metadata={})
    with pytest.raises(CourseError, match="NaN or infinity"):
        load_network(UNETR(out_channels=2, feature_size=4, **SIZES), tmp_path / "network.safetensors")


class Payload:
    def __reduce__(self):
        return os.mkdir, ("executed",)


@pytest.mark.parametrize("name", ["last.ckpt", "model.safetensors", "encoder.pt"])
def test_a_pickle_with_code_does_not_run(tmp_path, monkeypatch, name):
    """Wherever a weight file or a checkpoint is read: resuming, predicting, transferring."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).write_bytes(pickle.dumps({"state_dict": Payload()}))
    read = {
        "last.ckpt": lambda: training.resume_point(tmp_path),
        "model.safetensors": lambda: prediction.load_saved(tmp_path / name),
        "encoder.pt": lambda: load_encoder(ViT(**SIZES), tmp_path / name),
    }[name]
    with pytest.raises(CourseError, match=name):
        read()
    assert not (tmp_path / "executed").exists()
