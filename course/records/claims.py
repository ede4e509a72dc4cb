"""Published claims beside the results measured here: claims and recorded studies, from json_files into
docs/results.md.

A claim names the study that tests it, and under `measured` the records it is compared with, as "dataset/scale"; the
study `course` means the recorded courses, `soups` and `synthesis` chapters 13 and 14. No measured number is written by
hand.
"""

from pathlib import Path
from typing import Any

import pandas as pd

from course.records import entries, of_chapters, study_report as studies
from ssl_utils.errors import CourseError
from ssl_utils.experiments import runs
from ssl_utils.files import read_json, write_json
from ssl_utils.statistics import is_control

CLAIMS = runs.PROJECT / "json_files" / "claims.json"
REFERENCE = runs.PROJECT / "json_files" / "reference_studies.json"
COURSES = runs.PROJECT / "json_files" / "reference_results.json"
IN_POINTS = ("dice", "low", "high", "gain", "gain_low", "gain_high")  # 0 to 100 in the record
COURSE = "course"
COMMANDS = {COURSE: "make course"} | dict.fromkeys(of_chapters.KINDS, "make course PART=3")


def record(
    folder: Path | str,
    *,
    into: Path = REFERENCE,
    claims: Path = CLAIMS,
    courses: Path = COURSES,
    chapters: Path = of_chapters.RECORDS,
) -> None:
    """Put a finished study into the record, in place of an earlier one of the same name, dataset and scale, and name it
    in the claims that it tests. For the folder of a course, which is recorded already, only the latter.

    Raises:
        CourseError: it is not finished, or the course is not recorded.
    """
    folder = Path(folder).resolve()
    if of_chapter := of_chapters.study_of(folder):
        return _name_in(claims, of_chapter, of_chapters.record(folder, into=chapters))
    if folder.parent.name != "studies":
        if _of_course(folder.parent.name, folder.name, courses) is None:
            raise CourseError(f"{folder}: no recorded course; run python -m course.records record {folder}")
        return _name_in(claims, COURSE, f"{folder.parent.name}/{folder.name}")
    about, table = studies.read(folder)
    keys = {key: about[key] for key in ("name", "dataset", "scale")}
    kept = entries.matching(entries.recorded(into).get("studies", []), keys, others=True)
    kept.append({**about, "points": entries.in_points(table, IN_POINTS)})
    write_json(into, {"studies": sorted(kept, key=lambda entry: [entry[key] for key in keys])})
    return _name_in(claims, about["name"], f"{about['dataset']}/{about['scale']}")


def _name_in(claims: Path, study: str, key: str) -> None:
    all_claims = read_json(claims)
    for claim in all_claims:
        if claim["study"] == study:
            claim["measured"] = sorted({*(claim["measured"] or ()), key})
    write_json(claims, all_claims)


def recorded(name: str, *, source: Path = REFERENCE, **keys: str) -> list[tuple[dict[str, Any], pd.DataFrame]]:
    """Every record of a study, as `studies.read` gives it; `keys`: of this dataset or scale alone."""
    records = []
    for entry in entries.matching(entries.recorded(source).get("studies", []), {"name": name, **keys}):
        table = entries.fractions(entry["points"], IN_POINTS).astype({"p": float})
        records.append(({key: value for key, value in entry.items() if key != "points"}, table))
    return records


def table(
    *, claims: Path = CLAIMS, source: Path = REFERENCE, courses: Path = COURSES, chapters: Path = of_chapters.RECORDS
) -> pd.DataFrame:
    """A row per claim: source, they say, we measured, why it differs.

    Raises:
        CourseError: a claim names a record that is not there.
    """
    rows = []
    for claim in read_json(claims):
        results = [
            _measured(claim, key, source=source, courses=courses, chapters=chapters) for key in claim["measured"] or ()
        ]
        command = COMMANDS.get(claim["study"], f"make study STUDY={claim['study']}")
        measured = "<br>".join(results) or f"not measured yet: `{command}`"
        rows.append((claim["source"], claim["they_say"], measured, claim["why"]))
    return pd.DataFrame(rows, columns=["source", "they say", "we measured", "why it differs"])


def _measured(claim: dict[str, Any], key: str, *, source: Path, courses: Path, chapters: Path) -> str:
    """One record in a line: the gain over training from scratch, in points."""
    dataset, scale = key.split("/")
    study = claim["study"]
    if study in of_chapters.KINDS and (text := of_chapters.sentence(study, key, claim["task"], source=chapters)):
        return text
    if study == COURSE:
        points = _of_course(dataset, scale, courses)
    else:
        records = recorded(study, source=source, dataset=dataset, scale=scale)
        points = records[0][1] if records else None
    if points is None:
        raise CourseError(f"claim {claim['id']}: no record of {claim['study']} for {key}; record it, or remove it")
    points = points[points["num_labeled"].isin(claim["num_labeled"]) & points["gain"].notna()]
    if claim["task"]:
        points = points[points["task"] == claim["task"]]
    several = points["task"].nunique() > 1
    sentences = []
    for count, part in points.groupby("num_labeled"):
        cells = "; ".join(_gain(row, several) for row in part.itertuples())
        sentences.append(f"{count} labels: {cells}")
    gains = ". ".join(sentences or ["not with these labels"])
    return f"**{dataset}, {scale}**, gain over training from scratch. {gains}"


def _gain(row: Any, several: bool) -> str:
    """Task, value and gain; the interval of a single run is that of the test patients alone."""
    names = [row.task if several or not row.value else "", row.value]
    once = " (one run)" if row.subsets * row.seeds == 1 else ""
    return f"{' '.join(filter(None, names))} {studies.gain_text(row)}{once}"


def _of_course(dataset: str, scale: str, courses: Path) -> pd.DataFrame | None:
    """The gains of a recorded course in the columns of a study; its value is the init itself."""
    rows = entries.matching(entries.recorded(courses).get("gains", []), {"dataset": dataset, "scale": scale})
    if not rows:
        return None
    gains = entries.fractions(rows, ["gain", "low", "high"])
    gains = gains[~gains["init"].map(is_control)].assign(value="")
    names = {"init": "task", "low": "gain_low", "high": "gain_high"}
    return gains[["init", "num_labeled", "subsets", "seeds", "value", "gain", "low", "high"]].rename(columns=names)


def markdown(claims: pd.DataFrame) -> str:
    """A Markdown table; its cells are sentences, so it is not padded."""
    lines = ["| " + " | ".join(claims.columns) + " |", "|---" * len(claims.columns) + "|"]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in claims.itertuples(index=False)])


def fill(text: str, **files: Path) -> str:
    """docs/results.md with the claims between its markers.

    Raises:
        CourseError: it has no `<!-- claims -->` and `<!-- /claims -->`.
    """
    return entries.block(text, "claims", markdown(table(**files)), page="docs/results.md")
