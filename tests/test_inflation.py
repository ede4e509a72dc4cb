"""The pretext task: the encoder is the inflated 2D network at every validation, by training or from a file."""

import json
from dataclasses import replace

import pytest
import torch
from test_vit2d import E, hub_weights, saved

from ssl_utils import experiments
from ssl_utils.errors import CourseError
from ssl_utils.experiments import Finetuning, Pretraining, building, runs
from ssl_utils.networks import network_class
from ssl_utils.networks.checkpoints import read_metadata
from ssl_utils.networks.vit import ViT
from ssl_utils.networks.window_vit import WindowEncoder
from ssl_utils.pretext.inflation import InflationTask

ROI = (16, 24, 16)
SIZES = {"in_channels": 1, "img_size": ROI, "patch_size": 8, "hidden_size": 24, "mlp_dim": 24, "num_layers": 2}
SIZES |= {"num_heads": 2}


def task(encoder=ViT, **options) -> InflationTask:
    torch.manual_seed(0)
    return InflationTask(encoder=encoder(**SIZES), lr=1e-2, steps=10, **options)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("encoder", [ViT, WindowEncoder])
def test_the_2d_network_is_trained_and_the_encoder_follows_it(encoder):
    module, images = task(encoder), torch.randn(2, 1, *ROI)
    before = {key: value.clone() for key, value in module.encoder.state_dict().items()}
    optimizer = module.configure_optimizers()["optimizer"]
    module.losses(images, generator())["loss"].backward()
    optimizer.step()
    trained = {name for name, weight in module.named_parameters() if weight.grad is not None}
    assert trained == {name for name, _ in module.named_parameters() if name.startswith("mae.")}
    assert all(torch.equal(value, before[key]) for key, value in module.encoder.state_dict().items())
    module.on_validation_start()
    kernel = module.deep.patch_embedding.patch_embeddings.weight
    flat = module.mae.encoder.patch_embedding.patch_embeddings.weight[..., 0]
    depth = kernel.shape[-1]
    assert torch.equal(kernel[..., depth // 2], flat) and depth == (5 if encoder is WindowEncoder else 8)
    assert kernel.count_nonzero() == flat.count_nonzero(), "all other slices are zero"
    assert torch.equal(module.deep.blocks[1].mlp.linear1.weight, module.mae.encoder.blocks[1].mlp.linear1.weight)


def test_slices_are_drawn_in_training_and_all_scored_in_validation():
    module, images = task(slices=3), torch.randn(2, 1, *ROI)
    seen = []
    module.mae.losses = lambda slices, _: seen.append(slices) or {"loss": slices.mean()}
    for seed in (0, 0, 1):
        module.losses(images, generator(seed))
    assert seen[0].equal(seen[1]) and not seen[0].equal(seen[2]) and seen[0].shape == (6, 1, 16, 24, 1)
    module.eval().losses(images, generator())
    assert seen[-1].shape == (32, 1, 16, 24, 1) and seen[-1][3, ..., 0].equal(images[0, ..., 3])


def test_what_is_shown_and_scored_are_the_slices_of_the_crop():
    module, images = task().eval(), torch.randn(1, 1, *ROI)
    shown = module.reconstruct(images, generator())
    assert all(one.shape == images.shape for one in shown.values())
    assert torch.equal(shown["reconstruction"][~shown["hidden"]], images[~shown["hidden"]])
    loss = module.losses(images, generator())["reconstruction"]
    torch.testing.assert_close(module.score(shown["reconstruction"], images, shown["hidden"]), loss)


def test_random_has_the_sizes_of_the_file_and_none_of_its_weights(tmp_path):
    path = str(saved(tmp_path / "model.safetensors", hub_weights()))
    inflated, random = (task(weights=path, how=how) for how in ("centre", "random"))
    assert inflated.steps == random.steps == 0 and inflated.encoder.hidden_size == E
    one, two = inflated.encoder.state_dict(), random.encoder.state_dict()
    assert {k: v.shape for k, v in one.items()} == {k: v.shape for k, v in two.items()}
    assert not torch.equal(one["blocks.0.mlp.linear1.weight"], two["blocks.0.mlp.linear1.weight"])
    torch.testing.assert_close(one["blocks.1.mlp.linear1.weight"], hub_weights()["encoder.layer.1.mlp.fc1.weight"])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"depth": 3}, "depth=3: is the window of window_vit"),
        ({"encoder": WindowEncoder, "depth": 2}, "depth=2: a window needs a middle slice"),
        ({"how": "max"}, "how='max': unknown; choose one of centre, average, random"),
        ({"weights": "nowhere.safetensors"}, "nowhere.safetensors: no such file; put"),
    ],
)
def test_bad_options_are_refused(options, words):
    with pytest.raises(CourseError, match=words) as caught:
        task(**options)
    assert "\n" not in str(caught.value)


def test_a_network_without_tokens_is_refused():
    unet = network_class("unet").new_encoder(in_channels=1, img_size=ROI)
    with pytest.raises(CourseError, match="unet has no tokens; choose network=unetr or window_vit"):
        InflationTask(encoder=unet, lr=1e-3, steps=1)


@pytest.mark.parametrize("network", ["unetr", "window_vit"])
def test_weights_of_a_file_become_a_pretraining_run_and_are_fine_tuned(tiny_setup, network, tmp_path, monkeypatch):
    monkeypatch.setenv("SSL_RUNS_ROOT", str(tmp_path / "runs"))
    path = saved(tmp_path / "tiny_dino.safetensors", hub_weights())
    run = Pretraining.of("inflation", weights=str(path), network=network, depth=3 if network == "window_vit" else None)
    assert "/" not in run.name and "weights=tiny_dino" in run.name
    folder = experiments.pretrain(tiny_setup, run)
    done, card = runs.metrics(folder), (folder / "README.md").read_text()
    assert done["last"]["step"] == 0 and done["seconds"] == 0 and "the weights come from a file" in card
    config = json.loads(read_metadata(folder / "encoder.safetensors")["config"])
    assert config["hidden_size"] == E and config["as_2d"] and config.get("depth", 3) == 3
    (tmp_path / "b").mkdir()
    other = saved(tmp_path / "b" / path.name, {key: value + 1 for key, value in hub_weights().items()})
    with pytest.raises(CourseError, match=f"weights=.*{folder.name} has the weights of another file of this name; ch"):
        experiments.pretrain(tiny_setup, replace(run, options={**run.options, "weights": str(other)}))
    built, report = building.build_network(tiny_setup, Finetuning(init=folder.name))
    assert report.share == 1 and not report.missing and built.config["hidden_size"] == E
    inflated = experiments.load_task(tiny_setup, run).encoder.state_dict()
    assert all(torch.equal(value, inflated[key]) for key, value in built.encoder.state_dict().items())
    scored = experiments.finetune(tiny_setup, Finetuning(init=folder.name, num_labeled=2, budget=0.2))
    assert runs.metrics(scored)["transfer_share"] == 1
    saved(path, {name: value + 0.01 for name, value in hub_weights().items()})
    with pytest.raises(CourseError, match="has the weights of another file of this name"):
        experiments.pretrain(tiny_setup, run)
