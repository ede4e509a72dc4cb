"""A finished study as a table, a text and a figure, in runs/<dataset>/<scale>/studies/<name>.

python -m course.records.study_report RUN_DIR PLAN   # PLAN: JSON of `course.studies.plan`, as the graph does
"""

import json
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from course.records import entries
from ssl_utils import statistics
from ssl_utils.errors import CourseError
from ssl_utils.experiments import head_start, learning_curves, runs
from ssl_utils.experiments.naming import base
from ssl_utils.figures import learning_curves as drawn_curves
from ssl_utils.figures.against_labels import shift
from ssl_utils.figures.look import GREY, LINES, error_bars, legend, sheet
from ssl_utils.files import atomic, read_json, write_json, write_text
from ssl_utils.statistics import tables

BASELINE = "random"
NUMBER = re.compile(r"[\d.]+( %)?")
BELOW = 0.02  # Dice that an init may lack at the end of random's curve
FIRST = (
    "Mean validation Dice along the fine-tuning, with {} labels, as in curves.png: `step` and `seconds` (pretraining "
    "included) until an init is within {} points of the end of random's curve, and its mean lead until then and after."
)
READ = (
    "Dice and gain in points (0 to 100); in brackets the 95 % interval. The gain is over training from scratch with "
    "the same labels, label subsets, seeds and test cases. The value that the course uses is in *italics*."
)


def write(run_dir: Path | str, plan: Mapping[str, Any]) -> Path:
    """Write study.json, results.csv, curves.csv, two figures and, last, results.md of a study whose runs are finished.

    Args:
        run_dir: runs/<dataset>/<scale>.
        plan: what `course.studies.plan` returns.

    Raises:
        CourseError: a run is missing, or runs were not made alike.
    """
    run_dir = Path(run_dir).resolve()
    folder = run_dir / "studies" / plan["name"]
    names = list(dict.fromkeys([BASELINE, *(point["name"] for point in plan["points"])]))
    per_case = runs.collect(run_dir, names=names)
    per_case = per_case[per_case["num_labeled"].isin(plan["num_labeled"])]
    if missing := [name for name in names if name not in set(per_case["init"])]:
        raise CourseError(f"{folder}: no finished run of {', '.join(missing)}; run the study again")
    if odd := runs.unlike(run_dir, names=names):
        raise CourseError(f"{run_dir}: the runs were not made alike ({'; '.join(odd)}); run the odd ones again")
    table = rows(plan, per_case)
    known = {key: plan[key] for key in ("name", "title", "question", "varied", "num_labeled")}
    about = known | {"dataset": run_dir.parent.name, "scale": run_dir.name} | _made(run_dir, plan)
    curves = learning_curves(run_dir, num_labeled=min(plan["num_labeled"]), names=names)
    start = head_start(curves, baseline=BASELINE, below=BELOW).loc[names]
    about["head_start"] = entries.in_points(start.reset_index(), ["dice", "lead"])
    for name, part in (("results", table), ("curves", curves)):
        runs.write_table(folder / f"{name}.csv", part)
    write_json(folder / "study.json", about)
    for name, drawn in (("figure", figure(about, table)), ("curves", _curves(about, curves))):
        with atomic(folder / f"{name}.png") as temporary:
            drawn.savefig(temporary, dpi=110, bbox_inches="tight")
    write_text(folder / "results.md", text(about, table) + "\n")
    return folder


def rows(plan: Mapping[str, Any], per_case: pd.DataFrame) -> pd.DataFrame:
    """A row per point and number of labels: task, value, name, default, num_labeled, dice, low, high, cases, subsets,
    seeds, collapsed, gain, gain_low, gain_high, p. Dice in 0..1; random has no gain."""
    summary = statistics.summary(per_case).rename(columns={"init": "name"})
    gains = statistics.gains(per_case, baseline=BASELINE)[["init", "num_labeled", "gain", "low", "high", "p"]]
    gains = gains.rename(columns={"init": "name", "low": "gain_low", "high": "gain_high"})
    points = pd.DataFrame(plan["points"])[["task", "value", "name", "default"]]
    if BASELINE not in set(points["name"]):
        baseline = {"task": BASELINE, "value": "-", "name": BASELINE, "default": True}
        points = pd.concat([pd.DataFrame([baseline]), points], ignore_index=True)
    return points.merge(summary.drop(columns="runs"), on="name").merge(gains, on=["name", "num_labeled"], how="left")


