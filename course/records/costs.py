"""The cost of a course: from a measured run into json_files, from there into README and chapters."""

import json
import re
from pathlib import Path

import pandas as pd

from course.chapters import chapters_of, part_of
from course.records import entries
from ssl_utils.errors import CourseError
from ssl_utils.experiments import runs
from ssl_utils.files import read_json, write_json, write_text
from ssl_utils.statistics import tables

REFERENCE = runs.PROJECT / "json_files" / "reference_costs.json"
ROW = re.compile(r"^(\| \[[^\]]+\]\(notebooks/(\w+)\.ipynb\) \|[^|\n]*\|[^|\n]*\|).*$", re.MULTILINE)  # of the README
BOX = re.compile(r"<!-- cost:(\w+) -->\n(?:\s*\n)?(?:\|.*(?:\n|$))*")


def record(course_dir: Path | str, *, into: Path = REFERENCE) -> None:
    """Record the cost of part I, in place of an earlier one of the same dataset and scale; of a later part, the cost of
    its chapters.

    Raises:
        CourseError: the part was not run in one go, so that its wall time is not that of the part.
    """
    course_dir = Path(course_dir).resolve()
    report = read_json(course_dir / "costs.json")
    later = set(read_json(course_dir / ".course" / "config.json")["parts"]) - {1}
    memory = {c: read_json(course_dir / "chapters" / c / "done.json")["peak_memory_gb"] for c in report["chapters"]}
    if lacking := set(chapters_of(later or {1})) - set(memory):
        names = ", ".join(sorted(lacking))
        raise CourseError(f"{course_dir}: {names} did not run in its last course; run a whole one to measure it")
    costs = entries.recorded(into)
    entry = costs.setdefault(course_dir.parent.name, {}).setdefault(course_dir.name, {"chapters": {}, "memory_gb": {}})
    keep = {c: s for c, s in report["chapters"].items() if part_of(c) in (later or {1})}
    entry["chapters"] = dict(sorted((entry["chapters"] | keep).items()))
    entry["memory_gb"] = dict(sorted((entry["memory_gb"] | {c: memory[c] for c in keep}).items()))
    if not later:
        entry |= _of_the_course(course_dir, report)
    write_json(into, costs)


def _of_the_course(course_dir: Path, report: dict) -> dict:
    (metrics, *_) = runs.finished(course_dir)
    config = read_json(metrics.parent / "config.json")
    return {
        **{key: report[key] for key in ("seconds", "cores", "parts")},
        "peak_memory_gb": round(report["peak_bytes"] / 1e9, 1),
        "device": read_json(metrics)["device"],
        "commit": config["commit"],
        "date": config["started"][:10],
        "versions": config["versions"],
    }


def readme(text: str, costs: dict) -> str:
    """The README with the table of whole courses between its markers, and minutes and memory in its chapter table (its
    last two columns; scale laptop on the phantom)."""
    laptop = costs.get("phantom", {}).get("laptop", {"chapters": {}})

    def row(match: re.Match) -> str:
        time, memory = _cells(laptop, match[2]) or ("", "")
        return f"{match[1]} {time} | {memory} |"

    text = ROW.sub(row, text)
    rows = {
        f"{dataset}, {scale}": [minutes(c["seconds"]), f"{c['peak_memory_gb']:.1f} GB", c["cores"], c["date"]]
        for dataset, scales in costs.items()
        for scale, c in scales.items()
    }
    columns = ["minutes", "memory, all processes", "cores", "measured"]
    table = pd.DataFrame.from_dict(rows, orient="index", columns=columns)
    shown = tables.markdown(table.rename_axis("course")) if rows else "No recorded run yet."
    return entries.block(text, "costs", shown)


def boxes(text: str, costs: dict) -> str:
    """A chapter's text with its cost box filled, from the recorded courses on the phantom."""

    def box(match: re.Match) -> str:
        rows = {scale: ["not recorded yet"] * 2 for scale in ("smoke", "laptop", "workstation, paper")}
        rows |= {scale: cells for scale, c in costs.get("phantom", {}).items() if (cells := _cells(c, match[1]))}
        table = pd.DataFrame.from_dict(rows, orient="index", columns=["minutes on one CPU core", "memory"])
        return f"<!-- cost:{match[1]} -->\n\n{tables.markdown(table.rename_axis('scale'))}\n"

    return BOX.sub(box, text)


def _cells(course: dict, chapter: str) -> list[str]:
    """Minutes and memory of a chapter; nothing where the course has not recorded it."""
    if chapter not in course["chapters"]:
        return []
    return [minutes(course["chapters"][chapter]), f"{course['memory_gb'][chapter]:.1f} GB"]


def minutes(seconds: float) -> str:
    return f"{seconds / 60:.1f}"


def fill(project: Path = runs.PROJECT) -> None:
    """Write the recorded costs into README.md, the page for lecturers and the chapters."""
    costs = entries.recorded(REFERENCE)
    pages = [project / "README.md", project / "docs" / "for_lecturers.md"]
    changed = {page: readme(page.read_text(encoding="utf-8"), costs) for page in pages if page.exists()}
    for path in sorted((project / "notebooks").glob("[0-9]*.ipynb")):
        notebook = json.loads(path.read_text(encoding="utf-8"))
        for cell in notebook["cells"]:
            if cell["cell_type"] == "markdown":
                cell["source"] = boxes("".join(cell["source"]), costs).splitlines(keepends=True)
        changed[path] = json.dumps(notebook, indent=1, ensure_ascii=False) + "\n"
    for path, text in changed.items():
        if text != path.read_text(encoding="utf-8"):
            write_text(path, text)
