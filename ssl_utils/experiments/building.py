"""Networks before training: a pretext task, or a segmentation network with pretrained weights."""

import json
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ssl_utils.data.cache import content
from ssl_utils.data.doctor import forecast as costs
from ssl_utils.data.formats.stored import shape_text
from ssl_utils.errors import CourseError
from ssl_utils.experiments import runs
from ssl_utils.experiments.description import NETWORK, RANDOM, Finetuning, Pretraining
from ssl_utils.experiments.naming import WEIGHTS, base
from ssl_utils.experiments.setups import Setup
from ssl_utils.files import read_json
from ssl_utils.networks import checkpoints, network_class, released
from ssl_utils.networks.interface import SegmentationNetwork
from ssl_utils.networks.transfer import TransferReport, load_encoder, load_network, permute_weights
from ssl_utils.pretext import TASKS, task_class
from ssl_utils.segmentation.axes import check_slices
from ssl_utils.segmentation.freezing import chosen
from ssl_utils.training.optimisers import DEFAULT, OPTIMISERS


def network_config(setup: Setup, network: str = NETWORK) -> dict[str, Any]:
    """Arguments of a network at this setup, except `out_channels`. Raises CourseError for an unknown network,
    or one whose patch must be a cube where that of the grid is not."""
    shape, chosen = {"in_channels": len(setup.dataset.channels), "img_size": setup.grid.roi}, network_class(network)
    patch = setup.encoder_config()["patch_size"]
    if not (isinstance(patch, int) or chosen.patch_per_axis):
        fix = "choose network=unetr or unet, or a cube with --patch-size 8"
        raise CourseError(f"network={network!r}: cannot take patches of {shape_text(patch)} voxels; {fix}")
    return shape | chosen.sizes(asdict(setup.scale) | {"patch_size": patch})


def build_task(setup: Setup, run: Pretraining):
    """The pretext task with an untrained network. Raises CourseError when task, network and scope do not fit."""
    task, network, config = task_class(run.task), network_class(run.network), network_config(setup, run.network)
    torch.manual_seed(run.seed)
    encoder = network.new_encoder(**config)
    steps = run.steps or setup.scale.pretrain_steps
    source = weights_of(setup, run)
    options = dict(run.options) | ({"weights": str(source)} if source else {})
    lr = OPTIMISERS[run.optimizer].lr or setup.scale.pretrain_lr
    module = task(encoder=encoder, lr=lr, steps=steps, seed=run.seed, **options)
    module.optimizer = run.optimizer
    if (run.scope or task.scope) == "network":
        module.reconstruct_with(network(**config, out_channels=module.out_channels))
    check_averages(module, run.optimizer, f"{run.task} on {run.network}")
    return module


def check_averages(module: nn.Module, optimizer: str, name: str) -> None:
    """Raises CourseError when the averaged weights of a schedule-free optimiser would be validated with statistics of
    batch norm that were collected under other weights."""
    batch_norm = any(isinstance(layer, nn.modules.batchnorm._BatchNorm) for layer in module.modules())
    if batch_norm and OPTIMISERS[optimizer].schedule is None:
        why = f"{name} has batch norm, whose statistics are not those of the averaged weights"
        raise CourseError(f"optimizer={optimizer!r}: {why}; choose optimizer={DEFAULT}, or another network")


def weights_of(setup: Setup, run: Pretraining) -> Path | None:
    """The file of the weights that the pretext task reads; None for most tasks. Raises CourseError as `_checked`."""
    name = task_class(run.task).reads(run.options)
    if name is None or Path(name).is_file() or Path(name).suffix in WEIGHTS:
        return name and Path(name)
    path = runs.pretrain_dir(setup.dataset.name, setup.scale.name, name) / "encoder.safetensors"
    return _checked(path, setup, f"weights={name!r}", f"pretrain {base(name)} first, or give a file")


def _checked(path: Path, setup: Setup, option: str, fix: str) -> Path:
    """The file itself. Raises CourseError when there is none, its run has not finished, or it was pretrained on an
    image of today's validation or test set."""
    if not (path.exists() and runs.is_finished(path.parent)):
        why = f"{path.parent} has not finished" if path.exists() else f"{path} does not exist"
        raise CourseError(f"{option}: {why}; {fix}")
    seen = {*json.loads(checkpoints.read_metadata(path).get("images", "[]"))}
    for case in (*setup.datalist.validation, *setup.datalist.test) if seen else ():
        if content(case)[:16] in seen:  # of its image
            why = f"{path.parent} has seen {case.id}, which is in validation or test now"
            raise CourseError(f"{option}: {why}; pretrain again on this split")
    return path


def refuse_other_weights(folder: Path, weights: str, option: str) -> None:
    """Raises CourseError when the run in this folder has finished with a file of another hash than `weights`."""
    before = read_json(folder / "config.json")["settings"] if runs.is_finished(folder) else {}
    if before.get("weights", weights) != weights:
        source = before.get("source", "another file of this name")
        raise CourseError(f"{option}: {folder} has the weights of {source}; choose another name, or remove it")


