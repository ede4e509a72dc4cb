"""A contributor's way: the toy task of CONTRIBUTING.md, put into a copy of the project as the text says, fits in."""

import json
import re
import shutil
import subprocess

import nbformat
import pytest

from tests.contributor import PROJECT, TEXT, Copy, block, register, write

pytestmark = pytest.mark.course

# what `make course` hands to the graph, as a dry run
PLAN = """
import json, subprocess, sys
from dataclasses import asdict
from course import graph
from ssl_utils.experiments import scales
from ssl_utils.experiments import runs
run, notebooks = runs.course_dir("phantom", "smoke"), graph.PROJECT / "notebooks"
config = {"scale": "smoke", "dataset": "phantom", "data": None, "notebooks": str(notebooks),
          "settings": asdict(scales.get("smoke")), "parts": [1, 2], **json.loads((run / "data.json").read_text())}
(run / "plan.json").write_text(json.dumps(config))
command = graph.graph_command(run, run / "plan.json", cores=2)
done = subprocess.run([*command, "--dry-run"], capture_output=True, text=True)
print(done.stdout, done.stderr, json.dumps(graph.planned(done.stdout + done.stderr, notebooks)), sep="\\n")
"""


def add_task(copy: Copy) -> None:
    """File, registry, chapter and test, word for word."""
    write(copy, "ssl_utils/pretext/token_means.py")
    write(copy, "tests/test_token_means.py")
    register(copy, "ssl_utils/pretext/__init__.py", "TASKS", "TASKS = {\n", "\n}\n")
    (command,) = re.findall(r"^```bash\n(.*?)^```$", TEXT, re.DOTALL | re.MULTILINE)
    subprocess.run(command, shell=True, cwd=copy.folder, check=True)
    path = copy.folder / "notebooks/10_token_means.ipynb"
    notebook = nbformat.read(path, as_version=4)
    (at,) = (i for i, cell in enumerate(notebook.cells) if "## Train, or load" in cell.source)
    source = block('notebooks/10_token_means.ipynb, under "Train, or load"').strip()
    notebook.cells.insert(at + 1, nbformat.v4.new_code_cell(source, id="train"))
    nbformat.write(notebook, path)


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    copy = Copy(tmp_path_factory.mktemp("contributor"))
    add_task(copy)
    return copy


@pytest.fixture(scope="module")
def data(copy, phantom_data):
    shutil.copytree(phantom_data, copy.root / "data" / "phantom")
    copy("-m", "ssl_utils", "data", "phantom", "--scale", "smoke")  # which finds them, and writes data.json


@pytest.fixture(scope="module")
def trained(copy, data):
    """Its chapter, run as the graph runs it; of chapter 01 there is what the graph waits for."""
    seen = copy.run / "chapters/01_data_inspection/done.json"
    seen.parent.mkdir(parents=True)
    seen.write_text("{}")
    executed, writes = copy.run / "executed.ipynb", copy.run / "pretrain/token_means/metrics.json"
    parameters = json.dumps({"scale": "smoke", "dataset": "phantom", "seed": 0})
    chapter = copy.folder / "notebooks/10_token_means.ipynb"
    words = (chapter, executed, "--parameters", parameters, "--writes", writes, "--minutes", 10)
    copy("-m", "course", "run-chapter", *words)
    return executed


def test_the_copy_imports_itself(copy):
    assert copy("-c", "import ssl_utils; print(ssl_utils.__file__)").startswith(str(copy.folder))


@pytest.mark.timeout(900)
def test_its_chapter_pretrains_it(copy, trained):
    folder = copy.run / "pretrain/token_means"
    done = json.loads((folder / "metrics.json").read_text())
    assert done["last"]["step"] == 4 and done["last"]["validation_loss"] > 0
    assert {"encoder.safetensors", "history.csv", "inside.csv", "tensorboard"} <= {p.name for p in folder.iterdir()}
    assert "blur a crop, and predict how bright" in (folder / "README.md").read_text()
    cells = {cell.id: cell for cell in nbformat.read(trained, as_version=4).cells}
    assert all(cell.execution_count for cell in cells.values() if cell.cell_type == "code" and cell.source.strip())
    (table,) = (o["data"]["text/plain"] for o in cells["train"].outputs if "data" in o)
    losses = {name: float(value) for name, value in re.findall(r"^(\S.*?) +([\d.]+)$", table, re.MULTILINE)}
    assert set(losses) == {"token means", "mean", "interpolation", "input"}
    assert losses["input"] < losses["token means"], "CONTRIBUTING.md says that this toy does not beat it"


@pytest.mark.timeout(900)
def test_the_command_line_knows_it(copy, trained):
    stamp = (copy.run / "pretrain/token_means/metrics.json").stat().st_mtime_ns
    assert "encoder.safetensors" in copy("-m", "ssl_utils", "pretrain", "token_means", "--scale", "smoke")
    assert (copy.run / "pretrain/token_means/metrics.json").stat().st_mtime_ns == stamp, "it is the run of the chapter"
    assert "pretrain/token_means" in copy("-m", "course", "status", "--scale", "smoke").replace("\n", "")
    said = copy("-m", "ssl_utils", "pretrain", "token_means", "--scale", "smoke", "--mask-ratio", "0.5", good=False)
    assert said.strip().splitlines()[-1].startswith("error: option mask_ratio: token_means has none of that name")


@pytest.mark.timeout(900)
def test_the_graph_plans_its_fine_tunings(copy, data):
    said = copy("-c", PLAN)
    registry = (PROJECT / "ssl_utils/pretext/__init__.py").read_text()
    before = sum(int(number) <= 10 for number in re.findall(r'Entry\("\w+", "(\d\d)_', registry))  # parts I, II
    counts = json.loads(said.strip().splitlines()[-1])
    inits = 1 + before + 1  # random, the tasks there were, this one
    assert counts["04_unetr_finetuning"] == 3 * inits and counts["05_results"] == 1, said[-3000:]
    for number in (6, 12, 24):
        assert f"output: finetune/token_means/n{number}/subset0_seed0/metrics.json" in said
    assert said.count("    input: chapters/01_data_inspection/done.json, pretrain/token_means/metrics.json\n") == 3


@pytest.mark.timeout(900)
def test_its_own_test_and_those_of_the_house_pass(copy):
    said = copy("-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/test_token_means.py", "tests/test_structure.py")
    assert " failed" not in said
    assert copy("-m", "ruff", "check", "ssl_utils/pretext", "tests/test_token_means.py").strip() == "All checks passed!"


def test_the_toy_stays_short():
    lines = [line for line in block("ssl_utils/pretext/token_means.py").splitlines() if line.strip()]
    assert len(lines) <= 45
