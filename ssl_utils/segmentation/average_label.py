"""A baseline that never looks at the image: where structures are in the labelled cases, stretched to the test case.

What a network scores above it is what it has learnt from images. On volumes cut out around one structure it is high.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.nn import functional as F

from ssl_utils.data import volumes
from ssl_utils.data.cache import Prepared
from ssl_utils.data.cases import Case
from ssl_utils.data.dataset import Dataset, Grid
from ssl_utils.data.transforms import preprocess
from ssl_utils.data.volumes import Volume
from ssl_utils.segmentation import inference, metrics


def structures(dataset: Dataset) -> dict[int, str]:
    """Label value -> name, without background."""
    return {value: name for value, name in dataset.labels.items() if value != 0}


def average_label(labels: Sequence[Mapping[str, np.ndarray]], size: Sequence[int]) -> Tensor:
    """How often each structure is at each place: (K, *size) in 0..1 from the masks of every labelled case, each
    stretched to one size."""
    stretched = []
    for masks in labels:
        stack = torch.from_numpy(np.stack(list(masks.values()))).float()  # (K, D, H, W)
        stretched.append(F.interpolate(stack[None], size=tuple(size), mode="trilinear")[0])
    return torch.stack(stretched).mean(0)


def predict(average: Tensor, image: Volume, *, dataset: Dataset, grid: Grid) -> dict[str, np.ndarray]:
    """Boolean mask of each structure on the voxels of `image`; its intensities matter only to the body box of CT."""
    done = preprocess(image, None, grid=grid, intensity=dataset.intensity)
    p = F.interpolate(average[None], size=done.image.shape[1:], mode="trilinear")[0].clamp(1e-6, 1 - 1e-6)
    background = (1 - p.sum(0, keepdim=True)).clamp(min=1e-6)
    found = inference.to_original(
        p.logit() if dataset.regions else torch.cat([background, p]).log(),
        affine=done.affine,
        target_affine=image.affine,
        target_shape=image.shape,
        regions=bool(dataset.regions),
    )
    if dataset.regions:
        return dict(zip(dataset.regions, found, strict=True))
    return {name: found == k for k, name in enumerate(structures(dataset).values(), 1)}


def evaluate(labelled: Sequence[Prepared], cases: Sequence[Case], *, dataset: Dataset, grid: Grid) -> pd.DataFrame:
    """The rows of `experiments.evaluate` for the average label of `labelled`."""
    names, rows = structures(dataset), []
    masks = [metrics.masks(np.asarray(case.label), names, dataset.regions) for case in labelled]
    average = average_label(masks, grid.roi)
    for case in cases:
        image = volumes.read_image(case.image, channels=len(dataset.channels))
        label = volumes.read_label(case.label, values=dataset.labels)
        truth = metrics.masks(label.array[0], names, dataset.regions)
        found = predict(average, image, dataset=dataset, grid=grid)
        scored = metrics.evaluate_case(found, truth, spacing=label.spacing, tolerance=dataset.tolerance)
        rows += [{"case": case.id, "patient": case.patient, **row} for row in scored]
    return pd.DataFrame(rows)
