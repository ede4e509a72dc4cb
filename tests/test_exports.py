"""Exports: others get the label maps of `predict`, and need not have this package."""

import importlib.util
import inspect
import os
import re
import shutil
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import jsonschema
import nibabel as nib
import numpy as np
import pytest
import torch
import yaml
from nnunet_packages import RESENC

from benchmarks import container
from ssl_utils import __main__ as cli, experiments
from ssl_utils.data import transforms, volumes
from ssl_utils.data.dataset import Grid, Intensity
from ssl_utils.errors import CourseError
from ssl_utils.experiments import Finetuning, Setup, exports, model_card, prediction, runs, scales
from ssl_utils.experiments.exports import bundle_config, finished_run, mlcube, ssl_steps, twins
from ssl_utils.files import read_json, write_json, write_text
from ssl_utils.networks import NETWORKS, network_class


class Blocked:
    """Refuses to import this project."""

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("ssl_utils", "course"):
            raise ModuleNotFoundError(name)


@pytest.fixture
def without_package(monkeypatch):
    """Call it, and until the end of the test nothing of this project can be imported."""

    def block():
        for name in [name for name in sys.modules if name.partition(".")[0] in ("ssl_utils", "course")]:
            monkeypatch.delitem(sys.modules, name)
        monkeypatch.setattr(sys, "meta_path", [Blocked(), *sys.meta_path])
        monkeypatch.setattr(sys, "path", [*sys.path])

    return block


def made(folder: Path, setup, network="unet") -> Path:
    """A finished run with untrained weights, whose answers are undecided: small differences show."""
    model, _ = experiments.build_network(setup, Finetuning(network=network))
    prediction.save_network(folder / "model.safetensors", model, setup, init="random")
    write_json(folder / "config.json", {})
    rows = f"| licence of the data | not stated: ask before |\n| settings | {model_card.SETTINGS} |\n"
    write_text(folder / "README.md", f"# Its card\n\n{rows}")
    runs.finish(folder, {"dice": 0.5, "cases": 2})
    return folder


def run_bundle(bundle: Path, images: Path, output: Path) -> None:
    from monai.bundle import run

    config = bundle / "configs" / "inference.json"
    run(config_file=str(config), dataset_dir=str(images), output_dir=str(output), logging_file=False)


@pytest.mark.parametrize("network", ["unet", "unetr"])
def test_a_bundle_gives_the_label_maps_of_predict(tiny_setup, tmp_path, without_package, network):
    run, other = made(tmp_path / "run", tiny_setup, network), made(tmp_path / "other", tiny_setup, "unet_plain")
    image = volumes.read_image(tiny_setup.datalist.test[0].image)
    turned = volumes.reorient(replace(image, affine=image.affine @ np.diag([1.7, 1, 2.3, 1])), "PIL")
    volumes.write_nifti(tmp_path / "images" / "case_1.nii.gz", turned.array[0], turned.affine)
    (expected,) = experiments.predict(
        run / "model.safetensors", [tmp_path / "images" / "case_1.nii.gz"], tmp_path / "e"
    )
    export = exports.FORMATS["bundle"]
    first, bundle = (export(one, tmp_path / one.name / "bundle", licence="CC0-1.0") for one in (other, run))
    without_package()
    run_bundle(first, tmp_path / "images", tmp_path / "first")  # two bundles in one process
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


