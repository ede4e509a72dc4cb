"""A finished run in a form that others can use: each format is a folder, complete or absent."""

from collections.abc import Callable
from pathlib import Path

from ssl_utils.experiments.exports import bundle, huggingface, mlcube, nnunet_weights

# name -> function(run folder, new folder, licence=name or None) -> the folder; errors as `finished_run.opened`
FORMATS: dict[str, Callable[..., Path]] = {
    "bundle": bundle.export,
    "mlcube": mlcube.export,
    "huggingface": huggingface.export,
    "nnunet": nnunet_weights.export,  # of a finished pretraining
}
