"""Weights released by Models Genesis and RadioSSL, under the names of `unet_plain`.

    down_tr64, 128, 256, 512  ->  down.0, 1, 2, 3          up_tr256, 128, 64  ->  up.0, 1, 2

Source: the networks UNet3D of MrGiovanni/ModelsGenesis, and PCRLv23d and Cluster3d of Trustworthy-AI-UU-NKI/radioSSL.
"""

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ssl_utils.errors import CourseError

NETWORK = "unet_plain"
LEVEL = {"64": 0, "128": 1, "256": 2, "512": 3}
_NAME = re.compile(r"(?:.*\.)?(down|up)_tr(64|128|256|512)\.(.+)")


def renamed(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors under our names; those of other parts keep theirs.

    RadioSSL pretrains without skips. The kernels that would read them are set to zero, so that the network computes
    what it computed without, and learns them in fine-tuning.
    """
    weights = {}
    for name, tensor in tensors.items():
        match = _NAME.fullmatch(name)
        if match is None:
            weights[name] = tensor
            continue
        part, level, rest = match[1], LEVEL[match[2]], match[3]
        weights[f"down.{level}.{rest}" if part == "down" else f"up.{2 - level}.{rest}"] = tensor
    for name in [name for name in weights if re.fullmatch(r"up\.\d\.ops\.0\.conv1\.weight", name)]:
        kernel = weights[name]
        if kernel.shape[1] == 2 * kernel.shape[0]:
            weights[name] = torch.cat([kernel, torch.zeros_like(kernel)[:, : kernel.shape[0]]], 1)
    return weights


def sizes(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """Network, feature_size and levels of renamed tensors; empty when they are of another network."""
    levels = {int(match[1]) for match in map(re.compile(r"down\.(\d)\.ops\..+").fullmatch, tensors) if match}
    last = tensors.get("down.0.ops.1.conv1.weight")
    return {} if last is None else {"network": NETWORK, "feature_size": last.shape[0], "levels": len(levels)}


def check(tensors: Mapping[str, Tensor], network: str, name: str) -> None:
    """Raises CourseError when a network of the registry would compute something else with renamed tensors."""
    if not sizes(tensors):
        return
    if network != NETWORK:
        why = f"is a plain U-Net, as of Models Genesis or RadioSSL, and {network} has other blocks"
        raise CourseError(f"{name}: {why}; choose network={NETWORK}")
    if not any(key.endswith("running_mean") for key in tensors):
        why = f"has norms without running statistics, as after RadioSSL's fine-tuning, and {NETWORK} has batch norm"
        raise CourseError(f"{name}: {why}; take the weights from before fine-tuning")
