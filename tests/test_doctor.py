import io
import json
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from faulty_files import DATA, FAULTY, nifti_bytes, real_oddities, write_faulty
from rich.console import Console
from scipy import ndimage

from ssl_utils.data import datalists, doctor, volumes
from ssl_utils.data.datalists import Case, Datalist
from ssl_utils.data.doctor import show as doctor_tables
from ssl_utils.data.doctor.findings import Facts, Finding, Report, gathered

RNG = np.random.default_rng(0)


def image_file(path: Path, shape=(8, 8, 8), affine=None, **voxels) -> Path:
    array = RNG.normal(100, 20, shape).astype(np.float32)
    for value in voxels.values():
        array[0, 0, 0] = value
    path.write_bytes(nifti_bytes(array, affine))
    return path


def label_file(path: Path, shape=(8, 8, 8), values=(0, 1), affine=None) -> Path:
    path.write_bytes(nifti_bytes(RNG.choice(values, shape).astype(np.uint8), affine))
    return path


@pytest.fixture
def healthy(tmp_path) -> Datalist:
    """Six pairs; each test makes one of them ill."""

    def case(number: int) -> Case:
        image, label = image_file(tmp_path / f"i{number}.nii"), label_file(tmp_path / f"l{number}.nii")
        return Case(f"i{number}", image, label, f"p{number}")

    cases = [case(number) for number in range(6)]
    sides = {"training": tuple(cases[:3]), "validation": tuple(cases[3:4]), "test": tuple(cases[4:])}
    return Datalist("n", labels={0: "background", 1: "organ"}, **sides)


def only(findings: list[Finding]) -> Finding:
    assert len(findings) == 1, [finding.line() for finding in findings]
    assert findings[0].reason and findings[0].cure and "\n" not in findings[0].line()
    return findings[0]


def test_a_healthy_list_has_no_findings(healthy):
    seen = []
    assert doctor.examine_datalist(healthy, roi=(8, 8, 8), progress=lambda *done: seen.append(done)) == []
    assert seen[-1] == (6, 6)


def test_a_finding_is_one_line():
    assert Finding("a.nii", "error", "is empty", "copy it again").line() == "a.nii: is empty; copy it again"


@pytest.mark.parametrize("name", FAULTY)
def test_a_faulty_file_is_one_finding(name, tmp_path):
    finding = only(doctor.examine([write_faulty(tmp_path)[name]]))
    assert finding.severity == "error" and finding.file == str(tmp_path / name)
    assert FAULTY[name][1] in finding.reason and finding.line().count("\n") == 0


def test_a_folder_is_searched_for_volumes(tmp_path):
    write_faulty(tmp_path)
    (tmp_path / ".hidden.nii").touch()
    (tmp_path / "notes.txt").touch()
    found = doctor.examine([tmp_path])
    slices = {"7106", "slice.dcm", "one_slice.dcm", "frames.dcm"}  # of a series one fault is named: its first file's
    files = set(FAULTY) - slices | {"7106"}
    assert {Path(finding.file).name for finding in found} == files
    (tmp_path / "none").mkdir()
    assert "contains no volume" in only(doctor.examine([tmp_path / "none"])).reason
    assert "no such file" in only(doctor.examine([tmp_path / "absent.nii"])).reason


@pytest.mark.parametrize("folder", ["labelsTr", "labelsTs", "labels", "Label"])
def test_files_in_a_label_folder_are_read_as_labels(tmp_path, folder):
    (tmp_path / folder).mkdir()
    image_file(tmp_path / folder / "a.nii")
    assert "whole number" in only(doctor.examine([tmp_path])).reason


@pytest.mark.parametrize("folder", ["unlabeled", "unlabelled", "labelled"])
def test_files_in_other_folders_are_read_as_images(tmp_path, folder):
    (tmp_path / folder).mkdir()
    image_file(tmp_path / folder / "a.nii")
    assert doctor.examine([tmp_path]) == []


def test_real_oddities_never_raise():
    found = doctor.examine(real_oddities())  # none where the collection is not there
    assert all(finding.reason and finding.cure and "\n" not in finding.line() for finding in found)
    assert not real_oddities() or {"error", "warning"} == {finding.severity for finding in found}


def broken_nan(d):
    image_file(d.training[0].image, a=np.nan)
    return "NaN"


def broken_shape(d):
    label_file(d.training[0].label, shape=(8, 8, 7))
    return "shape 8x8x7 differs"


def broken_affine(d):
    label_file(d.training[0].label, affine=np.diag([1.0, 1, 2, 1]))
    return "affine differs"


def broken_value(d):
    label_file(d.training[0].label, values=(0, 1, 7))
    return "value 7"


