"""The common part of pretext tasks: optimiser, fixed validation, trivial baselines."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ssl_utils.data.cache import Prepared
from ssl_utils.data.crops import Crops, FixedCrops
from ssl_utils.errors import CourseError
from ssl_utils.networks.interface import Encoder, SegmentationNetwork
from ssl_utils.training.loop import parameter_groups
from ssl_utils.training.optimisers import configured
from ssl_utils.training.options import options_of
from ssl_utils.training.parallel import SharedStep


class PretextTask(SharedStep, ABC):
    """A task implements `losses`, and `reconstruct` unless it overrides `baselines` because it reconstructs nothing;
    corruption and masks come from the generator only.

    It is seeded by (seed, step) in training and by the case in validation, so validation losses of all epochs and runs
    are over the same hidden voxels. Processes that share a step each draw for all of its crops and take their `own`.
    """

    head: nn.Module | None  # set by the task
    scope = "encoder"  # pretrained by default: the encoder with a light head, or the segmentation `network`
    encoder_only = ""  # why a whole network cannot be pretrained, and what to do instead
    batch_share = 1.0  # of the scale's batch size; less for a task whose step is expensive
    crops, fixed_crops = Crops, FixedCrops  # how volumes are cut in training and in validation

    def __init__(self, *, encoder: Encoder, lr: float, steps: int, weight_decay: float = 0.05, seed: int = 0) -> None:
        super().__init__()
        self.encoder, self.lr, self.steps, self.weight_decay, self.seed = encoder, lr, steps, weight_decay, seed
        self.out_channels = encoder.config["in_channels"]  # of the head
        self.decoder = None  # of a pretrained segmentation network, in place of the head

    def check_options(self, **values) -> None:
        """Raises CourseError when a value is not allowed by the option of the task."""
        options = options_of(type(self))
        for name, value in values.items():
            options[name].check(value)

    @abstractmethod
    def losses(self, images: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        """Losses of a batch of clean standardised crops (B, C, D, H, W): `loss` is minimised, `reconstruction` (in
        validation) is compared between runs."""

    def reconstruct(self, images: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        """For figures: `corrupted` (B, C, D, H, W), `hidden` (bool, same shape), `reconstruction`; empty for a task
        that reconstructs nothing."""
        return {}

    def score(self, prediction: Tensor, images: Tensor, hidden: Tensor) -> Tensor:
        """The reconstruction loss of any prediction, such as a trivial one: here L1 over hidden voxels."""
        return ((prediction - images).abs() * hidden).sum() / hidden.sum().clamp(min=1)

    @classmethod
    def reads(cls, options: Mapping[str, Any]) -> str | None:
        """The weights that a task with these options reads, as its option `weights`: a file, or the name of a
        pretraining run of the same course."""
        return options.get("weights")

    def targets(
        self, pool: Sequence[Prepared], held_out: Sequence[Prepared], folder: Path
    ) -> tuple[Sequence[Prepared], Sequence[Prepared]]:
        """Both with the `target` of each case, where that is computed once per volume and kept in this folder."""
        return pool, held_out

    def prepare(self, crops: Iterable[dict]) -> None:
        """Prepare from some crops of the pool before the first step."""

    def extra(self, batch: dict) -> dict[str, Tensor]:
        """Further arguments of `losses` from a batch."""
        return {}

    def reconstruct_with(self, network: SegmentationNetwork) -> None:
        """Pretrain this network, which has as many outputs as the head, in place of encoder and head.

        Raises CourseError where the task can pretrain an encoder only.
        """
        if self.encoder_only:
            raise CourseError(f"scope='network': {self.encoder_only}")
        self.encoder, self.decoder, self.head = network.encoder, network.without_encoder(), None

    def decode(self, images: Tensor, last: Tensor, hidden: list[Tensor]) -> Tensor:
        """Voxels (B, C, D, H, W) from the last tokens (B, N, E) by the head, or by the decoder of the network, which
        takes the encoder's `hidden` layers and the corrupted `images` too."""
        if self.decoder is not None:
            return self.decoder.decode(images, last, hidden)
        return self.head(last, self.encoder.grid)

    def whole_network(self) -> dict[str, Tensor]:
        """The weights of the segmentation network under its own names; empty when only an encoder is pretrained."""
        if self.decoder is None:
            return {}
        name = self.decoder.encoder_name
        encoder = {f"{name}.{key}": value for key, value in self.encoder.state_dict().items()}
        return encoder | self.decoder.state_dict()

    def target(self, images: Tensor) -> Tensor:
        """The regression target of clean crops; a task may rescale them."""
        return images

    def intensities(self, prediction: Tensor, images: Tensor) -> Tensor:
        """A prediction in the unit of the clean crops: the inverse of `target`."""
        return prediction

    def generator(self, *numbers: int) -> torch.Generator:
        """A generator that is seeded by these numbers."""
        mixed = 0
        for number in numbers:
            mixed = (mixed * 6_364_136_223_846_793_005 + number + 1_442_695_040_888_963_407) % 2**63
        return torch.Generator(self.device).manual_seed(mixed)

    def generators(self, crops: int, generator: torch.Generator) -> list[torch.Generator]:
        """One per crop of this process, so that it can corrupt its own crops alone."""
        seeds = torch.randint(2**62, (crops * self.processes,), generator=generator, device=generator.device)
        return [torch.Generator(generator.device).manual_seed(seed) for seed in self.own(seeds).tolist()]

    def training_step(self, batch: dict, batch_idx: int) -> Tensor:
        return self.losses(batch["image"], self.generator(self.seed, self.global_step), **self.extra(batch))["loss"]

    def validation_step(self, batch: dict, batch_idx: int) -> None:
        losses = self.losses(batch["image"], self.generator(int(batch["seed"][0])), **self.extra(batch))
        # every process scores every case; sync, because rounding must not differ between them
        self.log("validation_loss", losses["reconstruction"], batch_size=len(batch["image"]), sync_dist=True)

    @torch.no_grad()
    def baselines(self, loader) -> dict[str, float]:
        """Validation scores of the `trivial_predictions` and of the corrupted input."""
        sums = {"mean": 0.0, "interpolation": 0.0, "input": 0.0}
        for batch in loader:
            images = batch["image"].to(self.device)
            shown = self.reconstruct(images, self.generator(int(batch["seed"][0])))
            hidden = shown["hidden"]
            for name, guess in {**trivial_predictions(images, hidden), "input": shown["corrupted"]}.items():
                sums[name] += float(self.score(self.target(guess), images, hidden)) / len(loader)
        return sums

    def configure_optimizers(self) -> dict:
        groups = parameter_groups([(self, 1.0)], lr=self.lr, weight_decay=self.weight_decay)
        return configured(self.optimizer, groups, steps=self.steps, betas=(0.9, 0.95))


