"""Learnt features of voxels: the tokens of a frozen network, up-sampled to the voxels.

A 2D ViT such as DINO (Caron et al. 2021, arXiv:2104.14294) sees the axial slices of a volume one by one, the course's
own 3D encoder windows of it. Both give coarse maps of a few slices at a time, so that memory does not grow with the
number of slices.
"""

import json
from collections.abc import Callable
from itertools import product
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from ssl_utils.errors import CourseError
from ssl_utils.networks.checkpoints import read_metadata
from ssl_utils.networks.transfer import load_encoder
from ssl_utils.networks.vit import ViT
from ssl_utils.networks.vit2d import load_2d

STRIDE = 4  # voxels under a patch of the 2D network, for which slices are enlarged
WINDOWS = 16  # that the 3D encoder sees at once
Maps = Callable[[Tensor], Tensor]  # indices of axial slices (n,) -> their coarse maps (n, F, d, h)


class SliceFeatures:
    """Tokens of a frozen 2D ViT on axial slices. Each channel is a grey picture; their features are concatenated.

    Args:
        path: weights, as for `load_2d`, which also says what is raised.
        channels: of the volumes.
    """

    def __init__(self, path: Path | str, channels: int) -> None:
        self.network, *statistics = load_2d(path)
        takes = self.network.patch_embedding.in_channels
        if takes != 3:
            raise CourseError(f"{path}: takes {takes} channels, not RGB; take weights trained on photographs")
        self.mean, self.deviation = (torch.tensor(numbers)[:, None, None] for numbers in statistics)
        self.width = channels * self.network.hidden_size

    def padded(self, volume: Tensor) -> Tensor:
        """The volume as `of` takes it: slices of any size are enlarged to whole patches."""
        return volume

    def of(self, volume: Tensor) -> Maps:
        """The coarse maps of a volume (C, D, H, W), whose range becomes that of a photograph, 0..1."""
        low, high = volume.aminmax()
        unit, network = (volume - low) / (high - low).clamp(min=1e-6), self.network.to(volume.device)
        mean, deviation = self.mean.to(volume), self.deviation.to(volume)
        d, h = (max(round(n / STRIDE), 1) for n in volume.shape[1:3])

        def maps(slices: Tensor) -> Tensor:
            upright = unit[..., slices].permute(3, 0, 2, 1).flip(2, 3)  # (n, C, H, D), anterior up
            size = (h * network.patch_size, d * network.patch_size)
            pictures = F.interpolate(upright, size, mode="bilinear", align_corners=False).flatten(0, 1)
            tokens, _ = network.features((pictures[:, None] - mean) / deviation)  # (n C, N, E)
            grid = tokens.transpose(1, 2).unflatten(2, (h, d)).flip(2, 3).transpose(2, 3)  # (n C, E, d, h)
            return grid.unflatten(0, (len(slices), -1)).flatten(1, 2)  # (n, C E, d, h)

        return maps


