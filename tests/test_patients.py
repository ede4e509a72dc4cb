"""Patients never cross splits: by the names of their files, by the list, and by what the files contain."""

import nibabel as nib
import numpy as np
import pytest
from faulty_files import nrrd_bytes
from own_folder import delete_pair, entry, image, own_folder, write_list, write_pair
from scipy import ndimage

from ssl_utils.data import datalists, datasets, doctor
from ssl_utils.data.doctor.show import tables
from ssl_utils.data.lists.patients import patients_of
from ssl_utils.errors import CourseError
from ssl_utils.experiments import pools, scales, setups


@pytest.mark.parametrize(
    ("names", "patients"),
    [
        ("case_7 case_007 Case-7 CASE7 case.07", 1),
        ("P1 P01 p001 P10 P100", 3),
        ("case_1_1 case_1_01 case_11 case_1_11", 3),
        ("Sub-01_ses-1 sub-01_ses-2 sub-1_T1w", 1),
        ("p01_T1 p01_flair p01_ct p01 p01_copy p01_copy_2 p02_T1", 2),
        ("scan_9 scan_9(1) scan_9_(1)", 2),
        ("site1_visit2_001 site1_visit2_002", 2),
        ("T1_001 T1_002 ct_003 CT_004", 4),
        ("patient001_frame01 patient001_frame12 patient001_4d patient002_frame01", 2),
        ("p1_2020-01-15 p1_2021-01-15 p1_15012020 p1_20200115T101500 p2_2020-01-15", 2),
        ("pat01_T0 pat01_T1 pat01_T2FLAIR pat01_pre pat01_post pat01_w0 pat01_w12 pat01_6mo", 1),
        ("s01_test s01_retest s01_ax s01_sag s01_arterial s01_venous s01__CT s01__PT", 1),
        ("OAS30001_MR_d0129 OAS30001_MR_d0757 OAS1_0001_MR1 OAS1_0001_MR2", 2),
        ("UPENN-GBM-00001_11 UPENN-GBM-00001_21 UPENN-GBM-00002_11", 2),
        ("002_S_0295_2006-04-18_1 002_S_0295_2007-05-01_2 002_S_0413_2006-04-18_1", 2),
        ("subject1session1 subject1session2 subject2session1 p1_exam1 p1_exam2 p1_acq_2", 3),
        ("center1_scan_5 center1_scan_6 covid19_scan_001 covid19_scan_002", 4),
        ("COVID001_scan1 COVID001_scan2 center001_ses1 center001_ses2 T5_scan1 T5_scan2", 3),
        ("BraTS20_test_001 BraTS20_test_002 CT1_study_0255 CT1_study_0256 lab2_MR001 lab2_MR002", 6),
        ("p7_15-01-2020 p7_16.02.2020 p7_2020-1-5 P7_6months p7_4weeks p7_visit_1a p7_visit1b p7_rescan", 1),
        ("1001V1 1001V2 week-3_week-000-1_CT1 week-3_week-000-2_CT2", 2),
        ("UPENN_GBM_00001_11 UPENN_GBM_00001_21 BraTS_GLI_02063_100 BraTS_GLI_02063_103", 2),
        ("BraTS-MEN-RT-0001-1 BraTS-MEN-RT-0001-2 RHUH-0001_1 RHUH-0001_2 training01_01 training01_02", 3),
        ("train_1_a_1 train_1_b_1 10000_1000000 10000_1000001 I45108_002_S_0295 I45109_002_S_0295", 3),
        ("miriad_188_AD_M_01_MR_1 miriad_188_AD_M_02_MR_1 case1_T00 case1_T50 001_SA_ED 001_SA_ES 001_LA_ED", 3),
        ("1.2.840.113654.2.55.20190101 1.2.840.113654.2.55.20190102", 2),
        ("ä1 a\u03081", 1),  # one letter, or a letter and its dots: as macOS writes names
        ("1 01 10 100 0 00", 4),
    ],
)
def test_ids_of_one_patient_in_other_spellings(names, patients):
    assert len({*patients_of([(name, "", None) for name in names.split()])}) == patients


def test_what_the_list_says_of_patients_holds():
    cases = [("case_7", "", "A"), ("case_007", "", "B"), ("a_1", "", None), ("A01", "", "a-1"), ("b_2", "", None)]
    assert patients_of(cases) == ["A", "B", "a-1", "a-1", "b_2"]


