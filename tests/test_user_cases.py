"""Other people's data: inputs of public reports on which nothing may go wrong in silence."""

import json
import os
import shutil
import subprocess
import sys
from itertools import permutations
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from commands import command

from ssl_utils import experiments, files
from ssl_utils.data import datalists, datasets, doctor, volumes
from ssl_utils.data.formats import names
from ssl_utils.errors import CourseError
from ssl_utils.experiments import Finetuning, prediction, runs, scales, setups
from ssl_utils.segmentation import metrics

BRATS = {0: "background", 1: "NCR", 2: "ED", 4: "ET"}
REGIONS = {"TC": (1, 4), "WT": (1, 2, 4), "ET": (4,)}


# ---- regions


@pytest.mark.parametrize("order", list(permutations(REGIONS)))
def test_regions_in_any_order_give_back_the_label_values_of_the_data_set(order):
    regions = {name: REGIONS[name] for name in order}
    labels = np.array([0, 1, 2, 4, 2, 1, 0, 4], np.uint8).reshape(2, 2, 2)
    decided = np.stack([np.isin(labels, values) for values in regions.values()])
    assert np.array_equal(metrics.label_map(decided, regions), labels)
    drawn = metrics.numbered(dict(zip(regions, decided, strict=True)), regions)
    assert {order[number - 1] for number in np.unique(drawn) if number} == {*REGIONS}, "every region is drawn"


def test_regions_that_contradict_each_other_give_the_nearest_value_of_the_smallest():
    decided = np.array([[1, 0, 0, 0], [0, 0, 1, 0], [0, 1, 1, 0]], bool).reshape(3, 4, 1, 1)  # TC, WT, ET
    assert metrics.label_map(decided, REGIONS).ravel().tolist() == [1, 4, 4, 0]
    crossing = {"A": (1, 2), "B": (2, 3)}
    both = np.array([[1, 1, 0], [0, 1, 1]], bool).reshape(2, 3, 1, 1)
    assert metrics.label_map(both, crossing).ravel().tolist() == [1, 2, 3]


def test_the_model_card_says_where_each_label_value_is_written():
    assert metrics.written_values(BRATS, REGIONS) == {1: "in TC and WT", 2: "in WT", 4: "in TC and WT and ET"}
    lost = metrics.written_values({0: "background", 1: "a", 2: "b", 3: "c"}, {"all": (1, 2)})
    assert lost == {1: "in all", 2: "never: in all, as 1", 3: "never: in no region"}


# ---- names and keys of a list


def listed(folder: Path, content: dict | str) -> datalists.Datalist:
    path = folder / "dataset.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return datalists.read(path, root=folder)


def refusal(folder: Path, content: dict | str) -> str:
    with pytest.raises(CourseError) as error:
        listed(folder, content)
    line = str(error.value)
    assert line.startswith(f"{folder / 'dataset.json'}: ") and "; " in line and "\n" not in line
    return line


@pytest.mark.parametrize(
    "labels", [{"0": "background", "1": "kidney", "2": "kidney "}, {"background": 1}, {"1": "a", "2": "b", "0": "a"}]
)
def test_equal_names_of_labels_are_refused(tmp_path, labels):
    assert "two labels are called" in refusal(tmp_path, {"training": ["a.nii"], "labels": labels})


@pytest.mark.parametrize(
    "text",
    [
        '{"training": ["a.nii"], "labels": {"kidney": 1, "kidney": 2}}',
        '{"training": ["a.nii"], "training": ["b.nii"]}',
        '{"training": [{"image": "a.nii", "label": "a.nii", "label": "b.nii"}]}',
    ],
)
def test_a_key_that_comes_twice_is_refused(tmp_path, text):
    assert "is there twice" in refusal(tmp_path, text)


def test_a_value_between_two_is_refused(tmp_path):
    assert "labels must look like" in refusal(tmp_path, {"training": ["a.nii"], "labels": {"organ": 1.5}})


