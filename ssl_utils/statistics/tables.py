"""The course's numbers as tables, and what they can not say."""

from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from ssl_utils import statistics
from ssl_utils.experiments import runs
from ssl_utils.experiments.naming import base
from ssl_utils.files import write_text
from ssl_utils.statistics import savings

POINTS = (
    "Dice in points (0 to 100): mean over structures, then over test cases; background is never counted. In brackets "
    "the 95 % interval. Gains compare the same test cases with random."
)


def _inits(names: Iterable[str]) -> list[str]:
    return sorted(set(names), key=lambda init: (base(init) != "random", init))


def split(table: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """(inits, controls) of a table with a column init; a control carries options, `random__budget=4`."""
    control = table["init"].map(statistics.is_control).astype(bool)
    return table[~control], table[control]


def signed(value: float, unit: str = "") -> str:
    """A Dice or a share (0..1) in points with its sign, `+1.2`; `-` where it is not known."""
    return "-" if pd.isna(value) else f"{round(100 * value, 1) + 0:+.1f}{unit}"


def cell(dice: float, low: float, high: float) -> str:
    """A Dice (0..1) in points with its interval, `75.3 [73.1, 77.2]`."""
    return f"{100 * dice:.1f}" + ("" if pd.isna(low) else f" [{100 * low:.1f}, {100 * high:.1f}]")


def _p(value: float) -> str:
    return "-" if pd.isna(value) else f"{value:.3f}" if value >= 0.001 else "<0.001"


def label_efficiency(summary: pd.DataFrame) -> pd.DataFrame:
    """`statistics.summary` as rows of inits (random first), columns of label counts, cells as of `cell`.

    A cell that holds collapsed runs says so: `41.0 [.., ..], 1 of 9 collapsed`.
    """
    columns = [f"{n} labels" for n in sorted(summary["num_labeled"].unique())]
    table = pd.DataFrame("", index=pd.Index(_inits(summary["init"]), name="init"), columns=columns)
    for row in summary.itertuples():
        made = getattr(row, "runs", row.draws * row.seeds)  # an older record has no count of them
        fallen = f", {row.collapsed} of {made} collapsed" if row.collapsed else ""
        table.loc[row.init, f"{row.num_labeled} labels"] = cell(row.dice, row.low, row.high) + fallen
    return table


def per_structure(per_case: pd.DataFrame) -> pd.DataFrame:
    """Rows of structures, columns of inits, cells with the Dice at every number of labels, fewest first."""
    means = statistics.class_means(per_case)
    wide = means.pivot(index=["class", "init"], columns="num_labeled", values="dice").sort_index(axis=1)
    cells = wide.apply(lambda row: " / ".join("-" if pd.isna(d) else f"{100 * d:.1f}" for d in row), axis=1)
    table = cells.unstack("init").loc[means["class"].unique(), _inits(means["init"])].fillna("")
    return table.rename_axis(f"{' / '.join(map(str, wide))} labels", axis=0).rename_axis(None, axis=1)


def gain_table(gains: pd.DataFrame) -> pd.DataFrame:
    """`statistics.gains` for reading: gain in points, with its interval, and relative; p plain and after Holm; share of
    cases won; effect size. Columns that an older record lacks are left out."""
    table = gains[["init"]].assign(labels=gains["num_labeled"], gain=gains["gain"].map(signed))
    table["95 % interval"] = [f"[{signed(g.low)}, {signed(g.high)}]" for g in gains.itertuples()]
    table["relative"] = [signed(value, " %") for value in gains["relative"]]
    table["p"] = gains["p"].map(_p)
    if "p_holm" in gains:
        table["p, Holm"] = gains["p_holm"].map(_p)
        table["cases won"] = [f"{100 * value:.0f} %" for value in gains["win_rate"]]
        table["effect size"] = ["-" if pd.isna(value) else f"{value:+.2f}" for value in gains["effect_size"]]
    return table.set_index("init")


def gain_note(gains: pd.DataFrame) -> str:
    """What stands under a gain table: where its p come from and for what they are corrected."""
    if "p_holm" not in gains:
        return "p: sign-flip test over patients, not corrected for looking several times."
    single = (gains["draws"] * gains["seeds"] == 1).all()
    test = "sign-flip test over patients" if single else "from the same resampling as the interval, runs and patients"
    return (
        f"p: {test}. Holm: corrected for the number of rows, inits and controls apart. Cases won: test cases on which "
        "the init beats the baseline, averaged over runs, ties half. Effect size: mean gain over its standard "
        "deviation between patients (Cohen's d_z)."
    )


def saved_table(saved: pd.DataFrame) -> pd.DataFrame:
    """`savings.labels_saved` for reading: how many labels the random start needs for the same Dice."""
    rows = []
    for row in saved.itertuples():
        needs, low, high = (savings.needs_text(n, row.fewest, row.most) for n in (row.needs, row.low, row.high))
        rows.append((row.init, row.num_labeled, f"{100 * row.dice:.1f}", needs, f"[{low}, {high}]"))
    columns = ["init", "labels", "Dice", "labels random needs for it", "95 % interval"]
    return pd.DataFrame(rows, columns=columns).set_index("init")


def cost_table(summary: pd.DataFrame, spent: pd.DataFrame) -> pd.DataFrame:
    """Dice and the mean seconds behind it: fine-tuning, pretraining and both. `spent`: of `runs.spent`."""
    means = spent.groupby(statistics.CELL)[["finetuning", "pretraining", "seconds"]].mean()
    table = summary.join(means, on=statistics.CELL).sort_values(statistics.CELL)
    shown = table[["init", "num_labeled"]].rename(columns={"num_labeled": "labels"})
    shown["Dice"] = [f"{100 * value:.1f}" for value in table["dice"]]
    for name, column in {"fine-tuning s": "finetuning", "pretraining s": "pretraining", "in all s": "seconds"}.items():
        shown[name] = ["-" if pd.isna(value) else f"{value:.0f}" for value in table[column]]
    return shown.set_index("init")


def markdown(table: pd.DataFrame) -> str:
    """A Markdown table, index first, padded so that it also reads well in a terminal."""
    lines = [[str(table.index.name or ""), *map(str, table.columns)]]
    lines += [[str(name), *map(str, row)] for name, row in zip(table.index, table.to_numpy(), strict=True)]
    wide = [max(3, *map(len, column)) for column in zip(*lines, strict=True)]
    lines.insert(1, ["-" * w for w in wide])
    return "\n".join("| " + " | ".join(c.ljust(w) for c, w in zip(line, wide, strict=True)) + " |" for line in lines)


def repeats(summary: pd.DataFrame) -> str:
    """`draws: 3, seeds: 3`: the fewest that a row has, and whether another row has more."""
    fewest = " at the fewest" if len(summary[["draws", "seeds"]].drop_duplicates()) > 1 else ""
    return f"draws: {summary['draws'].min()}, seeds: {summary['seeds'].min()}{fewest}"


def limits(summary: pd.DataFrame, scale: str) -> str:
    """What a table made of this summary can not say."""
    draws, seeds, cases = (int(summary[name].min()) for name in ("draws", "seeds", "cases"))
    held = {
        True: "which patients were tested, not of which cases were labelled or how the training fell out",
        draws == 1 < seeds: "which patients were tested and how training fell out, not of which cases were labelled",
        draws > 1: "which patients were tested, which cases were labelled and how the training fell out",
    }[True]
    said = [f"The intervals hold the chance of {held} ({repeats(summary)}), and this is one dataset."]
    if scale == "smoke":
        said.insert(0, "Scale smoke trains for seconds: these numbers show that everything runs and nothing else.")
    if draws * seeds == 1:
        said.append("Another seed can move a cell by more than its interval.")
    elif (draws if draws > 1 else seeds) < 3:
        said.append("Two runs hardly tell how far runs lie apart: the intervals are as wide as that.")
    if cases < 20:
        said.append(f"With {cases} test cases the intervals themselves are too narrow to be trusted.")
    if lost := [f"{r.init} with {r.num_labeled} labels ({r.collapsed})" for r in summary.itertuples() if r.collapsed]:
        said.append(f"Runs that collapsed, which a mean hides: {', '.join(lost)}.")
    return "What this can not say: " + " ".join(said)


def write_results(course_dir: Path, per_case: pd.DataFrame, *, name: str = "results") -> Path:
    """Write results.csv (`statistics.summary`), results_structures.csv (`statistics.structures`), and results.md, which
    `make course` prints; returns results.md. A later part of the course gives its files another `name`."""
    summary = statistics.summary(per_case)
    runs.write_table(course_dir / f"{name}.csv", summary)
    runs.write_table(course_dir / f"{name}_structures.csv", statistics.structures(per_case))
    title = f"# Results: {course_dir.parent.name}, scale {course_dir.name}, {per_case['case'].nunique()} test cases"
    parts = [title, *_course_tables(course_dir, per_case, summary), POINTS, limits(summary, course_dir.name)]
    if odd := runs.unlike(course_dir, names=sorted({*per_case["init"]})):
        parts.append(f"**These runs were not made alike and cannot be compared.** {'; '.join(odd)}. Run them again.")
    write_text(course_dir / f"{name}.md", "\n\n".join(parts) + "\n")
    return course_dir / f"{name}.md"


def _course_tables(course_dir: Path, per_case: pd.DataFrame, summary: pd.DataFrame) -> list[str]:
    """The tables of results.md with their headings; controls apart, and nothing where nothing is known."""
    (inits, controls), gains = split(summary), statistics.gains(per_case)
    ours, theirs = split(gains)
    blocks = {
        "": label_efficiency(inits),
        "## Controls": label_efficiency(controls),
        "## Per structure": per_structure(split(per_case)[0] if len(inits) else per_case),
        "## Gain over random, case by case": gain_table(ours),
        "## Gain of the controls over random": gain_table(theirs),
        gain_note(gains): gains[[]],
        "## Labels saved": saved_table(split(savings.labels_saved(per_case))[0]),
        "## Dice and what it cost": cost_table(inits, runs.spent(course_dir)),
        "## Collapsed runs": collapsed_table(per_case),
    }
    parts = [(name, markdown(table) if len(table.columns) else "") for name, table in blocks.items() if len(table)]
    return [text for pair in parts for text in pair if text]


def collapsed_table(per_case: pd.DataFrame) -> pd.DataFrame:
    """Every collapsed run by name, with its Dice and why it counts as collapsed."""
    fallen = statistics.run_means(per_case).query("collapsed")
    shown = fallen.rename(columns={"num_labeled": "labels"}).assign(Dice=[f"{100 * d:.1f}" for d in fallen["dice"]])
    return shown.set_index("init")[["labels", "draw", "seed", "Dice", "why"]]
