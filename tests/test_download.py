"""Downloads from a server that errs, lies or breaks off, and archives made to do harm.

`localhost.pem` holds a certificate for this machine and its key, good for these tests alone:
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 36500 -subj /CN=localhost
-addext subjectAltName=IP:127.0.0.1 -addext keyUsage=critical,digitalSignature,keyCertSign
"""

import gzip
import hashlib
import http.server
import io
import shutil
import ssl
import tarfile
import threading
from collections import namedtuple
from dataclasses import replace
from pathlib import Path

import pytest
from test_openkbp import head, write_patient

from ssl_utils.data import archives, datasets, download, openkbp
from ssl_utils.errors import CourseError

CERTIFICATE = Path(__file__).with_name("localhost.pem")


def entry(name: str, size: int = 0, kind: bytes = tarfile.REGTYPE, **more) -> tarfile.TarInfo:
    found = tarfile.TarInfo(name)
    found.size, found.type = size, kind
    for key, value in more.items():
        setattr(found, key, value)
    return found


def tar_of(*members: tarfile.TarInfo) -> bytes:
    """An archive with the members as they are given, and zeros for their content."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        for member in members:
            tar.addfile(member, io.BytesIO(bytes(member.size)))
    return stream.getvalue()


GOOD = tar_of(entry("Task/dataset.json", 2), entry("Task/imagesTr/a.nii.gz", 3_000_000))
WHOLE = ["Task", "Task/dataset.json", "Task/imagesTr", "Task/imagesTr/a.nii.gz"]


class Server:
    """What it serves, how it errs (`odd`), and what it was asked for."""

    def __init__(self, port: int) -> None:
        self.url, self.body, self.odd, self.asked = f"https://127.0.0.1:{port}/Task.tar", GOOD, "", []

    def archive(self, **known) -> download.Archive:
        return download.Archive(self.url, **{"checksum": f"sha256:{hashlib.sha256(GOOD).hexdigest()}", **known})


@pytest.fixture
def server(monkeypatch):
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            wanted, body, odd = self.headers.get("Range"), found.body, found.odd
            found.asked.append(wanted)
            if odd.startswith(("http:", "ftp:", "file:")) or (odd == "moved" and len(found.asked) == 1):
                self.send_response(302)
                self.send_header("Location", found.url if odd == "moved" else odd)
                return self.end_headers()
            start = int(wanted[6:-1]) if wanted and odd != "no ranges" else 0
            if start and start >= len(body):
                return self.send_error(416)
            if odd == "elsewhere":
                start -= 10
            self.send_response(206 if start else 200)
            if start:
                self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
            if odd not in ("endless", "no length"):
                self.send_header("Content-Length", str(len(body) - start))
            self.end_headers()
            self.wfile.write(body[start : 1_500_000 if odd == "breaks" else None])
            try:
                while odd == "endless":
                    self.wfile.write(bytes(1 << 20))
            except OSError:
                found.asked.append("hung up")

        def log_message(self, *_):
            pass

    monkeypatch.setenv("SSL_CERT_FILE", str(CERTIFICATE))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(CERTIFICATE)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as service:
        service.socket = context.wrap_socket(service.socket, server_side=True)
        service.daemon_threads = True
        found = Server(service.server_port)
        threading.Thread(target=service.serve_forever, args=(0.02,), daemon=True).start()
        yield found
        service.shutdown()


def there(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


def refusal(archive: download.Archive, folder: Path) -> str:
    with pytest.raises(CourseError) as caught:
        download.fetch_archive(archive, folder=folder, licence="CC-BY")
    assert "\n" not in str(caught.value) and "; " in str(caught.value), "one line with a cure"
    return str(caught.value)


@pytest.mark.parametrize("algorithm", ["md5", "sha256"])
@pytest.mark.parametrize("size", [None, len(GOOD)])
@pytest.mark.parametrize("odd", ["", "moved"])
def test_a_download_is_checked_unpacked_and_cleared_away(server, tmp_path, capsys, algorithm, size, odd):
    server.odd = odd
    archive = server.archive(checksum=f"{algorithm}:{hashlib.new(algorithm, GOOD).hexdigest()}", size=size)
    assert download.fetch_archive(archive, folder=tmp_path, licence="CC-BY") == tmp_path / "Task"
    assert there(tmp_path) == WHOLE
    assert "CC-BY" in capsys.readouterr().out


@pytest.mark.parametrize("size", [None, len(GOOD)])
@pytest.mark.parametrize("have", [1000, len(GOOD)])
def test_a_broken_off_download_goes_on(server, tmp_path, have, size):
    (tmp_path / "Task.tar.part").write_bytes(GOOD[:have])
    download.fetch_archive(server.archive(size=size), folder=tmp_path, licence="CC-BY")
    assert there(tmp_path) == WHOLE
    assert server.asked == ([] if have == size else [f"bytes={have}-"]), "what is whole is not asked for again"


def test_a_connection_that_breaks_leaves_what_came_and_the_next_run_goes_on(server, tmp_path):
    server.odd = "breaks"
    assert "run again (it resumes)" in refusal(server.archive(), tmp_path)
    assert (tmp_path / "Task.tar.part").read_bytes() == GOOD[:1_500_000]
    server.odd = ""
    download.fetch_archive(server.archive(), folder=tmp_path, licence="CC-BY")
    assert there(tmp_path) == WHOLE and server.asked == [None, "bytes=1500000-"]


def test_a_server_that_cannot_go_on_starts_again(server, tmp_path):
    (tmp_path / "Task.tar.part").write_bytes(b"x" * 1000)
    server.odd = "no ranges"
    download.fetch_archive(server.archive(), folder=tmp_path, licence="CC-BY")
    assert there(tmp_path) == WHOLE


def test_a_server_that_goes_on_elsewhere_is_not_believed(server, tmp_path):
    (tmp_path / "Task.tar.part").write_bytes(GOOD[:1000])
    server.odd = "elsewhere"
    assert "went on at byte 990, not at 1000" in refusal(server.archive(), tmp_path)
    assert not there(tmp_path), "the next run begins anew"


@pytest.mark.parametrize("have", [0, 1000, 9_000_000])
def test_a_wrong_checksum_is_refused_and_not_kept(server, tmp_path, have):
    (tmp_path / "Task.tar.part").write_bytes(b"x" * have)
    server.body = GOOD[:-600] + bytes([1]) * 600
    assert "has sha256" in refusal(server.archive(), tmp_path)
    assert not there(tmp_path)


def test_another_size_is_refused_before_it_is_loaded(server, tmp_path):
    server.body = GOOD + bytes(512)
    assert f"offers {len(GOOD) + 512} bytes" in refusal(server.archive(size=len(GOOD)), tmp_path)
    server.body = GOOD[:-512]
    assert f"offers {len(GOOD) - 512} bytes" in refusal(server.archive(size=len(GOOD)), tmp_path)
    assert not there(tmp_path)


@pytest.mark.parametrize("size", [None, len(GOOD)])
def test_a_server_that_does_not_stop_is_cut_off(server, tmp_path, monkeypatch, size):
    monkeypatch.setattr(download, "UNSIZED", 8 << 20)
    server.odd = "endless"
    assert f"sent more than {size or 8 << 20} bytes" in refusal(server.archive(size=size), tmp_path)
    assert not there(tmp_path)


def test_a_full_disk_is_told_before_the_download_and_before_unpacking(server, tmp_path, monkeypatch):
    disk = namedtuple("Disk", "free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: disk(1_000_000))
    assert "needs 0.00301 GB of disk and 0.001 GB are free" in refusal(server.archive(), tmp_path)
    (tmp_path / "Task.tar.part").write_bytes(GOOD)
    assert "needs 0.003 GB of disk" in refusal(server.archive(size=len(GOOD)), tmp_path)
    assert there(tmp_path) == ["Task.tar.part"], "it is not loaded twice"


@pytest.mark.parametrize("start", ["http://127.0.0.1:9/", "ftp://127.0.0.1/", "file:///", "data:,", "/"])
def test_only_https_is_opened(server, tmp_path, start):
    other = replace(server.archive(), url=f"{start}Task.tar")
    assert "is not an https address" in refusal(other, tmp_path)
    server.odd = other.url
    if start[0] in "hf":
        assert "not an https address" in (said := refusal(server.archive(), tmp_path)) or "not allowed" in said
    assert not there(tmp_path)


def test_a_stranger_behind_the_address_is_refused(server, tmp_path, monkeypatch):
    monkeypatch.delenv("SSL_CERT_FILE")
    assert "certificate verify failed" in refusal(server.archive(), tmp_path)


def test_no_connection_is_one_line(server, tmp_path):
    nobody = replace(server.archive(), url="https://127.0.0.1:9/Task.tar")
    assert "check the connection and run again (it resumes)" in refusal(nobody, tmp_path)


def test_two_who_want_a_dataset_at_once_load_it_once(server, tmp_path, monkeypatch):
    monkeypatch.setenv("SSL_DATA_ROOT", str(tmp_path))
    known = replace(datasets.get("hippocampus"), folders=("Task",), archive=server.archive())
    got = []

    def want():
        got.append(datasets.fetch(known, phantom_sizes=(0, 0, 0, 0)))

    both = [threading.Thread(target=want) for _ in range(2)]
    for one in both:
        one.start()
    for one in both:
        one.join(60)
    assert got == [tmp_path / "Task"] * 2 and server.asked == [None]


def test_without_checksum_and_length_an_archive_is_unpacked_and_a_cut_one_is_not(server, tmp_path):
    server.odd, whole = "no length", gzip.compress(GOOD)
    server.body = whole[:-900]
    assert "cannot be unpacked" in refusal(server.archive(checksum=""), tmp_path)
    assert there(tmp_path) == ["Task.tar.part"]
    server.body = whole
    download.fetch_archive(server.archive(checksum=""), folder=tmp_path, licence="MIT")
    assert there(tmp_path) == WHOLE and server.asked == [None, f"bytes={len(whole) - 900}-"]


@pytest.fixture
def openkbp_archive(server, tmp_path, monkeypatch):
    """Three patients of OpenKBP as GitHub packs them, with the commit in a global header."""
    top = f"open-kbp-{datasets.OPENKBP}"
    image, contours = head()
    for folder, number in (("train", 1), ("validation", 201), ("test", 241)):
        patient = f"{top}/provided-data/{folder}-pats/pt_{number}"
        write_patient(tmp_path / "github" / patient, image, contours if number == 1 else {})
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz", compresslevel=1, pax_headers={"comment": datasets.OPENKBP}) as tar:
        tar.add(tmp_path / "github" / top, top)
    server.body, server.odd = stream.getvalue(), "no length"
    monkeypatch.setattr(openkbp, "PATIENTS", 3)
    monkeypatch.setenv("SSL_DATA_ROOT", str(tmp_path / "data"))
    return replace(datasets.get("headneck"), archive=server.archive(checksum=""))


CONVERTED = ["imagesTr", "imagesTr/openkbp_001.nii.gz", "imagesUn", "imagesUn/openkbp_201.nii.gz"]
CONVERTED += ["imagesUn/openkbp_241.nii.gz", "labelsTr", "labelsTr/openkbp_001.nii.gz"]


def test_openkbp_is_downloaded_converted_and_cleared_away_also_after_a_kill(server, openkbp_archive, tmp_path, capsys):
    def kill(done, total):
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        datasets.fetch(openkbp_archive, phantom_sizes=(0, 0, 0, 0), progress=kill)
    assert "licence of the data: MIT" in capsys.readouterr().out
    assert datasets.locate(openkbp_archive) is None, "what is not complete has another name"
    root = datasets.fetch(openkbp_archive, phantom_sizes=(0, 0, 0, 0))
    assert root == tmp_path / "data/headneck" and there(root) == CONVERTED
    assert server.asked == [None], "the archive is loaded once"
    assert sorted(path.name for path in root.parent.iterdir()) == [".lock-headneck", "headneck"]


def test_openkbp_that_was_put_there_by_hand_is_converted_and_kept(server, openkbp_archive, tmp_path):
    top = f"open-kbp-{datasets.OPENKBP}"
    shutil.copytree(tmp_path / "github" / top, tmp_path / "data" / top)
    root = datasets.fetch(openkbp_archive, phantom_sizes=(0, 0, 0, 0))
    assert there(root) == CONVERTED and server.asked == [] and (root.parent / top).is_dir()


HARMFUL = {
    "up": tar_of(entry("Task/a", 1), entry("../outside.txt", 1)),
    "up_later": tar_of(entry("Task/a/../../../outside.txt", 1)),
    "absolute": tar_of(entry("/outside.txt", 1)),
    "symlink": tar_of(entry("Task/a", kind=tarfile.SYMTYPE, linkname="../../outside.txt")),
    "symlink_inside": tar_of(entry("Task/a", 1), entry("Task/b", kind=tarfile.SYMTYPE, linkname="a")),
    "through_a_symlink": tar_of(entry("Task/a", kind=tarfile.SYMTYPE, linkname=".."), entry("Task/a/outside.txt", 1)),
    "hard_link": tar_of(entry("Task/a", 1), entry("Task/b", kind=tarfile.LNKTYPE, linkname="Task/a")),
    "device": tar_of(entry("Task/a", kind=tarfile.CHRTYPE, devmajor=1, devminor=3)),
    "fifo": tar_of(entry("Task/a", kind=tarfile.FIFOTYPE)),
    "sparse": tar_of(entry("Task/a", kind=tarfile.GNUTYPE_SPARSE)),
    "twice": tar_of(entry("Task/a", 1), entry("Task/./A", 1)),
    "negative": tar_of(entry("Task/a", pax_headers={"size": "-5000"})),
    "too_many": tar_of(*(entry(f"Task/{n}") for n in range(101))),
    "too_large": gzip.compress(entry("Task/a", 10 << 30).tobuf() + bytes(10_240)),
    "large_by_its_pax": tar_of(entry("Task/a", pax_headers={"size": str(10 << 30)})),
    "long_name": gzip.compress(entry("././@LongLink", 1 << 29, tarfile.GNUTYPE_LONGNAME).tobuf() + bytes(1 << 24)),
    "long_pax": gzip.compress(entry("pax", 1 << 29, tarfile.XHDTYPE).tobuf() + bytes(1 << 24)),
    "pax_without_end": b"".join(tarfile.TarInfo.create_pax_global_header({"a": str(n)}) for n in range(5000)),
    "sparse_by_its_pax": tar_of(
        entry(
            "Task/a", pax_headers={"GNU.sparse.realsize": str(1 << 40), "GNU.sparse.map": "0,0", "GNU.sparse.size": "1"}
        )
    ),
    "file_and_folder": tar_of(entry("Task/a", 1), entry("Task/a/b", 1)),
    "cut": GOOD[:-2_000_000],
    "cut_gzip": gzip.compress(GOOD)[:-900],
    "no_archive": b"hello" * 1000,
    "two_tops": tar_of(entry("One/a", 1), entry("Two/a", 1)),
    "empty": tar_of(),
}
UNTRUSTED = [
    name
    for name in HARMFUL
    if name
    not in (
        "pax_without_end",
        "file_and_folder",
        "cut",
        "cut_gzip",
        "no_archive",
        "two_tops",
        "empty",
        "long_name",
        "long_pax",
    )
]


@pytest.mark.parametrize("name", HARMFUL)
def test_a_harmful_archive_is_refused_and_nothing_of_it_stays(tmp_path, monkeypatch, name):
    monkeypatch.setattr(archives, "MOST_MEMBERS", 100)
    folder = tmp_path / "data"
    folder.mkdir()
    path = folder / "Task.tar.part"
    path.write_bytes(HARMFUL[name])
    with pytest.raises(CourseError) as caught:
        archives.unpack(path, folder)
    said = str(caught.value)
    assert said.startswith(str(path)) and said.endswith("get the dataset from its source by hand") and len(said) < 400
    assert ("not to be trusted" in said) == (name in UNTRUSTED), said
    assert there(tmp_path) == ["data", "data/Task.tar.part"]


def test_a_gzip_bomb_is_not_unzipped(tmp_path, monkeypatch):
    """The headers are honest: many files of zeros, together above the limit."""
    monkeypatch.setattr(archives, "MOST_BYTES", 8 << 20)
    path = tmp_path / "bomb.tar.gz"
    path.write_bytes(gzip.compress(tar_of(*(entry(f"Task/{n}", 1 << 20) for n in range(20)))))
    with pytest.raises(CourseError, match=r"more than 10000 members or 0\.00839 GB: not to be trusted"):
        archives.unpack(path, tmp_path)
    assert there(tmp_path) == [path.name]


def test_what_a_killed_run_has_unpacked_is_cleared_away(tmp_path):
    path = tmp_path / "Task.tar.gz"
    path.write_bytes(gzip.compress(GOOD))
    left = tmp_path / ".unpacking-Task.tar.gz" / "Task" / "imagesTr"
    left.mkdir(parents=True)
    (left / "half.nii.gz").write_bytes(b"half")
    assert archives.unpack(path, tmp_path) == tmp_path / "Task"
    assert there(tmp_path) == sorted([*WHOLE, path.name])


def test_every_archive_of_the_registry_can_be_checked():
    found = {name: known.archive for name, known in datasets.REGISTRY.items() if known.archive}
    assert found
    for name, archive in found.items():
        if name != "headneck":  # its conversion checks every table
            algorithm, digits = archive.checksum.split(":")
            assert len(bytes.fromhex(digits)) == {"md5": 16, "sha256": 32}[algorithm]
        assert archive.url.startswith("https://") and archive.name.endswith((".tar", ".tar.gz"))


def test_hippocampus_comes_from_the_address_that_monai_knows():
    from monai.apps import DecathlonDataset

    known = datasets.get("hippocampus").archive
    assert known.url == DecathlonDataset.resource["Task04_Hippocampus"]
    assert known.checksum == f"md5:{DecathlonDataset.md5['Task04_Hippocampus']}"
