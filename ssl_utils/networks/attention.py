"""Attention by matrix products, for bfloat16 on a processor, whose products PyTorch's fused kernel makes little use of.

Plain products keep a table of n x n weights per head for the backward pass. Many tokens go in tiles, a few rows of a
head at a time (Rabe & Staats 2021): those fit the cache of a core, and are computed twice in place of kept.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

TILE = 750_000  # weights at a time: 1.5 MB of bfloat16, of the cache of one core


def plain_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """softmax(q k^T / sqrt(d)) v of (B, h, n, d), as it is written."""
    return torch.softmax((q * q.shape[-1] ** -0.5) @ k.mT, -1) @ v


class TiledAttention(torch.autograd.Function):
    """The same, exactly, in tiles."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        scaled, out = q * q.shape[-1] ** -0.5, torch.empty_like(q)
        for head, rows in _tiles(q):
            out[head][rows] = _weights(scaled[head][rows], k[head]) @ v[head]
        ctx.save_for_backward(scaled, k, v, out)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        scaled, k, v, out = ctx.saved_tensors
        grads = torch.empty_like(scaled), torch.zeros_like(k), torch.zeros_like(v)
        # a softmax hands down p * (g - sum of p g over its row), and that sum is the row of the output times grad
        row_sums = (grad * out).sum(-1, keepdim=True)
        for head, rows in _tiles(scaled):
            queries, up = scaled[head][rows], grad[head][rows]
            weights = _weights(queries, k[head])
            down = (up @ v[head].T).sub_(row_sums[head][rows]).mul_(weights)
            grads[0][head][rows] = down @ k[head]
            grads[1][head].addmm_(down.T, queries)
            grads[2][head].addmm_(weights.T, up)
        return grads[0] * scaled.shape[-1] ** -0.5, grads[1], grads[2]


def _weights(queries: Tensor, keys: Tensor) -> Tensor:
    return torch.softmax(queries @ keys.T, -1)  # (rows, n)


def _tiles(q: Tensor):
    """((crop, head), rows) of every tile."""
    step = max(TILE // q.shape[2], 1)
    for crop in range(q.shape[0]):
        for head in range(q.shape[1]):
            for start in range(0, q.shape[2], step):
                yield (crop, head), slice(start, start + step)
