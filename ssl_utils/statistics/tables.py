"""Results as tables to read, and their limitations."""

from collections.abc import Callable, Iterable
from pathlib import Path

import pandas as pd

from ssl_utils import statistics
from ssl_utils.experiments import runs
from ssl_utils.experiments.naming import base
from ssl_utils.files import read_json, write_text
from ssl_utils.statistics import savings

POINTS = (
    "Dice in points (0 to 100): mean over structures, then over test cases; background is never counted. In brackets "
    "the 95 % interval. Gains compare the same test cases with random."
)


def _inits(names: Iterable[str]) -> list[str]:
    return sorted(set(names), key=lambda init: (base(init) != "random", init))


def _texts(values: Iterable[float], text: Callable[[float], str]) -> list[str]:
    return ["-" if pd.isna(value) else text(value) for value in values]


def split(table: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """(inits, controls) of a table with a column init; the name of a control has options, `random__budget=4`."""
    control = table["init"].map(statistics.is_control).astype(bool)
    return table[~control], table[control]


def signed(value: float, unit: str = "") -> str:
    """A Dice or a share (0..1) in points with its sign, `+1.2`; `-` where it is unknown."""
    return "-" if pd.isna(value) else f"{round(100 * value, 1) + 0:+.1f}{unit}"


def cell(dice: float, low: float, high: float) -> str:
    """A Dice (0..1) in points with its interval, `75.3 [73.1, 77.2]`."""
    return f"{100 * dice:.1f}" + ("" if pd.isna(low) else f" [{100 * low:.1f}, {100 * high:.1f}]")


def label_efficiency(summary: pd.DataFrame) -> pd.DataFrame:
    """`statistics.summary` as rows of inits (random first), columns of label counts, cells as of `cell`; with collapsed
    runs `41.0 [.., ..], 1 of 9 collapsed`."""
    columns = [f"{n} labels" for n in sorted(summary["num_labeled"].unique())]
    table = pd.DataFrame("", index=pd.Index(_inits(summary["init"]), name="init"), columns=columns)
    for row in summary.itertuples():
        count = getattr(row, "runs", row.subsets * row.seeds)  # an older record has no count of runs
        note = f", {row.collapsed} of {count} collapsed" if row.collapsed else ""
        table.loc[row.init, f"{row.num_labeled} labels"] = cell(row.dice, row.low, row.high) + note
    return table


def per_structure(per_case: pd.DataFrame) -> pd.DataFrame:
    """Rows of structures, columns of inits, cells with the Dice at every number of labels, fewest first."""
    means = statistics.class_means(per_case)
    wide = means.pivot(index=["class", "init"], columns="num_labeled", values="dice").sort_index(axis=1)
    cells = wide.apply(lambda row: " / ".join(_texts(100 * row, "{:.1f}".format)), axis=1)
    table = cells.unstack("init").loc[means["class"].unique(), _inits(means["init"])].fillna("")
    return table.rename_axis(f"{' / '.join(map(str, wide))} labels", axis=0).rename_axis(None, axis=1)


def gain_table(gains: pd.DataFrame) -> pd.DataFrame:
    """`statistics.gains` to read: gain in points with its interval, relative gain, share of cases won; and, in rows of
    several runs, p before and after Holm's correction and effect size. (In a single run they would ignore the variation
    between trainings.) Columns that an older record lacks are left out."""
    table = gains[["init"]].assign(labels=gains["num_labeled"], gain=gains["gain"].map(signed))
    table["95 % interval"] = [f"[{signed(g.low)}, {signed(g.high)}]" for g in gains.itertuples()]
    table["relative"] = [signed(value, " %") for value in gains["relative"]]
    if "win_rate" in gains:
        table["cases won"] = _texts(100 * gains["win_rate"], "{:.0f} %".format)
    repeated = gains["subsets"] * gains["seeds"] > 1 if "subsets" in gains else pd.Series(True, gains.index)
    columns = {"p": ("p", _p), "p_holm": ("p, Holm", _p), "effect_size": ("effect size", "{:+.2f}".format)}
    for name, (title, text) in columns.items():
        if name in gains and repeated.any():
            table[title] = _texts(gains[name].where(repeated), text)
    return table.set_index("init")


def _p(value: float) -> str:
    return f"{value:.3f}" if value >= 0.001 else "<0.001"


def gain_note(gains: pd.DataFrame) -> str:
    """The text below a gain table: what its columns are."""
    if "p_holm" not in gains:
        return "p: sign-flip test over patients, not corrected for multiple testing."
    return (
        "Cases won: test cases on which the init beats the baseline, averaged over runs, ties half. Only rows of "
        "several runs have p (from the same resampling of runs and patients as the interval), p after Holm's "
        "correction for the number of rows (inits and controls apart), and effect size (mean gain over its standard "
        "deviation between patients, Cohen's d_z)."
    )


def saved_table(saved: pd.DataFrame) -> pd.DataFrame:
    """`savings.labels_saved` to read: how many labels random init needs for the same Dice."""
    rows = []
    for row in saved.itertuples():
        needs, low, high = (savings.needs_text(n, row.fewest, row.most) for n in (row.needs, row.low, row.high))
        rows.append((row.init, row.num_labeled, f"{100 * row.dice:.1f}", needs, f"[{low}, {high}]"))
    columns = ["init", "labels", "Dice", "labels random needs for it", "95 % interval"]
    return pd.DataFrame(rows, columns=columns).set_index("init")


def cost_table(summary: pd.DataFrame, spent: pd.DataFrame) -> pd.DataFrame:
    """Dice and its mean cost in seconds: fine-tuning, pretraining and both. `spent`: of `runs.spent`."""
    means = spent.groupby(statistics.CELL)[["finetuning", "pretraining", "seconds"]].mean()
    costs = summary.join(means, on=statistics.CELL).sort_values(statistics.CELL)
    table = costs[["init", "num_labeled"]].rename(columns={"num_labeled": "labels"})
    table["Dice"] = _texts(100 * costs["dice"], "{:.1f}".format)
    for title, name in {"fine-tuning s": "finetuning", "pretraining s": "pretraining", "in all s": "seconds"}.items():
        table[title] = _texts(costs[name], "{:.0f}".format)
    return table.set_index("init")


def collapsed_table(per_case: pd.DataFrame) -> pd.DataFrame:
    """Every collapsed run, with its Dice and the reason."""
    lost = statistics.run_means(per_case).query("collapsed")
    table = lost.rename(columns={"num_labeled": "labels"}).assign(Dice=_texts(100 * lost["dice"], "{:.1f}".format))
    return table.set_index("init")[["labels", "subset", "seed", "Dice", "why"]]


def markdown(table: pd.DataFrame) -> str:
    """A Markdown table, index first, padded so that it also reads well in a terminal."""
    lines = [[str(table.index.name or ""), *map(str, table.columns)]]
    lines += [[str(name), *map(str, row)] for name, row in zip(table.index, table.to_numpy(), strict=True)]
    widths = [max(3, *map(len, column)) for column in zip(*lines, strict=True)]
    lines.insert(1, ["-" * width for width in widths])
    return "\n".join(f"| {' | '.join(map(str.ljust, line, widths))} |" for line in lines)


def repeats(summary: pd.DataFrame) -> str:
    """`label subsets: 3, seeds: 3`: the smallest numbers, and whether they differ between rows."""
    more = " in some rows, more in others" if len(summary[["subsets", "seeds"]].drop_duplicates()) > 1 else ""
    return f"label subsets: {summary['subsets'].min()}, seeds: {summary['seeds'].min()}{more}"


def limits(summary: pd.DataFrame, scale: str) -> str:
    """The limitations of a table made of this summary."""
    subsets, seeds, cases = (int(summary[name].min()) for name in ("subsets", "seeds", "cases"))
    if subsets > 1:
        levels = "test patients, label subsets and training seeds"
    else:
        levels = "test patients and training seeds, not of label subsets" if seeds > 1 else "test patients alone"
    lines = [f"The intervals include the variation between {levels} ({repeats(summary)}), on one dataset."]
    if scale == "smoke":
        lines.insert(0, "Scale smoke trains for seconds: these numbers show that everything runs and nothing else.")
    if any(base(init) != "random" for init in summary["init"]):
        lines.append("Each pretraining was run once: no interval includes the variation between pretrainings.")
    lines.append("The validation labels, which choose the training step, come on top of the labels named here.")
    if subsets * seeds == 1:
        lines.append("Another seed can move a cell by more than its interval.")
    elif (subsets if subsets > 1 else seeds) < 3:
        lines.append("Two runs hardly show the spread between runs, hence the wide intervals.")
    if cases < 20:
        lines.append(f"With {cases} test cases the intervals themselves are too narrow to be trusted.")
    if lost := [f"{r.init} with {r.num_labeled} labels ({r.collapsed})" for r in summary.itertuples() if r.collapsed]:
        lines.append(f"Collapsed runs, which are part of the means: {', '.join(lost)}.")
    return "Limitations: " + " ".join(lines)


def write_results(course_dir: Path, per_case: pd.DataFrame, *, name: str = "results") -> Path:
    """Write results.csv (`statistics.summary`), results_structures.csv (`statistics.structures`), and results.md, which
    `make course` prints; returns results.md. A later part of the course gives its files another `name`."""
    summary = statistics.summary(per_case)
    runs.write_table(course_dir / f"{name}.csv", summary)
    runs.write_table(course_dir / f"{name}_structures.csv", statistics.structures(per_case))
    splits = {read_json(path).get("scored_on") for path in runs.finished(course_dir, names={*per_case["init"]})}
    cases = "validation cases, which also chose the steps: too good" if "validation" in splits else "test cases"
    title = f"# Results: {course_dir.parent.name}, scale {course_dir.name}, {per_case['case'].nunique()} {cases}"
    parts = [title, *_course_tables(course_dir, per_case, summary), POINTS, limits(summary, course_dir.name)]
    if differences := runs.unlike(course_dir, names=sorted({*per_case["init"]})):
        listed = "; ".join(differences)
        parts.append(f"**These runs were not made alike and cannot be compared.** {listed}. Run them again.")
    write_text(course_dir / f"{name}.md", "\n\n".join(parts) + "\n")
    return course_dir / f"{name}.md"


def _course_tables(course_dir: Path, per_case: pd.DataFrame, summary: pd.DataFrame) -> list[str]:
    """The tables of results.md with their headings, controls apart; empty tables are left out."""
    (inits, controls), gains = split(summary), statistics.gains(per_case)
    gains_of_inits, gains_of_controls = split(gains)
    tables = {
        "": label_efficiency(inits),
        "## Controls": label_efficiency(controls),
        "## Per structure": per_structure(split(per_case)[0] if len(inits) else per_case),
        "## Gain over random, case by case": gain_table(gains_of_inits),
        "## Gain of the controls over random": gain_table(gains_of_controls),
        gain_note(gains): gains[[]],
        "## Labels saved": saved_table(split(savings.labels_saved(per_case))[0]),
        "## Dice and what it cost": cost_table(inits, runs.spent(course_dir)),
        "## Collapsed runs": collapsed_table(per_case),
    }
    parts = [(title, markdown(table) if len(table.columns) else "") for title, table in tables.items() if len(table)]
    return [text for part in parts for text in part if text]