def test_the_doctor_says_whom_it_grouped_and_why(tmp_path):
    names = "sub-01_ses-1 sub-01_ses-2 case_7 case_007 x y z"
    write_list(own_folder(tmp_path, names), training=[entry(name) for name in names.split()[:4]])
    named = [entry("x", patient="Q"), entry("y", patient="Q"), entry("z")]
    write_list(tmp_path, training=[entry(name) for name in names.split()[:4]], test=named)
    assert doctor.examine_folder(tmp_path).patients == [
        "Q: 2 cases (x, y), as the list says",
        "case_7: 2 cases (case_007, case_7), names differ in zeros, upper case or separators",
        "sub-01: 2 cases (sub-01_ses-1, sub-01_ses-2), names differ in session, scan, sequence or side",
    ]


def refused(root) -> str:
    """The line with which training is refused."""
    with pytest.raises(CourseError) as error:
        setups.setup(dataset="folder", scale=scales.get("smoke"), data=str(root))
    return str(error.value)


@pytest.mark.parametrize(("kept", "moved"), [("p1_visit1", "p1_visit2"), ("P-01", "p1"), ("s_3_L", "s_3_R")])
def test_a_list_that_splits_a_patient_is_refused_unless_it_names_two_patients(tmp_path, monkeypatch, kept, moved):
    monkeypatch.setenv("SSL_RUNS_ROOT", str(tmp_path / "runs"))
    root = own_folder(tmp_path / "data", f"{kept} {moved} a b")
    splits = {"training": [entry(kept), entry("a")], "test": [entry(moved)], "validation": [entry("b")]}
    write_list(root, **splits)
    line = refused(root)
    assert f"is in pool ({kept}) and test ({moved})" in line and "dataset.json may name each case's patient" in line
    write_list(root, **splits | {"test": [entry(moved, patient="another")]})
    assert setups.setup(dataset="folder", scale=scales.get("smoke"), data=str(root)).datalist.test
    write_list(root, training=[entry(kept), entry(moved)], test=[entry("a")], validation=[entry("b")])
    assert len(setups.setup(dataset="folder", scale=scales.get("smoke"), data=str(root)).datalist.training) == 2


def turned(array, path):
    """Another orientation, and not compressed; the same voxels in the patient."""
    change = nib.orientations.axcodes2ornt(("S", "L", "P"))
    nib.save(nib.Nifti1Image(array, np.eye(4)).as_reoriented(change), path.with_name(path.name + ".nii"))
    assert nib.aff2axcodes(nib.load(path.with_name(path.name + ".nii")).affine) != ("R", "A", "S")


def other_type(array, path):
    nib.save(nib.Nifti1Image(array.astype(np.float64), np.eye(4)), path.with_name(path.name + ".nii.gz"))


def other_format(array, path):
    path.with_name(path.name + ".nrrd").write_bytes(nrrd_bytes(array.astype(np.float32), np.eye(4)))


@pytest.mark.parametrize("stored", [turned, other_type, other_format])
def test_copies_are_refused_however_they_are_stored(tmp_path, monkeypatch, stored):
    monkeypatch.setenv("SSL_RUNS_ROOT", str(tmp_path / "runs"))
    root = own_folder(tmp_path / "data")
    array = np.rint(image(1)).astype(np.int16)
    write_pair(root, "c1", 1, image=array)
    stored(array, root / "imagesTr/copy")
    (copy,) = (path.name for path in (root / "imagesTr").glob("copy*"))
    splits = {"training": [entry("c4"), entry("c2")], "validation": [entry("c3")], "test": [entry("c1")]}
    write_list(root, **splits, unlabeled=[f"imagesTr/{copy}"])
    assert refused(root) == "copy: its image has the same voxels as that of c1; delete one of the two"
    found = [finding for finding in doctor.examine_folder(root) if "image has the same voxels" in finding.reason]
    assert [(finding.severity, finding.file) for finding in found] == [("error", "copy")]


def test_copies_in_one_split_are_a_warning(tmp_path):
    root = own_folder(tmp_path)
    write_pair(root, "twin", 1)
    splits = {"validation": [entry("c3")], "test": [entry("c4")]}
    write_list(root, training=[entry("c1"), entry("twin")], **splits)
    found = [finding for finding in doctor.examine_folder(root) if "same voxels" in finding.reason]
    assert {finding.severity for finding in found} == {"warning"} and len(found) == 2  # image and label


CHANGES = {
    "resampled": lambda a, rng: ndimage.zoom(a, (1.25, 0.75, 1), order=1),
    "rescaled": lambda a, rng: 7 * a - 300,
    "gamma": lambda a, rng: ((a - a.min()) / np.ptp(a)) ** 0.6,
    "mirrored": lambda a, rng: a[::-1] * 1.5,
    "noise": lambda a, rng: a + rng.normal(0, 0.05 * np.ptp(a), a.shape),
    "smoothed": lambda a, rng: ndimage.gaussian_filter(a, 0.7),
    "cropped": lambda a, rng: a[2:-3, 1:-4, 3:-1],
}


