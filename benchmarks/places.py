"""Places of the package where one thing can be changed: found in the syntax tree, drawn with a seed."""

import ast
import random
from collections.abc import Iterator
from itertools import cycle
from pathlib import Path
from typing import NamedTuple

ROOMS = ("networks", "pretext", "segmentation", "statistics", "data")
OTHER = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.In: ast.NotIn, ast.NotIn: ast.In, ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.And: ast.Or, ast.Or: ast.And,
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult,
    ast.Mod: ast.FloorDiv, ast.Pow: ast.Mult, ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd,
}  # fmt: skip


class Place(NamedTuple):
    """One change: lines and columns as `ast` counts them, columns in bytes."""

    path: str
    function: str  # qualified name; "" for the body of the module
    kind: str
    span: tuple[int, int, int, int]
    old: str
    new: str

    @property
    def name(self) -> str:
        return f"{self.path}:{self.span[0]} {self.function or 'module'}: {self.old} -> {self.new}"


def changed(node: ast.AST) -> Iterator[tuple[str, ast.AST]]:
    """Each change that a node allows, as its kind and the node in its place."""
    match node:
        case ast.Compare(ops=[op]) if type(op) in OTHER:
            yield "comparison", ast.Compare(node.left, [OTHER[type(op)]()], node.comparators)
        case ast.BinOp(op=op) if type(op) in OTHER and not _text(node.left) and not _text(node.right):
            yield "operator", ast.BinOp(node.left, OTHER[type(op)](), node.right)
        case ast.BoolOp(op=op):
            yield "condition", ast.BoolOp(OTHER[type(op)](), node.values)
        case ast.UnaryOp(op=ast.Not() | ast.USub()):
            yield "condition", node.operand
        case ast.Constant(value=bool()):
            yield "condition", ast.Constant(not node.value)
        case ast.Constant(value=int() | float()):
            yield "number", ast.Constant(node.value + 1 if isinstance(node.value, int) else 2 * node.value + 0.1)
        case ast.Return(value=ast.expr()) if not isinstance(node.value, ast.Constant):
            yield "return", ast.Return(ast.Constant(None))
        case ast.Call(args=[one, two, *rest]) if not any(isinstance(a, ast.Starred) for a in node.args):
            if ast.dump(one) != ast.dump(two):
                yield "arguments", ast.Call(node.func, [two, one, *rest], node.keywords)


def _text(node: ast.AST) -> bool:
    return isinstance(node, ast.JoinedStr) or (isinstance(node, ast.Constant) and isinstance(node.value, str))


class Finder(ast.NodeVisitor):
    """All places of one module, except in annotations, decorators, texts and what is raised."""

    def __init__(self, path: str, source: str) -> None:
        self.path, self.within, self.places = path, [], []
        self.visit(ast.parse(source))

    def visit(self, node: ast.AST) -> None:
        if isinstance(node, ast.JoinedStr | ast.Raise | ast.Assert):
            return
        for kind, other in changed(node):
            span = (node.lineno, node.col_offset, node.end_lineno, node.end_col_offset)
            texts = (ast.unparse(ast.fix_missing_locations(n)) for n in (node, other))
            self.places.append(Place(self.path, ".".join(self.within).removesuffix(".<locals>"), kind, span, *texts))
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            self._definition(node)
        elif isinstance(node, ast.AnnAssign):
            self.visit(node.value) if node.value else None
        else:
            self.generic_visit(node)

    def _definition(self, node: ast.FunctionDef | ast.ClassDef) -> None:
        if isinstance(node, ast.FunctionDef):  # a default belongs to the body around it
            for default in (*node.args.defaults, *filter(None, node.args.kw_defaults)):
                self.visit(default)
        own = [node.name, "<locals>"] if isinstance(node, ast.FunctionDef) else [node.name]
        self.within += own
        for statement in node.body:
            self.visit(statement)
        del self.within[-len(own) :]


def chosen(project: Path, count: int, seed: int) -> list[Place]:
    """As many places from every room, taken from its files in turn and of kinds in turn."""
    rng, found = random.Random(seed), []
    for number, room in enumerate(ROOMS):
        share = count // len(ROOMS) + (number < count % len(ROOMS))
        paths = sorted((project / "ssl_utils" / room).rglob("*.py"))
        places = {p: Finder(str(p.relative_to(project)), p.read_text(encoding="utf-8")).places for p in paths}
        files = [path for path, here in places.items() if here]
        rng.shuffle(files)
        for path in cycle(files):
            if share == 0 or not any(places.values()):
                break
            if here := places[path]:
                kind = rng.choice(sorted({place.kind for place in here}))
                place = rng.choice([place for place in here if place.kind == kind])
                here.remove(place)
                found.append(place)
                share -= 1
    return found


def with_change(source: str, place: Place) -> str:
    first, start, last, end = place.span
    lines = source.encode().splitlines(keepends=True)
    new = place.new if place.kind == "return" else f"({place.new})"
    lines[first - 1 : last] = [lines[first - 1][:start] + new.encode() + lines[last - 1][end:]]
    text = b"".join(lines).decode()
    ast.parse(text)
    return text
