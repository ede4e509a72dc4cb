import importlib.util
import json
import time
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from faulty_files import DATA, nifti_bytes

from ssl_utils.data import datalists, datasets, volumes
from ssl_utils.data.datalists import Case, Datalist
from ssl_utils.errors import CourseError

LISTS = Path(__file__).resolve().parents[1] / "json_files"
# The 23 patients found by hand on both sides of the published TCIA split.
LEAKED = (
    "0028 0196 0291 0381 0383 0700 0701 0702 0703 0704 0705 0706 0708 0712 0714 0715 0717 0718 0719 0733 0734 0736 0738"
)


def shipped(name: str) -> Datalist:
    return datalists.read(LISTS / f"{name}.json", root=Path("somewhere"))


def cases(patients: str, *, labeled: bool = True) -> tuple[Case, ...]:
    """One case per letter, the letter being the patient."""
    return tuple(
        Case(f"{number:02d}", Path(f"i{number}.nii"), Path(f"l{number}.nii") if labeled else None, patient)
        for number, patient in enumerate(patients)
    )


def numbers(side: tuple[Case, ...]) -> list[int]:
    return [int(case.id[-4:]) for case in side]


def write_json(path: Path, content) -> Path:
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


# ---- the shipped lists


@pytest.mark.parametrize("count", [6, 12, 24])
def test_btcv_lists_are_the_published_ones(count):
    found = shipped(f"btcv_{count:02d}")
    assert numbers(found.training) == [*range(1, 11), *range(21, 41)][:count]
    assert numbers(found.validation) == list(range(35, 41))
    assert numbers(found.unlabeled) == list(range(61, 81)) and found.test == ()
    assert "no test set" in found.description
    assert len(found.labels) == 14 and found.labels[6] == "liver" and found.labels[13] == "left adrenal gland"
    assert found.training[0].image == Path("somewhere/imagesTr/img0001.nii.gz")
    assert found.training[0].label == Path("somewhere/labelsTr/label0001.nii.gz")
    assert all(case.label is None for case in found.unlabeled)


def test_the_honest_btcv_list_tests_on_the_18_unused_cases():
    found, published = shipped("btcv_06_honest"), shipped("btcv_06")
    assert numbers(found.test) == [*range(7, 11), *range(21, 35)]
    assert (found.training, found.validation) == (published.training, published.validation)


def test_the_leak_detector_finds_exactly_the_23_published_patients():
    found = shipped("tcia_covid19_published")
    leaks = datalists.leaks(found)
    assert list(leaks) == LEAKED.split()
    assert sum(len(sides["validation"]) for sides in leaks.values()) == 33
    assert sum(len(sides["pool"]) for sides in leaks.values()) == 56
    assert (len(found.training), len(found.validation)) == (600, 171)
    assert found.training[0].image.parent == Path("somewhere/data") and found.labels == {}


def test_the_split_by_patient_has_the_published_sizes_and_no_leak():
    found, published = shipped("tcia_covid19_by_patient"), shipped("tcia_covid19_published")
    assert (len(found.training), len(found.validation)) == (600, 171)
    assert {case.id for case in found.training + found.validation} == {
        case.id for case in published.training + published.validation
    }


def test_hippocampus_keeps_scan_pairs_together_and_labels_many_patients():
    found = shipped("hippocampus")
    assert [len(side) for side in found.sides().values()] == [90, 20, 110, 0]
    everyone = found.training + found.validation + found.test
    assert all(case.patient == f"{(int(case.id[-3:]) + 1) // 2:03d}" for case in everyone)
    assert len({case.id for case in everyone}) == 220
    patients = [case.patient for case in found.training]
    assert len(set(patients[:24])) == 24


@pytest.mark.parametrize("path", sorted(LISTS.glob("*.json")), ids=lambda path: path.stem)
def test_shipped_lists_have_no_leak_but_the_published_one(path):
    content = json.loads(path.read_text())
    if "training" in content:
        found = datalists.read(path, root=Path("."))
        assert bool(datalists.leaks(found)) == (path.stem == "tcia_covid19_published")
        assert not any(case.image.is_absolute() for side in found.sides().values() for case in side)


