"""From saved weights to label maps; the file of the weights contains everything that a prediction needs."""

import json
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
from torch import nn

from ssl_utils.data import formats, marks, volumes
from ssl_utils.data.cases import Image
from ssl_utils.data.dataset import Dataset, Grid, Intensity
from ssl_utils.data.lists import nnunet, sequences
from ssl_utils.data.transforms import preprocess
from ssl_utils.data.volumes import Volume
from ssl_utils.errors import CourseError, CourseWarning
from ssl_utils.experiments import scales
from ssl_utils.experiments.model_card import joined
from ssl_utils.experiments.setups import Setup
from ssl_utils.networks import build, checkpoints
from ssl_utils.networks.interface import SegmentationNetwork
from ssl_utils.segmentation import axes, inference, metrics
from ssl_utils.training.devices import device


def predict_case(
    setup: Setup, network: nn.Module, image: Volume, *, all_axes: bool = False, flips: Sequence[str] = ()
) -> np.ndarray:
    """Label map (D, H, W) uint8 of label values on the voxels of `image`; for regions bool (K, D, H, W). `all_axes`:
    the mean over windows along all three axes (`axes.predict_along_axes`), for a network that reads slices; `flips`:
    the mean over flipped copies, along these axes of `inference.AXES`."""
    prepared = preprocess(image, None, grid=setup.grid, intensity=setup.dataset.intensity)
    mean, std = prepared.moments()
    crop = (prepared.image - mean) / std
    regions, sliding = setup.dataset.regions is not None, {"roi": setup.grid.roi, "overlap": setup.scale.overlap}
    if all_axes:
        logits = axes.predict_along_axes(network, crop, regions=regions, **sliding)
    elif flips:
        logits = inference.predict_flipped(network, crop, axes=flips, regions=regions, **sliding)
    else:
        logits = inference.predict_logits(network, crop, **sliding)
    channels = inference.to_original(
        logits, affine=prepared.affine, target_affine=image.affine, target_shape=image.shape, regions=regions
    )
    return channels if regions else np.asarray(sorted(setup.dataset.labels), dtype=np.uint8)[channels]


def save_network(path: Path, network: SegmentationNetwork, setup: Setup, *, init: str, sources: tuple = ()) -> None:
    """Weights with everything a prediction needs: architecture, grid, intensity rule, labels, licence of the data and
    of what the weights in the files `sources` have learnt from."""
    dataset = setup.dataset
    about = {
        "architecture": network.config,
        "grid": asdict(setup.grid),
        "intensity": asdict(dataset.intensity),
        "channels": dataset.channels,
        "labels": dataset.labels,
        "regions": dataset.regions,
        "mirrored": dataset.mirrored,
        "ignore": dataset.ignore,
        "overlap": setup.scale.overlap,
    }
    licences = (checkpoints.read_metadata(source).get("data_licence", "") for source in sources)
    meta = {"course": json.dumps(about), "init": init, "dataset": dataset.name}
    checkpoints.save_model(path, network, metadata=meta | {"data_licence": joined((dataset.licence, *licences))})


def predict(
    model: Path,
    images: Sequence[Path],
    output: Path,
    progress: Callable[[int, int], None] | None = None,
    *,
    overwrite: bool = False,
    flips: str | None = None,
    all_axes: bool = False,
) -> list[Path]:
    """Segment volumes with a saved model; each result is a NIfTI file with the shape and affine of its image.

    For a model with several channels, files CASE_0000.nii.gz, CASE_0001.nii.gz ... with one channel each are one image,
    and CASE.nii.gz is its result. `all_axes` as for `predict_case`; `flips`: axes joined by `+`, as in `left-right`.

    Raises CourseError when the dataset of the model does not allow a flip, a file cannot be read, the model was not
    saved by this package, or a result would overwrite an image, another result, or without `overwrite` any file that is
    not a result of an earlier call, or `output` holds the images. Warns of an image that cannot be in HU where the
    network expects them.
    """
    network, setup = load_saved(model)
    along = _allowed(flips, setup.dataset, model) if flips else ()
    if flips and all_axes:
        raise CourseError(f"flips={flips}: are not combined with all_axes; leave one of the two out")
    image_of = _targets(_cases(images, setup.dataset.channels), output)
    targets = list(image_of)
    if other := next((t for t in targets if t.exists() and not (overwrite or marks.is_predicted(t))), None):
        raise CourseError(f"{other}: is there and was not written by predict; choose another --output, or --overwrite")
    for done, (target, path) in enumerate(image_of.items(), 1):
        image = volumes.read_image(path, channels=len(setup.dataset.channels))
        if setup.dataset.intensity.kind == "window" and image.array.min() > -10:  # air and fat are below 0 HU
            why = f"is read in HU, and has no value below {image.array.min():.4g}"
            name = path[0] if isinstance(path, tuple) else path
            warnings.warn(f"{name}: {why}; apply slope and intercept (often -1024)", CourseWarning, stacklevel=2)
        label = predict_case(setup, network.to(device()), image, all_axes=all_axes, flips=along)
        if setup.dataset.regions:
            label = metrics.label_map(label, setup.dataset.regions)
        volumes.write_nifti(target, label, image.affine, mark=marks.mark_of(label))
        if progress:
            progress(done, len(targets))
    return targets


