"""The doctor's report as tables: the cases, what is wrong with which, and what to do."""

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from rich.table import Table
from rich.text import Text

from ssl_utils.data.doctor.findings import Facts, Report, gathered

SINGLY = 12  # cases up to which they are listed one by one
MOST_LABELS = 20  # rows for label values
MOST_PATIENTS = 5  # rows for patients with several cases


def tables(report: Report) -> Iterable[Table]:
    """Tables to print, the one with the findings last and only when there are any."""
    if report.cases:
        yield _each(report.cases) if len(report.cases) <= SINGLY else _together(report.cases, report.labels)
    if report.patients:
        yield _patients(report.patients)
    if report:
        yield _findings(report)


def _patients(lines: Sequence[str]) -> Table:
    table = _table("Patients", "with several cases, which stay in one split")
    for line in lines[:MOST_PATIENTS]:
        table.add_row(Text(line))
    if len(lines) > MOST_PATIENTS:
        table.add_row(f"and {len(lines) - MOST_PATIENTS} more patients")
    return table


def _findings(report: Report) -> Table:
    base = _base([finding.file for finding in report])
    table = _table(f"Findings in {base}" if base else "Findings", "", "file or case", "what is wrong", "what to do")
    for finding, more in gathered(report):
        colour = "red" if finding.severity == "error" else "yellow"
        words = (_short(text, base) for text in (finding.file, finding.reason + more, finding.cure))
        table.add_row(Text(finding.severity, colour), *map(Text, words))
    return table


def _each(cases: Sequence[Facts]) -> Table:
    base = _base([case.name for case in cases])
    table = _table("Cases", "case", "kind", "voxels", "mm", "axes", "type", "1st to 99th percentile", "labelled")
    for case in cases:
        span = ", ".join(f"{low:.4g} to {high:.4g}" for low, high in zip(case.low, case.high, strict=True))
        ml = ", ".join(f"{value}: {size:.3g} ml" for value, size in (case.millilitres or {}).items())
        ml = "nothing" if not ml and case.millilitres is not None else ml
        ml += f" (ignored: {case.ignored:.0%} of the voxels)" if case.ignored else ""
        shape, spacing = (" x ".join(f"{number:.4g}" for number in numbers) for numbers in (case.shape, case.spacing))
        words = _short(case.name, base), case.side or case.kind, shape, spacing, case.orientation, case.stored, span, ml
        table.add_row(*map(Text, words))
    return table


def _together(cases: Sequence[Facts], labels: dict[int, str]) -> Table:
    table = _table(f"{len(cases)} cases", "", "smallest", "median", "largest")

    def row(name: str, values: Sequence[float], form: str = "{:.4g}") -> None:
        if values:
            table.add_row(Text(name), *(form.format(pick(values)) for pick in (min, np.median, max)))

    for axis, name in enumerate(("right-left", "front-back", "head-foot")):
        row(f"voxels {name}", [case.shape[axis] for case in cases], "{:.0f}")
        row(f"spacing {name} (mm)", [case.spacing[axis] for case in cases])
    images = [case for case in cases if case.high]
    for channel in range(min((len(case.high) for case in images), default=0)):
        of = f", channel {channel}" if len(images[0].high) > 1 else ""
        for name, field in (("1st percentile", "low"), ("99th percentile", "high"), ("maximum", "most")):
            row(name + of, [getattr(case, field)[channel] for case in images])
    row("labelled share (%)", [100 * case.foreground for case in cases if case.foreground is not None])
    row("ignored share (%)", [100 * case.ignored for case in cases if case.ignored is not None])
    values = sorted({value for case in cases for value in case.millilitres or {}})
    for value in values[:MOST_LABELS]:
        sizes = [case.millilitres[value] for case in cases if value in (case.millilitres or {})]
        row(f"{labels.get(value, f'label {value}')} (ml, in {len(sizes)} cases)", sizes)
    if len(values) > MOST_LABELS:
        table.add_row(f"and {len(values) - MOST_LABELS} more label values")
    axes, types = (Counter(getattr(case, field) for case in cases).most_common() for field in ("orientation", "stored"))
    axes, types = (", ".join(f"{value} ({count})" for value, count in counted) for counted in (axes, types))
    table.caption = f"axes {axes}; types {types}"
    return table


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left")
    for name in columns:
        table.add_column(name, overflow="fold")  # a cut name names no file
    return table


def _base(names: Sequence[str]) -> str:
    """The common folder of the names, when they are paths."""
    folders = [str(Path(name).parent) for name in names if os.sep in name]
    if len({Path(folder).is_absolute() for folder in folders}) != 1:  # none, or no common one
        return ""
    return os.path.commonpath(folders) if len(folders) > 1 else folders[0]


def _short(text: str, base: str) -> str:
    return text.replace(base + os.sep, "") if base else text
