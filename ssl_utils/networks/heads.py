"""Reconstruction heads: tokens back to voxels. Patch i of the output depends on token i only: a head that convolves
across patches could fill hidden patches from their visible neighbours."""

from collections.abc import Sequence

import torch.nn as nn
from einops import rearrange
from torch import Tensor

from ssl_utils.errors import CourseError
from ssl_utils.networks.interface import token_grid, triple


def patchify(x: Tensor, patch_size: int | Sequence[int]) -> Tensor:
    """Image (B, C, D, H, W) to its patches (B, N, C * p^3), in the ViT's token order; channels are outermost."""
    d, h, w = token_grid(x.shape[2:], patch_size)
    return rearrange(x, "b c (d p) (h q) (w r) -> b (d h w) (c p q r)", d=d, h=h, w=w)


def unpatchify(tokens: Tensor, grid: Sequence[int], patch_size: int | Sequence[int], channels: int = 1) -> Tensor:
    """Patches (B, N, C * p^3) back to the image (B, C, D, H, W)."""
    (p, q, r), (d, h, w) = triple(patch_size, "patch_size"), triple(grid, "grid")
    if tokens.shape[1:] != (d * h * w, channels * p * q * r):
        raise CourseError(
            f"tokens of shape {tuple(tokens.shape)}: grid {(d, h, w)}, patch {(p, q, r)} and {channels} channels "
            f"need (batch, {d * h * w}, {channels * p * q * r})"
        )
    return rearrange(tokens, "b (d h w) (c p q r) -> b c (d p) (h q) (w r)", d=d, h=h, w=w, p=p, q=q, r=r)


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
    """A transposed convolution whose stride is its kernel, (B, D, H, W, E) to (B, D p, H q, W r, C), as one matrix
    product from each vector to a block of p x q x r voxels, which is faster."""
    p, q, r = convolution.kernel_size
    weight = rearrange(convolution.weight, "e c p q r -> (p q r c) e")
    voxels = nn.functional.linear(x, weight, convolution.bias.repeat(p * q * r))
    return rearrange(voxels, "b d h w (p q r c) -> b (d p) (h q) (w r) c", p=p, q=q, r=r)


def _factor(side: int) -> int:
    """The largest divisor of `side` that is not above its square root; a side of 2 or less needs one stride only."""
    factor = max(n for n in range(1, side + 1) if side % n == 0 and n * n <= side)
    if factor == 1 and side > 2:
        raise CourseError(f"patch_size={side}: cannot be split into two strides; choose 4, 8 or 16, or the linear head")
    return factor
