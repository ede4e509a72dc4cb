"""The card beside the weights: its figures are those of the run, its code runs, its licences are those of the data."""

import json
import re
import shlex
from dataclasses import replace

import nibabel as nib
import pandas as pd
import pytest
import torch

from ssl_utils import __main__ as cli, experiments
from ssl_utils.data.dataset import Intensity
from ssl_utils.data.datasets import REGISTRY
from ssl_utils.experiments import Finetuning, Pretraining, model_card, prediction, runs
from ssl_utils.networks.checkpoints import read_checkpoint, read_metadata, save_model
from ssl_utils.networks.vit import ViT

SMALL = {"hidden_size": 24, "mlp_dim": 24, "num_heads": 2}


def code(card: str, language: str = "python") -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", card, re.DOTALL | re.MULTILINE)


def execute(folder, monkeypatch) -> dict:
    """Run the Python of a card where it lies; what it defined."""
    monkeypatch.chdir(folder)
    names: dict = {}
    for block in code((folder / "README.md").read_text()):
        exec(block, names)
    return names


def stand_in(folder, *, pools=None, grid=None, **sizes):
    """A card of a run that never was, for an encoder of these sizes."""
    encoder = ViT(**SMALL, **sizes)
    save_model(folder / "encoder.safetensors", encoder, metadata={})
    (folder / "config.json").write_text(json.dumps({"commit": None, "versions": {"torch": "2"}}))
    done = {
        "task": "toy",
        "seconds": 1.0,
        "device": "cpu",
        "baselines": {"mean": 1.0},
        "last": {"step": 3, "validation_loss": 0.5},
    }
    pools = pools or [(REGISTRY["sarcoma"], 4)]
    grid = grid or pools[0][0].grids["coarse"]
    return encoder, model_card.write_encoder_card(folder, idea="An idea.", pools=pools, grid=grid, done=done)


