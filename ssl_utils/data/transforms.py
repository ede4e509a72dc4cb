"""The two halves of every pipeline: the deterministic one is cached, the random one runs on each crop."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import monai.transforms as mt
import numpy as np
import torch
from monai.data import MetaTensor, set_track_meta
from nibabel.affines import from_matvec
from scipy.ndimage import find_objects, gaussian_filter

from ssl_utils.data.dataset import FILLED, Grid, Intensity
from ssl_utils.data.formats.stored import shape_text
from ssl_utils.data.volumes import Volume
from ssl_utils.errors import CourseError

FAINTEST = np.float32(1e-3)  # of a voxel of the brain


@dataclass
class Preprocessed:
    """A volume on the grid of its dataset: image (C, D, H, W) in 0..1, label (D, H, W) or None, affine of the grid."""

    image: np.ndarray
    label: np.ndarray | None
    affine: np.ndarray
    nonzero: bool = False  # by the rule of that name

    def moments(self) -> tuple[float, float] | tuple[np.ndarray, np.ndarray]:
        """Mean and standard deviation, with which every network input is standardised: over the volume, or (C, 1, 1, 1)
        over the voxels of each channel that are not 0."""
        if not self.nonzero:
            return float(self.image.mean()), float(max(self.image.std(), 1e-3))
        inside = [channel[channel > 0] if channel.any() else np.zeros(1) for channel in self.image]
        numbers = np.array([(values.mean(), max(values.std(), 1e-3)) for values in inside], np.float32)
        return tuple(numbers.T[..., None, None, None])


def preprocess(image: Volume, label: Volume | None, *, grid: Grid, intensity: Intensity) -> Preprocessed:
    """RAS orientation, spacing of the grid, intensities to 0..1, crop to the body (CT) or the brain, pad to the ROI.

    Raises:
        CourseError: the volume covers less than a quarter of the ROI along an axis.
    """
    spacing = grid.spacing
    if grid.fit:  # the whole field of view fills the ROI
        spacing = tuple((np.prod(image.ras_grid, axis=0) / grid.roi).tolist())
    voxels, affine = _regrid(image.array, image.affine, spacing, "bilinear")
    if min(n / r for n, r in zip(voxels.shape[1:], grid.roi, strict=True)) < FILLED:
        size = f"{shape_text(voxels.shape[1:])} voxels at {' x '.join(f'{s:.3g}' for s in spacing)} mm"
        why = f"has {size}, less than a quarter of the ROI {shape_text(grid.roi)} along an axis"
        raise CourseError(f"{image.path}: {why}; leave the volume out, or train with a smaller ROI (--roi)")
    labels = _regrid(label.array, image.affine, spacing, "nearest")[0][0] if label else None  # one grid: `check_pair`
    if intensity.kind == "nonzero":  # resampling has smeared the edge of the brain into the background
        brain = image.array.any(0, keepdims=True)
        voxels *= _regrid(brain, image.affine, spacing, "nearest")[0]
    voxels = rescale(voxels, intensity) if intensity.kind != "nonzero" else rescale_brain(voxels, intensity)
    box = _body_box(voxels) if intensity.kind != "percentile" else tuple(slice(0, n) for n in voxels.shape[1:])
    if grid.fit:  # rounding may have added a plane
        box = tuple(slice(0, min(n, r)) for n, r in zip(voxels.shape[1:], grid.roi, strict=True))
    missing = [max(r - (b.stop - b.start), 0) for r, b in zip(grid.roi, box, strict=True)]
    pads = [(m // 2, m - m // 2) for m in missing]
    voxels = np.pad(voxels[(slice(None), *box)], [(0, 0), *pads])
    corner = [b.start - p[0] for b, p in zip(box, pads, strict=True)]
    affine = affine @ from_matvec(np.eye(3), corner)
    if labels is not None:
        labels = np.pad(labels[box], pads).astype(np.uint8)
    return Preprocessed(voxels, labels, affine, intensity.kind == "nonzero")


def rescale(image: np.ndarray, intensity: Intensity) -> np.ndarray:
    """Intensities to 0..1 with clipping, each channel (C, D, H, W) by the same rule."""
    if intensity.kind == "window":
        low, high = np.float32(intensity.low), np.float32(intensity.high)
    else:
        axes = tuple(range(1, image.ndim))
        low, high = np.percentile(image, [intensity.low, intensity.high], axis=axes, keepdims=True).astype(np.float32)
    return np.clip((image - low) / np.maximum(high - low, 1e-6), 0, 1)


def rescale_brain(image: np.ndarray, intensity: Intensity) -> np.ndarray:
    """Intensities to 0..1, each channel (C, D, H, W) by percentiles of its voxels that are not 0."""
    return np.stack([rescale_nonzero(channel, intensity) for channel in image])


def rescale_nonzero(channel: np.ndarray, intensity: Intensity) -> np.ndarray:
    """One channel (D, H, W): what is 0 stays 0, and nothing else becomes 0, so the brain can still be recognised."""
    inside = channel != 0
    if not inside.any():
        return channel
    low, high = np.percentile(channel[inside], [intensity.low, intensity.high]).astype(np.float32)
    return np.where(inside, np.clip((channel - low) / np.maximum(high - low, 1e-6), FAINTEST, 1), np.float32(0))


def _regrid(array: np.ndarray, affine: np.ndarray, spacing: tuple[float, ...], mode: str) -> tuple:
    """Voxels (C, D, H, W) and affine in RAS at the spacing."""
    set_track_meta(True)
    tensor = MetaTensor(torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32)), affine=torch.tensor(affine))
    tensor = mt.Orientation("RAS", labels=None)(tensor)
    if mode == "bilinear":
        tensor = low_pass(tensor, spacing)
    out = mt.Spacing(pixdim=spacing, mode=mode, padding_mode="border")(tensor)
    return out.array.astype(np.float32), out.affine.numpy().astype(float)


def low_pass(image: MetaTensor, spacing: Sequence[float]) -> MetaTensor:
    """The image (C, D, H, W) in RAS, smoothed before it is subsampled to this spacing (mm), against aliasing."""
    factors = np.asarray(spacing) / image.pixdim.numpy()
    sigmas = np.where(factors > 1.2, 0.4 * factors, 0)
    if not sigmas.any():
        return image
    smooth = np.stack([gaussian_filter(channel, sigmas) for channel in image.numpy()])
    return MetaTensor(torch.from_numpy(smooth), meta=image.meta)


def _body_box(image: np.ndarray) -> tuple[slice, ...]:
    """The smallest box around all voxels above 0; the whole volume where there are none."""
    boxes = find_objects((image > 0).any(0).astype(np.uint8))
    return boxes[0] if boxes else tuple(slice(0, n) for n in image.shape[1:])


def augmentation(grid: Grid | None = None) -> Callable[[dict, int], dict]:
    """Random changes for fine-tuning crops: small rotation and scaling, contrast, brightness, noise. No flips, since
    left and right differ in anatomy.

    The rotation is one of voxels. Where they are no cubes it shears, so in a plane whose spacings (of the `grid`)
    differ the largest angle is smaller by their ratio. With `fit` each volume has its own spacing: no limit.

    Returns a function (crop dict, seed) -> crop dict.
    """
    spacing = (1, 1, 1) if grid is None or grid.fit else grid.spacing
    planes = [spacing[:axis] + spacing[axis + 1 :] for axis in range(3)]  # across each axis of rotation
    ranges = {"rotate_range": [0.15 * (min(plane) / max(plane)) for plane in planes], "scale_range": [0.1] * 3}
    keys, modes = ["image", "label"], ["bilinear", "nearest"]
    turned = mt.RandAffined(keys, prob=0.5, **ranges, mode=modes, padding_mode="border")
    brightness = mt.RandScaleIntensityd("image", factors=0.15, prob=0.5)
    contrast = mt.RandAdjustContrastd("image", gamma=(0.8, 1.25), prob=0.3)
    chain = mt.Compose([turned, brightness, contrast, mt.RandGaussianNoised("image", prob=0.3, std=0.03)])

    def augment(crop: dict, seed: int) -> dict:
        set_track_meta(False)  # a crop has no affine to keep track of: 2.7 times faster
        return chain.set_random_state(seed=seed)(crop)

    return augment
