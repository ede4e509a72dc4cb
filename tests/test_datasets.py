"""Named datasets: facts, where they are looked for, and how a person's own folder is called."""

import os
import subprocess
import sys

import pytest

from ssl_utils.data import datalists, datasets
from ssl_utils.errors import CourseError


@pytest.mark.parametrize("folder", ["hippocampus", "Task04_Hippocampus"])
def test_a_dataset_is_found_under_each_of_its_names(tmp_path, monkeypatch, folder):
    monkeypatch.setenv("SSL_DATA_ROOT", str(tmp_path))
    known = datasets.get("hippocampus")
    assert datasets.locate(known) is None
    (tmp_path / folder).mkdir()
    assert datasets.locate(known) == tmp_path / folder == datasets.fetch(known, phantom_sizes=(0, 0, 0, 0))


@pytest.mark.parametrize("name", ["phantom", "hippocampus", "btcv"])
def test_a_folder_that_is_given_for_a_named_dataset_is_the_only_place(tmp_path, monkeypatch, name):
    monkeypatch.setenv("SSL_DATA_ROOT", str(tmp_path / "root"))
    known = datasets.get(name, tmp_path / "given")
    for attempt in (datasets.datalist, lambda known: datasets.fetch(known, phantom_sizes=(1, 1, 1, 1))):
        with pytest.raises(CourseError, match=f"^{tmp_path}/given: no such folder; give .* --data /path$"):
            attempt(known)
    (tmp_path / "given").mkdir()
    assert datasets.fetch(known, phantom_sizes=(1, 1, 1, 1)) == tmp_path / "given"
    assert not (tmp_path / "root").exists() and not any((tmp_path / "given").iterdir())


def test_a_given_folder_without_a_phantom_is_named(tmp_path):
    with pytest.raises(CourseError, match=f"^{tmp_path}/dataset.json: no such file; check the path"):
        datasets.datalist(datasets.get("phantom", tmp_path))


@pytest.mark.parametrize("name", datasets.REGISTRY)
def test_every_dataset_says_what_a_reader_needs(name):
    known = datasets.get(name)
    assert known.licence and known.source and known.title and known.channels and set(known.grids) == {"coarse", "fine"}
    for grid in known.grids.values():
        assert all(r % 8 == 0 for r in grid.roi), "patches of 8 fit"
    assert known.archive or known.how_to_get or known.phantom
    for listed in known.lists:
        assert datalists.read(datasets.LISTS / f"{listed}.json", root=datasets.data_root()).training


@pytest.mark.long
def test_the_phantom_only_grows(tmp_path, monkeypatch):
    monkeypatch.setenv("SSL_DATA_ROOT", str(tmp_path))
    known = datasets.get("phantom")
    root = datasets.fetch(known, phantom_sizes=(1, 2, 1, 1))
    first = {path: path.read_bytes() for path in root.rglob("*.nii.gz")}
    datasets.fetch(known, phantom_sizes=(1, 1, 1, 2))
    found = datasets.datalist(known)
    assert [len(found.sides()[side]) for side in ("unlabeled", "training", "validation", "test")] == [1, 2, 1, 2]
    assert all(path.read_bytes() == content for path, content in first.items())


@pytest.mark.parametrize(
    ("path", "name"), [("/x/My Data", "folder_my_data"), ("/x/Straße-2/", "folder_stra_e_2"), ("/x/a.b", "folder_a_b")]
)
def test_own_folders_get_a_name_that_fits_a_path(path, name):
    assert datasets.run_name("folder", path) == name


@pytest.mark.long
def test_two_who_want_the_phantom_at_once_take_turns(tmp_path, monkeypatch):
    code = (
        "import sys; from ssl_utils.data import datasets\n"
        "print(datasets.fetch(datasets.get('phantom'), phantom_sizes=(1, 1, 1, 1)))"
    )
    environment = os.environ | {"SSL_DATA_ROOT": str(tmp_path)}
    both = [
        subprocess.Popen(
            [sys.executable, "-c", code], env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        for _ in range(2)
    ]
    said = [process.communicate(timeout=300) for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    monkeypatch.setenv("SSL_DATA_ROOT", str(tmp_path))
    found = datasets.datalist(datasets.get("phantom"))
    assert [len(cases) for cases in found.sides().values()] == [1, 1, 1, 1]
    (tmp_path / "phantom" / "dataset.json").unlink()
    with pytest.raises(CourseError, match="is not complete; run: python -m ssl_utils data phantom"):
        datasets.datalist(datasets.get("phantom"))
