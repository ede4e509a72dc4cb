"""Attention by matrix products, for bfloat16 on a processor, where PyTorch's fused kernel is slow in its backward pass.

Plain products keep a table of n x n weights per head for the backward pass. With many tokens they are computed in
tiles, a few rows of a head at a time, and again in the backward pass (Rabe & Staats 2021).
"""

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

TILE = 750_000  # weights at a time: 1.5 MB of bfloat16, which fit the cache of one core


def plain_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """softmax(q k^T / sqrt(d)) v of (..., n, d), as in the formula."""
    return torch.softmax((q * q.shape[-1] ** -0.5) @ k.mT, -1) @ v


def tiled_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """The same of (B, h, n, d), in tiles."""
    rows = max(TILE // k.shape[2], 1)
    heads = []
    for queries, keys, values in zip(*(x.flatten(0, 1) for x in (q, k, v)), strict=True):  # (n, d) each
        tiles = [
            checkpoint(plain_attention, tile, keys, values, use_reentrant=False, preserve_rng_state=False)
            for tile in queries.split(rows)
        ]
        heads.append(torch.cat(tiles))
    return torch.stack(heads).view_as(q)