def test_structures_and_cases_may_be_called_as_pandas_calls_nothing(tmp_path):
    (tmp_path / "per_case.csv").write_text("case,patient,dice,class\nNA,01,0.5,None\n2,02,,NA\n")
    table = runs.read_scores(tmp_path / "per_case.csv")
    assert table[["case", "patient", "class"]].to_numpy().tolist() == [["NA", "01", "None"], ["2", "02", "NA"]]
    assert table["dice"].isna().tolist() == [False, True]


def test_other_spellings_are_understood(tmp_path):
    entry = {"image": "a.nii", "label": "b.nii"}
    content = {
        "channel_names": {"1": "T1", "0": "CT"},
        "modality": ["CT", "T1"],
        "labels": {"background": 0, "organ": 1},
        "numTraining": 2,
        "numUnlabeled": 0,
        "file_ending": ".nii",
        "training": [entry | {"patient_id": 7}, {"image": "c.nii", "subject": "8"}],
        "val": ["d.nii"],
        "testing": ["e.nii"],
    }
    found = listed(tmp_path, content)
    assert found.channels == ("CT", "T1") and found.labels == {0: "background", 1: "organ"}
    assert [case.patient for case in found.training] == ["7", "8"]
    assert [case.id for case in found.validation + found.test] == ["d", "e"]


@pytest.mark.parametrize(
    ("content", "key", "fix"),
    [
        ({"trainig": []}, "'trainig'", "did you mean training?"),
        ({"Labels": {}}, "'Labels'", "did you mean labels?"),
        ({"tests": []}, "'tests'", "did you mean test?"),
        ({"modalities": {}}, "'modalities'", "did you mean channels?"),
        ({"weather": 3}, "'weather'", "known are name"),
        ({"test": [], "testing": ["b.nii"]}, "'testing'", "delete one"),
        ({"validation": [{"image": "b.nii", "Patient": 1}]}, "validation[0]: key 'Patient'", "did you mean patient?"),
        ({"validation": [{"image": "b.nii", "fold": 1}]}, "validation[0]: key 'fold'", "only cases of training"),
        ({"validation": [{"image": "b.nii", "patient": 1, "subject": 2}]}, "has patient twice", "delete one"),
    ],
)
def test_a_key_that_nobody_knows_is_named_with_the_nearest_known_one(tmp_path, content, key, fix):
    line = refusal(tmp_path, {"training": ["a.nii"]} | content)
    assert key in line and fix in line


# ---- folders of data


def make_folder(
    root: Path, *names: str, labels: str = "labelsTr", images: str = "imagesTr", only: int = 99, seed: int = 0
) -> Path:
    """A folder in MSD layout, every image another one; the first `only` cases have a label."""
    for number, name in enumerate(names):
        rng = np.random.default_rng([seed, number, *name.encode()])
        label = np.zeros((20, 20, 20), np.uint8)
        label[4:9] = 1
        volumes.write_nifti(root / images / f"{name}.nii.gz", rng.normal(100, 9, label.shape).astype("f4"), np.eye(4))
        if number < only:
            volumes.write_nifti(root / labels / f"{name}.nii.gz", label, np.eye(4))
    return root


def test_other_data_of_the_same_name_are_refused_and_a_copy_is_not(tmp_path, monkeypatch):
    monkeypatch.setenv("SSL_RUNS_ROOT", str(tmp_path / "runs"))
    one, copy = make_folder(tmp_path / "A" / "data", *"abc"), tmp_path / "B" / "data"
    shutil.copytree(one, copy)
    more, other = make_folder(tmp_path / "C" / "data", *"abcd"), make_folder(tmp_path / "D" / "data", *"def")
    for folder in (one, one, copy):
        setups.setup(dataset="folder", scale=scales.get("smoke"), data=str(folder))
    label = volumes.read_label(copy / "labelsTr" / "a.nii.gz")
    volumes.write_nifti(copy / "labelsTr" / "a.nii.gz", label.array[0, ::-1], label.affine)  # another reader
    for folder in (copy, more, other):
        reason = rf"{folder}: the runs in .*folder_data/smoke are those of {one}; set SSL_RUNS_ROOT"
        with pytest.raises(CourseError, match=reason):
            setups.setup(dataset="folder", scale=scales.get("smoke"), data=str(folder))


