"""The steps of preprocessing, inference and output that MONAI's transforms lack, for the configuration of a bundle.

`bundle` copies this file into every bundle, and below it what it imports from the package, which need not be installed
there.
"""

from __future__ import annotations

import re
import zlib
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch
from monai.data import MetaTensor
from monai.inferers import SlidingWindowInferer
from monai.transforms import Spacing
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError
from torch import Tensor

from ssl_utils.data.dataset import Intensity
from ssl_utils.data.transforms import Preprocessed, low_pass, rescale_brain
from ssl_utils.segmentation.inference import to_original
from ssl_utils.segmentation.metrics import label_map
from ssl_utils.training.devices import autocast

ENDING = re.compile(r"\.nii(\.gz)?$")


def cases(folder: str, endings: Sequence[Sequence[str]]) -> dict[str, list[str]]:
    """Case -> its files in the order of the network's channels, of all NIfTI files below a folder.

    `endings`: for each channel the last words that the name of its file may have: `0000`, or `t1c` and `t1ce`. A file
    that ends otherwise is an image of all channels. Raises ValueError when there is no file, a channel is missing, or
    such an image has another number of channels.
    """
    files = [path for path in sorted(Path(folder).rglob("*")) if ENDING.search(path.name)]
    if not files:
        raise ValueError(f"{folder}: contains no .nii.gz file; give the folder of the images")
    groups: dict[str, dict[int, str]] = defaultdict(dict)
    for path in files:
        name = ENDING.sub("", path.name)
        case, _, word = re.fullmatch(r"(?:(.*)([-_.]))?(.*)", name).groups()
        channel = next((i for i, words in enumerate(endings) if case and word.lower() in words), None)
        key, number = (name, -1) if channel is None else (case, channel)
        if number in groups[key]:
            raise ValueError(f"{path}: is the same channel of {key} as {groups[key][number]}; move one of them away")
        groups[key][number] = str(path)
    whole = len(endings) == 1 and any(-1 in group for group in groups.values())
    if whole:  # without a number in every name it is a part of the name
        return {ENDING.sub("", Path(file).name): [file] for group in groups.values() for file in group.values()}
    for case, group in groups.items():
        if -1 in group and channels_of(group[-1]) not in (None, len(endings)):
            why = f"is an image of {channels_of(group[-1])} channels by its name, and the network takes {len(endings)}"
            raise ValueError(f"{group[-1]}: {why}; move it away, or end its name in {endings[0][0]} and so on")
        if -1 not in group and len(group) < len(endings):
            lacking = [" or ".join(words) for i, words in enumerate(endings) if i not in group]
            raise ValueError(
                f"{next(iter(group.values()))}: its case {case} has no file ending in {lacking[0]}; add it"
            )
    return {case: [group[number] for number in sorted(group)] for case, group in groups.items()}


def channels_of(path: str) -> int | None:
    """The number of channels of an image file; None where it cannot be read, which is said later."""
    try:
        return (*nib.load(path).shape, 1)[3]
    except (ImageFileError, HeaderDataError, EOFError, OSError, zlib.error):
        return None


def named(by_case: Mapping[str, Sequence[str]]) -> Callable[[dict, Any], dict]:
    """For `SaveImaged`: a result is called after its case."""
    name_of = {files[0]: case for case, files in by_case.items()}
    return lambda meta, _: {"subject": name_of[str(meta["filename_or_obj"])], "idx": None}


def brain(image: MetaTensor) -> MetaTensor:
    """Where any channel of an image (C, D, H, W) without a skull is not 0: (1, D, H, W)."""
    return (image != 0).any(0, keepdim=True).float()


def fitted(image: MetaTensor, roi: Sequence[int], mode: str = "bilinear") -> MetaTensor:
    """An image (C, D, H, W) in RAS at the spacing at which its whole field of view fills the ROI (voxels)."""
    spacing = (np.array(image.shape[1:]) * image.pixdim.numpy() / roi).tolist()
    image = low_pass(image, spacing) if mode == "bilinear" else image
    return Spacing(pixdim=spacing, mode=mode, padding_mode="border")(image)


def scaled_brain(image: MetaTensor, low: float, high: float) -> MetaTensor:
    """Intensities to 0..1 by percentiles of the voxels of each channel that are not 0."""
    values = rescale_brain(image.numpy(), Intensity("nonzero", low, high))
    return MetaTensor(torch.from_numpy(values), meta=image.meta)


def foreground(image: Tensor) -> Tensor:
    """The voxels above 0; all voxels where there are none."""
    return image > 0 if (image > 0).any() else torch.ones_like(image, dtype=torch.bool)


def standardised(image: MetaTensor, nonzero: bool) -> MetaTensor:
    """Less the mean, divided by the standard deviation: of the volume, or of each channel's voxels that are not 0."""
    voxels = np.ascontiguousarray(image.numpy())  # in another order their sum is rounded otherwise
    mean, std = Preprocessed(voxels, None, np.eye(4), nonzero).moments()
    return MetaTensor(torch.from_numpy((voxels - mean) / std), meta=image.meta)


class SlidingWindow(SlidingWindowInferer):
    """In the precision of training, which is bfloat16 where the processor or the GPU multiplies it natively.

    TorchScript runs as it is: to optimise it takes two calls, as many as a volume may have.
    """

    def __call__(self, inputs: Tensor, network: Callable, *args: Any, **kwargs: Any) -> Any:
        with autocast(inputs.device.type), torch.jit.optimized_execution(False):
            return super().__call__(inputs, network, *args, **kwargs)


def in_file(
    logits: MetaTensor, *, values: Sequence[int], regions: Mapping[str, Sequence[int]], coding: Mapping[str, int]
) -> MetaTensor:
    """Logits (K, D, H, W) as label values (1, D, H, W) uint8 on the voxels of the file.

    `values`: of each class; `regions`: name -> label values, where they overlap, else empty; `coding`: label value ->
    the value to write instead.
    """
    affine, shape = logits.meta["original_affine"], [int(n) for n in logits.meta["spatial_shape"]]
    grids = {"affine": logits.affine.numpy(), "target_affine": np.asarray(affine, float), "target_shape": shape}
    classes = to_original(logits.as_tensor().cpu().float(), regions=bool(regions), **grids)
    labels = label_map(classes, regions) if regions else np.asarray(values, np.uint8)[classes]
    coded = np.arange(256, dtype=np.uint8)
    coded[[int(value) for value in coding]] = [*coding.values()]
    return MetaTensor(torch.from_numpy(coded[labels])[None], meta=logits.meta | {"affine": torch.as_tensor(affine)})
