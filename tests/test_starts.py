"""What a segmentation network can start from: encoder, whole UNETR, shuffled weights, and the controls beside them."""

import shutil
from dataclasses import replace

import pytest
import torch

from ssl_utils import experiments
from ssl_utils.data import datasets
from ssl_utils.errors import CourseError
from ssl_utils.experiments import Finetuning, Pretraining, building, runs
from ssl_utils.experiments.setups import Setup
from ssl_utils.files import read_json, write_json
from ssl_utils.networks.checkpoints import read_checkpoint
from ssl_utils.networks.unet import UNet
from tests.conftest import tiny

WHOLE = "simmim__scope=network"


@pytest.fixture(scope="module")
def made(blobs, tmp_path_factory):
    """A setup, and runs with one UNETR that was pretrained whole, in a few steps."""
    where, root = tiny(blobs), tmp_path_factory.mktemp("made")
    where = Setup(where.dataset, replace(where.scale, pretrain_steps=3, finetune_steps=5))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SSL_RUNS_ROOT", str(root))
        experiments.pretrain(where, Pretraining.of("simmim", scope="network"))
    return where, root


@pytest.fixture
def pretrained(made, tmp_path, monkeypatch):
    """That setup, and a copy of its runs for this test."""
    where, root = made
    shutil.copytree(root, tmp_path, dirs_exist_ok=True)
    monkeypatch.setenv("SSL_RUNS_ROOT", str(tmp_path))
    return Setup(where.dataset, where.scale)


def parts(network, file):
    """Which parts of a network equal the file: encoder, decoder with its skips, last layer."""
    groups = {"encoder": [], "decoder": [], "out": []}
    for name, value in network.state_dict().items():
        part = "encoder" if name.startswith("vit.") else "out" if name.startswith("out.") else "decoder"
        groups[part].append(name in file and file[name].shape == value.shape and torch.equal(file[name], value))
    return {part for part, equal in groups.items() if all(equal)}


def test_a_whole_unetr_moves_whole_but_for_its_last_layer(pretrained):
    folder = runs.pretrain_dir(pretrained.dataset.name, "smoke", "simmim__scope=network")
    file = read_checkpoint(folder / "network.safetensors")
    moved, report = experiments.build_network(pretrained, Finetuning(init="simmim__scope=network", seed=0))
    assert parts(moved, file) == {"encoder", "decoder"} and report.share == 1
    assert not any(name.startswith("decoder") for name in report.unexpected)
    encoder_alone, _ = experiments.build_network(
        pretrained, Finetuning(init="simmim__scope=network", seed=0, scope="encoder")
    )
    assert parts(encoder_alone, file) == {"encoder"}
    assert parts(experiments.build_network(pretrained, Finetuning(init="random", seed=0))[0], file) == set()


def test_weights_of_a_run_that_was_killed_or_has_seen_the_test_are_refused(pretrained):
    folder, seen = runs.pretrain_dir(pretrained.dataset.name, "smoke", WHOLE), pretrained.pool[0]
    run, content = Finetuning(init=WHOLE), read_json(folder / "config.json")
    (folder / "metrics.json").unlink()  # as the graph does it
    assert experiments.build_network(pretrained, run)[1].share == 1
    moved = Setup(pretrained.dataset, pretrained.scale)
    moved.__dict__["datalist"] = replace(pretrained.datalist, test=(seen,))
    with pytest.raises(CourseError, match=f"has seen {seen.id}, which is in validation or test now; pretrain again"):
        experiments.build_network(moved, run)
    write_json(folder / "config.json", {key: value for key, value in content.items() if key != "metrics"})
    with pytest.raises(CourseError, match=f"init='{WHOLE}': .*{WHOLE} has not finished"):
        experiments.build_network(pretrained, run)
    with pytest.raises(CourseError, match=f"weights='{WHOLE}': .*{WHOLE} has not finished; pretrain simmim first"):
        building.weights_of(pretrained, Pretraining.of("inflation", weights=WHOLE))
    assert not runs.begin(folder, content["settings"] | {"steps": 4}) and not [*folder.glob("*.safetensors")]


def test_a_pretraining_with_another_validation_set_is_another_run_where_it_was_recorded(tmp_path):
    for before, same in (({"steps": 3}, True), ({"steps": 3, "validation": "a"}, False)):
        write_json(tmp_path / "config.json", {"layout": runs.LAYOUT, "settings": before})
        write_json(tmp_path / "metrics.json", {})
        assert runs.begin(tmp_path, {"steps": 3, "validation": "b"}) == same
        assert runs.begin(tmp_path, {"steps": 3, "validation": "b"}, first=False) == same


def test_hidden_voxels_cannot_reach_a_whole_unetr(pretrained):
    """Its skip sees the image itself, so what is hidden must be blanked there too."""
    task = experiments.load_task(pretrained, Pretraining.of("simmim", scope="network"))
    images = torch.randn(1, 1, *pretrained.grid.roi)
    mask = task.mask(images, torch.Generator().manual_seed(0))
    hidden = task.voxel_mask(mask, 1)
    with torch.no_grad():
        before, after = task(images, mask), task(torch.where(hidden, images + 5, images), mask)
        elsewhere = task(torch.where(hidden, images, images + 5), mask)
    assert torch.equal(before, after) and not torch.equal(before, elsewhere)


