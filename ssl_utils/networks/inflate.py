"""Weight inflation (Carreira & Zisserman 2017; Zhang et al. 2023, TransSeg): a 3D ViT from the weights of a 2D one.

Only the layer that reads the image and the positions know how many dimensions it has; every other weight is taken as it
is. The depth axis is the last one, the third axis of a volume.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ssl_utils.errors import CourseError
from ssl_utils.networks.block_2d import SPECIAL, Block2D
from ssl_utils.networks.vit import ViT, initialise
from ssl_utils.networks.vit2d import ViT2D, resize_positions

HOW = ("centre", "average")
TABLES = ("bicubic", "geometric")  # how those of relative positions are resized
Statistics = tuple[Sequence[float], Sequence[float]]


class InflatedViT(ViT):
    """The 3D ViT with the blocks and the class token of 2D ones. The class token is no part of the output.

    `relative`: attention with relative positions, as BEiT has it.
    """

    def __init__(self, *, relative: bool = False, **sizes: Any) -> None:
        super().__init__(**sizes)
        names = ("hidden_size", "mlp_dim", "num_heads", "dropout")
        of_block = {name: self.config[name] for name in names} | ({"grid": self.grid} if relative else {})
        self.blocks = nn.ModuleList(Block2D(**of_block) for _ in self.blocks).apply(initialise)
        self.norm.eps = 1e-6
        # in the part that reads the image, for freezing and learning rates
        self.patch_embedding.class_token = nn.Parameter(torch.zeros(1, 1, self.hidden_size))
        self.config |= {"as_2d": True} | ({"relative": True} if relative else {})

    def encode(self, tokens: Tensor) -> tuple[Tensor, list[Tensor]]:
        first = self.patch_embedding.class_token.expand(len(tokens), -1, -1)
        last, hidden = super().encode(torch.cat([first, tokens], 1))
        return last[:, 1:], [layer[:, 1:] for layer in hidden]


def vit_3d(*, as_2d: bool = False, relative: bool = False, **sizes: Any) -> ViT:
    return InflatedViT(relative=relative, **sizes) if as_2d else ViT(**sizes)


def inflate(kernel: Tensor, depth: int, how: str = "centre") -> Tensor:
    """A 2D kernel (E, C, p, q) as a 3D one (E, C, p, q, depth).

    `centre`: it reads the middle slice as before and all others with zeros, which have a gradient and so can learn.
    `average`: it reads the mean of the slices.
    """
    if how not in HOW:
        raise CourseError(f"how={how!r}: unknown; choose one of {', '.join(HOW)}")
    if how == "average":
        return (kernel / depth)[..., None].repeat(1, 1, 1, 1, depth)
    thick = kernel.new_zeros(*kernel.shape, depth)
    thick[..., depth // 2] = kernel
    return thick


def fold_rgb(
    kernel: Tensor, bias: Tensor, channels: int, *, rgb: Statistics, unit: tuple[float, float] | None = None
) -> tuple[Tensor, Tensor]:
    """A kernel (E, 3, p, q) and bias of RGB images for `channels`, with the standardisation of the RGB images in them.

    Three channels are taken as red, green and blue; otherwise the grey value of each stands for all three colours, and
    the mean over channels is taken.

    Args:
        rgb: mean and standard deviation of the RGB images (of values in 0..1).
        unit: a value x of the new input means unit[0] + unit[1] * x in 0..1. Default: so that a standardised image has
            mean and standard deviation of the photographs. (0, 1): the input is in 0..1.
    """
    mean, deviation = (kernel.new_tensor(numbers).view(1, -1, 1, 1) for numbers in rgb)
    offset, gain = unit or (float(mean.mean()), float(deviation.mean()))
    bias = bias + (kernel * (offset - mean) / deviation).sum((1, 2, 3))
    kernel = kernel * gain / deviation
    if channels != 3:
        kernel = kernel.sum(1, keepdim=True).repeat(1, channels, 1, 1) / channels
    return kernel, bias


def resize_patch(kernel: Tensor, size: tuple[int, int], how: str = "pseudo_inverse") -> Tensor:
    """A kernel (E, C, p, q) for patches of another size.

    `pseudo_inverse` (Beyer et al. 2023, FlexiViT): it gives on a resized patch what the old one gives on the patch.
    `interpolation`: the kernel as an image; sums over more or fewer pixels, so tokens change their length.
    """
    old = tuple(kernel.shape[2:])
    if size == old:
        return kernel
    if how == "interpolation":
        return _resized(kernel, size)
    pixels = torch.eye(old[0] * old[1], dtype=torch.float64).view(-1, 1, *old)
    matrix = _resized(pixels, size).flatten(1).T  # (new, old): resizes a patch
    resized = kernel.double().flatten(2) @ torch.linalg.pinv(matrix)  # (E, C, new)
    return resized.unflatten(2, size).to(kernel.dtype)


def _resized(images: Tensor, size: tuple[int, int]) -> Tensor:
    return F.interpolate(images, size=size, mode="bicubic", align_corners=False, antialias=True)


def resize_relative(
    table: Tensor, old: tuple[int, int], new: tuple[int, int], *, how: str = "bicubic", special: int = 0
) -> Tensor:
    """A table of relative positions (rows, heads) of a window or grid `old` for `new`: BEiT's, whose last `special`
    rows (3, of the class token) are kept, or Swin's.

    `geometric` (Bao et al. 2022, BEiT): near offsets keep their value, and the further ones are stretched more and more
    to reach the new ends; then cubic splines.
    """
    if how not in TABLES:
        raise CourseError(f"how={how!r}: unknown; choose one of {', '.join(TABLES)}")
    sides, rows = [2 * n - 1 for n in old], (2 * old[0] - 1) * (2 * old[1] - 1)
    if len(table) != rows + special:
        raise CourseError(
            f"table of {len(table)} rows: a grid {old} has {rows} offsets and {special} more; wrong grid?"
        )
    maps = table[:rows].T.unflatten(1, sides)  # (heads, 2 h - 1, 2 w - 1)
    if how == "geometric":
        from scipy.interpolate import RectBivariateSpline

        known = [_stretched(n, m) for n, m in zip(old, new, strict=True)]
        wanted = [np.arange(1 - m, m, dtype=float) for m in new]
        splines = [RectBivariateSpline(*known, one.double().numpy()) for one in maps.detach()]
        resized = torch.from_numpy(np.stack([spline(*wanted) for spline in splines])).to(table.dtype)
    else:
        size = [2 * m - 1 for m in new]
        resized = F.interpolate(maps[None], size=size, mode="bicubic", align_corners=False)[0]
    return torch.cat([resized.flatten(1).T, table[rows:]])


def _stretched(old: int, new: int) -> np.ndarray:
    """Coordinates of the 2 old - 1 offsets: 1, 1 + q, 1 + q + q^2, ... with q such that the last one is new - 1."""
    steps, low, high = np.arange(old - 1), 1e-3, 1e3
    for _ in range(100):  # bisection
        q = (low * high) ** 0.5
        low, high = (q, high) if (q**steps).sum() < new - 1 else (low, q)
    ahead = np.cumsum(q**steps)
    return np.concatenate([-ahead[::-1], [0], ahead])


def inflate_relative(table: Tensor, depth: int, special: int = SPECIAL) -> Tensor:
    """A table of 2D windows (rows, heads) for windows of `depth` slices, the depth axis first as in Video Swin (Liu et
    al. 2022), the special rows last: the bias does not depend on the distance between slices."""
    rows = len(table) - special
    return torch.cat([table[:rows].repeat(2 * depth - 1, 1), table[rows:]])


def is_table(name: str) -> bool:
    return name.endswith(".relative_positions")


def flat_weights(
    network: ViT2D, rgb: Statistics, flat: ViT, *, unit: tuple[float, float] | None = None, tables: str = "bicubic"
) -> dict[str, Tensor]:
    """The weights of a 2D network for a `flat` encoder, whose crop is one slice deep (`as_2d`).

    Kernel and positions are resized, RGB is folded in (`fold_rgb`), and the class token carries its own position.
    `tables`: how tables of relative positions are resized, `bicubic` or `geometric`.

    Raises:
        CourseError: the widths or numbers of blocks differ.
    """
    if differs := [name for name, size in network.sizes.items() if flat.config.get(name) != size]:
        sizes = ", ".join(f"{name}={network.sizes[name]}" for name in differs)
        raise CourseError(f"the 2D network has {sizes}: build the 3D one with the same sizes")
    (p, q, _), (h, w, _) = flat.patch_size, flat.grid
    kernel, bias = fold_rgb(
        resize_patch(network.patch_embedding.weight, (p, q)),
        network.patch_embedding.bias,
        flat.config["in_channels"],
        rgb=rgb,
        unit=unit,
    )
    positions = resize_positions(network.position_embeddings, network.grid, (h, w))
    rest = {key: value for key, value in network.state_dict().items() if key.startswith(("blocks.", "norm."))}
    for key in filter(is_table, rest):
        rest[key] = resize_relative(rest[key], network.grid, (h, w), how=tables, special=SPECIAL)
    first = {"class_token": network.class_token + positions[:, :1], "position_embeddings": positions[:, 1:]}
    first |= {"patch_embeddings.weight": kernel[..., None], "patch_embeddings.bias": bias}
    return rest | {f"patch_embedding.{key}": value.detach() for key, value in first.items()}


def inflated(weights: Mapping[str, Tensor], encoder: ViT, how: str = "centre") -> dict[str, Tensor]:
    """The weights of a flat encoder for a deep one with the same patch and grid in plane: the kernel inflated to the
    depth of its patch, and every slice of tokens with the positions of the plane."""
    deep = {key: inflate_relative(weights[key], encoder.grid[2]) for key in filter(is_table, weights)}
    kernel, positions = (f"patch_embedding.{name}" for name in ("patch_embeddings.weight", "position_embeddings"))
    thick = inflate(weights[kernel][..., 0], encoder.patch_size[2], how)
    return {**weights, **deep, kernel: thick, positions: weights[positions].repeat_interleave(encoder.grid[2], 1)}
