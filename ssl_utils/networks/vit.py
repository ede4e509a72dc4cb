"""The 3D Vision Transformer (Dosovitskiy et al. 2021): one encoder for every pretext task and for UNETR.

Patch projection and positions are separate, because SimMIM puts its mask token between the two and MAE encodes a
subset of the tokens. Weights have the names and shapes of `monai.networks.nets.ViT`.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn as nn
from einops import rearrange
from torch import Tensor

from ssl_utils.errors import CourseError
from ssl_utils.networks.interface import Encoder, Size, arguments, token_grid, triple
from ssl_utils.networks.transformer import Block


def sincos_positions(grid: Sequence[int], hidden_size: int, temperature: float = 10_000.0) -> Tensor:
    """Sine and cosine of each axis on a third of the channels; channels left over are zero. (1, N, hidden_size)"""
    width = hidden_size // 6
    omega = temperature ** -(torch.arange(width, dtype=torch.float64) / max(width, 1))  # (E/6,)
    axes = torch.meshgrid(*(torch.arange(n, dtype=torch.float64) for n in grid), indexing="ij")  # 3 x (d, h, w)
    angles = [axis.reshape(-1, 1) * omega for axis in axes]  # 3 x (N, E/6)
    waves = torch.cat([wave for angle in angles for wave in (angle.sin(), angle.cos())], dim=1)  # (N, 6 * (E/6))
    return nn.functional.pad(waves, (0, hidden_size - waves.shape[1])).float()[None]  # (1, N, E)


class PatchEmbedding(nn.Module):
    def __init__(self, *, in_channels: int, patch_size: Size, hidden_size: int, grid: Size) -> None:
        super().__init__()
        self.patch_embeddings = nn.Conv3d(in_channels, hidden_size, kernel_size=patch_size, stride=patch_size)
        self.position_embeddings = nn.Parameter(sincos_positions(grid, hidden_size))  # (1, N, E), learnable

    def forward(self, x: Tensor) -> Tensor:  # (B, C, D, H, W)
        # A convolution whose stride is its kernel is one matrix product of the patches, up to 10 times as fast. The
        # convolution holds the weights, under their names in MONAI.
        p, q, r = self.patch_embeddings.kernel_size
        patches = rearrange(x, "b c (d p) (h q) (w r) -> b (d h w) (c p q r)", p=p, q=q, r=r)
        weight, bias = self.patch_embeddings.weight, self.patch_embeddings.bias
        return nn.functional.linear(patches, weight.flatten(1), bias)  # (B, N, E), no positions yet


class ViT(Encoder):
    """Encoder of a crop: `in_channels` x `img_size` voxels to one vector of `hidden_size` per patch.

    Raises:
        CourseError: `img_size` is not a multiple of `patch_size`, or `hidden_size` not one of `num_heads`.
    """

    reads_image = ("patch_embedding.patch_embeddings.weight",)
    deeper = r"blocks\."
    traceless = ("num_heads",)

    def __init__(
        self,
        *,
        in_channels: int,
        img_size: int | Sequence[int],
        patch_size: int | Sequence[int] = 16,
        hidden_size: int = 768,
        mlp_dim: int = 3072,
        num_layers: int = 12,
        num_heads: int = 12,
        dropout: float = 0.0,
    ) -> None:
        config = arguments(locals())
        super().__init__()
        self.grid = token_grid(img_size, patch_size)
        if hidden_size % num_heads:
            raise CourseError(f"hidden_size={hidden_size}: not a multiple of num_heads={num_heads}; change one of them")
        self.img_size, self.patch_size, self.hidden_size = triple(img_size), triple(patch_size), hidden_size
        self.config = config | {"img_size": list(self.img_size), "patch_size": list(self.patch_size)}
        self.patch_embedding = PatchEmbedding(
            in_channels=in_channels, patch_size=self.patch_size, hidden_size=hidden_size, grid=self.grid
        )
        self.dropout = nn.Dropout(dropout)
        self.blocks = nn.ModuleList(
            Block(hidden_size=hidden_size, mlp_dim=mlp_dim, num_heads=num_heads, dropout=dropout)
            for _ in range(num_layers)
        )
        self.norm = nn.LayerNorm(hidden_size)
        self.apply(initialise)
        self.register_load_state_dict_pre_hook(_without_cross_attention)

    @property
    def num_tokens(self) -> int:
        return math.prod(self.grid)

    @property
    def positions(self) -> nn.Parameter:
        return self.patch_embedding.position_embeddings  # (1, N, E)

    def embed(self, x: Tensor) -> Tensor:
        """Patches to vectors, WITHOUT positions: (B, C, D, H, W) -> (B, N, E)."""
        if x.shape[1:] != (self.config["in_channels"], *self.img_size):
            raise CourseError(
                f"image of shape {tuple(x.shape)}: this encoder takes (batch, {self.config['in_channels']}, "
                f"{', '.join(map(str, self.img_size))}); crop or pad the volume, or build the encoder for it"
            )
        return self.patch_embedding(x)

    def encode(self, tokens: Tensor) -> tuple[Tensor, list[Tensor]]:  # (B, n, E), positions already added; n <= N
        """The final norm's output and the output of every block, each (B, n, E)."""
        tokens, hidden = self.dropout(tokens), []
        for block in self.blocks:
            tokens = block(tokens)
            hidden.append(tokens)
        return self.norm(tokens), hidden  # (B, n, E), L x (B, n, E)

    def forward(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:  # (B, C, D, H, W)
        return self.encode(self.embed(x) + self.positions)


def parts_of(vit: ViT) -> dict[str, nn.Module]:
    """As `SegmentationNetwork.encoder_parts`."""
    blocks = {f"block {i}": block for i, block in enumerate(vit.blocks)}
    return {"patch embedding": vit.patch_embedding, **blocks, "norm": vit.norm}


def initialise(module: nn.Module) -> None:
    # A convolution whose stride is its kernel is a linear layer on flattened patches; Xavier needs that shape.
    if isinstance(module, nn.Linear | nn.Conv3d):
        nn.init.xavier_uniform_(module.weight.flatten(1))  # (out, in * p^3), a view
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def _without_cross_attention(vit: nn.Module, state: dict[str, Tensor], prefix: str, *_: Any) -> None:
    """MONAI's blocks carry a norm for cross attention even where there is none; it never gets a gradient."""
    for key in [key for key in state if key.startswith(f"{prefix}blocks.") and ".norm_cross_attn." in key]:
        del state[key]
