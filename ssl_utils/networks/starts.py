"""What a UNETR can start from besides nothing: an encoder, a UNETR pretrained whole, shuffled weights as a control."""

from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from ssl_utils.errors import CourseError
from ssl_utils.networks import checkpoints
from ssl_utils.networks.transfer import TransferReport, load_encoder
from ssl_utils.networks.unetr import UNETR


def load_network(network: UNETR, source: Path | str) -> TransferReport:
    """Load a UNETR that was pretrained whole: its encoder as `load_encoder`, and its decoder and skips as they are.

    The last layer stays as it is: it spoke of intensities, and will speak of classes.

    Raises:
        CourseError: as `load_encoder`, or a decoder of another size.
    """
    report = load_encoder(network.vit, source, prefix="vit")
    wanted = {key: value for key, value in network.state_dict().items() if not key.startswith(("vit.", "out."))}
    found = {key: value for key, value in checkpoints.read_checkpoint(source).items() if key in wanted}
    if odd := [key for key, value in wanted.items() if key not in found or found[key].shape != value.shape]:
        raise CourseError(
            f"{source}: its decoder lacks {', '.join(odd[:3])} in this size; build the UNETR with the feature_size and "
            "channels of the pretraining, or move the encoder alone (scope=encoder)"
        )
    if odd := [key for key, value in found.items() if not value.isfinite().all()]:
        raise CourseError(f"{source}: {odd[0]} holds NaN or infinity; the training diverged, repeat it")
    network.load_state_dict(found, strict=False)
    moved = {key: tuple(value.shape) for key, value in found.items()}
    left = {key: shape for key, shape in report.unexpected.items() if key not in found}
    return replace(report, matched=report.matched | moved, unexpected=left)


@torch.no_grad()
def permute_weights(module: nn.Module, generator: torch.Generator) -> None:
    """Shuffle the numbers within every tensor: their distribution stays, what they have learnt is gone. A start that
    does as well as the unshuffled one profits from the scale of its weights, not from pretraining."""
    for tensor in module.parameters():
        tensor.copy_(tensor.flatten()[torch.randperm(tensor.numel(), generator=generator)].view_as(tensor))
