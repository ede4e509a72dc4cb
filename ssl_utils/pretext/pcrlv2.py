"""PCRLv2 (Zhou et al. 2023): from two large and six small views of a crop, restore the first one, and make the features
of all views agree at a decoder level that is drawn anew in every step."""

import math
from typing import Annotated

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ssl_utils.errors import CourseError
from ssl_utils.networks.heads import TransposedConvHead, patchify, unpatchify
from ssl_utils.networks.interface import Encoder, SegmentationNetwork, token_grid
from ssl_utils.networks.transfer import resize_positions
from ssl_utils.networks.vit import ViT
from ssl_utils.pretext.base import PretextTask
from ssl_utils.training.options import Option

GLOBAL, LOCAL, PAIRS = 2, 6, 16  # large views, small views, pairs of large views to choose from
LARGE, SMALL = (0.5, 1.0), (0.2, 0.5)  # sides of the views, shares of the crop
LEAST_IOU = 0.3  # of the two large views
ANGLE, ZOOM = math.radians(10), 0.1  # largest rotation and change of scale of a large view
SIGMA, NOISE, LOG_GAMMA = 2.0, 0.25, 0.3  # largest blur in voxels, noise as a share of the range, gamma
CELL, SWAPPED = (8, 4, 4), 200 * (8 * 4 * 4) / (64 * 64 * 32)  # swapped cells; their share of the crop


def iou(first: Tensor, second: Tensor) -> Tensor:
    """Intersection over union of boxes (..., 2, 3), each its lowest and its highest corner."""
    low, high = torch.maximum(first[..., 0, :], second[..., 0, :]), torch.minimum(first[..., 1, :], second[..., 1, :])
    both = (high - low).clamp(min=0).prod(-1)
    volumes = ((box[..., 1, :] - box[..., 0, :]).prod(-1) for box in (first, second))
    return both / (sum(volumes) - both)


def view_boxes(generator: torch.Generator) -> Tensor:
    """The coordinates of eight views as shares of the crop, (8, 2, 3): two large ones that overlap by an IoU of .3 or
    more, and six small ones inside their overlap."""
    draws = torch.rand(2, PAIRS, GLOBAL, 3, generator=generator, device=generator.device)
    sides = LARGE[0] + (LARGE[1] - LARGE[0]) * draws[0]
    low = draws[1] * (1 - sides)
    pairs = torch.stack([low, low + sides], 2)  # (16, 2, 2, 3)
    large = pairs[iou(*pairs.unbind(1)).clamp(max=LEAST_IOU).argmax()]
    low, high = large[:, 0].amax(0), large[:, 1].amin(0)
    draws = torch.rand(2, LOCAL, 3, generator=generator, device=generator.device)
    sides = (SMALL[0] + (SMALL[1] - SMALL[0]) * draws[0]).minimum(high - low)
    corner = low + draws[1] * (high - low - sides)
    return torch.cat([large, torch.stack([corner, corner + sides], 1)])


def turns(number: int, generator: torch.Generator) -> Tensor:
    """Random rotations with a change of scale, half of them mirrored along the first axis: (number, 3, 3)."""
    draws = torch.rand(number, 5, generator=generator, device=generator.device)
    x, y, z = (ANGLE * (2 * draws[:, :3] - 1)).unbind(1)
    skew = torch.zeros(number, 3, 3, device=draws.device)
    skew[:, 0, 1], skew[:, 0, 2], skew[:, 1, 2] = -z, y, -x
    rotation = torch.linalg.matrix_exp(skew - skew.mT)
    rotation[:, :, 0] *= torch.where(draws[:, 4] < 0.5, -1.0, 1.0)[:, None]
    return rotation * (1 + ZOOM * (2 * draws[:, 3] - 1))[:, None, None]


def sample(image: Tensor, boxes: Tensor, size: tuple[int, ...], turned: Tensor | None = None) -> Tensor:
    """Views (V, C, *size) of a crop (C, D, H, W): boxes (V, 2, 3) in shares of it, each turned about its middle by
    (V, 3, 3), trilinear in one step. Beyond the crop its border is repeated."""
    extent = torch.tensor(image.shape[1:], device=image.device)
    middle, half = boxes.mean(1) * 2 - 1, (boxes[:, 1] - boxes[:, 0]) * extent / 2  # in -1..1; in voxels
    matrix = torch.diag_embed(half) if turned is None else turned * half[:, None]
    theta = torch.cat(
        [matrix / (extent[:, None] / 2), middle[..., None]], 2
    )  # from -1..1 of a view to that of the crop
    theta = torch.cat([theta[:, :, :3].flip(1, 2), theta[:, :, 3:].flip(1)], 2)  # affine_grid counts axes backwards
    grid = F.affine_grid(theta, [len(boxes), 1, *size], align_corners=False)
    images = image.expand(len(boxes), *image.shape)
    return F.grid_sample(images, grid, padding_mode="border", align_corners=False)


