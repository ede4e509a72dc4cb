"""Patch clusters: two overlapping crops are cut from a volume, and from each a network predicts to which clusters the
patches of the other one belong, where the two overlap.

After the patch-level clustering of RadioSSL (Gogou 2024), a SwAV (Caron et al. 2020) for every token of a 3D crop.
"""

from collections.abc import Sequence
from math import log, prod
from typing import Annotated

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ssl_utils.data.crop_pairs import FixedPairs, Pairs
from ssl_utils.errors import CourseError
from ssl_utils.networks.interface import Encoder
from ssl_utils.pretext.base import PretextTask
from ssl_utils.training.options import Option

CLUSTERS = 48  # by default; fewer where a crop has fewer tokens
FEATURES = 64  # of a projected token, as published


@torch.no_grad()
def sinkhorn(scores: Tensor, *, iterations: int = 3, epsilon: float = 0.05) -> Tensor:
    """Soft assignment of rows to clusters in which all clusters are equally frequent (Cuturi 2013), stabilised: the
    largest logarithms are taken out before the one exponential, so scores of any size neither overflow nor vanish.

    Args:
        scores: similarity of rows and clusters (R, K).
        iterations: how often clusters and rows are normalised in turn; 0: a softmax, without equal frequencies.
        epsilon: of the entropy; the smaller, the harder the assignment.
    Returns:
        (R, K). A row sums to 1, a column nearly to R / K.
    """
    log_q = scores / epsilon
    if not iterations:
        return log_q.softmax(1)
    log_q -= log_q.amax(0)  # a factor of a cluster, which its normalisation takes away anyway
    largest = log_q.amax(1, keepdim=True)
    kernel, rows = (log_q - largest).exp_(), largest.exp()  # every row of the kernel, and every cluster, has a 1
    for _ in range(iterations):
        clusters = len(scores) / scores.shape[1] / (rows * kernel).sum(0)  # every cluster gets the same weight
        rows = 1 / (kernel * clusters).sum(1, keepdim=True)  # every row sums to 1
    return rows * kernel * clusters


def common_region(boxes: Tensor, grid: Sequence[int]) -> Tensor:
    """The box (B, 2, 3) between the outermost cell centres that both crops of a pair have.

    Args:
        boxes: lowest and highest corners of two crops in their volume (B, 2, 2, 3).
        grid: cells of a crop along each axis.
    Raises:
        CourseError: two crops do not overlap.
    """
    low, high = boxes.unbind(2)  # (B, 2, 3) each
    if apart := (low.amax(1) >= high.amin(1)).any(1).nonzero().flatten().tolist():
        raise CourseError(f"boxes: the two crops of pair {apart[0]} do not overlap; cut them by data/crop_pairs.py")
    half = (high - low) / (2 * torch.tensor(grid, device=boxes.device))  # half a cell
    low, high = (low + half).amax(1), (high - half).amin(1)  # (B, 3) each
    middle = (low + high) / 2  # where less than a cell is shared, low and high have changed places
    return torch.stack([torch.minimum(low, middle), torch.maximum(high, middle)], 1)


def align(maps: Tensor, boxes: Tensor) -> Tensor:
    """Maps of the two crops of a pair (B, 2, F, d, h, w), sampled at the same places of the volume.

    The places fill the common region of the boxes (B, 2, 2, 3), as many as a crop has cells. Interpolation is linear,
    between cells of the same crop only, so a map that is linear in space is sampled exactly.

    Raises:
        CourseError: two crops do not overlap.
    """
    region = common_region(boxes, maps.shape[3:])[:, None]  # (B, 1, 2, 3)
    size = boxes[:, :, 1] - boxes[:, :, 0]  # (B, 2, 3)
    scale = (region[:, :, 1] - region[:, :, 0]) / size
    shift = (region.sum(2) - boxes.sum(2)) / size  # of the centre, in half crops
    theta = torch.cat([torch.diag_embed(scale.flip(-1)), shift.flip(-1)[..., None]], -1)  # (B, 2, 3, 4)
    flat = maps.flatten(0, 1)
    with torch.autocast(flat.device.type, enabled=False):  # places in bfloat16 would be off by a part of a cell
        places = F.affine_grid(theta.flatten(0, 1).to(flat), flat.shape, align_corners=True)  # from end to end
    return F.grid_sample(flat, places, padding_mode="border", align_corners=False).view(maps.shape)


