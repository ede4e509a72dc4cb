"""The gains of soups, ensembles and cleaned masks in a finished chapter 13, into json_files and into a claim."""

from pathlib import Path
from typing import Any

from course.records import entries
from ssl_utils.errors import CourseError
from ssl_utils.experiments import runs
from ssl_utils.files import read_json, write_json

REFERENCE = runs.PROJECT / "json_files" / "reference_soups.json"
CHAPTER = "13_soups_ensembles"
KEPT = ("seconds", "choosing", "patients", "kept", "keeps_one", "gains", "optimism", "scores")


def record(folder: Path, *, into: Path) -> str:
    """Put `runs/<dataset>/<scale>/chapters/13_soups_ensembles` into the record; returns its key, "dataset/scale".

    Raises:
        CourseError: the chapter has not finished.
    """
    if not (folder / "done.json").exists():
        raise CourseError(f"{folder}: chapter {CHAPTER} has not finished; run it first")
    done = read_json(folder / "done.json")
    key = f"{done['dataset']}/{folder.parents[1].name}"
    entry = {"commit": runs.commit(), **{name: done[name] for name in KEPT}}
    write_json(into, dict(sorted({**entries.recorded(into), key: entry}.items())))
    return key


def sentence(key: str, way: str, *, source: Path) -> str | None:
    """The gain of one way, such as `greedy soup`, on both groups of patients; None without a record."""
    entry: dict[str, Any] | None = entries.recorded(source).get(key)
    if entry is None:
        return None
    gain, (dataset, scale) = entry["gains"][way], key.split("/")
    text = (
        f"**{dataset}, {scale}**, {way} over the best member, in points. {gain['patients that chose']:+.2f} on the "
        f"{entry['choosing']} patients that chose, {gain['test']:+.2f} [{gain['low']:+.2f}, {gain['high']:+.2f}] on "
        f"{entry['patients']} others"
    )
    one = f"; greedy kept one network in {100 * entry['keeps_one']:.0f} % of the draws of patients"
    return text + one * (way == "greedy soup")
