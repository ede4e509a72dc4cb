"""Tables as entries of a record in json_files, each for one dataset and scale, and as blocks of a page."""

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from ssl_utils.errors import CourseError
from ssl_utils.files import read_json


def in_points(table: pd.DataFrame, columns: Sequence[str]) -> list[dict]:
    """The rows of a table, these columns (0..1) in points (0 to 100)."""
    table = table.assign(**{name: (100 * table[name]).round(3) for name in columns})
    return table.astype(object).where(table.notna(), None).to_dict("records")  # JSON has no NaN


def fractions(rows: list[dict], columns: Sequence[str]) -> pd.DataFrame:
    """The table of such rows, these columns in 0..1 again."""
    table = pd.DataFrame(rows)
    return table.assign(**table[list(columns)].astype(float) / 100) if rows else table


def matching(rows: list[dict], keys: dict[str, Any], *, others: bool = False) -> list[dict]:
    """The rows that have these values, or all `others`."""
    return [row for row in rows if all(row[name] == value for name, value in keys.items()) != others]


def recorded(path: Path) -> dict[str, Any]:
    return read_json(path) if path.exists() else {}


def made(runs: list[dict]) -> dict[str, str]:
    """Devices and commits of these runs."""
    return {key: ", ".join(sorted({str(run[key]) for run in runs})) for key in ("device", "commit")}


def seconds(runs: list[dict]) -> float:
    """Of fine-tuning and testing, all runs together."""
    return sum(run["seconds"] + run["test_seconds"] for run in runs)


def data(runs: list[dict]) -> str:
    """A fingerprint of their training data."""
    settings = "".join(sorted({run["settings"]["data"] for run in runs}))
    return hashlib.sha256(settings.encode()).hexdigest()[:16]


def block(text: str, name: str, content: str, *, page: str = "") -> str:
    """The page with this content between `<!-- name -->` and `<!-- /name -->`.

    Raises:
        CourseError: it lacks the markers, though `page` must have them.
    """
    ends = f"<!-- {name} -->", f"<!-- /{name} -->"
    pattern = re.compile(".*?".join(map(re.escape, ends)), re.DOTALL)
    if page and not pattern.search(text):
        raise CourseError(f"{page}: has no {' and '.join(ends)}; put both where the {name} belong")
    return pattern.sub(lambda _: f"{ends[0]}\n\n{content}\n\n{ends[1]}", text)
