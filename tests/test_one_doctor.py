"""The doctor is one: every door leads to the same findings, no file ends it, and every fix that it names works."""

import json
import re
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from commands import command
from faulty_files import dicom_slices, write_series
from own_folder import SIZE, ball, delete_pair, entry, image, own_folder, write_list, write_pair

from ssl_utils.data import doctor, volumes
from ssl_utils.data.formats import names
from ssl_utils.errors import CourseError
from ssl_utils.experiments import scales, setups
from ssl_utils.files import write_json


@pytest.fixture(autouse=True)
def own_runs(tmp_path, monkeypatch):
    monkeypatch.setenv("SSL_RUNS_ROOT", str(tmp_path / "runs"))


@pytest.fixture
def root(tmp_path) -> Path:
    return own_folder(tmp_path / "data")


def setup(root: Path) -> setups.Setup:
    return setups.setup(dataset="folder", scale=scales.get("laptop"), data=str(root))


# ---- one doctor


def ill(root: Path) -> Path:
    """Errors and warnings of the list, of files, of the cohort, and of what no case uses."""
    write_pair(root, "c1", 1, image=np.full((SIZE,) * 3, 7, np.float32))
    write_pair(root, "c2", 2, image=1000 * image(2))
    write_pair(root, "far", 9, label=None)
    (root / "imagesTr/c3.nii.gz").write_bytes(b"hello")
    (root / "imagesTr/odd.mnc").write_bytes(b"CDF")
    shutil.move(root / "labelsTr/c7.nii.gz", root / "labelsTr/C8.nii.gz")
    return root


def test_all_doors_lead_to_the_same_findings(root, tmp_path, monkeypatch):
    ill(root)
    lines, report = [], tmp_path / "report.json"
    for words in ([root], ["--dataset", "folder", "--data", root]):
        assert command(monkeypatch, "doctor", *words, "--json", report)[0] == 1
        lines.append([doctor.Finding(**finding).line() for finding in json.loads(report.read_text())["findings"]])
    chosen = setups.Setup(setups.datasets.get("folder", root), scales.get("laptop"))
    lines.append([finding.line() for finding in setups.examined(chosen)])
    assert lines[0] == lines[1] == lines[2] and len(lines[0]) >= 5
    errors = [finding.line() for finding in setups.examined(chosen) if finding.severity == "error"]
    refusal = f"error: {errors[0]} (and {len(errors) - 1} more; run the doctor)"
    own = ("--dataset", "folder", "--data", root)
    assert command(monkeypatch, "data", "folder", "--data", root) == (1, refusal)  # the first step of make course
    assert command(monkeypatch, "pretrain", "simmim", *own) == (1, refusal)
    assert command(monkeypatch, "finetune", "random", "--num-labeled", "1", *own) == (1, refusal)


def test_training_prints_warnings_and_reads_a_folder_once(root, monkeypatch, capsys):
    write_pair(root, "c1", 1, image=np.full((SIZE,) * 3, 7, np.float32))
    reads = []
    read = volumes.read_image
    monkeypatch.setattr(volumes, "read_image", lambda path, **more: reads.append(path) or read(path, **more))
    for _ in range(2):
        assert command(monkeypatch, "data", "folder", "--data", root) == (0, "")
        assert "warning: c1: its image is 7 everywhere; look at the file" in capsys.readouterr().out
    assert len(reads) == 7, "the second time from doctor.json"
    write_pair(root, "c1", 8)
    assert not setups.examined(setup(root)) and len(reads) == 14, "a file has changed"
    (root / "labelsTr/more.nrrd").write_bytes(b"NRRD0004")
    assert ["belongs to no case" in finding.reason for finding in setups.examined(setup(root))] == [True]


def test_an_unlabelled_folder_is_examined_and_has_its_errors_too(root, monkeypatch):
    shutil.rmtree(root / "labelsTr")
    assert doctor.examine_folder(root) == [] and len(doctor.examine_folder(root).cases) == 7
    (root / "imagesTr/c5.nii.gz").write_bytes(b"")
    assert "is empty" in command(monkeypatch, "pretrain", "mae", "--dataset", "folder", "--data", root)[1]


# ---- no file ends it, and each is visited once


