"""What a chapter shows is what the package runs.

A cell tagged `inline` begins with `# same as ssl_utils.room.file.name` (several names are set apart by commas) and
defines just these, equal to the package's but for docstrings, comments and annotations.
"""

import ast
import json
import re
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[1]
NOTEBOOKS = sorted(path for path in (PROJECT / "notebooks").glob("*.ipynb") if not path.name.startswith("_"))
FIRST_LINE = re.compile(r"# same as (ssl_utils(?:\.\w+)+(?:, ?ssl_utils(?:\.\w+)+)*)\s*$")
Definition = ast.FunctionDef | ast.ClassDef


class Bare(ast.NodeTransformer):
    """Take away docstrings and annotations; comments are not in the tree."""

    def _body(self, node):
        self.generic_visit(node)
        first = node.body[0]
        if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str):
            node.body = node.body[1:] or [ast.Pass()]
        return node

    visit_ClassDef = _body

    def visit_FunctionDef(self, node):
        node.returns = None
        return self._body(node)

    def visit_arg(self, node):
        node.annotation = None
        return node

    def visit_AnnAssign(self, node):
        if node.value is None:
            return None
        return ast.copy_location(ast.Assign(targets=[node.target], value=self.visit(node.value)), node)


def bare(node: Definition) -> str:
    return ast.unparse(ast.fix_missing_locations(Bare().visit(ast.parse(ast.unparse(node)))))


def definitions(body: list[ast.stmt]) -> dict[str, Definition]:
    return {node.name: node for node in body if isinstance(node, Definition)}


def of_package(name: str) -> Definition:
    """The definition of `ssl_utils.room.file.function` or `....Class.method`; nothing is imported."""
    parts = name.split(".")
    for i in range(len(parts) - 1, 0, -1):
        path = PROJECT.joinpath(*parts[:i]).with_suffix(".py")
        if path.exists():
            node = ast.parse(path.read_text(encoding="utf-8"))
            for part in parts[i:]:
                node = definitions(node.body).get(part)
                assert node is not None, f"{name}: {path.relative_to(PROJECT)} does not define {part}"
            return node
    raise AssertionError(f"{name}: no such file in the package")


def check(source: str) -> list[str]:
    """The names that an inline cell shows, after comparing each of them with the package."""
    first, _, rest = source.partition("\n")
    found = FIRST_LINE.match(first)
    assert found, f"the first line of an inline cell must be `# same as ssl_utils...`, not `{first}`"
    names, shown = [name.strip() for name in found[1].split(",")], definitions(ast.parse(rest).body)
    listed = sorted(name.rsplit(".", 1)[1] for name in names)
    assert sorted(shown) == listed, f"`{first}` but the cell defines {list(shown)}"
    for name in names:
        ours, theirs = bare(shown[name.rsplit(".", 1)[1]]), bare(of_package(name))
        assert ours == theirs, f"{name} in the chapter differs from the package:\n{ours}\n--- package ---\n{theirs}"
    return names


def code_cells(path: Path) -> list[tuple[str, list[str]]]:
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return [("".join(c["source"]), c["metadata"].get("tags", [])) for c in cells if c["cell_type"] == "code"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_shown_code_is_the_packages(path):
    for source, tags in code_cells(path):
        if "inline" in tags:
            check(source)
        else:
            assert "# same as ssl_utils" not in source, "a cell that shows the package's code needs the tag `inline`"


def test_the_pretext_chapters_show_their_core():
    inline = [source for path in NOTEBOOKS for source, tags in code_cells(path) if "inline" in tags]
    shown = [name for source in inline for name in check(source)]
    for name in (
        "simmim.block_mask",
        "mae.put_back",
        "restoration.random_boxes",
        "restoration.local_shuffle",
        "restoration.nt_xent",
    ):
        assert f"ssl_utils.pretext.{name}" in shown


def test_the_encoder_is_shown_whole():
    cells = code_cells(PROJECT / "notebooks" / "03_simmim_masking.ipynb")
    sources = [source for source, tags in cells if "inline" in tags]
    shown = {name.removeprefix("ssl_utils.networks.") for source in sources for name in check(source)}
    assert shown >= {
        "vit.PatchEmbedding",
        "attention.plain_attention",
        "transformer.Attention",
        "transformer.Block",
        "vit.ViT.encode",
        "vit.ViT.forward",
    }
    lines = [line for source in sources if "ssl_utils.networks" in source for line in source.splitlines()[1:]]
    assert len(list(filter(str.strip, lines))) < 60, "short enough to be read"


PATCHIFY = ast.unparse(of_package("ssl_utils.networks.heads.patchify"))
HEADER = "# same as ssl_utils.networks.heads.patchify\n"


def test_comments_docstrings_and_annotations_may_differ():
    short = (
        PATCHIFY.replace(": Tensor", "").replace(" -> Tensor", "").replace("    return ", "    # why\n    return ", 1)
    )
    assert short != PATCHIFY and check(HEADER + short) == ["ssl_utils.networks.heads.patchify"]


@pytest.mark.parametrize(
    ("source", "complaint"),
    [
        (HEADER + PATCHIFY.replace("(d p)", "(p d)"), "differs from the package"),
        (HEADER.replace("heads.patchify", "heads.patchfiy") + PATCHIFY, "but the cell defines"),
        (HEADER + PATCHIFY + "\ndef more(): pass", "but the cell defines"),
        (HEADER.replace("heads", "feet") + PATCHIFY, "no such file|does not define"),
        (PATCHIFY, "first line"),
    ],
)
def test_a_difference_is_found(source, complaint):
    with pytest.raises(AssertionError, match=complaint):
        check(source)


def test_a_method_can_be_shown():
    method = ast.unparse(of_package("ssl_utils.pretext.simmim.SimMIMTask.forward"))
    assert check(f"# same as ssl_utils.pretext.simmim.SimMIMTask.forward\n{method}")
