"""The command line: each command does its work, and bad input ends with one line and an exit code that is not 0."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest

from course import __main__ as course_cli
from ssl_utils import __main__ as cli, experiments
from ssl_utils.data import volumes
from ssl_utils.errors import CourseError
from ssl_utils.experiments import scales, setups
from tests.conftest import write_blob


@pytest.fixture
def roots(tmp_path, monkeypatch):
    monkeypatch.setenv("SSL_RUNS_ROOT", str(tmp_path / "runs"))
    monkeypatch.setenv("SSL_DATA_ROOT", str(tmp_path / "data"))
    return tmp_path


def run(monkeypatch, capsys, *words) -> tuple[int, str, str]:
    """The command in this process: exit code, output, errors."""
    monkeypatch.setattr(sys, "argv", ["ssl_utils", *map(str, words)])
    try:
        cli.main()
        code = 0
    except SystemExit as stop:
        code = stop.code
        if isinstance(code, str):
            print(code, file=sys.stderr)
            code = 1
    captured = capsys.readouterr()
    return code or 0, captured.out, captured.err


@pytest.fixture
def tiny_scale(monkeypatch, tiny_setup):
    monkeypatch.setitem(scales.SCALES, "smoke", tiny_setup.scale)


@pytest.mark.long
def test_own_folder_from_data_to_prediction(roots, blobs, tiny_scale, monkeypatch, capsys):
    own = ("--dataset", "folder", "--data", blobs, "--scale", "smoke")
    code, out, _ = run(monkeypatch, capsys, "data", "folder", "--data", blobs, "--scale", "smoke")
    assert code == 0 and "My Blobs" in out
    assert run(monkeypatch, capsys, "doctor", *own)[0] == 0
    for task in ("restoration", "simmim"):
        assert run(monkeypatch, capsys, "pretrain", task, *own)[0] == 0
    code, out, _ = run(monkeypatch, capsys, "finetune", "simmim", "--num-labeled", 2, *own)
    assert code == 0 and "on 2 test cases" in out
    monkeypatch.setattr(sys, "argv", ["course", "status", *map(str, own)])
    with pytest.raises(SystemExit):
        course_cli.app()
    assert "3 done" in capsys.readouterr().out
    (model,) = (roots / "runs").rglob("model.safetensors")
    image = blobs / "imagesTr" / "blob_00.nii.gz"
    turned = nib.Nifti1Image(np.asarray(nib.load(image).dataobj)[::-1], np.diag([-1.0, 1, 1, 1]))
    nib.save(turned, roots / "turned.nii.gz")
    code, *_ = run(monkeypatch, capsys, "predict", model, image, roots / "turned.nii.gz", "--output", roots / "out")
    assert code == 0
    one, two = (nib.load(roots / "out" / name) for name in ("blob_00.nii.gz", "turned.nii.gz"))
    assert one.shape == (24, 24, 24) and np.allclose(two.affine, turned.affine)
    assert set(np.unique(one.dataobj)) <= {0, 1, 2}
    np.testing.assert_array_equal(np.asarray(one.dataobj), np.asarray(two.dataobj)[::-1])


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["data", "nope"], "dataset='nope': no such dataset; choose one of phantom"),
        (["data", "folder"], "add DATA=/path/to/folder"),
        (["data", "btcv"], "needs a registration"),
        (["data", "tcia_covid19"], "cancerimagingarchive.net"),
        (["data", "folder", "--data", "/no/such"], "/no/such: no such folder"),
        (["pretrain", "simmim", "--scale", "tiny"], "scale='tiny': no such scale"),
        (["pretrain", "simmim"], "dataset phantom: is not in"),
        (["predict", "no.safetensors", "x.nii.gz"], "no.safetensors: no such file"),
        (["doctor", "--dataset", "hippocampus"], "dataset hippocampus: is not in"),
        (
            ["doctor", "x.nii.gz", "--roi", "16"],
            "--data, --spacing, --roi and --patch-size are of a whole dataset; leave",
        ),
        (
            ["doctor", "x.nii.gz", "--data", "x"],
            "--data, --spacing, --roi and --patch-size are of a whole dataset; leave",
        ),
    ],
)
def test_bad_words_end_in_one_line(roots, monkeypatch, capsys, words, line):
    code, _, err = run(monkeypatch, capsys, *words)
    assert code != 0 and line in err and len(err.strip().splitlines()) == 1, err


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["pretrain", "mea"], "task='mea': unknown; choose one of restoration, "),
        (["pretrain", "simmim", "--mask-ratio", "1.5"], "mask_ratio=1.5: must be above 0 and below 1"),
        (["finetune", "simmim", "--num-labeled", "2"], "run chapter 03_simmim_masking first"),
        (["finetune", "nothing", "--num-labeled", "2"], "choose random or the name of a pretraining run"),
        (["finetune", "random", "--num-labeled", "99"], "num_labeled=99"),
    ],
)
def test_bad_values_end_in_one_line(roots, blobs, tiny_scale, monkeypatch, capsys, words, line):
    own = ("--dataset", "folder", "--data", blobs, "--scale", "smoke")
    code, _, err = run(monkeypatch, capsys, *words, *own)
    assert code != 0 and line in err and len(err.strip().splitlines()) == 1, err


def damage_truncate(folder):
    path = folder / "imagesTr" / "blob_01.nii.gz"
    path.write_bytes(path.read_bytes()[:3000])


def damage_nan(folder):
    volumes.write_nifti(folder / "imagesTr" / "blob_01.nii.gz", np.full((24, 24, 24), np.nan, np.float32), np.eye(4))


def damage_4d(folder):
    nib.save(nib.Nifti1Image(np.zeros((24, 24, 24, 2), np.int16), np.eye(4)), folder / "imagesTr" / "blob_01.nii.gz")


def damage_affine(folder):
    label = np.asarray(nib.load(folder / "labelsTr" / "blob_01.nii.gz").dataobj)
    volumes.write_nifti(folder / "labelsTr" / "blob_01.nii.gz", label, np.diag([2.0, 1, 1, 1]))


@pytest.mark.long
@pytest.mark.parametrize("damage", [damage_truncate, damage_nan, damage_4d, damage_affine])
def test_a_damaged_volume_stops_training_and_the_doctor_in_one_line(roots, tiny_scale, monkeypatch, capsys, damage):
    folder = roots / "own"
    for number in range(6):
        write_blob(folder, number)
    damage(folder)
    own = ("--dataset", "folder", "--data", folder, "--scale", "smoke")
    code, out, err = run(monkeypatch, capsys, "doctor", *own)
    assert code == 1 and "blob_01" in out + err and "Traceback" not in out + err
    codes, errors = [], ""
    finetunes = ["finetune", "random", "--num-labeled", "1"], ["finetune", "--num-labeled", "3"]
    for words in (["pretrain", "simmim"], *finetunes):
        code, out, err = run(monkeypatch, capsys, *words, *own)
        codes.append(code)
        errors += err
        assert "Traceback" not in err
    assert 1 in codes and "blob_01" in errors


def test_a_full_disk_is_one_line_and_leaves_no_result(roots, blobs, tiny_scale, monkeypatch, capsys):
    import ssl_utils.networks.checkpoints as checkpoints

    def full(*_, **__):
        raise OSError(28, "No space left on device", "encoder.safetensors")

    monkeypatch.setattr(checkpoints, "to_safetensors", full)
    own = ("--dataset", "folder", "--data", blobs, "--scale", "smoke")
    code, _, err = run(monkeypatch, capsys, "pretrain", "simmim", *own)
    assert code != 0 and "No space left on device" in err and len(err.strip().splitlines()) == 1
    assert not list((roots / "runs").rglob("metrics.json")) and not list((roots / "runs").rglob(".tmp-*"))


@pytest.mark.long
def test_ctrl_c_stops_and_the_next_run_goes_on(roots, blobs):
    words = [
        sys.executable,
        "-m",
        "ssl_utils",
        "finetune",
        "--num-labeled",
        "2",
        "--dataset",
        "folder",
        "--data",
        str(blobs),
        "--scale",
        "smoke",
        "--budget",
        "100",
    ]
    process = subprocess.Popen(
        words,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # tests in the background are deaf to it
    )
    deadline = time.time() + 240
    while not list((roots / "runs").rglob("last.ckpt")) and time.time() < deadline:
        time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode != 0 and "Traceback" not in err, err
    assert not list((roots / "runs").rglob("metrics.json"))
    (last,) = (roots / "runs").rglob("last.ckpt")
    assert last.stat().st_size > 1000


def test_setup_refuses_a_faulty_list(tiny_setup, monkeypatch):
    shared = replace(tiny_setup.datalist, test=tiny_setup.datalist.training[:1])
    monkeypatch.setattr(setups.datasets, "datalist", lambda dataset: shared)
    with pytest.raises(CourseError, match="blob_"):
        experiments.setup(dataset="folder", scale=tiny_setup.scale, data=str(tiny_setup.dataset.root))
