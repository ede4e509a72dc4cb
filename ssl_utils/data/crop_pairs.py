"""Two overlapping crops of one volume and where they are in it, cut in every step. Pair number i depends only on
(seed, i), as crops do, and on no intensity: no pair is rejected because it is bright or dark."""

from collections.abc import Sequence
from zlib import crc32

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ssl_utils.data.cache import Prepared
from ssl_utils.data.crops import Crops, FixedCrops, crop_at

SIZES = (0.6, 1.2)  # sides of a crop, of those of the ROI
LEAST = 0.3  # least overlap: intersection over union of the two boxes (Gogou 2024)


def overlapping_boxes(shape: Sequence[int], roi: Sequence[int], rng: np.random.Generator) -> np.ndarray:
    """Lowest and highest corners (2, 2, 3) of two boxes in a volume of this shape, in voxels.

    Both have the proportions of the ROI, each a size of its own, and no side longer than the volume.
    """
    shape, roi = np.asarray(shape), np.asarray(roi)
    while True:
        sides = np.maximum(np.minimum(np.round(rng.uniform(*SIZES, (2, 1)) * roi), shape), 1).astype(int)  # (2, 3)
        first = rng.integers(shape - sides[0] + 1)
        second = first + np.round(rng.uniform(-0.5, 0.5, 3) * sides.min(0)).astype(int)
        low = np.stack([first, np.clip(second, 0, shape - sides[1])])
        boxes = np.stack([low, low + sides], 1)
        if iou(boxes) >= LEAST:
            return boxes


def iou(boxes: np.ndarray) -> float:
    """Intersection over union of two boxes (2, 2, 3)."""
    both = np.clip(boxes[:, 1].min(0) - boxes[:, 0].max(0), 0, None).prod()
    return float(both / ((boxes[:, 1] - boxes[:, 0]).prod(1).sum() - both))


def pair_of(case: Prepared, roi: Sequence[int], rng: np.random.Generator) -> dict[str, Tensor]:
    """Two overlapping crops on the grid of the ROI: `image` and `partner` (C, d, h, w) float32 standardised, and
    `boxes` (2, 2, 3), the lowest and highest corner of each relative to the size of the volume."""
    shape = case.image.shape[1:]
    boxes = overlapping_boxes(shape, roi, rng)
    image, partner = (_resized(crop_at(case, low, high - low)["image"], roi) for low, high in boxes)
    return {"image": image, "partner": partner, "boxes": torch.from_numpy(boxes / shape).float()}


def _resized(image: Tensor, roi: Sequence[int]) -> Tensor:
    return F.interpolate(image[None], size=tuple(roi), mode="trilinear", align_corners=False)[0]


class Pairs(Crops):
    """Training pairs, numbered without end."""

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return pair_of(self.cases[self._turn(index)], self.roi, np.random.default_rng([self.seed, index]))


class FixedPairs(FixedCrops):
    """One pair per case, always the same one: a validation set."""

    def __getitem__(self, index: int) -> dict:
        case = self.cases[index]
        seed = crc32(case.id.encode())
        return pair_of(case, self.roi, np.random.default_rng(seed)) | {"seed": seed, "id": case.id}
