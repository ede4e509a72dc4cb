"""From a setup to networks before training: a pretext task, or a segmentation network and what is moved into it."""

from pathlib import Path

import torch

from ssl_utils.errors import CourseError
from ssl_utils.experiments import runs
from ssl_utils.experiments.description import RANDOM, Finetuning, Pretraining
from ssl_utils.experiments.naming import base
from ssl_utils.experiments.setups import Setup
from ssl_utils.networks import checkpoints, starts
from ssl_utils.networks.transfer import TransferReport, load_encoder
from ssl_utils.networks.unet import UNet
from ssl_utils.networks.unetr import UNETR
from ssl_utils.networks.vit import ViT
from ssl_utils.pretext import TASKS, task_class


def build_task(setup: Setup, run: Pretraining):
    """The pretext task with a fresh network, at the numbers of the scale."""
    kind, scale = task_class(run.task), setup.scale
    torch.manual_seed(run.seed)
    encoder = ViT(**setup.encoder_config())
    steps = run.steps or scale.pretrain_steps
    module = kind(encoder=encoder, lr=scale.pretrain_lr, steps=steps, seed=run.seed, **run.options)
    if (run.scope or kind.scope) == "network":
        module.reconstruct_with(
            UNETR(out_channels=module.out_channels, feature_size=scale.feature_size, **setup.encoder_config())
        )
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


def build_network(setup: Setup, run: Finetuning) -> tuple[UNETR | UNet, TransferReport | None]:
    """The segmentation network before fine-tuning, and what was moved into it."""
    network, seed = run.network_name, 1000 * run.draw + run.seed
    torch.manual_seed(seed)
    if network == "unet" and run.init == RANDOM:
        return UNet(in_channels=len(setup.dataset.channels), out_channels=setup.dataset.out_channels), None
    if network != "unetr":
        raise CourseError(f"network={network!r} with init={run.init!r}: choose unetr, or unet with init=random")
    built = UNETR(
        out_channels=setup.dataset.out_channels, feature_size=setup.scale.feature_size, **setup.encoder_config()
    )
    path, scope = start_of(setup, run.init, run.scope)
    if path is None:
        return built, None
    report = starts.load_network(built, path) if scope == "network" else load_encoder(built.vit, path)
    if run.permuted:
        starts.permute_weights(built if scope == "network" else built.vit, torch.Generator().manual_seed(seed))
    return built, report
