"""Lists and folders as other tools write them: nnU-Net, the Decathlon, MONAI, BIDS, plain folders."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from commands import command

from ssl_utils import experiments
from ssl_utils.data import cache, datalists, datasets, doctor, volumes
from ssl_utils.data.cases import Case, Datalist
from ssl_utils.data.lists import nnunet
from ssl_utils.errors import CourseError
from ssl_utils.experiments import Finetuning, prediction, scales, setups
from ssl_utils.files import read_json, write_json

SIZE = 20
HIPPOCAMPUS = {"background": 0, "Anterior": 1, "Posterior": 2}
BRATS = {"background": 0, "whole tumor": [1, 2, 3], "tumor core": [2, 3], "enhancing tumor": 3}
SEQUENCES = {"0": "T1", "1": "T1ce", "2": "T2", "3": "FLAIR"}


def write(path: Path, level: float = 0.0, *, spacing: float = 1.0) -> None:
    """A ball in noise, every file another one."""
    rng = np.random.default_rng([*str(path.name).encode()])
    image = rng.normal(100 + level, 9, (SIZE,) * 3) + 60 * (ball() > 0)
    volumes.write_nifti(path, image.astype(np.float32), np.diag([spacing] * 3 + [1]))


def ball() -> np.ndarray:
    """1, 2 and 3 from the rim to the core."""
    distance = np.linalg.norm(np.indices((SIZE,) * 3).transpose(1, 2, 3, 0) - SIZE / 2, axis=-1)
    return sum((distance < radius).astype(np.uint8) for radius in (8, 6, 4))


def write_label(path: Path, most: int = 2) -> None:
    volumes.write_nifti(path, np.minimum(ball(), most), np.eye(4))


def write_list(root: Path, content: dict) -> Path:
    root.mkdir(parents=True, exist_ok=True)
    (root / "dataset.json").write_text(json.dumps(content))
    return root


def hippocampus(root: Path, **more) -> Path:
    """Dataset004_Hippocampus of nnU-Net: one channel, which file names count all the same."""
    for number in range(1, 7):
        write(root / f"imagesTr/hippocampus_{number:03d}_0000.nii.gz")
        write_label(root / f"labelsTr/hippocampus_{number:03d}.nii.gz")
    write(root / "imagesTs/hippocampus_007_0000.nii.gz")
    about = {"channel_names": {"0": "MRI"}, "labels": HIPPOCAMPUS, "numTraining": 6, "file_ending": ".nii.gz"}
    return write_list(root, about | {"overwrite_image_reader_writer": "SimpleITKIO"} | more)


def brats(root: Path, **more) -> Path:
    """BraTS in nnU-Net form: four channel files a case, regions among the labels."""
    for case in range(4):
        for channel in range(4):
            write(root / f"imagesTr/BraTS2021_{case:05d}_{channel:04d}.nii.gz", 1000 * channel)
        write_label(root / f"labelsTr/BraTS2021_{case:05d}.nii.gz", 3)
    about = {"channel_names": SEQUENCES, "labels": BRATS, "regions_class_order": [1, 2, 3], "numTraining": 4}
    return write_list(root, about | {"file_ending": ".nii.gz"} | more)


def decathlon(root: Path, **more) -> Path:
    """Task04_Hippocampus of the Decathlon, with the hidden files that its archive contains."""
    names = [f"hippocampus_{number:03d}.nii.gz" for number in range(1, 7)]
    for name in names:
        write(root / "imagesTr" / name)
        write_label(root / "labelsTr" / name)
        (root / "imagesTr" / f"._{name}").write_bytes(b"\0\5\x16\7 Mac OS X")
    write(root / "imagesTs/hippocampus_007.nii.gz")
    about = {"name": "Hippocampus", "licence": "CC-BY-SA 4.0", "relase": "1.0 04/05/2018", "tensorImageSize": "3D"}
    about |= {"modality": {"0": "MRI"}, "labels": {str(value): name for name, value in HIPPOCAMPUS.items()}}
    training = [{"image": f"./imagesTr/{name}", "label": f"./labelsTr/{name}"} for name in names]
    counted = {"numTraining": 6, "numTest": 1, "training": training, "test": ["./imagesTs/hippocampus_007.nii.gz"]}
    return write_list(root, about | counted | more)


def bids(root: Path, label: str = "derivatives/manual/{folder}/{name}_space-orig_desc-lesion_dseg.nii.gz") -> Path:
    """Four subjects, two sessions; the first session has a label."""
    for subject in range(1, 5):
        for session in (1, 2):
            folder, name = f"sub-{subject:02d}/ses-{session}/anat", f"sub-{subject:02d}_ses-{session}"
            write(root / folder / f"{name}_T1w.nii.gz")
            if session == 1:
                write_label(root / label.format(folder=folder, name=name), 1)
    (root / "dataset_description.json").write_text('{"Name": "ds", "BIDSVersion": "1.9.0"}')
    (root / "participants.tsv").write_text("participant_id\tage\nsub-01\t30\n")
    return root


LAYOUTS = {make.__name__: make for make in (hippocampus, brats, decathlon, bids)}


def ids(cases) -> list[str]:
    return [case.id for case in cases]


def refusal(root: Path) -> str:
    with pytest.raises(CourseError) as error:
        datalists.as_listed(root)
    line = str(error.value)
    assert line.startswith(str(root)) and "; " in line and "\n" not in line
    return line


# ---- the folders of four public sets


@pytest.mark.parametrize("layout", LAYOUTS)
def test_nothing_is_left_over_or_wrong_in_the_layouts_of_public_sets(tmp_path, layout):
    root = LAYOUTS[layout](tmp_path / "data")
    split = datalists.from_folder(root)
    assert all(split.sides()[side] for side in ("training", "validation", "test"))
    assert datalists.faults(split) == datalists.leftovers(root, datalists.as_listed(root)) == []
    assert doctor.examine([root]).errors == 0


def test_the_hippocampus_folder_of_nnunet(tmp_path):
    found = datalists.as_listed(hippocampus(tmp_path / "data"))
    assert ids(found.training) == [f"hippocampus_{number:03d}" for number in range(1, 7)]
    assert ids(found.unlabeled) == ["hippocampus_007"] and found.name == "data"
    assert found.channels == ("MRI",) and found.labels == {value: name for name, value in HIPPOCAMPUS.items()}
    assert found.training[0].image == tmp_path / "data/imagesTr/hippocampus_001_0000.nii.gz"
    assert found.training[0].label == tmp_path / "data/labelsTr/hippocampus_001.nii.gz"


def test_labels_of_test_images_make_the_test_split(tmp_path):
    root = hippocampus(tmp_path)
    write_label(root / "labelsTs/hippocampus_007.nii.gz")
    assert ids(datalists.from_folder(root).test) == ["hippocampus_007"]


def test_channel_files_are_stacked_in_the_order_of_the_channels(tmp_path):
    dataset = datasets.get("folder", brats(tmp_path / "data"))
    case = datasets.datalist(dataset).training[0]
    assert dataset.channels == ("T1", "T1ce", "T2", "FLAIR")
    assert [path.name[-11:] for path in case.image] == [f"{channel:04d}.nii.gz" for channel in range(4)]
    image = volumes.read_image(case.image, channels=4)
    assert image.array.shape == (4, SIZE, SIZE, SIZE) and image.array.dtype == np.float32
    assert np.round(image.array.mean((1, 2, 3)) / 1000).tolist() == [0, 1, 2, 3]
    for channel, path in enumerate(case.image):
        assert np.array_equal(volumes.read_image(path).array[0], image.array[channel])


def test_regions_among_the_labels_have_the_values_of_the_files(tmp_path):
    found = datalists.as_listed(brats(tmp_path / "data"))
    assert found.regions == {"whole tumor": (1, 2, 3), "tumor core": (2, 3), "enhancing tumor": (3,)}
    assert found.labels == {0: "background", 1: "label 1", 2: "label 2", 3: "label 3"}


def test_the_decathlon_list(tmp_path):
    found = datalists.as_listed(decathlon(tmp_path / "data"))
    assert len(found.training) == 6 and found.test == () and ids(found.unlabeled) == ["hippocampus_007"]
    assert found.channels == ("MRI",) and found.labels == {value: name for name, value in HIPPOCAMPUS.items()}
    assert found.name == "Hippocampus" and found.licence == "CC-BY-SA 4.0"


def test_subjects_and_labels_of_bids(tmp_path):
    found = datalists.as_listed(bids(tmp_path))
    assert ids(found.training) == [f"sub-{subject:02d}_ses-1_T1w" for subject in range(1, 5)]
    assert ids(found.unlabeled) == [f"sub-{subject:02d}_ses-2_T1w" for subject in range(1, 5)]
    assert found.channels == ("T1w",) and found.labels == {0: "background", 1: "label 1"}
    for case in found.all_cases():
        assert case.patient == case.id[:6] and (case.label is None or case.label.name.startswith(case.id[:12]))


# ---- channel files


def test_the_cache_follows_every_channel_file(tmp_path):
    case = datalists.as_listed(brats(tmp_path)).training[0]
    before = cache.content(case)
    assert before != cache.content(replace(case, image=case.image[::-1]))
    write(case.image[2], 77)
    assert cache.content(case) != before


def test_a_missing_channel_is_named(tmp_path):
    root = brats(tmp_path)
    (root / "imagesTr/BraTS2021_00002_0001.nii.gz").unlink()
    assert "BraTS2021_00002_0001.nii.gz: is missing, channel 1 (T1ce) of BraTS2021_00002; add it" in refusal(root)
    (root / "dataset.json").unlink()
    assert "BraTS2021_00002_0001.nii.gz: is missing, channel 1 of BraTS2021_00002; add it" in refusal(root)


def test_a_channel_without_a_name_is_refused(tmp_path):
    root = brats(tmp_path, channel_names={"0": "T1", "1": "T1ce", "2": "T2"})
    assert "BraTS2021_00000_0003.nii.gz: is channel 3 of BraTS2021_00000, where 3 are named" in refusal(root)


def test_the_same_channel_in_two_formats_is_refused(tmp_path):
    root = brats(tmp_path)
    write(root / "imagesTr/BraTS2021_00001_0000.nii")
    assert "is the same channel of BraTS2021_00001 as" in refusal(root)


def test_channels_on_different_grids_are_refused(tmp_path):
    root = brats(tmp_path)
    path = root / "imagesTr/BraTS2021_00001_0002.nii.gz"
    write(path, spacing=1.5)
    (finding,) = [finding for finding in doctor.examine([root]) if finding.severity == "error"]
    assert finding.file == str(path) and "affine differs from its image BraTS2021_00001_0000.nii.gz" in finding.reason
    assert finding.cure.startswith("resample the channel onto the image")


def test_a_missing_file_of_a_list_is_named_and_the_others_are_examined(tmp_path):
    files = [f"case_{name}.nii.gz" for name in ("t1", "t2")]
    write(tmp_path / files[0])
    write(tmp_path / "whole.nii.gz")
    root = write_list(tmp_path, {"channels": ["T1", "T2"], "unlabeled": [files]})
    ((case, reason, _),) = datalists.faults(datalists.as_listed(root))
    assert (case, reason) == ("case", f"its image {tmp_path / files[1]} is missing")
    report = doctor.examine([root])
    errors = [finding.reason for finding in report if finding.severity == "error"]
    assert len(errors) == 2 and "images of 1 patients" in errors[0] and reason in errors
    assert [Path(f.file).name for f in report if f.severity == "warning"] == ["whole.nii.gz"]


@pytest.mark.parametrize(("channels", "count"), [(["T1"], 1), (["T1", "T2", "PD"], 3)])
def test_another_number_of_files_than_of_channels_is_refused(tmp_path, channels, count):
    for name in ("t1", "t2"):
        write(tmp_path / f"c_{name}.nii.gz")
    root = write_list(tmp_path, {"channels": channels, "unlabeled": [["c_t1.nii.gz", "c_t2.nii.gz"]]})
    with pytest.raises(CourseError, match=rf"c_t1\.nii\.gz: is the first of 2 channel files where {count} channels"):
        volumes.read_image(datalists.as_listed(root).unlabeled[0].image, channels=count)


def test_numbered_cases_are_no_channels(tmp_path):
    for number in range(4):
        write(tmp_path / f"imagesTr/scan_{number:04d}.nii.gz")
        write_label(tmp_path / f"labelsTr/scan_{number:04d}.nii.gz")
    assert ids(datalists.as_listed(tmp_path).training) == [f"scan_{number:04d}" for number in range(4)]
    for number in range(4):
        (tmp_path / f"labelsTr/scan_{number:04d}.nii.gz").unlink()
    assert ids(datalists.as_listed(tmp_path).unlabeled) == [f"scan_{number:04d}" for number in range(4)]


def test_channel_files_without_labels_and_without_a_list(tmp_path):
    for case in ("a", "b"):
        for channel in range(3):
            write(tmp_path / f"imagesTr/{case}_{channel:04d}.nii.gz")
    found = datalists.as_listed(tmp_path)
    assert ids(found.unlabeled) == ["a", "b"] and found.channels == ("channel 0", "channel 1", "channel 2")


def test_what_is_written_with_channel_files_is_read_back(tmp_path):
    images = tuple(tmp_path / f"p_{name}.nii.gz" for name in ("t1", "t2"))
    listed = Datalist("n", licence="l", channels=("T1", "T2"), unlabeled=(Case("p", images, None, "p"),))
    datalists.write(listed, tmp_path / "list.json", root=tmp_path)
    assert datalists.read(tmp_path / "list.json", root=tmp_path) == listed


@pytest.mark.parametrize(
    ("images", "name"),
    [
        (["x/BraTS_01_flair.nii.gz", "x/BraTS_01_t1ce.nii.gz"], "BraTS_01"),
        (["x/BraTS-GLI-00005-000-t1n.nii.gz", "x/BraTS-GLI-00005-000-t1c.nii.gz"], "BraTS-GLI-00005-000"),
        (["case7/t1.nii.gz", "case7/t1ce.nii.gz"], "case7"),
    ],
)
def test_a_case_of_several_files_is_called_what_their_names_share(tmp_path, images, name):
    (case,) = datalists.read(write_list(tmp_path, {"training": [{"image": images}]}) / "dataset.json", root="").training
    assert case.id == name and case.image == tuple(map(Path, images))


# ---- nnU-Net


def test_the_number_of_cases_is_checked(tmp_path):
    assert "numTraining is 260, and training has 6 cases in its folder" in refusal(
        hippocampus(tmp_path, numTraining=260)
    )


def test_files_must_have_the_ending_of_the_list(tmp_path):
    root = hippocampus(tmp_path, file_ending=".nrrd")
    assert "imagesTr/hippocampus_001_0000.nii.gz does not end in .nrrd, the file_ending" in refusal(root)
    assert "files that end in '.png' (file_ending) are not read" in refusal(hippocampus(tmp_path, file_ending=".png"))


@pytest.mark.parametrize(
    ("labels", "order", "written"),
    [
        (BRATS, [1, 2, 3], None),
        ({"kidney": [1, 2, 3], "masses": [2, 3], "tumor": 2}, [1, 3, 2], None),  # KiTS 2023: 3 is the cyst
        ({"all": [1, 2, 3], "core": [2, 3]}, [1, 2], None),  # 2 and 3 are not told apart: the lower one
        (BRATS, [3, 2, 1], "writes 3 where labels have 1"),
        ({"ET": [3], "TC": [2, 3], "WT": [1, 2, 3]}, [3, 2, 1], "writes 1 where labels have 2"),
        (BRATS, [1, 2], "is not a list with one label value for each of the 3 regions"),
        ({"organ": 1}, [1, 2], None),  # without regions nnU-Net does not read it
    ],
)
def test_the_order_of_regions_gives_back_the_label_values_or_is_refused(tmp_path, labels, order, written):
    root = write_list(tmp_path, {"labels": labels, "regions_class_order": order, "unlabeled": ["a.nii"]})
    if written:
        assert written in refusal(root) and "or delete it" in refusal(root)
    else:
        datalists.read(root / "dataset.json", root=root)


def test_regions_are_named_once_and_have_values(tmp_path):
    both = {"labels": BRATS, "regions": {"WT": [1, 2, 3]}, "training": ["a.nii"]}
    assert "has regions twice" in refusal(write_list(tmp_path, both))
    assert "labels must look like" in refusal(write_list(tmp_path, {"labels": {"a": [[1]]}, "training": ["a.nii"]}))


def test_cases_of_the_key_dataset_and_of_version_1(tmp_path):
    root = brats(tmp_path)
    listed = {"one": {"images": [f"imagesTr/BraTS2021_00000_{c:04d}.nii.gz" for c in range(4)], "label": "l.nii.gz"}}
    about = {"channel_names": SEQUENCES, "labels": BRATS}
    (case,) = datalists.as_listed(write_list(root, about | {"dataset": listed})).training
    assert case.id == "one" and len(case.image) == 4 and case.label == root / "l.nii.gz"
    assert "lists cases twice" in refusal(write_list(root, about | {"dataset": listed, "training": ["a.nii"]}))
    assert "dataset must look like" in refusal(write_list(root, about | {"dataset": "BraTS"}))
    training = [{"image": "./imagesTr/BraTS2021_00001.nii.gz", "label": "./labelsTr/BraTS2021_00001.nii.gz"}]
    (case,) = datalists.as_listed(write_list(root, about | {"training": training})).training
    assert case.id == "BraTS2021_00001" and [path.name[-8:-7] for path in case.image] == ["0", "1", "2", "3"]
    (root / "imagesTr/BraTS2021_00001_0002.nii.gz").unlink()
    assert "BraTS2021_00001_0002.nii.gz: is missing, channel 2 (T2)" in refusal(root)


def test_keys_that_nobody_knows_are_named_in_a_list_of_nnunet_too(tmp_path):
    assert "key 'channelnames' is not known; did you mean channels?" in refusal(hippocampus(tmp_path, channelnames={}))


# ---- the Decathlon and MONAI


def test_numbers_that_are_not_those_of_the_list_are_findings(tmp_path):
    root = decathlon(tmp_path, numTraining=260, numTest=130)
    reasons = [reason for _, reason, _ in datalists.leftovers(root, datalists.as_listed(root))]
    assert reasons == ["numTraining is 260, and training has 6 cases", "numTest is 130, and test has 1 cases"]


def test_a_list_of_another_name_is_a_finding(tmp_path):
    root = decathlon(tmp_path)
    (root / "dataset_0.json").write_text((root / "dataset.json").read_text())
    (root / "notes.json").write_text("[1, 2")
    ((path, reason, fix),) = datalists.leftovers(root, datalists.as_listed(root))
    assert path.name == "dataset_0.json" and reason == "is a list and is not read" and "dataset.json" in fix


@pytest.mark.parametrize(("top", "held_out"), [({}, "03"), ({"fold": 1}, "14"), ({"fold": 2}, "25")])
def test_one_fold_is_validation(tmp_path, top, held_out):
    training = [{"image": f"c{number}.nii", "fold": number % 3} for number in range(6)]
    root = write_list(tmp_path, {"training": training, "testing": ["t.nii"], **top})
    found = datalists.read(root / "dataset.json", root=root)
    assert ids(found.validation) == [f"c{number}" for number in held_out] and ids(found.test) == ["t"]
    assert len(found.training) == 4 and not {*found.training} & {*found.validation}


@pytest.mark.parametrize(
    ("content", "part"),
    [
        (
            {"training": [{"image": "a.nii", "fold": 1}, {"image": "b.nii", "fold": 2}]},
            "are of folds 1, 2; name the fold",
        ),
        ({"training": [{"image": "a.nii", "fold": 0}], "fold": 5}, "validation would be fold 5"),
        ({"training": ["a.nii"], "fold": 0}, "are without a fold"),
        ({"training": [{"image": "a.nii", "fold": 0}], "validation": ["b.nii"]}, "validation cases and folds too"),
    ],
)
def test_folds_that_say_nothing_or_two_things_are_refused(tmp_path, content, part):
    assert part in refusal(write_list(tmp_path, content))


def test_paths_are_relative_or_absolute(tmp_path):
    root, store = tmp_path / "data", tmp_path / "store"
    write(root / "a.nii.gz")
    write(root / "left.nii.gz")
    write(store / "b.nii.gz")
    content = {"unlabeled": [str(root / "a.nii.gz"), str(store / "b.nii.gz"), "../store/b.nii.gz"]}
    found = datalists.as_listed(write_list(root, content))
    assert datalists.faults(replace(found, unlabeled=found.unlabeled[:2])) == []
    assert [path.name for path, *_ in datalists.leftovers(root, found)] == ["left.nii.gz"]


# ---- BIDS and plain folders


def test_images_of_several_suffixes_are_refused_with_the_choices(tmp_path):
    root = bids(tmp_path)
    write(root / "sub-01/ses-1/anat/sub-01_ses-1_FLAIR.nii.gz")
    assert "has images of 2 suffixes, FLAIR, T1w; choose in a dataset.json" in refusal(root)
    files = [f"sub-01/ses-1/anat/sub-01_ses-1_{name}.nii.gz" for name in ("T1w", "FLAIR")]
    (case,) = datalists.as_listed(write_list(root, {"channels": ["T1w", "FLAIR"], "unlabeled": [files]})).unlabeled
    assert case.id == "sub-01_ses-1" and case.patient == "sub-01" and len(case.image) == 2


def test_several_labels_of_an_image_are_refused(tmp_path):
    root = bids(tmp_path)
    write_label(root / "derivatives/brains/sub-01/ses-1/sub-01_ses-1_desc-brain_mask.nii.gz", 1)
    line = refusal(root)
    assert "sub-01_ses-1_T1w.nii.gz: has 2 labels" in line and "brain_mask" in line and "dataset.json" in line


@pytest.mark.parametrize(
    ("label", "count"),
    [
        ("derivatives/a/b/{name}_mask.nii.gz", 4),
        ("{folder}/{name}_label-L_mask.nii.gz", 4),  # beside the image
        ("derivatives/{name}_space-T1w_dseg.nii.gz", 4),
        ("derivatives/{name}_space-MNI152_dseg.nii.gz", 0),
        ("derivatives/{name}_run-2_dseg.nii.gz", 0),
        ("derivatives/{name}_desc-preproc_T1w.nii.gz", 0),
    ],
)
def test_a_label_belongs_to_the_image_whose_entities_it_has(tmp_path, label, count):
    root = bids(tmp_path, label)
    found = datalists.as_listed(root)
    assert len(found.training) == count and len(found.unlabeled) == 8 - count
    assert len(datalists.leftovers(root, found)) == 4 - count


def test_other_scans_of_bids_are_left_over(tmp_path):
    root = bids(tmp_path)
    write(root / "sub-01/ses-1/func/sub-01_ses-1_task-rest_bold.nii.gz")
    write(root / "sub-01/ses-1/anat/sub-01_ses-1_defacemask.nii.gz")
    found = datalists.leftovers(root, datalists.from_folder(root))
    left = {path.name[13:]: reason for path, reason, _ in found}
    assert not any("delete" in fix for path, _, fix in found if "T1w" not in path.name), "they are the data of others"
    assert {*left} == {"defacemask.nii.gz", "task-rest_bold.nii.gz", "T1w.nii.gz"}
    assert "other images of its patient" in left["T1w.nii.gz"] and "no case" in left["defacemask.nii.gz"]


def test_subjects_without_anat_are_loose_volumes(tmp_path):
    write(tmp_path / "sub-01/scan.nii.gz")
    assert "has no dataset.json and no volume in imagesTr, images, sub-*/anat or itself" in refusal(tmp_path)
    assert [case.name for case in doctor.examine([tmp_path]).cases] == [str(tmp_path / "sub-01/scan.nii.gz")]
    write_label(tmp_path / "sub-01/anat/sub-01_dseg.nii.gz")
    assert "has no image in sub-*/anat; add some" in refusal(tmp_path)


def test_plain_folders(tmp_path):
    for number in range(3):
        write(tmp_path / f"flat/c{number}.nii.gz")
        write(tmp_path / f"pair/images/c{number}.nii.gz")
        write_label(tmp_path / f"pair/labels/c{number}.nii.gz")
    assert ids(datalists.as_listed(tmp_path / "flat").unlabeled) == ["c0", "c1", "c2"]
    assert ids(datalists.as_listed(tmp_path / "pair").training) == ["c0", "c1", "c2"]
    write_label(tmp_path / "flat/c0_seg.nii.gz")
    assert "c0_seg.nii.gz: is called a label and lies among the images; put" in refusal(tmp_path / "flat")


def test_labels_of_which_none_has_an_image_are_refused(tmp_path):
    for number in range(3):
        write(tmp_path / f"images/c{number}.nii.gz")
        write_label(tmp_path / f"labels/c{number}_label.nii.gz")
    assert "c0_label.nii.gz: is one of 3 labels, none of which has the name of an image; call" in refusal(tmp_path)


def test_a_list_may_name_labels_and_leave_the_cases_to_the_folder(tmp_path):
    root = write_list(bids(tmp_path), {"channels": ["MRI"], "labels": {"0": "background", "1": "lesion"}})
    found = datalists.as_listed(root)
    assert found.labels[1] == "lesion" and found.channels == ("MRI",) and len(found.training) == 4


# ---- commands


def saved_model(root: Path) -> Path:
    setup = setups.Setup(datasets.get("folder", root), scales.get("smoke"))
    network, _ = experiments.build_network(setup, Finetuning(init="random", seed=0))
    prediction.save_network(root.parent / "model.safetensors", network, setup, init="random")
    return root.parent / "model.safetensors"


def test_predict_takes_the_channel_files_of_a_case(tmp_path, monkeypatch):
    root = brats(tmp_path / "data")
    model, out, seen = saved_model(root), tmp_path / "out", []
    monkeypatch.setattr(
        prediction, "predict_case", lambda setup, net, image, **_: seen.append(image) or np.ones((3, 1, 1, 1))
    )
    whole = np.stack([volumes.read_image(path).array[0] for path in sorted(root.glob("imagesTr/*00003_*"))], -1)
    volumes.nib.save(volumes.nib.Nifti1Image(whole, np.eye(4)), root / "imagesTr/fourd_0001.nii.gz")
    monkeypatch.setattr(prediction.metrics, "label_map", lambda *_, **__: np.zeros((SIZE,) * 3, np.uint8))
    assert command(monkeypatch, "predict", model, root / "imagesTr", "--output", out) == (0, "")
    names = [*(f"BraTS2021_{case:05d}" for case in range(4)), "fourd_0001"]
    assert sorted(path.name for path in out.iterdir()) == [f"{name}.nii.gz" for name in names]
    assert len(seen) == 5 and all(image.array.shape[0] == 4 for image in seen)
    assert np.array_equal(seen[0].array, seen[4].array), "4D and channel files are the same image"
    one = root / "imagesTr/BraTS2021_00001_0000.nii.gz"
    code, line = command(monkeypatch, "predict", model, one, "--output", out)
    assert code == 1 and "BraTS2021_00001_0001.nii.gz: is missing, channel 1 (T1ce) of BraTS2021_00001; add it" in line


def test_predict_names_results_as_nnunet_names_labels(tmp_path, monkeypatch):
    root = hippocampus(tmp_path / "data")
    model, out = saved_model(root), tmp_path / "out"
    monkeypatch.setattr(prediction, "predict_case", lambda *_, **__: np.zeros((SIZE,) * 3, np.uint8))
    assert command(monkeypatch, "predict", model, root / "imagesTs", "--output", out) == (0, "")
    assert [path.name for path in out.iterdir()] == ["hippocampus_007.nii.gz"]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_no_label_map_is_written_beside_the_images(tmp_path, monkeypatch, layout):
    root = LAYOUTS[layout](tmp_path / "data")
    folder = datalists.from_folder(root).test[0].files[0][1].parent
    before, aside = sorted(folder.iterdir()), tmp_path / "aside"
    aside.symlink_to(folder)
    for output in (folder, aside):
        code, line = command(monkeypatch, "predict", saved_model(root), folder, "--output", output, "--overwrite")
        assert code == 1 and sorted(folder.iterdir()) == before
        assert "choose another --output folder" in line and "\n" not in line.strip()


def test_names_of_channel_files_have_four_digits():
    assert nnunet.is_channel(Path("CASE_0000.nii.gz")) and not nnunet.is_channel(Path("CASE_000.nii.gz"))


@pytest.mark.long
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_new_user_goes_from_the_folder_to_a_prediction(tmp_path, tiny_setup, monkeypatch, layout):
    root = LAYOUTS[layout](tmp_path / layout)
    monkeypatch.setenv("SSL_RUNS_ROOT", str(tmp_path / "runs"))
    monkeypatch.setitem(scales.SCALES, "smoke", tiny_setup.scale)
    own = ("--dataset", "folder", "--scale", "smoke", "--data", root)
    assert command(monkeypatch, "doctor", *own) == (0, "")
    assert command(monkeypatch, "pretrain", "simmim", *own) == (0, "")
    assert command(monkeypatch, "finetune", "simmim", "--num-labeled", 2, *own) == (0, "")
    (model,) = (tmp_path / "runs").rglob("model.safetensors")
    card = model.with_name("README.md").read_text()
    assert ("`CASE_0003.nii.gz` (FLAIR)" in card) == (layout == "brats")
    case = datalists.from_folder(root).test[0]
    files = [path for kind, path in case.files if kind == "image"]
    assert command(monkeypatch, "predict", model, *files, "--output", tmp_path / "out") == (0, "")
    (written,) = (tmp_path / "out").iterdir()
    assert written.name == f"{case.id}.nii.gz"
    values = datalists.as_listed(root).labels
    assert volumes.read_label(written, values=values).shape == volumes.read_label(case.label).shape


# ---- values that would mean another thing, or nothing


def changed(root: Path, key: str, value) -> Path:
    """A list of six cases in which the first has that value, or the list itself has."""
    content = json.loads((decathlon(root) / "dataset.json").read_text())
    (content["training"][0] if key in ("image", "label", "patient", "id", "fold") else content)[key] = value
    (root / "dataset.json").write_text(json.dumps(content))
    return root


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("labels", {"a": float("inf")}, "labels must look like"),
        ("regions", {"W": [float("inf")]}, "regions must look like"),
        ("regions", {"W": [1.5]}, "regions must look like"),  # not 1
        ("regions", {"W": "12"}, "regions must look like"),  # not 1 and 2
        ("patient", 7.0, "patient 7.0 is neither text nor a whole number"),
        ("patient", ["7"], "patient ['7'] is neither"),
        ("id", True, "id True is neither"),
        ("image", "imagesTr/a\0b.nii.gz", "has a zero byte"),
        ("label", "y" * 300, "too long for a file"),
        ("name", "caf\udce9", r"'caf\udce9' is not UTF-8"),
    ],
)
def test_a_value_that_cannot_be_meant_is_refused_by_name(tmp_path, key, value, words):
    assert words in refusal(changed(tmp_path, key, value))


def test_channels_are_numbered_by_digits_alone(tmp_path):
    root = write_list(tmp_path, {"channels": {"²": "x", "0": "y"}, "unlabeled": ["a.nii.gz"]})
    assert datalists.as_listed(root).channels == ("x", "y")


def test_channels_of_a_list_without_cases_are_a_list(tmp_path):
    assert "channels must be a list" in refusal(write_list(hippocampus(tmp_path), {"channels": 7}))


def test_json_may_begin_with_a_byte_order_mark(tmp_path):
    """As Notepad writes it."""
    root = write_list(tmp_path, {"unlabeled": ["é.nii.gz"]})
    text = (root / "dataset.json").read_text(encoding="utf-8")
    (root / "dataset.json").write_text(text, encoding="utf-8-sig")
    assert ids(datalists.as_listed(root).unlabeled) == ["é"]


def test_json_may_be_too_deep(tmp_path):
    (tmp_path / "dataset.json").write_text("[" * 100_000)
    assert "is not readable JSON" in refusal(tmp_path)


def test_a_file_or_folder_whose_name_is_not_utf8_is_refused(tmp_path):
    for root, name in ((tmp_path / "own", "caf\udce9"), (tmp_path / "caf\udce9", "a")):
        write(root / "imagesTr/b.nii.gz")
        (root / "imagesTr/b.nii.gz").rename(root / f"imagesTr/{name}.nii.gz")
        assert r"caf\udce9" in refusal(root) and "is not UTF-8" in refusal(root)
        assert datasets.run_name("folder", str(root)) == f"folder_{'own' if root.name == 'own' else 'caf'}"
    report = tmp_path / "report.json"
    write_json(report, {"file": "caf\udce9"})  # as a finding may name a file that no case uses
    assert read_json(report) == {"file": "caf\udce9"}
