"""pyproject.toml (ranges), constraints.txt (versions) and environment.yml (conda) are one truth."""

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

PROJECT = Path(__file__).resolve().parents[1]
ABOUT = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
EXTRAS = {name: [Requirement(line) for line in lines] for name, lines in ABOUT["optional-dependencies"].items()}
DIRECT = [Requirement(line) for line in ABOUT["dependencies"]] + EXTRAS["dev"]


def pins() -> dict[str, Version]:
    found = {}
    for line in (PROJECT / "constraints.txt").read_text().splitlines():
        if line and not line.startswith("#"):
            name, _, version = line.partition("==")
            assert canonicalize_name(name) not in found, f"constraints.txt names {name} twice"
            found[canonicalize_name(name)] = Version(version)
    return found


@pytest.mark.parametrize("requirement", DIRECT, ids=lambda r: r.name)
def test_every_direct_dependency_is_pinned_inside_its_range(requirement):
    pinned = pins().get(canonicalize_name(requirement.name))
    assert pinned, f"{requirement.name}: add its version to constraints.txt"
    assert pinned in requirement.specifier, f"{requirement.name}=={pinned} is outside {requirement.specifier}"


def test_torch_is_the_plain_version_so_that_pip_takes_the_build_of_the_machine():
    assert pins()["torch"] == Version("2.13.0")
    assert pins()["torch"].local is None


@pytest.mark.parametrize("extra", sorted(set(EXTRAS) - {"dev"}))
def test_the_other_extras_do_not_contradict_the_constraints(extra):
    for requirement in EXTRAS[extra]:
        pinned = pins().get(canonicalize_name(requirement.name))
        assert pinned is None or pinned in requirement.specifier, requirement


def test_conda_users_get_the_same_packages():
    environment = yaml.safe_load((PROJECT / "environment.yml").read_text())
    python, pip, from_pip = environment["dependencies"]
    assert Requirement(python).name == "python"
    assert Requirement(python).specifier == Requirement(f"python{ABOUT['requires-python']}").specifier
    assert pip == "pip"
    assert from_pip == {"pip": ["-c constraints.txt", "-e .[dev]"]}


def test_the_makefile_installs_the_same_packages():
    recipes = (PROJECT / "Makefile").read_text()
    assert "-c constraints.txt -e '.[dev]'" in recipes and "-c constraints.txt -e '.[itk]'" in recipes


def test_native_windows_is_refused_in_one_line():
    """There Python has no `fcntl`."""
    look = "import sys; sys.modules['fcntl'] = None; from ssl_utils import __main__"
    done = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True)
    assert done.returncode == 1 and done.stdout == ""
    assert done.stderr == "ssl_utils: needs Linux or macOS; on Windows use WSL (docs/running.md)\n"