def swapped_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Cross entropy of the prediction from each crop with the assignment of the other one, (B, 2, K, d, h, w) each."""
    return -(targets.flip(1) * logits.log_softmax(2)).sum(2).mean()


class PatchClustersTask(PretextTask):
    """Predict the clusters of the tokens of one crop from another one that overlaps it.

    Args:
        clusters: number of clusters, each with a prototype; None: 48, or as many as a crop has tokens.
        iterations: of Sinkhorn-Knopp, which makes clusters equally frequent; 0 leaves it out.
        epsilon: of Sinkhorn-Knopp.
        temperature: of the prediction.
        jitter: contrast changes by a factor up to 1 + jitter, brightness by up to jitter standard deviations.

    Raises:
        CourseError: an option is out of range, or there are more clusters than tokens in a pair of crops.
    """

    batch_share = 0.5  # a pair is two crops
    crops, fixed_crops = Pairs, FixedPairs
    encoder_only = (
        "is not possible with patch clusters, which need the encoder alone; "
        "choose scope='encoder', or the task voxel_clusters"
    )

    def __init__(
        self,
        *,
        encoder: Encoder,
        lr: float,
        steps: int,
        seed: int = 0,
        clusters: Annotated[int | None, Option("number of clusters", low=2)] = None,
        iterations: Annotated[int, Option("Sinkhorn iterations; 0: no equal frequencies", low=0, high=100)] = 3,
        epsilon: Annotated[float, Option("entropy of the assignment", low=0.001, high=10)] = 0.05,
        temperature: Annotated[float, Option("of the prediction", low=0.001, high=10)] = 0.1,
        jitter: Annotated[float, Option("random change of contrast and brightness", low=0, below=1)] = 0.2,
    ) -> None:
        super().__init__(encoder=encoder, lr=lr, steps=steps, seed=seed)
        self.check_options(
            clusters=clusters, iterations=iterations, epsilon=epsilon, temperature=temperature, jitter=jitter
        )
        tokens = prod(encoder.grid)
        self.clusters = clusters or min(CLUSTERS, tokens)
        if self.clusters > 2 * tokens:
            raise CourseError(f"clusters={clusters}: two crops have only {2 * tokens} tokens; choose at most as many")
        self.iterations, self.epsilon, self.temperature, self.jitter = iterations, epsilon, temperature, jitter
        self.head = nn.Linear(encoder.hidden_size, FEATURES)
        self.prototypes = nn.Parameter(torch.randn(self.clusters, FEATURES))

    def extra(self, batch: dict) -> dict:
        return {"partner": batch.get("partner"), "boxes": batch.get("boxes")}

    def forward(self, images: Tensor) -> Tensor:
        """Cosine of every token (B, C, D, H, W) -> (B, N, K) with every prototype."""
        tokens, _ = self.encoder(images)  # (B, N, E)
        with torch.autocast(tokens.device.type, enabled=False):  # Sinkhorn needs more digits than bfloat16 has
            return F.normalize(self.head(tokens.float()), dim=-1) @ F.normalize(self.prototypes, dim=1).T

    def cluster_of(self, images: Tensor) -> Tensor:
        """The most similar cluster of every token of clean crops: (B, C, D, H, W) -> (B, d, h, w)."""
        return self(images).argmax(-1).unflatten(1, self.encoder.grid)

    def views(self, images: Tensor, partner: Tensor, generator: torch.Generator) -> Tensor:
        """Both crops of each pair in random contrast and brightness, (B, 2, C, D, H, W)."""
        draws = torch.rand(len(images) * self.processes, 2, 2, generator=generator, device=generator.device)
        gain, offset = (self.jitter * (2 * self.own(draws) - 1))[..., None, None, None, None].unbind(2)
        return torch.stack([images, partner], 1) * (1 + gain) + offset

    def assign(self, scores: Tensor) -> Tensor:
        """Targets (B, 2, N, K), with equal frequencies over all tokens of the step, those of other processes too."""
        of_step = self.gathered(scores.detach())
        rows = sinkhorn(of_step.flatten(0, 2), iterations=self.iterations, epsilon=self.epsilon)
        return self.own(rows.view(of_step.shape))

    def losses(
        self, images: Tensor, generator: torch.Generator, partner: Tensor | None = None, boxes: Tensor | None = None
    ) -> dict[str, Tensor]:
        """`images` and `partner`: the two crops of each pair (None: the same one), `boxes` (B, 2, 2, 3) where."""
        if partner is None:
            partner = images
            boxes = images.new_tensor([[0.0] * 3, [1.0] * 3]).expand(len(images), 2, 2, 3)
        views = self.views(images, partner, generator)
        scores = self(views.flatten(0, 1)).unflatten(0, (-1, 2))  # (B, 2, N, K)
        both = torch.cat([scores / self.temperature, self.assign(scores)], -1)  # (B, 2, N, 2 K)
        maps = both.transpose(2, 3).unflatten(3, self.encoder.grid)  # (B, 2, 2 K, d, h, w)
        loss = swapped_loss(*align(maps, boxes).chunk(2, dim=2))
        return {"loss": loss, "reconstruction": loss}

    def baselines(self, loader) -> dict[str, float]:
        """The loss of a uniform prediction."""
        return {"uniform": log(self.clusters)}