def trivial_predictions(images: Tensor, hidden: Tensor) -> dict[str, Tensor]:
    """Crops (B, C, D, H, W) whose hidden voxels are the mean of the visible ones, or their interpolation."""
    mean = (images * ~hidden).sum() / (~hidden).sum().clamp(min=1)
    return {"mean": torch.where(hidden, mean, images), "interpolation": interpolate(images, hidden)}


def interpolate(images: Tensor, hidden: Tensor, *, rounds: int = 16) -> Tensor:
    """The interpolation baseline: fill hidden voxels by trilinear interpolation of the visible ones, coarse to fine
    (push-pull), and smooth them `rounds` times on every level."""
    if not hidden.any() or max(images.shape[2:]) < 2:
        return images
    weight = (~hidden).float()
    kernel = dict(kernel_size=[min(n, 2) for n in images.shape[2:]], ceil_mode=True)
    below = F.avg_pool3d(weight, **kernel)
    coarse = F.avg_pool3d(images * weight, **kernel) / below.clamp(min=1e-6)
    filled = interpolate(coarse, below == 0, rounds=rounds)
    filled = F.interpolate(filled, size=images.shape[2:], mode="trilinear", align_corners=False)
    filled = torch.where(hidden, filled, images)
    for _ in range(rounds):
        mean = F.avg_pool3d(F.pad(filled, (1,) * 6, mode="replicate"), 3, stride=1)
        filled = torch.where(hidden, mean, images)
    return filled
