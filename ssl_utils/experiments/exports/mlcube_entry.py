"""What the container runs: `infer`, as MedPerf and MLCube call it, and `check`, for its results.

    python mlcube.py infer --data_path DATA --parameters_file parameters.yaml --output_path PREDICTIONS
    python mlcube.py check --data_path DATA --output_path PREDICTIONS

DATA has a folder for each case, `<ID>/<ID>-<channel>.nii.gz`; its label map is `PREDICTIONS/<ID>.nii.gz`. The channels
follow from the names of the files. The export `mlcube` copies this file as it is.
"""

import argparse
import importlib
import re
import sys
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import yaml
from monai.bundle import ConfigParser, ConfigWorkflow
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError

BUNDLE = Path(__file__).resolve().parent / "bundle"
sys.path.insert(1, str(BUNDLE))
STEPS = next((path.stem for path in BUNDLE.glob("ssl_steps_*.py")), "")
VOLUMES = Path("/mlcommons/volumes")  # where MedPerf mounts them
DEFAULTS = {
    "data_path": VOLUMES / "data",
    "parameters_file": VOLUMES / "parameters" / "parameters_file.yaml",
    "output_path": VOLUMES / "predictions",
}


def infer(data_path: Path, parameters_file: Path, output_path: Path) -> None:
    """Write a label map for every case. Raises ValueError in one line when the data are not as they should be."""
    ssl_steps = importlib.import_module(STEPS)
    path = BUNDLE / "configs" / "inference.json"
    config = ConfigParser.load_config_file(path)
    changed = entries(parameters_file) if parameters_file.exists() else {}
    if unknown := sorted(map(str, {*changed} - {*config})):
        raise ValueError(f"{parameters_file}: {unknown[0]} is no entry of {path.name}; correct its name")
    for fault in faults_of_entries(changed, config):
        raise ValueError(f"{parameters_file}: {fault}")
    for fault in faults_of_images(ssl_steps.cases(str(data_path), config["endings"])):
        raise ValueError(fault)
    changed |= {"dataset_dir": str(data_path), "output_dir": str(output_path)}
    workflow = ConfigWorkflow(str(path), workflow_type="infer", logging_file=False, **changed)
    workflow.initialize()
    workflow.run()


def entries(path: Path) -> dict[str, Any]:
    """The entries of a YAML file. Raises ValueError in one line when it holds something else."""
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: is no YAML ({' '.join(str(error).split())}); correct it") from None
    if not isinstance(content, dict):
        raise ValueError(f"{path}: is a {type(content).__name__} and no entries such as overlap: 0.5; correct it")
    return content


def faults_of_entries(changed: Mapping[str, Any], config: Mapping[str, Any]) -> Iterator[str]:
    """A line for every value of another kind than the one that it replaces, and for an overlap outside 0 to 1."""
    for name, value in changed.items():
        if not replaces(value, config[name]):
            yield f"{name}: {value!r} is not of the kind of {config[name]!r}, which it replaces; correct it"
        elif name == "overlap" and not 0 <= value < 1:
            yield f"overlap: {value} is not in the range 0 to below 1; correct it"


def replaces(value: Any, default: Any) -> bool:
    """Whether a value is of the kind of the one that it replaces, as anything is for an expression of MONAI, `$...`."""
    if isinstance(default, int | float):
        return isinstance(value, int | float) and not isinstance(value, bool)
    if isinstance(value, list) and isinstance(default, list):  # of numbers, or expressions
        return len(value) == len(default) and all(map(replaces, value, default))
    return isinstance(value, type(default)) or (isinstance(default, str) and default.startswith("$"))


def opened(path: str | Path) -> Any:
    """An image whose voxels can be read. Raises ValueError in one line."""
    try:
        image = nib.load(path)
        np.asanyarray(image.dataobj)
    except (ImageFileError, HeaderDataError, EOFError, OSError, ValueError, zlib.error) as error:
        raise ValueError(f"{path}: cannot be read ({' '.join(str(error).split())}); replace it") from None
    return image


def faults_of_images(by_case: Mapping[str, Sequence[str]]) -> Iterator[str]:
    """A line for every channel that is not on the grid of the first one of its case."""
    for files in by_case.values():
        first, *others = map(opened, files)
        for path, other in zip(files[1:], others, strict=True):
            if difference := grids_differ(first, other):
                yield f"{path}: {difference} differs from that of {Path(files[0]).name}; resample it"


def grids_differ(one: Any, other: Any) -> str:
    """What differs of the grids of two images, if anything does: shape, or affine by more than 0.001 mm."""
    if one.shape != other.shape:
        return f"shape {other.shape}"
    return "" if np.allclose(one.affine, other.affine, rtol=0, atol=1e-3) else "affine"


def check(data_path: Path, output_path: Path) -> list[str]:
    """A line for everything that is wrong with the results: name, geometry, voxel type, label values."""
    ssl_steps = importlib.import_module(STEPS)
    interface = ConfigParser.load_config_file(BUNDLE.parent / "interface.json")
    by_case = ssl_steps.cases(str(data_path), interface["endings"])
    written = {path.name.removesuffix(".nii.gz"): path for path in output_path.glob("*.nii.gz")}
    faults = [f"{output_path / case}.nii.gz: is missing" for case in sorted({*by_case} - {*written})]
    faults += [f"{written[case]}: there is no case of this name" for case in sorted({*written} - {*by_case})]
    for case in sorted({*by_case} & {*written}):
        if not re.fullmatch(interface["names"], case):
            faults.append(f"{written[case]}: the name does not match {interface['names']}")
        try:
            image, result = opened(by_case[case][0]), opened(written[case])
        except ValueError as error:
            faults.append(str(error))
            continue
        if difference := grids_differ(image.slicer[..., 0] if image.ndim == 4 else image, result):
            faults.append(f"{written[case]}: {difference} is not that of its image")
        if not np.issubdtype(result.get_data_dtype(), np.integer):
            faults.append(f"{written[case]}: voxel type {result.get_data_dtype()} is not one of integers")
        if odd := sorted({*np.unique(result.dataobj).tolist()} - {*interface["values"]}):
            faults.append(f"{written[case]}: value {odd[0]} is not among {interface['values']}")
    return faults


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", nargs="?", choices=["infer", "check"], default="infer")
    for name, path in DEFAULTS.items():
        parser.add_argument(f"--{name}", type=Path, default=path)
    given = parser.parse_args(words)
    try:
        if given.task == "infer":
            infer(given.data_path, given.parameters_file, given.output_path)
        elif faults := check(given.data_path, given.output_path):
            sys.exit("\n".join(faults))
    except (OSError, ValueError) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
