"""Weights from elsewhere as a pretraining run of this course, from which its fine-tunings may start."""

import json
import re
from pathlib import Path

import torch

from ssl_utils.errors import CourseError
from ssl_utils.experiments import runs
from ssl_utils.experiments.building import network_config, own_sizes, refuse_other_weights
from ssl_utils.experiments.description import NETWORK, RANDOM
from ssl_utils.experiments.setups import Setup
from ssl_utils.files import sha256
from ssl_utils.networks import checkpoints, network_class, released
from ssl_utils.networks.transfer import TransferReport, load_encoder, load_network
from ssl_utils.pretext import TASKS


def adopt(setup: Setup, name: str, source: Path) -> TransferReport:
    """Write the weights in `source` as the pretraining run `name`, for the channels and the crop of this setup.

    `source` holds weights that this course has saved for any dataset, or that Models Genesis, RadioSSL or MedNeXt have
    released: a whole network, or an encoder alone.

    Raises:
        CourseError: a name that such a run cannot have, a file of another kind, or weights that do not fit the patch.
    """
    if not re.fullmatch(r"[a-z0-9]+(_[a-z0-9]+)*", name) or name in (*TASKS, RANDOM):
        fix = "choose small letters, digits and single _, as in genesis_chest_ct, and no pretext task"
        raise CourseError(f"name={name!r}: cannot be the name of weights from elsewhere; {fix}")
    tensors, metadata = checkpoints.read(source)
    tensors = released.renamed(tensors)
    saved = released.sizes(tensors, str(source)) or json.loads(metadata.get("config", "{}"))
    if not saved:
        why = "are no weights of this course, Models Genesis, RadioSSL or MedNeXt in a published size"
        raise CourseError(f"{source}: {why}; load them with ssl_utils.networks.transfer.load_encoder")
    name_of_network = saved.get("network", NETWORK)
    torch.manual_seed(0)  # nothing drawn is kept but the output layer, which no fine-tuning takes
    config = network_config(setup, name_of_network) | own_sizes(saved, "network")
    network = network_class(name_of_network)(**config, out_channels=1)
    of_decoder = {key for key in network.state_dict() if not key.startswith(f"{network.encoder_name}.")}
    whole = bool(of_decoder & {*tensors})
    report = load_network(network, source) if whole else load_encoder(network.encoder, source)
    folder = runs.pretrain_dir(setup.dataset.name, setup.scale.name, name)
    settings = {"source": source.name, "weights": sha256(source)}
    refuse_other_weights(folder, settings["weights"], f"name={name!r}")
    known = {key: metadata[key] for key in ("data_licence", "images") if key in metadata}
    if not runs.begin(folder, settings):
        checkpoints.save_model(folder / "encoder.safetensors", network.encoder, metadata=settings | known)
        if whole:
            checkpoints.save_model(folder / "network.safetensors", network, metadata=settings | known)
        runs.finish(folder, {"task": name, "seconds": 0.0, **settings, "transfer_share": report.share})
    return report
