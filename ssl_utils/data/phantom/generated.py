"""The files of a generated dataset: only missing ones are written, also after an interruption or for a larger size."""

import os
import zlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from ssl_utils.errors import CourseError
from ssl_utils.files import atomic, write_json

FIRST = {"training": 0, "validation": 2000, "test": 4000, "unlabeled": 6000}  # first case number of a split, less one
FOLDERS = {"test": "Ts", "unlabeled": "Un"}  # the others: Tr
Draw = Callable[..., tuple[Sequence[np.ndarray], np.ndarray, np.ndarray]]  # recipe -> channels, label, affine


def numbered(what: str, **sizes: int) -> dict[str, list[tuple[int, str]]]:
    """Split -> (number, ending of its folders) of every case. A case does not depend on how many there are."""
    for split, size in sizes.items():
        if not 0 <= size < 2000:
            raise CourseError(f"{split}={size}: a split of the {what} has 0 to 1999 cases")
    return {
        split: [(FIRST[split] + n, FOLDERS.get(split, "Tr")) for n in range(1, size + 1)]
        for split, size in sizes.items()
    }


def write_set(
    root: Path,
    splits: dict[str, list[dict[str, Any]]],
    *,
    draw: Draw,
    mark: Callable[[dict], str],
    about: dict[str, Any],
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Write the cases, and last dataset.json, whose path is returned.

    Args:
        splits: split -> entries of the list, each with its `recipe`, which is not written.
        draw: makes a case from its recipe; a function of a module, since several processes call it.
        mark: the text in the headers by which a file of this recipe is known again.
        about: the other entries of dataset.json.
        progress: called with (done, total) after each volume.
    """
    cases = [case for members in splits.values() for case in members]
    missing = [case for case in cases if not _complete(root, case, mark(case["recipe"]))]
    complete, report = len(cases) - len(missing), progress or (lambda done, total: None)
    report(complete, len(cases))
    for written, _ in enumerate(_each(root, missing, draw, mark, workers or min(os.cpu_count() or 1, 4)), 1):
        report(complete + written, len(cases))
    counts = {f"num{split.capitalize()}": len(members) for split, members in splits.items()}
    entries = {split: [{k: v for k, v in c.items() if k != "recipe"} for c in cs] for split, cs in splits.items()}
    write_json(root / "dataset.json", about | counts | entries)
    return root / "dataset.json"


def _each(root: Path, cases: list[dict], draw: Draw, mark: Callable[[dict], str], workers: int) -> Iterator[None]:
    """Write the cases, in several processes when there are many, and yield after each."""
    write = partial(_write_case, root, draw, mark)
    if workers == 1 or len(cases) < 4:
        yield from map(write, cases)
    else:
        with ProcessPoolExecutor(min(workers, len(cases)), mp_context=get_context("spawn")) as pool:
            yield from pool.map(write, cases)  # cancels the rest after an error


def _paths(case: dict) -> list[str]:
    """Images, then the label if there is one."""
    images = [case["image"]] if isinstance(case["image"], str) else case["image"]
    return [*images, *([case["label"]] if "label" in case else [])]


def _complete(root: Path, case: dict, mark: str) -> bool:
    """Whether its files were written by this version from this recipe, by their headers."""
    try:
        headers = [nib.load(root / path).header for path in _paths(case)]
    except (OSError, EOFError, ValueError, zlib.error, nib.filebasedimages.ImageFileError):
        return False
    return all(header["descrip"].item().decode(errors="replace") == mark for header in headers)


def _write_case(root: Path, draw: Draw, mark: Callable[[dict], str], case: dict) -> None:
    channels, label, affine = draw(case["recipe"])
    arrays = dict(zip(_paths(case), [*channels, label], strict=False))  # without a label its array is left over
    for path, array in reversed(arrays.items()):
        file = nib.Nifti1Image(array, affine)
        file.header.set_xyzt_units("mm")
        file.header["descrip"] = mark(case["recipe"])
        with atomic(root / path) as temporary:
            nib.save(file, temporary)
