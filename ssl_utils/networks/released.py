"""Weights released by Models Genesis and RadioSSL, under the names of `unet_plain`, and of the original MedNeXt.

    down_tr64, 128, 256, 512  ->  down.0, 1, 2, 3          up_tr256, 128, 64   ->  up.0, 1, 2
    enc_block_i, bottleneck   ->  down.i.1, down.4.1       dec_block_3 .. 0    ->  up.0.blocks .. up.3.blocks
    stem, down_i              ->  down.0.0, down.(i+1).0   up_3 .. 0           ->  up.0.up .. up.3.up

Source: the networks UNet3D of MrGiovanni/ModelsGenesis, PCRLv23d and Cluster3d of Trustworthy-AI-UU-NKI/radioSSL, and
MedNeXt of MIC-DKFZ/MedNeXt.
"""

import re
from collections import Counter
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ssl_utils.errors import CourseError

NETWORK = "unet_plain"
NETWORKS = (NETWORK, "mednext", "mednext_b", "mednext_m", "mednext_l")
LEVEL = {"64": 0, "128": 1, "256": 2, "512": 3}
_MEDNEXT = re.compile(r"(?:.*\.)?(stem|bottleneck|(?:enc_block|down|up|dec_block|out)_(\d))\.(.+)")
_NAME = re.compile(r"(?:.*\.)?(down|up)_tr(64|128|256|512)\.(.+)")


def renamed(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors under our names; those of other parts keep theirs.

    RadioSSL pretrains without skips. The kernels that would read them are set to zero, so that the network computes
    what it computed without, and learns them in fine-tuning.
    """
    if any("enc_block_0." in name for name in tensors):
        return _of_mednext(tensors)
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


def _of_mednext(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Those of the original MedNeXt; a number that it learns and never uses is dropped."""
    deepest = len({match[1] for match in map(re.compile(r".*(enc_block_\d)\..+").fullmatch, tensors) if match})
    weights = {}
    for name, tensor in tensors.items():
        if match := _MEDNEXT.fullmatch(name):
            level = int(match[2] or 0)
            part = {
                "stem": "down.0.0",
                "enc_block": f"down.{level}.1",
                "down": f"down.{level + 1}.0",
                "bottleneck": f"down.{deepest}.1",
                "up": f"up.{deepest - 1 - level}.up",
                "dec_block": f"up.{deepest - 1 - level}.blocks",
                "out": f"out_coarse.{deepest - level}" if level else "out",
            }[re.sub(r"_\d$", "", match[1])]
            weights[f"{part}.{match[3]}"] = tensor
        elif not name.endswith("dummy_tensor"):
            weights[name] = tensor
    return weights


def sizes(tensors: Mapping[str, Tensor], name: str) -> dict[str, Any]:
    """Network, feature_size and levels of renamed tensors, and of MedNeXt the kernel_size; empty when they are of
    another network. Raises CourseError for a MedNeXt of other sizes than the published ones."""
    if "down.0.1.0.conv1.weight" in tensors:
        return _sizes_of_mednext(tensors, name)
    levels = {int(match[1]) for match in map(re.compile(r"down\.(\d)\.ops\..+").fullmatch, tensors) if match}
    last = tensors.get("down.0.ops.1.conv1.weight")
    return {} if last is None else {"network": NETWORK, "feature_size": last.shape[0], "levels": len(levels)}


def _sizes_of_mednext(tensors: Mapping[str, Tensor], name: str) -> dict[str, Any]:
    from ssl_utils.networks.mednext import VARIANTS, of_levels  # MONAI's import takes seconds

    norms = re.compile(r"down\.(\d)\.1\.\d\.norm\.bias")
    blocks = Counter(int(match[1]) for match in map(norms.fullmatch, tensors) if match)
    first, levels = tensors["down.0.1.0.conv1.weight"], len(blocks)
    expanding = [f"down.{level}.1.0.conv2.weight" for level in range(levels)]
    expanding += [f"down.{level}.0.conv2.weight" for level in range(1, levels)]
    if not {*expanding} <= tensors.keys():
        return {}  # the transfer says what is missing
    expanded = [len(tensors[weight]) // tensors[weight].shape[1] for weight in expanding]
    for variant in VARIANTS.values():
        expansion, counts = of_levels(variant.expansion, levels), of_levels(variant.blocks, levels)
        if expanded == [*expansion, *expansion[1:]] and blocks == dict(enumerate(counts)):
            shape = {"feature_size": len(first), "levels": levels, "kernel_size": first.shape[-1]}
            return {"network": variant.network, **shape}
    why = (
        "is a MedNeXt of none of the sizes S, B, M and L; those of MONAI differ in the blocks that halve the map, but S"
    )
    raise CourseError(f"{name}: {why}; load it with MONAI, or take weights of the original")


def check(tensors: Mapping[str, Tensor], network: str, name: str) -> None:
    """Raises CourseError when a network of the registry would compute something else with renamed tensors."""
    right = sizes(tensors, name).get("network")
    if right is None:
        return
    kind = "is a plain U-Net, as of Models Genesis or RadioSSL" if right == NETWORK else f"is a MedNeXt, {right}"
    if network != right:
        raise CourseError(f"{name}: {kind}, and {network} has other blocks; choose network={right}")
    if right == NETWORK and not any(key.endswith("running_mean") for key in tensors):
        why = f"has norms without running statistics, as after RadioSSL's fine-tuning, and {NETWORK} has batch norm"
        raise CourseError(f"{name}: {why}; take the weights from before fine-tuning")
