"""Do the tests notice a fault? Break the package in one place after another, and run the tests that reach the place.

    python -m benchmarks.mutants [--places 60] [--seed 0]      # an hour or two; the same command goes on after a stop

The places are drawn from five rooms in equal shares, and spread over their files and over the kinds of change: a
comparison, an operator, a number, a condition, a returned value, the order of two arguments. Each change is made in a
copy of the project, in build/mutants. A first run of every test file, without any change, says which functions a test
calls and which tests fail anyway; of a change, only the files whose tests call the changed function are run. Tests that
compare the package with its text in the chapters do not count: they would notice any change.

Writes build/mutants/places.json after every place, and json_files/reference_mutants.json at the end. What the record
says about a survivor (`why`) is kept.
"""

import argparse
import importlib
import json
import multiprocessing
import os
import resource
import shutil
import sys
from pathlib import Path
from typing import Any

from benchmarks.places import Place, chosen, with_change

PROJECT = Path(__file__).resolve().parents[1]
REFERENCE = PROJECT / "json_files" / "reference_mutants.json"
COUNTED = "not (course or browser or slurm or alone or long)"
IGNORED = ("test_inline.py", "test_structure.py", "test_anatomy.py")
LEAST = 90.0  # per cent that must be noticed


class Listener:
    """A plugin of pytest: which tests fail, and which functions of the package each of them calls."""

    def __init__(self, project: Path, first: set[str] | None = None, without: set[str] = frozenset()) -> None:
        self.project, self.watch = project, first is None
        self.first, self.without = first or set(), without
        self.failed, self.calls, self.seen = [], {}, set()

    def pytest_collection_modifyitems(self, items: list) -> None:
        items[:] = [item for item in items if item.nodeid not in self.without]
        items.sort(key=lambda item: item.nodeid not in self.first)

    def pytest_runtest_logreport(self, report) -> None:
        self.failed += [report.nodeid] if report.failed else []

    def pytest_collectreport(self, report) -> None:
        self.failed += [report.nodeid] if report.failed else []

    def pytest_runtest_logstart(self, nodeid: str, location) -> None:
        self.seen = set()
        sys.setprofile(self._note if self.watch else None)

    def pytest_runtest_logfinish(self, nodeid: str, location) -> None:
        sys.setprofile(None)
        self.calls[nodeid] = sorted(self.seen)

    def _note(self, frame, event: str, argument) -> None:
        code = frame.f_code
        if event == "call" and code.co_filename.startswith(f"{self.project}{os.sep}ssl_utils"):
            name = code.co_qualname.split(".<locals>.<")[0]  # a comprehension or lambda belongs to what holds it
            self.seen.add(f"{Path(code.co_filename).relative_to(self.project)} {name}")