def broken_channels(d):
    image_file(d.training[0].image, shape=(8, 8, 8, 2))
    return "4D with 2"


def broken_truncation(d):
    d.training[0].image.write_bytes(d.training[0].image.read_bytes()[:-9])
    return "truncated"


def broken_missing(d):
    d.training[0].label.unlink()
    return "is missing"


def broken_copy(d):
    affine = np.diag([1.0, 1, 1, 1])
    affine[:3, 3] = 1e-3  # other bytes, same voxels
    voxels = np.frombuffer(d.training[0].image.read_bytes()[352:], np.float32).reshape((8, 8, 8), order="F")
    d.test[0].image.write_bytes(nifti_bytes(voxels, affine))
    return "same voxels as that of i0"


@pytest.mark.parametrize(
    "harm",
    [
        broken_nan,
        broken_shape,
        broken_affine,
        broken_value,
        broken_channels,
        broken_truncation,
        broken_missing,
        broken_copy,
    ],
)
def test_one_planted_fault_is_one_error(healthy, harm):
    word = harm(healthy)
    finding = only(doctor.examine_datalist(healthy))
    assert finding.severity == "error" and word in finding.reason


def test_faults_of_the_list_itself_are_errors(healthy):
    bare = replace(healthy.training[1], label=None)
    finding = only(doctor.examine_datalist(replace(healthy, training=(healthy.training[0], bare))))
    assert "without a label" in finding.reason and finding.file == "i1"
    shared = replace(healthy.test[0], patient="p0")
    finding = only(doctor.examine_datalist(replace(healthy, test=(shared,))))
    assert "patient p0 is in pool (i0) and test (i4)" in finding.reason and finding.severity == "error"
    finding = only(doctor.examine_datalist(replace(healthy, training=healthy.training[:1] * 2)))
    assert "listed 2 times" in finding.reason


def test_a_leak_among_images_without_labels_is_an_error_too(healthy):
    def bare(case, patient):
        return replace(case, label=None, patient=patient)

    images = Datalist("n", training=(bare(healthy.training[0], "p"),), validation=(bare(healthy.training[1], "p"),))
    assert only(doctor.examine_datalist(images)).severity == "error"


def test_an_empty_label_and_a_constant_image_are_warnings(healthy):
    label_file(healthy.training[0].label, values=(0,))
    finding = only(doctor.examine_datalist(healthy))
    assert finding.severity == "warning" and "label is empty" in finding.reason
    label_file(healthy.training[0].label)
    healthy.training[0].image.write_bytes(nifti_bytes(np.full((8, 8, 8), 3, np.int16)))
    finding = only(doctor.examine_datalist(healthy))
    assert finding.severity == "warning" and "3 everywhere" in finding.reason


def test_a_volume_smaller_than_the_roi(healthy):
    assert doctor.examine_datalist(healthy, roi=(8, 10, 8)) == [], "a rim of padding is normal"
    assert {f.severity for f in doctor.examine_datalist(healthy, roi=(8, 32, 8))} == {"warning"}
    assert {f.severity for f in doctor.examine_datalist(healthy, roi=(8, 33, 8))} == {"error"}
    assert doctor.examine_datalist(healthy, roi=(16, 16, 16), spacing=(0.5, 0.5, 0.5)) == []
    assert len(doctor.examine_datalist(healthy, roi=(8, 8, 8), spacing=(1, 1, 2))) == 6


def test_many_equal_warnings_are_one_line_and_errors_never_are():
    padded = [Finding(f"case_{n}", "warning", f"covers {n}x8x8 voxels", "choose a smaller ROI") for n in range(81)]
    empty = [Finding(f"case_{n}", "warning", "its label is empty", "look at the file") for n in range(5)]
    broken = [Finding(f"case_{n}", "error", "is truncated", "copy it again") for n in range(7)]
    lines = [f"{finding.severity}: {finding.line()}{more}" for finding, more in gathered(padded + broken + empty)]
    assert lines[:7] == [f"error: case_{n}: is truncated; copy it again" for n in range(7)]
    assert lines[7] == "warning: case_0: covers 0x8x8 voxels; choose a smaller ROI (and 80 more like it)"
    assert lines[8:] == [f"warning: case_{n}: its label is empty; look at the file" for n in range(5)]


def test_the_roi_is_compared_along_ras_axes(tmp_path):
    turned = np.array([[0.0, 0, 1, 0], [1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 1]])  # axes A, S, R
    case = Case("a", image_file(tmp_path / "a.nii", shape=(10, 20, 30), affine=turned), None, "a")
    assert doctor.examine_datalist(Datalist("n", unlabeled=(case,)), roi=(30, 10, 20)) == []
    finding = only(doctor.examine_datalist(Datalist("n", unlabeled=(case,)), roi=(30, 10, 27)))
    assert "covers only 30x10x20" in finding.reason


