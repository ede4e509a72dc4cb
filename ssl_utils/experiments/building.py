"""From a setup to networks at their start: a pretext task, or a segmentation network and what is moved into it."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from ssl_utils import networks
from ssl_utils.errors import CourseError
from ssl_utils.experiments import runs
from ssl_utils.experiments.naming import base, given, variant
from ssl_utils.experiments.setups import OF_POOL, Setup
from ssl_utils.networks import checkpoints
from ssl_utils.networks.interface import SegmentationNetwork
from ssl_utils.networks.transfer import TransferReport, load_encoder, load_network, permute_weights
from ssl_utils.pretext import TASKS, task_class

SCOPES = ("encoder", "network")
DEFAULT = "unetr"


def network_config(where: Setup, network: str = DEFAULT) -> dict[str, Any]:
    """Arguments of a network at this setup, all but `out_channels`.

    Raises:
        CourseError: no such network.
    """
    shape = {"in_channels": len(where.dataset.channels), "img_size": where.grid.roi}
    return shape | networks.network_class(network).sizes(asdict(where.scale))


def checked(scope: str | None) -> str | None:
    """Raises CourseError when there is no such transfer scope."""
    if scope not in (None, *SCOPES):
        raise CourseError(f"scope={scope!r}: unknown; choose one of {', '.join(SCOPES)}")
    return scope


def build_task(where: Setup, *, task: str, seed: int, options: Mapping):
    """The pretext task with a fresh encoder, at the numbers of the scale.

    `options` are the task's own parameters and five of every task: `steps` (default: the scale's), `pool` and `volumes`
    (see `setups.pool`), `network` (default: `unetr`) and `scope` (default: the task's), which is `encoder` (the
    network's encoder and a light head) or `network` (all of it).

    Raises:
        CourseError: no such task, network or scope, or they do not go together.
    """
    own = {key: value for key, value in given(options).items() if key not in OF_POOL}
    kind, network = task_class(task), own.pop("network", DEFAULT)
    steps = own.pop("steps", None) or where.scale.pretrain_steps
    scope = checked(own.pop("scope", kind.scope))
    config, built = network_config(where, network), networks.network_class(network)
    torch.manual_seed(seed)
    encoder = built.new_encoder(**config)
    module = kind(encoder=encoder, lr=where.scale.pretrain_lr, steps=steps, seed=seed, **own)
    if scope == "network":
        module.reconstruct_with(built(**config, out_channels=module.out_channels))
    return module


def load_task(where: Setup, *, task: str, seed: int = 0, **options):
    """The pretrained task, ready to reconstruct.

    Raises:
        CourseError: it has not been pretrained yet.
    """
    module = build_task(where, task=task, seed=seed, options=options)
    path = runs.pretrain_dir(where.dataset.name, where.scale.name, variant(task, options)) / "task.safetensors"
    if not path.exists():
        raise CourseError(f"{path}: no such file; pretrain {task} first")
    module.load_state_dict(checkpoints.read_checkpoint(path))
    return module.eval()


def start_of(where: Setup, init: str, scope: str | None = None) -> tuple[Path | None, str | None]:
    """The weights file that `init` names (None: random), and the scope in which it is moved: `network` where a whole
    network was pretrained, unless `scope` asks for the encoder alone."""
    if init == "random":
        return None, None
    checked(scope)
    folder = runs.pretrain_dir(where.dataset.name, where.scale.name, init)
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
    return json.loads(checkpoints.read_metadata(path).get("config", "{}")).get("network", DEFAULT) if path else DEFAULT


def build_network(
    where: Setup, *, init: str, seed: int, scope: str | None = None, permuted: bool = False, network: str | None = None
) -> tuple[SegmentationNetwork, TransferReport | None]:
    """The segmentation network at its start, and what was moved into it.

    `init` is `random` or a pretraining run's name; `permuted` shuffles the moved weights within each tensor (a
    control); `network` is by default that of the pretraining run, or `unetr`.

    Raises:
        CourseError: no such run or network, the run is of another network, or its weights do not fit.
    """
    path, scope = start_of(where, init, scope)
    network = network or network_of(path)
    config = network_config(where, network)
    if path and network_of(path) != network:
        raise CourseError(
            f"network={network!r}: {init} was pretrained for {network_of(path)}; choose that network, or init=random"
        )
    torch.manual_seed(seed)
    built = networks.network_class(network)(**config, out_channels=where.dataset.out_channels)
    if path is None:
        return built, None
    report = load_network(built, path) if scope == "network" else load_encoder(built.encoder, path)
    if permuted:
        permute_weights(built if scope == "network" else built.encoder, torch.Generator().manual_seed(seed))
    return built, report
