"""Models Genesis (Zhou et al. 2019): deform a crop in four ways, one after the other, and restore the original.

The recipe is that of the published code. Its crops are CT in 0..1; ours are standardised, so every deformation takes
the range of the crop that it is given, and CT and MRI need no rule of their own.
"""

from collections.abc import Sequence
from typing import Annotated

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ssl_utils.errors import CourseError
from ssl_utils.networks.heads import TransposedConvHead
from ssl_utils.networks.interface import Encoder
from ssl_utils.pretext.base import PretextTask
from ssl_utils.training.options import Option

FLIP, SHUFFLE, CURVE, PAINT, INSIDE = 0.4, 0.5, 0.9, 0.9, 0.2  # probabilities; INSIDE: in-painting, given PAINT
COVERED = 10_000 * (3.5 * 3.5 * 2) / (64 * 64 * 32)  # blocks per voxel: 10,000 of mean size in 64 x 64 x 32
BOXES, NEXT, MARGIN = 5, 0.95, 3  # painted boxes at most, probability of another one, voxels to the border of the crop

Switch = Annotated[bool, Option("whether crops are deformed in this way")]


def flipped_axes(generator: torch.Generator) -> list[int]:
    """Axes of (C, D, H, W) to flip. Up to three draws of an axis; one that is drawn twice is flipped back."""
    draws = int((torch.rand(3, generator=generator, device=generator.device) < FLIP).cumprod(0).sum())
    axes = torch.randint(3, (3,), generator=generator, device=generator.device).tolist()[:draws]
    return [axis + 1 for axis in range(3) if axes.count(axis) % 2]


