"""No notebook, command or benchmark calls what would run code out of a data set or a weight file."""

import ast
import json
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[1]
ROOMS = ("ssl_utils", "course", "json_files", "benchmarks")
CODE = sorted(path for room in ROOMS for path in (PROJECT / room).rglob("*.py"))
NOTEBOOKS = sorted((PROJECT / "notebooks").glob("*.ipynb"))
MODULES = {"pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"}  # not even imported
NEVER = {  # a call whose name ends so
    "eval",
    "exec",
    "compile",
    "__import__",
    "os.system",
    "os.popen",
    "read_pickle",
    "yaml.unsafe_load",
    "yaml.full_load",
    "load_from_checkpoint",
    "torch.hub.load",
    "torch.jit.load",
    "torch.package.PackageImporter",
}
ASKED = {  # call -> the keyword that makes it harmless
    "torch.load": ("weights_only", True),
    "trainer.fit": ("weights_only", True),
    "yaml.load": ("Loader", "SafeLoader"),
}
REFUSED = {
    "allow_pickle": True,
    "shell": True,
    "weights_only": False,
    "trust_remote_code": True,
    "filter": "fully_trusted",
}
METHODS = {"eval", "compile"}  # also methods of networks and patterns; only the builtins are meant


def name_of(node: ast.expr) -> str:
    if isinstance(node, ast.Attribute):
        return f"{name_of(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def plain(node: ast.expr):
    return node.value if isinstance(node, ast.Constant) else name_of(node).rsplit(".", 1)[-1] or None


def faults(source: str) -> list[str]:
    """The calls and imports in a source that could run what they read."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
            found += [f"line {node.lineno}: imports {name}" for name in names if name.split(".")[0] in MODULES]
        if not isinstance(node, ast.Call):
            continue
        name, given = name_of(node.func), {word.arg: plain(word.value) for word in node.keywords}
        never = any(name == bad or (name.endswith(f".{bad}") and bad not in METHODS) for bad in NEVER)
        unasked = any(
            (name == call or name.endswith(f".{call}")) and given.get(word) != value
            for call, (word, value) in ASKED.items()
            if call != "trainer.fit" or "ckpt_path" in given
        )
        loose = any(word in given and given[word] == value for word, value in REFUSED.items())
        if never or unasked or loose:
            found.append(f"line {node.lineno}: {ast.unparse(node)[:80]}")
    return found


@pytest.mark.parametrize("path", CODE, ids=lambda p: p.relative_to(PROJECT).as_posix())
def test_no_module_runs_what_it_reads(path):
    assert not faults(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_no_notebook_runs_what_it_reads(path):
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "code":
            assert not [line for line in source.splitlines() if line.lstrip().startswith(("!", "%"))], "a shell command"
            assert not faults(source), source


@pytest.mark.parametrize(
    "source",
    [
        "eval(text)",
        "exec(text)",
        "import numpy, pickle",
        "from pickle import load",
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "np.load(path, allow_pickle=True)",
        "yaml.load(text)",
        "yaml.load(text, Loader=yaml.Loader)",
        "subprocess.run(text, shell=True)",
        "os.system(text)",
        "pd.read_pickle(path)",
        "self.trainer.fit(task, ckpt_path=last)",
        "Task.load_from_checkpoint(path)",
        "tar.extractall(folder, filter='fully_trusted')",
        "builtins.exec(text)",
    ],
)
def test_what_would_run_code_is_found(source):
    assert len(faults(source)) == 1


@pytest.mark.parametrize(
    "source",
    [
        "network.eval()",
        "re.compile(text)",
        "torch.load(path, weights_only=True)",
        "np.load(path)",
        "trainer.fit(task, ckpt_path=last, weights_only=True)",
        "yaml.load(text, Loader=yaml.SafeLoader)",
        "subprocess.run([text])",
        "tar.extractall(folder, filter='data')",
        "json.load(stream)",
    ],
)
def test_what_runs_no_code_is_not_found(source):
    assert not faults(source)
