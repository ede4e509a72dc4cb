"""What finished chapters measured, into json_files and into claims: soups (13) and synthetic volumes (14)."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from course.records import entries
from ssl_utils.errors import CourseError
from ssl_utils.experiments import runs
from ssl_utils.files import read_json, write_json

RECORDS = runs.PROJECT / "json_files"


def _mixed(entry: dict[str, Any], way: str) -> str:
    """The gain of one way, such as `greedy soup`, on both groups of patients."""
    gain = entry["gains"][way]
    text = (
        f"{way} over the best member, in points. {gain['patients that chose']:+.2f} on the "
        f"{entry['choosing']} patients that chose, {gain['test']:+.2f} [{gain['low']:+.2f}, {gain['high']:+.2f}] on "
        f"{entry['patients']} others"
    )
    one = f"; greedy kept one network in {100 * entry['keeps_one']:.0f} % of the draws of patients"
    return text + one * (way == "greedy soup")


def _drawn(entry: dict[str, Any], way: str) -> str:
    """For `real + drawn` the Dice of all arms and their gains; else the loss of all adapted models."""
    if way in entry["downstream"]:
        arms = entry["downstream"].items()
        rows = [f"{arm} {100 * row['mean']:.1f} {row['gain in points']}".strip() for arm, row in arms]
        what = f"Dice on {entry['patients']} test patients, and gain over real cases alone"
    elif not any(way in name for name in entry["errors"]):
        raise CourseError(f"claim on {way!r}: chapter 14 has no such arm or adapter; correct claims.json")
    else:
        rows = [f"{name} {error:.4f}" for name, error in entry["errors"].items()]
        what = "loss on held-out cases of the new scanner"
    return f"{what}; one run each. {'; '.join(rows)}"


@dataclass(frozen=True)
class Kind:
    """A chapter whose numbers answer claims of the study of this name."""

    chapter: str
    kept: tuple[str, ...]
    sentence: Callable[[dict[str, Any], str], str]


KINDS = {
    "soups": Kind(
        "13_soups_ensembles",
        ("seconds", "choosing", "patients", "kept", "keeps_one", "gains", "optimism", "scores"),
        _mixed,
    ),
    "synthesis": Kind(
        "14_synthetic_volumes",
        ("seconds", "patients", "share_adapted", "errors", "changes", "smallest_ratio", "downstream", "leak"),
        _drawn,
    ),
}


def study_of(folder: Path) -> str | None:
    return next((study for study, kind in KINDS.items() if kind.chapter == folder.name), None)


def record(folder: Path, *, into: Path = RECORDS) -> str:
    """Put `runs/<dataset>/<scale>/chapters/<chapter>` into `reference_<study>.json`; returns its key, "dataset/scale".

    Raises:
        CourseError: the chapter has not finished.
    """
    study = study_of(folder)
    if not (folder / "done.json").exists():
        raise CourseError(f"{folder}: chapter {folder.name} has not finished; run it first")
    done = read_json(folder / "done.json")
    key, path = f"{done['dataset']}/{folder.parents[1].name}", into / f"reference_{study}.json"
    entry = {"commit": runs.commit(), **{name: done[name] for name in KINDS[study].kept}}
    write_json(path, dict(sorted({**entries.recorded(path), key: entry}.items())))
    return key


def sentence(study: str, key: str, way: str, *, source: Path = RECORDS) -> str | None:
    """What the chapter says to a claim about one way of doing it; None without a record."""
    entry: dict[str, Any] | None = entries.recorded(source / f"reference_{study}.json").get(key)
    dataset, scale = key.split("/")
    return None if entry is None else f"**{dataset}, {scale}**, {KINDS[study].sentence(entry, way)}"
