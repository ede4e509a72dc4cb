"""The block of 2D ViTs, with what MONAI's lacks: biases on q, k, v, LayerScale (Touvron et al. 2021), and, if wanted,
relative positions (Bao et al. 2022, BEiT): a bias for each head and each offset between two tokens, read from a table.

Offsets are numbered as BEiT and Video Swin (Liu et al. 2022) do: the depth axis first, then the plane in reading order.
The last SPECIAL rows are from the class token to a patch, from a patch to it, and to itself.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from ssl_utils.errors import CourseError
from ssl_utils.networks.transformer import Attention, Block

SPECIAL = 3


def rows_of(grid: Sequence[int]) -> int:
    """Rows of the table of a grid of tokens, the special ones included."""
    return math.prod(2 * n - 1 for n in grid) + SPECIAL


def offsets_of(grid: Sequence[int]) -> Tensor:
    """The row of the table for each pair of tokens (1 + N, 1 + N), class token first, of a grid (h, w) or (h, w, d)."""
    axes = torch.meshgrid(*(torch.arange(n) for n in grid), indexing="ij")
    places = torch.stack([axis.flatten() for axis in axes])  # (2 or 3, N)
    apart = places[:, :, None] - places[:, None]  # from the second token to the first
    order = [2, 0, 1] if len(grid) == 3 else [0, 1]
    rows, last = torch.zeros_like(apart[0]), rows_of(grid)
    for axis in order:
        rows = rows * (2 * grid[axis] - 1) + apart[axis] + grid[axis] - 1
    offsets = torch.full((len(rows) + 1,) * 2, last - 1)
    offsets[0, 1:], offsets[1:, 0], offsets[1:, 1:] = last - 3, last - 2, rows
    return offsets


class LayerScale(nn.Module):
    def __init__(self, hidden_size: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(hidden_size))

    def forward(self, x: Tensor) -> Tensor:  # (B, n, E)
        return x * self.weight


class Block2D(Block):
    """`grid`: of the tokens, for relative positions; None: without."""

    def __init__(
        self,
        *,
        hidden_size: int,
        mlp_dim: int,
        num_heads: int,
        dropout: float = 0.0,
        eps: float = 1e-6,
        grid: Sequence[int] | None = None,
    ) -> None:
        super().__init__(hidden_size=hidden_size, mlp_dim=mlp_dim, num_heads=num_heads, dropout=dropout)
        if grid:
            self.attn = RelativeAttention(hidden_size=hidden_size, num_heads=num_heads, dropout=dropout, grid=grid)
        self.attn.qkv = nn.Linear(hidden_size, 3 * hidden_size)
        self.norm1.eps = self.norm2.eps = eps
        self.scale1, self.scale2 = LayerScale(hidden_size), LayerScale(hidden_size)

    def forward(self, x: Tensor) -> Tensor:  # (B, n, E)
        x = x + self.scale1(self.attn(self.norm1(x)))
        return x + self.scale2(self.mlp(self.norm2(x)))


class RelativeAttention(Attention):
    """Attention among the class token and all tokens of one grid."""

    def __init__(self, *, grid: Sequence[int], **sizes: Any) -> None:
        super().__init__(**sizes)
        self.relative_positions = nn.Parameter(torch.zeros(rows_of(grid), self.num_heads))
        self.register_buffer("offsets", offsets_of(grid), persistent=False)

    def forward(self, x: Tensor) -> Tensor:  # (B, n, E)
        if x.shape[1] != len(self.offsets):
            needs = f"relative positions are of {len(self.offsets)} tokens with the class token"
            raise CourseError(f"{x.shape[1]} tokens: {needs}; give an image of that size, or inflate it for this one")
        q, k, v = rearrange(self.qkv(x), "b n (three h d) -> three b h n d", three=3, h=self.num_heads)
        bias = self.relative_positions[self.offsets].permute(2, 0, 1).to(q.dtype)  # (h, n, n)
        mixed = scaled_dot_product_attention(q, k, v, attn_mask=bias, dropout_p=self.dropout.p * self.training)
        return self.dropout(self.out_proj(rearrange(mixed, "b h n d -> b n (h d)")))