def test_a_named_dataset_in_another_data_root_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("SSL_RUNS_ROOT", str(tmp_path / "runs"))
    (tmp_path / "lists").mkdir()
    entries = {name: {"image": f"imagesTr/{name}.nii.gz", "label": f"labelsTr/{name}.nii.gz"} for name in "abc"}
    splits = {split: [entries[name]] for split, name in zip(("training", "validation", "test"), "abc", strict=True)}
    labels = {"0": "background", "1": "anterior", "2": "posterior"}
    files.write_json(tmp_path / "lists" / "hippocampus.json", {"channels": ["MRI"], "labels": labels} | splits)
    monkeypatch.setattr(datasets, "LISTS", tmp_path / "lists")
    make_folder(tmp_path / "one/hippocampus", *"abc")
    shutil.copytree(tmp_path / "one", tmp_path / "copy")
    make_folder(tmp_path / "two/hippocampus", *"abc", seed=1)
    for root in ("one", "copy"):
        monkeypatch.setenv("SSL_DATA_ROOT", str(tmp_path / root))
        setups.setup(dataset="hippocampus", scale=scales.get("smoke"))
    monkeypatch.setenv("SSL_DATA_ROOT", str(tmp_path / "two"))
    with pytest.raises(CourseError, match=r"two/hippocampus: the runs in .* are those of .*one/hippocampus; set"):
        setups.setup(dataset="hippocampus", scale=scales.get("smoke"))


def test_names_without_latin_letters_stay_apart():
    names = {datasets.run_name("folder", f"/x/{name}") for name in ("数据", "данные", "影像", "-")}
    assert len(names) == 4 and all(len(name) > len("folder_") for name in names)


@pytest.mark.parametrize(
    ("names", "patients"),
    [
        ("sub-01_ses-1_T1w sub-01_ses-2_T1w sub-02_ses-1_T1w", 2),
        ("sub-A_ses-1 sub-A_ses-2 sub-B_ses-1 sub-cortical_01 sub-cortical_02", 4),
        ("p01_visit1 p01_visit2 p01_V3 p01_tp_04 p01-scan-5 p01.day6 p01_baseline", 1),
        ("p01_20190102 p01_20200304 p02_20190102", 2),
        ("Patient-001_week-000-1 Patient-001_week-044 Patient-002_week-000", 2),
        ("knee_001_L knee_001_R knee_R_002 knee_left_002 9001234L 9001234R", 3),
        ("BraTS-GLI-00005-000 BraTS-GLI-00005-001 BraTS-GLI-00006-000", 2),
        ("scan_01 scan_02 scan_03_T1 lung_scan_1 T1_scan_001 T1_scan_002", 6),
        ("case_01 case-01 case_02 hippocampus_001 B01_ses1 B01_ses2 c1 c2 R L", 8),
    ],
)
def test_names_that_differ_in_a_session_or_a_side_are_one_patient(tmp_path, names, patients):
    found = listed(tmp_path, {"training": [f"imagesTr/{name}.nii.gz" for name in names.split()]})
    assert len({case.patient for case in found.training}) == patients


def test_bids_folders_and_the_list_name_the_patient(tmp_path):
    entries = ["sub-01/anat/one.nii", "sub-01/anat/two.nii", {"image": "p1_ses1.nii", "patient": "mine"}]
    assert [case.patient for case in listed(tmp_path, {"training": entries}).training] == ["sub-01", "sub-01", "mine"]


