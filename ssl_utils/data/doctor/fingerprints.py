"""Whether two volumes, in RAS axes, are one scan. A digest finds copies whatever their file format, a sketch exact
copies of any part at any position, a thumbnail the same image after changes. None needs both volumes in memory."""

import hashlib
from collections import Counter
from itertools import combinations, product

import numpy as np
from scipy.ndimage import gaussian_filter

from ssl_utils.data.volumes import Volume

BLOCK = 4  # voxels along each side of the blocks that are hashed
KEPT = 2048  # hashes of a sketch
BUSY = 16  # different values that a block must have: air and flat background are alike everywhere
THUMB = 24  # boxes along each side of a thumbnail
SMOOTH = 2  # boxes
# Measured: the nearest scans of different patients have .62 (220 MRI of the hippocampus), .69, .35 and .61 (CT, T1 and
# PET of 43 limbs), .40 (7 CT of the trunk), .88 (261 CT of head and neck) and .87 (60 phantoms). Copies of 12 volumes
# of each set, mirrored, resampled by .7 and 1.3, smoothed by a voxel, with noise of 10 % of the range or a gamma of .6,
# have .91 to 1. Cropped by up to one voxel on each side they have .86 to .97, by up to two .5 to .9; crops that are not
# changed otherwise are found by the sketch.
ALIKE = 0.9
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
    blocks = np.sort(array[corners].reshape(len(at), BLOCK**3), axis=1)
    busy = (np.diff(blocks, axis=1) > 0).sum(1) + 1 >= BUSY
    return hashes[tuple(at[busy].T)]


def _mixed(hashes: np.ndarray) -> np.ndarray:
    """Spread every bit over the whole number (the last steps of splitmix64)."""
    hashes = (hashes ^ (hashes >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    hashes = (hashes ^ (hashes >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return hashes ^ (hashes >> np.uint64(31))


def thumbnail(image: Volume, low: float, high: float) -> np.ndarray:
    """(24, 24, 24) means of the first channel between `low` and `high` in as many equal boxes, without what is smooth
    over several of them, which all scans of one body part share; zero mean and unit length."""
    small = np.clip(image.array[0], low, high)
    for size in small.shape:  # each turn takes the first axis away and appends its boxes
        edges, start = np.linspace(0, size, THUMB + 1), np.arange(size)
        overlap = np.minimum(edges[1:, None], start + 1) - np.maximum(edges[:-1, None], start)
        small = np.tensordot(small, (overlap.clip(0) * THUMB / size).astype(np.float32), axes=(0, 1))
    small = small - gaussian_filter(small, SMOOTH)
    small -= small.mean()
    length = float(np.linalg.norm(small))
    return small / length if length > 1e-6 * max(abs(low), abs(high)) else np.zeros_like(small)


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


def alike(thumbnails: list[np.ndarray], *, least: float = ALIKE) -> dict[tuple[int, int], tuple[float, bool]]:
    """Pairs of volumes whose thumbnails have at least the correlation `least`, as they are or mirrored along some axes
    -> the correlation, and whether mirrored."""
    stacked, pairs = np.array(thumbnails).reshape(len(thumbnails), THUMB**3), {}
    for signs in product((1, -1), repeat=3):
        steps = [slice(None, None, sign) for sign in signs]
        mirrored = np.array([small[tuple(steps)].ravel() for small in thumbnails]).reshape(stacked.shape)
        correlations = np.triu(stacked @ mirrored.T, 1)
        for one, two in np.argwhere(correlations >= least):
            correlation = float(correlations[one, two]), -1 in signs
            pairs[one, two] = max(correlation, pairs.get((one, two), correlation))
    return pairs
