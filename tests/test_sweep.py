"""A thousand drawn lists and folders keep the properties of `benchmarks/sweep.py`, which notices a broken one."""

import importlib
import json

import pytest

from benchmarks import sweep
from benchmarks.drawn_folders import Drawn, bank
from ssl_utils.data import datalists, volumes
from ssl_utils.experiments import setups

DRAWS = 1000


@pytest.mark.long
@pytest.mark.timeout(600)
def test_drawn_lists_and_folders_end_in_a_result_or_in_one_line(tmp_path, monkeypatch):
    made, setup = [], setups.setup

    def counted(**words):
        made.append(setup(**words))
        return made[-1]

    monkeypatch.setattr(setups, "setup", counted)
    broken = [(drawn.seed, drawn.done, lines) for drawn, lines in sweep.sweep(range(DRAWS), tmp_path) if lines]
    assert not broken, broken[:5]
    assert DRAWS / 20 < len(made) < DRAWS, "both outcomes must be met"


@pytest.fixture
def healthy(tmp_path, monkeypatch):
    """A folder of four cases in a list, and its runs elsewhere."""
    monkeypatch.setenv("SSL_RUNS_ROOT", str(tmp_path / "runs"))
    files, root = bank(tmp_path / "bank"), tmp_path / "own"
    for folder in ("imagesTr", "labelsTr"):
        (root / folder).mkdir(parents=True)
    for number in range(4):
        (root / f"imagesTr/c{number}.nii.gz").hardlink_to(files / f"image{number}.nii.gz")
        (root / f"labelsTr/c{number}.nii.gz").hardlink_to(files / "two.nii.gz")
    assert list(sweep.faults(root)) == []
    return root


def test_the_sweep_notices_a_broken_property(healthy, monkeypatch):
    def raises(*_, **__):
        raise KeyError("x")

    with monkeypatch.context() as patch:
        patch.setattr(datalists, "as_listed", raises)
        assert any("list: traceback KeyError" in line for line in sweep.faults(healthy))
    (healthy / "imagesTr/c0.nii").write_bytes(b"")
    (healthy / "labelsTr/far.nii").write_bytes(b"")
    with monkeypatch.context() as patch:
        patch.setattr(datalists, "leftovers", lambda *_: [])
        assert [line for line in sweep.faults(healthy) if "lost: " in line and "far.nii" in line]
    (healthy / "imagesTr/c0.nii").unlink()
    (healthy / "labelsTr/far.nii").unlink()
    (healthy / "imagesTr/copy.nii.gz").hardlink_to(healthy / "imagesTr/c0.nii.gz")
    entries = [{"image": f"imagesTr/c{n}.nii.gz", "label": f"labelsTr/c{n}.nii.gz"} for n in range(3)]
    splits = {"training": entries[1:2], "validation": entries[2:], "test": entries[:1]}
    splits["unlabeled"] = ["imagesTr/copy.nii.gz"]
    (healthy / "dataset.json").write_text(json.dumps(splits))
    assert list(sweep.faults(healthy)) == [], "the setup is refused"
    with monkeypatch.context() as patch:
        patch.setenv("SSL_RUNS_ROOT", str(healthy.parent / "other_runs"))  # where no report is kept
        examine = importlib.import_module("ssl_utils.data.doctor.examine")  # the name is that of a function too
        patch.setattr(examine, "_copies", lambda *_: ())
        patch.setattr(examine.cohort, "compare", lambda *_, **__: [])
        assert any(line.startswith("leak: voxels") for line in sweep.faults(healthy, twice=False))
    with monkeypatch.context() as patch:
        read = volumes.count_channels
        patch.setattr(volumes, "count_channels", lambda path: (healthy / "x").write_text("") or read(path))
        assert "the folder was written to" in list(sweep.faults(healthy))


def test_a_seed_gives_the_same_folder_each_time(tmp_path):
    files = bank(tmp_path / "bank")
    for seed in range(30):
        roots = [Drawn(seed, tmp_path / str(n) / str(seed), files).root for n in (0, 1)]
        one, two = (
            [(p.relative_to(root), p.is_file() and p.read_bytes()) for p in sorted(root.rglob("*"))] for root in roots
        )
        assert one == two, seed