def test_sessions_of_one_patient_stay_in_one_split(tmp_path):
    names = [f"sub-{patient}_ses-{session}_T1w" for patient in range(4) for session in (1, 2, 3)]
    root = make_folder(tmp_path / "data", *names)
    for patient in range(4):  # the third session has no label
        (root / "labelsTr" / f"sub-{patient}_ses-3_T1w.nii.gz").unlink()
    found = datalists.from_folder(root)
    assert datalists.faults(found) == [] and all(len(cases) for cases in found.sides().values())
    assert {case.patient for case in found.unlabeled} == {case.patient for case in found.training}
    content = {split: [f"imagesTr/sub-0_ses-{n}_T1w.nii.gz"] for n, split in enumerate(("training", "test"), 1)}
    ((_, *line),) = datalists.faults(listed(root, content))
    line = "; ".join(line)
    assert "its patient sub-0 is in pool" in line and "dataset.json may name each case's patient" in line


# ---- predict


@pytest.fixture(scope="module")
def brats(tmp_path_factory) -> tuple[Path, Path]:
    """A folder of labels 1, 2 and 4 with overlapping regions in an unlucky order, and a model of it."""
    root = make_folder(tmp_path_factory.mktemp("brats") / "data", *(f"c{number}" for number in range(4)))
    entries = [{"image": f"imagesTr/c{n}.nii.gz", "label": f"labelsTr/c{n}.nii.gz"} for n in range(4)]
    names = {str(value): name for value, name in BRATS.items()}
    listed(root, {"labels": names, "regions": REGIONS, "training": entries})
    setup = setups.Setup(datasets.get("folder", root), scales.get("smoke"))
    network, _ = experiments.build_network(setup, Finetuning(init="random", seed=0))
    prediction.save_network(root.parent / "model.safetensors", network, setup, init="random")
    return root, root.parent / "model.safetensors"


def test_predict_writes_label_values_and_replaces_only_what_it_wrote(brats, tmp_path, monkeypatch):
    root, model = shutil.copytree(brats[0], tmp_path / "data"), brats[1]
    decided = np.stack([np.full((20, 20, 20), name != "ET") for name in REGIONS])
    monkeypatch.setattr(prediction, "predict_case", lambda *_, **__: decided)
    expert = (root / "labelsTr/c0.nii.gz").read_bytes()
    over = ("predict", model, root / "imagesTr", "--output", root / "labelsTr")
    code, line = command(monkeypatch, *over)
    assert code == 1 and f"{root / 'labelsTr/c0.nii.gz'}: is there and was not written by predict; choose" in line
    assert (root / "labelsTr/c0.nii.gz").read_bytes() == expert
    out = ("predict", model, root / "imagesTr/c0.nii.gz", "--output", tmp_path / "out")
    assert command(monkeypatch, *out) == command(monkeypatch, *out) == (0, ""), "its own results it may replace"
    assert volumes.present_values(volumes.read_label(tmp_path / "out/c0.nii.gz").array) == [1]
    (tmp_path / "out/c0.nii.gz").write_text("notes of somebody")
    assert command(monkeypatch, *out)[0] == 1
    assert command(monkeypatch, *over, "--overwrite") == (0, "")
    assert (root / "labelsTr/c0.nii.gz").read_bytes() != expert


def test_the_doctor_replaces_only_its_own_reports(tmp_path, monkeypatch):
    root = make_folder(tmp_path / "data", "a", "b", "c")
    listed(root, {"training": ["imagesTr/a.nii.gz"]})
    before = (root / "dataset.json").read_bytes()
    code, line = command(monkeypatch, "doctor", root, "--json", root / "dataset.json")
    assert code == 1 and "dataset.json: is there and is not a report of the doctor; choose another" in line
    assert (root / "dataset.json").read_bytes() == before
    image, report = root / "imagesTr/a.nii.gz", tmp_path / "report.json"
    assert [command(monkeypatch, "doctor", image, "--json", report)[0] for _ in range(2)] == [0, 0]


# ---- what is not read


