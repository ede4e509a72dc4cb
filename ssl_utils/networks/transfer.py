"""Transfer weights from one model into another, an encoder or a whole network, with a report of every tensor.

A transfer that silently matches nothing looks like pretraining that does not help, so too small a share is an error.
"""

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import prod
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from ssl_utils.errors import CourseError
from ssl_utils.networks import released
from ssl_utils.networks.checkpoints import read, state_dict_in
from ssl_utils.networks.interface import Encoder, SegmentationNetwork, Size, triple
from ssl_utils.networks.transfer_report import TransferReport, shown, some
from ssl_utils.networks.upkern import upkern

MINIMUM_SHARE = 0.95
POSITIONS = "patch_embedding.position_embeddings"
# parts that DDP, torch.compile, FSDP and activation checkpointing add to names
WRAPPERS = {"module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"}
# MONAI's cross attention, unused in a ViT: in its checkpoints, but not here
IGNORED = re.compile(r"blocks\.\d+\.(norm_)?cross_attn\.")


def load_encoder(
    encoder: Encoder,
    source: Path | str | Mapping[str, Any],
    *,
    minimum_share: float = MINIMUM_SHARE,
    prefix: str | None = None,
    grid: Size | None = None,
) -> TransferReport:
    """Load the encoder of a checkpoint file or state dict into this one, all or nothing.

    Names may have any prefix (`net.encoder.`, `vit.`, `module.`, ...), or be those of `released` weights. Positions of
    another token grid are interpolated trilinearly. Layers that read the image are averaged for another number of
    channels, and scaled so that an image equal in all channels gives the same tokens as before.

    Args:
        minimum_share: share of the encoder's parameters that must be loaded, 0..1; 0: load whatever fits.
        prefix: which encoder, when a checkpoint has several (student and teacher).
        grid: token grid of the source. Default: that of the file's metadata, else the target's if the number of tokens
            is equal, else a cube.

    Raises:
        CourseError: too few weights match, the encoder would compute something else (other heads, deeper, biases on
            queries and keys), a weight is not finite, or the source's token grid is unknown.
    """
    encoder = getattr(encoder, "_orig_mod", encoder)
    name = "a state dict" if isinstance(source, Mapping) else str(source)
    tensors, metadata = (state_dict_in(source), {}) if isinstance(source, Mapping) else read(source)
    _check_settings(encoder, metadata, name)
    source = released.renamed(
        {".".join(part for part in key.split(".") if part not in WRAPPERS): value for key, value in tensors.items()}
    )
    released.check(source, encoder.config.get("network", ""), name)
    if prefix is None:
        prefix = _prefix(source, encoder, name)
    elif prefix:
        prefix = prefix.removesuffix(".") + "."
    grid = triple(grid, "grid") if grid else _saved_grid(metadata, name)
    weights, report = _match(encoder, source, prefix, grid, name)
    if minimum_share > 0:
        _check_report(encoder, report, minimum_share)
    encoder.load_state_dict(weights, strict=False)  # only `missing` is absent, and it is reported
    return report


