"""What would spoil a split, a label or a score without a word: it is refused, or named."""

import gzip
import os
from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest
from own_folder import ball, delete_pair, entry, image, own_folder, write_list, write_pair

from ssl_utils import experiments
from ssl_utils.data import cases, datalists, datasets, doctor, marks, volumes
from ssl_utils.data.lists import nnunet
from ssl_utils.errors import CourseError, CourseWarning
from ssl_utils.experiments import Finetuning, Setup, runs, scales, setups


def setup(root, **grid):
    return setups.setup(dataset="folder", scale=scales.get("smoke"), data=str(root), **grid)


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.setenv("SSL_RUNS_ROOT", str(tmp_path / "runs"))
    return own_folder(tmp_path / "data")


@pytest.mark.parametrize(("split", "severity"), [("training", "warning"), ("validation", "error"), ("test", "error")])
def test_what_a_network_has_predicted_is_no_reference(root, split, severity):
    volumes.write_nifti(root / "labelsTr/c1.nii.gz", ball(1), np.eye(4), mark=marks.mark_of(ball(1)))
    splits = {"training": [], "validation": [], "test": []}
    splits[split].append(entry("c1"))
    for number, members in enumerate(splits.values(), start=2):
        members += [entry(f"c{number}"), *([entry("c5")] if number == 2 else [])]
    write_list(root, **splits)
    found = [f for f in doctor.examine_folder(root) if "was written by predict" in f.reason]
    assert [(f.file, f.severity) for f in found] == [("c1", severity)] and f"it is in {split}" in found[0].reason
    if severity == "error":
        with pytest.raises(CourseError, match="c1: its label was written by predict"):
            setup(root)


def test_a_corrected_prediction_is_a_reference_again_and_a_damaged_file_ends_nothing(root):
    path = root / "labelsTr/c1.nii.gz"
    volumes.write_nifti(path, ball(1), np.eye(4), mark=marks.mark_of(ball(1)))
    image = nib.load(path)
    assert marks.is_predicted(path) and len(image.header["descrip"].item()) < 80
    nib.save(nib.Nifti1Image(ball(1).astype(np.float32), np.eye(4), image.header), path)  # stored otherwise
    assert marks.is_predicted(path)
    nib.save(nib.Nifti1Image(ball(2), np.eye(4), image.header), path)  # by an expert, who kept the header
    assert not marks.is_predicted(path)
    content = bytearray(nib.Nifti1Image(ball(1), np.eye(4)).to_bytes())
    content[70:72] = b"\0\0"  # no type of voxels
    (root / "labelsTr/c2.nii.gz").write_bytes(gzip.compress(bytes(content)))
    assert not marks.is_predicted(root / "labelsTr/c2.nii.gz")
    assert [f.file for f in doctor.examine_folder(root) if f.severity == "error"] == [str(root / "labelsTr/c2.nii.gz")]


@pytest.mark.timeout(60)
def test_a_pipe_is_a_finding_and_not_waited_for(root):
    os.mkfifo(root / "imagesTr" / "c9.nii.gz")
    assert [f.reason for f in doctor.examine_folder(root) if "c9" in f.file] == ["is not a file"]


def test_a_grid_that_cannot_be_is_not_kept(root):
    with pytest.raises(CourseError, match="roi=7,7,7: no patch of two voxels or more fits; give it an even side"):
        setup(root, roi="7,7,7")
    assert not list(runs.runs_root().rglob("grid.json")) and setup(root).grid.roi != (7, 7, 7)


@pytest.mark.parametrize("name", ["dataset.json", "folds.json"])
def test_the_report_of_the_doctor_never_becomes_a_list(tmp_path, name):
    with pytest.raises(CourseError, match="is the name of a list of cases; choose another file for --json"):
        doctor.refuse_other_file(tmp_path / name)


@pytest.mark.parametrize("name", ["background", "Ignore"])
def test_a_region_takes_no_name_that_others_read_as_no_structure(root, name):
    write_list(root, regions={name: [1]})
    with pytest.raises(CourseError, match=f"a region is called {name}, the name of no structure"):
        datalists.as_listed(root)


def test_numbers_written_as_words_are_called_so(root):
    write_list(root, numTraining="7")
    assert [f.reason for f in doctor.examine_folder(root) if "numTraining" in f.reason] == [
        "numTraining is '7', not a whole number"
    ]
    with pytest.raises(CourseError, match="regions_class_order is not a list with one label value for each of the 2"):
        nnunet.check_order(["1", "2"], {"all": (1, 2), "core": (2,)}, root / "dataset.json")


def test_without_a_label_no_number_of_labels_is_proposed(root):
    unlabelled = [replace(case, label=None) for case in datalists.from_folder(root).all_cases()]
    with pytest.raises(CourseError, match=r"no training case has a label; add labels \(labelsTr\), or pretrain only"):
        cases.label_subset(unlabelled, 2)


def test_a_case_that_nobody_annotated_is_no_test_case(root, tiny_setup):
    for number in range(1, 8):
        label = ball(number) if number != 3 else np.full((32,) * 3, 2, np.uint8)
        delete_pair(root, f"c{number}")
        write_pair(root, f"c{number}", number, label=label)
    splits = {"training": ["c1", "c2"], "validation": ["c5"], "test": ["c3", "c4"]}
    listed = {split: [entry(name) for name in names] for split, names in splits.items()}
    write_list(root, **listed, labels={"background": 0, "ball": 1, "ignore": 2})
    small = Setup(datasets.get("folder", root), replace(tiny_setup.scale, finetune_steps=2))
    folder = experiments.finetune(small, Finetuning(init="random", num_labeled=2))
    assert runs.metrics(folder)["cases"] == 1


def test_a_scan_that_is_not_in_hu_is_named_where_it_is_segmented(tiny_setup, root):
    write_list(root, channels=["CT"])
    small = Setup(datasets.get("folder", root), replace(tiny_setup.scale, finetune_steps=1))
    model = experiments.finetune(small, Finetuning(init="random", num_labeled=2)) / "model.safetensors"
    right, wrong = root.parent / "right.nii.gz", root.parent / "wrong.nii.gz"
    volumes.write_nifti(right, image(1) - 200, np.eye(4))
    volumes.write_nifti(wrong, image(1) + 1024, np.eye(4))
    with pytest.warns(CourseWarning) as told:
        experiments.predict(model, [right, wrong], root.parent / "out")
    (line,) = (str(one.message) for one in told if one.category is CourseWarning)
    assert line.startswith(f"{wrong}: is read in HU, and has no value below 1")