def load_task(setup: Setup, run: Pretraining):
    """The pretrained task, ready to reconstruct. Raises CourseError when it has not been pretrained yet."""
    module = build_task(setup, run)
    path = runs.pretrain_dir(setup.dataset.name, setup.scale.name, run.name) / "task.safetensors"
    if not path.exists():
        raise CourseError(f"{path}: no such file; pretrain {run.task} first")
    module.load_state_dict(checkpoints.read_checkpoint(path))
    return module.eval()


def pretrained_weights(setup: Setup, init: str, scope: str | None = None) -> tuple[Path | None, str | None]:
    """The weights file of an init and what it contains, `network` or `encoder` (None, None: random init). A whole
    network is preferred where one was pretrained, unless `scope` is `encoder`. Raises CourseError as `_checked`.
    """
    if init == RANDOM:
        return None, None
    folder = runs.pretrain_dir(setup.dataset.name, setup.scale.name, init)
    if scope == "network" or (scope is None and (folder / "network.safetensors").exists()):
        part, fix = "network", "pretrain with scope=network, or use scope=encoder"
    else:
        task = TASKS.get(base(init))
        part = "encoder"
        fix = f"run chapter {task.chapter} first" if task else "choose random or the name of a pretraining run"
    return _checked(folder / f"{part}.safetensors", setup, f"init={init!r}", fix), part


def saved_config(path: Path | None) -> dict[str, Any]:
    """The config of the network or encoder in a weights file."""
    return json.loads(checkpoints.read_metadata(path).get("config", "{}")) if path else {}


def own_sizes(saved: Mapping[str, Any], scope: str | None) -> dict[str, Any]:
    """The sizes that weights of this scope and config bring with them, in place of those of the scale: all of an
    encoder (of inflation), width, depth and kernels of a released network."""
    if scope == "encoder":
        return {name: value for name, value in saved.items() if name not in ("network", "in_channels", "img_size")}
    if saved.get("network") not in released.NETWORKS:
        return {}
    return {name: saved[name] for name in ("feature_size", "levels", "kernel_size") if name in saved}


def with_crop(setup: Setup, factor: float) -> Setup:
    """The setup with larger or smaller crops, in whole patches; nothing else differs, batch size and steps included.

    Raises CourseError where a volume is resampled to the crop, so that other crops would have other voxels.
    """
    if factor == 1:
        return setup
    if setup.grid.fit:
        raise CourseError(f"crop={factor:g}: volumes of {setup.dataset.name} are resampled to the crop; leave it at 1")
    sides = zip(setup.grid.roi, setup.patch_size, strict=True)
    roi = tuple(max(round(side * factor / patch), 1) * patch for side, patch in sides)
    grids = setup.dataset.grids | {setup.scale.grid: replace(setup.grid, roi=roi)}
    return replace(setup, dataset=replace(setup.dataset, grids=grids))


def build_network(setup: Setup, run: Finetuning) -> tuple[SegmentationNetwork, TransferReport | None]:
    """The segmentation network before fine-tuning, and the report on the weights transferred into it.

    Raises CourseError when there is no such run, it is of another network, its weights do not fit, or the network lacks
    an option such as deep supervision, or reads no slices.
    """
    path, scope = pretrained_weights(setup, run.init, run.scope)
    saved, seed = saved_config(path), 1000 * run.subset + run.seed
    pretrained = saved.get("network", NETWORK)
    name = run.network or pretrained
    if path and pretrained != name:
        raise CourseError(
            f"network={name!r}: {run.init} was pretrained for {pretrained}; choose that network, or init=random"
        )
    config = network_config(setup, name) | own_sizes(saved, scope) | {"out_channels": setup.dataset.out_channels}
    for option, value in run.of_network().items():
        if option not in network_class(name).run_options:
            raise CourseError(f"{option}={value}: {name} does not support it; choose network=mednext or mednext_b")
        config[option] = value
    torch.manual_seed(seed)
    network = network_class(name)(**config)
    check_averages(network, run.optimizer, name)
    if run.all_axes:
        check_slices(network)
    if path is None:
        return network, None
    kept = [(part, deepcopy(part.state_dict())) for part in chosen(network, run.reset, "reset")] if run.reset else []
    report = load_network(network, path) if scope == "network" else load_encoder(network.encoder, path)
    if run.permuted:
        permute_weights(network if scope == "network" else network.encoder, torch.Generator().manual_seed(seed))
    for part, untrained in kept:
        part.load_state_dict(untrained)
    return network, report


def forecast(setup: Setup) -> costs.Forecast:
    """The time and memory that a fine-tuning of this setup will take."""
    return costs.forecast(
        lambda: build_network(setup, Finetuning())[0],
        roi=setup.grid.roi,
        channels=len(setup.dataset.channels),
        patch_size=setup.patch_size,
        batch_size=setup.scale.finetune_batch_size,
        steps=setup.scale.finetune_steps,
    )