@pytest.mark.parametrize("change", CHANGES)
def test_near_copies_are_suspects_and_no_errors(tmp_path, change):
    root = own_folder(tmp_path)
    near = np.ascontiguousarray(CHANGES[change](image(1), np.random.default_rng(0)), dtype=np.float32)
    write_pair(root, "near", 9, image=near, label=np.ones(near.shape, np.uint8))
    splits = {"training": [entry("c1"), entry("c2")], "validation": [entry("c3"), entry("c5")], "test": [entry("c4")]}
    write_list(root, **splits | {"test": [entry("c4"), entry("near")]})
    found = [f for f in doctor.examine_folder(root) if "c1 (training) though it is in test" in f.reason]
    assert [f.file for f in found] == ["near"]
    assert found[0].severity == ("error" if change == "cropped" else "warning")  # voxels of a crop are the same
    assert ("mirrored" in found[0].reason) == (change == "mirrored")
    delete_pair(root, "near")
    write_list(root, **splits)
    assert not any("though it is in" in f.reason for f in doctor.examine_folder(root))


def test_sessions_in_other_spellings_stay_in_one_split(tmp_path):
    names = "p1_v1 P01_v2 p2_v1 P-2_v3 p3 P003 p4 p5"
    found = datalists.from_folder(own_folder(tmp_path, names))
    assert datalists.faults(found) == [] and len({case.patient for case in found.all_cases()}) == 5


def test_the_first_patients_and_their_number_are_on_the_screen(tmp_path):
    report = doctor.Report()
    report.patients = [f"p{number}: 2 cases (a{number}, b{number}), as the list says" for number in range(9)]
    (table,) = tables(report)
    shown = [str(cell) for cell in table.columns[0]._cells]
    assert shown == [*report.patients[:5], "and 4 more patients"]


def test_a_pool_of_another_dataset_holds_no_copy_of_a_test_image(tmp_path, monkeypatch):
    monkeypatch.setenv("SSL_RUNS_ROOT", str(tmp_path / "runs"))
    own, other = (own_folder(tmp_path / name, names) for name, names in (("own", "a b c d"), ("other", "u v w x")))
    real = datasets.get

    def get(name, data=None, **grid):
        return real("folder", other if name == "other" else data, **grid)

    monkeypatch.setattr(datasets, "get", get)
    for number, name in enumerate("uvwx", start=70):
        write_pair(other, name, number)
    here = setups.setup(dataset="folder", scale=scales.get("laptop"), data=str(own))
    assert len(pools.pool(here, "own+other")) == 2
    (tested,), kept = here.datalist.test, pools.pool(here, "other")[0].pool[0]
    write_pair(other, kept.id, "abcd".index(tested.id) + 1)
    line = rf"{kept.id}.nii.gz: its image has the same voxels as {tested.id}, a validation or test case of folder_own; "
    with pytest.raises(CourseError, match=line):
        pools.pool(here, "own+other")


def test_a_channel_in_two_splits_is_an_error(tmp_path):
    names = ["c1", "c2", "c3", "c4"]
    root = own_folder(tmp_path, " ".join(f"{name}_{channel}" for name in names for channel in "ab"))
    write_pair(root, "c4_b", 2)  # the second channel of c1
    entries = [entry(f"{n}_a") | {"image": [f"imagesTr/{n}_{c}.nii.gz" for c in "ab"], "patient": n} for n in names]
    write_list(root, training=entries[:2], validation=entries[2:3], test=entries[3:], channels=["a", "b"])
    found = [finding for finding in doctor.examine_folder(root) if "channel" in finding.reason]
    assert [(finding.severity, finding.file) for finding in found] == [("error", "c4")]
    assert found[0].reason == "channel 1 of its image has the same voxels as that of c1"


def test_images_of_several_files_are_grouped_too(tmp_path):
    root = own_folder(tmp_path, "p1_v1_a p1_v1_b p1_v2_a p1_v2_b")
    write_list(root, training=[{"image": [f"imagesTr/p1_v{v}_{c}.nii.gz" for c in "ab"]} for v in (1, 2)])
    (line,) = datalists.grouped(datalists.as_listed(root))
    assert line.startswith("p1: 2 cases (p1_v1, p1_v2)")


def test_a_line_break_in_a_name_breaks_no_line(tmp_path):
    root = own_folder(tmp_path)
    (root / "imagesTr/line\nbreak.nii.gz").write_bytes(b"")
    lines = [finding.line() for finding in doctor.examine_folder(root) if "is empty" in finding.reason]
    assert lines == [f"{root}/imagesTr/line break.nii.gz: is empty; copy or download it again"]
