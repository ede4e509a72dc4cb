"""A pretrained `resenc_unet` for nnU-Net v2: the file that `-pretrained_weights` takes, and its configuration."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ssl_utils.data.lists.peers import check_folder
from ssl_utils.errors import CourseError
from ssl_utils.experiments import runs
from ssl_utils.experiments.building import saved_config
from ssl_utils.experiments.exports.finished_run import licence_of, terms
from ssl_utils.files import atomic, write_json, write_text
from ssl_utils.networks import build, checkpoints
from ssl_utils.networks.interface import SegmentationNetwork, triple
from ssl_utils.networks.resenc_unet import LAYERS, plan
from ssl_utils.networks.transfer import load_encoder, load_network

NETWORK = "resenc_unet"
CONFIGURATION = "ssl"  # its name in the plans
CARD = """\
# {name} for nnU-Net

`checkpoint.pth` holds {what} of a ResidualEncoderUNet under nnU-Net's names, axes in its order. `configuration.json` is
the configuration that has this network, its crop and voxels. Add it to your plans, preprocess, train:

```python
import json
from pathlib import Path
plans = Path("nnUNet_preprocessed/Dataset001_MINE/nnUNetPlans.json")
content = json.loads(plans.read_text())
content["configurations"].update(json.loads(Path("configuration.json").read_text()))
plans.write_text(json.dumps(content))
```

```sh
nnUNetv2_preprocess -d 1 -c {configuration}
nnUNetv2_train 1 {configuration} 0 -pretrained_weights checkpoint.pth
```

Volumes were turned to right, anterior, superior before pretraining. nnU-Net does the same with
`"overwrite_image_reader_writer": "NibabelIOWithReorient"` in dataset.json; without it, files should be stored so.
"""


def export(run: Path, folder: Path, *, licence: str | None = None) -> Path:
    """Write a finished pretraining for nnU-Net; returns the folder. Where the encoder alone was pretrained, the decoder
    is as nnU-Net initialises it.

    The checkpoint is PyTorch's format, which nnU-Net reads; tensors alone are in it.

    Raises:
        CourseError: the run is not finished, is of another network or a fine-tuning, nobody has named a licence of its
            data, its weights are damaged, or `folder` contains something.
    """
    weights = next((run / f"{part}.safetensors" for part in ("network", "encoder") if _has(run, part)), None)
    if not runs.metrics(run) or weights is None:
        fix = "finish it first; a run is a folder such as pretrain/simmim__network=resenc_unet"
        raise CourseError(f"{run}: is no finished pretraining; {fix}")
    check_folder(folder)
    meta = checkpoints.read_metadata(weights)
    conditions, network = terms(licence_of(run, meta, licence)), pretrained(weights)
    what = "encoder and decoder" if weights.stem == "network" else "the encoder, and an untrained decoder,"
    with atomic(folder) as temporary:
        temporary.mkdir()
        torch.save({"network_weights": network_weights(network)}, temporary / "checkpoint.pth")
        write_json(temporary / "configuration.json", {CONFIGURATION: configuration(network.config, meta)})
        write_text(temporary / "README.md", CARD.format(name=run.name, what=what, configuration=CONFIGURATION))
        write_text(temporary / "LICENSE", conditions)
    return folder


def _has(run: Path, part: str) -> bool:
    return (run / f"{part}.safetensors").exists()


def pretrained(weights: Path) -> SegmentationNetwork:
    """The whole network of a weights file. Raises CourseError when it is of another network."""
    config = saved_config(weights)
    if config.get("network") != NETWORK:
        name = config.get("network", "unetr")
        raise CourseError(f"{weights}: is of {name}, and nnU-Net loads its own; pretrain with --network {NETWORK}")
    torch.manual_seed(0)  # of a decoder that was not pretrained
    network = build(config | {"out_channels": 1})
    load_network(network, weights) if weights.stem == "network" else load_encoder(network.encoder, weights)
    return network


def network_weights(network: SegmentationNetwork) -> dict[str, Tensor]:
    """Tensors under nnU-Net's names, its axes being (z, y, x) and ours (x, y, z). Output layers are left out, which
    nnU-Net does not load."""
    state = network.as_original().state_dict()
    return {
        name: (tensor.permute(0, 1, 4, 3, 2) if tensor.ndim == 5 else tensor).contiguous()
        for name, tensor in state.items()
        if ".seg_layers." not in name
    }


def configuration(config: Mapping[str, Any], meta: Mapping[str, str]) -> dict[str, Any]:
    """The configuration of nnU-Net's plans for a network of this `config`, with the crop and the spacing of `meta`; all
    else comes from `3d_fullres`."""
    sizes = plan(config["feature_size"], config["levels"])
    sizes["strides"] = [step[::-1] for step in sizes["strides"]]
    voxels = {"spacing": json.loads(meta["spacing"])[::-1]} if "spacing" in meta else {}
    return {
        "inherits_from": "3d_fullres",
        "data_identifier": f"nnUNetPlans_{CONFIGURATION}",  # nnU-Net's folder for the volumes of these voxels
        **voxels,
        "patch_size": list(triple(config["img_size"]))[::-1],
        "architecture": {
            "network_class_name": "dynamic_network_architectures.architectures.unet.ResidualEncoderUNet",
            "arch_kwargs": sizes | LAYERS,
            "_kw_requires_import": list(LAYERS),
        },
    }
