"""Exports: others get the label maps of `predict`, and need not have this package."""

import sys
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from ssl_utils import experiments
from ssl_utils.data import volumes
from ssl_utils.experiments import Finetuning, exports, prediction, runs
from ssl_utils.files import write_json, write_text


class Blocked:
    """Refuses to import this project."""

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("ssl_utils", "course"):
            raise ModuleNotFoundError(name)


@pytest.fixture
def without_package(monkeypatch):
    """From here on nothing of this project can be imported; what a bundle imports is forgotten at the end."""

    def block():
        for name in [name for name in sys.modules if name.partition(".")[0] in ("ssl_utils", "course", "ssl_steps")]:
            monkeypatch.delitem(sys.modules, name)
        monkeypatch.setattr(sys, "meta_path", [Blocked(), *sys.meta_path])
        monkeypatch.setattr(sys, "path", [*sys.path])

    return block


def made(folder: Path, setup, network="unet") -> Path:
    """A finished run with untrained weights, whose answers are undecided: small differences show."""
    model, _ = experiments.build_network(setup, Finetuning(network=network))
    prediction.save_network(folder / "model.safetensors", model, setup, init="random")
    write_json(folder / "config.json", {})
    write_text(folder / "README.md", "# Its card\n")
    runs.finish(folder, {"dice": 0.5, "cases": 2})
    return folder


def run_bundle(bundle: Path, images: Path, output: Path) -> None:
    from monai.bundle import run

    config = bundle / "configs" / "inference.json"
    run(config_file=str(config), dataset_dir=str(images), output_dir=str(output), logging_file=False)


@pytest.mark.parametrize("network", ["unet", "unetr"])
def test_a_bundle_gives_the_label_maps_of_predict(tiny_setup, tmp_path, without_package, network):
    run = made(tmp_path / "run", tiny_setup, network)
    image = volumes.read_image(tiny_setup.datalist.test[0].image)
    turned = volumes.reorient(replace(image, affine=image.affine @ np.diag([1.7, 1, 2.3, 1])), "PIL")
    volumes.write_nifti(tmp_path / "images" / "case_1.nii.gz", turned.array[0], turned.affine)
    (expected,) = experiments.predict(
        run / "model.safetensors", [tmp_path / "images" / "case_1.nii.gz"], tmp_path / "e"
    )
    bundle = exports.FORMATS["bundle"](run, tmp_path / "bundle", licence="CC0-1.0")
    without_package()
    run_bundle(bundle, tmp_path / "images", tmp_path / "found")
    ours, theirs = nib.load(expected), nib.load(tmp_path / "found" / "case_1.nii.gz")
    assert np.array_equal(np.asarray(ours.dataobj), np.asarray(theirs.dataobj)) and len(np.unique(ours.dataobj)) > 1
    assert np.allclose(ours.affine, theirs.affine, atol=1e-4)
