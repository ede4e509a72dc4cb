"""The address of the course: chapters bear it once it is published, and their first cell then fetches the course."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from course.records import address
from ssl_utils.files import read_json

PROJECT = Path(__file__).resolve().parents[1]
NOTEBOOKS = sorted((PROJECT / "notebooks").glob("*.ipynb"))
REPOSITORY = "https://github.com/somebody/course"
BOOTSTRAP = address.BOOTSTRAP.format(address=REPOSITORY)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_every_chapter_bears_the_address_of_pyproject_or_none(path):
    cells = read_json(path)["cells"]
    assert cells == address.addressed(cells, path.name, address.repository())
    if not address.repository():
        text = json.dumps(cells)
        assert not {word for word in ("badge_", "mybinder.org", "colab.research", "git clone") if word in text}
        assert "bootstrap" not in [cell["id"] for cell in cells]


def test_publishing_gives_every_chapter_its_badges_and_the_cell_and_can_be_undone(tmp_path):
    shutil.copytree(PROJECT / "notebooks", tmp_path / "notebooks")
    shutil.copytree(PROJECT / "figures", tmp_path / "figures")
    address.fill(tmp_path / "notebooks", REPOSITORY)
    for path in NOTEBOOKS:
        first, second, *_ = read_json(tmp_path / "notebooks" / path.name)["cells"]
        lines = "".join(first["source"]).splitlines()
        assert lines[2] == address.badges(REPOSITORY, path.name)
        assert f"/somebody/course/blob/main/notebooks/{path.name})" in lines[2]
        assert f"/somebody/course/main?urlpath=lab/tree/notebooks/{path.name})" in lines[2]
        for picture in ("badge_colab.svg", "badge_binder.svg"):
            assert f"(../figures/{picture})" in lines[2] and (tmp_path / "figures" / picture).exists()
        assert (second["id"], "".join(second["source"])) == ("bootstrap", BOOTSTRAP)
    once = {path: path.read_bytes() for path in (tmp_path / "notebooks").glob("*.ipynb")}
    address.fill(tmp_path / "notebooks", REPOSITORY)
    assert once == {path: path.read_bytes() for path in once}
    for path in NOTEBOOKS:
        cells = read_json(tmp_path / "notebooks" / path.name)["cells"]
        assert address.addressed(cells, path.name, None) == address.addressed(read_json(path)["cells"], path.name, None)


def test_the_address_is_read_from_pyproject(tmp_path):
    (tmp_path / "pyproject.toml").write_text(f'[project]\nname = "a"\n[project.urls]\nRepository = "{REPOSITORY}"\n')
    assert address.repository(tmp_path) == REPOSITORY
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "a"\n')
    assert address.repository(tmp_path) is None


def test_where_the_course_is_installed_the_cell_does_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(subprocess, "run", None)
    before = list(sys.path)
    exec(BOOTSTRAP, {})
    assert sys.path == before and not list(tmp_path.iterdir())


@pytest.fixture
def rented(tmp_path) -> Path:
    """The python of a rented notebook: every package is there but ssl_utils."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "rented"], check=True)
    (packages,) = (tmp_path / "rented" / "lib").glob("python*/site-packages")
    installed = next(Path(entry) for entry in sys.path if (Path(entry) / "torch").is_dir())
    for entry in installed.iterdir():
        if "ssl_utils" not in entry.name:
            (packages / entry.name).symlink_to(entry)
    return tmp_path / "rented" / "bin" / "python"


@pytest.fixture
def elsewhere(tmp_path) -> dict[str, str]:
    """Environment in which the address leads to a repository of these files, and pip asks no index."""
    origin = tmp_path / "origin"
    for room in ("ssl_utils", "course", "json_files"):
        shutil.copytree(PROJECT / room, origin / room, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(PROJECT / name, origin / name)
    git = ["git", "-C", origin, "-c", "user.name=a", "-c", "user.email=a@example.org"]
    for words in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "course"]):
        subprocess.run([*git, *words], check=True)
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "PIP_", "GIT_"))}
    return kept | {
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": f"url.{origin.as_uri()}.insteadOf",
        "GIT_CONFIG_VALUE_0": REPOSITORY,
        "PIP_NO_INDEX": "1",
        "PIP_NO_DEPS": "1",
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "PIP_NO_BUILD_ISOLATION": "0",  # pip reads the value as that of build_isolation
    }


def test_where_it_is_missing_it_fetches_and_installs_it(tmp_path, rented, elsewhere):
    content = tmp_path / "content"
    content.mkdir()
    found = "import ssl_utils; from ssl_utils.data import datasets; print(ssl_utils.__file__)\n"
    found += "print(datasets.LISTS / 'hippocampus.json', (datasets.LISTS / 'hippocampus.json').is_file())"

    def run(source: str) -> subprocess.CompletedProcess:
        command = [rented, "-I", "-c", source]
        return subprocess.run(command, cwd=content, env=elsewhere, capture_output=True, text=True, timeout=600)

    assert "No module named 'ssl_utils'" in run(found).stderr
    for source in (f"{BOOTSTRAP}\n{found}", found, f"{BOOTSTRAP}\n{found}"):  # at once, after a restart, and run again
        done = run(source)
        assert done.returncode == 0, done.stderr
        where, lists = done.stdout.splitlines()
        assert Path(where).resolve() == (content / "ssl-utils" / "ssl_utils" / "__init__.py").resolve()
        assert lists == f"{(content / 'ssl-utils' / 'json_files' / 'hippocampus.json').resolve()} True"
