"""From a saved network to label maps: everything a prediction needs travels with the weights."""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
from torch import nn

from ssl_utils.data import formats, volumes
from ssl_utils.data.dataset import Dataset, Grid, Intensity
from ssl_utils.data.transforms import preprocess
from ssl_utils.data.volumes import Volume
from ssl_utils.errors import CourseError
from ssl_utils.experiments import scales
from ssl_utils.experiments.setups import Setup
from ssl_utils.networks import build, checkpoints
from ssl_utils.networks.interface import SegmentationNetwork
from ssl_utils.segmentation import inference
from ssl_utils.training.loop import device


def predict_case(where: Setup, network: nn.Module, image: Volume) -> np.ndarray:
    """Label map (D, H, W) uint8 of label values on the voxels of `image`; for regions bool (K, D, H, W)."""
    done = preprocess(image, None, grid=where.grid, intensity=where.dataset.intensity)
    mean, std = done.moments()
    regions = where.dataset.regions is not None
    logits = inference.predict_logits(
        network, (done.image - mean) / std, roi=where.grid.roi, overlap=where.scale.overlap
    )
    decided = inference.to_original(
        logits, affine=done.affine, target_affine=image.affine, target_shape=image.shape, regions=regions
    )
    return decided if regions else np.asarray(sorted(where.dataset.labels), dtype=np.uint8)[decided]


def save_network(path: Path, network: SegmentationNetwork, where: Setup, *, init: str) -> None:
    """Weights with everything a prediction needs: architecture, grid, intensity rule, labels, licence of the data."""
    dataset = where.dataset
    about = {
        "architecture": network.config,
        "grid": asdict(where.grid),
        "intensity": asdict(dataset.intensity),
        "channels": dataset.channels,
        "labels": dataset.labels,
        "regions": dataset.regions,
        "overlap": where.scale.overlap,
    }
    meta = {"course": json.dumps(about), "init": init, "dataset": dataset.name, "data_licence": dataset.licence}
    checkpoints.save_model(path, network, metadata=meta)


def predict(
    model: Path, images: Sequence[Path], output: Path, progress: Callable[[int, int], None] | None = None
) -> list[Path]:
    """Segment volumes with a saved model; each result is a NIfTI file with the shape and affine of its image.

    Raises:
        CourseError: a file cannot be read, the model was not saved by this package, or a result would overwrite an
            image or another result.
    """
    targets = _targets(images, output)
    network, where = load_saved(model)
    written = []
    for done, (path, target) in enumerate(zip(images, targets, strict=True)):
        image = volumes.read_image(path, channels=len(where.dataset.channels))
        found = predict_case(where, network.to(device()), image)
        if where.dataset.regions:  # one file: later (smaller) regions overwrite earlier ones
            found = np.max([np.where(m, k + 1, 0) for k, m in enumerate(found)], axis=0).astype(np.uint8)
        volumes.write_nifti(target, found, image.affine)
        written.append(target)
        if progress:
            progress(done + 1, len(images))
    return written


def load_saved(model: Path) -> tuple[SegmentationNetwork, Setup]:
    """The network of a model.safetensors, and the setup it was trained in, both from what the file says of itself.

    Raises:
        CourseError: it does not say so, does not fit what it says, or holds weights that are not finite.
    """
    weights, meta = checkpoints.read(model)
    if "course" not in meta:
        raise CourseError(
            f"{model}: does not say how it was made; use a model.safetensors written by a fine-tuning run"
        )
    try:
        about = json.loads(meta["course"])
        network = build(about["architecture"])
        network.load_state_dict(weights)
        where = _setup_of(about)
    except (AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise CourseError(f"{model}: its weights are not what it says ({reason}); fetch or train it again") from None
    if odd := next((name for name, value in weights.items() if not value.isfinite().all()), None):
        raise CourseError(f"{model}: {odd} holds NaN or infinity; the training diverged, repeat it")
    return network, where


def _targets(images: Sequence[Path], output: Path) -> list[Path]:
    targets: dict[Path, Path] = {}
    for image in images:
        nifti = (formats.suffix(image) or "").lower() in formats.NIFTI
        target = output / (image.name if nifti else f"{formats.stem(image)}.nii.gz")
        if target.resolve() == image.resolve():
            raise CourseError(f"{image}: its label map would overwrite it; choose another --output folder")
        if target in targets:
            raise CourseError(f"{image}: its label map would overwrite that of {targets[target]}; rename one of them")
        targets[target] = image
    return list(targets)


def _setup_of(about: dict) -> Setup:
    grid = Grid(tuple(about["grid"]["spacing"]), tuple(about["grid"]["roi"]), about["grid"].get("fit", False))
    dataset = Dataset(
        name="from_file",
        title="",
        source="",
        licence="",
        channels=tuple(about["channels"]),
        labels={int(k): v for k, v in about["labels"].items()},
        regions=about["regions"],
        intensity=Intensity(**about["intensity"]),
        grids={"coarse": grid},
        folders=(),
    )
    return Setup(dataset, replace(scales.get("smoke"), grid="coarse", overlap=about["overlap"]))