def test_a_container_follows_the_names_and_the_coding_of_the_challenge(
    brain_setup, tmp_path, without_package, monkeypatch
):
    run, case = made(tmp_path / "run", brain_setup), "BraTS-GLI-00001-000"
    files = write_brain(tmp_path / "data" / case, case, ("t1c", "t1n", "t2f", "t2w"))  # not the network's order
    (expected,) = experiments.predict(run / "model.safetensors", files, tmp_path / "expected")
    cube = exports.FORMATS["mlcube"](run, tmp_path / "cube")
    assert "An ID ends in five digits, - and three digits" in (cube / "README.md").read_text()
    for path in ("mlcube/mlcube.yaml", "container_config.yaml"):
        assert {*yaml.safe_load((cube / path).read_text())["tasks"]} == {"infer"}
    pinned = (cube / "project" / "requirements.txt").read_text().splitlines()
    assert all(re.fullmatch(r"[\w-]+==\d[\w.]+", line) for line in pinned) and len(pinned) > 5
    steps = container.instructions((cube / "project" / "Dockerfile").read_text())  # what the dry run follows
    assert [kind for kind, _ in steps] == ["FROM", "ARG", "WORKDIR", "RUN", "COPY", "RUN", "COPY", "ENTRYPOINT"]
    assert steps[3][1].count("torch==2") == 2 and "requirements.txt" in steps[5][1]
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
    volumes.write_nifti(tmp_path / "out" / f"{case}.nii.gz", np.zeros((26, 22, 24), np.float32), wrong.affine)
    with pytest.raises(SystemExit, match="voxel type float32 is not one of integers"):
        entry.main(["check", *given])
    (tmp_path / "out" / f"{case}.nii.gz").write_bytes(b"broken")
    with pytest.raises(SystemExit, match=r"no case of this name.*\n.*BraTS-GLI-00001-000.nii.gz: cannot be read"):
        entry.main(["check", *given])
    comment, used = (cube / "mlcube" / "workspace" / "parameters.yaml").read_text().splitlines()[0], []

    class Watched(entry.ConfigWorkflow):
        def run(self):
            used.append(self.parser.get_parsed_content("inferer").overlap)

    with monkeypatch.context() as patch:
        patch.setattr(entry, "ConfigWorkflow", Watched)
        parameters = tmp_path / "parameters.yaml"
        parameters.write_text(comment.partition("For example: ")[2])
        entry.main(["infer", *given, "--parameters_file", str(parameters)])
    assert used == [0.5]
    volumes.write_nifti(files[3], np.zeros((26, 22, 23), np.float32), wrong.affine)
    with pytest.raises(SystemExit, match=r"t2w.nii.gz: shape \(26, 22, 23\) differs from that of"):
        entry.main(["infer", *given])
    files[3].write_bytes(b"broken")
    with pytest.raises(SystemExit, match=r"^error: .*t2w.nii.gz: cannot be read [^\n]*; replace it$"):
        entry.main(["infer", *given])
    mask = files[0].with_name(f"{case}-seg.nii.gz")
    volumes.write_nifti(mask, np.zeros((26, 22, 24), np.uint8), wrong.affine)
    with pytest.raises(SystemExit, match=r"^error: .*-seg.nii.gz: is an image of 1 channels by its name.* takes 4"):
        entry.main(["infer", *given])
    mask.unlink()
    files[3].unlink()
    with pytest.raises(SystemExit, match="has no file ending in t2w or t2; add it"):
        entry.main(["infer", *given])
    for text, words in (
        ("{overlaps: 0.5}", "overlaps is no entry of inference.json"),
        ("{overlap: 0.5", r"parameters.yaml: is no YAML \([^\n]*\); correct it$"),
        ("[overlap, 0.5]", "parameters.yaml: is a list and no entries such as overlap: 0.5"),
        ("{overlap: -1}", "overlap: -1 is not in the range 0 to below 1"),
        ("{overlap: much}", "overlap: 'much' is not of the kind of 0"),
        ("{overlap: null}", "overlap: None is not of the kind of 0"),
        ("{roi: [16, 16]}", r"roi: \[16, 16\] is not of the kind of \["),
        ("{roi: [16, 16, wide]}", r"roi: \[16, 16, 'wide'\] is not of the kind of \["),
        ("{roi: 16}", r"roi: 16 is not of the kind of \["),
        ("{output_dir: 3}", "output_dir: 3 is not of the kind of 'predictions'"),
    ):
        parameters.write_text(text)
        with pytest.raises(SystemExit, match=words):
            entry.main(["infer", *given, "--parameters_file", str(parameters)])
    assert entry.replaces(None, "$torch.device('cpu')") and entry.replaces([1, 2.5, 3], [1, 1, 1])
    far = nib.Nifti1Image(np.zeros((2, 2, 2), np.uint8), np.diag([1, 1, 1, 1.0]))
    other = nib.Nifti1Image(far.dataobj, far.affine.copy())
    for image, offset in ((far, 1000), (other, 1000.005)):
        image.affine[0, 3] = offset
    assert entry.grids_differ(far, other) == "affine" and not entry.grids_differ(far, far)