def test_channels_and_regions_are_examined(tmp_path):
    case = Case(
        "a", image_file(tmp_path / "a.nii", (8, 8, 8, 4)), label_file(tmp_path / "l.nii", values=(0, 1, 2, 4)), "a"
    )
    labels = {0: "background", 1: "necrosis", 2: "edema", 4: "enhancing"}
    found = Datalist(
        "n",
        channels=("FLAIR", "T1", "T1c", "T2"),
        labels=labels,
        regions={"TC": (1, 4), "WT": (1, 2, 4)},
        training=(case,),
    )
    assert doctor.examine_datalist(found) == []
    assert "not 4D with 3 channels" in only(doctor.examine_datalist(replace(found, channels=("a", "b", "c")))).reason


def test_the_report_describes_every_case(healthy):
    rows = doctor.examine_datalist(healthy).cases
    assert [row.name for row in rows] == [f"i{number}" for number in range(6)]
    first = rows[0]
    assert first.side == "training" and first.shape == (8, 8, 8) and first.spacing == (1, 1, 1)
    assert first.orientation == "RAS" and first.stored == "float32" and first.least[0] < 100 < first.most[0]
    assert 0 < first.foreground * 512 < 512


def cohort_of(folder: Path, count=8, **odd) -> Datalist:
    """Smooth, different images with a ball of equal size; `odd` changes case 7."""
    cases = []
    for number in range(count):
        rng = np.random.default_rng(number)
        image = ndimage.zoom(rng.normal(100, 30, (5, 5, 5)), 4, order=3) + rng.normal(0, 1, (20, 20, 20))
        centre = rng.uniform(8, 12, 3)[:, None, None, None]
        label = (np.linalg.norm(np.indices((20,) * 3) - centre, axis=0) < 4).astype(np.uint8)
        change = odd if number == 7 else {}
        affine = np.diag([change.get("spacing", 1.0), 1, 1, 1])
        image, label = image * change.get("factor", 1), change.get("label", label)
        paths = folder / f"i{number}.nii", folder / f"l{number}.nii"
        for path, array in zip(paths, (change.get("image", image).astype(np.float32), label), strict=True):
            path.write_bytes(nifti_bytes(array, affine))
        cases.append(Case(f"case{number}", *paths, f"p{number}"))
    labels = {0: "background", 1: "ball"}
    return Datalist("n", labels=labels, training=tuple(cases[:6]), test=tuple(cases[6:]))


def test_cases_alike_are_no_finding_and_one_unlike_the_others_is_one(tmp_path):
    assert doctor.examine_datalist(cohort_of(tmp_path)) == []
    finding = only([f for f in doctor.examine_datalist(cohort_of(tmp_path, spacing=7.0)) if "spacing" in f.reason])
    assert finding.file == "case7" and "7 x 1 x 1 mm where 1 x 1 x 1 mm is usual" in finding.reason
    assert "intensities span" in only(doctor.examine_datalist(cohort_of(tmp_path, factor=500))).reason
    speck = np.zeros((20, 20, 20), np.uint8)
    speck[0, 0, 0] = 1
    assert "ball measures 0.001 ml" in only(doctor.examine_datalist(cohort_of(tmp_path, label=speck))).reason


def test_a_label_value_that_never_occurs_is_named(tmp_path):
    found = cohort_of(tmp_path)
    finding = only(doctor.examine_datalist(replace(found, labels={**found.labels, 2: "core"})))
    assert "value 2 (core) occurs in no label" in finding.reason


def test_a_crop_or_a_noisy_copy_on_another_side_is_a_leak(tmp_path):
    cohort_of(tmp_path)
    first = np.asarray(volumes.read_image(tmp_path / "i0.nii").array[0])
    crop = np.random.default_rng(9).normal(100, 30, first.shape)
    crop[:12, :, 5:] = first[8:, :, :15]  # moved, and with something else around it
    finding = only(doctor.examine_datalist(cohort_of(tmp_path, image=crop)))
    assert finding.severity == "error" and "shares voxels with case0 (training) though it is in test" in finding.reason
    noisy = 3 * first + 7 + np.random.default_rng(1).normal(0, 2, first.shape)
    finding = only(doctor.examine_datalist(cohort_of(tmp_path, image=noisy)))
    assert finding.severity == "warning" and "looks like case0 (training) though it is in test" in finding.reason