def test_labels_of_test_images_make_a_test_split(tmp_path):
    root = make_folder(tmp_path, "c0", "c1", "c2", "c3")
    make_folder(tmp_path, "t0", "t1", "t2", images="imagesTs", labels="labelsTs", only=2)
    found = datalists.from_folder(root)
    assert [case.id for case in found.test] == ["t0", "t1"] and [case.id for case in found.unlabeled] == ["t2"]
    assert len(found.training) == 3 and len(found.validation) == 1


def test_both_ways_of_the_doctor_name_what_is_not_read(tmp_path, monkeypatch):
    root = make_folder(tmp_path / "data", *(f"c{number}" for number in range(6)))
    (root / "labelsTr/c0.nii.gz").rename(root / "labelsTr/C0.nii.gz")
    (root / "imagesTr/c5.nii.gz").rename(root / "c5.nii.gz")
    (root / "imagesTr/c5.nii.gz").mkdir()
    (root / "c5.nii.gz").rename(root / "imagesTr/c5.nii.gz/c5.nii.gz")
    report, lines = tmp_path / "report.json", []
    for words in (["--dataset", "folder", "--scale", "smoke", "--data", root], [root]):
        command(monkeypatch, "doctor", *words, "--json", report)
        findings = json.loads(report.read_text())["findings"]
        lines.append(
            [(Path(f["file"]).name, f["reason"]) for f in findings if "read" in f["reason"] or "no case" in f["reason"]]
        )
    nowhere, folder = "belongs to no case of the dataset", "is a folder without a DICOM series and is not read"
    assert lines[0] == lines[1] == [("c5.nii.gz", folder), ("C0.nii.gz", nowhere), ("c5.nii.gz", nowhere)]


def test_images_alone_have_a_share_held_out(tmp_path):
    found = datalists.from_folder(make_folder(tmp_path, *(f"c{number}" for number in range(8)), only=0))
    assert [len(found.sides()[side]) for side in ("unlabeled", "validation", "training", "test")] == [7, 1, 0, 0]
    assert found.labels == {} and datalists.faults(found) == []
    with pytest.raises(CourseError, match="images of 1 patients are there, 2 are needed"):
        datalists.from_folder(make_folder(tmp_path / "one", "c0", only=0))


# ---- files


@pytest.mark.parametrize("quaternion", [(0.6, 0.6, 0.6), (0.9, 0.9, 0.9), (np.nan, 0, 0)])
def test_a_qform_without_a_rotation_is_no_reason_to_refuse_a_good_sform(tmp_path, quaternion):
    nifti = nib.Nifti1Image(np.arange(27, dtype=np.int16).reshape(3, 3, 3), np.diag([2.0, 2, 2, 1]))
    nifti.set_qform(nifti.affine, 1)
    content = bytearray(nifti.to_bytes())
    content[256:268] = np.array(quaternion, np.float32).tobytes()
    (tmp_path / "scan.nii").write_bytes(content)
    image = volumes.read_image(tmp_path / "scan.nii")
    assert image.spacing == (2, 2, 2) and ("sform is used" in str(image.notes)) == (not np.isnan(quaternion[0]))
    content[254:256] = b"\0\0"  # sform_code
    (tmp_path / "scan.nii").write_bytes(content)
    with pytest.raises(CourseError, match=r"scan\.nii: .+; "):
        volumes.read_image(tmp_path / "scan.nii")


def test_links_that_lead_back_are_followed_once(tmp_path):
    make_folder(tmp_path, "c0", images="one/scans", only=0)
    (tmp_path / "one/scans/up").symlink_to("..")
    (tmp_path / "one/scans/again").symlink_to("../scans")
    (tmp_path / "one/scans/twin.nii.gz").symlink_to("c0.nii.gz")
    assert names.volumes_in(tmp_path / "one", deep=True) == [tmp_path / "one/scans/c0.nii.gz"]


