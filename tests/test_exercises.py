"""Exercises: an open stub breaks nothing, the printed solution is right, wrong answers are told from right ones."""

import ast
import importlib
import json
import re
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import ndimage
from torch.nn import functional as F

from course import exercises
from ssl_utils.pretext.voxel_clusters import kmeans
from tests.wrong_answers import WRONG

PROJECT = Path(__file__).resolve().parents[1]
CHAPTERS = sorted(path for path in (PROJECT / "notebooks").glob("*.ipynb") if path.name[0].isdigit())
LAST_LINE = re.compile(r'exercises\.check\("(\d\d\.\d)", (\w+)\)$')
SOLUTION = re.compile(r"<details><summary>Solution</summary>(.*?)</details>", re.DOTALL)
HINT = "<details><summary>Hint</summary>"
PYTHON = re.compile(r"```python\n(.*?)```", re.DOTALL)


class Exercise(NamedTuple):
    chapter: str
    cell: str  # id of the cell
    number: str
    name: str  # of the function or value that the reader writes
    stub: str
    before: str  # the markdown that sets the task
    after: str  # the markdown with hint and solution


def exercises_of(path: Path) -> list[Exercise]:
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    found = []
    for i, cell in enumerate(cells):
        if "exercise" not in cell["metadata"].get("tags", []):
            continue
        stub = "".join(cell["source"])
        last = LAST_LINE.search(stub)
        if last:
            around = (cells[i - 1], cells[i + 1])
            before, after = ("".join(c["source"]) * (c["cell_type"] == "markdown") for c in around)
            found.append(Exercise(path.stem, cell["id"], last[1], last[2], stub, before, after))
    return found


EXERCISES = [exercise for path in CHAPTERS for exercise in exercises_of(path)]
each_exercise = pytest.mark.parametrize("exercise", EXERCISES, ids=lambda e: f"{e.chapter}-{e.number}")


def solution(exercise: Exercise) -> str:
    blocks = [block for text in SOLUTION.findall(exercise.after) for block in PYTHON.findall(text)]
    assert len(blocks) == 1, f"{exercise.number}: one python block in the Solution after its cell, not {len(blocks)}"
    return blocks[0]


def run(source: str) -> dict:
    """What a reader has at hand, and what the source defines."""
    space = {"np": np, "torch": torch, "F": F, "pd": pd, "ndimage": ndimage, "exercises": exercises}
    exec(compile(source, "cell", "exec"), space)
    return space


def said(capsys, number: str, answer) -> str:
    capsys.readouterr()
    exercises.check(number, answer)
    return capsys.readouterr().out


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_an_exercise_cell_ends_with_its_check(path):
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        if "exercise" in cell["metadata"].get("tags", []):
            told = f'{path.stem}, cell {cell["id"]}: its last line must be exercises.check("NN.k", name)'
            assert LAST_LINE.search("".join(cell["source"])), told


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_every_chapter_has_checked_exercises_and_every_check_its_exercise(path):
    found = [exercise.number for exercise in exercises_of(path)]
    assert len(found) >= 2, f"{path.stem}: two or three exercises with a check"
    importlib.import_module(f"course.exercises.chapter_{path.stem[:2]}")
    registered = sorted(number for number in exercises.CHECKS if number.startswith(path.stem[:2]))
    assert sorted(found) == registered == sorted(number for number in WRONG if number.startswith(path.stem[:2]))


@each_exercise
def test_the_task_has_a_title_a_difficulty_minutes_and_a_hint(exercise):
    title = re.compile(rf"\*\*Exercise {re.escape(exercise.number)}\. [^*]+\*\* \((easy|medium|hard), \d+ minutes\)")
    assert title.search(exercise.before), f"no **Exercise {exercise.number}. Title** (easy, 5 minutes) before its cell"
    assert HINT in exercise.after, f"{exercise.number}: no hint in the cell after the stub"


@each_exercise
def test_an_open_stub_says_not_written_yet(exercise, capsys):
    run(exercise.stub)
    assert capsys.readouterr().out == f"Exercise {exercise.number}: not written yet.\n"


@each_exercise
def test_the_solution_is_right(exercise, capsys):
    answer = run(solution(exercise))[exercise.name]
    told = said(capsys, exercise.number, answer)
    assert told.startswith(f"Exercise {exercise.number}: right. ") and told.count("\n") == 1
    assert len(told.split()) > 6, "say in one sentence what the right answer shows"


def imported(*sources: str) -> set[str]:
    """The names that the import statements of these cells bind."""
    nodes = [node for source in sources for node in ast.walk(ast.parse(source))]
    names = [alias for node in nodes if isinstance(node, ast.Import | ast.ImportFrom) for alias in node.names]
    return {alias.asname or alias.name.partition(".")[0] for alias in names}