def blur(images: Tensor, sigma: Tensor) -> Tensor:
    """Gaussian blur of (V, C, D, H, W) by a standard deviation each (V,), in voxels."""
    for axis in (2, 3, 4):
        index = torch.arange(images.shape[axis], device=images.device)
        squares = (index[:, None] - index).square() / (2 * sigma.square() + 1e-6)[:, None, None]
        weights = (-squares).softmax(2)[:, None, None]  # (V, 1, 1, n, n), rows sum to one
        images = (images.movedim(axis, -1) @ weights.mT).movedim(-1, axis)
    return images


def degrade(images: Tensor, generator: torch.Generator) -> Tensor:
    """Blur, noise and gamma of views (V, C, D, H, W), within the range of each channel of each view."""
    low, high = images.amin((2, 3, 4), keepdim=True), images.amax((2, 3, 4), keepdim=True)
    span = (high - low).clamp(min=1e-6)
    sigma, noise, gamma = torch.rand(3, len(images), generator=generator, device=images.device)
    unit = blur((images - low) / span, SIGMA * sigma)
    level = (NOISE * noise)[:, None, None, None, None]
    unit = unit + level * torch.randn(images.shape, generator=generator, device=images.device)
    power = (LOG_GAMMA * (2 * gamma - 1)).exp()[:, None, None, None, None]
    return low + span * unit.clamp(0, 1) ** power


