"""The two files of a bundle's `configs`: what is computed (inference.json), and what it is (metadata.json)."""

from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

from ssl_utils.data.dataset import Grid, Intensity
from ssl_utils.experiments.exports.finished_run import FinishedRun
from ssl_utils.experiments.setups import Setup

SCHEMA = "https://github.com/Project-MONAI/MONAI-extra-test-data/releases/download/0.8.1/meta_schema_20240725.json"
DEVICE = "$torch.device('cuda' if torch.cuda.is_available() else 'cpu')"
BORDER = {"padding_mode": "border"}


def inference(
    setup: Setup, *, target: dict[str, Any] | None, endings: Sequence[Sequence[str]], steps: str
) -> dict[str, Any]:
    """The content of inference.json.

    Args:
        target: class and arguments of the network; None: it is TorchScript.
        endings: as for `ssl_steps.cases`.
        steps: the name of the copy of `ssl_steps` in this bundle.
    """
    dataset, grid = setup.dataset, setup.grid
    return {
        "imports": ["$import pathlib", "$import torch", "$import numpy as np", f"$import {steps} as ssl_steps"],
        "bundle_root": "$str(pathlib.Path(ssl_steps.__file__).resolve().parent)",
        "dataset_dir": ".",
        "output_dir": "predictions",
        "device": DEVICE,
        "spacing": list(grid.spacing),
        "roi": list(grid.roi),
        "overlap": setup.scale.overlap,
        "endings": endings,
        "values": sorted(dataset.labels),
        "regions": {name: list(values) for name, values in (dataset.regions or {}).items()},
        "coding": {},
        **_network(target),
        "cases": "$ssl_steps.cases(@dataset_dir, @endings)",
        "preprocessing": _compose(preprocessing(grid, dataset.intensity)),
        "dataset": {
            "_target_": "Dataset",
            "data": "$[{'image': files} for files in @cases.values()]",
            "transform": "@preprocessing",
        },
        "dataloader": {"_target_": "DataLoader", "dataset": "@dataset", "batch_size": 1, "num_workers": 0},
        "inferer": {
            "_target_": f"{steps}.SlidingWindow",
            "roi_size": "@roi",
            "sw_batch_size": 4,
            "overlap": "@overlap",
            "mode": "gaussian",
            "sw_device": "@device",
            "device": "cpu",
        },
        "postprocessing": _compose(_postprocessing()),
        "evaluator": {
            "_target_": "SupervisedEvaluator",
            "device": "@device",
            "val_data_loader": "@dataloader",
            "network": "@network",
            "inferer": "@inferer",
            "postprocessing": "@postprocessing",
            "val_handlers": "@handlers",
        },
        "run": ["$@evaluator.run()"],
    }


def _compose(steps: list[dict[str, Any]]) -> dict[str, Any]:
    return {"_target_": "Compose", "transforms": steps}


def _step(name: str, keys: str | list[str] = "image", **arguments: Any) -> dict[str, Any]:
    return {"_target_": name, "keys": keys, **arguments}


def _network(target: dict[str, Any] | None) -> dict[str, Any]:
    if target is None:
        load = "$torch.jit.load(@bundle_root + '/models/model.ts', map_location=@device)"
        return {"network_def": load, "network": "@network_def", "handlers": []}
    loader = {
        "_target_": "CheckpointLoader",
        "load_path": "$@bundle_root + '/models/model.pt'",
        "load_dict": {"model": "@network"},
        "map_location": "@device",
    }
    return {"network_def": target, "network": "$@network_def.to(@device)", "handlers": [loader]}


def preprocessing(grid: Grid, intensity: Intensity) -> list[dict[str, Any]]:
    """`data.transforms.preprocess`, and the standardisation after it, as transforms of MONAI."""
    nonzero = intensity.kind == "nonzero"
    load = [_step("LoadImaged", ensure_channel_first=True), _step("Orientationd", axcodes="RAS", labels=None)]
    brain = [_step("CopyItemsd", names="brain"), _step("Lambdad", "brain", func="$ssl_steps.brain")] if nonzero else []
    return [
        *load,
        *brain,
        *_resampling(grid, nonzero),
        *([{"_target_": "MaskIntensityd", "keys": "image", "mask_key": "brain"}] if nonzero else []),
        _scaling(intensity),
        *_crop(grid, intensity),
        _step("SpatialPadd", spatial_size="@roi"),
        _step("Lambdad", func=f"$lambda image: ssl_steps.standardised(image, {nonzero})"),
    ]