def test_every_weight_of_a_whole_unetr_learns(tiny_setup):
    task = experiments.build_task(tiny_setup, Pretraining.of("restoration", seed=0, scope="network"))
    task.losses(torch.randn(2, 1, *tiny_setup.grid.roi), torch.Generator().manual_seed(0))["loss"].backward()
    still = [name for name, p in task.named_parameters() if p.grad is None or not p.grad.any()]
    assert [name for name in still if not name.endswith("conv.bias")] == []  # a bias before instance norm does nothing


def test_shuffled_weights_keep_their_numbers_and_lose_their_places(pretrained):
    options = {"init": "simmim__scope=network", "scope": "encoder"}
    plain, _ = experiments.build_network(pretrained, Finetuning(**options, seed=0))
    shuffled, _ = experiments.build_network(pretrained, Finetuning(**options, permuted=True, seed=0))
    one, two = plain.vit.blocks[0].mlp.linear1.weight, shuffled.vit.blocks[0].mlp.linear1.weight
    assert not torch.equal(one, two) and torch.equal(one.flatten().sort().values, two.flatten().sort().values)
    assert torch.equal(plain.decoder2.transp_conv.conv.weight, shuffled.decoder2.transp_conv.conv.weight)


@pytest.mark.long
def test_options_name_the_run_and_the_budget_multiplies_its_steps(pretrained):
    folder = experiments.finetune(pretrained, Finetuning(init="random", num_labeled=2, budget=4))
    assert folder.parts[-3] == "random__budget=4" and runs.history(folder)["step"].iloc[-1] == 20
    assert runs.metrics(folder)["init"] == "random__budget=4"
    half = experiments.finetune(pretrained, Finetuning(init="random", num_labeled=2, budget=0.5))
    assert half.parts[-3] == "random__budget=0.5" and runs.history(half)["step"].iloc[-1] < 5
    frozen = experiments.finetune(pretrained, Finetuning(init="random", num_labeled=2, freeze_epochs=-1))
    assert frozen.parts[-3] == "random__freeze_epochs=-1"


@pytest.mark.long
def test_a_plain_unet_trains_and_predicts(pretrained, tmp_path):
    folder = experiments.finetune(pretrained, Finetuning(init="random", num_labeled=2, network="unet"))
    assert folder.parts[-3] == "random__network=unet" and runs.metrics(folder)["transfer_share"] is None
    assert set(read_checkpoint(folder / "model.safetensors")) == set(UNet(in_channels=1, out_channels=3).state_dict())
    image = pretrained.datalist.test[0].image
    written = experiments.predict(folder / "model.safetensors", [image], tmp_path / "out")
    assert written[0].exists()


@pytest.mark.parametrize(
    ("call", "line"),
    [
        (
            lambda w: experiments.build_network(w, Finetuning(init="simmim", seed=0)),
            "run chapter 03_simmim_masking first",
        ),
        (
            lambda w: experiments.build_network(w, Finetuning(init="simmim__scope=network", seed=0, network="unet")),
            "init=random",
        ),
        (
            lambda w: experiments.build_network(w, Finetuning(init="simmim__scope=network", seed=0, scope="half")),
            "encoder, network",
        ),
        (lambda w: experiments.build_task(w, Pretraining.of("simmim", seed=0, scope="half")), "encoder, network"),
        (lambda w: experiments.build_task(w, Pretraining.of("mae", seed=0, scope="network")), "scope"),
        (lambda w: experiments.pretrain(w, Pretraining.of("simmim", pool="sarcoma")), "3 channels"),
        (lambda w: experiments.pretrain(w, Pretraining.of("simmim", pool="nowhere")), "no such dataset"),
    ],
)
def test_a_start_that_cannot_be_is_refused_in_one_line(pretrained, call, line):
    with pytest.raises(CourseError, match=line) as error:
        call(pretrained)
    assert "\n" not in str(error.value)


def test_a_decoder_of_another_size_is_refused(pretrained):
    wider = Setup(pretrained.dataset, replace(pretrained.scale, feature_size=8))
    with pytest.raises(CourseError, match="feature_size"):
        experiments.build_network(wider, Finetuning(init="simmim__scope=network", seed=0))


def test_volumes_of_another_dataset_join_the_pool(pretrained, blobs, tmp_path, monkeypatch):
    shutil.copytree(blobs, tmp_path / "data" / "twin")
    twin = replace(datasets.get("folder", blobs), name="folder_twin", root=tmp_path / "data" / "twin")
    real = datasets.get
    monkeypatch.setattr(datasets, "get", lambda name, data=None: twin if name == "twin" else real(name, data))
    both = experiments.pretrain(pretrained, Pretraining.of("simmim", pool="own+twin"))
    assert both.name == "simmim__pool=own+twin"
    assert runs.metrics(both)["volumes"] == 2 * len(pretrained.pool)
