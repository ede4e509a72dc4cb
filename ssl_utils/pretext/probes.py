"""Measures of tokens: masked PSNR, two probes with labels, and the spread of features. None has a gradient."""

from collections.abc import Sequence

import numpy as np
import torch
from scipy.optimize import minimize
from scipy.special import log_softmax
from torch import Tensor
from torch.nn import functional as F

PERFECT = 1e-10  # squared error in units of the range: 100 dB, the largest PSNR that is reported


def masked_psnr(prediction: Tensor, images: Tensor, hidden: Tensor) -> Tensor:
    """Peak signal-to-noise ratio over hidden voxels in dB, one per case (B,), at most 100; NaN without a hidden voxel.
    The peak is the range of intensities of each channel of the clean crop (B, C, D, H, W)."""
    flat = images.flatten(2)
    span = (flat.amax(2) - flat.amin(2))[..., None]  # (B, C, 1)
    error = (prediction - images).flatten(2) / torch.where(span > 0, span, 1.0)
    weight = hidden.flatten(2)
    mean = (error.square() * weight).sum((1, 2)) / weight.sum((1, 2))  # 0 / 0 where nothing is hidden
    return -10 * mean.clamp(min=PERFECT).log10()


def class_shares(labels: Tensor, values: Sequence[int], patch_size: Sequence[int]) -> Tensor:
    """Share of each label value in the patch of every token: (B, 1, D, H, W) -> (B, N, K); voxels of other values,
    which nobody has annotated, add to none."""
    masks = torch.cat([labels == value for value in values], dim=1).float()
    return F.avg_pool3d(masks, kernel_size=tuple(patch_size)).flatten(2).transpose(1, 2)


def token_dice(predicted: Tensor, true: Tensor) -> float:
    """Dice of label shares (N, K) of tokens, mean over the structures in `true`; NaN without any. Column 0 is the
    background and is left out. The overlap of two shares of one patch is the smaller one."""
    both, total = torch.minimum(predicted, true).sum(0), (predicted + true).sum(0)
    present = true.sum(0) > 0
    present[0] = False
    return float((2 * both[present] / total[present]).mean())


def linear_probe(tokens: Tensor, shares: Tensor, queries: Tensor, *, penalty: float = 1e-3) -> Tensor:
    """Shares (M, K) of the tokens `queries` (M, E): softmax regression of `shares` (N, K) on `tokens` (N, E), with
    `penalty` times the squared weights. Convex and deterministic."""
    centre, level = tokens.mean(0), shares.mean(0).clamp(min=1e-6).log()
    x, s = (tokens - centre).double().numpy(), shares.double().numpy()

    def cost(flat: np.ndarray) -> tuple[float, np.ndarray]:
        w = flat.reshape(-1, s.shape[1])  # (E + 1, K), the last row is the bias
        log_p = log_softmax(x @ w[:-1] + w[-1], axis=1)
        error = (np.exp(log_p) - s) / len(x)  # (N, K)
        slope = np.vstack([x.T @ error + 2 * penalty * w[:-1], error.sum(0)])
        return -(s * log_p).sum() / len(x) + penalty * (w[:-1] ** 2).sum(), slope.ravel()

    initial = np.vstack([np.zeros((x.shape[1], s.shape[1])), level.numpy()])
    optimum = minimize(cost, initial.ravel(), jac=True, method="L-BFGS-B", options={"maxiter": 100}).x
    w = torch.from_numpy(optimum.reshape(initial.shape))
    return ((queries - centre).double() @ w[:-1] + w[-1]).softmax(1)


def propagate(tokens: Tensor, shares: Tensor, queries: Tensor, *, neighbours: int = 5) -> Tensor:
    """Shares (M, K) of the tokens `queries` (M, E): the mean of their nearest labelled tokens (N, E) by cosine."""
    similarity = F.normalize(queries, dim=1) @ F.normalize(tokens, dim=1).T  # (M, N)
    nearest = similarity.topk(min(neighbours, len(tokens)), dim=1).indices
    return shares[nearest].mean(1)


def rankme(tokens: Tensor) -> float:
    """Effective rank of features (N, E): exp of the entropy of their normalised singular values, between 1 and
    min(N, E) (Garrido et al. 2023, arXiv:2210.02885)."""
    sigma = torch.linalg.svdvals(tokens.double())
    p = sigma / sigma.sum().clamp(min=1e-12)
    return float(torch.special.entr(p).sum().exp())  # entr(p) = -p log p, and 0 at 0


def feature_std(tokens: Tensor) -> float:
    """Standard deviation over tokens (N, E) of L2-normalised features, mean over dimensions, in units of 1 / sqrt(E): 0
    for equal tokens, 1 for evenly spread directions (Chen and He 2021, arXiv:2011.10566)."""
    unit = F.normalize(tokens.double(), dim=1)
    return float(unit.std(0, correction=0).mean() * tokens.shape[1] ** 0.5)


def content_share(tokens: Tensor) -> float:
    """Share of the variance of L2-normalised features (B, N, E) between cases at one position, 0 to 1. At 0 tokens
    encode their position only; NaN for a single case."""
    unit = F.normalize(tokens.double(), dim=2)
    between = unit.var(0, correction=0).mean(0).sum()
    everything = unit.flatten(0, 1).var(0, correction=0).sum()
    return float(between / everything.clamp(min=1e-12)) if len(tokens) > 1 else float("nan")