def test_no_single_file_ends_the_doctor(root, monkeypatch):
    read = volumes.read_image

    def failing(path, **more):
        if path.name == "c2.nii.gz":
            raise OverflowError("an error\nthat nobody expected")
        return read(path, **more)

    monkeypatch.setattr(volumes, "read_image", failing)
    (root / "imagesTr/c1.nii.gz").write_bytes(b"")  # the first, from which channels and grid might be taken
    (root / "imagesTr/itself.nii.gz").symlink_to("itself.nii.gz")
    for report in (doctor.examine([root]), doctor.examine([root / "imagesTr"])):
        found = {Path(finding.file).name: finding for finding in report if finding.severity == "error"}
        assert {name.partition(".")[0] for name in found} == {"c1", "c2", "itself"}
        assert "OverflowError: an error that nobody expected" in found["c2.nii.gz"].reason
        assert "\n" not in found["c2.nii.gz"].line() and len(report.cases) >= 5


def test_a_folder_that_cannot_be_listed_is_a_finding(root, monkeypatch):
    (root / "imagesTr/shut").mkdir()
    listed = Path.iterdir

    def iterdir(path):
        if path.name == "shut":
            raise PermissionError(13, "Permission denied", str(path))
        return listed(path)

    monkeypatch.setattr(Path, "iterdir", iterdir)
    for report in (doctor.examine([root / "imagesTr"]), doctor.examine([root])):
        (finding,) = [finding for finding in report if finding.severity == "error"]
        assert finding.file.endswith("shut") and "Permission denied" in finding.reason and len(report.cases) >= 7


def test_every_file_is_visited_once_by_whatever_way(root):
    images = root / "imagesTr"
    (root / "again").symlink_to("imagesTr")
    assert len(doctor.examine([images, images, root / "again", images / "c1.nii.gz"]).cases) == 7
    (images / "up").symlink_to("..")
    assert len(doctor.examine([images]).cases) == len(names.volumes_in(root, deep=True)) == 14, "labels too"


def test_a_folder_that_cannot_be_split_is_examined_all_the_same(root):
    for name in ("c3", "c4", "c5", "c6", "c7"):
        delete_pair(root, name)
    write_pair(root, "c2", 2, label=np.zeros((SIZE,) * 3, np.uint8))
    reasons = [finding.reason for finding in doctor.examine_folder(root)]
    assert any("of 2 patients are there, 3 are needed" in reason for reason in reasons) and len(reasons) == 2
    assert any("label is empty" in reason for reason in reasons)


# ---- every channel


def test_every_channel_is_looked_at(root):
    def write(name, *channels):
        nib.save(nib.Nifti1Image(np.stack(channels, -1), np.eye(4)), root / f"imagesTr/{name}.nii.gz")

    for number in range(1, 8):
        write(f"c{number}", image(number), image(number + 20))
    assert doctor.examine_folder(root) == []
    write("c1", image(1), np.full((SIZE,) * 3, 3, np.float32))
    write("c2", image(2), ball(2).astype(np.float32))
    write("c3", image(3), 1000 * image(23))
    write("c4", image(4), np.where(image(24) > 100, np.float32(900), np.float32(-900)))
    write_list(root, channel_names={"0": "T1", "1": "CT"})
    write("c5", image(5), image(25).clip(0) + 1024)
    lines = [finding.line() for finding in doctor.examine_folder(root)]
    assert any(line.startswith("c1: channel 1 of its image is 3 everywhere") for line in lines)
    assert any(line.startswith("c2: channel 1 of its image has only whole numbers up to 20") for line in lines)
    assert any(line.startswith("c3: channel 1: its intensities span") for line in lines)
    assert any(
        line.startswith("c4: channel 1: the dataset's rule for intensities turns it into 0 or 1") for line in lines
    )
    assert any(line.startswith("c5: is called CT and has no value below") for line in lines)


# ---- every fix works: what is done to a healthy folder, what is said of it, and the fix


def thin(root: Path, slices: int, thickness: float, *names: str) -> None:
    for number, name in enumerate(names):
        array = (
            image(number + 40)[:, :, :slices] if slices <= SIZE else np.repeat(image(number + 40), 2, 2)[:, :, :slices]
        )
        write_pair(root, name, number, image=array, label=(array > 100).astype(np.uint8), spacing=(1, 1, thickness))


def with_roi(size: int):
    """A roi in the list, with the cases from the folders."""
    return lambda root: write_json(root / "dataset.json", {"labels": {"background": 0, "ball": 1}, "roi": [size] * 3})


def speck(size: int) -> np.ndarray:
    label = np.zeros((size,) * 3, np.uint8)
    label[1, 1, 1] = 1
    return label


ALL = ("c1", "c2", "c3", "c4", "c5", "c6", "c7")
FAR = 2000 + image(1)
OUTLIER, SPARSE = image(1), np.zeros((SIZE,) * 3, np.float32)
OUTLIER[0, 0, 0], SPARSE[:6, :6, :6] = 1e6, image(1)[:6, :6, :6]
SPLITS = {"training": [entry(n) for n in ALL[:4]], "validation": [entry("c5")], "test": [entry("c6")]}
HU = {"channels": ["CT"]}
BINARY = np.where(image(1) > 100, np.float32(900), np.float32(0))


