"""Fine-tuning a part of a network: stages by name, a share of the parameters, weights that are not transferred."""

import pytest
import torch

from ssl_utils import experiments
from ssl_utils.errors import CourseError
from ssl_utils.experiments import Finetuning, Pretraining
from ssl_utils.networks.checkpoints import read_checkpoint
from ssl_utils.networks.mednext import MedNeXt
from ssl_utils.networks.unet_plain import PlainUNet
from ssl_utils.segmentation.freezing import chosen, frozen_layers, last_layers, stages, train_only


def small() -> MedNeXt:
    return MedNeXt(in_channels=1, out_channels=3, img_size=16, feature_size=4, levels=3)


def trained(network) -> set[str]:
    return {name for name, parameter in network.named_parameters() if parameter.requires_grad}


def test_stages_are_all_of_the_network_from_image_to_output():
    network = small()
    assert [*stages(network)] == ["level_0", "level_1", "level_2", "up_0", "up_1", "out"]
    parameters = [id(p) for part in stages(network).values() for p in part.parameters()]
    assert sorted(parameters) == sorted(id(p) for p in network.parameters())


def test_stages_are_trained_alone_and_counted():
    network = small()
    count, total = train_only(network, "up_1+out")
    assert trained(network) == {name for name, _ in network.named_parameters() if name.startswith(("up.1.", "out."))}
    assert count == sum(p.numel() for p in network.parameters() if p.requires_grad) < total


@pytest.mark.parametrize(("share", "at_least"), [("0.9", 0.5), ("0.1", 0.02), ("0.000001", 0)])
def test_a_share_is_that_of_the_last_layers(share, at_least):
    network = small()
    count, total = train_only(network, share)
    names = [name for name, _ in network.named_parameters()]
    assert trained(network) == {*names[-len(trained(network)) :]} and "out.conv_out.weight" in trained(network)
    assert at_least * total < count and (count <= float(share) * total or trained(network) == {*names[-2:]})


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("up_9", "trainable='up_9': mednext has no stage up_9; did you mean up_0|did you mean up_1"),
        ("up_0+tail", "no stage tail; it has level_0, level_1, level_2, up_0, up_1, out"),
        ("1.5", "trainable=1.5: must be above 0 and below 1"),
    ],
)
def test_what_is_not_there_is_one_line_with_the_nearest_name(what, words):
    with pytest.raises(CourseError, match=words) as fault:
        train_only(small(), what)
    assert "\n" not in str(fault.value)


def test_frozen_batch_norm_keeps_its_statistics():
    network = PlainUNet(in_channels=1, out_channels=2, img_size=16, feature_size=4, levels=2)
    train_only(network, "out")
    for layer in frozen_layers(network.train()):
        layer.eval()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    network(torch.randn(2, 1, 16, 16, 16))
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


# In the release of BraTS-UGRIP "the final 26 layers" of MedNeXt-B with deep supervision are trained; its code is absent
READINGS = {"child": 10_529_327, "module": 19_503, "leaf": 56_495, "tensor": 13_295}


@pytest.mark.parametrize("layer", READINGS)
def test_the_last_26_layers_are_four_things(layer):
    with torch.device("meta"):
        network = MedNeXt(in_channels=4, out_channels=3, variant="B", deep_supervision=True)
    sizes = {name: parameter.numel() for name, parameter in network.named_parameters()}
    assert sum(sizes[name] for name in last_layers(network, 26, layer)) == READINGS[layer]


def test_a_run_trains_a_part_of_pretrained_weights_and_resets_another(tiny_setup, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("SSL_RUNS_ROOT", str(tmp_path))
    init = experiments.pretrain(tiny_setup, Pretraining.of("simmim", network="mednext", scope="network", steps=1)).name
    plain, _ = experiments.build_network(tiny_setup, Finetuning(init=init))
    untrained, _ = experiments.build_network(tiny_setup, Finetuning(network="mednext"))
    run = Finetuning(init=init, num_labeled=2, trainable="up_2+out", reset="up_2", budget=0.1)
    network, _ = experiments.build_network(tiny_setup, run)
    (last,) = chosen(untrained, "up_2", "reset")
    for name, value in network.state_dict().items():
        reset = name.startswith("up.2.")
        assert torch.equal(value, (untrained if reset else plain).state_dict()[name]), name
    assert not torch.equal(plain.up[2].up.conv2.weight, last.up.conv2.weight)
    folder = experiments.finetune(tiny_setup, run)
    saved = read_checkpoint(folder / "model.safetensors")
    changed = {name for name, value in network.state_dict().items() if not torch.equal(value, saved[name])}
    assert changed and all(name.startswith(("up.2.", "out.")) for name in changed)
    total = sum(p.numel() for p in network.parameters())
    count = sum(p.numel() for part in (network.up[2], network.out) for p in part.parameters())
    assert f"{count:,} of {total:,} parameters are trained" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"trainable": "out", "freeze_epochs": -1}, "trainable='out': excludes freeze_epochs"),
        ({"reset": "out"}, "reset='out': nothing is transferred at init=random"),
    ],
)
def test_options_that_exclude_each_other_are_refused(options, words):
    with pytest.raises(CourseError, match=words):
        Finetuning(**options)