@pytest.mark.parametrize("module", ["ssl_utils", "course"])
def test_a_terminal_that_lacks_a_character_shows_another(tmp_path, module):
    folder = "数据 – é"
    words = {"ssl_utils": ["doctor", folder], "course": ["status", "--dataset", "folder", "--data", folder]}[module]
    environment = os.environ | {"PYTHONIOENCODING": "latin-1", "PYTHONPATH": os.getcwd()}
    make_folder(tmp_path / folder, "c0", images=".", only=0)
    done = subprocess.run([sys.executable, "-m", module, *words], cwd=tmp_path, env=environment, capture_output=True)
    assert done.returncode == 0 and b"Traceback" not in done.stderr, done.stderr.decode("latin-1")[-2000:]


@pytest.mark.parametrize(
    ("shift", "channel", "odd", "reason"),
    [
        ([0] * 6, "CT", 0, ""),
        ([0] * 5 + [1024], "CT", 1, "is called CT and has no value below"),
        ([1024] * 6, "CT", 6, "is called CT and has no value below"),
        ([0] * 5 + [1024], "T1", 1, "its values begin at"),
        ([1024] * 6, "T1", 0, ""),
    ],
)
def test_ct_that_is_not_in_hu_and_shifted_volumes_are_findings(tmp_path, shift, channel, odd, reason):
    for number, more in enumerate(shift):
        image = np.random.default_rng(number).normal(more, 50, (12, 12, 12)).astype(np.float32)
        volumes.write_nifti(tmp_path / f"c{number}.nii", image, np.eye(4))
    found = listed(tmp_path, {"channels": [channel], "unlabeled": [f"c{number}.nii" for number in range(6)]})
    findings = [finding.reason for finding in doctor.examine_datalist(found)]
    assert len(findings) == odd and all(reason in finding for finding in findings)


def test_a_path_with_a_brace_is_refused_in_one_line(tmp_path):
    root = make_folder(tmp_path / "d {init}" / "data", "a", "b", "c")
    words = ["-m", "course", "run", "--scale", "smoke", "--dataset", "folder", "--data", str(root)]
    environment = os.environ | {"SSL_RUNS_ROOT": str(tmp_path / "runs")}
    done = subprocess.run([sys.executable, *words], env=environment, capture_output=True, text=True)
    assert done.returncode == 2 and not (tmp_path / "runs").exists()
    assert done.stderr.splitlines()[-1].startswith(
        f"error: {root}: has a brace, which Snakemake and papermill fill in; "
    )


def test_a_volume_of_which_hardly_anything_is_left_is_a_finding(tmp_path):
    image = np.zeros((20, 20, 20), np.int16)
    image[:3, :3, :3] = np.arange(27).reshape(3, 3, 3)
    volumes.write_nifti(tmp_path / "c.nii", image, np.eye(4))
    assert "1st and 99th percentile are both 0" in " ".join(f.reason for f in doctor.examine([tmp_path / "c.nii"]))


# ---- the inputs of the reports themselves, where they are

CASES = Path(__file__).resolve().parents[2] / "shared" / "data" / "user_cases"
LINES = {  # folder: [(words of the command, exit code, part of its last line)], in a copy of the folder
    "bad_qform_good_sform": [("doctor scan.nii", 0, ""), ("doctor scan_rounded.nii", 0, "")],
    "equal_label_names": [
        ("doctor FOLDER data", 1, ""),
        ("data folder --data data", 1, "two labels are called 'kidney'"),
    ],
    "ignore_label": [("doctor FOLDER data", 0, ""), ("data folder --data data", 0, "")],
    "numbers_out_of_range": [
        ("pretrain simmim --seed -1", 1, "seed=-1: must be at least 0"),
        ("pretrain simmim --seed 18446744073709551616", 1, "must be at least 0 and at most"),
        ("pretrain simmim --steps=-3", 1, "steps=-3: must be at least 1"),
        ("pretrain simmim --steps=nan", 1, "steps='nan': must be a whole number"),
        ("finetune random --seed -1", 1, "seed=-1: must be at least 0"),
        ("finetune random --layer-decay -1", 1, "layer_decay=-1.0: must be above 0"),
        ("finetune random --freeze-epochs -5", 1, "freeze_epochs=-5: must be at least -1"),
    ],
    "symlink_loop": [("doctor one", 0, ""), ("doctor two", 0, "")],
    "two_folders_one_name": [
        ("data folder --scale smoke --data projectA/data", 0, ""),
        ("data folder --scale smoke --data projectB/data", 1, "folder_data/smoke are those of"),
    ],
    "unknown_list_keys": [("doctor FOLDER testing", 0, ""), ("doctor FOLDER patient_id", 0, "")],
    "unlabelled_only": [("doctor FOLDER data", 0, "")],
}


