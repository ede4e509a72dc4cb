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
from monai.networks.blocks.transformerblock import TransformerBlock
from torch import Tensor

from ssl_utils.errors import CourseError
from ssl_utils.networks.attention import plain_attention, tiled_attention
from ssl_utils.networks.interface import Encoder, Size, arguments, token_grid, triple

PLAIN_TOKENS = 1024


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


class Block(TransformerBlock):
    """MONAI's pre-norm block on fused attention (SDPA), or on plain or tiled matrix products where those are faster."""

    def __init__(self, *, hidden_size: int, mlp_dim: int, num_heads: int, dropout: float) -> None:
        super().__init__(hidden_size, mlp_dim, num_heads, dropout, use_flash_attention=True)
        self.attention_dropout = dropout
        # MONAI builds this norm even without cross attention. It never gets a gradient, which stops DDP and
        # miscounts parameters, so it is removed; loading MONAI's weights skips it.
        del self.norm_cross_attn
        self.register_load_state_dict_pre_hook(_drop_cross_attention)

    def forward(self, x: Tensor) -> Tensor:  # (B, n, E)
        x = x + self.attend(self.norm1(x))
        return x + self.mlp(self.norm2(x))

    def attend(self, x: Tensor) -> Tensor:
        """Self attention. On a processor in bfloat16 the backward pass of the fused kernel is 1.5 to 7 times as slow as
        matrix products; beyond PLAIN_TOKENS their n x n weights per head need too much memory, hence tiles."""
        if x.device.type != "cpu" or not torch.is_autocast_enabled("cpu") or self.attn.dropout_rate:
            return self.attn(x)
        q, k, v = self.attn.input_rearrange(self.attn.qkv(x))  # each (B, heads, n, E / heads)
        products = plain_attention if x.shape[1] <= PLAIN_TOKENS else tiled_attention
        with torch.autocast("cpu", enabled=False):  # it would make the softmax write float32
            mixed = products(q, k, v)
        return self.attn.out_proj(self.attn.out_rearrange(mixed))

    def train(self, mode: bool = True) -> "Block":
        # MONAI passes its rate to SDPA in evaluation too, which would make predictions random.
        self.attn.dropout_rate = self.attention_dropout if mode else 0.0
        return super().train(mode)


def _drop_cross_attention(block: nn.Module, state: dict[str, Tensor], prefix: str, *_: Any) -> None:
    for key in [key for key in state if key.startswith((f"{prefix}norm_cross_attn.", f"{prefix}cross_attn."))]:
        del state[key]


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


def initialise(module: nn.Module) -> None:
    # A convolution whose stride is its kernel is a linear layer on flattened patches; Xavier needs that shape.
    if isinstance(module, nn.Linear | nn.Conv3d):
        nn.init.xavier_uniform_(module.weight.flatten(1))  # (out, in * p^3), a view
        if module.bias is not None:
            nn.init.zeros_(module.bias)
