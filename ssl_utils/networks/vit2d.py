"""A plain 2D ViT, whose pretrained weights come under the names of the hubs.

Weights of a 2D network are the largest pretraining that a 3D network can start from. Sizes are read off the tensors;
what tensors do not say (heads, epsilon, image mean and standard deviation) off the metadata of the file, or off the
`config.json` and `preprocessor_config.json` that a hub puts beside it.
"""

import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn as nn
from torch import Tensor

from ssl_utils.errors import CourseError
from ssl_utils.files import read_json
from ssl_utils.networks import transfer
from ssl_utils.networks.block_2d import SPECIAL, Block2D
from ssl_utils.networks.checkpoints import read

IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
HALF = (0.5,) * 3, (0.5,) * 3
RGB = {"beit": HALF, "augreg": HALF, "dino": IMAGENET, "mae": IMAGENET}  # by a word of the file's name or metadata
SOURCES = "model.safetensors of facebook/dinov2-small (transformers), or timm's vit_small_patch14_dinov2.lvd142m"
RENAMED = (  # names of transformers (Dinov2, ViT) and timm -> names here
    (r"^(?:module|model|vit|dinov2|beit|backbone)\.", ""),
    (r"^embeddings\.(?:cls_token)$|^cls_token$", "class_token"),
    (r"^embeddings\.patch_embeddings\.projection\.|^patch_embed\.proj\.", "patch_embedding."),
    (r"^embeddings\.position_embeddings$|^pos_embed$", "position_embeddings"),
    (r"^encoder\.layer\.", "blocks."),
    (r"attention\.attention\.(query|key|value)\.", r"attn.\1."),
    (r"attention\.output\.dense\.|attn\.proj\.", "attn.out_proj."),
    (r"\.(?:mlp\.fc|intermediate\.dense)1?\.(?=weight|bias)", ".mlp.linear1."),
    (r"\.mlp\.fc2\.|(?<=\d)\.output\.dense\.", ".mlp.linear2."),
    (r"layer_scale(\d)\.lambda1|ls(\d)\.gamma", r"scale\1\2.weight"),
    (r"(?:lambda|gamma)_(\d)$", r"scale\1.weight"),
    (r"^(?:encoder\.relative_position_bias|rel_pos_bias)\.relative_position_bias_table$", "relative_positions"),
    (
        r"(?:attention\.attention\.relative_position_bias|attn)\.relative_position_bias_table$",
        "attn.relative_positions",
    ),
    (r"layernorm_before", "norm1"),
    (r"layernorm_after", "norm2"),
    (r"^(?:layernorm|fc_norm|pooler\.layernorm)\.", "norm."),
)
UNUSED = re.compile(r"mask_token|relative_position_index|^head\.|^pooler\.|^classifier\.")