def listed(**content):
    return lambda root: write_list(root, **content)


def pair(name="c1", number=1, **arrays):
    return lambda root: write_pair(root, name, number, **arrays)


def without(*names):
    return lambda root: [delete_pair(root, name) for name in names]


def both(*actions):
    return lambda root: [action(root) for action in actions]


def hu(shift: float, name: str):
    """CT; -1000 is air around it."""
    return lambda root: (
        [write_pair(root, n, i, image=10 * image(i) - 1000 + shift) for i, n in enumerate(ALL)]
        + [write_list(root, channels=[name])]
    )


def move(old: str, new: str):
    def action(root: Path) -> None:
        (root / new).parent.mkdir(parents=True, exist_ok=True)
        shutil.move(root / old, root / new)

    return action


def loose_slices(root: Path) -> None:
    write_series(root / "imagesTr", dicom_slices(image(30).astype(np.int16), np.eye(4)))


def series_in_its_folder(root: Path) -> None:
    for path in (root / "imagesTr").glob("*.dcm"):
        move(f"imagesTr/{path.name}", f"imagesTr/series/{path.name}")(root)


def header(**fields):
    def action(root: Path) -> None:
        nifti = nib.Nifti1Image(image(1), np.eye(4))
        nifti.set_qform(np.diag([fields.get("qform_x", 1.0), 1, 1, 1]), fields.get("code", 1))
        nifti.set_sform(np.eye(4), fields.get("code", 1))
        (root / "imagesTr/c1.nii.gz").unlink()
        (root / "imagesTr/c1.nii").write_bytes(nifti.to_bytes() + b"\0" * fields.get("more", 0))

    return action


def saved_again(root: Path) -> None:
    (root / "imagesTr/c1.nii").unlink()
    write_pair(root, "c1", 1)


def sessions(labelled: bool):
    def action(root: Path) -> None:
        for number, name in enumerate(ALL):
            write_pair(root, f"{name}_ses2", number + 60, **({} if labelled else {"label": None}))

    return action


def convert(root: Path) -> None:
    (root / "imagesTr/odd.mnc").unlink()
    write_pair(root, "odd", 50, label=None)


