"""Whether two volumes, in RAS axes, are one scan. A digest finds copies whatever their file format, a sketch exact
copies of any part at any position, a thumbnail the same image after changes. None needs both volumes in memory."""

import hashlib
from collections import Counter
from itertools import combinations

import numpy as np
from scipy.ndimage import zoom

from ssl_utils.data.volumes import Volume

BLOCK = 4  # voxels along each side of the blocks that are hashed
KEPT = 2048  # hashes of a sketch
BUSY = 16  # different values that a block must have: air and flat background are alike everywhere
THUMB = 12  # voxels along each side of a thumbnail
_STEPS = tuple(np.uint64(odd) for odd in (0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9))


def digest(volume: Volume) -> str:
    """A hash of the voxels of a volume in RAS axes, whatever file format and type they were stored in."""
    hashed = hashlib.blake2b(volume.array.data, digest_size=16)
    hashed.update(f"{volume.array.dtype}{volume.array.shape}".encode())
    return hashed.hexdigest()


def sketch(image: Volume) -> np.ndarray:
    """The smallest hashes of all 4x4x4 blocks of the first channel, at every position: sorted, uint64.

    Which blocks are kept depends on their content alone, so a crop keeps many of the blocks of the whole volume.
    """
    array = image.array[0]
    if min(array.shape) < BLOCK:
        return np.empty(0, np.uint64)
    likely = np.uint64(min(1, 4 * KEPT / array.size) * (2**64 - 1025))  # a quarter of these are busy enough
    hashes = [_slab(array[start : start + 32 + BLOCK - 1], likely) for start in range(0, len(array), 32)]
    return np.unique(np.concatenate(hashes))[:KEPT]


def _slab(array: np.ndarray, most: np.uint64) -> np.ndarray:
    if len(array) < BLOCK:
        return np.empty(0, np.uint64)
    hashes = _mixed(array.view(np.uint32).astype(np.uint64))
    for axis, step in enumerate(_STEPS):  # a polynomial in three directions: 12 sums instead of 64
        length = hashes.shape[axis] - BLOCK + 1
        total, weight = np.zeros((), np.uint64), np.uint64(1)
        for shift in range(BLOCK):
            total = total + hashes.take(range(shift, shift + length), axis=axis) * weight
            weight = np.multiply(weight, step, dtype=np.uint64)
        hashes = total
    hashes = _mixed(hashes)
    flat = np.flatnonzero(hashes <= most)
    flat = flat[np.unique(hashes.ravel()[flat], return_index=True)[1]]  # air is the same block a million times
    at = np.stack(np.unravel_index(flat, hashes.shape), axis=1)
    corners = tuple(at.T[:, :, None, None, None] + np.indices((BLOCK,) * 3)[:, None])
    blocks = np.sort(array[corners].reshape(len(at), -1), axis=1)
    busy = (np.diff(blocks, axis=1) > 0).sum(1) + 1 >= BUSY
    return hashes[tuple(at[busy].T)]


def _mixed(hashes: np.ndarray) -> np.ndarray:
    """Spread every bit over the whole number (the last steps of splitmix64)."""
    hashes = (hashes ^ (hashes >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    hashes = (hashes ^ (hashes >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return hashes ^ (hashes >> np.uint64(31))


def thumbnail(image: Volume) -> np.ndarray:
    """(12**3,) of the first channel in RAS axes, zero mean and unit length; zeros for an image of one value."""
    array = image.array[0]
    low, high = np.percentile(array, [1, 99])
    factors = [THUMB / size for size in array.shape]
    small = zoom(np.clip(array, low, high), factors, order=1, grid_mode=True, mode="nearest")
    small = small.ravel() - small.mean()
    length = float(np.linalg.norm(small))
    return (small / length if length > 0 else np.zeros_like(small)).astype(np.float32)


def shared(sketches: list[np.ndarray], *, least: int = 4) -> dict[tuple[int, int], int]:
    """Pairs of volumes with at least `least` blocks in common -> their number."""
    if not sum(map(len, sketches)):
        return {}
    hashes, owners = np.concatenate(sketches), np.repeat(np.arange(len(sketches)), [len(s) for s in sketches])
    order = np.lexsort((owners, hashes))
    hashes, owners = hashes[order], owners[order]
    counts: Counter[tuple[int, int]] = Counter()
    edges = np.flatnonzero(np.diff(hashes)) + 1
    first, ends = np.append(0, edges), np.append(edges, len(hashes))
    for start, end in zip(first[ends - first > 1], ends[ends - first > 1], strict=True):
        if end - start <= 20:  # a block in very many volumes is a pattern, not a leak
            counts.update(combinations(owners[start:end].tolist(), 2))
    return {pair: count for pair, count in counts.items() if count >= least}


def alike(thumbnails: list[np.ndarray], *, least: float = 0.98) -> dict[tuple[int, int], float]:
    """Pairs of volumes whose thumbnails have at least the correlation `least` -> the correlation."""
    stacked, pairs = np.array(thumbnails), {}
    for first in range(len(stacked) - 1):
        correlations = stacked[first + 1 :] @ stacked[first]
        for other in np.flatnonzero(correlations >= least):
            pairs[first, first + 1 + int(other)] = float(correlations[other])
    return pairs
