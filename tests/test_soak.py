"""A process that trains again and again holds no more files and threads than after its first run."""

import gc
import importlib.util
import resource
from pathlib import Path

import numpy as np
import psutil
import pytest

from ssl_utils.data import cache
from ssl_utils.data.cases import Case

SOAK = Path(__file__).resolve().parents[1] / "benchmarks" / "soak.py"


@pytest.fixture(scope="module")
def soak():
    spec = importlib.util.spec_from_file_location("soak", SOAK)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.long
def test_files_and_threads_do_not_grow(soak, tiny_setup, tmp_path, monkeypatch):
    monkeypatch.setenv("SSL_RUNS_ROOT", str(tmp_path))
    gc.disable()  # what goes must go by itself: nobody knows when the collector comes
    try:
        found = list(soak.rows(tiny_setup, 5))
    finally:
        gc.enable()
    assert [row["fds"] for row in found[1:]] == [found[0]["fds"]] * 4
    assert [row["threads"] for row in found[1:]] == [found[0]["threads"]] * 4
    assert not list(tmp_path.rglob("config.json")), "every run was deleted"


def test_what_grows_is_named(soak):
    row = {"rss_mb": 500.0, "fds": 10, "threads": 1, "maps": 100, "objects": 1000}
    still = [row] * 20
    assert soak.grown(soak.summary(still)) == []
    files = [row | {"fds": 10 + run} for run in range(20)]
    assert soak.grown(soak.summary(files)) == ["fds: 14 in the first quarter, 29 at the end"]
    memory = [row | {"rss_mb": 500 + 0.5 * run} for run in range(20)]
    about = soak.summary(memory)
    assert soak.grown(about) == ["memory: 0.50 MB a run, 0.2 is allowed"]
    assert about["slope_mb_per_run"] == pytest.approx(0.5) and about["slope_standard_error"] == pytest.approx(0)
    assert about["fitted_runs"] == 15 and about["rss_mb"] == {"10": 504.5}


def test_more_cases_than_files_may_be_open(tmp_path, monkeypatch):
    """Each memory map holds a file: a pool of a thousand volumes is more than a process may open."""
    for number in range(40):
        (tmp_path / str(number)).mkdir()
        np.save(tmp_path / str(number) / "image.npy", np.full((1, 2, 2, 2), number, np.float16))
    cases = [cache.Prepared(str(n), str(n), tmp_path / str(n), Case(str(n), tmp_path, None, "")) for n in range(40)]
    monkeypatch.setattr(cache, "_mapped", cache.functools.lru_cache(10)(cache._mapped.__wrapped__))
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (psutil.Process().num_fds() + 30, hard))
    try:
        assert [float(case.image.mean()) for case in cases] == list(range(40))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
