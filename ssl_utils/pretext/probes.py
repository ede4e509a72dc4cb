"""What tokens know, in numbers: masked PSNR, two probes with labels, and the spread of features.

Labels are used here to look and never to train: nothing in this module has a gradient.
"""

from collections.abc import Sequence

import numpy as np
import torch
from scipy.optimize import minimize
from scipy.special import log_softmax
from torch import Tensor
from torch.nn import functional as F

from ssl_utils.networks.heads import patchify, unpatchify

PERFECT = 1e-10  # squared error, in units of the range, below which a reconstruction counts as perfect: 100 dB


def masked_psnr(prediction: Tensor, images: Tensor, hidden: Tensor) -> Tensor:
    """Peak signal-to-noise ratio over hidden voxels in dB, one per case (B,); at most 100.

    The data range (the peak) is the crop's own: largest minus smallest standardised intensity of each channel of the
    clean crop (B, C, D, H, W). A case without a hidden voxel gives NaN.
    """
    flat = images.flatten(2)
    span = (flat.amax(2) - flat.amin(2))[..., None]  # (B, C, 1)
    error = (prediction - images).flatten(2) / torch.where(span > 0, span, 1.0)
    where = hidden.flatten(2)
    mean = (error.square() * where).sum((1, 2)) / where.sum((1, 2))  # 0 / 0 where nothing is hidden
    return -10 * mean.clamp(min=PERFECT).log10()


def class_shares(labels: Tensor, values: Sequence[int], patch_size: Sequence[int]) -> Tensor:
    """Share of each label value in the patch of every token: (B, 1, D, H, W) -> (B, N, K)."""
    masks = torch.cat([labels == value for value in values], dim=1).float()
    return F.avg_pool3d(masks, kernel_size=tuple(patch_size)).flatten(2).transpose(1, 2)


def token_dice(predicted: Tensor, true: Tensor) -> float:
    """Dice at token resolution, mean over the structures that are there: 1 only if all shares (N, K) agree.

    Shares are volumes, and the overlap of two shares of one patch is the smaller one. Column 0 is the background and is
    left out; without any structure the result is NaN.
    """
    both, total = torch.minimum(predicted, true).sum(0), (predicted + true).sum(0)
    there = true.sum(0) > 0
    there[0] = False
    return float((2 * both[there] / total[there]).mean())


def linear_probe(tokens: Tensor, shares: Tensor, asked: Tensor, *, penalty: float = 1e-3) -> Tensor:
    """Shares (M, K) of the tokens `asked` (M, E): softmax regression of `shares` (N, K) on `tokens` (N, E), with
    `penalty` times the squared weights. Convex, started at the mean share, so there is nothing to draw."""
    centre, level = tokens.mean(0), shares.mean(0).clamp(min=1e-6).log()
    x, s = (tokens - centre).double().numpy(), shares.double().numpy()

    def cost(flat: np.ndarray) -> tuple[float, np.ndarray]:
        w = flat.reshape(-1, s.shape[1])  # (E + 1, K), the last row is the bias
        log_p = log_softmax(x @ w[:-1] + w[-1], axis=1)
        error = (np.exp(log_p) - s) / len(x)  # (N, K)
        slope = np.vstack([x.T @ error + 2 * penalty * w[:-1], error.sum(0)])
        return -(s * log_p).sum() / len(x) + penalty * (w[:-1] ** 2).sum(), slope.ravel()

    start = np.vstack([np.zeros((x.shape[1], s.shape[1])), level.numpy()])
    found = minimize(cost, start.ravel(), jac=True, method="L-BFGS-B", options={"maxiter": 100}).x
    w = torch.from_numpy(found.reshape(start.shape))
    return ((asked - centre).double() @ w[:-1] + w[-1]).softmax(1)


def propagate(tokens: Tensor, shares: Tensor, asked: Tensor, *, neighbours: int = 5) -> Tensor:
    """Shares (M, K) of the tokens `asked` (M, E): the mean of their nearest labelled tokens (N, E) by cosine."""
    similarity = F.normalize(asked, dim=1) @ F.normalize(tokens, dim=1).T  # (M, N)
    nearest = similarity.topk(min(neighbours, len(tokens)), dim=1).indices
    return shares[nearest].mean(1)


def rankme(tokens: Tensor) -> float:
    """In how many directions features (N, E) spread: exp of the entropy of their normalised singular values, between 1
    and min(N, E) (Garrido et al. 2023, arXiv:2210.02885)."""
    sigma = torch.linalg.svdvals(tokens.double())
    p = sigma / sigma.sum().clamp(min=1e-12)
    return float(torch.special.entr(p).sum().exp())  # entr(p) = -p log p, and 0 at 0


def feature_std(tokens: Tensor) -> float:
    """Standard deviation over tokens (N, E) of L2-normalised features, mean over dimensions, in units of 1 / sqrt(E).

    0: all tokens are the same; 1: they point evenly in all directions (Chen and He 2021, arXiv:2011.10566).
    """
    unit = F.normalize(tokens.double(), dim=1)
    return float(unit.std(0, correction=0).mean() * tokens.shape[1] ** 0.5)


def content_share(tokens: Tensor) -> float:
    """Share of the variance of L2-normalised features (B, N, E) that lies between cases at one position, 0 to 1.

    0: a token knows where it is and nothing of what is there. NaN for a single case.
    """
    unit = F.normalize(tokens.double(), dim=2)
    between = unit.var(0, correction=0).mean(0).sum()
    everything = unit.flatten(0, 1).var(0, correction=0).sum()
    return float(between / everything.clamp(min=1e-12)) if len(tokens) > 1 else float("nan")


def given_statistics(guess: Tensor, images: Tensor, patch_size: Sequence[int]) -> Tensor:
    """Each patch of `guess` moved to the mean and deviation of the true patch. A task that regresses normalised patches
    is handed both when its output becomes an image again; compared with it, a trivial guess must get them too."""
    ours, true = patchify(guess, patch_size), patchify(images, patch_size)
    flat = (ours - ours.mean(-1, keepdim=True)) / (ours.var(-1, keepdim=True) + 1e-6).sqrt()
    moved = flat * (true.var(-1, keepdim=True) + 1e-6).sqrt() + true.mean(-1, keepdim=True)
    grid = [n // p for n, p in zip(images.shape[2:], patch_size, strict=True)]
    return unpatchify(moved, grid, patch_size, images.shape[1])
