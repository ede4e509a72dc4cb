"""Every network of the registry keeps the interface: it is pretrained, transferred, fine-tuned and saved like UNETR."""

import json
import re
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from monai.networks.nets.mednext import create_mednext
from nnunet_packages import RESENC

from course import plan
from ssl_utils import experiments
from ssl_utils.data import datasets, volumes
from ssl_utils.errors import CourseError
from ssl_utils.experiments import Finetuning, Pretraining, building, prediction, runs, scales
from ssl_utils.experiments.setups import Setup
from ssl_utils.networks import NETWORKS, build, checkpoints, network_class
from ssl_utils.networks.mednext import MedNeXt
from ssl_utils.networks.transfer import load_encoder, load_network
from ssl_utils.networks.unet import UNet
from ssl_utils.segmentation.finetune import ALWAYS, SegmentationTask

TASKS = {"restoration": {}, "simmim": {}, "voxel_clusters": {"clusters": 4}}
SCOPES = ("encoder", "network")
CONVOLUTIONS = ["unet", "unet_plain", "mednext", "mednext_b"]
LEFT_OUT = ("mednext_m", "mednext_l", "resenc_unet")
every_network = pytest.mark.parametrize("name", [*(name for name in NETWORKS if name not in LEFT_OUT), RESENC])
every_convolution = pytest.mark.parametrize("name", [*CONVOLUTIONS, RESENC])
every_scope = pytest.mark.parametrize("scope", SCOPES)


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.fixture(scope="module")
def where(blobs, tmp_path_factory):
    """A setup whose runs are shared by all tests of this file: one that is done is not made again."""
    scale = replace(
        scales.get("smoke"),
        pretrain_steps=2,
        finetune_steps=2,
        hidden_size=24,
        mlp_dim=24,
        num_layers=2,
        num_heads=2,
        max_unlabeled=3,
        max_validation=1,
        max_test=1,
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SSL_RUNS_ROOT", str(tmp_path_factory.mktemp("networks")))
        published = UNet.sizes  # its channels are the same at smoke and laptop; tests do with fewer
        patch.setattr(UNet, "sizes", classmethod(lambda cls, scale: published(scale) | {"feature_size": 4}))
        yield Setup(datasets.get("folder", blobs), scale)


def fresh(where, name: str, **changes):
    return network_class(name)(**{**building.network_config(where, name), "out_channels": 3, **changes})


def pretrained(where, name: str, *, scope: str, task: str = "simmim"):
    return experiments.pretrain(where, Pretraining.of(task, network=name, scope=scope, **TASKS[task]))


def crop(where, batch: int = 1, channels: int = 1) -> torch.Tensor:
    return torch.randn(batch, channels, *where.grid.roi)


def segmentation(where, network, **options) -> SegmentationTask:
    numbers = {"regions": None, "held_out": [], "roi": where.grid.roi, "overlap": 0.25, "lr": 1e-3, "steps": 10}
    shares = np.array([0.7, 0.2, 0.1])
    return SegmentationTask(network=network, values=[0, 1, 2], shares=shares, **numbers | options)


def one_line(call, words: str) -> None:
    with pytest.raises(CourseError, match=words) as caught:
        call()
    assert "\n" not in str(caught.value)


# the interface


@every_network
def test_the_config_rebuilds_an_equal_network(where, name):
    network = fresh(where, name).eval()
    config = json.loads(json.dumps(network.config))
    assert config["network"] == name
    twin = build(config).eval()
    assert type(twin) is type(network) and twin.config == network.config
    assert not any(twin.load_state_dict(network.state_dict()))
    images = crop(where)
    with torch.no_grad():
        assert torch.equal(twin(images), network(images))


@every_network
def test_features_go_from_coarse_to_fine(where, name):
    network, images = fresh(where, name).eval(), crop(where, 2)
    with torch.no_grad():
        levels, logits = network.features(images), network(images)
        tokens, hidden = network.encoder(images)
        assert torch.equal(network.decode(images, tokens, hidden), logits)
    doublings = len(levels) - 1
    halved = [2 if side > 1 else 1 for side in network.encoder.patch_size]  # slices of window_vit are not
    shapes = [
        tuple(n // h ** (doublings - i) for n, h in zip(where.grid.roi, halved, strict=True))
        for i in range(len(levels))
    ]
    assert [tuple(level.shape[2:]) for level in levels] == shapes and len({*shapes}) == len(shapes)
    assert logits.shape == (2, 3, *where.grid.roi) and all(len(level) == 2 for level in levels)
    encoder = network.encoder
    assert shapes[0] == encoder.grid and encoder.patch_size == tuple(h**doublings for h in halved)
    assert encoder.patch_size[:2] == (where.scale.patch_size,) * 2, "a token is a patch of the scale"
    assert tokens.shape == (2, np.prod(encoder.grid), encoder.hidden_size)


@every_network
def test_the_parts_of_the_encoder_are_the_encoder(where, name):
    network = fresh(where, name)
    parts = network.encoder_parts()
    weights = [parameter for part in parts.values() for parameter in part.parameters()]
    ids = {id(parameter) for parameter in weights}
    assert len(parts) > 2 and len(ids) == len(weights), "no weight is in two parts"
    assert ids == {id(parameter) for parameter in network.encoder.parameters()}
    rest = {id(parameter) for part in network.decoder_parts() for parameter in part.parameters()}
    assert not ids & rest and len(ids | rest) == len(list(network.parameters()))
    first = {id(network.encoder.get_parameter(weight)) for weight in network.encoder.reads_image}
    assert first <= {id(p) for p in next(iter(parts.values())).parameters()}, "the part that reads the image is first"


@every_network
def test_the_encoder_alone_is_that_of_the_network(where, name):
    config, network = building.network_config(where, name), fresh(where, name)
    encoder = network_class(name).new_encoder(**config)
    assert not any(encoder.load_state_dict(network.encoder.state_dict()))
    again = network_class(name).new_encoder(**{k: v for k, v in encoder.config.items() if k != "network"})
    assert {k: v.shape for k, v in again.state_dict().items()} == {k: v.shape for k, v in encoder.state_dict().items()}


def test_the_registry_needs_no_torch_and_names_what_there_is():
    look = "import sys; from ssl_utils.networks import NETWORKS; print({'torch', 'monai'} & {*sys.modules})"
    assert subprocess.run([sys.executable, "-c", look], capture_output=True, text=True).stdout == "set()\n"
    one_line(lambda: network_class("vnet"), "network='vnet'.*unetr, unet, unet_plain, mednext, mednext_b")


@every_network
def test_multiplications_and_weights_are_counted(where, name):
    counts, network = plan.counted(where, name), fresh(where, name)
    assert set(counts) == {"encoder", name} and 0 < counts["encoder"][0] < counts[name][0]
    assert counts[name][1] * 1e6 == pytest.approx(sum(p.numel() for p in network.parameters()))
    assert counts["encoder"][1] * 1e6 == pytest.approx(sum(p.numel() for p in network.encoder.parameters()))


# pretraining


@pytest.mark.long
@every_network
@every_scope
@pytest.mark.parametrize("task", TASKS)
def test_every_task_pretrains_every_network_in_either_scope(where, name, scope, task):
    folder = pretrained(where, name, scope=scope, task=task)
    assert (folder / "network.safetensors").exists() == (scope == "network")
    options = {"network": name, "scope": scope, **TASKS[task]}
    module = experiments.load_task(where, Pretraining.of(task, **options))
    encoder = checkpoints.read_checkpoint(folder / "encoder.safetensors")
    assert all(torch.equal(value, encoder[key]) for key, value in module.encoder.state_dict().items())
    untrained = experiments.build_task(where, Pretraining.of(task, seed=0, **options)).encoder.state_dict()
    assert any(not torch.equal(value, encoder[key]) for key, value in untrained.items())
    network, report = experiments.build_network(where, Finetuning(init=folder.name, seed=0))
    assert network.config["network"] == name and report.share == 1 and not report.missing


@every_network
@every_scope
@pytest.mark.parametrize("task", TASKS)
def test_every_weight_gets_a_gradient(where, name, scope, task):
    options = {"network": name, "scope": scope, **TASKS[task]}
    module = experiments.build_task(where, Pretraining.of(task, seed=0, **options))
    module.losses(crop(where, 2), torch.Generator().manual_seed(0))["loss"].backward()
    assert not [name for name, weight in module.named_parameters() if weight.grad is None]


@every_network
@every_scope
def test_simmim_hides_voxels_and_computes_its_loss_on_them(where, name, scope):
    module = experiments.build_task(where, Pretraining.of("simmim", seed=0, network=name, scope=scope)).eval()
    images = crop(where)
    mask = module.mask(images, torch.Generator().manual_seed(0))
    hidden = module.voxel_mask(mask, 1)
    with torch.no_grad():
        prediction = module(images, mask)
        assert torch.equal(module(torch.where(hidden, 1e3, images), mask), prediction), "hidden voxels are not seen"
        assert not torch.equal(module(torch.where(hidden, images, images + 5), mask), prediction)
        assert not torch.equal(module(torch.where(hidden, images, images + 5), ~mask), prediction)
    loss = module.score(prediction, images, hidden)
    assert torch.equal(module.score(torch.where(hidden, prediction, 1e3), images, hidden), loss)
    assert not torch.equal(module.score(torch.where(hidden, 1e3, prediction), images, hidden), loss)


def test_the_contrastive_branch_pools_the_coarsest_map(where):
    module = experiments.build_task(where, Pretraining.of("restoration", seed=0, network="unet"))
    images = crop(where)
    _, tokens = module(images)
    torch.testing.assert_close(tokens.mean(1), module.encoder(images)[1][-1].mean((2, 3, 4)))
    module.losses(crop(where, 2), torch.Generator().manual_seed(0))["contrast"].backward()
    assert all(part.grad is not None for part in module.encoder.parameters())


@every_convolution
def test_mae_needs_tokens(where, name):
    options = {"network": name}
    one_line(
        lambda: experiments.build_task(where, Pretraining.of("mae", seed=0, **options)), f"needs tokens, which {name}"
    )


# transfer


@every_network
@every_scope
def test_what_is_moved_computes_the_same(where, name, scope):
    folder = pretrained(where, name, scope=scope)
    source = experiments.load_task(where, Pretraining.of("simmim", network=name, scope=scope))
    network, report = experiments.build_network(where, Finetuning(init=folder.name, seed=5))
    untouched, nothing = experiments.build_network(where, Finetuning(init="random", seed=5, network=name))
    assert nothing is None and report.share == 1 and f"loaded {1:.2%}" in report.table()
    images = crop(where)
    with torch.no_grad():
        (tokens, hidden), (theirs, layers) = (part.eval()(images) for part in (network.encoder, source.encoder))
        assert torch.equal(tokens, theirs) and all(map(torch.equal, hidden, layers))
        assert not torch.equal(untouched.eval().encoder(images)[0], tokens)
        if scope == "network":
            assert all(map(torch.equal, network.eval().features(images), source.decoder.maps(images, theirs, layers)))
    start, now = untouched.state_dict(), network.state_dict()
    assert all(torch.equal(now[key], start[key]) for key in start if key.startswith("out")), "no output layer is moved"
    inside = f"{network.encoder_name}."
    rest = [key for key in start if not key.startswith((inside, "out")) and not key.endswith("bias")]
    assert scope == "network" or all(torch.equal(now[key], start[key]) for key in rest)


def refused(target, source, words: str, load=load_encoder) -> None:
    before = {key: value.clone() for key, value in target.state_dict().items()}
    one_line(lambda: load(target, source), words)
    assert all(torch.equal(value, before[key]) for key, value in target.state_dict().items()), "half loaded"


@every_network
def test_a_transfer_is_all_or_nothing(where, name, tmp_path):
    network = fresh(where, name)
    source = network.encoder.state_dict()
    largest = max(source, key=lambda key: source[key].numel())
    refused(fresh(where, name).encoder, {k: v for k, v in source.items() if k != largest}, "would be loaded")
    first = network.encoder.reads_image[0]
    refused(fresh(where, name).encoder, {k: v for k, v in source.items() if k != first}, "reads the image must be")
    refused(fresh(where, name).encoder, source | {largest: source[largest] * torch.nan}, f"{largest} holds NaN")
    for number, other in enumerate({*CONVOLUTIONS, "unetr", "window_vit"} - {name}):
        checkpoints.save_model(tmp_path / f"{number}.safetensors", fresh(where, other).encoder, metadata={})
        refused(fresh(where, name).encoder, tmp_path / f"{number}.safetensors", "no tensor has|would be loaded|has ")
    whole = network.state_dict()
    decoder = next(key for key in whole if not key.startswith((network.encoder_name, "out")))
    for broken, words in (
        ({k: v for k, v in whole.items() if k != decoder}, "its decoder lacks"),
        (whole | {decoder: whole[decoder] * torch.nan}, "NaN or infinity"),
        ({k: v for k, v in whole.items() if not k.endswith(largest)}, "would be loaded"),
    ):
        checkpoints.save_weights(tmp_path / "network.safetensors", broken, metadata={})
        refused(fresh(where, name), tmp_path / "network.safetensors", words, load_network)


@every_convolution
def test_a_deeper_pyramid_is_refused(where, name):
    refused(fresh(where, name, levels=3).encoder, fresh(where, name).encoder.state_dict(), "has 3.*levels")


@every_network
def test_other_channels_become_the_mean(where, name):
    source, target = fresh(where, name).encoder.eval(), fresh(where, name, in_channels=3).encoder.eval()
    report = load_encoder(target, source.state_dict())
    assert set(report.resized) == set(source.reads_image) and report.share == 1
    images = crop(where)
    with torch.no_grad():
        tokens = target(images.expand(-1, 3, -1, -1, -1))[0]
        torch.testing.assert_close(tokens, source(images)[0], atol=1e-4, rtol=1e-4)


@every_network
def test_a_run_of_another_network_is_refused(where, name):
    folder = pretrained(where, name, scope="encoder")
    for other in {*CONVOLUTIONS, "unetr", "window_vit"} - {name}:
        one_line(
            lambda other=other: experiments.build_network(where, Finetuning(init=folder.name, seed=0, network=other)),
            f"network='{other}': {folder.name} was pretrained for {name}",
        )


@every_network
@every_scope
def test_permuted_weights_are_the_same_numbers_in_another_order(where, name, scope):
    folder = pretrained(where, name, scope=scope)
    plain, shuffled = (
        experiments.build_network(where, Finetuning(init=folder.name, seed=0, permuted=flag))[0]
        for flag in (False, True)
    )
    one, two = plain.state_dict(), shuffled.state_dict()
    assert all(torch.equal(one[key].flatten().sort().values, two[key].flatten().sort().values) for key in one)
    moved = {key for key in one if not torch.equal(one[key], two[key])}
    assert f"{plain.encoder_name}.{plain.encoder.reads_image[0]}" in moved
    assert any(not key.startswith(plain.encoder_name) for key in moved) == (scope == "network")


# fine-tuning


@every_network
def test_freezing_stops_the_encoder_alone(where, name):
    module = segmentation(where, fresh(where, name), freeze_epochs=ALWAYS)
    module.on_train_epoch_start()
    module.training_step({"image": crop(where), "label": torch.randint(0, 3, (1, 1, *where.grid.roi))}, 0).backward()
    parts = module.network.encoder_parts().values()
    assert all(weight.grad is None for part in parts for weight in part.parameters())
    assert all(weight.grad is not None for part in module.network.decoder_parts() for weight in part.parameters())
    module.freeze_epochs = 0
    module.on_train_epoch_start()
    assert all(weight.requires_grad for weight in module.parameters())


@every_network
def test_freezing_the_network_leaves_its_output_layer(where, name):
    network = fresh(where, name)
    module = segmentation(where, network, freeze_epochs=ALWAYS, freeze="network")
    before = {key: value.clone() for key, value in network.state_dict().items()}
    module.on_train_epoch_start()
    module.training_step({"image": crop(where), "label": torch.randint(0, 3, (1, 1, *where.grid.roi))}, 0).backward()
    learnt = {key for key, weight in network.named_parameters() if weight.grad is not None}
    assert learnt == {key for key, _ in network.named_parameters() if key.startswith("out")} and learnt
    after = network.state_dict()
    assert all(torch.equal(after[key], before[key]) for key in after), "nor do statistics of batch norm change"
    module.freeze_epochs = 0
    module.on_train_epoch_start()
    assert all(weight.requires_grad for weight in module.parameters()) and all(m.training for m in network.modules())


@every_network
def test_outer_parts_learn_slower(where, name):
    module = segmentation(where, fresh(where, name), layer_decay=0.5)
    factors = dict((id(part), factor) for part, factor in module.layers())
    parts = [factors[id(part)] for part in module.network.encoder_parts().values()]
    assert parts == [0.5 ** (len(parts) - 1 - i) for i in range(len(parts))] and parts == sorted(parts)
    assert {factors[id(part)] for part in module.network.decoder_parts()} == {1.0}
    groups = module.configure_optimizers()["optimizer"].param_groups
    listed = [id(weight) for group in groups for weight in group["params"]]
    assert sorted(listed) == sorted(id(weight) for weight in module.network.parameters()), "each is in one group"


@every_network
def test_the_untrained_network_predicts_the_prior(where, name):
    network = fresh(where, name)
    for parameter in network.out.parameters():
        torch.nn.init.zeros_(parameter)
    probabilities = segmentation(where, network).network(crop(where)).softmax(1).mean((0, 2, 3, 4))
    torch.testing.assert_close(probabilities, torch.tensor([0.7, 0.2, 0.1]))


@pytest.mark.long
@every_network
@every_scope
def test_a_run_is_fine_tuned_saved_and_predicts(where, name, scope, tmp_path):
    init = pretrained(where, name, scope=scope).name
    folder = experiments.finetune(
        where, Finetuning(init=init, num_labeled=2, network=name, freeze_epochs=1, layer_decay=0.7)
    )
    assert runs.metrics(folder)["transfer_share"] == 1
    network, setup = prediction.load_saved(folder / "model.safetensors")
    assert network.config["network"] == name
    image = volumes.read_image(where.datalist.test[0].image, channels=1)
    expected = experiments.predict_case(setup, network, image)
    (written,) = experiments.predict(folder / "model.safetensors", [where.datalist.test[0].image], tmp_path)
    assert np.array_equal(volumes.read_label(written, values={0: "", 1: "", 2: ""}).array[0], expected)
    prediction.save_network(tmp_path / "again.safetensors", network, setup, init=init)
    again, _ = prediction.load_saved(tmp_path / "again.safetensors")
    assert np.array_equal(experiments.predict_case(setup, again, image), expected)
    count = sum(parameter.numel() for parameter in network.parameters())
    assert f"| network | `{name}`, {count:,} parameters: in_channels=1" in (folder / "README.md").read_text()


@every_convolution
def test_the_card_of_an_encoder_names_its_network_and_its_code_runs(where, name, monkeypatch, capsys):
    folder = pretrained(where, name, scope="network")
    card = (folder / "README.md").read_text()
    count = sum(parameter.numel() for parameter in fresh(where, name).encoder.parameters())
    assert f"the encoder of `{name}`, {count:,} parameters" in card and f"the whole network (`{name}`)" in card
    monkeypatch.chdir(folder)
    (code,) = re.findall(r"^```python\n(.*?)^```$", card, re.DOTALL | re.MULTILINE)
    exec(code, {})
    assert "loaded 100.00%" in capsys.readouterr().out and "MONAI" not in card.partition("## Use and limits")[0]


def test_a_network_saved_before_the_registry_loads(where, tmp_path):
    for name in ("unetr", "unet"):
        network = fresh(where, name)
        kept = {"network", "img_size", "norm"} if name == "unet" else {"network"}
        network.config = {key: value for key, value in network.config.items() if key not in kept}
        prediction.save_network(tmp_path / "old.safetensors", network, where, init="random")
        loaded, _ = prediction.load_saved(tmp_path / "old.safetensors")
        assert type(loaded) is type(network)
        assert all(map(torch.equal, loaded.state_dict().values(), network.state_dict().values()))


# U-Net and MedNeXt


@pytest.mark.parametrize("norm", ["batch", "group"])
def test_a_unet_of_another_norm_is_moved_with_all_it_holds(where, norm, tmp_path):
    source = fresh(where, "unet", norm=norm)
    source(crop(where, 2))  # batch norm counts its batches in whole numbers
    checkpoints.save_model(tmp_path / "encoder.safetensors", source.encoder, metadata={})
    target = fresh(where, "unet", norm=norm).eval()
    assert load_encoder(target.encoder, tmp_path / "encoder.safetensors").share == 1
    images = crop(where)
    with torch.no_grad():
        assert torch.equal(target.encoder(images)[0], source.eval().encoder(images)[0])
    refused(fresh(where, "unet").encoder, tmp_path / "encoder.safetensors", f"norm={norm}, this encoder has instance")


@pytest.mark.parametrize("deep_supervision", [False, True])
def test_mednext_s_is_monais(deep_supervision):
    options = {"in_channels": 1, "out_channels": 3, "deep_supervision": deep_supervision}
    torch.manual_seed(1)
    ours = MedNeXt(**options)
    torch.manual_seed(1)
    theirs, images = create_mednext("S", **options), torch.randn(1, 1, 32, 32, 32)
    with torch.no_grad():
        if deep_supervision:
            assert all(map(torch.equal, ours(images), theirs(images)))
        assert torch.equal(ours.eval()(images), theirs.eval()(images))
    assert sum(p.numel() for p in ours.parameters()) == sum(p.numel() for p in theirs.parameters())


def test_deep_supervision_trains_every_level_and_predicts_as_without(where):
    network, plain = fresh(where, "mednext", deep_supervision=True), fresh(where, "mednext").eval()
    images, label = crop(where), torch.randint(0, 3, (1, 1, *where.grid.roi))
    logits = network.train()(images)
    assert [tuple(one.shape[2:]) for one in logits] == [tuple(n // 2**i for n in where.grid.roi) for i in range(4)]
    module = segmentation(where, network)
    assert len(network.out_biases) == 4 and all(torch.equal(b, network.out_biases[0]) for b in network.out_biases)
    loss = module.training_step({"image": images, "label": label}, 0)
    targets = [torch.nn.functional.interpolate(label.float(), one.shape[2:], mode="nearest-exact") for one in logits]
    levels = [module.loss(one, target) for one, target in zip(network(images), targets, strict=True)]
    torch.testing.assert_close(loss, sum(one / 2**i for i, one in enumerate(levels)) / 1.875)
    loss.backward()
    assert all(weight.grad is not None for weight in network.parameters())
    plain.load_state_dict(network.state_dict(), strict=False)
    with torch.no_grad():
        assert torch.equal(network.eval()(images), plain(images))


def test_size_b_and_deep_supervision_are_options_of_a_run(where):
    run = Finetuning(num_labeled=1, network="mednext_b", deep_supervision=True)
    assert run.name == "random__deep_supervision=True__network=mednext_b"
    folder = experiments.finetune(where, run)
    network, _ = prediction.load_saved(folder / "model.safetensors")
    config = network.config
    assert (config["network"], config["variant"], config["deep_supervision"]) == ("mednext_b", "B", True)
    assert len(network.train()(crop(where))) == config["levels"]
    settings = json.loads((folder / "config.json").read_text())["settings"]
    assert settings["deep_supervision"] is True and settings["network"] == "mednext_b"
    with pytest.raises(CourseError, match=r"deep_supervision=True: unetr does not support it.*mednext"):
        experiments.build_network(where, Finetuning(deep_supervision=True))


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: UNet(in_channels=1, out_channels=2, norm="layer"), "norm='layer'.*instance, batch, group"),
        (lambda: UNet(in_channels=1, out_channels=2, img_size=20), "not a multiple"),
        (lambda: MedNeXt(in_channels=1, out_channels=2, variant="T"), "variant='T'.*S, B, M, L"),
        (lambda: MedNeXt(in_channels=1, out_channels=2, levels=6), "levels=6"),
    ],
)
def test_sizes_that_cannot_be_are_refused(call, words):
    one_line(call, words)
