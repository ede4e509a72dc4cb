"""Move an encoder from one model into another, and say exactly what was moved.

A transfer that silently matches nothing looks like pretraining that does not help. So: every tensor is accounted for,
and too small a share is an error.
"""

import json
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor
from torch.nn.functional import interpolate

from ssl_utils.errors import CourseError
from ssl_utils.networks.checkpoints import (
    read,
    read_checkpoint as read_checkpoint,  # part of this module's interface
    save_encoder as save_encoder,
    save_model as save_model,
    state_dict_in,
)
from ssl_utils.networks.vit import Size, ViT, triple

MINIMUM_SHARE = 0.95
PROJECTION = "patch_embedding.patch_embeddings.weight"
POSITIONS = "patch_embedding.position_embeddings"
# what DDP, torch.compile, FSDP and activation checkpointing put into names
WRAPPERS = {"module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"}
# MONAI's cross attention, unused in a ViT: present in its checkpoints, absent here
IGNORED = re.compile(r"blocks\.\d+\.(norm_)?cross_attn\.")
Shape = tuple[int, ...]


@dataclass(frozen=True)
class TransferReport:
    """What became of every tensor; each mapping goes from a name to its shape or shapes."""

    source: str
    prefix: str
    matched: dict[str, Shape]
    resized: dict[str, tuple[Shape, Shape]]  # found, wanted
    missing: dict[str, tuple[Shape | None, Shape]]  # found (None: absent), wanted
    unexpected: dict[str, Shape]
    ignored: tuple[str, ...]
    share: float  # of the target encoder's parameters that were loaded, 0..1

    def table(self) -> str:
        """The report for printing; tensors that differ only in the block number share a line."""
        lines = [f"encoder from {self.source}" + (f", names under {self.prefix!r}" if self.prefix else "")]
        for title in ("matched", "resized", "missing", "unexpected"):
            group = getattr(self, title)
            lines.append(f"{title:<10} {len(group):>4} tensors")
            rows = Counter((re.sub(r"\.\d+\.", ".*.", name), _shapes(shapes)) for name, shapes in group.items())
            lines += [f"    {name:<44} {shapes}" + (f"  x {n}" if n > 1 else "") for (name, shapes), n in rows.items()]
        return "\n".join([*lines, f"loaded {self.share:.2%} of the encoder's parameters"])


def _shapes(shapes: tuple) -> str:
    if not shapes or isinstance(shapes[0], int):
        return str(shapes)
    return f"{'absent' if shapes[0] is None else shapes[0]} -> {shapes[1]}"


def load_encoder(
    vit: ViT,
    source: Path | str | Mapping[str, Any],
    *,
    minimum_share: float = MINIMUM_SHARE,
    prefix: str | None = None,
    grid: Size | None = None,
) -> TransferReport:
    """Load the encoder found in a checkpoint file or state dict into `vit`, all or nothing, and report it.

    Names may stand under any prefix (`net.encoder.`, `vit.`, `module.`, ...). Positions of another token grid are
    interpolated trilinearly; a patch projection for another number of channels becomes their mean, scaled so that an
    image equal in all channels gives the same tokens as before.

    Args:
        minimum_share: of the encoder's parameters that must be loaded, 0..1; 0 takes whatever fits, without complaint.
        prefix: which encoder, when a checkpoint holds several (student and teacher).
        grid: token grid of the source. Default: from the file's metadata, else as the target's if the number of tokens
            is equal, else a cube.

    Raises:
        CourseError: too little was found, the encoder would compute something else (other heads, deeper, biases on
            queries and keys), a weight is not finite, or the source's token grid cannot be known.
    """
    vit = getattr(vit, "_orig_mod", vit)
    name = "a state dict" if isinstance(source, Mapping) else str(source)
    tensors, metadata = (state_dict_in(source), {}) if isinstance(source, Mapping) else read(source)
    _check_heads(vit, metadata, name)
    found = {".".join(part for part in key.split(".") if part not in WRAPPERS): value for key, value in tensors.items()}
    if prefix is None:
        prefix = _prefix(found, vit.state_dict(), name)
    elif prefix:
        prefix = prefix.removesuffix(".") + "."
    weights, report = _account(vit, found, prefix, triple(grid, "grid") if grid else _saved_grid(metadata, name), name)
    if minimum_share > 0:
        _check_report(report, minimum_share)
    vit.load_state_dict(weights, strict=False)  # only `missing` is absent, and it is reported
    return report


def _account(
    vit: ViT, found: Mapping[str, Tensor], prefix: str, grid: Size | None, name: str
) -> tuple[dict[str, Tensor], TransferReport]:
    """The weights that fit, and what became of every tensor on both sides."""
    wanted = vit.state_dict()
    weights, matched, resized, missing = {}, {}, {}, {}
    for key, target in wanted.items():
        tensor, shape = found.get(prefix + key), tuple(target.shape)
        fitted = None if tensor is None else _fit(key, tensor, vit, grid, name)
        if fitted is None:
            missing[key] = (None if tensor is None else tuple(tensor.shape), shape)
            continue
        if not fitted.is_floating_point() or not fitted.isfinite().all():
            raise CourseError(
                f"{name}: {prefix}{key} holds NaN, infinity or integers; the training diverged, repeat it"
            )
        if fitted is tensor:
            matched[key] = shape
        else:
            resized[key] = (tuple(tensor.shape), shape)
        weights[key] = fitted
    used = {prefix + key for key in wanted}
    extra = {key: tuple(tensor.shape) for key, tensor in found.items() if key not in used}
    share = sum(tensor.numel() for tensor in weights.values()) / sum(tensor.numel() for tensor in wanted.values())
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