def _made(run_dir: Path, plan: Mapping[str, Any]) -> dict[str, Any]:
    """Devices, commits, date, data and seconds of training (pretraining included) of the runs."""
    names = {BASELINE, *(point["name"] for point in plan["points"])}
    paths = [p for p in runs.finished(run_dir, names=names) if int(p.parts[-3][1:]) in plan["num_labeled"]]
    done = [read_json(path.with_name("config.json")) | read_json(path) for path in paths]
    inits = {point["init"] for point in plan["points"]} - {BASELINE}
    pretrained = [m for init in inits if (m := runs.metrics(run_dir / "pretrain" / init))]
    return {
        "runs": len(done),
        "pretrainings": len(pretrained),
        "date": max(m["finished"] for m in done)[:10],
        **entries.made(done),
        "seconds": round(sum(m["seconds"] for m in pretrained) + entries.seconds(done), 1),
        "data": entries.data(done),
        "versions": done[-1]["versions"],
    }


def shown(table: pd.DataFrame) -> pd.DataFrame:
    """`rows` for reading: a row per point, for every number of labels its Dice and its gain."""
    lines = {}
    for row in table.itertuples():
        value = f"*{row.value}*" if row.default and row.value != "-" else row.value
        cells = lines.setdefault((row.task, value), {})
        cells[f"Dice, {row.num_labeled} labels"] = tables.cell(row.dice, row.low, row.high)
        cells[f"gain, {row.num_labeled}"] = "" if pd.isna(row.gain) else gain_text(row)
    tasks, values = zip(*lines, strict=True)
    cells = pd.DataFrame(list(lines.values()), index=pd.Index(tasks, name="pretraining"))
    return pd.concat([pd.Series(values, cells.index, name="value"), cells], axis=1).fillna("")


def gain_text(row: Any) -> str:
    """`+1.2 [+0.3, +2.1]` points, from a row with gain, gain_low and gain_high in 0..1."""
    bracket = "" if pd.isna(row.gain_low) else f" [{tables.signed(row.gain_low)}, {tables.signed(row.gain_high)}]"
    return tables.signed(row.gain) + bracket


def text(about: Mapping[str, Any], table: pd.DataFrame) -> str:
    """results.md: question, table, how to read it, and its limitations."""
    head = f"# {about['title']}: {about['dataset']}, scale {about['scale']}, {table['cases'].iloc[0]} test cases"
    made = (
        f"{about['runs']} fine-tunings ({tables.repeats(table)}), {about['pretrainings']} "
        f"pretrainings, {about['seconds'] / 60:.1f} minutes of training on {about['device']}, {about['date']}."
    )
    limits = [
        "Limitations: each pretraining was made once, so a difference between two values may be due to chance; values "
        "were compared on the test cases, so the best of them must not be reported as a chosen value."
    ]
    if about["scale"] == "smoke":
        limits.insert(0, "Scale smoke trains for seconds: these numbers only show that everything runs.")
    if table["subsets"].min() * table["seeds"].min() < 3:
        limits.append("With so few repeats, the intervals only include the variation over test patients.")
    if lost := int(table["collapsed"].sum()):
        limits.append(f"{lost} runs collapsed; they are in the means.")
    first = FIRST.format(min(about["num_labeled"]), round(100 * BELOW))
    start = pd.DataFrame(about["head_start"]).set_index("init").round(1)
    start = tables.markdown(start.astype(object).where(start.notna(), "never"))
    question, dice = about["question"], tables.markdown(shown(table))
    return "\n\n".join([head, question, dice, READ, "## Head start", start, first, made, " ".join(limits)])