def test_a_huggingface_folder_loads_back_in_three_lines(tiny_setup, tmp_path, monkeypatch):
    run = made(tmp_path / "run", tiny_setup)
    folder = exports.FORMATS["huggingface"](run, tmp_path / "hub", licence="CC-BY-SA 4.0")
    card = (folder / "README.md").read_text()
    head = yaml.safe_load(card.split("---")[1])
    assert head["license"] == "cc-by-sa-4.0" and head["library_name"] == "ssl_utils"
    (lines,) = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    assert len(lines.splitlines()) == 3
    assert "| licence of the data | CC-BY-SA 4.0: name the source; share-alike" in card and "not stated" not in card
    assert "| settings | all of them in `config.json`, the curves in `history.csv` of the run, which stayed" in card
    monkeypatch.chdir(folder)
    names: dict = {}
    exec(lines, names)
    assert read_json(folder / "config.json")["architecture"] == names["network"].config
    assert names["setup"].grid == tiny_setup.grid


@pytest.mark.parametrize("form", sorted({*exports.FORMATS} - {"nnunet"}))  # that of a pretraining: test_nnunet.py
def test_what_cannot_be_exported_is_refused_in_one_line(tiny_setup, tmp_path, form):
    export, run = exports.FORMATS[form], made(tmp_path / "run", tiny_setup)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    for wrong, folder, licence, words in (
        (tmp_path / "full", tmp_path / "new", "CC0-1.0", "is no finished fine-tuning"),
        (run, tmp_path / "full", "CC0-1.0", "is not empty"),
        (run, tmp_path / "new", None, "nobody has stated the licence"),
        (run, tmp_path / "new", " ", "nobody has stated the licence"),
        (run, tmp_path / "full" / "file" / "new", "CC0-1.0", r"full/file/new: \S*/full/file is a file; choose another"),
    ):
        with pytest.raises(CourseError, match=words):
            export(wrong, folder, licence=licence)
    (run / "metrics.json").unlink()
    with pytest.raises(CourseError, match="is no finished fine-tuning"):
        export(run, tmp_path / "new", licence="CC0-1.0")
    assert not (tmp_path / "new").exists()


def test_a_known_licence_is_not_replaced(tmp_path):
    known = {"data_licence": "CC-BY 4.0"}
    assert finished_run.licence_of(tmp_path, known, None) == "CC-BY 4.0"
    assert finished_run.licence_of(tmp_path, known, " cc-by-4.0 ") == "CC-BY 4.0"
    with pytest.raises(CourseError, match=r"the licence of its data is CC-BY 4.0, not CC0-1.0; leave --licence out"):
        finished_run.licence_of(tmp_path, known, "CC0-1.0")
    partly = {"data_licence": "not stated + CC-BY 4.0"}
    assert finished_run.licence_of(tmp_path, partly, "CC-BY 4.0") == "CC-BY 4.0"
    assert finished_run.licence_of(tmp_path, partly, "CC0-1.0") == "CC-BY 4.0 + CC0-1.0"
    with pytest.raises(CourseError, match="nobody has stated"):
        finished_run.licence_of(tmp_path, partly, None)


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
    with pytest.raises(CourseError, match="channels MRI, mri: are recognised by the names"):
        mlcube.endings(("MRI", "mri"))