def _prefix(found: Mapping[str, Tensor], wanted: Mapping[str, Tensor], name: str) -> str:
    """The prefix under which most of the wanted names stand."""
    votes: Counter[str] = Counter()
    for key in found:
        parts = key.split(".")
        votes.update(".".join([*parts[:i], ""]) for i in range(len(parts)) if ".".join(parts[i:]) in wanted)
    most = max(votes.values(), default=0)
    best = [prefix for prefix, n in votes.items() if n == most]
    if not best:
        raise CourseError(f"{name}: no tensor has the name of a ViT weight (such as {next(iter(wanted))}); wrong file?")
    if len(best) > 1 and most > len(wanted) / 2:
        raise CourseError(f"{name}: holds several encoders ({', '.join(map(repr, best))}); choose one with prefix=")
    return best[0]


def _saved_grid(metadata: Mapping[str, str], name: str) -> Size | None:
    try:
        return triple(json.loads(metadata["grid"]), "grid") if "grid" in metadata else None
    except (TypeError, ValueError):
        raise CourseError(f"{name}: its metadata has grid={metadata['grid']!r}, not three whole numbers") from None


def _check_heads(vit: ViT, metadata: Mapping[str, str], name: str) -> None:
    # The number of heads leaves no trace in the weights' shapes, yet changes what they compute.
    saved = re.search(r'"num_heads": *(\d+)', metadata.get("config", ""))
    if saved and int(saved[1]) != vit.config["num_heads"]:
        raise CourseError(
            f"{name}: was trained with num_heads={saved[1]}, this encoder has {vit.config['num_heads']}; change one"
        )


def _fit(key: str, tensor: Tensor, vit: ViT, grid: Size | None, name: str) -> Tensor | None:
    """The tensor itself when it fits, a resized one when that is possible, else None."""
    target = vit.state_dict()[key].shape
    if key == POSITIONS and tensor.ndim == 3 and tensor.shape[::2] == target[::2]:
        grid = grid or _guess_grid(tensor.shape[1], vit, name)
        if tensor.shape[1] != np.prod(grid):
            raise CourseError(
                f"{name}: has {tensor.shape[1]} positions, which are not a token grid of {grid}; wrong grid?"
            )
        return tensor if grid == vit.grid else resize_positions(tensor, grid, vit.grid)
    if key == PROJECTION and tensor.ndim == 5 and tensor.shape[1] != target[1]:
        tensor = adapt_channels(tensor, target[1])
    return tensor if tensor.shape == target else None


def _guess_grid(tokens: int, vit: ViT, name: str) -> Size:
    side = round(tokens ** (1 / 3))
    if tokens == vit.num_tokens:
        return vit.grid
    if tokens != side**3:
        raise CourseError(
            f"{name}: has {tokens} positions, of which token grid is not known; check that patch_size is that of the "
            "pretraining, and pass its grid=(d, h, w)"
        )
    return side, side, side


def resize_positions(positions: Tensor, old: Size, new: Size) -> Tensor:
    """Positions (1, N, E) of one token grid on another, trilinearly: both span the same field of view."""
    volume = positions.float().transpose(1, 2).unflatten(2, old)  # (1, E, d, h, w)
    return interpolate(volume, size=new, mode="trilinear", align_corners=False).flatten(2).transpose(1, 2)  # (1, M, E)


def adapt_channels(weight: Tensor, channels: int) -> Tensor:
    """Patch projection (E, C, p, p, p) for another number of channels; each gets the mean times old / new."""
    old = weight.shape[1]
    return weight.float().mean(1, keepdim=True).mul(old / channels).repeat(1, channels, 1, 1, 1)


def _check_report(report: TransferReport, minimum_share: float) -> None:
    deeper = [key for key in report.unexpected if key.startswith(f"{report.prefix}blocks.")]
    if deeper:
        raise CourseError(
            f"{report.source}: has {_some(deeper)}, for which this encoder has no place, so it would compute something "
            "else; build the encoder with the num_layers of the pretraining (biases on q, k, v are not supported)"
        )
    if report.share >= minimum_share and PROJECTION not in report.missing:
        return
    lacking = [f"{key} {_shapes(shapes)}" for key, shapes in report.missing.items()]
    raise CourseError(
        f"{report.source}: {report.share:.2%} of the encoder's parameters would be loaded, but {minimum_share:.0%} and "
        f"the patch projection must be; missing {_some(lacking)}; build the encoder with the hidden_size, num_layers "
        "and patch_size of the pretraining, or pass minimum_share=0 to take whatever fits"
    )


def _some(names: list[str], most: int = 3) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