def test_a_volume_that_ends_in_air_is_examined(tmp_path):
    """The last part of it has no block that a sketch could keep."""
    voxels = np.full((70, 48, 48), -1000, np.int16)
    voxels[:30] = np.random.default_rng(0).integers(0, 100, (30, 48, 48))
    volumes.write_nifti(tmp_path / "air.nii.gz", voxels, np.eye(4))
    assert not [finding for finding in doctor.examine([tmp_path / "air.nii.gz"]) if finding.severity == "error"]


def test_what_a_header_leaves_open_is_a_warning(tmp_path):
    nifti = nib.Nifti1Image(RNG.normal(0, 50, (8, 8, 8)).astype(np.float32), np.eye(4))
    nifti.set_qform(np.eye(4), 0)
    nifti.set_sform(np.eye(4), 0)
    (tmp_path / "a.nii").write_bytes(nifti.to_bytes())
    assert "left and right cannot be told" in only(doctor.examine([tmp_path / "a.nii"])).reason
    nifti.set_sform(np.eye(4), 1)
    nifti.set_qform(np.diag([-1.0, 1, 1, 1]), 1)
    (tmp_path / "b.nii").write_bytes(nifti.to_bytes())
    assert "RAS (sform) and LAS (qform)" in only(doctor.examine([tmp_path / "b.nii"])).reason


def test_a_folder_in_msd_layout_is_examined_as_a_dataset(tmp_path):
    for folder in ("imagesTr", "labelsTr"):
        (tmp_path / folder).mkdir()
    for number in range(3):
        image_file(tmp_path / "imagesTr" / f"c{number}.nii", shape=(16, 16, 16))
        label_file(tmp_path / "labelsTr" / f"c{number}.nii", shape=(16, 16, 16 - (number == 1)))
    label_file(tmp_path / "labelsTr" / "stray.nii")
    (tmp_path / "imagesTr" / "d.mnc").touch()
    found = {Path(f.file).name: f for f in doctor.examine([tmp_path])}
    assert set(found) == {"c1.nii", "stray.nii", "d.mnc"}
    assert "shape 16x16x15" in found["c1.nii"].reason and found["stray.nii"].severity == "warning"


def test_the_report_goes_into_json_and_onto_the_screen(tmp_path):
    done = doctor.examine_datalist(cohort_of(tmp_path, factor=500))
    again = json.loads(json.dumps(done.record()))
    assert (again["errors"], again["warnings"], len(again["cases"])) == (0, 1, 8)
    assert again["cases"][0]["millilitres"]["1"] == pytest.approx(0.26, abs=0.03)
    console = Console(width=140, record=True, file=io.StringIO())
    for table in doctor_tables.tables(done):
        console.print(table)
    shown = console.export_text()
    assert "case7" in shown and "intensities span" in shown and "20 x 20 x 20" in shown and " ml" in shown


def test_many_cases_are_shown_together():
    def case(n: int) -> Facts:
        facts = {"shape": (n, 20, 30), "spacing": (1.0, 1.0, 2.0), "orientation": "RAS" if n else "LPS"}
        facts |= {"low": (0.0,), "high": (100.0 + n,), "most": (200.0,), "stored": "int16"}
        return Facts(f"case{n}", **facts, **({"millilitres": {1: float(n)}, "foreground": n / 100} if n % 2 else {}))

    few, many = Report(), Report()
    few.cases, many.cases, many.labels = [case(n) for n in range(12)], [case(n) for n in range(13)], {1: "ball"}
    assert len([*doctor_tables.tables(few)]) == 1
    (table,) = doctor_tables.tables(many)
    rows = {str(name): numbers for name, *numbers in zip(*(column.cells for column in table.columns), strict=True)}
    assert rows["voxels right-left"] == ["0", "6", "12"] and rows["spacing head-foot (mm)"] == ["2", "2", "2"]
    assert rows["99th percentile"] == ["100", "106", "112"] and rows["maximum"] == ["200"] * 3
    assert rows["labelled share (%)"] == ["1", "6", "11"] and rows["ball (ml, in 6 cases)"] == ["1", "6", "11"]
    assert table.caption == "axes RAS (12), LPS (1); types int16 (13)"


def test_the_real_hippocampus_is_healthy_where_it_is():
    root = DATA / "hippocampus"
    found = datalists.read(Path(__file__).resolve().parents[1] / "json_files/hippocampus.json", root=root)
    findings = doctor.examine_datalist(found)
    if not root.is_dir():
        assert len(findings) == 440 and {f.severity for f in findings} == {"error"}
        return
    assert {f.severity for f in findings} == {"warning"} and len(findings) == 30, "one scanner's scale"
    assert all("intensities span" in f.reason and "848" in f.reason for f in findings)