@pytest.mark.parametrize("case", sorted(LINES))
def test_the_inputs_of_the_reports_are_read_or_refused_in_one_line(case, tmp_path, monkeypatch):
    if not CASES.is_dir():
        pytest.skip("the folder of reported inputs is not here")
    shutil.copytree(CASES / case, tmp_path / "copy")
    if (tmp_path / "copy/make_links.sh").exists():
        for folder in ("one", "two"):
            (tmp_path / "copy" / folder / "sub").mkdir(exist_ok=True)
        subprocess.run(["sh", "make_links.sh", "."], cwd=tmp_path / "copy", check=True)
    monkeypatch.chdir(tmp_path / "copy")
    monkeypatch.setenv("SSL_RUNS_ROOT", str(tmp_path / "runs"))
    for words, code, part in LINES[case]:
        ended, line = command(monkeypatch, *words.replace("FOLDER", "--dataset folder --scale smoke --data").split())
        assert (ended, "\n" in line) == (code, False) and part in line, f"{words}: {line}"


def reported(case: str) -> datasets.Dataset:
    if not CASES.is_dir():
        pytest.skip("the folder of reported inputs is not here")
    return datasets.get("folder", CASES / case)


def test_the_lists_of_the_reports_are_read_as_they_are_meant():
    found = reported("channel_names_ct/data")
    assert found.channels == ("CT",) and (found.intensity.low, found.intensity.high) == (-175, 250)
    lists = {case: datasets.datalist(reported(case)) for case in ("labels_ts/data", "sessions_of_one_patient/data")}
    lists |= {case: datasets.datalist(reported(f"unknown_list_keys/{case}")) for case in ("testing", "patient_id")}
    assert all(datalists.faults(datalist) == [] for datalist in lists.values())
    assert [case.id for case in lists["labels_ts/data"].test] == ["t0", "t1"]
    assert [case.id for case in lists["testing"].test] == ["c4", "c5"]
    for case in ("sessions_of_one_patient/data", "patient_id"):
        assert len({case.patient for case in lists[case].all_cases()}) == 3


def test_the_regions_of_the_report_give_back_its_labels():
    dataset = reported("regions_order/data")
    label = volumes.read_label(datasets.datalist(dataset).all_cases()[0].label).array[0]
    decided = np.stack([np.isin(label, values) for values in dataset.regions.values()])
    assert np.array_equal(metrics.label_map(decided, dataset.regions), label)
    assert metrics.written_values(dataset.labels, dataset.regions).keys() == {1, 2, 4}


@pytest.mark.parametrize(
    ("case", "count", "reason"),
    [
        ("ct_not_in_hu/one", 1, "has no value below 924"),
        ("ct_not_in_hu/all", 6, "has no value below 924"),
        ("masked_to_little/data", 6, "1st and 99th percentile are both 0"),
    ],
)
def test_the_images_of_the_reports_are_findings(case, count, reason):
    findings = doctor.examine_datalist(datasets.datalist(reported(case)))
    assert len(findings) == count and all(reason in finding.reason for finding in findings)


def test_the_leftovers_of_the_report_are_named():
    dataset = reported("leftovers_in_dataset_mode/data")
    left = [path.name for path, *_ in datalists.leftovers(dataset.root, datasets.datalist(dataset))]
    assert sorted(left) == ["C0.nii.gz", "C2.nii.gz", "c4.nii.gz", "c4.nii.gz"]
