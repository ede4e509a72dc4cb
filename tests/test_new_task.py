"""A contributor's way: the toy task of CONTRIBUTING.md, put into a copy of the project as the text says, fits in."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

pytestmark = pytest.mark.course

PROJECT = Path(__file__).resolve().parents[1]
TEXT = (PROJECT / "CONTRIBUTING.md").read_text(encoding="utf-8")
# what `make course` hands to the graph, as a dry run
PLAN = """
import json, subprocess, sys
from dataclasses import asdict
from course import graph
from ssl_utils.experiments import scales
from ssl_utils.experiments import runs
run, notebooks = runs.course_dir("phantom", "smoke"), graph.PROJECT / "notebooks"
config = {"scale": "smoke", "dataset": "phantom", "data": None, "notebooks": str(notebooks),
          "settings": asdict(scales.get("smoke")), **json.loads((run / "data.json").read_text())}
(run / "plan.json").write_text(json.dumps(config))
command = graph.graph_command(run, run / "plan.json", cores=2)
done = subprocess.run([*command, "--dry-run"], capture_output=True, text=True)
print(done.stdout, done.stderr, json.dumps(graph.planned(done.stdout + done.stderr, notebooks)), sep="\\n")
"""


def block(place: str) -> str:
    """The code block whose first line names this place."""
    found = re.findall(rf"^```python\n# {re.escape(place)}\n(.*?)^```$", TEXT, re.DOTALL | re.MULTILINE)
    assert len(found) == 1, f"CONTRIBUTING.md has {len(found)} blocks for {place}"
    return found[0]


class Copy:
    """The project as somebody else has it, and what its commands answer."""

    def __init__(self, root: Path) -> None:
        self.folder, self.root = root / "project", root
        shutil.copytree(PROJECT, self.folder, ignore=lambda at, names: self.left_out(Path(at), names))
        self.run = root / "runs" / "phantom" / "smoke"

    @staticmethod
    def left_out(at: Path, names: list[str]) -> set[str]:
        hidden = shutil.ignore_patterns(".*", "__pycache__", "*.egg-info")(at, names)
        return hidden | ({"runs", "data", "build"} & {*names} if at == PROJECT else set())

    def __call__(self, *words, good: bool = True) -> str:
        """Output and errors of `python ...` in the copy, which alone is importable."""
        there = {"PYTHONPATH": self.folder, "SSL_RUNS_ROOT": self.root / "runs", "SSL_DATA_ROOT": self.root / "data"}
        done = subprocess.run(
            [sys.executable, *map(str, words)],
            cwd=self.folder,
            capture_output=True,
            text=True,
            env={**os.environ, **{name: str(value) for name, value in there.items()}},
        )
        assert done.returncode == 0 or not good, done.stdout[-3000:] + done.stderr[-3000:]
        return done.stdout + done.stderr


def add_task(copy: Copy) -> None:
    """File, registry, chapter and test, word for word."""
    for name in ("ssl_utils/pretext/token_means.py", "tests/test_token_means.py"):
        (copy.folder / name).write_text(block(name), encoding="utf-8")
    registry = copy.folder / "ssl_utils/pretext/__init__.py"
    before, opening, after = registry.read_text(encoding="utf-8").partition("TASKS = {\n")
    entries, closing, rest = after.partition("\n}\n")
    line = block("ssl_utils/pretext/__init__.py, in TASKS").rstrip("\n")
    registry.write_text(f"{before}{opening}{entries}\n{line}{closing}{rest}", encoding="utf-8")
    (command,) = re.findall(r"^```bash\n(.*?)^```$", TEXT, re.DOTALL | re.MULTILINE)
    subprocess.run(command, shell=True, cwd=copy.folder, check=True)
    path = copy.folder / "notebooks/07_token_means.ipynb"
    notebook = nbformat.read(path, as_version=4)
    (at,) = (i for i, cell in enumerate(notebook.cells) if "## Train, or load" in cell.source)
    source = block('notebooks/07_token_means.ipynb, under "Train, or load"').strip()
    notebook.cells.insert(at + 1, nbformat.v4.new_code_cell(source, id="train"))
    nbformat.write(notebook, path)


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    copy = Copy(tmp_path_factory.mktemp("contributor"))
    add_task(copy)
    return copy


@pytest.fixture(scope="module")
def data(copy):
    copy("-m", "ssl_utils", "data", "phantom", "--scale", "smoke")


@pytest.fixture(scope="module")
def trained(copy, data):
    """Its chapter, run as the graph runs it; of chapter 01 there is what the graph waits for."""
    seen = copy.run / "chapters/01_data_inspection/done.json"
    seen.parent.mkdir(parents=True)
    seen.write_text("{}")
    executed, writes = copy.run / "executed.ipynb", copy.run / "pretrain/token_means/metrics.json"
    parameters = json.dumps({"scale": "smoke", "dataset": "phantom", "seed": 0})
    chapter = copy.folder / "notebooks/07_token_means.ipynb"
    words = (chapter, executed, "--parameters", parameters, "--writes", writes, "--minutes", 10)
    copy("-m", "course", "run-chapter", *words)
    return executed


def test_the_copy_imports_itself(copy):
    assert copy("-c", "import ssl_utils; print(ssl_utils.__file__)").startswith(str(copy.folder))


@pytest.mark.timeout(900)
def test_its_chapter_pretrains_it(copy, trained):
    folder = copy.run / "pretrain/token_means"
    done = json.loads((folder / "metrics.json").read_text())
    assert done["last"]["step"] == 20 and done["last"]["validation_loss"] > 0
    assert {"encoder.safetensors", "history.csv", "inside.csv", "tensorboard"} <= {p.name for p in folder.iterdir()}
    assert "blur a crop, and predict how bright" in (folder / "README.md").read_text()
    cells = {cell.id: cell for cell in nbformat.read(trained, as_version=4).cells}
    assert all(cell.execution_count for cell in cells.values() if cell.cell_type == "code" and cell.source.strip())
    (table,) = (o["data"]["text/plain"] for o in cells["train"].outputs if "data" in o)
    losses = {name: float(value) for name, value in re.findall(r"^(\S.*?) +([\d.]+)$", table, re.MULTILINE)}
    assert set(losses) == {"token means", "mean", "in-filling", "input"}
    assert losses["input"] < losses["token means"], "CONTRIBUTING.md says that this toy does not beat it"


@pytest.mark.timeout(900)
def test_the_command_line_knows_it(copy, trained):
    stamp = (copy.run / "pretrain/token_means/metrics.json").stat().st_mtime_ns
    assert "encoder.safetensors" in copy("-m", "ssl_utils", "pretrain", "token_means", "--scale", "smoke")
    assert (copy.run / "pretrain/token_means/metrics.json").stat().st_mtime_ns == stamp, "it is the run of the chapter"
    assert "pretrain/token_means" in copy("-m", "course", "status", "--scale", "smoke").replace("\n", "")
    said = copy("-m", "ssl_utils", "pretrain", "token_means", "--scale", "smoke", "--mask-ratio", "0.5", good=False)
    assert said.strip().splitlines()[-1].startswith("error: option mask_ratio: token_means has none to choose")


@pytest.mark.timeout(900)
def test_the_graph_plans_its_fine_tunings(copy, data):
    said = copy("-c", PLAN)
    before = len(re.findall(r"Entry\(", (PROJECT / "ssl_utils/pretext/__init__.py").read_text())) - 1
    counts = json.loads(said.strip().splitlines()[-1])
    inits = 1 + before + 1  # random, the tasks there were, this one
    assert counts["04_unetr_finetuning"] == 3 * inits and counts["05_results"] == 1, said[-3000:]
    for number in (6, 12, 24):
        assert f"output: finetune/token_means/n{number}/draw0_seed0/metrics.json" in said
    assert said.count("    input: chapters/01_data_inspection/done.json, pretrain/token_means/metrics.json\n") == 3


@pytest.mark.timeout(900)
def test_its_own_test_and_those_of_the_house_pass(copy):
    said = copy("-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/test_token_means.py", "tests/test_structure.py")
    assert " failed" not in said
    assert copy("-m", "ruff", "check", "ssl_utils/pretext", "tests/test_token_means.py").strip() == "All checks passed!"


def test_the_toy_stays_short():
    lines = [line for line in block("ssl_utils/pretext/token_means.py").splitlines() if line.strip()]
    assert len(lines) <= 45