def _allowed(flips: str, dataset: Dataset, model: Path) -> list[str]:
    """The axes. Raises CourseError when a flipped volume of this dataset would be no patient's, or for another word."""
    for axis in flips.split("+"):
        if axis not in inference.AXES:
            raise CourseError(f"flips={flips}: unknown axis {axis}; choose of {', '.join(inference.AXES)}, joined by +")
        if axis not in dataset.mirrored:
            allowed = f"only {' and '.join(dataset.mirrored)}" if dataset.mirrored else "none"
            raise CourseError(f"flips={flips}: the dataset of {model} allows {allowed}; leave {axis} out")
    return flips.split("+")


def load_saved(model: Path) -> tuple[SegmentationNetwork, Setup]:
    """The network of a model.safetensors and the setup it was trained in, both from the metadata of the file. Raises
    CourseError when the metadata are missing or do not fit the weights, or the weights are not finite."""
    weights, meta = checkpoints.read(model)
    if "course" not in meta:
        raise CourseError(
            f"{model}: lacks the metadata of this package; use the model.safetensors of a fine-tuning run"
        )
    try:
        about = json.loads(meta["course"])
        network = build(about["architecture"])
        network.load_state_dict(weights)
        setup = _setup_of(about)
    except (AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise CourseError(f"{model}: weights and metadata do not fit ({reason}); fetch or train it again") from None
    if name := next((name for name, value in weights.items() if not value.isfinite().all()), None):
        raise CourseError(f"{model}: {name} contains NaN or infinity; the training diverged, repeat it")
    return network, setup


def _cases(images: Sequence[Path], channels: Sequence[str]) -> list[tuple[str, Image]]:
    """Names and images, channel files put together."""
    if len(channels) == 1:
        stems = [formats.stem(path) for path in images]
        first = all(stem.endswith("_0000") for stem in stems)  # as nnU-Net names them; its labels lack the number
        return [(stem.removesuffix("_0000") if first else stem, path) for stem, path in zip(stems, images, strict=True)]
    named = sequences.by_case(images, channels)
    images = [path for path in images if not any(path in files for files in named.values())]
    apart = [path for path in images if nnunet.is_channel(path) and volumes.count_channels(path) == 1]
    whole: list[tuple[str, Image]] = [(formats.stem(path), path) for path in images if path not in apart]
    return [*whole, *nnunet.by_case(apart, channels).items(), *named.items()]


def _targets(cases: Sequence[tuple[str, Image]], output: Path) -> dict[Path, Image]:
    targets: dict[Path, Image] = {}
    for name, image in cases:
        files = image if isinstance(image, tuple) else (image,)
        ending = formats.suffix(files[0]) or ""
        target = output / (name + (ending if ending.lower() in formats.NIFTI else ".nii.gz"))
        if target.resolve() in [file.resolve() for file in files]:
            raise CourseError(f"{files[0]}: its label map would overwrite it; choose another --output folder")
        if output.resolve() in [file.parent.resolve() for file in files]:
            why = "holds the images, and label maps beside them would be read as images"
            raise CourseError(f"{output}: {why}; choose another --output folder")
        if target in targets:
            raise CourseError(f"{files[0]}: its label map would overwrite another, {target}; rename one of them")
        targets[target] = image
    return targets


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
        mirrored=tuple(about.get("mirrored", ())),
        ignore=about.get("ignore"),
        intensity=Intensity(**about["intensity"]),
        grids={"coarse": grid},
        folders=(),
    )
    return Setup(dataset, replace(scales.get("smoke"), overlap=about["overlap"]))
