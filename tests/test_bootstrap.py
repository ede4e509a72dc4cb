"""The first cell of every chapter: where the course is not installed it fetches it, elsewhere it does nothing."""

import json
import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[1]
NOTEBOOKS = sorted((PROJECT / "notebooks").glob("*.ipynb"))
REPOSITORY = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]["urls"]["Repository"]


def code_cells(path: Path) -> list[dict]:
    return [cell for cell in json.loads(path.read_text(encoding="utf-8"))["cells"] if cell["cell_type"] == "code"]


def bootstrap(path: Path) -> str:
    first = code_cells(path)[0]
    assert (first["id"], first["metadata"].get("tags")) == ("bootstrap", ["bootstrap"])
    return "".join(first["source"])


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_every_chapter_begins_with_the_same_cell(path):
    assert bootstrap(path) == bootstrap(PROJECT / "notebooks" / "00_start_here.ipynb")
    assert f'"{REPOSITORY}"' in bootstrap(path)


def test_where_the_course_is_installed_it_does_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(subprocess, "run", None)
    before = list(sys.path)
    exec(bootstrap(PROJECT / "notebooks" / "00_start_here.ipynb"), {})
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
    cell = bootstrap(PROJECT / "notebooks" / "00_start_here.ipynb")
    for source in (f"{cell}\n{found}", found, f"{cell}\n{found}"):  # at once, after a restart, and run again
        done = run(source)
        assert done.returncode == 0, done.stderr
        where, lists = done.stdout.splitlines()
        assert Path(where).resolve() == (content / "ssl-utils" / "ssl_utils" / "__init__.py").resolve()
        assert lists == f"{(content / 'ssl-utils' / 'json_files' / 'hippocampus.json').resolve()} True"