class WindowFeatures:
    """Tokens of a frozen 3D ViT of the course, averaged over overlapping windows.

    Args:
        path: its `encoder.safetensors`.
        channels: of the volumes.

    Raises:
        CourseError: no such file, not a 3D ViT, or one of other channels.
    """

    def __init__(self, path: Path | str, channels: int) -> None:
        config = json.loads(read_metadata(path).get("config", "{}"))
        if "img_size" not in config or "network" in config:
            raise CourseError(f"{path}: is no 3D ViT of this course; take the encoder.safetensors of a MAE")
        if config["in_channels"] != channels:
            takes = config["in_channels"]
            raise CourseError(f"{path}: takes {takes} channels, the volumes have {channels}; pretrain on like volumes")
        self.network = ViT(**config).eval()
        load_encoder(self.network, path)
        self.width = self.network.hidden_size

    def padded(self, volume: Tensor) -> Tensor:
        """The volume as `of` takes it: whole patches, and at least a window."""
        sizes = zip(volume.shape[1:], self.network.patch_size, self.network.img_size, strict=True)
        missing = [max(-(-n // p) * p, window) - n for n, p, window in sizes]
        ends = [end for more in reversed(missing) for end in (0, more)]
        return F.pad(volume[None], ends, mode="replicate")[0]

    def of(self, volume: Tensor) -> Maps:
        """The coarse maps of a padded standardised volume (C, D, H, W)."""
        network = self.network.to(volume.device)
        patch, window = network.patch_size, network.grid
        cells = [n // p for n, p in zip(volume.shape[1:], patch, strict=True)]
        total, count = volume.new_zeros(self.width, *cells), volume.new_zeros(cells)
        firsts = [{*range(0, n - g, max(g // 2, 1)), n - g} for n, g in zip(cells, window, strict=True)]
        boxes = [
            tuple(slice(a, a + g) for a, g in zip(at, window, strict=True)) for at in product(*map(sorted, firsts))
        ]
        for i in range(0, len(boxes), WINDOWS):
            some = boxes[i : i + WINDOWS]
            fine = [tuple(slice(b.start * p, b.stop * p) for b, p in zip(box, patch, strict=True)) for box in some]
            tokens, _ = network(torch.stack([volume[(slice(None), *box)] for box in fine]))  # (n, N, E)
            for box, of_window in zip(some, tokens.transpose(1, 2).unflatten(2, window), strict=True):
                total[(slice(None), *box)] += of_window
                count[box] += 1
        grid = total / count  # (E, d, h, w)

        def maps(slices: Tensor) -> Tensor:
            position = ((slices + 0.5) / patch[2] - 0.5).clamp(0, cells[2] - 1).to(grid)  # in cells
            low, share = position.long(), position.frac()
            between = grid[..., low] * (1 - share) + grid[..., (low + 1).clamp(max=cells[2] - 1)] * share
            return between.permute(3, 0, 1, 2)  # (n, E, d, h)

        return maps


def bilinear(maps: Tensor, guide: Tensor) -> Tensor:
    """Coarse maps (n, F, d, h) at the pixels of `guide` (n, C, D, H): (n, F, D, H)."""
    return F.interpolate(maps, guide.shape[2:], mode="bilinear", align_corners=False)


def joint_bilateral(maps: Tensor, guide: Tensor, *, radius: int = 2, near: float = 0.8, similar: float = 0.4) -> Tensor:
    """The same, along the edges of the guide: joint bilateral up-sampling (Kopf et al. 2007, ACM TOG 26).

    The feature of a pixel is a mean over the cells around it, weighted by their distance (Gaussian, `near` cells) and
    by the difference between the pixel and the mean of each cell (Gaussian, `similar`, in units of the guide).
    """
    (n, _, d, h), size = maps.shape, guide.shape[2:]
    coarse = F.interpolate(guide, (d, h), mode="area")  # (n, C, d, h)
    rows, columns = (
        (torch.arange(m, device=maps.device) + 0.5) * c / m - 0.5 for c, m in zip((d, h), size, strict=True)
    )
    cells, exponents, steps = [], [], range(-radius, radius + 1)
    for i, j in product(steps, steps):
        row, column = (rows.round().long() + i)[:, None], columns.round().long() + j
        inside = (row >= 0) & (row < d) & (column >= 0) & (column < h)  # (D, H)
        distance = (row - rows[:, None]).square() + (column - columns).square()
        row, column = row.clamp(0, d - 1), column.clamp(0, h - 1)
        contrast = (coarse[:, :, row, column] - guide).square().mean(1)  # (n, D, H)
        exponent = -distance / (2 * near**2) - contrast / (2 * similar**2)
        exponents.append(exponent.masked_fill(~inside, -torch.inf))
        cells.append(row * h + column + torch.arange(n, device=maps.device)[:, None, None] * d * h)  # (n, D, H)
    weights, cells = torch.stack(exponents, -1).softmax(-1), torch.stack(cells, -1)  # (n, D, H, cells) each
    table = maps.movedim(1, -1).flatten(0, 2)  # (n d h, F)
    sums = F.embedding_bag(cells.flatten(0, 2), table, per_sample_weights=weights.flatten(0, 2), mode="sum")
    return sums.unflatten(0, (n, *size)).movedim(-1, 1)


UPSAMPLING = {"bilinear": bilinear, "bilateral": joint_bilateral}


def at_voxels(maps: Maps, volume: Tensor, slices: Tensor, upsampling: str) -> Tensor:
    """Unit-length features (n, D, H, F) of all voxels of these axial slices of a volume (C, D, H, W).

    Raises:
        CourseError: a feature is NaN or infinite.
    """
    guide = volume[..., slices].permute(3, 0, 1, 2)  # (n, C, D, H)
    features = UPSAMPLING[upsampling](maps(slices), guide)
    if not features.isfinite().all():
        raise CourseError("features: some are NaN or infinite; look for such values in the volumes and in the weights")
    return F.normalize(features, dim=1).movedim(1, -1)
