"""A baseline without the image: the average position of structures in the labelled cases, stretched to the test case.

The difference between a network's score and this one is what it has learnt from images. On volumes that are cropped
around one structure the baseline is high.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.nn import functional as F

from ssl_utils.data.cache import Prepared
from ssl_utils.data.cases import Case
from ssl_utils.data.dataset import Dataset, Grid
from ssl_utils.data.transforms import preprocess
from ssl_utils.data.volumes import Volume
from ssl_utils.segmentation import inference, metrics
from ssl_utils.segmentation.metrics import structures


def average_label(labels: Sequence[Mapping[str, np.ndarray]], size: Sequence[int]) -> Tensor:
    """Frequency of each structure at each position, (K, *size) in 0..1, from the masks of every labelled case, each
    stretched to one size."""
    stretched = []
    for masks in labels:
        stack = torch.from_numpy(np.stack(list(masks.values()))).float()  # (K, D, H, W)
        stretched.append(F.interpolate(stack[None], size=tuple(size), mode="trilinear")[0])
    return torch.stack(stretched).mean(0)


def of_cases(labelled: Sequence[Prepared], *, dataset: Dataset, grid: Grid) -> Tensor:
    """`average_label` of prepared cases; where labels ignore voxels, the frequency among the cases that do not."""
    labels = [np.asarray(case.label) for case in labelled]
    average = average_label([metrics.masks(label, structures(dataset), dataset.regions) for label in labels], grid.roi)
    if dataset.ignore is None:
        return average
    known = average_label([{"annotated": metrics.annotated(label, dataset.ignore)} for label in labels], grid.roi)
    return average / known.clamp(min=1e-6)


def predict(average: Tensor, image: Volume, *, dataset: Dataset, grid: Grid) -> dict[str, np.ndarray]:
    """Boolean mask of each structure on the voxels of `image`, whose intensities only set the body box of a CT."""
    done = preprocess(image, None, grid=grid, intensity=dataset.intensity)
    p = F.interpolate(average[None], size=done.image.shape[1:], mode="trilinear")[0].clamp(1e-6, 1 - 1e-6)
    background = (1 - p.sum(0, keepdim=True)).clamp(min=1e-6)
    decided = inference.to_original(
        p.logit() if dataset.regions else torch.cat([background, p]).log(),
        affine=done.affine,
        target_affine=image.affine,
        target_shape=image.shape,
        regions=bool(dataset.regions),
    )
    return metrics.decided_masks(decided, dataset)


def evaluate(labelled: Sequence[Prepared], cases: Sequence[Case], *, dataset: Dataset, grid: Grid) -> pd.DataFrame:
    """The rows of `experiments.evaluate` for the average label of `labelled`."""
    average = of_cases(labelled, dataset=dataset, grid=grid)
    return metrics.evaluate(
        cases, dataset=dataset, predict=lambda image: predict(average, image, dataset=dataset, grid=grid)
    )