GRIDS = {"spacing": Grid((1.5, 1.0, 2.0), (16, 24, 8)), "fit": Grid((1.0, 1.0, 1.0), (16, 24, 8), fit=True)}
RULES = (Intensity("window", 20, 180), Intensity("percentile", 1, 99), Intensity("nonzero", 1, 99))


@pytest.mark.parametrize("intensity", RULES, ids=lambda rule: rule.kind)
@pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS)
@pytest.mark.parametrize("empty", [False, True], ids=["", "empty"])
def test_transforms_of_monai_prepare_a_volume_as_preprocess_does(tmp_path, monkeypatch, grid, intensity, empty):
    from monai.bundle import ConfigParser

    files = write_brain(tmp_path, "case", ("a", "b"))
    if empty:
        for file in files:
            volumes.write_nifti(file, np.zeros((26, 22, 24), np.float32), np.eye(4))
    image = volumes.reorient(volumes.read_image(tuple(files), channels=2), "LIP")
    for file, channel in zip(files, image.array, strict=True):
        volumes.write_nifti(file, channel, image.affine)
    prepared = transforms.preprocess(image, None, grid=grid, intensity=intensity)
    mean, std = prepared.moments()
    monkeypatch.setitem(sys.modules, "ssl_steps", ssl_steps)
    config = {"imports": ["$import ssl_steps"], "spacing": list(grid.spacing), "roi": list(grid.roi)}
    steps = {"_target_": "Compose", "transforms": bundle_config.preprocessing(grid, intensity)}
    parser = ConfigParser({**config, "steps": steps})
    found = parser.get_parsed_content("steps")({"image": [str(file) for file in files]})["image"]
    np.testing.assert_allclose(found.numpy(), (prepared.image - mean) / std, atol=2e-5)
    np.testing.assert_allclose(found.affine.numpy(), prepared.affine, atol=1e-4)


# mednext_m and _l are mednext_b with more blocks
@pytest.mark.parametrize("network", [*sorted({*NETWORKS} - {"mednext_m", "mednext_l", "resenc_unet"}), RESENC])
def test_every_network_has_a_twin_without_this_package(network):
    scale = {**asdict(scales.get("smoke")), "hidden_size": 24, "mlp_dim": 24, "num_layers": 2, "num_heads": 2}
    sizes = network_class(network).sizes({**scale, "feature_size": 4, "patch_size": 4})
    made, other = (network_class(network)(in_channels=1, out_channels=2, img_size=(8, 8, 12), **sizes) for _ in "ab")
    twin = twins.twin(made)  # compares them
    assert (twin.target is not None) == (network in ("unet", "mednext"))
    assert not any(type(part).__module__.startswith("ssl_utils") for part in twin.network.modules())
    with pytest.raises(CourseError, match=f"network='{network}': its export differs by"):
        twins.check_equal(other.eval(), twin.network, torch.randn(1, 1, 8, 8, 12))


def test_the_unetr_of_the_paper_is_that_of_monai():
    sizes = {"patch_size": 16, "feature_size": 4, "hidden_size": 24, "mlp_dim": 24, "num_layers": 12, "num_heads": 2}
    twin = twins.twin(network_class("unetr")(in_channels=1, out_channels=2, img_size=16, **sizes))
    assert twin.target["_target_"] == "UNETR" and type(twin.network).__module__.startswith("monai")


TENSOR = {"type": "string", "format": "string", "num_channels": "integer", "spatial_shape": "array"}
TENSOR |= {"dtype": "string", "value_range": "array", "is_patch_data": "boolean", "channel_def": "object"}
TEXT = ("schema", "version", "monai_version", "pytorch_version", "numpy_version", "task", "description", "authors")


