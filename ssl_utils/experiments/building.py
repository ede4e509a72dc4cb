"""From a setup to networks before training: a pretext task, or a segmentation network and what is moved into it."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from ssl_utils.errors import CourseError
from ssl_utils.experiments import runs
from ssl_utils.experiments.description import NETWORK, RANDOM, Finetuning, Pretraining
from ssl_utils.experiments.naming import base
from ssl_utils.experiments.setups import Setup
from ssl_utils.networks import checkpoints, network_class
from ssl_utils.networks.interface import SegmentationNetwork
from ssl_utils.networks.transfer import TransferReport, load_encoder, load_network, permute_weights
from ssl_utils.pretext import TASKS, task_class


def network_config(setup: Setup, network: str = NETWORK) -> dict[str, Any]:
    """Arguments of a network at this setup, all but `out_channels`.

    Raises:
        CourseError: no such network.
    """
    shape = {"in_channels": len(setup.dataset.channels), "img_size": setup.grid.roi}
    return shape | network_class(network).sizes(asdict(setup.scale))


def build_task(setup: Setup, run: Pretraining):
    """The pretext task with a fresh network, at the numbers of the scale.

    Raises:
        CourseError: task, network and scope do not go together.
    """
    kind, config, network = task_class(run.task), network_config(setup, run.network), network_class(run.network)
    torch.manual_seed(run.seed)
    encoder = network.new_encoder(**config)
    steps = run.steps or setup.scale.pretrain_steps
    module = kind(encoder=encoder, lr=setup.scale.pretrain_lr, steps=steps, seed=run.seed, **run.options)
    if (run.scope or kind.scope) == "network":
        module.reconstruct_with(network(**config, out_channels=module.out_channels))
    return module


def load_task(setup: Setup, run: Pretraining):
    """The pretrained task, ready to reconstruct.

    Raises:
        CourseError: it has not been pretrained yet.
    """
    module = build_task(setup, run)
    path = runs.pretrain_dir(setup.dataset.name, setup.scale.name, run.name) / "task.safetensors"
    if not path.exists():
        raise CourseError(f"{path}: no such file; pretrain {run.task} first")
    module.load_state_dict(checkpoints.read_checkpoint(path))
    return module.eval()


def start_of(setup: Setup, init: str, scope: str | None = None) -> tuple[Path | None, str | None]:
    """The weights file that `init` names (None: random), and the scope in which it is moved: `network` where a whole
    network was pretrained, unless `scope` asks for the encoder alone."""
    if init == RANDOM:
        return None, None
    folder = runs.pretrain_dir(setup.dataset.name, setup.scale.name, init)
    whole = folder / "network.safetensors"
    if scope == "network" or (scope is None and whole.exists()):
        path, cure = whole, "pretrain with scope=network, or move the encoder alone"
    else:
        entry = TASKS.get(base(init))
        path = folder / "encoder.safetensors"
        cure = f"run chapter {entry.chapter} first" if entry else "choose random or the name of a pretraining run"
    if not path.exists():
        raise CourseError(f"init={init!r}: {path} does not exist; {cure}")
    return path, "network" if path == whole else "encoder"


def network_of(path: Path | None) -> str:
    """The network that a weights file was pretrained for."""
    return json.loads(checkpoints.read_metadata(path).get("config", "{}")).get("network", NETWORK) if path else NETWORK


def build_network(setup: Setup, run: Finetuning) -> tuple[SegmentationNetwork, TransferReport | None]:
    """The segmentation network before fine-tuning, and what was moved into it.

    Raises:
        CourseError: no such run, the run is of another network, its weights do not fit, or the network has no deep
            supervision.
    """
    path, scope = start_of(setup, run.init, run.scope)
    name, seed = run.network or network_of(path), 1000 * run.draw + run.seed
    if path and network_of(path) != name:
        raise CourseError(
            f"network={name!r}: {run.init} was pretrained for {network_of(path)}; choose that network, or init=random"
        )
    config = network_config(setup, name) | {"out_channels": setup.dataset.out_channels}
    if run.deep_supervision:
        if not network_class(name).supports_deep_supervision:
            raise CourseError(f"deep_supervision=True: {name} does not support it; choose network=mednext or mednext_b")
        config["deep_supervision"] = True
    torch.manual_seed(seed)
    network = network_class(name)(**config)
    if path is None:
        return network, None
    report = load_network(network, path) if scope == "network" else load_encoder(network.encoder, path)
    if run.permuted:
        permute_weights(network if scope == "network" else network.encoder, torch.Generator().manual_seed(seed))
    return network, report
