"""Named datasets: facts, where they are looked for, and downloads that can be trusted."""

import hashlib
import http.server
import io
import os
import subprocess
import sys
import tarfile
import threading

import pytest

from ssl_utils.data import datalists, datasets, download
from ssl_utils.errors import CourseError


def archive(members: dict[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        for name, content in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return stream.getvalue()


GOOD = archive({"Task/dataset.json": b"{}", "Task/imagesTr/a.nii.gz": bytes(3_000_000)})


@pytest.fixture
def server():
    """A web server on this machine that can go on in the middle of a file, and says what it was asked for."""
    content, asked = {}, []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            body, start = content[self.path], 0
            asked.append(self.headers.get("Range"))
            if asked[-1]:
                start = int(asked[-1].removeprefix("bytes=").rstrip("-"))
            if start and start >= len(body):
                self.send_error(416)
                return
            self.send_response(206 if start else 200)
            self.send_header("Content-Length", str(len(body) - start))
            self.end_headers()
            self.wfile.write(body[start:])

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as found:
        threading.Thread(target=found.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{found.server_port}", content, asked
        found.shutdown()


def fetch(url, body, folder):
    md5 = hashlib.md5(body, usedforsecurity=False).hexdigest()
    return download.fetch_archive(f"{url}/Task.tar", md5=md5, folder=folder, licence="CC-BY")


def test_a_download_is_checked_unpacked_and_cleared_away(server, tmp_path, capsys):
    url, content, _ = server
    content["/Task.tar"] = GOOD
    assert fetch(url, GOOD, tmp_path) == tmp_path / "Task"
    assert sorted(p.name for p in tmp_path.rglob("*") if p.is_file()) == ["a.nii.gz", "dataset.json"]
    assert "CC-BY" in capsys.readouterr().out


@pytest.mark.parametrize("have", [1000, len(GOOD)])
def test_a_broken_off_download_goes_on(server, tmp_path, have):
    url, content, asked = server
    content["/Task.tar"] = GOOD
    (tmp_path / "Task.tar.part").write_bytes(GOOD[:have])
    assert (fetch(url, GOOD, tmp_path) / "dataset.json").exists()
    assert asked == [f"bytes={have}-"]


def test_a_wrong_checksum_is_refused_and_not_kept(server, tmp_path):
    url, content, _ = server
    content["/Task.tar"] = GOOD[:-600] + bytes([1]) * 600
    with pytest.raises(CourseError, match=r"has MD5 .* instead of"):
        fetch(url, GOOD, tmp_path)
    assert not list(tmp_path.iterdir())


def test_an_archive_that_would_write_outside_its_folder_is_refused(server, tmp_path):
    url, content, _ = server
    content["/Task.tar"] = bad = archive({"Task/a": b"a", "../outside.txt": b"b"})
    folder = tmp_path / "data"
    folder.mkdir()
    with pytest.raises(CourseError, match="not to be trusted"):
        fetch(url, bad, folder)
    assert not list(tmp_path.rglob("outside.txt")), "nothing of a refused archive stays"


def test_no_connection_is_one_line(tmp_path):
    with pytest.raises(CourseError, match=r"cannot be downloaded .* run again .it resumes."):
        fetch("http://127.0.0.1:9", GOOD, tmp_path)


def test_hippocampus_comes_from_the_address_that_monai_knows():
    from monai.apps import DecathlonDataset

    known = datasets.get("hippocampus")
    assert known.url == DecathlonDataset.resource["Task04_Hippocampus"]
    assert known.md5 == DecathlonDataset.md5["Task04_Hippocampus"]


@pytest.mark.parametrize("folder", ["hippocampus", "Task04_Hippocampus"])
def test_a_dataset_is_found_under_each_of_its_names(tmp_path, monkeypatch, folder):
    monkeypatch.setenv("SSL_DATA_ROOT", str(tmp_path))
    known = datasets.get("hippocampus")
    assert datasets.locate(known) is None
    (tmp_path / folder).mkdir()
    assert datasets.locate(known) == tmp_path / folder == datasets.fetch(known, phantom_sizes=(0, 0, 0, 0))


@pytest.mark.parametrize("name", datasets.REGISTRY)
def test_every_dataset_says_what_a_reader_needs(name):
    known = datasets.get(name)
    assert known.licence and known.source and known.title and known.channels and set(known.grids) == {"coarse", "fine"}
    for grid in known.grids.values():
        assert all(r % 8 == 0 for r in grid.roi), "patches of 8 fit"
    assert known.url or known.how_to_get or name == "phantom"
    for listed in known.lists:
        assert datalists.read(datasets.LISTS / f"{listed}.json", root=datasets.data_root()).training


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


def test_two_who_want_the_phantom_at_once_take_turns(tmp_path, monkeypatch):
    code = (
        "import sys; from ssl_utils.data import datasets\n"
        "print(datasets.fetch(datasets.get('phantom'), phantom_sizes=(1, 1, 1, 1)))"
    )
    environment = os.environ | {"SSL_DATA_ROOT": str(tmp_path)}
    both = [
        subprocess.Popen([sys.executable, "-c", code], env=environment, text=True, stdout=subprocess.PIPE,
                         stderr=subprocess.PIPE) for _ in range(2)
    ]  # fmt: skip
    said = [process.communicate(timeout=300) for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    monkeypatch.setenv("SSL_DATA_ROOT", str(tmp_path))
    found = datasets.datalist(datasets.get("phantom"))
    assert [len(cases) for cases in found.sides().values()] == [1, 1, 1, 1]
    (tmp_path / "phantom" / "dataset.json").unlink()
    with pytest.raises(CourseError, match="is not complete; run: python -m ssl_utils data phantom"):
        datasets.datalist(datasets.get("phantom"))
