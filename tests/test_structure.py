"""The shape of the house: who may import whom, small modules, clean notebooks, no path of anybody's machine."""

import ast
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from course.chapters import PARTS, chapters_of
from ssl_utils.networks import NETWORKS
from ssl_utils.pretext import TASKS

PROJECT = Path(__file__).resolve().parents[1]
WINGS = ("ssl_utils", "course")
MODULES = sorted(path for wing in WINGS for path in (PROJECT / wing).rglob("*.py"))
NOTEBOOKS = sorted((PROJECT / "notebooks").glob("*.ipynb"))
# Lines with docstrings, without the modules that the recipes of CONTRIBUTING.md add: pretext tasks, networks, datasets.
# Raise a number only in the commit that adds what readers asked for.
SIZES = {"ssl_utils": 19_240, "course": 6_060}
LEAVES = {"errors", "files", "live", "__init__"}
MAY_IMPORT = {  # room of ssl_utils -> the rooms that it may import besides the leaves and itself
    "data": set(),
    "networks": set(),
    "training": {"data"},
    "pretext": {"data", "networks", "training"},
    "segmentation": {"data", "networks", "training"},
    "synthesis": {"data", "networks", "training"},
    "experiments": {"data", "networks", "training", "pretext", "segmentation", "synthesis"},
    "statistics": {"experiments"},
    "figures": {"experiments"},
    "widgets": {"figures", "statistics"},
    "__main__": {"data", "experiments", "training"},
    **{leaf: set() for leaf in LEAVES},
}


def name_of(path: Path) -> str:
    return path.relative_to(PROJECT).as_posix()


def room(path: Path) -> str:
    return path.relative_to(PROJECT / "ssl_utils").parts[0].removesuffix(".py")