def test_metadata_has_what_the_schema_of_monai_requires(tiny_setup, tmp_path):
    """The required keys and types of meta_schema_20240725; the whole schema is fetched by `verify_metadata`."""
    run = made(tmp_path / "run", tiny_setup)
    about = read_json(exports.FORMATS["bundle"](run, tmp_path / "b", licence="CC0-1.0") / "configs" / "metadata.json")
    tensor = {"type": "object", "required": [*TENSOR][:6]}
    tensor["properties"] = {name: {"type": kind} for name, kind in TENSOR.items()}
    io = {"type": "object", "required": ["inputs", "outputs"], "additionalProperties": {"additionalProperties": tensor}}
    required = {**{name: {"type": "string"} for name in (*TEXT, "copyright")}, "network_data_format": io}
    required["required_packages_version"] = {"type": "object"}
    jsonschema.validate(about, {"type": "object", "properties": required, "required": [*required]})
    assert about["network_data_format"]["inputs"]["image"]["spatial_shape"] == list(tiny_setup.grid.roi)
    assert about["network_data_format"]["outputs"]["pred"]["num_channels"] == tiny_setup.dataset.out_channels


def test_a_bundle_has_the_properties_that_programs_of_monai_look_for(tiny_setup, tmp_path, monkeypatch):
    from monai.bundle import ConfigWorkflow

    bundle = exports.FORMATS["bundle"](made(tmp_path / "run", tiny_setup), tmp_path / "b", licence="CC0-1.0")
    monkeypatch.syspath_prepend(str(bundle))
    images = {"dataset_dir": str(tiny_setup.datalist.test[0].image.parent)}
    config = str(bundle / "configs" / "inference.json")
    workflow = ConfigWorkflow(config, workflow_type="infer", logging_file=False, **images)
    workflow.initialize()
    assert workflow.check_properties() == []


@pytest.mark.long
def test_a_bundle_runs_from_another_folder_in_a_process_without_the_package(tiny_setup, tmp_path):
    run, image = made(tmp_path / "run", tiny_setup), tiny_setup.datalist.test[0].image
    (expected,) = experiments.predict(run / "model.safetensors", [image], tmp_path / "expected")
    bundle = exports.FORMATS["bundle"](run, tmp_path / "bundle", licence="CC0-1.0")
    for name in ("images", "elsewhere", "block"):
        (tmp_path / name).mkdir()
    shutil.copy(image, tmp_path / "images")
    hook = f"import sys\n\n\n{inspect.getsource(Blocked)}\n\nsys.meta_path.insert(0, Blocked())\n"
    hook += 'sys.modules["rfc3987_syntax"] = None\n'  # takes long to import, and no bundle needs it
    (tmp_path / "block" / "sitecustomize.py").write_text(hook)
    words = ["--config_file", bundle / "configs" / "inference.json", "--dataset_dir", tmp_path / "images"]
    result = subprocess.run(
        [sys.executable, "-m", "monai.bundle", "run", *words, "--output_dir", tmp_path / "found"],
        cwd=tmp_path / "elsewhere",
        env=os.environ | {"PYTHONPATH": str(tmp_path / "block")},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert result.returncode == 0, result.stderr
    found = nib.load(tmp_path / "found" / expected.name)
    assert np.array_equal(np.asarray(found.dataobj), np.asarray(nib.load(expected).dataobj))


def test_the_command_writes_a_format_and_names_those_there_are(tiny_setup, tmp_path, monkeypatch, capsys):
    words = ["ssl_utils", "export", str(made(tmp_path / "run", tiny_setup)), str(tmp_path / "hub"), "--licence", "MIT"]
    monkeypatch.setattr(sys, "argv", [*words, "--format", "onnx"])
    with pytest.raises(SystemExit, match="format='onnx': no such format; choose one of bundle, mlcube, huggingface"):
        cli.main()
    for form, card in (("huggingface", "README.md"), ("bundle", "docs/README.md")):
        words[3] = str(tmp_path / form)
        monkeypatch.setattr(sys, "argv", [*words, "--format", form])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        assert not stop.value.code and f"{form} in {tmp_path / form}: see its {card}\n" in capsys.readouterr().out
        assert (tmp_path / form / card).exists()
    assert "license: mit" in (tmp_path / "huggingface" / "README.md").read_text()