def test_the_script_makes_the_shipped_lists_byte_for_byte(tmp_path):
    spec = importlib.util.spec_from_file_location("make_datalists", LISTS / "make_datalists.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    made = script.main(tmp_path)
    assert len(made) == 13
    for path in made:
        assert path.read_bytes() == (LISTS / path.name).read_bytes(), path.name


def test_hippocampus_list_fits_the_real_folder_where_it_is():
    root = DATA / "hippocampus"
    found = datalists.read(LISTS / "hippocampus.json", root=root)
    assert len(datalists.faults(found)) == (0 if root.is_dir() else 440)


def test_headneck_has_one_volume_of_each_patient_and_fits_the_real_folder_where_it_is():
    root = DATA / "headneck"
    found = datalists.read(LISTS / "headneck.json", root=root)
    assert [len(side) for side in found.sides().values()] == [65, 10, 60, 124]
    assert all(case.id == f"openkbp_{case.patient}" for case in found.all_cases())
    assert found.labels == datasets.get("headneck").labels
    assert len(datalists.faults(found)) == (0 if root.is_dir() else 2 * 135 + 124)


# ---- reading and writing


def test_msd_and_nnunet_spellings_are_read(tmp_path):
    content = {
        "modality": {"0": "FLAIR", "1": "T1"},
        "labels": {"background": 0, "edema": 2, "core": 1, "enhancing": 4},
        "regions": {"TC": [1, 4], "WT": [1, 2, 4], "ET": [4]},
        "license": "CC0",
        "training": [{"image": "./imagesTr/a.nii.gz", "label": "./labelsTr/a.nii.gz", "patient": 7}],
        "test": ["./imagesTs/b.nii.gz"],
    }
    found = datalists.read(write_json(tmp_path / "x.json", content), root=tmp_path)
    assert found.channels == ("FLAIR", "T1") and found.licence == "CC0" and found.name == "x"
    assert found.labels == {0: "background", 1: "core", 2: "edema", 4: "enhancing"}
    assert found.regions == {"TC": (1, 4), "WT": (1, 2, 4), "ET": (4,)}
    assert found.training == (Case("a", tmp_path / "imagesTr/a.nii.gz", tmp_path / "labelsTr/a.nii.gz", "7"),)
    assert found.test == (Case("b", tmp_path / "imagesTs/b.nii.gz", None, "b"),)


def test_what_is_written_is_read_back(tmp_path):
    one = Case("one", tmp_path / "s1/T1.nii.gz", tmp_path / "s1/label.nii.gz", "p")
    found = Datalist(
        "n",
        "d",
        "l",
        "r",
        ("T1",),
        {0: "background", 3: "x"},
        {"R": (3,)},
        training=(one,),
        unlabeled=cases("q", labeled=False),
    )
    found = replace(found, unlabeled=tuple(replace(case, image=tmp_path / case.image) for case in found.unlabeled))
    found = replace(found, grid={"spacing": (1.5, 1.5, 8.0), "patch_size": (8, 8, 2)})
    datalists.write(found, tmp_path / "list.json", root=tmp_path)
    assert datalists.read(tmp_path / "list.json", root=tmp_path) == found
    with pytest.raises(CourseError, match="lies outside"):
        datalists.write(found, tmp_path / "list.json", root=tmp_path / "elsewhere")


def test_equal_file_names_in_two_folders_are_two_cases(tmp_path):
    content = {"training": ["s1/T1.nii.gz", "s2/T1.nii.gz", "s2/T2.nii.gz"]}
    found = datalists.read(write_json(tmp_path / "x.json", content), root=tmp_path)
    assert [case.id for case in found.training] == ["s1_T1", "s2_T1", "T2"]


@pytest.mark.parametrize(
    ("content", "word"),
    [
        ("{", "JSON"),
        ([1], "datalist"),
        ({}, "no case"),
        ({"training": {"image": "a.nii"}}, "not a list"),
        ({"training": [{"label": "a.nii"}]}, "names no image"),
        ({"training": [{"image": ["a.nii", 3]}]}, "one path"),
        ({"training": [{"image": []}]}, "one path"),
        ({"training": [{"image": "a.nii", "label": 3}]}, "not one path"),
        ({"training": [{"image": "a.nii", "id": "../a"}]}, "slash"),
        ({"training": ["a.nii"], "labels": {"0": "b", "x": "liver"}}, "labels"),
        ({"training": ["a.nii"], "labels": ["liver"]}, "labels"),
        ({"training": ["a.nii"], "labels": {"300": "liver"}}, "0 to 255"),
        ({"training": ["a.nii"], "labels": {"1": "liver"}, "regions": {"R": [1, 2]}}, "region R"),
        ({"training": ["a.nii"], "channels": "CT"}, "channels"),
    ],
)
def test_a_malformed_list_is_refused_in_one_line(tmp_path, content, word):
    path = write_json(tmp_path / "list.json", content)
    with pytest.raises(CourseError, match=word) as caught:
        datalists.read(path, root=tmp_path)
    assert str(caught.value).startswith(str(path)) and "\n" not in str(caught.value)


def test_a_missing_list_is_refused(tmp_path):
    with pytest.raises(CourseError, match="no such file"):
        datalists.read(tmp_path / "list.json", root=tmp_path)


# ---- faults


def test_each_fault_has_one_line_with_case_and_cure(tmp_path):
    def case(name, *, label=True, patient=None, there=True):
        for folder in ("i", "l"):
            (tmp_path / folder).mkdir(exist_ok=True)
            if there:
                (tmp_path / folder / f"{name}.nii").touch()
        return Case(name, tmp_path / f"i/{name}.nii", tmp_path / f"l/{name}.nii" if label else None, patient or name)

    good = case("good")
    clean = Datalist("n", labels={0: "background", 1: "x"}, training=(good,), unlabeled=(case("bare", label=False),))
    assert datalists.faults(clean) == []
    faulty = replace(
        clean,
        training=(good, case("gone", there=False), case("twice")),
        validation=(case("nolabel", label=False), case("twin", patient="good")),
        test=(case("twice", patient="other"),),
    )
    lines = [f"{case}: {reason}; {fix}" for case, reason, fix in datalists.faults(faulty)]
    assert len(lines) == 5 and all("; " in line for line in lines)
    assert sum(line.startswith("gone: its image") or line.startswith("gone: its label") for line in lines) == 2
    assert any(line.startswith("nolabel: is in validation without a label") for line in lines)
    assert any(
        line.startswith("twice: its case id is listed 2 times: twice (training) and twice (test)") for line in lines
    )
    assert any(line.startswith("good: its patient good is in pool (good) and validation (twin)") for line in lines)


def test_one_image_under_two_names_is_a_duplicate(tmp_path):
    first = Case("a", tmp_path / "i.nii", None, "a")
    found = Datalist("n", training=(first,), validation=(replace(first, id="b", patient="b"),))
    assert any(
        "image i.nii is listed 2 times: a (training) and b (validation)" in reason
        for _, reason, _ in datalists.faults(found)
    )


def test_training_and_unlabeled_are_one_side():
    first, second = cases("pp")
    assert datalists.leaks(Datalist("n", training=(first,), unlabeled=(second,))) == {}
    assert datalists.leaks(Datalist("n", test=(first,), unlabeled=(second,))) == {"p": {"test": ["00"], "pool": ["01"]}}


# ---- subsets and splits


@pytest.mark.parametrize("subset", range(4))
def test_subsets_are_nested_repeatable_and_take_patients_in_turn(subset):
    pool = cases("aaaabbcdefgh")
    drawn = [datalists.label_subset(pool, count, subset) for count in range(1, 13)]
    assert all(less == more[: len(less)] for less, more in pairwise(drawn))
    assert set(drawn[-1]) == set(pool)
    if subset:
        assert len({case.patient for case in drawn[7]}) == 8
        assert drawn[-1] == datalists.label_subset(pool[::-1], 12, subset)
    else:
        assert drawn[-1] == pool


def test_subsets_differ():
    pool = cases("abcdefghij")
    assert len({datalists.label_subset(pool, 10, subset) for subset in range(5)}) == 5


@pytest.mark.parametrize(("count", "subset"), [(0, 0), (-1, 0), (4, 0), (2, -1)])
def test_impossible_subsets_are_refused(count, subset):
    with pytest.raises(CourseError):
        datalists.label_subset(cases("abc") + cases("d", labeled=False), count, subset)


@pytest.mark.parametrize("seed", range(5))
def test_splits_keep_patients_whole_and_reach_their_sizes(seed):
    pool = cases("aaaaabbbccddeefghi")
    sides = datalists.split_by_patient(pool, sizes={"test": 6, "validation": 4}, seed=seed)
    assert [len(sides[side]) for side in ("test", "validation", "rest")] == [6, 4, 8]
    owners = [{case.patient for case in side} for side in sides.values()]
    assert not owners[0] & owners[1] and not owners[1] & owners[2] and not owners[0] & owners[2]
    assert sides == datalists.split_by_patient(pool, sizes={"test": 6, "validation": 4}, seed=seed)


def test_an_unreachable_size_is_met_as_nearly_as_patients_allow():
    sides = datalists.split_by_patient(cases("aaabbbccc"), sizes={"test": 4}, seed=0)
    assert len(sides["test"]) == 3
    assert len(datalists.split_by_patient(cases("aaa"), sizes={"test": 1}, seed=0)["test"]) == 3
    with pytest.raises(CourseError, match="only 3 cases"):
        datalists.split_by_patient(cases("abc"), sizes={"test": 4}, seed=0)


def test_splitting_is_quick():
    began = time.perf_counter()
    pool = tuple(Case(str(i), Path(str(i)), None, str(i // 2)) for i in range(2000))
    datalists.split_by_patient(pool, sizes={"test": 600, "validation": 300}, seed=1)
    assert time.perf_counter() - began < 5


# ---- a person's own folder


def make_folder(root: Path, names: list[str], *, content: dict | None = None) -> Path:
    for folder in ("imagesTr", "labelsTr", "imagesTs"):
        (root / folder).mkdir(parents=True)
    label = np.zeros((4, 4, 4), np.uint8)
    label[0], label[1] = 1, 5
    for name in names:
        (root / "imagesTr" / f"{name}.nii").write_bytes(nifti_bytes(np.ones((4, 4, 4, 2), np.int16)))
        (root / "labelsTr" / f"{name}.nii").write_bytes(nifti_bytes(label))
    for path in (root / "imagesTr/bare.nii", root / "imagesTs/other.nii", root / "imagesTr/._x.nii"):
        path.write_bytes(nifti_bytes(np.ones((4, 4, 4, 2), np.int16)))
    if content is not None:
        write_json(root / "dataset.json", content)
    return root


def test_a_folder_without_a_list_is_split(tmp_path):
    found = datalists.from_folder(make_folder(tmp_path / "mine", [f"c{i}" for i in range(10)]))
    assert [len(side) for side in found.sides().values()] == [5, 2, 3, 2]
    assert found.labels == {0: "background", 1: "label 1", 5: "label 5"} and found.channels == (
        "channel 0",
        "channel 1",
    )
    assert found.name == "mine" and datalists.faults(found) == []
    assert {case.id for case in found.unlabeled} == {"bare", "other"}
    assert found == datalists.from_folder(tmp_path / "mine")


def test_labels_are_read_once_to_learn_their_values(tmp_path, monkeypatch):
    root, read, read_label = make_folder(tmp_path / "mine", ["a", "b", "c", "d"]), [], volumes.read_label
    monkeypatch.setattr(volumes, "read_label", lambda path: read.append(path.name) or read_label(path))
    first = datalists.from_folder(root)
    assert datalists.from_folder(root) == first and sorted(read) == ["a.nii", "b.nii", "c.nii", "d.nii"]
    (root / "labelsTr/b.nii").write_bytes(nifti_bytes(np.full((4, 4, 4), 7, np.uint8)))
    assert datalists.from_folder(root).labels[7] == "label 7" and read[4:] == ["b.nii"]


def test_a_folder_with_a_list_keeps_patients_together(tmp_path):
    names = [f"c{i}" for i in range(12)]
    entries = [
        {"image": f"imagesTr/{name}.nii", "label": f"labelsTr/{name}.nii", "patient": i // 2}
        for i, name in enumerate(names)
    ]
    content = {
        "training": entries,
        "test": ["imagesTs/other.nii"],
        "modality": {"0": "CT"},
        "labels": {"0": "b", "1": "x"},
    }
    found = datalists.from_folder(make_folder(tmp_path / "mine", names, content=content))
    assert [len(side) for side in found.sides().values()] == [6, 2, 4, 1]
    assert datalists.leaks(found) == {} and found.channels == ("CT",) and found.labels == {0: "b", 1: "x"}
    given = content | {"training": entries[:8], "validation": entries[8:10], "test": entries[10:]}
    write_json(tmp_path / "mine/dataset.json", given)
    kept = datalists.from_folder(tmp_path / "mine")
    assert [case.id for case in kept.validation + kept.test] == names[8:] and len(kept.training) == 8


def test_a_folder_that_is_too_small_or_missing_is_refused(tmp_path):
    with pytest.raises(CourseError, match="2 patients are there, 3 are needed"):
        datalists.from_folder(make_folder(tmp_path / "two", ["a", "b"]))
    assert [len(s) for s in datalists.from_folder(make_folder(tmp_path / "3", ["a", "b", "c"])).sides().values()][
        :3
    ] == [1] * 3
    with pytest.raises(CourseError, match="no such folder"):
        datalists.from_folder(tmp_path / "none")
    (tmp_path / "empty").mkdir()
    with pytest.raises(CourseError, match=r"no dataset\.json"):
        datalists.from_folder(tmp_path / "empty")


def test_three_patients_with_many_cases_fill_three_sides(tmp_path):
    names = [f"c{i}" for i in range(10)]
    entries = [
        {"image": f"imagesTr/{n}.nii", "label": f"labelsTr/{n}.nii", "patient": min(i, 2)} for i, n in enumerate(names)
    ]
    found = datalists.from_folder(make_folder(tmp_path / "x", names, content={"training": entries}))
    assert all(found.sides()[side] for side in ("training", "validation", "test")) and datalists.leaks(found) == {}


def test_a_validation_list_without_labels_is_kept(tmp_path):
    root = tmp_path / "mine"
    content = {"training": [f"c{i}.nii" for i in range(6)], "validation": ["v0.nii", "v1.nii"]}
    for name in (*content["training"], *content["validation"]):
        volumes.write_nifti(root / name, np.ones((4, 4, 4), np.int16), np.eye(4))
    write_json(root / "dataset.json", content)
    found = datalists.from_folder(root)
    assert [case.id for case in found.validation] == ["v0", "v1"] and found.training == found.test == ()
    assert [case.id for case in found.unlabeled] == [f"c{i}" for i in range(6)]
    write_json(root / "dataset.json", content | {"training": []})
    with pytest.raises(CourseError, match="images of 0 patients are there, 1 are needed"):
        datalists.from_folder(root)


@pytest.mark.parametrize("empty", [[], None])
def test_an_empty_split_of_a_list_leaves_the_cases_of_the_folder(tmp_path, empty):
    root = make_folder(tmp_path / "mine", ["a", "b", "c"], content={"training": empty, "channels": ["x", "y"]})
    found = datalists.as_listed(root)
    assert [case.id for case in found.training] == ["a", "b", "c"] and found.channels == ("x", "y")
    assert {case.id for case in found.unlabeled} == {"bare", "other"}