def _run(project: Path, files: list[str], listener: Listener, options: list[str], seconds: int, pipe) -> None:
    import pytest

    os.chdir(project)
    os.environ |= {"PYTHONPATH": str(project), "PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1"}
    sys.dont_write_bytecode = True
    sys.path.insert(0, str(project))
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
    silence = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
        os.dup2(silence, stream)
    words = ["-q", "-p", "no:cacheprovider", "-p", "no:xdist", "-m", COUNTED, f"--basetemp={project.parent / 'tmp'}"]
    pytest.main([*files, *words, *options], plugins=[listener])
    used = sum(sum(resource.getrusage(who)[:2]) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    pipe.send({"failed": listener.failed, "calls": listener.calls, "seconds": round(used, 1)})


def run(project: Path, files: list[str], *, options=(), seconds: int = 900, **chosen: set[str]) -> dict | None:
    """What the tests of these files say, in a process of their own; None if it did not come to its end."""
    context = multiprocessing.get_context("fork")  # this process has imported what takes long, and nothing of ours
    ours, theirs = context.Pipe(duplex=False)
    listener = Listener(project, **chosen)
    process = context.Process(target=_run, args=(project, files, listener, list(options), seconds, theirs))
    process.start()
    theirs.close()
    try:
        found = ours.recv()
    except EOFError:
        found = None
    process.join()
    return found


def files_of_tests(project: Path) -> list[str]:
    return [f"tests/{path.name}" for path in sorted((project / "tests").glob("test_*.py")) if path.name not in IGNORED]


def left_out(at: Path, names: list[str]) -> set[str]:
    hidden = shutil.ignore_patterns(".*", "__pycache__", "*.egg-info")(at, names)
    return hidden | ({"runs", "data", "build"} & {*names} if at == PROJECT else set())


class Examination:
    """A copy of the project, and all that is known about it so far, in a file that a stop does not harm."""

    def __init__(self, folder: Path) -> None:
        self.project, self.whole, self.file = folder / "project", folder / "whole", folder / "places.json"
        if not self.whole.exists():
            shutil.rmtree(self.project, ignore_errors=True)
            shutil.copytree(PROJECT, self.project, ignore=lambda at, names: left_out(Path(at), names))
            shutil.copytree(self.project / "ssl_utils", self.whole / "ssl_utils")
        shutil.copytree(self.whole, self.project, dirs_exist_ok=True)  # a stop leaves a change behind
        self.known: dict[str, Any] = {"files": {}, "places": {}}
        if self.file.exists():
            self.known = json.loads(self.file.read_text())

    def keep(self) -> None:
        temporary = self.file.with_suffix(".tmp")
        temporary.write_text(json.dumps(self.known, indent=1))
        temporary.replace(self.file)

    def unchanged(self, file: str) -> dict:
        """The test file as it is: functions that it calls, tests that fail, seconds of the processor."""
        if file not in self.known["files"]:
            self.known["files"][file] = run(self.project, [file]) or {"failed": [file], "calls": {}, "seconds": 900}
            self.keep()
        return self.known["files"][file]

    def examine(self, place: Place) -> dict:
        known = {file: self.unchanged(file) for file in files_of_tests(self.project)}
        function = f"{place.path} {place.function}"
        callers = {test for said in known.values() for test, calls in said["calls"].items() if function in calls}
        if not callers:  # what is run at import, and classes: the tests that call anything of the module
            callers = {
                test
                for said in known.values()
                for test, calls in said["calls"].items()
                if any(call.startswith(f"{place.path} ") for call in calls)
            }
        files = sorted({test.partition("::")[0] for test in callers}, key=lambda file: known[file]["seconds"])
        failing = {test for said in known.values() for test in said["failed"]}
        path, source = self.project / place.path, (self.whole / place.path).read_text(encoding="utf-8")
        path.write_text(with_change(source, place), encoding="utf-8")
        limit = 60 + 4 * int(sum(known[file]["seconds"] for file in files))
        try:
            said = run(self.project, files, options=["-x"], seconds=limit, first=callers, without=failing)
        finally:
            path.write_text(source, encoding="utf-8")
        by = "the tests came to no end" if said is None else next(iter(said["failed"]), None)
        return {"noticed_by": by if files else None, "files": files}


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    words.add_argument("--places", type=int, default=60)
    words.add_argument("--seed", type=int, default=0)
    words.add_argument("--folder", type=Path, default=PROJECT / "build" / "mutants")
    asked = words.parse_args()
    examination = Examination(asked.folder)
    places = chosen(examination.whole, asked.places, asked.seed)
    for number, place in enumerate(places, 1):
        if place.name not in examination.known["places"]:
            examination.known["places"][place.name] = examination.examine(place)
            examination.keep()
        by = examination.known["places"][place.name]["noticed_by"]
        print(f"[{number:2}/{len(places)}] {place.name}: {'noticed by ' + by if by else 'SURVIVED'}", flush=True)
    sys.exit(not record(asked.seed, [(place, examination.known["places"][place.name]) for place in places]))


def record(seed: int, found: list[tuple[Place, dict]]) -> bool:
    """Write what survived with the reasons that are known; whether enough was noticed and every survivor explained."""
    earlier = json.loads(REFERENCE.read_text(encoding="utf-8"))["survivors"] if REFERENCE.exists() else []
    why = {(row["path"], row["function"], row["change"]): row["why"] for row in earlier}
    survivors = []
    for place, said in found:
        if said["noticed_by"] is None:
            row = {"path": place.path, "function": place.function, "change": f"{place.old} -> {place.new}"}
            survivors.append(row | {"why": why.get(tuple(row.values()))})
    noticed = 100 * (1 - len(survivors) / len(found))
    kinds = {kind: sum(place.kind == kind for place, _ in found) for kind in sorted({p.kind for p, _ in found})}
    content = {"seed": seed, "places": len(found), "kinds": kinds, "noticed": round(noticed, 1), "survivors": survivors}
    REFERENCE.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print(f"{len(found) - len(survivors)} of {len(found)} noticed; {REFERENCE.name} holds the survivors")
    return noticed >= LEAST and all(row["why"] for row in survivors)


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.nice(10)
    for slow in ("torch", "lightning", "monai.inferers", "monai.networks.nets", "nibabel", "pandas", "scipy.ndimage"):
        importlib.import_module(slow)
    main()
