"""Datasets in the layouts and splits of the published systems, in small folders; and what is refused in one line."""

import json
import random
import re
from pathlib import Path

import numpy as np
import pytest

from ssl_utils.data import datalists, datasets, volumes
from ssl_utils.data.dataset import Intensity
from ssl_utils.data.transforms import FAINTEST, rescale, rescale_brain
from ssl_utils.errors import CourseError
from ssl_utils.experiments import scales, setup


@pytest.fixture(autouse=True)
def data_root(tmp_path, monkeypatch):
    monkeypatch.setenv("SSL_DATA_ROOT", str(tmp_path / "data"))
    monkeypatch.setenv("SSL_RUNS_ROOT", str(tmp_path / "runs"))
    return tmp_path / "data"


def touch(root: Path, *names: str) -> None:
    """Empty files: a list is made by names alone."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def listed(name: str):
    return datasets.datalist(datasets.get(name))


def patients(datalist) -> dict[str, set[str]]:
    return {split: {case.patient for case in cases} for split, cases in datalist.sides().items()}


def brats(root: Path, high: int = 30, low: int = 10) -> list[str]:
    grades = {f"HGG/Brats18_CBICA_{i:03d}_1": high for i in range(high)}
    folders = [*grades, *(f"LGG/Brats18_TCIA09_{i:03d}_1" for i in range(low))]
    for folder in folders:
        touch(root, *(f"{folder}/{folder[4:]}_{kind}.nii.gz" for kind in ("flair", "t1", "t1ce", "t2", "seg")))
    return [folder[4:] for folder in folders]


def test_brats_sequences_are_channels_and_patients_are_split(data_root):
    names = brats(data_root / "BraTS18")
    found = listed("brats18")
    assert [len(cases) for cases in found.sides().values()] == [30, 4, 6, 0] and not datalists.leaks(found)
    assert {case.id for case in found.all_cases()} == {*names}
    first = found.training[0]
    assert [path.name for path in first.image] == [
        f"{first.id}_{kind}.nii.gz" for kind in ("flair", "t1", "t1ce", "t2")
    ]
    assert first.label.name == f"{first.id}_seg.nii.gz" and first.label.exists()
    assert {"HGG", "LGG"} == {case.label.parts[-3] for case in found.training[:12]}


def test_the_first_labels_of_a_sorted_list_are_high_grade_tumours_alone(data_root):
    brats(data_root / "brats18")
    found = listed("brats18_sorted")
    assert [case.id for case in found.training] == sorted(case.id for case in found.training)
    assert {case.label.parts[-3] for case in found.training[:20]} == {
        "HGG"
    } and "high-grade tumours alone" in found.description


def test_single_sequences_never_show_a_test_patient(data_root):
    brats(data_root / "brats18")
    whole, single = patients(listed("brats18")), listed("brats18_single")
    assert len(single.channels) == 1 and not single.labels and not datasets.get("brats18_single").labels
    assert patients(single) == {**whole, "test": set()}
    assert len(single.training) == 4 * len(whole["training"]) and all(case.label is None for case in single.all_cases())
    assert not datalists.faults(single)


def test_lits_lists_name_the_published_files(tmp_path):
    published, own = (datasets.datalist(datasets.get(name, tmp_path)) for name in ("lits17_published", "lits17"))
    assert [int(case.patient) for case in published.validation] == [*range(28, 48)] and published.test == ()
    assert [int(case.patient) for case in published.training] == [*range(28), *range(48, 131)]
    assert published.validation[0].image == tmp_path / "val/ct/volume-28.nii"
    assert published.training[0].label == tmp_path / "train/seg/segmentation-0.nii"
    assert "validation and test at once" in published.description
    assert [len(cases) for cases in own.sides().values()] == [92, 13, 26, 0] and not datalists.leaks(own)


def test_luna_subsets_are_the_published_folds(data_root):
    for fold in range(10):
        touch(
            data_root / "LUNA16",
            *(f"subset{fold}/1.3.6.{fold}.{i}.{kind}" for i in range(3) for kind in ("mhd", "raw")),
        )
    touch(data_root / "LUNA16", "seg-lungs-LUNA16/1.3.6.0.0.mhd")

    def folds(cases):
        return {int(case.image.parent.name[-1]) for case in cases}

    published, genesis, own = (listed(name) for name in ("luna16_published", "luna16_genesis", "luna16"))
    assert folds(published.training) == {*range(7)} and folds(published.validation) == {7, 8, 9}
    assert folds(genesis.training) == {*range(5)} and folds(genesis.validation) == {5, 6}
    assert len(genesis.all_cases()) == 21 and [len(own.training), len(own.validation)] == [27, 3]
    assert own.training[0].id.startswith("1.3.6.") and all(case.image.suffix == ".mhd" for case in own.all_cases())


def test_a_flat_folder_of_t1_is_split_by_patient(data_root):
    visits = [f"ADNI_{100 + i:03d}_S_{4000 + i}_MR_MPRAGE_{visit}" for i in range(10) for visit in ("bl", "m12")]
    touch(
        data_root / "adni", *(f"{name}.nii.gz" for name in visits[:10]), *(f"more/{name}.nii" for name in visits[10:])
    )
    found = listed("adni")
    assert [len(found.training), len(found.validation)] == [18, 2] and not datalists.leaks(found)
    assert patients(found)["validation"] <= {f"{100 + i:03d}_S_{4000 + i}" for i in range(10)}
    other = data_root.parent / "T1 of the hospital"
    touch(other, *(f"p{i:02d}_visit{visit}.nii.gz" for i in range(5) for visit in (1, 2)))
    own = datasets.datalist(datasets.get("adni", other))
    assert [len(own.training), len(own.validation)] == [8, 2] and not datalists.leaks(own)


def acdc(root: Path, folder: str, numbers) -> None:
    for n in numbers:
        frames = (f"{folder}/patient{n:03d}/patient{n:03d}_frame{frame:02d}" for frame in (1, 7 + n % 9))
        touch(root, *(f"{frame}{end}.nii.gz" for frame in frames for end in ("", "_gt")))
        touch(root, f"{folder}/patient{n:03d}/patient{n:03d}_4d.nii.gz", f"{folder}/patient{n:03d}/Info.cfg")


def test_both_phases_of_the_heart_are_on_one_side(data_root):
    acdc(data_root / "ACDC", "training", range(1, 101))
    found, published = listed("acdc"), listed("acdc_transseg")
    assert [len(cases) for cases in found.sides().values()] == [140, 20, 40, 0]
    assert not datalists.leaks(found) and not datalists.leaks(published)
    test = "002 003 008 009 012 014 017 024 042 048 049 053 055 064 067 079 081 088 092 095"
    assert patients(published)["validation"] == {*test.split()} and len(patients(published)["training"]) == 80
    assert published.test == () and "is its validation set too" in published.description
    assert len({case.patient for case in found.training[:70]}) == 70, "few labels come from many patients"
    acdc(data_root / "ACDC", "testing", range(101, 151))
    assert patients(listed("acdc"))["test"] == {f"{n:03d}" for n in range(101, 151)}
    assert listed("acdc_transseg").sides() == published.sides()


def decathlon(root: Path, count: int, prefix: str = "spleen") -> list[str]:
    names = [f"{prefix}_{i:03d}.nii.gz" for i in random.Random(0).sample(range(200), count)]
    entries = [{"image": f"./imagesTr/{name}", "label": f"./labelsTr/{name}"} for name in names]
    touch(root, *(entry[key] for entry in entries for key in entry), "imagesTs/spleen_900.nii.gz")
    content = {"modality": {"0": "CT"}, "labels": {"0": "background", "1": "spleen"}, "training": entries}
    (root / "dataset.json").write_text(json.dumps(content | {"test": ["./imagesTs/spleen_900.nii.gz"]}))
    return [name.split(".")[0] for name in names]


def test_transseg_shuffles_the_tasks_of_the_decathlon_one_after_the_other(data_root):
    names = decathlon(data_root / "Task09_Spleen", 41)
    lists = [list(range(n)) for n in (484, 20, 131, 260, 32, 63, 281, 303)] + [names]
    random.seed(1234)
    for entries in lists:
        random.shuffle(entries)
    found, own = listed("msd_spleen_transseg"), listed("msd_spleen")
    ids = {split: [case.id for case in cases] for split, cases in found.sides().items()}
    assert ids == {"training": names[:32], "validation": names[32:38], "test": names[38:], "unlabeled": ["spleen_900"]}
    assert "3 cases" in found.description
    assert [len(cases) for cases in own.sides().values()] == [29, 4, 8, 1] and not datalists.faults(own)
    decathlon(data_root / "Task09_Spleen", 40)
    with pytest.raises(CourseError, match="lists 40 labelled cases, and the published split is of 41"):
        listed("msd_spleen_transseg")


def test_all_ten_tasks_of_the_decathlon_are_there():
    found = [known for known in datasets.REGISTRY.values() if any(f.startswith("Task") for f in known.folders)]
    tasks = {next(f for f in known.folders if f.startswith("Task"))[4:6]: known for known in found}
    assert sorted(tasks) == [f"{n:02d}" for n in range(1, 11)]
    for known in tasks.values():
        assert any(name.endswith("_transseg") for name in known.rules) and known.licence == "CC-BY-SA 4.0"
        assert known.labels.keys() == {*range(len(known.labels))}


def test_transseg_and_the_tutorial_are_two_datasets(tmp_path):
    ours, tutorial = (datasets.datalist(datasets.get(name, tmp_path)) for name in ("btcv_transseg", "btcv"))
    ids = {int(case.patient) for case in ours.validation}
    assert ids == {1, 2, 3, 4, 8, 22, 25, 29, 32, 35, 36, 38} and len(ours.training) == 18
    assert ids & {int(case.patient) for case in tutorial.validation} == {35, 36, 38}
    assert (
        len(ids & {int(case.patient) for case in tutorial.training}) == 9 and "never compare across" in ours.description
    )
    assert datasets.get("btcv_transseg").name != datasets.get("btcv").name, "their runs are in two folders"


# Largest values of a volume, its range by the published rule, and its dataset here.
RANGES = {"brain": (-1e6, 1e6, "msd_brain"), "hippocampus": (29, 205431, "hippocampus"), "heart": (-175, 250, "acdc")}


@pytest.mark.parametrize("what", RANGES)
def test_intensity_rules_keep_the_contrast_that_the_published_ones_lose(what):
    low, high, name = RANGES[what]
    image = np.random.default_rng(0).gamma(4, 300, (1, 24, 24, 24)).astype(np.float32)  # MRI: no unit, up to thousands
    rule = datasets.get(name).intensity
    own = (rescale_brain if rule.kind == "nonzero" else rescale)(image, rule)
    published = rescale(image, Intensity("window", low, high))
    assert own.std() > 0.15 and own.max() == 1 and own.min() in (0, FAINTEST)  # background alone is 0 in a brain
    assert published.std() < 0.03 or (published == 1).mean() > 0.9


CT = [known for known in datasets.REGISTRY.values() if known.channels == ("CT",)]


@pytest.mark.parametrize("known", CT, ids=lambda known: known.name)
def test_windows_of_ct_hold_the_tissue_that_is_asked_for(known):
    lungs = {"luna16", "msd_lung"}
    assert known.intensity.low == (-1000 if known.name in lungs else -175) and known.intensity.high >= 250


def test_a_small_folder_is_prepared_on_its_grid(data_root):
    """Slices of 8 mm and flat patches, through the doctor and the cache."""
    affine, rng = np.diag([1.5, 1.5, 8, 1]), np.random.default_rng(0)
    for n in range(1, 6):
        for frame in (1, 9):
            label = np.zeros((96, 96, 10), np.uint8)
            for value, radius in ((1, 30), (2, 20), (3, 12)):
                label[tuple(slice(48 - radius + n, 48 + radius) for _ in range(2))] = value
            name = data_root / "acdc" / "training" / f"patient{n:03d}" / f"patient{n:03d}_frame{frame:02d}"
            image = (400.0 * label + rng.normal(500, 50, label.shape)).astype(np.int16)
            volumes.write_nifti(f"{name}.nii.gz", image, affine)
            volumes.write_nifti(f"{name}_gt.nii.gz", label, affine)
    found = setup(dataset="acdc", scale=scales.get("smoke"))
    (prepared,) = found.prepared(found.datalist.training[:1])
    assert found.patch_size == (8, 8, 2) and all(
        n >= r for n, r in zip(prepared.image.shape[1:], found.grid.roi, strict=True)
    )
    assert {*np.unique(prepared.label)} == {0, 1, 2, 3} and prepared.image.max() == 1
    assert len({case.patient for case in found.pool}) == 3


def spoilt(root: Path, what: str) -> str:
    """The dataset that cannot be read once this is done to its folder."""
    if what == "another arrangement":
        touch(root / "brats18", "Brats18_1/t1.nii.gz")
        return "brats18"
    if what == "few patients":
        acdc(root / "acdc", "training", range(1, 3))
        return "acdc"
    brats(root / "brats18", 3, 1)
    case = root / "brats18" / "HGG" / "Brats18_CBICA_000_1"
    if what == "a missing channel":
        (case / f"{case.name}_t1ce.nii.gz").unlink()
    elif what == "the same twice":
        (case / f"{case.name}_t1.nii").touch()
    elif what == "a label alone":
        touch(root / "brats18", "LGG/Brats18_x/Brats18_x_seg.nii.gz")
    return "brats18"


SPOILT = {
    "another arrangement": r"brats18: has no image like HGG/Brats18_2013_2_1/Brats18_2013_2_1_t1ce\.nii\.gz; arrange",
    "few patients": "acdc: cases of 2 patients are there, 3 are needed for training, test and validation; complete",
    "a missing channel": "Brats18_CBICA_000_1: has no t1ce of Brats18_CBICA_000_1; add the file",
    "the same twice": r"_t1\.nii\.gz: is the same file of Brats18_CBICA_000_1 as .*_t1\.nii; move one",
    "a label alone": r"Brats18_x_seg\.nii\.gz: is a label without an image; add the image",
}


@pytest.mark.parametrize("what", SPOILT)
def test_a_folder_that_does_not_fit_is_refused_in_one_line(data_root, what):
    name = spoilt(data_root, what)
    with pytest.raises(CourseError, match=SPOILT[what]) as refused:
        listed(name)
    assert "\n" not in str(refused.value)


BY_HAND = ["brats18", "brats21", "brats", "lits17", "luna16", "adni", "acdc", "msd_liver", "btcv_transseg"]


@pytest.mark.parametrize("name", BY_HAND)
def test_how_to_get_a_dataset_says_licence_size_and_place(data_root, name):
    known = datasets.get(name)
    with pytest.raises(CourseError) as refused:
        datasets.fetch(known, phantom_sizes=(0, 0, 0, 0))
    said = str(refused.value)
    assert known.licence in said and str(data_root / known.folders[0]) in said and "\n" not in said
    assert re.search(r"\d (GB|MB)", said) or name.startswith("btcv")
    assert ("registration" in known.licence) == ("needs a registration" in said)
