"""Lists for nnU-Net and MONAI: the same cases in the same split, by links, with the fingerprint of the split."""

from dataclasses import replace

import numpy as np
import pytest

from ssl_utils import __main__ as cli
from ssl_utils.data import datalists, volumes
from ssl_utils.data.lists import peers
from ssl_utils.errors import CourseError
from ssl_utils.files import read_json


def names(cases) -> list[str]:
    return [case.id for case in cases]


def test_nnunet_trains_and_validates_on_the_split(tiny_setup, tmp_path):
    split = replace(tiny_setup.datalist, training=tiny_setup.datalist.training[:3])
    folder = peers.write_nnunet(split, tmp_path / "Dataset501_Blobs")
    about, (fold,) = read_json(folder / "dataset.json"), read_json(folder / "splits_final.json")
    assert fold == {"train": names(split.training), "val": names(split.validation)}
    assert about["numTraining"] == 4 and about["file_ending"] == ".nii.gz"
    assert about["channel_names"] == {"0": split.channels[0]} and about["labels"]["background"] == 0
    for case in (*split.training, *split.validation):
        image, label = folder / "imagesTr" / f"{case.id}_0000.nii.gz", folder / "labelsTr" / f"{case.id}.nii.gz"
        assert image.resolve() == case.image.resolve() and label.resolve() == case.label.resolve()
    assert len([*(folder / "imagesTr").iterdir()]) == len([*(folder / "labelsTr").iterdir()]) == 4
    assert len([*(folder / "imagesTs").iterdir()]) == len(split.test)
    assert read_json(folder / "split.json")["fingerprint"] == peers.fingerprint(split)


def test_a_copy_for_the_decathlon_has_the_fingerprint_of_the_split(tiny_setup, tmp_path):
    split = tiny_setup.datalist
    folder = peers.write_msd(split, tmp_path / "blobs", copy=True)
    again = datalists.read(folder / "dataset.json", root=folder)
    assert not any(path.is_symlink() for path in folder.rglob("*"))
    assert peers.fingerprint(again) == peers.fingerprint(split) == read_json(folder / "split.json")["fingerprint"]
    more = replace(split, training=split.training[1:], unlabeled=split.training[:1])
    written = [write(more, tmp_path / f"Dataset00{n}_More") for n, write in enumerate(peers.PEERS.values())]
    assert {read_json(other / "split.json")["fingerprint"] for other in written} == {peers.fingerprint(more)}
    fewer = replace(split, training=split.training[:2])
    assert peers.fingerprint(fewer) != peers.fingerprint(split)
    about = read_json(folder / "dataset.json")
    assert about["modality"] == {"0": split.channels[0]} and about["numTest"] == len(split.test)


def test_channels_of_one_file_become_files_and_regions_are_read_again(tiny_setup, tmp_path):
    """4D and uncompressed files are written anew; a file for each channel is linked."""
    first, second, third = tiny_setup.datalist.training[:3]
    array = np.random.default_rng(0).normal(size=(24, 24, 24, 2)).astype(np.float32)
    import nibabel as nib

    nib.save(nib.Nifti1Image(array, np.eye(4)), tmp_path / "both.nii")
    parts = tuple(tmp_path / f"part_{number}.nii.gz" for number in range(2))
    for part in parts:
        volumes.write_nifti(part, array[..., 0], np.eye(4))
    split = replace(
        tiny_setup.datalist,
        channels=("T1", "T2"),
        labels={0: "background", 1: "label 1", 2: "label 2"},
        regions={"core": (2,), "whole": (1, 2)},
        training=(replace(first, image=tmp_path / "both.nii"), replace(second, image=parts)),
        validation=(replace(third, image=parts),),
        test=(),
    )
    folder = peers.write_nnunet(split, tmp_path / "Dataset007_Two")
    written = volumes.read_image(folder / "imagesTr" / f"{first.id}_0001.nii.gz")
    assert np.array_equal(written.array[0], array[..., 1])
    assert (folder / "imagesTr" / f"{second.id}_0001.nii.gz").resolve() == parts[1].resolve()
    about = read_json(folder / "dataset.json")
    assert list(about["labels"]) == ["background", "whole", "core"] and about["regions_class_order"] == [1, 2]
    again = datalists.as_listed(folder)  # which checks the order
    assert again.regions == {"whole": (1, 2), "core": (2,)} and len(again.training) == 3


def test_what_nnunet_cannot_read_is_refused(tiny_setup, tmp_path):
    split, folder = tiny_setup.datalist, tmp_path / "Dataset001_X"
    bare = replace(split.training[0], label=None)
    for wrong, words in (
        (replace(split, labels={0: "background", 1: "a", 4: "b"}), "label values 0, 1, 4: nnU-Net wants 0, 1, 2"),
        (replace(split, regions={"one": (1, 2), "other": (1, 2)}), "region one: has no value of its own"),
        (replace(split, training=(bare,)), "has no label; move it to unlabeled"),
    ):
        with pytest.raises(CourseError, match=words):
            peers.write_nnunet(wrong, folder)
    with pytest.raises(CourseError, match="nnU-Net wants a name such as Dataset501_Trunk"):
        peers.write_nnunet(split, tmp_path / "trunk")
    folder.mkdir()
    (folder / "file").touch()
    for write in peers.PEERS.values():
        with pytest.raises(CourseError, match="is not empty"):
            write(split, folder)
        with pytest.raises(CourseError, match=r"Dataset001_X/file is a file; choose another folder"):
            write(split, folder / "file" / "Dataset002_Y")


@pytest.mark.parametrize("copy", [True, False])
@pytest.mark.parametrize("name", ["x" * 300 + ".nii.gz", "file/beside.nii.gz", "gone.nii.gz"])
def test_a_file_that_cannot_be_read_is_named_and_not_the_folder(tiny_setup, tmp_path, name, copy):
    (tmp_path / "file").touch()
    image = tmp_path / name
    split = replace(tiny_setup.datalist, training=(replace(tiny_setup.datalist.training[0], image=image),))
    with pytest.raises(CourseError, match=f"^{image}: cannot be read; check its name and permissions"):
        peers.write_msd(split, tmp_path / "out", copy=copy)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file"]


def test_the_command_writes_a_label_subset(blobs, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("SSL_RUNS_ROOT", str(tmp_path / "runs"))
    folder = tmp_path / "Dataset502_Blobs"
    words = ["export-list", "folder", str(folder), "--data", str(blobs), "--scale", "smoke", "--num-labeled", "2"]
    monkeypatch.setattr("sys.argv", ["ssl_utils", *words])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    split = read_json(folder / "split.json")
    assert not stop.value.code and split["fingerprint"] in capsys.readouterr().out
    monkeypatch.setattr("sys.argv", ["ssl_utils", *words[:-2], "--subset", "1"])
    with pytest.raises(SystemExit, match="error: subset=1: all volumes are in every subset; give --num-labeled too"):
        cli.main()
    assert len(split["cases"]["training"]) == 2 == len(read_json(folder / "splits_final.json")[0]["train"])