class ViT2D(nn.Module):
    """Image (B, C, H, W), of sides that are multiples of the patch, to tokens (B, N, E) in reading order.

    Positions are interpolated to the grid of the image. With `relative` ones (BEiT) it must be the network's own grid.
    Raises CourseError for an image of other sides or channels.
    """

    def __init__(
        self,
        *,
        patch_size: int,
        grid: tuple[int, int],
        hidden_size: int,
        mlp_dim: int,
        num_layers: int,
        num_heads: int,
        in_channels: int = 3,
        eps: float = 1e-6,
        relative: bool = False,
    ) -> None:
        super().__init__()
        if hidden_size % num_heads:
            raise CourseError(f"hidden_size={hidden_size}: not a multiple of num_heads={num_heads}; change one of them")
        self.patch_size, self.grid, self.hidden_size, self.num_heads = patch_size, tuple(grid), hidden_size, num_heads
        self.patch_embedding = nn.Conv2d(in_channels, hidden_size, kernel_size=patch_size, stride=patch_size)
        self.class_token = nn.Parameter(torch.zeros(1, 1, hidden_size))
        self.position_embeddings = nn.Parameter(torch.randn(1, 1 + math.prod(grid), hidden_size) * 0.02)
        sizes = {"hidden_size": hidden_size, "mlp_dim": mlp_dim, "num_heads": num_heads}
        own = self.grid if relative else None
        self.blocks = nn.ModuleList(Block2D(**sizes, eps=eps, grid=own) for _ in range(num_layers))
        self.relative = relative
        self.norm = nn.LayerNorm(hidden_size, eps)

    @property
    def sizes(self) -> dict[str, Any]:
        """What a 3D ViT needs to take its weights, besides patch and crop."""
        linear = self.blocks[0].mlp.linear1
        widths = {"hidden_size": self.hidden_size, "mlp_dim": linear.out_features}
        relative = {"relative": True} if self.relative else {}
        return widths | relative | {"num_layers": len(self.blocks), "num_heads": self.num_heads}

    def embed(self, images: Tensor) -> Tensor:
        """Class token first, then the patches, with positions: (B, C, H, W) -> (B, 1 + N, E)."""
        channels, sides = self.patch_embedding.in_channels, images.shape[2:]
        if images.ndim != 4 or images.shape[1] != channels or any(side % self.patch_size for side in sides):
            needs = f"(batch, {channels}, H, W), H and W multiples of {self.patch_size}"
            raise CourseError(f"image of shape {tuple(images.shape)}: this network takes {needs}; resize or pad it")
        patches = self.patch_embedding(images)  # (B, E, h, w)
        tokens = torch.cat([self.class_token.expand(len(images), -1, -1), patches.flatten(2).transpose(1, 2)], 1)
        return tokens + resize_positions(self.position_embeddings, self.grid, patches.shape[2:])

    def forward(self, images: Tensor) -> list[Tensor]:
        """The output of every block, class token first: L x (B, 1 + N, E); the last one has had no final norm."""
        tokens, hidden = self.embed(images), []
        for block in self.blocks:
            tokens = block(tokens)
            hidden.append(tokens)
        return hidden

    def features(self, images: Tensor, block: int = -1) -> tuple[Tensor, Tensor]:
        """Tokens (B, N, E) of a block, and its class token (B, E), after the final norm."""
        tokens = self.norm(self(images)[block])
        return tokens[:, 1:], tokens[:, 0]


def resize_positions(positions: Tensor, old: tuple[int, int], new: tuple[int, int]) -> Tensor:
    """Interpolate positions (1, 1 + N, E) to another grid of the same field of view, bicubically. The class token
    stays first: it has no place in the grid."""
    if tuple(new) == tuple(old):
        return positions
    resized = transfer.resize_positions(positions[:, 1:], old, new, mode="bicubic")
    return torch.cat([positions[:, :1], resized.to(positions.dtype)], 1)


def load_2d(path: Path | str, *, num_heads: int | None = None) -> tuple[ViT2D, tuple[float, ...], tuple[float, ...]]:
    """The 2D ViT in a file, in float32, and the RGB mean and standard deviation (of 0..1) it was trained on.

    Args:
        path: safetensors or a PyTorch state dict, under the names of transformers (Dinov2Model, ViTModel,
            BeitModel) or timm.
        num_heads: default: of the metadata or the `config.json` beside it, else one per 64 channels, as usual.

    Raises:
        CourseError: no such file, no plain ViT with class token and positions in it, sizes that do not fit each other,
            or unknown statistics.
    """
    path = Path(path)
    if not path.is_file():
        raise CourseError(f"{path}: no such file; put {SOURCES} there, or pretrain without weights=")
    tensors, metadata = read(path)
    weights = _renamed(tensors, path)
    config = _beside(path, "config.json") | dict(metadata)
    mean, deviation = _statistics(path, config)
    network = ViT2D(**_sizes(weights, config, num_heads, path))
    targets = network.state_dict()
    if "blocks.0.scale1.weight" not in weights:
        weights |= {key: value for key, value in targets.items() if ".scale" in key}  # ones
    if odd := sorted(set(targets) ^ set(weights)):
        which = "lacks" if odd[0] in targets else "has, but a plain ViT has not,"
        raise CourseError(f"{path}: {which} {odd[0]}; take the weights of a plain ViT, such as {SOURCES}")
    for key, target in targets.items():
        if weights[key].shape != target.shape or not weights[key].isfinite().all():
            shapes = f"{tuple(weights[key].shape)}, not {tuple(target.shape)}, or NaN or infinity"
            raise CourseError(f"{path}: {key} is {shapes}: the tensors are not of one network; fetch it again")
    network.load_state_dict(weights)
    return network.eval(), mean, deviation