@pytest.fixture(scope="module")
def finished(tmp_path_factory, blobs):
    """A pretraining and a fine-tuning run from it, on a person's own folder."""
    from ssl_utils.data import datasets
    from ssl_utils.experiments import scales

    scale = replace(
        scales.get("smoke"), pretrain_steps=4, finetune_steps=2, num_layers=2, max_validation=1, max_test=2, **SMALL
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SSL_RUNS_ROOT", str(tmp_path_factory.mktemp("runs")))
        where = experiments.Setup(datasets.get("folder", blobs), scale)
        encoder = experiments.pretrain(where, Pretraining.of("simmim", mask_ratio=0.5))
        return encoder, experiments.finetune(where, Finetuning(init=encoder.name, num_labeled=2))


# encoders


def test_the_code_of_a_card_gives_monai_the_same_tokens(finished, monkeypatch):
    folder, _ = finished
    names = execute(folder, monkeypatch)
    ours = ViT(**json.loads(json.dumps(names["unetr"].vit.config)))
    ours.load_state_dict(read_checkpoint(folder / "encoder.safetensors"))
    assert names["vit"].__module__.startswith("monai.") and len(code((folder / "README.md").read_text())) == 2
    crop = torch.randn(2, 1, *ours.img_size)
    with torch.no_grad():
        expected, hidden = ours.eval()(crop)
        for network in (names["vit"], names["unetr"].vit):
            tokens, theirs = network.eval()(crop)
            torch.testing.assert_close(tokens, expected, atol=1e-5, rtol=0)
            for one, other in zip(theirs, hidden, strict=True):
                torch.testing.assert_close(one, other, atol=1e-5, rtol=0)


def test_an_encoder_that_fits_monais_unetr_is_put_into_it(tmp_path, monkeypatch):
    torch.manual_seed(0)
    ours, _ = stand_in(tmp_path, in_channels=3, img_size=(32, 48, 16), patch_size=16, num_layers=12)
    names = execute(tmp_path, monkeypatch)
    assert names["unetr"].__module__.startswith("monai.")
    crop = torch.randn(1, 3, 32, 48, 16)
    with torch.no_grad():
        expected, _ = ours.eval()(crop)
        for network in (names["vit"], names["unetr"].vit):
            torch.testing.assert_close(network.eval()(crop)[0], expected, atol=1e-5, rtol=0)
        assert names["unetr"](crop).shape == (1, 2, 32, 48, 16)


def test_code_that_loads_the_wrong_file_stops(tmp_path, monkeypatch):
    stand_in(tmp_path, in_channels=1, img_size=16, patch_size=8, num_layers=2)
    other = ViT(in_channels=1, img_size=16, patch_size=8, num_layers=1, **SMALL)
    save_model(tmp_path / "encoder.safetensors", other, metadata={})
    with pytest.raises(AssertionError):
        execute(tmp_path, monkeypatch)


def test_the_figures_are_those_of_the_run(finished):
    folder, _ = finished
    card, done = (folder / "README.md").read_text(), runs.metrics(folder)
    config = json.loads((folder / "config.json").read_text())
    assert f"| this encoder with its head | {done['last']['validation_loss']:.3f} |" in card
    for name, value in zip(
        ("mean of the visible voxels", "trilinear interpolation", "the corrupted input itself"),
        done["baselines"].values(),
        strict=True,
    ):
        assert f"| {name} | {value:.3f} |" in card
    probe = pd.read_csv(folder / "inside.csv")["linear"].iloc[-1]
    assert f"with Dice {probe:.3f}" in card
    assert f"{done['last']['step']} steps, {done['seconds']:.0f} s on {done['device']}" in card
    assert f"{done['volumes']} volumes" in card and "`simmim__mask_ratio=0.5`: SimMIM in 3D (Xie et al. 2022)" in card
    for key in ("hidden_size", "mlp_dim", "num_layers", "num_heads", "in_channels"):
        assert f"{key}={config['settings'][key]}" in card
    assert f"commit {config['commit'] or 'unknown'};" in card
    assert "not for clinical use" in card.lower().replace("\n", " ")
    count = sum(tensor.numel() for tensor in read_checkpoint(folder / "encoder.safetensors").values())
    assert f"{count:,} parameters" in card


def test_a_card_of_ones_own_data_names_no_folder(finished, blobs):
    for folder in finished:
        card = (folder / "README.md").read_text()
        assert str(blobs) not in card and str(blobs.parent) not in card and blobs.name in card


def test_without_labels_nothing_is_said_of_a_probe(tmp_path):
    _, card = stand_in(tmp_path, in_channels=3, img_size=32, patch_size=8, num_layers=1)
    assert "probe" not in card.read_text()
    (tmp_path / "inside.csv").write_text("step,linear,place\n0,,\n")
    _, card = stand_in(tmp_path, in_channels=3, img_size=32, patch_size=8, num_layers=1)
    assert "probe" not in card.read_text()


# licences


@pytest.mark.parametrize(
    ("licence", "asked"),
    [
        ("CC0-1.0", "nothing is asked"),
        ("CC-BY 3.0", "name the source"),
        ("CC-BY-SA 4.0", "share-alike"),
        ("MIT (repository ababier/open-kbp)", "name the source"),
        ("Synapse terms of use, registration needed", "ask before"),
        ("CC-BY-NC-SA 4.0, registration needed", "no commercial use"),
        ("CC-BY-NC-ND 4.0, registration needed", "ask before"),
        ("not stated", "ask before"),
    ],
)
def test_what_a_licence_asks(licence, asked):
    assert asked in model_card.demands(licence)
    assert asked in model_card.demands(model_card.joined(["CC0-1.0", licence]))
    assert ("share-alike" in model_card.demands(licence)) == ("SA" in licence)


def test_a_model_has_the_licences_of_all_that_it_learnt_from(tiny_setup, tmp_path):
    from ssl_utils.experiments.exports import huggingface

    network, _ = experiments.build_network(tiny_setup, Finetuning())
    for name, licence in (("a", "CC-BY-SA 4.0"), ("b", "CC-BY-SA 4.0 + CC0-1.0")):
        save_model(tmp_path / f"{name}.safetensors", network, metadata={"data_licence": licence})
    save_model(tmp_path / "c.safetensors", network, metadata={})
    sources, path = [tmp_path / f"{name}.safetensors" for name in "abc"], tmp_path / "model.safetensors"
    prediction.save_network(path, network, tiny_setup, init="x", sources=sources)
    assert read_metadata(path)["data_licence"] == "not stated + CC-BY-SA 4.0 + CC0-1.0"
    assert huggingface._licence("CC-BY 4.0") == "license: cc-by-4.0"
    assert huggingface._licence("CC-BY 4.0 + CC0-1.0").startswith("license: other\n")


@pytest.mark.parametrize("name", REGISTRY)
def test_every_dataset_of_the_course_has_a_card(tmp_path, name):
    dataset = REGISTRY[name]
    channels = len(dataset.channels)
    _, card = stand_in(tmp_path, pools=[(dataset, 7)], in_channels=channels, img_size=16, patch_size=8, num_layers=1)
    text = card.read_text()
    assert dataset.source in text and dataset.licence in text and f"{dataset.title}, 7 volumes" in text
    spacing = " x ".join(f"{axis:g}" for axis in dataset.grids["coarse"].spacing)
    assert (f"{spacing} mm" in text) != dataset.grids["coarse"].fit
    assert ("[-175, 250] HU" in text) == (dataset.intensity == Intensity("window", -175, 250))
    assert ("no patient was seen" in text) == (dataset.phantom is not None)


def test_a_pool_of_two_datasets_names_both_licences(tmp_path):
    pools = [(REGISTRY["phantom"], 5), (REGISTRY["hippocampus"], 9)]
    _, card = stand_in(tmp_path, pools=pools, in_channels=1, img_size=16, patch_size=8, num_layers=1)
    text = card.read_text()
    assert "| licence of the data (phantom) | CC0-1.0: nothing" in text
    assert "| licence of the data (hippocampus) | CC-BY-SA 4.0: name the source; share-alike" in text


# fine-tuned networks


def test_the_command_of_a_network_card_predicts(finished, blobs, tmp_path, monkeypatch):
    _, folder = finished
    (command,) = code((folder / "README.md").read_text(), "bash")
    words = shlex.split(command)
    assert words[:3] == ["python", "-m", "ssl_utils"]
    image = blobs / "imagesTr" / "blob_00.nii.gz"
    swapped = {"model.safetensors": str(folder / "model.safetensors"), "image.nii.gz": str(image)}
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cli.sys, "argv", ["ssl_utils", *(swapped.get(word, word) for word in words[3:])])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    assert not stop.value.code
    assert nib.load(tmp_path / "predictions" / image.name).shape == nib.load(image).shape


