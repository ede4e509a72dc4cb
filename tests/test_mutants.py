"""The script that breaks the package place by place: what it changes, what it takes for noticed, and its record."""

import json
import subprocess
import sys
from collections import Counter

import pytest

from benchmarks.mutants import LEAST, PROJECT, REFERENCE, files_of_tests
from benchmarks.places import ROOMS, Finder, chosen, with_change
from ssl_utils.files import read_json

SOURCE = '''"""Doc with 1 + 1."""

from functools import lru_cache

LIMIT: "1 + 1" = 3


@lru_cache(5)
def area(size: int, *, half: bool = False) -> "1 + 1":
    if size < 0:
        raise ValueError(f"µ: {size + 1} is below {LIMIT - 1}")
    wide = size * (
        size
    )
    text = "µµ" + str(divmod(wide, LIMIT))
    return text if half and not wide else min(
        wide, LIMIT
    )
'''


def places() -> list:
    return Finder("ssl_utils/data/toy.py", SOURCE).places


def test_every_kind_of_change_is_found_and_no_text_annotation_or_error_is_one():
    assert Counter((place.function, place.kind) for place in places()) == {
        ("", "number"): 1,
        ("", "condition"): 1,
        ("area", "comparison"): 1,
        ("area", "number"): 1,
        ("area", "operator"): 1,
        ("area", "arguments"): 2,
        ("area", "condition"): 2,
        ("area", "return"): 1,
    }


def test_a_change_is_one_change_also_behind_letters_of_two_bytes_and_over_lines():
    seen = {with_change(SOURCE, place) for place in places()}
    assert len(seen) == len(places()) and SOURCE not in seen
    lines = ("(size / size)", "str((divmod(LIMIT, wide)))", 'LIMIT: "1 + 1" = (4)', "return None", "half or not wide")
    assert all(any(line in text for text in seen) for line in lines)
    assert all(text.count("\n") >= SOURCE.count("\n") - 3 for text in seen)


def test_places_follow_the_seed_and_come_from_all_rooms_alike():
    found = chosen(PROJECT, 22, 0)
    assert found == chosen(PROJECT, 22, 0) != chosen(PROJECT, 22, 1) and len({*found}) == 22
    assert Counter(place.path.split("/")[1] for place in found) == dict(zip(ROOMS, (5, 5, 4, 4, 4), strict=True))
    for place in found:
        with_change((PROJECT / place.path).read_text(encoding="utf-8"), place)


def test_what_compares_the_package_with_its_text_in_the_chapters_does_not_count():
    found = files_of_tests(PROJECT)
    assert {"tests/test_crops.py", "tests/test_cache.py"} <= {*found} and "tests/test_inline.py" not in found


RUN = """
import json, sys
from pathlib import Path
from benchmarks.mutants import run
project = Path(sys.argv[1])
whole = run(project, ["tests/test_toy.py"])
first = run(project, ["tests/test_toy.py"], options=["-x"], first={"tests/test_toy.py::test_b"}, without=set())
rest = run(project, ["tests/test_toy.py"], first=set(), without={"tests/test_toy.py::test_b"})
(project / "ssl_utils/toy.py").write_text("def double(x):\\n    while True:\\n        x += 1\\n")
print(json.dumps([whole, first, rest, run(project, ["tests/test_toy.py"], seconds=2)]))
"""
TOY = """
import pytest
from ssl_utils import toy
def test_a():
    assert toy.double(2) == 4
def test_b():
    assert False
@pytest.mark.course
def test_c():
    assert False
"""


@pytest.mark.long
def test_a_run_says_what_failed_what_was_called_and_that_it_did_not_end(tmp_path):
    project = tmp_path / "project"
    for name, text in {
        "ssl_utils/__init__.py": "",
        "ssl_utils/toy.py": "def double(x):\n    return [y * 2 for y in (x,)][0]\n",
        "tests/test_toy.py": TOY,
        "pytest.ini": "[pytest]\nmarkers = course\n",
    }.items():
        (project / name).parent.mkdir(parents=True, exist_ok=True)
        (project / name).write_text(text)
    words = [sys.executable, "-c", RUN, str(project)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=300, cwd=PROJECT)
    assert done.returncode == 0, done.stderr
    whole, first, rest, endless = json.loads(done.stdout)
    test_a, test_b = "tests/test_toy.py::test_a", "tests/test_toy.py::test_b"
    assert whole["failed"] == [test_b] and whole["seconds"] > 0
    assert whole["calls"] == {test_a: ["ssl_utils/toy.py double"], test_b: []}
    assert list(first["calls"]) == [test_b] and rest["failed"] == [] and list(rest["calls"]) == [test_a]
    assert endless is None


def test_the_record_adds_up_enough_was_noticed_and_every_survivor_is_explained():
    told = read_json(REFERENCE)
    assert told["places"] >= 60 and len(told["kinds"]) >= 5 and sum(told["kinds"].values()) == told["places"]
    assert told["noticed"] == round(100 * (1 - len(told["survivors"]) / told["places"]), 1) >= LEAST
    assert all(row["why"] for row in told["survivors"]), "a change that nothing notices, and nobody explains"
