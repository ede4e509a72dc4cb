"""Do lists and folders, however they are broken, end in a result or in one line? Thousands of drawn ones are read.

    python -m benchmarks.sweep [--draws 10000] [--first 0]     # 0.06 s a draw on a busy core

Prints every draw that breaks a property, and exits with 1 when there is any. The properties, of the list, the dataset,
the doctor and the setup alike: a result, or one line that names something of the folder; no patient and no voxels in
two splits of a setup; every volume in a case, or named; every tenth time, the same answer twice; nothing written into
the folder.
"""

import argparse
import hashlib
import os
import re
import shutil
import sys
import tempfile
import traceback
import warnings
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from benchmarks.drawn_folders import Drawn, bank
from ssl_utils.data import datalists, datasets, doctor
from ssl_utils.data.cases import Datalist
from ssl_utils.errors import CourseError
from ssl_utils.experiments import scales, setups

SMOKE = scales.get("smoke")
ROOTS = ("own", "own", "My Data (1)", "médecine", "caf\udce9", "labels", "sub-01_ses-1", "数据", "{x}%s", "line\nbreak")


def look(root: Path) -> dict[str, Any]:
    """What each door says of the folder: a result, or an exception."""
    doors: dict[str, Callable[[], Any]] = {
        "list": lambda: datalists.as_listed(root),
        "splits": lambda: datalists.from_folder(root),
        "dataset": lambda: datasets.get("folder", root),
        "doctor": lambda: doctor.examine_folder(root),
        "setup": lambda: setups.setup(dataset="folder", scale=SMOKE, data=str(root)),
    }
    said = {}
    for name, door in doors.items():
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # a warning on screen is not one line with a cure
            try:
                said[name] = door()
            except Exception as error:
                said[name] = error
    return said


def faults(root: Path, *, twice: bool = True) -> Iterator[str]:
    """Every property that reading the folder, or reading it `twice`, breaks, one line each."""
    before, volumes = _state(root), _volumes(root)
    said = look(root)
    for name, answer in said.items():
        if isinstance(answer, Exception) and not isinstance(answer, CourseError):
            where = traceback.extract_tb(answer.__traceback__)[-1]
            yield f"{name}: traceback {type(answer).__name__}: {answer} ({Path(where.filename).name}:{where.lineno})"
        elif isinstance(answer, CourseError):
            yield from (f"{name}: {wrong}: {answer}" for wrong in _line(str(answer), root))
    if not isinstance(said["doctor"], Exception):
        for finding in said["doctor"]:
            yield from (f"finding: {wrong}: {finding.line()}" for wrong in _line(finding.line(), None))
        yield from (f"lost: {path}" for path in _lost(root, volumes, said))
    if isinstance(said["setup"], setups.Setup):
        yield from (f"leak: {leak}" for leak in _leaks(said["setup"].datalist))
    again = look(root) if twice else said
    yield from (f"{name}: another answer the second time" for name in said if _text(said[name]) != _text(again[name]))
    if _state(root) != before:
        yield "the folder was written to"


def _line(line: str, root: Path | None) -> Iterator[str]:
    if "\n" in line or "; " not in line:
        yield "not one line with a fix"
    if root and " ".join(str(root).split()) not in line and not any(name in line for name in _names(root)):
        yield "names nothing of the folder"


def _names(root: Path) -> list[str]:
    """What a line may name: files of the folder without endings, and words of its list."""
    path, words = root / "dataset.json", []
    if path.is_file():
        words = re.findall(r'"([^"]{2,})"', path.read_text(encoding="utf-8", errors="replace"))
    entries = [name for _, folders, files in os.walk(root) for name in folders + files]
    return words + [" ".join(name.split(".nii")[0].split()) for name in entries]


def _volumes(root: Path) -> list[str]:
    """All that has the name of a NIfTI file and is not hidden, by another walk than the package's."""
    found = []
    for folder, folders, files in os.walk(root):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [
            os.path.join(folder, name)
            for name in files
            if name.lower().endswith((".nii", ".nii.gz")) and not name.startswith(".")
        ]
    return found