def shuffled(shape: Sequence[int], generator: torch.Generator) -> Tensor:
    """The address (D H W,) that each voxel of a crop (D, H, W) takes its value from, after the voxels inside thousands
    of small blocks were permuted. Blocks lie anywhere; where they overlap, the last one counts."""
    d, h, w = shape
    most = np.clip(np.array(shape) // 10, 2, shape)  # longest sides of a block
    number = max(round(COVERED * d * h * w / np.prod((1 + most) / 2)), 1)
    draws = torch.rand(2, number, 3, generator=generator, device=generator.device).cpu().numpy()
    sides = 1 + (draws[0] * most).astype(np.int32)  # (K, 3)
    corner = (draws[1] * (np.array(shape) - sides + 1)).astype(np.int32)
    sizes = sides.prod(1, dtype=np.int32)
    ends = sizes.cumsum(dtype=np.int32)
    # from here on one entry per voxel of a block, which is much faster in int32 and numpy
    start = np.repeat(ends - sizes, sizes)
    inside = np.arange(ends[-1], dtype=np.int32) - start  # number of the voxel in its block
    rows, z = np.divmod(inside, np.repeat(sides[:, 2], sizes))
    x, y = np.divmod(rows, np.repeat(sides[:, 1], sizes))
    to = np.repeat((corner[:, 0] * h + corner[:, 1]) * w + corner[:, 2], sizes) + (x * h + y) * w + z
    # sorting permutes each block: block, random number and voxel share the digits of a key
    keys = torch.randint(2**28, to.shape, generator=generator, device=generator.device).cpu().numpy() << 15
    keys += inside + np.repeat(np.arange(number) << 43, sizes)
    keys.sort()
    address = np.arange(d * h * w)
    address[to] = to[start + (keys & 2**15 - 1)]
    return torch.from_numpy(address)


def shuffle_blocks(image: Tensor, generator: torch.Generator) -> Tensor:
    """Permute the voxels inside small blocks of a crop (C, D, H, W), alike in all channels."""
    address = shuffled(image.shape[1:], generator).to(image.device)
    return image.flatten(1)[:, address].view_as(image)


def bezier(points: Tensor, *, steps: int = 1000) -> Tensor:
    """The cubic Bézier curve from (0, 0) to (1, 1) with two control points (2, 2) in between, (steps, 2). With points
    within 0..1 it never falls along an axis."""
    t = torch.linspace(0, 1, steps, device=points.device)[:, None]
    return 3 * t * (1 - t) ** 2 * points[0] + 3 * t**2 * (1 - t) * points[1] + t**3


def curved(image: Tensor, generator: torch.Generator) -> Tensor:
    """Map intensities (C, D, H, W) through a random curve, in half of the cases one that rises, else one that falls."""
    draws = torch.rand(5, generator=generator, device=image.device)
    x, y = bezier(draws[:4].view(2, 2)).unbind(1)
    y = y if draws[4] < 0.5 else y.flip(0)
    table = torch.from_numpy(np.interp(np.linspace(0, 1, len(x)), x.cpu().numpy(), y.cpu().numpy())).to(image)
    low, span = image.amin((1, 2, 3), keepdim=True), image.amax((1, 2, 3), keepdim=True)
    span = (span - low).clamp(min=1e-6)
    address = (image - low) / span * (len(table) - 1)
    below = address.long().clamp(max=len(table) - 2)
    return low + span * torch.lerp(table[below], table[below + 1], address - below)


def boxes(shape: Sequence[int], *, least: int, shortest: Tensor, longest: Tensor, generator: torch.Generator) -> Tensor:
    """The union (D, H, W) of `least` to 5 boxes, whose sides are between two limits per axis. True = inside."""
    extent = torch.tensor(shape, device=generator.device)
    draws = torch.rand(2, BOXES, 3, generator=generator, device=generator.device)
    drawn = torch.rand(BOXES, generator=generator, device=generator.device) < NEXT
    drawn[:least] = True
    sides = shortest + (draws[0] * (longest - shortest + 1)).long()  # (5, 3)
    margin = ((extent - longest) // 2).clamp(0, MARGIN)
    low = margin + (draws[1] * (extent - sides - 2 * margin + 1)).long()
    x, y, z = (
        (torch.arange(n, device=extent.device) >= low[:, i, None])
        & (torch.arange(n, device=extent.device) < (low + sides)[:, i, None])
        for i, n in enumerate(shape)
    )
    x = x & drawn.cumprod(0).bool()[:, None]
    return (x[:, :, None, None] & y[:, None, :, None] & z[:, None, None]).any(0)


def paint(image: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Noise in the range of a crop (C, D, H, W), inside a few boxes (in-painting, one fifth) or everywhere else
    (out-painting), and where it is, bool (D, H, W)."""
    shape, extent = image.shape[1:], torch.tensor(image.shape[1:], device=image.device)
    if torch.rand((), generator=generator, device=image.device) < INSIDE:
        limits = {"shortest": (extent // 6).clamp(min=1), "longest": (extent // 3).clamp(min=1)}
        lost = boxes(shape, least=0, **limits, generator=generator)
    else:
        limits = {"shortest": extent - 4 * extent // 7, "longest": extent - 3 * extent // 7}
        lost = ~boxes(shape, least=1, **limits, generator=generator)
    low, high = image.amin((1, 2, 3), keepdim=True), image.amax((1, 2, 3), keepdim=True)
    noise = low + (high - low) * torch.rand(image.shape, generator=generator, device=image.device)
    return torch.where(lost, noise, image), lost


class GenesisTask(PretextTask):
    """Restore a crop from its deformed version. By default the whole segmentation network is pretrained.

    The loss is the mean squared error of the whole crop. The output has no sigmoid, because standardised intensities
    are not within 0..1. Validation is the L1 over lost voxels, those that were painted or shuffled, as in other tasks.

    Args:
        flips: flip crop and target alike, which is augmentation.
        shuffling, intensity, painting: the three deformations.

    Raises:
        CourseError: all three are switched off.
    """

    scope = "network"
    batch_share = 0.5  # as voxel clusters: a step of the whole network

    def __init__(
        self,
        *,
        encoder: Encoder,
        lr: float,
        steps: int,
        seed: int = 0,
        flips: Switch = True,
        shuffling: Switch = True,
        intensity: Switch = True,
        painting: Switch = True,
    ) -> None:
        super().__init__(encoder=encoder, lr=lr, steps=steps, seed=seed)
        if not (shuffling or intensity or painting):
            raise CourseError("shuffling=False, intensity=False, painting=False: nothing to restore; leave one on")
        self.flips, self.shuffling, self.intensity, self.painting = flips, shuffling, intensity, painting
        sizes = {"hidden_size": encoder.hidden_size, "patch_size": encoder.patch_size}
        self.head = TransposedConvHead(**sizes, out_channels=self.out_channels)

    def forward(self, images: Tensor) -> Tensor:
        return self.decode(images, *self.encoder(images))  # (B, C, D, H, W)

    def deform(self, image: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """A deformed crop (C, D, H, W) and its lost voxels, bool; all of them where only intensities are changed."""
        coins = torch.rand(3, generator=generator, device=generator.device).tolist()
        lost, view = torch.zeros_like(image, dtype=torch.bool), image
        if self.shuffling and coins[0] < SHUFFLE:
            view = shuffle_blocks(view, generator)
            lost = view != image
        if self.intensity and coins[1] < CURVE:
            view = curved(view, generator)
        if self.painting and coins[2] < PAINT:
            view, painted = paint(view, generator)
            lost = lost | painted
        return view, lost if lost.any() else torch.ones_like(lost)

    def views(self, images: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor, list[list[int]]]:
        """Flipped crops, deformed ones, lost voxels, (B, C, D, H, W) each, and the flipped axes of each crop."""
        generators = self.generators(len(images), generator)
        axes = [flipped_axes(one) if self.flips else [] for one in generators]
        clean = torch.stack([image.flip(turned) for image, turned in zip(images, axes, strict=True)])
        views, lost = zip(*map(self.deform, clean, generators), strict=True)
        return clean, torch.stack(views), torch.stack(lost), axes

    def losses(self, images: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        clean, views, lost, _ = self.views(images, generator)
        restored = self(views)
        return {"loss": F.mse_loss(restored, clean), "reconstruction": self.score(restored, clean, lost)}

    @torch.no_grad()
    def reconstruct(self, images: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        """As they lie in `images`: flips are undone."""
        _, views, lost, axes = self.views(images, generator)
        shown = {"corrupted": views, "hidden": lost, "reconstruction": self(views)}
        return {
            name: torch.stack([one.flip(turned) for one, turned in zip(rows, axes, strict=True)])
            for name, rows in shown.items()
        }