def load_network(network: SegmentationNetwork, source: Path | str) -> TransferReport:
    """Load a whole pretrained network, all or nothing: its encoder as `load_encoder`, and its decoder and skips, which
    must have the same sizes but for kernels, which may grow. Output layers are not loaded: they predicted intensities.

    Raises:
        CourseError: as `load_encoder`, or a decoder of another size.
    """
    prefix, tensors = f"{network.encoder_name}.", released.renamed(read(source)[0])
    released.check(tensors, network.config["network"], str(source))
    targets = {key: value for key, value in network.state_dict().items() if not key.startswith((prefix, "out"))}
    stored = {key: value for key, value in tensors.items() if key in targets}
    grows = "kernel_size" in network.config
    decoder = {key: upkern(value, targets[key], str(source)) if grows else value for key, value in stored.items()}
    if odd := [key for key, value in targets.items() if key not in decoder or decoder[key].shape != value.shape]:
        raise CourseError(
            f"{source}: its decoder lacks {some(odd)} in this size; build the network with the feature_size and "
            "channels of the pretraining, or move the encoder alone (scope=encoder)"
        )
    if odd := [key for key, value in decoder.items() if not value.isfinite().all()]:
        raise CourseError(f"{source}: {odd[0]} holds NaN or infinity; the training diverged, repeat it")
    report = load_encoder(network.encoder, source, prefix=prefix)
    network.load_state_dict(decoder, strict=False)
    shapes = {key: (tuple(stored[key].shape), tuple(value.shape)) for key, value in decoder.items()}
    matched = report.matched | {key: new for key, (old, new) in shapes.items() if old == new}
    resized = report.resized | {key: pair for key, pair in shapes.items() if pair[0] != pair[1]}
    unexpected = {key: shape for key, shape in report.unexpected.items() if key not in decoder}
    return replace(report, matched=matched, resized=resized, unexpected=unexpected)


@torch.no_grad()
def permute_weights(module: nn.Module, generator: torch.Generator) -> None:
    """Shuffle the numbers within every tensor, as a control: an initialisation that does as well with shuffled weights
    profits from their distribution, not from what they have learnt."""
    for tensor in module.parameters():
        tensor.copy_(tensor.flatten()[torch.randperm(tensor.numel(), generator=generator)].view_as(tensor))


def _match(
    encoder: Encoder, source: Mapping[str, Tensor], prefix: str, grid: Size | None, name: str
) -> tuple[dict[str, Tensor], TransferReport]:
    """The weights that fit, and the report of all tensors on both sides."""
    targets = encoder.state_dict()
    weights, matched, resized, missing = {}, {}, {}, {}
    for key, target in targets.items():
        tensor, shape = source.get(prefix + key), tuple(target.shape)
        fitted = None if tensor is None else _fit(key, tensor, encoder, grid, name)
        if fitted is None:
            missing[key] = (None if tensor is None else tuple(tensor.shape), shape)
            continue
        if fitted.is_floating_point() != target.is_floating_point() or not fitted.isfinite().all():
            raise CourseError(
                f"{name}: {prefix}{key} holds NaN, infinity or integers; the training diverged, repeat it"
            )
        if fitted is tensor:
            matched[key] = shape
        else:
            resized[key] = (tuple(tensor.shape), shape)
        weights[key] = fitted
    used = {prefix + key for key in targets}
    extra = {key: tuple(tensor.shape) for key, tensor in source.items() if key not in used}
    share = sum(tensor.numel() for tensor in weights.values()) / sum(tensor.numel() for tensor in targets.values())
    return weights, TransferReport(
        source=name,
        prefix=prefix,
        matched=matched,
        resized=resized,
        missing=missing,
        share=share,
        unexpected={key: shape for key, shape in extra.items() if not IGNORED.search(key)},
        ignored=tuple(key for key in extra if IGNORED.search(key)),
    )


def _prefix(source: Mapping[str, Tensor], encoder: Encoder, name: str) -> str:
    """The prefix of most of the encoder's names."""
    targets = encoder.state_dict()
    votes: Counter[str] = Counter()
    for key in source:
        parts = key.split(".")
        votes.update(".".join([*parts[:i], ""]) for i in range(len(parts)) if ".".join(parts[i:]) in targets)
    if not votes:
        expected = f"a {type(encoder).__name__} weight (such as {next(iter(targets))})"
        raise CourseError(f"{name}: no tensor has the name of {expected}; wrong file?")
    most = max(votes.values())
    best = [prefix for prefix, n in votes.items() if n == most]
    if len(best) > 1 and most > len(targets) / 2:
        raise CourseError(f"{name}: holds several encoders ({', '.join(map(repr, best))}); choose one with prefix=")
    return best[0]


