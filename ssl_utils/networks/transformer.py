"""The transformer block of the ViT (Vaswani et al. 2017; pre-norm, as Dosovitskiy et al. 2021). Chapter 03 shows it."""

from collections import OrderedDict

import torch
import torch.nn as nn
from einops import rearrange
from torch import Tensor

from ssl_utils.networks.attention import plain_attention, tiled_attention

PLAIN_TOKENS = 1024


def attention(q: Tensor, k: Tensor, v: Tensor, *, dropout: float = 0.0) -> Tensor:
    """`plain_attention` by the fastest of three equal implementations.

    On a processor in bfloat16 the backward pass of the fused kernel is 1.5 to 7 times as slow as matrix products;
    beyond PLAIN_TOKENS their n x n weights per head need too much memory, hence tiles.
    """
    if q.device.type != "cpu" or not torch.is_autocast_enabled("cpu") or dropout:
        return nn.functional.scaled_dot_product_attention(q, k, v, dropout_p=dropout)
    products = plain_attention if q.shape[2] <= PLAIN_TOKENS else tiled_attention
    with torch.autocast("cpu", enabled=False):  # it would make the softmax write float32
        return products(q, k, v)


class Attention(nn.Module):
    def __init__(self, *, hidden_size: int, num_heads: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.out_proj = nn.Linear(hidden_size, hidden_size)
        self.qkv = nn.Linear(hidden_size, 3 * hidden_size, bias=False)  # queries, keys and values by one layer
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:  # (B, n, E)
        q, k, v = rearrange(self.qkv(x), "b n (three h d) -> three b h n d", three=3, h=self.num_heads)
        mixed = attention(q, k, v, dropout=self.dropout.p if self.training else 0.0)  # (B, h, n, d)
        return self.dropout(self.out_proj(rearrange(mixed, "b h n d -> b n (h d)")))  # (B, n, E)


class Block(nn.Module):
    def __init__(self, *, hidden_size: int, mlp_dim: int, num_heads: int, dropout: float = 0.0) -> None:
        super().__init__()
        layers = OrderedDict(linear1=nn.Linear(hidden_size, mlp_dim), gelu=nn.GELU(), dropout1=nn.Dropout(dropout))
        layers |= OrderedDict(linear2=nn.Linear(mlp_dim, hidden_size), dropout2=nn.Dropout(dropout))
        self.mlp = nn.Sequential(layers)  # names and order as in MONAI
        self.norm1 = nn.LayerNorm(hidden_size)
        self.attn = Attention(hidden_size=hidden_size, num_heads=num_heads, dropout=dropout)
        self.norm2 = nn.LayerNorm(hidden_size)

    def forward(self, x: Tensor) -> Tensor:  # (B, n, E)
        x = x + self.attn(self.norm1(x))  # tokens exchange information
        return x + self.mlp(self.norm2(x))  # each token on its own
