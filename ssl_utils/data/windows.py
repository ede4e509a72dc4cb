"""Windows of neighbouring slices, read from cached volumes: no file per slice.

A block of consecutive windows shares its slices, so n windows cost n + depth - 1 slices. Augmentation is in the plane
only, and the same for all slices: the middle one stays the labelled one.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample
from torch.utils.data import Dataset

from ssl_utils.data.cache import Prepared
from ssl_utils.errors import CourseError

EDGES = ("clamp", "reflect")
ANGLE, SCALE = 0.15, 0.1  # radians, and share of the size: as for crops


def neighbours(first: int, count: int, *, depth: int, total: int, edge: str = "clamp") -> np.ndarray:
    """The slices that windows number `first` to `first + count - 1` of a volume of `total` slices are made of, those
    beyond its ends repeated (`clamp`) or mirrored (`reflect`): count + depth - 1 numbers.

    Raises:
        CourseError: an even depth, another edge, windows that do not exist, or too few slices to mirror.
    """
    r = depth // 2
    if depth % 2 == 0 or depth < 1:
        raise CourseError(f"depth={depth}: a window needs a middle slice; choose 1, 3, 5 or 7")
    if edge not in EDGES:
        raise CourseError(f"edge={edge!r}: unknown; choose one of {', '.join(EDGES)}")
    if not 0 <= first <= first + count <= total:
        raise CourseError(f"windows {first} to {first + count - 1}: the volume has {total} slices; choose fewer")
    if edge == "reflect" and total <= r:
        raise CourseError(f"depth={depth}: {total} slices cannot be mirrored that far; choose edge='clamp'")
    numbers = np.arange(first - r, first + count + r)
    if edge == "clamp":
        return numbers.clip(0, total - 1)
    return total - 1 - abs(total - 1 - abs(numbers))


def slices_of(case: Prepared, numbers: np.ndarray, axis: int = 2) -> Tensor:
    """Slices across an axis of the volume: (n, C, H, W) float32, standardised."""
    low = int(numbers.min())
    slices = _across(case.image, low, int(numbers.max()) + 1, axis).float()
    mean, std = (torch.from_numpy(numbers.reshape(-1, 1, 1)) for numbers in case.moments)
    slices.sub_(mean).div_(std)
    return slices if (np.diff(numbers) == 1).all() else slices[numbers - low]


def _across(array: np.ndarray, low: int, high: int, axis: int) -> Tensor:
    """Slices `low` to `high` across an axis of a memory-mapped (C, D, H, W): (high - low, C, H, W).

    A copy in the order of the file, then a transposed one: a transposed read would load every line of memory again and
    again.
    """
    thick = torch.from_numpy(np.array(array[(slice(None),) * (1 + axis) + (slice(low, high),)], order="C"))
    plane = [n for i, n in enumerate(thick.shape) if i != 1 + axis]  # C, H, W
    return thick.flatten(0, axis).transpose(0, 1).contiguous().view(-1, *plane)


def windows(slices: Tensor, depth: int) -> Tensor:
    """All windows of these slices, without a copy: (n, C, H, W) -> (n - depth + 1, C, H, W, depth)."""
    return slices.unfold(0, depth, 1)


class Windows(Dataset):
    """Blocks of `count` windows at a random height, numbered without end; number i depends only on (seed, i).

    Returns image (count, C, H, W, depth) float32 standardised, and label (count, 1, H, W) uint8 of the middle
    slices, if any.

    Args:
        axis: 0, 1 or 2, across the slices.
        augment: turn and scale in the plane.
    """

    def __init__(
        self,
        cases: Sequence[Prepared],
        *,
        seed: int,
        depth: int = 5,
        axis: int = 2,
        edge: str = "clamp",
        count: int = 32,
        augment: bool = False,
    ) -> None:
        self.cases, self.seed, self.depth, self.axis = list(cases), seed, depth, axis
        self.edge, self.count, self.augment = edge, count, augment

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        rng = np.random.default_rng([self.seed, index])
        case = self.cases[rng.integers(len(self.cases))]
        total = case.image.shape[1 + self.axis]
        count = min(self.count, total)
        first = int(rng.integers(total - count + 1))
        numbers = neighbours(first, count, depth=self.depth, total=total, edge=self.edge)
        slices, label = slices_of(case, numbers, self.axis), None
        if case.label is not None:
            label = _across(case.label[None], first, first + count, self.axis)
        if self.augment:
            slices, label = in_plane(slices, label, rng)
        return {"image": windows(slices, self.depth)} | ({} if label is None else {"label": label})


def in_plane(slices: Tensor, label: Tensor | None, rng: np.random.Generator) -> tuple[Tensor, Tensor | None]:
    """Turn and scale all slices (n, C, H, W), and the label (m, 1, H, W), by one random angle and factor."""
    angle, scale = rng.uniform(-ANGLE, ANGLE), 1 + rng.uniform(-SCALE, SCALE)
    h, w = slices.shape[2:]
    cos, sin = scale * np.cos(angle), scale * np.sin(angle)
    matrix = torch.tensor([[[cos, -sin * h / w, 0], [sin * w / h, cos, 0]]], dtype=torch.float32)

    def turned(planes: Tensor, mode: str) -> Tensor:
        stack = planes.float().flatten(0, 1)[None]  # one grid for all
        grid = affine_grid(matrix, [1, len(stack), h, w], align_corners=False)
        moved = grid_sample(stack, grid, mode=mode, padding_mode="border", align_corners=False)
        return moved[0].unflatten(0, planes.shape[:2]).to(planes.dtype)

    return turned(slices, "bilinear"), None if label is None else turned(label, "nearest")
