"""What pretext tasks share: optimiser, fixed validation, trivial baselines. The idea is in the task's own file."""

from abc import ABC, abstractmethod
from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ssl_utils.networks.interface import Encoder, SegmentationNetwork
from ssl_utils.training.loop import adamw, parameter_groups
from ssl_utils.training.options import options_of
from ssl_utils.training.parallel import SharedStep


class PretextTask(SharedStep, ABC):
    """A task writes `losses` and `reconstruct`; corruption and masks come from the generator and from nowhere else.

    Training draws them from (seed, step), validation from the case, so validation values of two epochs, or of two
    runs, are of the same hidden voxels. Where processes share a step, each draws for the crops of all and takes its
    `own`.
    """

    head: nn.Module | None  # set by the task
    scope = "encoder"  # what is pretrained by default: the encoder with a light head, or the segmentation `network`
    batch_share = 1.0  # of the scale's crops per step: a task whose step is dear may take fewer

    def __init__(self, *, encoder: Encoder, lr: float, steps: int, weight_decay: float = 0.05, seed: int = 0) -> None:
        super().__init__()
        self.encoder, self.lr, self.steps, self.weight_decay, self.seed = encoder, lr, steps, weight_decay, seed
        self.out_channels = encoder.config["in_channels"]  # of the head
        self.decoder = None  # of a segmentation network that is pretrained; it reconstructs in place of the head

    def check_options(self, **values) -> None:
        """Raises CourseError when one of them is not what the task says of its options."""
        options = options_of(type(self))
        for name, value in values.items():
            options[name].check(value)

    @abstractmethod
    def losses(self, images: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        """Named losses of a batch of clean standardised crops (B, C, D, H, W); `loss` is the one that is minimised,
        `reconstruction` (in validation) the one that runs are compared by."""

    @abstractmethod
    def reconstruct(self, images: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        """`corrupted` (B, C, D, H, W), `hidden` (bool, same shape), `reconstruction`: what figures show."""

    @abstractmethod
    def score(self, prediction: Tensor, images: Tensor, hidden: Tensor) -> Tensor:
        """The reconstruction loss of any prediction, so that trivial ones can be compared with the network's."""

    def prepare(self, crops: Iterable[dict]) -> None:
        """Look at some crops of the pool before the first step."""

    def extra(self, batch: dict) -> dict[str, Tensor]:
        """Further arguments of `losses` from a batch, besides its images."""
        return {}

    def reconstruct_with(self, network: SegmentationNetwork) -> None:
        """Pretrain this network (its outputs are those of the head): its decoder and skips take the place of the head,
        its encoder that of the encoder."""
        self.encoder, self.decoder, self.head = network.encoder, network.without_encoder(), None

    def decode(self, images: Tensor, last: Tensor, hidden: list[Tensor]) -> Tensor:
        """Voxels (B, C, D, H, W) from the last tokens (B, N, E) by the head, or by the decoder of the network, which
        also sees the encoder's `hidden` layers and the corrupted `images`."""
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
        """What predictions are compared with; a task may rescale the crops."""
        return images

    def generator(self, *numbers: int) -> torch.Generator:
        """A random state that depends on the numbers alone."""
        mixed = 0
        for number in numbers:
            mixed = (mixed * 6_364_136_223_846_793_005 + number + 1_442_695_040_888_963_407) % 2**63
        return torch.Generator(self.device).manual_seed(mixed)

    def training_step(self, batch: dict, batch_idx: int) -> Tensor:
        return self.losses(batch["image"], self.generator(self.seed, self.global_step), **self.extra(batch))["loss"]

    def validation_step(self, batch: dict, batch_idx: int) -> None:
        losses = self.losses(batch["image"], self.generator(int(batch["seed"][0])), **self.extra(batch))
        # every process scores every case (rarely, and none waits for another); sync: no rounding may tell them apart
        self.log("validation_loss", losses["reconstruction"], batch_size=len(batch["image"]), sync_dist=True)

    @torch.no_grad()
    def baselines(self, loader) -> dict[str, float]:
        """The validation score of trivial baselines: the mean of the visible voxels, their trilinear interpolation, and
        the corrupted input itself. A network that does not beat them has learnt nothing."""
        sums = {"mean": 0.0, "in-filling": 0.0, "input": 0.0}
        for batch in loader:
            images = batch["image"].to(self.device)
            seen = self.reconstruct(images, self.generator(int(batch["seed"][0])))
            hidden, corrupted = seen["hidden"], seen["corrupted"]
            visible_mean = (images * ~hidden).sum() / (~hidden).sum().clamp(min=1)
            guesses = {
                "mean": torch.where(hidden, visible_mean, images),
                "in-filling": infill(images, hidden),
                "input": corrupted,
            }
            for name, guess in guesses.items():
                sums[name] += float(self.score(self.target(guess), images, hidden)) / len(loader)
        return sums

    def configure_optimizers(self) -> dict:
        return adamw(parameter_groups([(self, 1.0)], lr=self.lr, weight_decay=self.weight_decay), steps=self.steps)


def infill(images: Tensor, hidden: Tensor, *, rounds: int = 16) -> Tensor:
    """Fill hidden voxels by trilinear interpolation of the visible ones, coarse to fine (push-pull); on every level
    hidden voxels then move towards the mean of their neighbours, `rounds` times."""
    if not hidden.any() or max(images.shape[2:]) < 2:
        return images
    weight = (~hidden).float()
    kernel = dict(kernel_size=[min(n, 2) for n in images.shape[2:]], ceil_mode=True)
    below = F.avg_pool3d(weight, **kernel)
    coarse = F.avg_pool3d(images * weight, **kernel) / below.clamp(min=1e-6)
    filled = infill(coarse, below == 0, rounds=rounds)
    filled = F.interpolate(filled, size=images.shape[2:], mode="trilinear", align_corners=False)
    filled = torch.where(hidden, filled, images)
    for _ in range(rounds):
        mean = F.avg_pool3d(F.pad(filled, (1,) * 6, mode="replicate"), 3, stride=1)
        filled = torch.where(hidden, mean, images)
    return filled