def _renamed(tensors: Mapping[str, Tensor], path: Path) -> dict[str, Tensor]:
    """The weights under the names of ViT2D; q, k and v as one matrix."""
    weights = {}
    for key, tensor in tensors.items():
        for pattern, name in RENAMED:
            key = re.sub(pattern, name, key)
        if not UNUSED.search(key):
            weights[key] = tensor.float()
    if "class_token" not in weights:
        raise CourseError(f"{path}: has no class token under a name of transformers or timm; take {SOURCES}")
    for key in [key for key in weights if ".attn.query." in key]:
        parts = [key.replace("query", name) for name in ("query", "key", "value")]
        if key.endswith("bias"):  # BEiT's keys have none
            weights.setdefault(parts[1], torch.zeros_like(weights[key]))
        if all(part in weights for part in parts):
            weights[key.replace("query", "qkv")] = torch.cat([weights.pop(part) for part in parts])
    return _as_beit(weights)


def _as_beit(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """BEiT's weights with all that other ViTs have: timm keeps the biases of q and v apart, a table may be shared by
    all blocks, and there are no absolute positions, which are zeros here."""
    for key in [key for key in weights if key.endswith(".attn.q_bias")]:
        q, v = weights.pop(key), weights.pop(key.replace("q_bias", "v_bias"))
        weights[key.replace("q_bias", "qkv.bias")] = torch.cat([q, torch.zeros_like(q), v])
    if (shared := weights.pop("relative_positions", None)) is not None:
        blocks = {key.split(".")[1] for key in weights if key.startswith("blocks.")}
        weights |= {f"blocks.{i}.attn.relative_positions": shared.clone() for i in blocks}
    table = weights.get("blocks.0.attn.relative_positions")
    if table is not None and "position_embeddings" not in weights:
        side = (math.isqrt(max(len(table) - SPECIAL, 0)) + 1) // 2  # (2 side - 1)^2 offsets
        weights["position_embeddings"] = table.new_zeros(1, 1 + side**2, weights["class_token"].shape[-1])
    return weights


def _sizes(weights: Mapping[str, Tensor], config: Mapping, num_heads: int | None, path: Path) -> dict[str, Any]:
    """The arguments of ViT2D, from the shapes of its tensors."""
    try:
        kernel, positions = weights["patch_embedding.weight"], weights["position_embeddings"]
        mlp_dim = len(weights["blocks.0.mlp.linear1.weight"])
    except KeyError as missing:
        raise CourseError(f"{path}: lacks {missing.args[0]}; take a plain ViT, such as {SOURCES}") from None
    width, tokens = weights["class_token"].shape[-1], positions.shape[-2] - 1
    side = math.isqrt(max(tokens, 0))
    grid = tuple(json.loads(config["grid"])) if "grid" in config else (side, side)
    if len(kernel) != width or kernel.ndim != 4 or kernel.shape[2] != kernel.shape[3]:
        shapes = f"patch projection {tuple(kernel.shape)}, class token {width}"
        raise CourseError(f"{path}: {shapes}: expected (width, channels, p, p) and one width; take {SOURCES}")
    if math.prod(grid) != tokens:
        raise CourseError(f"{path}: {tokens} positions besides the class token's are no square; take {SOURCES}")
    heads = num_heads or config.get("num_heads") or config.get("num_attention_heads") or width // 64
    if not int(heads) or width % int(heads):
        raise CourseError(f"{path}: {heads} heads for a width of {width}; pass num_heads=")
    return {
        "in_channels": kernel.shape[1],
        "patch_size": kernel.shape[2],
        "grid": grid,
        "hidden_size": width,
        "mlp_dim": mlp_dim,
        "num_layers": len({key.split(".")[1] for key in weights if key.startswith("blocks.")}),
        "num_heads": int(heads),
        "eps": float(config.get("layer_norm_eps", 1e-6)),
        "relative": "blocks.0.attn.relative_positions" in weights,
    }


def _statistics(path: Path, config: Mapping[str, Any]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of the images: metadata, `preprocessor_config.json`, or a known name."""
    known = _beside(path, "preprocessor_config.json") | dict(config)
    if "image_mean" in known and "image_std" in known:
        texts = [known[name] for name in ("image_mean", "image_std")]
        return tuple(tuple(json.loads(text) if isinstance(text, str) else text) for text in texts)
    words = f"{path.name} {config}".lower()
    for word, statistics in RGB.items():
        if word in words:
            return statistics
    fix = 'put preprocessor_config.json beside it, {"image_mean": [...], "image_std": [...]}'
    raise CourseError(f"{path}: mean and standard deviation of its RGB training are unknown; {fix}")


def _beside(path: Path, name: str) -> dict[str, Any]:
    """The JSON that a hub puts beside the weights, if any."""
    return dict(read_json(path.with_name(name))) if path.with_name(name).is_file() else {}
