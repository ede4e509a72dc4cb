"""The shape of the house: who may import whom, small modules, clean notebooks, no path of anybody's machine."""

import ast
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from ssl_utils.pretext import TASKS

PROJECT = Path(__file__).resolve().parents[1]
PACKAGE = PROJECT / "ssl_utils"
MODULES = sorted(PACKAGE.rglob("*.py"))
NOTEBOOKS = sorted((PROJECT / "notebooks").glob("*.ipynb"))
LEAVES = {"errors", "files", "live", "naming", "processes"}
MAY_IMPORT = {  # room or module -> what it may import besides the leaves and itself
    "errors": set(),
    "files": set(),
    "live": set(),
    "logs": set(),
    "naming": set(),
    "processes": set(),
    "slurm": set(),
    "slurm_driver": {"slurm"},
    "plan": {"data", "networks", "pretext", "progress", "scales", "setups"},
    "status": {"plan", "reporting", "slurm"},
    "exercises": {"data"},
    "site": {"reporting"},
    "model_card": {"data", "networks"},
    "scales": set(),
    "data": set(),
    "networks": set(),
    "stopwatch": set(),
    "parallel": set(),
    "recorder": {"logs", "stopwatch"},
    "training": {"data", "parallel", "recorder", "stopwatch"},
    "pretext": {"data", "networks", "parallel", "training"},
    "segmentation": {"data", "networks", "parallel", "training"},
    "reporting": {"data", "scales"},
    "setups": {"data", "reporting", "scales"},
    "prediction": {"data", "networks", "scales", "segmentation", "setups", "training"},
    "building": {"networks", "pretext", "reporting", "setups"},
    "experiments": {
        "building", "data", "model_card", "networks", "parallel", "prediction", "pretext", "reporting", "segmentation",
        "setups", "training",
    },
    "execution": set(),
    "progress": set(),
    "graph": {"progress", "slurm"},
    "study": {"pretext", "scales"},
    "studies": {"data", "pretext", "scales", "study"},
    "workflow": {"data", "execution", "graph", "plan", "progress", "reporting", "scales", "studies"},
    "__main__": {"data", "experiments", "parallel", "reporting", "scales", "setups", "status"},
    "__init__": set(),
}
EXCEPTIONS = {"reporting/chapter.py": {"training"}}  # says on which device the chapter runs, and keeps Lightning quiet


def room(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported(path: Path) -> set[str]:
    """Rooms and top modules of the package that a file imports, at the top or inside a function."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import; write it in full"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        found |= {name.split(".")[1] for name in names if name.startswith("ssl_utils.")}
    return found


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_who_may_import_whom(path):
    here = room(path)
    assert here in MAY_IMPORT, f"{path.name}: a new room needs a line in MAY_IMPORT"
    allowed = MAY_IMPORT[here] | LEAVES | {here} | EXCEPTIONS.get(path.relative_to(PACKAGE).as_posix(), set())
    assert imported(path) <= allowed, f"{here} must not import {', '.join(sorted(imported(path) - allowed))}"


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_a_module_has_at_most_250_lines(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 250


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_no_module_is_called_after_nothing(path):
    assert path.stem not in ("utils", "helpers", "common", "misc")


def test_what_every_course_starts_with_needs_no_torch():
    """Its import takes seconds, and a course that is done already should say so at once."""
    look = "import sys; from ssl_utils import plan, setups, workflow; print({'torch', 'monai'} & {*sys.modules})"
    assert subprocess.run([sys.executable, "-c", look], capture_output=True, text=True).stdout == "set()\n"


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
    graph = set(re.findall(r'chapter="(\d\d_\w+)"', (PROJECT / "Snakefile").read_text()))
    graph |= {entry.chapter for entry in TASKS.values()}
    assert {path.stem for path in NOTEBOOKS if path.stem[0].isdigit()} == graph


def tracked() -> list[Path]:
    listed = subprocess.run(["git", "-C", PROJECT, "ls-files", "-z"], capture_output=True, text=True)
    if listed.returncode:  # an unpacked archive: everything that the project itself ships
        rooms = ("ssl_utils", "notebooks", "tests", "json_files", "figures")
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
