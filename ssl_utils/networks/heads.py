"""Reconstruction heads: tokens back to voxels. Patch i of the output depends on token i and on nothing else.

(A head that blurs or convolves across patches lets hidden patches be filled in from visible neighbours.)
"""

from collections.abc import Sequence

import torch.nn as nn
from einops import rearrange
from torch import Tensor

from ssl_utils.errors import CourseError
from ssl_utils.networks.interface import token_grid, triple


def patchify(x: Tensor, patch_size: int | Sequence[int]) -> Tensor:
    """Image (B, C, D, H, W) to its patches (B, N, C * p^3), in the ViT's token order; channels are outermost."""
    p, q, r = triple(patch_size, "patch_size")
    d, h, w = token_grid(x.shape[2:], patch_size)
    x = x.reshape(*x.shape[:2], d, p, h, q, w, r)  # (B, C, d, p, h, q, w, r)
    return x.permute(0, 2, 4, 6, 1, 3, 5, 7).flatten(4).flatten(1, 3)  # (B, d h w, C p q r)


def unpatchify(tokens: Tensor, grid: Sequence[int], patch_size: int | Sequence[int], channels: int = 1) -> Tensor:
    """Patches (B, N, C * p^3) back to the image (B, C, D, H, W)."""
    (p, q, r), (d, h, w) = triple(patch_size, "patch_size"), triple(grid, "grid")
    if tokens.shape[1:] != (d * h * w, channels * p * q * r):
        raise CourseError(
            f"tokens of shape {tuple(tokens.shape)}: grid {(d, h, w)}, patch {(p, q, r)} and {channels} channels "
            f"need (batch, {d * h * w}, {channels * p * q * r})"
        )
    x = tokens.reshape(-1, d, h, w, channels, p, q, r)  # (B, d, h, w, C, p, q, r)
    return x.permute(0, 4, 1, 5, 2, 6, 3, 7).reshape(-1, channels, d * p, h * q, w * r)  # (B, C, D, H, W)


class LinearHead(nn.Module):
    """SimMIM's head: one linear layer, E -> C * p^3."""

    def __init__(self, *, hidden_size: int, patch_size: int | Sequence[int], out_channels: int) -> None:
        super().__init__()
        self.patch_size, self.out_channels = triple(patch_size, "patch_size"), out_channels
        p, q, r = self.patch_size
        self.linear = nn.Linear(hidden_size, out_channels * p * q * r)
        nn.init.xavier_uniform_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, tokens: Tensor, grid: Sequence[int]) -> Tensor:  # (B, N, E)
        return unpatchify(self.linear(tokens), grid, self.patch_size, self.out_channels)  # (B, C, D, H, W)


class TransposedConvHead(nn.Module):
    """The head of MONAI's ViTAutoEnc, under its names: two transposed convolutions, kernel = stride, E -> 16 -> C.

    The two strides multiply to the patch, as equal as they can be, the larger first: 16 = 4 * 4, 8 = 4 * 2.
    """

    def __init__(
        self, *, hidden_size: int, patch_size: int | Sequence[int], out_channels: int, channels: int = 16
    ) -> None:
        super().__init__()
        self.patch_size = triple(patch_size, "patch_size")
        second = tuple(_factor(p) for p in self.patch_size)
        first = tuple(p // b for p, b in zip(self.patch_size, second, strict=True))
        self.conv3d_transpose = nn.ConvTranspose3d(hidden_size, channels, kernel_size=first, stride=first)
        self.conv3d_transpose_1 = nn.ConvTranspose3d(channels, out_channels, kernel_size=second, stride=second)

    def forward(self, tokens: Tensor, grid: Sequence[int]) -> Tensor:  # (B, N, E)
        x = _spread(tokens.unflatten(1, tuple(grid)), self.conv3d_transpose)
        return _spread(x, self.conv3d_transpose_1).movedim(-1, 1)  # (B, C, D, H, W)


def _spread(x: Tensor, convolution: nn.ConvTranspose3d) -> Tensor:
    """A transposed convolution whose stride is its kernel, of (B, D, H, W, E) to (B, D p, H q, W r, C): every vector
    becomes a block of p x q x r voxels by one matrix product, and sooner as such."""
    p, q, r = convolution.kernel_size
    weight = rearrange(convolution.weight, "e c p q r -> (p q r c) e")
    voxels = nn.functional.linear(x, weight, convolution.bias.repeat(p * q * r))
    return rearrange(voxels, "b d h w (p q r c) -> b (d p) (h q) (w r) c", p=p, q=q, r=r)


def _factor(side: int) -> int:
    """The largest divisor of `side` that is not above its square root."""
    factor = max(n for n in range(1, side + 1) if side % n == 0 and n * n <= side)
    if factor == 1:
        raise CourseError(f"patch_size={side}: is not a product of two strides; choose 4, 8 or 16, or the linear head")
    return factor