FIXES = {
    "its image .* is missing": (
        both(listed(**SPLITS), move("imagesTr/c1.nii.gz", "c1")),
        move("c1", "imagesTr/c1.nii.gz"),
    ),
    "is missing": (both(listed(**SPLITS), without("c1")), listed(**SPLITS | {"training": SPLITS["training"][1:]})),
    "without a label": (
        listed(training=["imagesTr/c1.nii.gz"], test=[entry("c2")]),
        listed(unlabeled=["imagesTr/c1.nii.gz"], training=[entry("c3")], test=[entry("c2")], validation=[entry("c4")]),
    ),
    "its patient A is in": (
        listed(**SPLITS | {"training": [entry("c1", patient="A")], "test": [entry("c2", patient="A")]}),
        listed(**SPLITS | {"training": [entry("c1", patient="A")], "test": [entry("c2", patient="B")]}),
    ),
    "is listed 2 times": (listed(training=[entry("c1"), entry("c1")], test=[entry("c2")]), listed(**SPLITS)),
    "format that is not supported": (lambda root: (root / "imagesTr/odd.mnc").write_bytes(b"CDF"), convert),
    "loose DICOM slices": (loose_slices, series_in_its_folder),
    "is 7 everywhere": (pair(image=np.full((SIZE,) * 3, 7, np.float32)), without("c1")),
    "label is empty": (pair(label=np.zeros((SIZE,) * 3, np.uint8)), without("c1")),
    "is a single slice": (lambda root: thin(root, 1, 1, "c1"), without("c1")),
    "whole numbers up to 20, like a label": (pair(image=ball(1)), pair()),
    "image has the same voxels": (pair("c9"), without("c9")),
    "label has the same voxels": (pair("c2", 2, label=ball(1)), pair("c2", 2)),
    "less than a quarter along an axis": (with_roi(160), with_roi(32)),
    "will be padded": (lambda root: thin(root, 20, 1, "c1"), without("c1")),
    "its spacing is 5 x": (pair(spacing=(5, 1, 1)), pair()),
    "its intensities span": (pair(image=1000 * image(1)), pair()),
    "its largest value": (pair(image=OUTLIER), pair(image=OUTLIER.clip(0, 250))),
    "percentile are both 0": (pair(image=SPARSE), pair(image=image(1)[:26, :26, :26], label=ball(1)[:26, :26, :26])),
    "rule for intensities turns it into 0 or 1": (pair(image=BINARY), without("c1")),
    "called CT and has no value below": (hu(1024, "CT"), hu(0, "CT")),
    "called CT and has": (hu(1024, "CT"), hu(1024, "T1")),
    "its values begin at": (pair(image=FAR), pair(image=FAR - 2000)),
    "measures .* ml where": (pair(label=speck(SIZE)), without("c1")),
    "of its voxels are labelled": (
        pair(image=image(1, 64), label=speck(64)),
        pair(image=image(1, 64)[:SIZE, :SIZE, :SIZE], label=speck(SIZE)),
    ),
    "occurs in no label": (listed(**SPLITS, labels={"1": "ball", "2": "cube"}), listed(**SPLITS)),
    "shares voxels with": (
        both(
            pair("c9", 9, image=image(1)[2:, 2:, 2:], label=ball(9)[2:, 2:, 2:]),
            listed(**SPLITS | {"test": [entry("c9")]}),
        ),
        both(without("c9"), listed(**SPLITS)),
    ),
    "looks like c1": (
        both(pair("c9", 9, image=3 * image(1) + 5), listed(**SPLITS | {"test": [entry("c9", patient="c1")]})),
        listed(**SPLITS | {"training": [*SPLITS["training"], entry("c9", patient="c1")]}),
    ),
    "belongs to no case": (
        move("labelsTr/c1.nii.gz", "labelsTr/C1.nii.gz"),
        move("labelsTr/C1.nii.gz", "labelsTr/c1.nii.gz"),
    ),
    "is a folder without a DICOM series": (
        move("imagesTr/c1.nii.gz", "imagesTr/one/c1.nii.gz"),
        both(move("imagesTr/one/c1.nii.gz", "imagesTr/c1.nii.gz"), lambda root: (root / "imagesTr/one").rmdir()),
    ),
    "is not used: other images of its patient": (sessions(labelled=False), sessions(labelled=True)),
    "patients are there, 3 are needed": (without(*ALL[2:]), pair("c3", 3)),
    "left and right cannot be told": (header(code=0), saved_again),
    "has two orientations": (header(qform_x=-1.0), saved_again),
    "bytes more than its header says": (header(more=9), saved_again),
    "voxels are NaN": (pair(image=np.full((SIZE,) * 3, np.nan, np.float32)), pair()),
    "label value 9 is not among": (
        both(pair(label=9 * ball(1)), listed(**SPLITS)),
        listed(**SPLITS, labels={"1": "ball", "9": "other"}),
    ),
    "differs from 32x32x32 of its image": (pair(label=ball(1)[:-1]), pair()),
    "not gzip-compressed": (
        lambda root: (
            volumes.write_nifti(root / "imagesTr/c1.nii", image(1), np.eye(4))
            or move("imagesTr/c1.nii", "imagesTr/c1.nii.gz")(root)
        ),
        move("imagesTr/c1.nii.gz", "imagesTr/c1.nii"),
    ),
    "split or merge it": (
        lambda root: nib.save(nib.Nifti1Image(np.stack([image(1)] * 2, -1), np.eye(4)), root / "imagesTr/c5.nii.gz"),
        pair("c5", 5),
    ),
}


@pytest.mark.parametrize("words", FIXES)
def test_every_fix_makes_its_finding_go_away(root, words):
    harm, fix = FIXES[words]
    assert doctor.examine_folder(root) == []
    harm(root)
    found = [finding for finding in doctor.examine_folder(root) if re.search(words, finding.line())]
    assert found and all(finding.cure and "\n" not in finding.line() for finding in found)
    fix(root)
    after = [finding.line() for finding in doctor.examine_folder(root)]
    assert not any(re.search(words, line) for line in after), after
    assert not doctor.examine_folder(root).errors, "the fix leaves no error behind"


def test_a_folder_without_volumes_names_what_may_be_in_it(root, tmp_path):
    (tmp_path / "none").mkdir()
    (finding,) = doctor.examine([tmp_path / "none"])
    assert "contains no volume" in finding.reason and doctor.examine([root / "imagesTr"]) == []


def test_every_command_that_an_error_names_is_there(monkeypatch, capsys):
    for words in (["data", "--help"], ["doctor", "--help"], ["predict", "--help"]):
        assert command(monkeypatch, *words)[0] == 0
    shown = capsys.readouterr().out
    assert all(option in shown for option in ("--json", "--data", "--scale", "--overwrite", "--channels"))
    with pytest.raises(CourseError, match="or --data /path"):
        setups.datasets.get("folder")
