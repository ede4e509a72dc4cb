"""Exports: others get the label maps of `predict`, and need not have this package."""

import importlib.util
import re
import sys
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import yaml

from ssl_utils import experiments
from ssl_utils.data import volumes
from ssl_utils.data.dataset import Intensity
from ssl_utils.errors import CourseError
from ssl_utils.experiments import Finetuning, Setup, exports, prediction, runs
from ssl_utils.experiments.exports import mlcube
from ssl_utils.files import read_json, write_json, write_text


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


@pytest.fixture
def brain_setup(tiny_setup):
    """Four channels and three regions in the order and the coding of BraTS up to 2022."""
    regions = {"TC": (1, 4), "WT": (1, 2, 4), "ET": (4,)}
    dataset = replace(
        tiny_setup.dataset,
        channels=("FLAIR", "T1", "T1ce", "T2"),
        labels={0: "background", 1: "necrotic core", 2: "edema", 4: "enhancing tumour"},
        regions=regions,
        intensity=Intensity("nonzero", 1, 99),
        licence="CC-BY-4.0",
    )
    return Setup(dataset, tiny_setup.scale)


def write_brain(folder: Path, case: str, words: tuple[str, ...], shape=(26, 22, 24)) -> list[Path]:
    """Four channels of noise in a ball, zero outside, on a grid that is not the network's."""
    inside = np.linalg.norm(np.indices(shape) - np.reshape(shape, (3, 1, 1, 1)) / 2, axis=0) < 10
    paths = [folder / f"{case}-{word}.nii.gz" for word in words]
    for number, path in enumerate(paths):
        noise = np.random.default_rng(number).normal(100 + 50 * number, 20, shape)
        volumes.write_nifti(path, (noise * inside).astype(np.float32), np.diag([-0.9, -1, 1.1, 1]))
    return paths


def entry_of(cube: Path):
    spec = importlib.util.spec_from_file_location("mlcube_of_export", cube / "project" / "mlcube.py")
    entry = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(entry)
    return entry


def test_a_container_follows_the_names_and_the_coding_of_the_challenge(brain_setup, tmp_path, without_package, capsys):
    run, case = made(tmp_path / "run", brain_setup), "BraTS-GLI-00001-000"
    files = write_brain(tmp_path / "data" / case, case, ("t1c", "t1n", "t2f", "t2w"))  # not the network's order
    (expected,) = experiments.predict(run / "model.safetensors", files, tmp_path / "expected")
    cube = exports.FORMATS["mlcube"](run, tmp_path / "cube")
    for path in ("mlcube/mlcube.yaml", "container_config.yaml"):
        assert {*yaml.safe_load((cube / path).read_text())["tasks"]} == {"infer"}
    pinned = (cube / "project" / "requirements.txt").read_text().splitlines()
    assert all(re.fullmatch(r"[\w-]+==\d[\w.]+", line) for line in pinned) and len(pinned) > 5
    assert "torch==2" in (cube / "project" / "Dockerfile").read_text()
    without_package()
    entry, given = entry_of(cube), ["--data_path", str(tmp_path / "data"), "--output_path", str(tmp_path / "out")]
    entry.main(["infer", *given, "--parameters_file", str(cube / "mlcube" / "workspace" / "parameters.yaml")])
    ours, theirs = (np.asarray(nib.load(path).dataobj) for path in (expected, tmp_path / "out" / f"{case}.nii.gz"))
    assert np.array_equal(np.where(ours == 4, 3, ours), theirs) and (theirs == 3).any()
    entry.main(["check", *given])
    wrong = nib.load(tmp_path / "out" / f"{case}.nii.gz")
    volumes.write_nifti(tmp_path / "out" / f"{case}.nii.gz", np.full((26, 22, 23), 4, np.uint8), wrong.affine)
    volumes.write_nifti(tmp_path / "out" / "other.nii.gz", np.zeros((2, 2, 2), np.uint8), wrong.affine)
    with pytest.raises(SystemExit, match=r"no case of this name[\s\S]*shape .* not that of its image[\s\S]*value 4"):
        entry.main(["check", *given])
    volumes.write_nifti(files[3], np.zeros((26, 22, 23), np.float32), wrong.affine)
    with pytest.raises(SystemExit, match=r"t2w.nii.gz: shape \(26, 22, 23\) differs from that of"):
        entry.main(["infer", *given])
    files[3].unlink()
    with pytest.raises(SystemExit, match="has no file ending in t2w or t2; add it"):
        entry.main(["infer", *given])
    parameters = tmp_path / "parameters.yaml"
    parameters.write_text("{overlaps: 0.5}")
    with pytest.raises(SystemExit, match=r"overlaps is no entry of inference.json"):
        entry.main(["infer", *given, "--parameters_file", str(parameters)])


def test_a_huggingface_folder_loads_back_in_three_lines(tiny_setup, tmp_path, monkeypatch):
    run = made(tmp_path / "run", tiny_setup)
    folder = exports.FORMATS["huggingface"](run, tmp_path / "hub", licence="CC-BY-SA 4.0")
    card = (folder / "README.md").read_text()
    head = yaml.safe_load(card.split("---")[1])
    assert head["license"] == "cc-by-sa-4.0" and head["library_name"] == "ssl_utils"
    (lines,) = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    assert len(lines.splitlines()) == 3
    monkeypatch.chdir(folder)
    names: dict = {}
    exec(lines, names)
    assert read_json(folder / "config.json")["architecture"] == names["network"].config
    assert names["setup"].grid == tiny_setup.grid


@pytest.mark.parametrize("form", exports.FORMATS)
def test_what_cannot_be_exported_is_refused_in_one_line(tiny_setup, tmp_path, form):
    export, run = exports.FORMATS[form], made(tmp_path / "run", tiny_setup)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    for wrong, folder, licence, words in (
        (tmp_path / "full", tmp_path / "new", "CC0-1.0", "is no finished fine-tuning"),
        (run, tmp_path / "full", "CC0-1.0", "is not empty"),
        (run, tmp_path / "new", None, "nobody has stated the licence"),
    ):
        with pytest.raises(CourseError, match=words):
            export(wrong, folder, licence=licence)
    (run / "metrics.json").unlink()
    with pytest.raises(CourseError, match="is no finished fine-tuning"):
        export(run, tmp_path / "new", licence="CC0-1.0")
    assert not (tmp_path / "new").exists()


def test_labels_that_do_not_fit_the_challenge_are_refused(brain_setup, tiny_setup):
    dataset = brain_setup.dataset
    assert mlcube.coding_of(dataset) == {4: 3}
    decathlon = replace(
        dataset,
        labels={0: "background", 1: "edema", 2: "core", 3: "enhancing"},
        regions={"TC": (2, 3), "WT": (1, 2, 3), "ET": (3,)},
    )
    assert mlcube.coding_of(decathlon) == {1: 2, 2: 1} and mlcube.coding_of(tiny_setup.dataset) == {}
    for other in (replace(dataset, regions=None), replace(dataset, regions=dataset.regions | {"ET": (1, 4)})):
        with pytest.raises(CourseError, match="do not fit those of the challenge"):
            mlcube.coding_of(other)
    with pytest.raises(CourseError, match="channels MRI, mri: are told by the names"):
        mlcube.endings(("MRI", "mri"))
