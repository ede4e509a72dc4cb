"""The cost of a course: from a measured run into json_files, from there into README, pages and chapters."""

import json
import re
from dataclasses import asdict
from pathlib import Path

import pandas as pd

from course import plan
from course.chapters import FINETUNING, OWN, PARTS, chapters_of, part_of
from course.progress import REFERENCE
from course.records import address, entries
from ssl_utils.errors import CourseError
from ssl_utils.experiments import runs, scales
from ssl_utils.files import read_json, write_json, write_text
from ssl_utils.pretext import TASKS
from ssl_utils.statistics import tables

PAGES = ("README.md", "docs/running.md", "docs/for_lecturers.md")
CLONE = "git clone {} ssl3d && cd ssl3d"
ROW = re.compile(r"^(\| \[[^\]]+\]\(notebooks/(\w+)\.ipynb\) \|[^|\n]*\|).*$", re.MULTILINE)  # of the README
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
    ran = [chapter for chapter in report["chapters"] if chapter in chapters_of(PARTS)]  # the table of a part is none
    memory = {c: read_json(course_dir / "chapters" / c / "done.json")["peak_memory_gb"] for c in ran}
    if lacking := set(chapters_of(later or {1})) - set(memory):
        names = ", ".join(sorted(lacking))
        raise CourseError(f"{course_dir}: {names} did not run in its last course; run a whole one to measure it")
    costs = entries.recorded(into)
    entry = costs.setdefault(course_dir.parent.name, {}).setdefault(course_dir.name, {"chapters": {}, "memory_gb": {}})
    keep = {c: report["chapters"][c] for c in ran if part_of(c) in (later or {1})}
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


def page(text: str, costs: dict) -> str:
    """A page with what it has markers for (the commands with their minutes, whole courses, chapters), and the minutes
    of each chapter in the last column of the README's table (scale laptop on the phantom)."""
    default = costs.get("phantom", {}).get("laptop", {"chapters": {}})["chapters"]
    text = ROW.sub(lambda row: f"{row[1]} {minutes(default[row[2]]) if row[2] in default else ''} |", text)
    for name, content in {"commands": commands, "costs": courses, "chapters": chapters}.items():
        if f"<!-- {name} -->" in text:
            text = entries.block(text, name, content(costs))
    return text


def commands(costs: dict) -> str:
    """Clone, run, test, open: minutes of the recorded course, and those that the Makefile gives for the tests."""
    makefile = (runs.PROJECT / "Makefile").read_text(encoding="utf-8")
    tests = re.search(r"^test:.*\(about (\d+ minutes)", makefile, re.MULTILINE)[1]
    course = costs.get("phantom", {}).get("laptop", {})
    took = f"{course['seconds'] / 60:.0f} minutes" if "seconds" in course else "not measured yet"
    block = f"""```sh
{CLONE.format(address.repository() or "<address of this repository>")}
make course     # {took}: generate the data, run chapters 00 to 05, print the results
make test       # {tests}: run every test
make lab        # open the chapters in JupyterLab
```"""
    return f"{block}\n\n{_measured_on(course)}" if "seconds" in course else block


def _measured_on(course: dict) -> str:
    said = f"Minutes on {course['cores']} CPU cores. The first `make` also installs about 2 GB of packages, once."
    if course["parts"] != (today := parts_today("laptop")):
        said += f" `make course` was timed when it ran {course['parts']} notebooks; today it runs {today}."
    return said


def courses(costs: dict) -> str:
    """A row per recorded course, and which of them had other parts than the course has today."""
    rows, older = {}, []
    for dataset, by_scale in costs.items():
        for scale, entry in ((s, e) for s, e in by_scale.items() if "seconds" in e):  # none of a later part alone
            name, parts = f"{dataset}, {scale}", parts_today(scale)
            cells = [minutes(entry["seconds"]), f"{entry['peak_memory_gb']:.1f} GB", entry["cores"], entry["parts"]]
            rows[name] = [*cells, parts, entry["date"]]
            older += [name] if entry["parts"] != parts else []
    if not rows:
        return "No recorded run yet."
    columns = ["minutes", "memory, all processes", "cores", "parts", "parts today", "measured"]
    shown = tables.markdown(pd.DataFrame.from_dict(rows, orient="index", columns=columns).rename_axis("course"))
    if older:
        shown += "\n\nMeasured on a course with other parts than today's, so only a guide: " + "; ".join(older) + "."
    return shown


def parts_today(scale: str) -> int:
    """How many parts `make course` has at this scale."""
    numbers = asdict(scales.get(scale))
    return len(plan.parts({"parts": [1], "settings": numbers, "num_labeled": numbers["num_labeled"]}))


def chapters(costs: dict) -> str:
    """What each chapter takes on one CPU core, and whether it uses a GPU."""
    recorded, rows = costs.get("phantom", {}), {}
    training = {FINETUNING, *OWN, *(entry.chapter for entry in TASKS.values())}
    for chapter in chapters_of(PARTS):
        cells = ["used if there" if chapter in training else "not used"]
        for scale in ("smoke", "laptop"):
            known = recorded.get(scale, {"chapters": {}})
            is_known = chapter in known["chapters"]
            cells += [minutes(known["chapters"][chapter])] if is_known else [""]
            cells += [f"{known['memory_gb'][chapter]:.1f} GB"] if is_known else [""]
        rows[f"[{chapter}](../notebooks/{chapter}.ipynb)"] = cells
    columns = ["GPU", "minutes, smoke", "memory, smoke", "minutes, laptop", "memory, laptop"]
    return tables.markdown(pd.DataFrame.from_dict(rows, orient="index", columns=columns).rename_axis("chapter"))


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
    """Write the recorded costs into the README, its pages and the chapters."""
    costs = entries.recorded(REFERENCE)
    paths = [path for name in PAGES if (path := project / name).exists()]
    changed = {path: page(path.read_text(encoding="utf-8"), costs) for path in paths}
    for path in sorted((project / "notebooks").glob("[0-9]*.ipynb")):
        notebook = json.loads(path.read_text(encoding="utf-8"))
        for cell in notebook["cells"]:
            if cell["cell_type"] == "markdown":
                cell["source"] = boxes("".join(cell["source"]), costs).splitlines(keepends=True)
        changed[path] = json.dumps(notebook, indent=1, ensure_ascii=False) + "\n"
    for path, text in changed.items():
        if text != path.read_text(encoding="utf-8"):
            write_text(path, text)
