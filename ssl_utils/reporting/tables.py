"""The course's numbers as tables, and what they can not say.

    python -m ssl_utils.reporting.tables record runs/hippocampus/laptop   # into json_files/reference_results.json
    python -m ssl_utils.reporting.tables readme                           # from there into README.md
"""

from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from ssl_utils.files import atomic
from ssl_utils.reporting import runs, statistics

POINTS = (
    "Dice in points (0 to 100): mean over structures, then over test cases; background is never counted. In brackets "
    "the 95 % interval over test patients. Gains compare the same test cases with random; p is not corrected."
)


def _inits(names: Iterable[str]) -> list[str]:
    return sorted(set(names), key=lambda init: (init != "random", init))


def label_efficiency(summary: pd.DataFrame) -> pd.DataFrame:
    """`statistics.summary` as rows of inits (random first), columns of label counts, cells `75.3 [73.1, 77.2]`."""
    counts = sorted(summary["num_labeled"].unique())
    index = pd.Index(_inits(summary["init"]), name="init")
    table = pd.DataFrame("", index=index, columns=[f"{n} labels" for n in counts])
    for row in summary.itertuples():
        bracket = "" if pd.isna(row.low) else f" [{100 * row.low:.1f}, {100 * row.high:.1f}]"
        table.loc[row.init, f"{row.num_labeled} labels"] = f"{100 * row.dice:.1f}{bracket}"
    return table


def per_structure(per_case: pd.DataFrame) -> pd.DataFrame:
    """Rows of structures, columns of inits, cells with the Dice at every number of labels, fewest first."""
    means = statistics.class_means(per_case)
    wide = means.pivot(index=["class", "init"], columns="num_labeled", values="dice").sort_index(axis=1)
    cells = wide.apply(lambda row: " / ".join("-" if pd.isna(d) else f"{100 * d:.1f}" for d in row), axis=1)
    table = cells.unstack("init").loc[means["class"].unique(), _inits(means["init"])].fillna("")
    return table.rename_axis(f"{' / '.join(map(str, wide))} labels", axis=0).rename_axis(None, axis=1)


def gain_table(gains: pd.DataFrame) -> pd.DataFrame:
    """`statistics.gains` for reading: absolute in points, and relative."""

    def signed(value: float, unit: str = "") -> str:
        return "-" if pd.isna(value) else f"{round(100 * value, 1) + 0:+.1f}{unit}"

    rows = [
        (g.init, g.num_labeled, signed(g.gain), f"[{signed(g.low)}, {signed(g.high)}]", signed(g.relative, " %"),
         "-" if pd.isna(g.p) else f"{g.p:.3f}" if g.p >= 0.001 else "<0.001")
        for g in gains.itertuples()
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=["init", "labels", "gain", "95 % interval", "relative", "p"]).set_index("init")


def markdown(table: pd.DataFrame) -> str:
    """A Markdown table, index first, padded so that it also reads well in a terminal."""
    lines = [[str(table.index.name or ""), *map(str, table.columns)]]
    lines += [[str(name), *map(str, row)] for name, row in zip(table.index, table.to_numpy(), strict=True)]
    wide = [max(3, *map(len, column)) for column in zip(*lines, strict=True)]
    lines.insert(1, ["-" * w for w in wide])
    return "\n".join("| " + " | ".join(c.ljust(w) for c, w in zip(line, wide, strict=True)) + " |" for line in lines)


def limits(summary: pd.DataFrame, scale: str) -> str:
    """What a table made of this summary can not say."""
    draws, seeds, cases = (int(summary[name].max()) for name in ("draws", "seeds", "cases"))
    said = [
        "The intervals hold the chance of which patients were tested, not of which cases were labelled or how the "
        f"training fell out (draws: {draws}, seeds: {seeds}), and this is one dataset."
    ]
    if scale == "smoke":
        said.insert(0, "Scale smoke trains for seconds: these numbers show that everything runs and nothing else.")
    if draws * seeds < 3:
        said.append("Another seed can move a cell by more than its interval.")
    if cases < 20:
        said.append(f"With {cases} test cases the intervals themselves are too narrow to be trusted.")
    if lost := [f"{r.init} with {r.num_labeled} labels ({r.collapsed})" for r in summary.itertuples() if r.collapsed]:
        said.append(f"Runs that lost a structure, which a mean hides: {', '.join(lost)}.")
    return "What this can not say: " + " ".join(said)


def write_results(course_dir: Path, per_case: pd.DataFrame) -> Path:
    """Write results.csv (`statistics.summary`) and results.md, which `make course` prints; returns results.md."""
    summary, gains = statistics.summary(per_case), statistics.gains(per_case)
    runs.write_table(course_dir / "results.csv", summary)
    title = f"# Results: {course_dir.parent.name}, scale {course_dir.name}, {per_case['case'].nunique()} test cases"
    parts = [title, markdown(label_efficiency(summary)), "## Per structure", markdown(per_structure(per_case))]
    if len(gains):
        parts += ["## Gain over random, case by case", markdown(gain_table(gains))]
    parts += [POINTS, limits(summary, course_dir.name)]
    if odd := runs.unlike(course_dir):
        parts.append(f"**These runs were not made alike and cannot be compared.** {'; '.join(odd)}. Run them again.")
    with atomic(course_dir / "results.md") as temporary:
        temporary.write_text("\n\n".join(parts) + "\n", encoding="utf-8")
    return course_dir / "results.md"


if __name__ == "__main__":
    from ssl_utils.reporting.record import main

    main()