def _resampling(grid: Grid, nonzero: bool) -> list[dict[str, Any]]:
    if grid.fit:
        brain = _step("Lambdad", "brain", func="$lambda brain: ssl_steps.fitted(brain, @roi, 'nearest')")
        return [_step("Lambdad", func="$lambda image: ssl_steps.fitted(image, @roi)"), *([brain] if nonzero else [])]
    smooth = _step("Lambdad", func="$lambda image: ssl_steps.low_pass(image, @spacing)")
    keys, modes = (["image", "brain"], ["bilinear", "nearest"]) if nonzero else ("image", "bilinear")
    return [smooth, _step("Spacingd", keys, pixdim="@spacing", mode=modes, **BORDER)]


def _scaling(intensity: Intensity) -> dict[str, Any]:
    low, high = intensity.low, intensity.high
    if intensity.kind == "window":
        return _step("ScaleIntensityRanged", a_min=low, a_max=high, b_min=0, b_max=1, clip=True)
    if intensity.kind == "nonzero":
        return _step("Lambdad", func=f"$lambda image: ssl_steps.scaled_brain(image, {low}, {high})")
    percentiles = {"lower": low, "upper": high, "b_min": 0, "b_max": 1, "clip": True, "channel_wise": True}
    return _step("ScaleIntensityRangePercentilesd", **percentiles)


def _crop(grid: Grid, intensity: Intensity) -> list[dict[str, Any]]:
    if grid.fit:  # rounding may have added a plane
        return [_step("SpatialCropd", roi_start=[0, 0, 0], roi_end="@roi")]
    if intensity.kind == "percentile":
        return []
    return [_step("CropForegroundd", source_key="image", select_fn="$ssl_steps.foreground", allow_smaller=True)]


def _postprocessing() -> list[dict[str, Any]]:
    call = "ssl_steps.in_file(logits, values=@values, regions=@regions, coding=@coding)"
    return [
        _step("Lambdad", "pred", func=f"$lambda logits: {call}"),
        _step(
            "SaveImaged",
            "pred",
            output_dir="@output_dir",
            output_ext=".nii.gz",
            output_dtype="$np.uint8",
            output_postfix="",
            separate_folder=False,
            resample=False,
            print_log=False,
            output_name_formatter="$ssl_steps.named(@cases)",
        ),
    ]


def metadata(run: FinishedRun, required: dict[str, str]) -> dict[str, Any]:
    """The content of metadata.json. `required`: package -> version, besides those of MONAI itself."""
    dataset, roi = run.setup.dataset, list(run.setup.grid.roi)
    names = dataset.regions or [dataset.labels[value] for value in sorted(dataset.labels)]
    crop = {"spatial_shape": roi, "dtype": "float32", "value_range": [], "is_patch_data": True}
    image = {"type": "image", "format": "magnitude", "num_channels": len(dataset.channels), **crop}
    logits = {"type": "image", "format": "segmentation", "num_channels": dataset.out_channels, **crop}
    return {
        "schema": SCHEMA,
        "version": "0.1.0",
        "changelog": {"0.1.0": "exported from a finished run"},
        "monai_version": version("monai"),
        "pytorch_version": version("torch").split("+")[0],
        "numpy_version": version("numpy"),
        "required_packages_version": required,
        "name": run.name,
        "task": f"Segmentation of 3D images: {', '.join(dataset.classes.values())}",
        "description": f"{run.network.config['network']} trained by ssl_utils on {run.name}",
        "authors": "see docs/README.md",
        "copyright": f"data: {run.licence}; configuration and code: Apache-2.0",
        "intended_use": "Research and teaching. Not a medical device, not for clinical use.",
        "eval_metrics": {"mean_dice": run.done["dice"], "cases": run.done["cases"]},
        "network_data_format": {
            "inputs": {"image": image | {"channel_def": {str(i): name for i, name in enumerate(dataset.channels)}}},
            "outputs": {"pred": logits | {"channel_def": {str(i): name for i, name in enumerate(names)}}},
        },
    }
