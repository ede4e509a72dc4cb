"""From a setup to networks at their start: a pretext task, or a segmentation network and what is moved into it."""

from collections.abc import Mapping
from pathlib import Path

import torch

from ssl_utils.errors import CourseError
from ssl_utils.experiments import runs
from ssl_utils.experiments.naming import base, given, variant
from ssl_utils.experiments.setups import OF_POOL, Setup
from ssl_utils.networks import checkpoints, starts
from ssl_utils.networks.transfer import TransferReport, load_encoder
from ssl_utils.networks.unet import UNet
from ssl_utils.networks.unetr import UNETR
from ssl_utils.networks.vit import ViT
from ssl_utils.pretext import TASKS, task_class

SCOPES = ("encoder", "whole")


def checked(scope: str | None) -> str | None:
    """Raises CourseError when there is no such transfer scope."""
    if scope not in (None, *SCOPES):
        raise CourseError(f"scope={scope!r}: unknown; choose one of {', '.join(SCOPES)}")
    return scope


def build_task(where: Setup, *, task: str, seed: int, options: Mapping):
    """The pretext task with a fresh encoder, at the numbers of the scale.

    `options` are the task's own parameters and four of every task: `steps` (default: the scale's), `pool` and `volumes`
    (see `setups.pool`) and `scope` (default: the task's), which is `encoder` (a ViT and a light head) or `whole` (a
    UNETR).
    """
    own = {key: value for key, value in given(options).items() if key not in OF_POOL}
    kind = task_class(task)
    steps = own.pop("steps", None) or where.scale.pretrain_steps
    scope = checked(own.pop("scope", kind.scope))
    torch.manual_seed(seed)
    encoder = ViT(**where.encoder_config())
    module = kind(encoder=encoder, lr=where.scale.pretrain_lr, steps=steps, seed=seed, **own)
    if scope == "whole":
        module.reconstruct_with(
            UNETR(out_channels=module.out_channels, feature_size=where.scale.feature_size, **where.encoder_config())
        )
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
    """The weights file that `init` names (None: random), and the scope in which it is moved: `whole` where a whole
    UNETR was pretrained, unless `scope` asks for the encoder alone."""
    if init == "random":
        return None, None
    checked(scope)
    folder = runs.pretrain_dir(where.dataset.name, where.scale.name, init)
    whole = folder / "network.safetensors"
    if scope == "whole" or (scope is None and whole.exists()):
        path, cure = whole, "pretrain with scope=whole, or move the encoder alone"
    else:
        entry = TASKS.get(base(init))
        path = folder / "encoder.safetensors"
        cure = f"run chapter {entry.chapter} first" if entry else "choose random or the name of a pretraining run"
    if not path.exists():
        raise CourseError(f"init={init!r}: {path} does not exist; {cure}")
    return path, "whole" if path == whole else "encoder"


def build_network(
    where: Setup, *, init: str, seed: int, scope: str | None = None, permuted: bool = False, network: str = "unetr"
) -> tuple[UNETR | UNet, TransferReport | None]:
    """The segmentation network at its start, and what was moved into it.

    `init` is `random` or a pretraining run's name; `permuted` shuffles the moved weights within each tensor (a
    control); `network` is `unetr`, or `unet` for a plain U-Net, which starts at random.
    """
    torch.manual_seed(seed)
    if network == "unet" and init == "random":
        return UNet(in_channels=len(where.dataset.channels), out_channels=where.dataset.out_channels), None
    if network != "unetr":
        raise CourseError(f"network={network!r} with init={init!r}: choose unetr, or unet with init=random")
    built = UNETR(
        out_channels=where.dataset.out_channels, feature_size=where.scale.feature_size, **where.encoder_config()
    )
    path, scope = start_of(where, init, scope)
    if path is None:
        return built, None
    report = starts.load_network(built, path) if scope == "whole" else load_encoder(built.vit, path)
    if permuted:
        starts.permute_weights(built if scope == "whole" else built.vit, torch.Generator().manual_seed(seed))
    return built, report