def figure(about: Mapping[str, Any], table: pd.DataFrame) -> Figure:
    """Gain over training from scratch against the varied value: a panel per task, a line per number of labels,
    intervals; the course's own value is ringed. Values have equal distances; a line joins them if they are numbers.
    Where every task has one value, tasks are compared in a single panel."""
    varied = table.loc[table["name"] != BASELINE, "task"]
    points = table[table["task"].isin(varied)]  # random itself is at 0, if it is varied too
    if points.groupby("task")["value"].nunique().max() == 1:
        points = points.assign(
            task=f"each task, {points['value'].iloc[0]}", value=points["task"].str.replace("_", "\n")
        )
    tasks, counts = list(dict.fromkeys(points["task"])), sorted(points["num_labeled"].unique())
    drawn, panels = sheet(max(8.0, 1.6 + 4.2 * len(tasks)), 4.0, 1, len(tasks), sharey=True, squeeze=False)
    for axes, task in zip(panels[0], tasks, strict=True):
        part = points[points["task"] == task]
        values = list(dict.fromkeys(part["value"]))
        for i, count in enumerate(counts):
            offset = shift(i, len(counts), 0.08)
            _line(axes, part[part["num_labeled"] == count], values, offset, color=LINES[i % 6], label=f"{count} labels")
        axes.axhline(0, color=GREY, linewidth=1.2, linestyle="--")
        axes.set_xticks(range(len(values)), [value.replace(" the ", " the\n") for value in values], fontsize=8)
        axes.set(title=f"init: {task}", xlim=(-0.5, len(values) - 0.5))
    panels[0, 0].set_ylabel("gain over training from scratch\n(Dice points)")
    drawn.supxlabel(about["varied"], fontsize=10)
    drawn.suptitle(f"{about['title']}: {about['dataset']}, scale {about['scale']}", fontsize=11)
    handles, title = panels[0, 0].get_legend_handles_labels(), "labels (95 % interval);\nring: as in the course"
    legend(drawn, *handles, title=title, alignment="center")
    return drawn


def _curves(about: Mapping[str, Any], curves: pd.DataFrame) -> Figure:
    """Learning curves; where every task has one value, by the names of the tasks."""
    named = curves.assign(init=curves["init"].map(base))
    title = f"{about['title']}: {about['dataset']}, scale {about['scale']}\n{min(about['num_labeled'])} labels"
    return drawn_curves(
        curves if named.duplicated(["init", "step"]).any() else named,
        below=BELOW,
        title=f"{title}, means of {curves['runs'].iloc[0]}",
    )


def _line(axes: Axes, part: pd.DataFrame, values: list[str], offset: float, **style: str) -> None:
    at = np.array([values.index(value) for value in part["value"]]) + offset
    gain, low, high = (100 * part[name].to_numpy(float) for name in ("gain", "gain_low", "gain_high"))
    width = 1.6 if all(map(NUMBER.fullmatch, values)) else 0
    style |= {"marker": "o", "markersize": 5, "capsize": 3, "linewidth": width, "elinewidth": 1.2}
    error_bars(axes, at, np.nan_to_num(gain), low, high, **style)
    ours = part["default"].to_numpy(bool)
    rings = {"facecolors": "none", "edgecolors": "black", "linewidths": 1.2}
    axes.scatter(at[ours], np.nan_to_num(gain)[ours], s=130, zorder=3, **rings)


def read(folder: Path | str) -> tuple[dict[str, Any], pd.DataFrame]:
    """study.json and the rows of a finished study.

    Raises:
        CourseError: it is not finished.
    """
    folder = Path(folder)
    if not (folder / "results.md").exists():
        raise CourseError(f"{folder}: has no finished study; run: make study STUDY={folder.name}")
    return read_json(folder / "study.json"), pd.read_csv(folder / "results.csv", dtype={"value": str})


if __name__ == "__main__":
    try:
        print(write(sys.argv[1], json.loads(sys.argv[2])))
    except CourseError as error:
        sys.exit(f"error: {error}")
