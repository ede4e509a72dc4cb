"""The prediction of files by an exported bundle, against `predict`."""

import tempfile
from pathlib import Path

import nibabel as nib
import numpy as np
from monai.bundle import ConfigWorkflow

from benchmarks.race import race
from ssl_utils import experiments
from ssl_utils.data import datasets, phantom, volumes
from ssl_utils.experiments import Finetuning, Setup, exports, prediction, runs, scales
from ssl_utils.files import write_json, write_text


def bundle_prediction(*, repeats: int, scale: str = "laptop", spacing: float = 2.0) -> dict:
    """From a CT on disk to its label map on disk, with an untrained UNETR; `spacing` of the CT in mm."""
    setup = Setup(datasets.get("phantom"), scales.get(scale))
    with tempfile.TemporaryDirectory() as name:
        run, images = Path(name) / "run", Path(name) / "images"
        _write_run(run, setup)
        voxels, _, affine = phantom.make_volume(1, kind="abdomen", spacing=(spacing,) * 3)
        volumes.write_nifti(images / "ct.nii.gz", voxels, affine)
        bundle = exports.FORMATS["bundle"](run, Path(name) / "bundle")

        def own() -> None:
            experiments.predict(run / "model.safetensors", [images / "ct.nii.gz"], Path(name) / "ours")

        def theirs() -> None:
            config = str(bundle / "configs" / "inference.json")
            paths = {"dataset_dir": str(images), "output_dir": str(Path(name) / "theirs")}
            workflow = ConfigWorkflow(config, workflow_type="infer", logging_file=False, **paths)
            workflow.initialize()
            workflow.run()

        own(), theirs()
        one, two = (np.asarray(nib.load(Path(name) / side / "ct.nii.gz").dataobj) for side in ("ours", "theirs"))
        equality = f"{int((one != two).sum())} of {one.size} voxels differ"
        return race("bundle_prediction", own, theirs, equality=equality, repeats=repeats, unit="seconds a file")


def _write_run(folder: Path, setup: Setup) -> None:
    """A finished run without a training."""
    network, _ = experiments.build_network(setup, Finetuning())
    prediction.save_network(folder / "model.safetensors", network, setup, init="random")
    write_text(folder / "README.md", "# untrained\n")
    write_json(folder / "config.json", {})
    runs.finish(folder, {"dice": 0.0, "cases": 0})
