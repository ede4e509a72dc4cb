"""Augmentation-based restoration (the MONAI ViT/UNETR tutorial; Zhou et al. 2019, Chen et al. 2019, Chen et al. 2020):
corrupt a crop twice, restore it from each view, with a contrastive loss between the views."""

from collections.abc import Sequence
from typing import Annotated

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ssl_utils.networks.heads import TransposedConvHead
from ssl_utils.networks.interface import Encoder
from ssl_utils.pretext.base import PretextTask
from ssl_utils.training.options import Option
from ssl_utils.training.parallel import of_all_processes

CONTRASTS = ("none", "latent", "published")
FILLS = ("noise", "mean")


def random_boxes(
    shape: Sequence[int], *, number: int, smallest: float, largest: float, generator: torch.Generator
) -> Tensor:
    """The union of `number` boxes with sides between `smallest` and `largest` (shares of the axis). True inside."""
    inside = torch.zeros(tuple(shape), dtype=torch.bool, device=generator.device)
    draws = torch.rand(2, number, 3, generator=generator, device=generator.device).cpu()
    extent = torch.tensor(shape)
    sides = ((smallest + (largest - smallest) * draws[0]) * extent).long().clamp(min=1)
    low = (draws[1] * (extent - sides + 1)).long()  # every box lies inside
    for (x, y, z), (d, h, w) in zip(low.tolist(), sides.tolist(), strict=True):
        inside[x : x + d, y : y + h, z : z + w] = True
    return inside


def fill_values(image: Tensor, fill: str, generator: torch.Generator) -> Tensor:
    """Values for lost voxels: uniform noise in the range of the image, or its mean."""
    if fill == "mean":
        return image.mean().expand_as(image)
    low, high = image.min(), image.max()
    return low + (high - low) * torch.rand(image.shape, generator=generator, device=image.device)


def local_shuffle(image: Tensor, *, number: int, side: int, generator: torch.Generator) -> Tensor:
    """Permute the voxels inside `number` small cubes, which destroys texture and keeps the histogram of each cube."""
    image = image.clone()  # (C, D, H, W)
    room = torch.tensor(image.shape[1:]) - side + 1
    lows = (torch.rand(number, 3, generator=generator, device=generator.device).cpu() * room).long()
    for x, y, z in lows.tolist():
        block = image[:, x : x + side, y : y + side, z : z + side].flatten(1)  # (C, side^3), a copy
        order = torch.randperm(side**3, generator=generator, device=image.device)
        image[:, x : x + side, y : y + side, z : z + side] = block[:, order].view(-1, side, side, side)
    return image


def corrupt(image: Tensor, generator: torch.Generator, *, fill: str = "noise") -> tuple[Tensor, Tensor]:
    """One corrupted view of a crop (C, D, H, W), by in-painting or out-painting (half each), then local shuffling, and
    the mask of changed voxels (bool, same shape)."""
    spatial = image.shape[1:]
    coins = torch.rand(2, generator=generator, device=generator.device)
    if coins[0] < 0.5:  # in-painting: boxes are lost
        lost = random_boxes(spatial, number=6, smallest=0.05, largest=0.33, generator=generator)
    else:  # out-painting: only boxes remain
        lost = ~random_boxes(spatial, number=6, smallest=0.21, largest=0.67, generator=generator)
    view = torch.where(lost, fill_values(image, fill, generator), image)
    if coins[1] < 0.8:
        side = max(round(min(spatial) / 12), 2)  # 8 of 96, as published
        view = local_shuffle(view, number=10, side=side, generator=generator)
    return view, view != image


def nt_xent(first: Tensor, second: Tensor, *, temperature: float) -> Tensor:
    """Normalised temperature-scaled cross entropy (Chen et al. 2020): row i of `first` (B, F) must find row i of
    `second` among all 2B - 1 other rows."""
    rows = F.normalize(torch.cat([first, second]), dim=1)  # (2B, F)
    similarity = rows @ rows.T / temperature
    similarity.fill_diagonal_(float("-inf"))  # no row is its own partner
    partner = torch.arange(len(rows), device=rows.device).roll(len(first))
    return F.cross_entropy(similarity, partner)