@each_exercise
def test_the_solution_needs_no_module_that_its_chapter_does_not_import(exercise):
    cells = json.loads((PROJECT / "notebooks" / f"{exercise.chapter}.ipynb").read_text(encoding="utf-8"))["cells"]
    source = solution(exercise)
    used = {node.id for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Name)}
    had = imported(source, *("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"))
    assert not used & set(run("")) - had, f"{exercise.number}: a reader who copies it gets a NameError"


@each_exercise
def test_wrong_answers_are_told_and_the_solution_is_not(exercise, capsys):
    wrong = WRONG[exercise.number]
    assert len(wrong) >= 3, "three wrong answers, as a reader would make them"
    source = solution(exercise)
    right = run(source)[exercise.name]
    lines = [line for line in map(str.strip, source.splitlines()) if len(line) > 12 and not line.startswith("def")]
    for i, answer in enumerate(wrong):
        told = said(capsys, exercise.number, answer)
        assert told.startswith(f"Exercise {exercise.number}: not yet. "), f"wrong answer {i}: {told}"
        assert "The check cannot use" not in told, f"wrong answer {i}: the check stumbled: {told}"
        assert not [line for line in lines if line in told], f"wrong answer {i} gives the solution away: {told}"
        if isinstance(right, int | float):
            assert not re.search(rf"(?<![\d.]){re.escape(str(right))}(?![\d.])", told), f"gives the number away: {told}"


@each_exercise
def test_a_broken_answer_is_told_in_one_line(exercise, capsys):
    broken = [lambda *a, **k: 1 / 0, lambda *a, **k: "abc", "abc", object()]
    for answer in broken:
        told = said(capsys, exercise.number, answer)
        assert told.startswith(f"Exercise {exercise.number}: not yet. ") and told.count("\n") == 1, told


def test_repeated_lloyd_iterations_of_the_solution_are_the_packages_kmeans():
    (exercise,) = (exercise for exercise in EXERCISES if exercise.number == "07.1")
    lloyd_iteration = run(solution(exercise))[exercise.name]
    points = torch.randn(2000, 5, generator=torch.Generator().manual_seed(0))
    order = torch.randperm(len(points), generator=torch.Generator().manual_seed(1))
    centres = points[order[:12]]
    for iterations in range(1, 11):
        centres = lloyd_iteration(points, centres)
        package = kmeans(points, 12, iterations=iterations, generator=torch.Generator().manual_seed(1))
        torch.testing.assert_close(package, centres, atol=1e-4, rtol=0)


# The frame itself, with a check of its own.


@pytest.fixture
def squares(monkeypatch):
    monkeypatch.setitem(exercises.CHECKS, "99.1", check_squares)


def check_squares(answer):
    for value in (2, 3):
        if exercises.number(answer(value)) != value**2:
            raise exercises.Wrong("one of the values\nis off")
    return "Squares grow fast."


@pytest.mark.parametrize(
    ("answer", "line"),
    [
        (None, "not written yet."),
        (lambda n: None, "not written yet."),
        (lambda n: n * n, "right. Squares grow fast."),
        (lambda n: torch.tensor([n * n]), "right. Squares grow fast."),
        (lambda n: n + 2, "not yet. one of the values is off"),
        (lambda n: n * n if n == 2 else None, "not yet. `<lambda>` returns nothing (None) for some inputs."),
        (lambda n: 1 / 0, "not yet. `<lambda>` stopped with ZeroDivisionError: division by zero"),
        (lambda: 4, "not yet. `<lambda>` stopped with TypeError: "),
        (lambda n: [4, 9], "not yet. One number is wanted, you have 2 values."),
        (lambda n: "4", "not yet. Numbers are wanted, not a value of type str."),
        (lambda n: float("nan"), "not yet. There is a nan"),
        ("four", "not yet. The check cannot use what it got (of type str): TypeError: 'str' object is not callable"),
    ],
)
def test_every_kind_of_answer_gets_one_line(squares, capsys, answer, line):
    told = said(capsys, "99.1", answer)
    assert told.startswith(f"Exercise 99.1: {line}") and told.count("\n") == 1


def test_an_unknown_number_is_told(capsys):
    assert "There is no exercise of this number" in said(capsys, "98.7", 4)


def test_a_check_reads_no_shape_but_the_right_one():
    with pytest.raises(exercises.Wrong, match=r"\(2,\), it should have \(3,\)"):
        exercises.array([1, 2], (3,))
    assert exercises.array(torch.ones(3, requires_grad=True), (3,)).sum() == 3


def test_stubs_are_short_and_parse():
    for exercise in EXERCISES:
        ast.parse(exercise.stub)
        assert len(exercise.stub.splitlines()) <= 8, f"{exercise.chapter}, {exercise.cell}: a stub, not a program"
