"""Random crops of cached volumes. Crop number i depends only on (seed, i), so that a resumed run gets exactly the crops
of an uninterrupted one."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from zlib import crc32

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from ssl_utils.data.cache import Prepared


def crop_at(case: Prepared, corner: Sequence[int], roi: Sequence[int]) -> dict[str, torch.Tensor]:
    """The crop whose lowest corner is `corner`: image (C, d, h, w) float32 standardised, label (1, d, h, w) and target
    (d, h, w) if any, and bounds (2, 3), the lowest and highest corner relative to the size of the volume."""
    box = tuple(slice(c, c + r) for c, r in zip(corner, roi, strict=True))
    corners = torch.tensor([(one.start, one.stop) for one in box]).T
    crop = {
        "image": torch.from_numpy(case.standardised(case.image[(slice(None), *box)])),
        "bounds": corners / torch.tensor(case.image.shape[1:]),
    }
    if case.label is not None:
        crop["label"] = torch.from_numpy(case.label[box][None].astype(np.int64))
    if case.target is not None:
        crop["target"] = torch.from_numpy(case.target[box].astype(np.int64))
    return crop


def random_corner(case: Prepared, roi: Sequence[int], rng: np.random.Generator, balanced: bool) -> list[int]:
    """A random corner; `balanced`: half of the crops include a voxel of a randomly chosen structure, small ones as
    often as large ones."""
    shape = case.image.shape[1:]
    structures = [value for value in case.positions if value != 0]
    if balanced and structures and rng.random() < 0.5:
        voxels = case.positions[structures[rng.integers(len(structures))]]
        centre = voxels[rng.integers(len(voxels))]
        wanted = [int(c - rng.integers(r // 4, r - r // 4)) for c, r in zip(centre, roi, strict=True)]
        return [min(max(w, 0), n - r) for w, n, r in zip(wanted, shape, roi, strict=True)]
    return [int(rng.integers(n - r + 1)) for n, r in zip(shape, roi, strict=True)]


class Crops(Dataset):
    """Training crops, numbered without end; `augment(crop, seed)` is the random half of the pipeline.

    `repeated`: after so many they begin again, and each has its `number`.
    """

    def __init__(
        self,
        cases: Sequence[Prepared],
        *,
        roi: Sequence[int],
        seed: int,
        balanced: bool = False,
        augment: Callable[[dict, int], dict] | None = None,
        repeated: int | None = None,
    ) -> None:
        self.cases, self.roi, self.seed, self.balanced, self.augment = list(cases), roi, seed, balanced, augment
        self.repeated = repeated

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        index = index % self.repeated if self.repeated else index
        rng = np.random.default_rng([self.seed, index])
        case = self.cases[self._turn(index)]
        crop = crop_at(case, random_corner(case, self.roi, rng, self.balanced), self.roi)
        crop.pop("bounds" if self.balanced else "label", None)
        if self.repeated:
            crop["number"] = torch.tensor(index)
        return self.augment(crop, int(rng.integers(2**31))) if self.augment else crop

    def ids(self, indices: Iterable[int]) -> list[str]:
        """The cases that these crops are from."""
        return [self.cases[self._turn(index % self.repeated if self.repeated else index)].id for index in indices]

    def _turn(self, index: int) -> int:
        """Every case once per round, each round in another order."""
        n = len(self.cases)
        return int(np.random.default_rng([self.seed, index // n, 1]).permutation(n)[index % n])


class FixedCrops(Dataset):
    """One crop per case, always the same one: the validation set of a pretext task. `seed` fixes its corruption."""

    def __init__(self, cases: Sequence[Prepared], *, roi: Sequence[int]) -> None:
        self.cases, self.roi = list(cases), roi

    def __len__(self) -> int:
        return len(self.cases)

    def __getitem__(self, index: int) -> dict:
        case = self.cases[index]
        seed = crc32(case.id.encode())
        corner = random_corner(case, self.roi, np.random.default_rng(seed), False)
        crop = crop_at(case, corner, self.roi)
        crop.pop("label", None)
        return crop | {"seed": seed, "id": case.id}


class Consecutive(Sampler[int]):
    """Crop numbers of one epoch; the trainer calls `set_epoch`, also after a resume.

    Of `processes` that share each batch of `batch_size`, the one numbered `rank` gets its share, in order.
    """

    def __init__(self, per_epoch: int, *, batch_size: int = 1, rank: int = 0, processes: int = 1) -> None:
        self.per_epoch, self.epoch = per_epoch, 0
        self.batch_size, self.rank, self.processes = batch_size, rank, processes

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __iter__(self) -> Iterator[int]:
        numbers = range(self.epoch * self.per_epoch, (self.epoch + 1) * self.per_epoch)
        share = self.batch_size // self.processes
        return (number for number in numbers if number % self.batch_size // share == self.rank)

    def __len__(self) -> int:
        return self.per_epoch // self.processes


class Ahead(DataLoader):
    """Loads the next batch in a thread while the GPU works on this one. An error in a crop is raised as usual."""

    def __iter__(self) -> Iterator:
        batches = super().__iter__()
        with ThreadPoolExecutor(1) as thread:
            following = thread.submit(next, batches, None)
            while (batch := following.result()) is not None:
                following = thread.submit(next, batches, None)
                yield batch