def swap_cells(images: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Views (V, C, D, H, W) with a fifth of their cells exchanged, and where, bool."""
    cell = tuple(math.gcd(n, side) for n, side in zip(images.shape[2:], CELL, strict=True))
    cells, channels = patchify(images, cell), images.shape[1]  # (V, N, C p q r)
    number = max(round(SWAPPED * cells.shape[1]), 2)
    draws = torch.rand(cells.shape[:2], generator=generator, device=images.device)
    to = draws.argsort(1)[:, :number, None].expand(-1, -1, cells.shape[2])
    swapped = cells.scatter(1, to, cells.gather(1, to.roll(1, 1)))
    moved = torch.zeros_like(cells, dtype=torch.bool).scatter(1, to, True)
    grid = token_grid(images.shape[2:], cell)
    return tuple(unpatchify(one, grid, cell, channels) for one in (swapped, moved))


class Agreement(nn.Module):
    """SimSiam's loss (Chen and He 2021) between the features of a crop's views, at one level.

    The projection is a batch norm alone, over all views of all crops: a laptop's batch has too few crops for one norm
    per view. The prediction is an MLP.
    """

    def __init__(self, width: int, *, stop_gradient: bool) -> None:
        super().__init__()
        self.project = nn.BatchNorm1d(width)
        self.predict = nn.Sequential(nn.Linear(width, 2 * width), nn.ReLU(), nn.Linear(2 * width, width))
        self.stop_gradient = stop_gradient

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Losses of the two large views, and of six small views with both of them, from pooled features (B, 8, E)."""
        projected = self.project(features.flatten(0, 1)).view_as(features)
        predicted = self.predict(projected)
        target = projected.detach() if self.stop_gradient else projected
        cosine = F.cosine_similarity(predicted[:, :, None], target[:, None], dim=-1)  # (B, 8, 8)
        both = (cosine + cosine.mT) / 2  # each predicts the other
        return -both[:, 0, 1].mean(), -both[:, GLOBAL:, :GLOBAL].mean()


class PCRLv2Task(PretextTask):
    """Restore the first large view from its corrupted version, and make features of all views agree.

    By default the whole segmentation network is pretrained, and features are those of one level of its decoder; without
    a decoder they are the tokens, and there is no middle mask. The output has no sigmoid, because standardised
    intensities are not within 0..1. Validation is the L1 over the swapped cells of the crop itself.

    Args:
        intensity: blur, noise and gamma in the views, besides the swapped cells.
        stop_gradient: as in SimSiam; without it features collapse.
    """

    scope = "network"
    batch_share = 0.5  # as voxel clusters: a step of the whole network, here for almost three crops in place of one
    freezes = True  # heads of the levels that are not drawn

    def __init__(
        self,
        *,
        encoder: Encoder,
        lr: float,
        steps: int,
        seed: int = 0,
        intensity: Annotated[bool, Option("whether views are changed in their intensities")] = True,
        stop_gradient: Annotated[bool, Option("whether the target of the feature loss has no gradient")] = True,
    ) -> None:
        if encoder.config.get("network") == "window_vit":
            raise CourseError("task='pcrlv2': window_vit takes windows of one size, and views have two; choose unetr")
        super().__init__(encoder=encoder, lr=lr, steps=steps, seed=seed)
        self.intensity, self.stop_gradient = intensity, stop_gradient
        sizes = {"hidden_size": encoder.hidden_size, "patch_size": encoder.patch_size}
        self.head = TransposedConvHead(**sizes, out_channels=self.out_channels)
        self.size = tuple(g * p for g, p in zip(encoder.grid, encoder.patch_size, strict=True))
        half = tuple(-(-g // 2) for g in encoder.grid)  # of a small view; a norm needs more than one token
        grid = half if math.prod(half) > 1 else encoder.grid
        self.small = tuple(g * p for g, p in zip(grid, encoder.patch_size, strict=True))
        self.add_levels([encoder.hidden_size])

    def add_levels(self, widths: list[int]) -> None:
        self.agreements = nn.ModuleList(Agreement(width, stop_gradient=self.stop_gradient) for width in widths)
        middle = widths if self.decoder is not None else []
        self.middle = nn.ModuleList(nn.Conv3d(width, self.out_channels, 1) for width in middle)

    def reconstruct_with(self, network: SegmentationNetwork) -> None:
        with torch.no_grad():
            maps = network.eval().features(torch.zeros(1, self.encoder.config["in_channels"], *self.size))
        super().reconstruct_with(network.train())
        self.add_levels([level.shape[1] for level in maps[1:]])

    def encode(self, images: Tensor) -> tuple[Tensor, list[Tensor]]:
        """As the encoder. A ViT sees a small view as fewer tokens, with positions interpolated between its own."""
        if images.shape[2:] == self.size or not isinstance(self.encoder, ViT):
            return self.encoder(images)
        grid = token_grid(images.shape[2:], self.encoder.patch_size)
        positions = resize_positions(self.encoder.positions, self.encoder.grid, grid)
        return self.encoder.encode(self.encoder.patch_embedding(images) + positions)

    def levels(self, images: Tensor) -> list[Tensor]:
        """Maps of the decoder, coarse to fine (B, F, ...), or the tokens (B, E, N)."""
        tokens, inner = self.encode(images)
        return [tokens.mT] if self.decoder is None else self.decoder.maps(images, tokens, inner)[1:]

    def restored(self, levels: list[Tensor]) -> Tensor:
        if self.decoder is None:
            return self.head(levels[-1].mT, self.encoder.grid)
        return self.decoder.out(levels[-1])

    def forward(self, images: Tensor) -> Tensor:
        return self.restored(self.levels(images))  # (B, C, D, H, W)

    def views(self, image: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """Of a crop (C, D, H, W): the first large view, clean; both large ones and the six small ones, corrupted."""
        boxes, change = view_boxes(generator), degrade if self.intensity else lambda views, _: views
        large = sample(image, boxes[:GLOBAL], self.size, turns(GLOBAL, generator))
        small = sample(image, boxes[GLOBAL:], self.small)
        return large[0], swap_cells(change(large, generator), generator)[0], change(small, generator)

    def mask_weight(self) -> float:
        """Of the middle mask: from 1 to 0 along a cosine."""
        return 0.5 * (1 + math.cos(math.pi * min(self.global_step / self.steps, 1)))

    def losses(self, images: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        if not self.training:
            shown = self.reconstruct(images, generator)
            loss = self.score(shown["reconstruction"], images, shown["hidden"])
            return {"loss": loss, "reconstruction": loss}
        level = int(torch.randint(len(self.agreements), (), generator=generator, device=generator.device))
        with torch.autocast(images.device.type, enabled=False):  # coordinates need more than 8 bits
            views = [self.views(*pair) for pair in zip(images, self.generators(len(images), generator), strict=True)]
        clean, large, small = (torch.stack(part) for part in zip(*views, strict=True))
        maps = self.levels(large.transpose(0, 1).flatten(0, 1))  # first views of all crops, then second ones
        of_large = maps[level].flatten(2).mean(2).unflatten(0, (GLOBAL, -1)).transpose(0, 1)  # (B, 2, F)
        of_small = self.levels(small.flatten(0, 1))[level].flatten(2).mean(2).unflatten(0, (-1, LOCAL))
        between, within = self.agreements[level](self.gathered(torch.cat([of_large, of_small], 1)))
        first = [one[: len(images)] for one in maps]
        terms = {"restored": F.mse_loss(self.restored(first), clean), "large": between, "small": within}
        loss = sum(terms.values())
        if self.decoder is not None:
            middle = F.interpolate(self.middle[level](first[level]), size=self.size, mode="trilinear")
            terms["middle"] = F.mse_loss(middle, clean)
            loss = loss + self.mask_weight() * terms["middle"]
        return {"loss": loss, **terms}

    @torch.no_grad()
    def reconstruct(self, images: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        corrupted, hidden = [], []
        for image, one in zip(images.split(1), self.generators(len(images), generator), strict=True):
            view, moved = swap_cells(degrade(image, one) if self.intensity else image, one)
            corrupted.append(view)
            hidden.append(moved)
        views = torch.cat(corrupted)
        return {"corrupted": views, "hidden": torch.cat(hidden), "reconstruction": self(views)}