def test_the_figures_of_a_network_are_those_of_its_run(finished):
    encoder, folder = finished
    card, done = (folder / "README.md").read_text(), runs.metrics(folder)
    assert f"| mean of the cases | {done['dice']:.3f} |" in card and f"On {done['cases']} test cases" in card
    assert "this network was scored once" in card
    scores = pd.read_csv(folder / "per_case.csv").groupby("class")["dice"].mean()
    assert len(scores) == 2
    for name, value in scores.items():
        assert f"| {name} | {value:.3f} |" in card
    assert f"`{encoder.name}`, fine-tuned on 2 labelled volumes (label subset 0, seed 0)" in card
    assert "licence of the pretraining data | not stated: its terms are its owner's" in card


def test_a_run_is_done_only_when_its_card_is_there(tiny_setup, tmp_path, monkeypatch):
    monkeypatch.setenv("SSL_RUNS_ROOT", str(tmp_path))

    def breaks(*_, **__):
        raise OSError("the power went")

    with monkeypatch.context() as patch, pytest.raises(OSError, match="power"):
        patch.setattr(model_card, "_write", breaks)
        experiments.finetune(tiny_setup, Finetuning(init="random", num_labeled=2))
    assert not list(tmp_path.rglob("metrics.json"))
    folder = experiments.finetune(tiny_setup, Finetuning(init="random", num_labeled=2))
    assert "licence of the pretraining" not in (folder / "README.md").read_text()