def _saved_grid(metadata: Mapping[str, str], name: str) -> Size | None:
    try:
        return triple(json.loads(metadata["grid"]), "grid") if "grid" in metadata else None
    except (TypeError, ValueError):
        raise CourseError(f"{name}: its metadata has grid={metadata['grid']!r}, not three whole numbers") from None


def _check_settings(encoder: Encoder, metadata: Mapping[str, str], name: str) -> None:
    for setting in encoder.traceless:
        saved = re.search(rf'"{setting}": *"?(\w+)', metadata.get("config", ""))
        if saved and setting in encoder.config and saved[1] != str(encoder.config[setting]):
            raise CourseError(
                f"{name}: was trained with {setting}={saved[1]}, this encoder has {encoder.config[setting]}; change one"
            )


def _fit(key: str, tensor: Tensor, encoder: Encoder, grid: Size | None, name: str) -> Tensor | None:
    """The tensor, resized where that is possible; None where it does not fit."""
    target = encoder.state_dict()[key].shape
    if key == POSITIONS and tensor.ndim == 3 and tensor.shape[::2] == target[::2]:
        grid = grid or _guess_grid(tensor.shape[1], encoder, name)
        if tensor.shape[1] != prod(grid):
            raise CourseError(f"{name}: has {tensor.shape[1]} positions, not a token grid of {grid}; wrong grid?")
        return tensor if grid == encoder.grid else resize_positions(tensor, grid, encoder.grid)
    if "kernel_size" in encoder.config:
        tensor = upkern(tensor, encoder.state_dict()[key], name)
    if key in encoder.reads_image and tensor.ndim == 5 and tensor.shape[1] != target[1]:
        tensor = adapt_channels(tensor, target[1])
    return tensor if tensor.shape == target else None


def _guess_grid(tokens: int, encoder: Encoder, name: str) -> Size:
    side = round(tokens ** (1 / 3))
    if tokens == prod(encoder.grid):
        return encoder.grid
    if tokens != side**3:
        raise CourseError(
            f"{name}: has {tokens} positions of an unknown token grid; check that patch_size is that of the "
            "pretraining, and pass its grid=(d, h, w)"
        )
    return side, side, side


def resize_positions(positions: Tensor, old: Sequence[int], new: Sequence[int], mode: str = "trilinear") -> Tensor:
    """Interpolate positions (1, N, E) to another token grid (1, M, E) of the same field of view; `mode` for 3D."""
    grid = positions.float().transpose(1, 2).unflatten(2, tuple(old))  # (1, E, d, h, w)
    return interpolate(grid, size=tuple(new), mode=mode, align_corners=False).flatten(2).transpose(1, 2)  # (1, M, E)


def adapt_channels(weight: Tensor, channels: int) -> Tensor:
    """A convolution (E, C, p, p, p) for another number of channels: the mean over channels, times old / new."""
    old = weight.shape[1]
    return weight.float().mean(1, keepdim=True).mul(old / channels).repeat(1, channels, 1, 1, 1)


def _check_report(encoder: Encoder, report: TransferReport, minimum_share: float) -> None:
    sizes = ", ".join(key for key in encoder.config if key not in ("network", "in_channels", "img_size", "dropout"))
    further_layer = re.compile(re.escape(report.prefix) + encoder.deeper)
    if deeper := [key for key in report.unexpected if further_layer.match(key)]:
        raise CourseError(
            f"{report.source}: has {some(deeper)}, which this encoder lacks, so it would compute something else; build "
            f"the encoder with the sizes of the pretraining ({sizes}; biases on q, k, v are not supported)"
        )
    if report.share >= minimum_share and not set(encoder.reads_image) & set(report.missing):
        return
    lacking = [f"{key} {shown(shapes)}" for key, shapes in report.missing.items()]
    raise CourseError(
        f"{report.source}: {report.share:.2%} of the encoder's parameters would be loaded, but {minimum_share:.0%} and "
        f"the layer that reads the image must be; missing {some(lacking)}; build the encoder with the sizes of the "
        f"pretraining ({sizes}), or pass minimum_share=0 to take whatever fits"
    )
