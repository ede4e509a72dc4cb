"""What a diffusion model is shown: images in -1..1; label maps as one-hot channels, the body as the last one."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from ssl_utils.data.cache import Prepared
from ssl_utils.data.crops import Crops, FixedCrops, random_corner
from ssl_utils.errors import CourseError


def condition(label: np.ndarray, inside: np.ndarray, values: Sequence[int]) -> Tensor:
    """(K, D, H, W) float32 of 0 and 1: a channel for each label value but the first, which is the background, and the
    body or brain. Without the last channel the model would have to guess where the body is."""
    channels = [label == value for value in values[1:]]
    return torch.from_numpy(np.stack([*channels, inside]).astype(np.float32))


def body(case: Prepared, box: tuple[slice, ...] = ()) -> np.ndarray:
    """Mask (D, H, W) of the voxels that are above 0 in any channel."""
    return (case.image[(slice(None), *box)] > 0).any(0)


def at_corner(case: Prepared, corner: Sequence[int], roi: Sequence[int], values: Sequence[int]) -> dict[str, Tensor]:
    """`image` (C, d, h, w) in -1..1 and `condition` (K, d, h, w) of the box from `corner` on."""
    box = tuple(slice(c, c + r) for c, r in zip(corner, roi, strict=True))
    image = torch.from_numpy(case.image[(slice(None), *box)].astype(np.float32))
    return {"image": 2 * image - 1, "condition": condition(case.label[box], body(case, box), values)}


class Pairs(Crops):
    """Pairs for training, numbered without end: boxes of `roi` voxels at random places, or whole volumes where these
    have that size. Pair i depends on (seed, i) alone."""

    def __init__(self, cases: Sequence[Prepared], *, roi: Sequence[int], seed: int, values: Sequence[int]) -> None:
        check_labelled(cases)
        super().__init__(cases, roi=roi, seed=seed)
        self.values = list(values)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        case = self.cases[self._turn(index)]
        corner = random_corner(case, self.roi, np.random.default_rng([self.seed, index]), False)
        return at_corner(case, corner, self.roi, self.values)


class FixedPairs(FixedCrops):
    """The middle of every case, and the number of the case: the validation set."""

    def __init__(self, cases: Sequence[Prepared], *, roi: Sequence[int], values: Sequence[int]) -> None:
        check_labelled(cases)
        super().__init__(cases, roi=roi)
        self.values = list(values)

    def __getitem__(self, index: int) -> dict:
        case = self.cases[index]
        return at_corner(case, middle(case.image.shape[1:], self.roi), self.roi, self.values) | {"number": index}


def middle(shape: Sequence[int], roi: Sequence[int]) -> list[int]:
    """The lowest corner of the box of `roi` voxels in the middle of a volume."""
    return [(n - r) // 2 for n, r in zip(shape, roi, strict=True)]


def check_labelled(cases: Sequence[Prepared]) -> None:
    """Raises CourseError when there is no case, or one without a label."""
    if not cases:
        raise CourseError("synthesis: no case to learn from; check the names of the sites, or choose another dataset")
    for case in cases:
        if case.label is None:
            raise CourseError(f"{case.id}: has no label, which is the condition; leave the case out, or label it")