nt_xent = of_all_processes(nt_xent)  # not a decorator, because chapter 02 shows the function above


class RestorationTask(PretextTask):
    """Restore a crop from corrupted views of it.

    Args:
        contrast: `none` (L1 alone), `latent` (NT-Xent on pooled tokens through a projector), or `published` (NT-Xent
            on the flattened reconstructions, multiplied by the L1 value, as in the tutorial's code).
        contrast_weight: weight of the `latent` contrastive loss.
        fill: what replaces lost voxels, `noise` or `mean`.

    Raises:
        CourseError: an option is not among its choices.
    """

    def __init__(
        self,
        *,
        encoder: Encoder,
        lr: float,
        steps: int,
        seed: int = 0,
        contrast: Annotated[str, Option("form of the contrastive loss", choices=CONTRASTS)] = "latent",
        contrast_weight: Annotated[float, Option("weight of the latent contrastive loss", low=0, high=1000)] = 0.05,
        temperature: Annotated[float | None, Option("of the contrastive loss", low=0.001, high=1000)] = None,
        fill: Annotated[str, Option("what replaces lost voxels", choices=FILLS)] = "noise",
    ) -> None:
        super().__init__(encoder=encoder, lr=lr, steps=steps, seed=seed)
        self.check_options(contrast=contrast, fill=fill)
        hidden, channels = encoder.hidden_size, encoder.config["in_channels"]
        self.contrast, self.contrast_weight, self.fill = contrast, contrast_weight, fill
        self.temperature = temperature or {"latent": 0.1, "published": 0.05}.get(contrast)
        self.head = TransposedConvHead(hidden_size=hidden, patch_size=encoder.patch_size, out_channels=channels)
        if contrast == "latent":
            self.projector = nn.Sequential(nn.Linear(hidden, hidden), nn.GELU(), nn.Linear(hidden, 64))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Restored crops (B, C, D, H, W) and tokens (B, N, E)."""
        tokens, inner = self.encoder(images)
        return self.decode(images, tokens, inner), tokens

    def views(self, images: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Independently corrupted crops and the mask of changed voxels, (B, C, D, H, W) each."""
        of_step = images.repeat(self.processes, 1, 1, 1, 1)  # random numbers do not depend on the crops
        views, changed = zip(*(corrupt(image, generator, fill=self.fill) for image in of_step), strict=True)
        return self.own(torch.stack(views)), self.own(torch.stack(changed))

    def score(self, prediction: Tensor, images: Tensor, hidden: Tensor) -> Tensor:
        return (prediction - images).abs().mean()

    def losses(self, images: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        first, _ = self.views(images, generator)
        if self.contrast == "none":
            loss = self.score(self(first)[0], images, None)
            return {"loss": loss, "reconstruction": loss}
        second, _ = self.views(images, generator)
        restored, tokens = self(torch.cat([first, second]))  # one pass for both views
        one, two = restored.chunk(2)
        l1 = self.score(one, images, None)
        if self.contrast == "published":
            agreement = nt_xent(one.flatten(1), two.flatten(1), temperature=self.temperature)
            return {"loss": l1 + agreement * l1, "reconstruction": l1, "contrast": agreement}
        both = (l1 + self.score(two, images, None)) / 2
        agreement = nt_xent(*self.projector(tokens.mean(1)).chunk(2), temperature=self.temperature)
        return {"loss": both + self.contrast_weight * agreement, "reconstruction": l1, "contrast": agreement}

    @torch.no_grad()
    def reconstruct(self, images: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        corrupted, hidden = self.views(images, generator)
        return {"corrupted": corrupted, "hidden": hidden, "reconstruction": self(corrupted)[0]}
