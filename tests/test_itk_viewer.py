"""The files of itkwidgets' viewer: from a registry of this machine, checked, unpacked, and their addresses replaced."""

import base64
import functools
import hashlib
import http.server
import io
import tarfile
import threading
from dataclasses import replace

import pytest

from course import itk_viewer
from course.itk_viewer import OWN, PACKAGES, REPLACED, SERVED, fetch, install, registry
from ssl_utils.errors import CourseError
from ssl_utils.widgets import volume3d

OUTSIDE = ("https://cdn", "https://imjoy", "https://lib", '"startup":true')


def content(name: str) -> str:
    """Of a file in the extension's static folder: everything that is to be replaced in it, as often as expected."""
    pieces = [old for pattern, old, times, _ in REPLACED if name == pattern.replace("*", "x") for _ in range(times)]
    return f"start {' middle '.join(pieces)} end"


def archive_of(package) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as tar:
        for name in (*package.files, "itk/image-io/not_needed.wasm"):
            name = name.replace("*", "x")
            body = content(f"viewer/{package.name}/{name}").encode()
            member = tarfile.TarInfo(f"package/dist/{name}")
            member.size = len(body)
            tar.addfile(member, io.BytesIO(body))
    return stream.getvalue()


@pytest.fixture
def served(tmp_path, monkeypatch):
    """A registry with packages of the pinned names and versions; returns the packages with their own checksums."""
    packages = []
    for package in PACKAGES:
        path = tmp_path / "registry" / package.name / "-" / f"{package.name}-{package.version}.tgz"
        path.parent.mkdir(parents=True)
        path.write_bytes(archive_of(package))
        digest = base64.b64encode(hashlib.sha512(path.read_bytes()).digest()).decode()
        packages.append(replace(package, integrity=digest))

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args):
            pass

    server = http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), functools.partial(Quiet, directory=tmp_path / "registry")
    )
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("npm_config_registry", f"http://127.0.0.1:{server.server_port}/")
    yield tuple(packages)
    server.shutdown()
    server.server_close()


@pytest.fixture
def viewer(tmp_path):
    """The folder to fill, in an extension as it is installed."""
    static = tmp_path / "static"
    static.mkdir()
    for pattern in {pattern for pattern, *_ in REPLACED if not pattern.startswith("viewer/")}:
        name = pattern.replace("*", "x")
        (static / name).write_text(content(name))
    return static / "viewer"


def kept(viewer) -> dict[str, str]:
    static = viewer.parent
    return {path.relative_to(static).as_posix(): path.read_text() for path in static.rglob("*") if path.is_file()}


def test_the_files_are_there_and_ask_only_this_machine(served, viewer):
    install(viewer, served)
    files = kept(viewer)
    expected = {f"viewer/{package.name}/{name.replace('*', 'x')}" for package in served for name in package.files}
    assert {name for name in files if name.startswith("viewer/")} == expected | {f"viewer/{name}" for name in OWN}
    assert not [name for name, text in files.items() for address in OUTSIDE if address in text]
    for text in files.values():
        for address in [word for word in text.split() if word.startswith(SERVED)]:
            target = address.removeprefix(SERVED).strip("/")
            assert (viewer / target).exists(), f"{address} is not served"


def test_a_second_time_changes_nothing(served, viewer):
    install(viewer, served)
    before = kept(viewer)
    install(viewer, served)
    assert kept(viewer) == before


def test_another_file_than_the_pinned_one_is_refused(served, viewer):
    with pytest.raises(CourseError, match=r"vue-2\.6\.10\.tgz: has SHA-512"):
        fetch(PACKAGES[2], registry())


def test_a_registry_without_the_package_is_one_line(served):
    with pytest.raises(CourseError, match=r"vue-9\.tgz: cannot be downloaded \(.*\); .*NPM_CONFIG_REGISTRY"):
        fetch(replace(served[2], version="9"), registry())


@pytest.mark.parametrize("text", ["", "twice " * 2 + content("lib_index_js.x.js") * 2])
def test_an_extension_of_another_version_is_refused(served, viewer, text):
    (viewer.parent / "lib_index_js.x.js").write_text(text)
    with pytest.raises(CourseError, match=r"lib_index_js.*does not contain https://imjoy\.io.* 1 times"):
        install(viewer, served)


def test_an_environment_without_itkwidgets_is_one_line(tmp_path):
    with pytest.raises(CourseError, match="make lab VIEWER=itk makes one"):
        install(tmp_path / "nowhere" / "viewer", ())


def test_the_registry_is_the_one_npm_uses(monkeypatch):
    for name in ("npm_config_registry", "NPM_CONFIG_REGISTRY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(itk_viewer.shutil, "which", lambda name: None)
    assert registry() == "https://registry.npmjs.org"
    monkeypatch.setenv("NPM_CONFIG_REGISTRY", "https://npm.example.org/all/")
    assert registry() == "https://npm.example.org/all"


def test_the_viewer_is_opened_where_it_is_put():
    page = volume3d._ITK_PAGE.split("?")[0]
    assert page.removeprefix(SERVED) == "/itk-vtk-viewer/index.html"
    assert volume3d.ITK_FOLDER.as_posix().endswith(SERVED.removeprefix("/lab/extensions/"))
    assert "http://" in volume3d._ITK_PAGE, "the extension refuses an address without it"