def imported(path: Path) -> set[str]:
    """What a file imports of the project, at the top or inside a function: dotted names, modules in full."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import; write it in full"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        found |= {name for name in names if name.split(".")[0] in WINGS}
    return found


def module_of(name: str) -> Path | None:
    """The file that the dotted name `a.b` or `a.b.function` is from."""
    for dotted in (name, name.rpartition(".")[0]):
        at = PROJECT / dotted.replace(".", "/")
        for path in (at.with_suffix(".py"), at / "__init__.py"):
            if path.exists():
                return path
    return None


@pytest.mark.parametrize("path", [p for p in MODULES if p.is_relative_to(PROJECT / "ssl_utils")], ids=name_of)
def test_who_may_import_whom(path):
    here = room(path)
    assert here in MAY_IMPORT, f"{path.name}: a new room needs a line in MAY_IMPORT"
    names = imported(path)
    assert not {name for name in names if name.startswith("course")}, f"{here} must not import the course"
    rooms = {name.split(".")[1] for name in names if "." in name}
    more = rooms - MAY_IMPORT[here] - LEAVES - {here}
    assert not more, f"{here} must not import {', '.join(sorted(more))}"


def test_no_module_imports_itself_through_others():
    arrows = {path: {module_of(name) for name in imported(path)} - {None, path} for path in MODULES}
    # a room's own __init__ hands out what its modules hold
    arrows = {path: {to for to in targets if to != path.parent / "__init__.py"} for path, targets in arrows.items()}
    done: set[Path] = set()

    def follow(path: Path, trail: tuple[Path, ...]) -> None:
        assert path not in trail, "a circle: " + " -> ".join(map(name_of, (*trail[trail.index(path) :], path)))
        if path not in done:
            for to in sorted(arrows[path]):
                follow(to, (*trail, path))
            done.add(path)

    for path in MODULES:
        follow(path, ())


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_a_module_has_at_most_250_lines(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 250


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_no_module_is_called_after_nothing(path):
    assert path.stem not in ("utils", "helpers", "common", "misc")


@pytest.mark.parametrize("wing", WINGS)
def test_no_wing_grows_in_silence(wing):
    added = {("pretext", task) for task in TASKS} | {("networks", entry.module) for entry in NETWORKS.values()}
    modules = [p for p in MODULES if p.is_relative_to(PROJECT / wing) and (p.parent.name, p.stem) not in added]
    lines = [len(p.read_text(encoding="utf-8").splitlines()) for p in modules if p.parent.name != "registry"]
    assert sum(lines) <= SIZES[wing], sum(lines)


def test_the_hall_is_small():
    hall = PROJECT / "ssl_utils"
    assert len([path for path in hall.glob("*.py")]) <= 5
    assert len({path.parent for path in hall.glob("*/*.py")}) <= 10


def test_what_contributing_says_where_to_look_is_there():
    text = (PROJECT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    rows = text.split("## Where to look")[1].split("\n## ")[0].splitlines()[3:]
    paths = [path for row in rows for path in re.findall(r"`([\w/]+(?:\.\w+|file))`", row)]
    assert len(rows) > 8 and all((PROJECT / path).is_file() for path in paths), paths
    for row in filter(None, rows):
        content = "".join((PROJECT / path).read_text(encoding="utf-8") for path in paths if f"`{path}`" in row)
        for name in {*re.findall(r"`(\w+)`", row)} - {*paths}:
            assert re.search(rf"^(?:def {name}\(|class {name}\(|{name}\b.* = )", content, re.MULTILINE), name


def test_no_two_modules_of_the_package_have_one_name():
    names = [path.stem for path in MODULES if path.is_relative_to(PROJECT / "ssl_utils") and path.stem != "__init__"]
    assert len(names) == len({*names}), sorted(name for name in {*names} if names.count(name) > 1)


def test_what_every_course_starts_with_needs_no_torch():
    """Its import takes seconds, and a course that is done already should say so at once."""
    look = "import sys; from course import __main__, plan; from ssl_utils.experiments import setups; "
    look += "print({'torch', 'monai'} & {*sys.modules})"
    assert subprocess.run([sys.executable, "-c", look], capture_output=True, text=True).stdout == "set()\n"


def test_only_what_trains_imports_lightning():
    """Its import takes seconds, too; a prediction, and chapters that only load and score, are spared it."""
    todo, seen = [module_of(f"ssl_utils.{name}") for name in ("experiments.prediction", "segmentation.overlaps")], set()
    while todo:
        seen.add(path := todo.pop())
        for node in ast.parse(path.read_text(encoding="utf-8")).body:  # what is imported inside a function can wait
            if isinstance(node, ast.Import | ast.ImportFrom):
                names = [f"{getattr(node, 'module', '')}.{alias.name}".strip(".") for alias in node.names]
                assert not any(name.split(".")[0] == "lightning" for name in names), name_of(path)
                todo += [to for to in map(module_of, names) if to and to not in seen]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_a_notebook_is_stripped_short_and_has_parameters(path):
    content = json.loads(path.read_text(encoding="utf-8"))
    cells = [cell for cell in content["cells"] if cell["cell_type"] == "code"]
    assert not {"widgets", "papermill"} & set(content["metadata"]), "run nbstripout on it"
    assert content["metadata"]["kernelspec"]["name"] == "python3"
    assert sum("parameters" in cell["metadata"].get("tags", []) for cell in cells) == 1
    for cell in cells:
        source = "".join(cell["source"])
        assert not cell["outputs"], f"has outputs, run nbstripout: {source[:80]}"
        assert cell["execution_count"] is None, f"was executed, run nbstripout: {source[:80]}"
        assert "papermill" not in cell["metadata"]
        assert len(source.splitlines()) <= 30, f"a cell of more than 30 lines: {source[:80]}"


def test_chapters_and_graph_name_each_other():
    assert sorted(path.stem for path in NOTEBOOKS if path.stem[0].isdigit()) == chapters_of(PARTS)


def tracked() -> list[Path]:
    listed = subprocess.run(["git", "-C", PROJECT, "ls-files", "-z"], capture_output=True, text=True)
    if listed.returncode:  # an unpacked archive: everything that the project itself ships
        rooms = ("ssl_utils", "course", "notebooks", "tests", "json_files", "figures")
        return [path for path in PROJECT.glob("*") if path.is_file()] + [
            path for name in rooms for path in (PROJECT / name).rglob("*") if path.is_file() and path.suffix != ".pyc"
        ]
    return [PROJECT / name for name in listed.stdout.split("\0") if name]


def test_no_path_of_anybodys_machine():
    private = re.compile(r"(?<![\w.}/~-])/(?:home|Users|root|work|tmp|mnt|media|opt|scratch|var)/[\w.-]+")
    found = []
    for path in tracked():
        if path.suffix in (".png", ".gz", ".safetensors") or path == Path(__file__) or not path.exists():
            continue
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            found += [f"{path.relative_to(PROJECT)}:{number}: {match}" for match in private.findall(line)]
    assert not found, "\n".join(found)


def test_the_makefile_keeps_tests_out_of_the_readers_runs_and_leaves_words_to_the_shell():
    alone = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}  # make test

    def said(*words: str) -> str:
        command = ["make", "-n", *words, f"PYTHON={sys.executable}"]
        return subprocess.run(command, cwd=PROJECT, env=alone, capture_output=True, text=True, check=True).stdout

    own = f'SSL_RUNS_ROOT="{PROJECT / "build" / "runs_of_tests"}"'
    assert [said(target).count(own) for target in ("test", "quick")] == [2, 1]
    assert 'course study "$STUDY"' in said("study", "STUDY=x")