def _lost(root: Path, volumes: list[str], said: dict[str, Any]) -> list[str]:
    """Volumes in no case and in no finding, where a list could be read."""
    listed = said["list"] if isinstance(said["splits"], Exception) else said["splits"]
    if isinstance(listed, Exception):
        return []
    used = {os.path.realpath(path) for case in listed.all_cases() for _, path in case.files}
    files = {finding.file for finding in said["doctor"]}  # a folder that is not read stands for what is in it
    targets = {os.path.realpath(file) for file in files if os.path.isfile(file)}  # of links, one is named
    text = " ".join([*(finding.line() for finding in said["doctor"]), str(said["setup"])])

    def named(path: str) -> bool:
        above = {str(parent) for parent in Path(path).parents} - {str(root)}
        if files & {path, *above} or os.path.realpath(path) in targets:
            return True
        return bool(re.search(rf"{re.escape(' '.join(path.split()))}(?![\w.])", text))

    return [path for path in volumes if os.path.realpath(path) not in used and not named(path)]


def _leaks(datalist: Datalist) -> Iterator[str]:
    """Patients and voxels (of any channel that is not constant) in two of pool, validation and test."""
    splits: dict[Any, set[str]] = defaultdict(set)
    for side, cases in datalist.sides().items():
        for case in cases:
            split = "pool" if side in datalists.POOL else side
            splits[f"patient {case.patient}"].add(split)
            for kind, path in case.files:
                array = np.asarray(nib.load(path).dataobj)
                if kind == "image" and array.min() < array.max():
                    splits[f"voxels {hashlib.sha256(array.tobytes()).hexdigest()[:8]}"].add(split)
    return (f"{what} in {' and '.join(sorted(where))}" for what, where in splits.items() if len(where) > 1)


def _state(root: Path) -> list[tuple]:
    found = []
    for folder, folders, files in os.walk(root):
        for path in (folder, *(os.path.join(folder, name) for name in (*folders, *files))):
            stat = os.lstat(path)
            found.append((path, stat.st_size, stat.st_mtime_ns, stat.st_mode))
    return sorted(found)


def _text(answer: Any) -> str:
    return repr(answer.record()) if isinstance(answer, doctor.Report) else f"{type(answer).__name__} {answer!r}"


def sweep(seeds: range, folder: Path) -> Iterator[tuple[Drawn, list[str]]]:
    """Each draw, and the properties that it breaks. `folder` is filled, and holds the runs too."""
    before, files = os.environ.get("SSL_RUNS_ROOT"), bank(folder / "bank")
    os.environ["SSL_RUNS_ROOT"] = str(folder / "runs")
    try:
        for seed in seeds:
            drawn = Drawn(seed, folder / f"d{seed}" / ROOTS[seed % len(ROOTS)], files)
            yield drawn, list(faults(drawn.root, twice=seed % 10 == 0))
            shutil.rmtree(folder / "runs", ignore_errors=True)
            shutil.rmtree(drawn.root.parent, ignore_errors=True)
    finally:
        os.environ.pop("SSL_RUNS_ROOT")
        os.environ.update({} if before is None else {"SSL_RUNS_ROOT": before})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--draws", type=int, default=10_000)
    parser.add_argument("--first", type=int, default=0, help="number of the first draw")
    given, broken = parser.parse_args(), Counter()
    with tempfile.TemporaryDirectory() as folder:
        for drawn, lines in sweep(range(given.first, given.first + given.draws), Path(folder)):
            for line in lines:
                print(f"{drawn.seed} ({', '.join(drawn.done)}): {ascii(line)[:600]}", flush=True)
            broken.update({re.sub(r"/\S+|\d+", "", line)[:60] for line in lines})
    if broken:
        sys.exit("\n".join(f"{count} {line!a}" for line, count in broken.most_common()))


if __name__ == "__main__":
    main()
