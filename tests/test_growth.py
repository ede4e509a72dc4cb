"""How cost grows: the fit finds the law that made the points, and what is recorded fits together."""

import importlib.util
import sys
from pathlib import Path

import pandas as pd
import pytest

from ssl_utils.files import read_json

PROJECT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def growth():
    spec = importlib.util.spec_from_file_location("growth", PROJECT / "benchmarks" / "growth.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["growth"] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules["growth"]


def test_the_fit_finds_the_power_and_doubts_what_is_none(growth):
    counts = [64, 216, 512, 1000, 1728, 4096]
    points = [{"what": "law", "n": n, "seconds": 3e-5 * n**1.5, "bytes": 7 * n + n**2} for n in counts]
    found = growth.exponents(pd.DataFrame(points[::-1]))["law"]
    assert found["seconds"] == {"exponent": 1.5, "error": 0.0, "intercept": -10.414, "last": 1.5}
    assert 1.9 < found["bytes"]["exponent"] < 2 and found["bytes"]["error"] > 0 and found["bytes"]["last"] > 1.99


@pytest.mark.parametrize(
    ("kind", "size", "n"),
    [("SimMIM", [2], 8), ("MAE", [2], 8), ("UNETR", [2], 8), ("preprocessing", (20, 20, 10), 4000)],
)
def test_a_point_is_measured(growth, monkeypatch, kind, size, n):
    monkeypatch.setattr(growth.torch, "set_num_threads", lambda n: None)
    monkeypatch.setattr(growth, "seconds_of", lambda work, least: len([work() for _ in range(least)]))
    point = growth.measured((kind, size))
    assert point["what"] == kind and point["n"] == n and point["seconds"] >= 1 and point.get("bytes", 0) >= 0


def test_the_recorded_exponents_are_those_of_the_recorded_points(growth):
    recorded = read_json(growth.REFERENCE)
    assert growth.exponents(pd.DataFrame(recorded["points"])) == recorded["exponents"]
    kinds = {*growth.NETWORKS, growth.PREPARING}
    assert {point["what"] for point in recorded["points"]} == kinds and recorded["commit"] and recorded["date"]
    laws, (steps, memory, voxels) = recorded["exponents"], growth.draw(recorded).axes
    for axes, quantity in ((steps, "seconds"), (memory, "bytes"), (voxels, "seconds")):
        for text in axes.get_legend().get_texts():
            what, _, law = text.get_text().partition(": ")
            assert law == "{exponent:.2f} ± {error:.2f}, at the end {last:.1f}".format(**laws[what][quantity])
