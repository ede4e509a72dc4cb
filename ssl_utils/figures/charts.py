"""Curves, Dice against labels, per-class dots and histograms: the course's pictures of numbers."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ssl_utils.errors import CourseError
from ssl_utils.experiments.naming import base
from ssl_utils.figures.panels import PALETTE, Picture

_INITS = ("random", "restoration", "simmim", "mae", "genesis", "pcrl", "patch_clusters", "voxel_clusters", "inflation")
_INIT_COLOURS = ("#444444", "#E69F00", "#0072B2", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#999933", "#882255")
_MARKERS = "osD^vP*Xh"
_COLLAPSED = "#D40000"
_LINES = [PALETTE[i] for i in (6, 0, 2, 4, 5, 1)]  # yellow does not show on white


def _axes(width: float = 8.0, height: float = 4.0) -> tuple[Picture, Axes]:
    figure = Picture(figsize=(width, height), dpi=110, facecolor="white", layout="constrained")
    axes = figure.add_subplot(facecolor="white")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#dddddd", linewidth=0.8)
    axes.set_axisbelow(True)
    return figure, axes


def _legend(figure: Figure, **more: Any) -> None:
    figure.legend(loc="outside right upper", frameon=False, fontsize=9, alignment="left", **more)


def _need(table: pd.DataFrame, *columns: str) -> None:
    missing = [name for name in columns if name not in table]
    if missing or table.empty:
        fault = f"no column {', '.join(missing)}" if missing else "no rows"
        raise CourseError(
            f"table with columns {list(table)}: {fault}; pass one row per point with {', '.join(columns)}"
        )


def _styles(inits: Sequence[str]) -> dict[str, dict[str, str]]:
    """Colour, marker and line of each init, in course order: the same in every figure.

    An init with options (`random__budget=4`) has the colour of the one it varies, and a broken line.
    """
    known = [init for init in _INITS if init in inits] + [init for init in inits if init not in _INITS]
    styles, varied = {}, 0
    for i, init in enumerate(known):
        start = base(init)
        at, varied = _INITS.index(start) if start in _INITS else -1 - i, varied + (start != init)
        style = {"color": _INIT_COLOURS[at % 9], "marker": _MARKERS[at % 9]}
        if start != init:
            style |= {"marker": _MARKERS[(at + varied) % 9], "linestyle": ("--", ":", "-.")[varied % 3]}
        styles[init] = style
    return styles


def curves(
    history: pd.DataFrame,
    columns: Sequence[str],
    *,
    baselines: Mapping[str, float] | None = None,
    x: str = "step",
    ylabel: str = "loss",
    title: str = "",
) -> Figure:
    """Columns of a run's history against `x`; gaps (NaN) are skipped, baselines are dashed lines with their value.

    A column of more than 60 values is drawn faint with its running mean on top.
    """
    _need(history, *columns)
    figure, axes = _axes()
    for i, name in enumerate(columns):
        values = history[name].dropna()
        at = history.loc[values.index, x] if x in history else values.index
        style = {"color": _LINES[i % 6]}
        if len(values) > 60:
            axes.plot(at, values, alpha=0.25, linewidth=0.8, **style)
            values = values.rolling(max(5, len(values) // 25), min_periods=1, center=True).mean()
        marker = "o" if len(values) <= 30 else ""
        axes.plot(at, values, label=name.replace("_", " "), marker=marker, markersize=4, linewidth=1.8, **style)
    for i, (name, value) in enumerate((baselines or {}).items()):
        dash = ("--", ":", "-.")[i % 3]
        axes.axhline(value, color="#444444", linestyle=dash, linewidth=1.3, label=f"{name} ({value:.3f})")
    axes.set(xlabel=x if x in history else "row", ylabel=ylabel, title=title)
    if x == "step" and x in history:
        axes.xaxis.get_major_locator().set_params(integer=True)  # no step lies between two
    _legend(figure)
    return figure


def dice_against_labels(table: pd.DataFrame, *, runs: pd.DataFrame | None = None, title: str = "") -> Figure:
    """Mean Dice with its interval against the number of labelled cases, a line per init.

    Args:
        table: columns init, num_labeled, dice, low, high; the last two may be NaN. `cases`, if there, is named.
        runs: single runs as faint dots, collapsed ones as red crosses: columns init, num_labeled, dice, collapsed
            (`statistics.run_means`).
    """
    _need(table, "init", "num_labeled", "dice", "low", "high")
    figure, axes = _axes()
    styles, counts = _styles(list(table["init"].unique())), sorted(table["num_labeled"].unique())
    for i, (init, style) in enumerate(styles.items()):
        part = table[table["init"] == init].sort_values("num_labeled")
        aside = 0.06 * (i - (len(styles) - 1) / 2)
        at = [counts.index(n) + aside for n in part["num_labeled"]]
        errors = np.nan_to_num(np.abs([part["dice"] - part["low"], part["high"] - part["dice"]]).astype(float))
        axes.errorbar(
            at, part["dice"], yerr=errors, label=init, capsize=3, markersize=6, linewidth=1.8, elinewidth=1.2, **style
        )
        if runs is not None:
            _single_runs(axes, runs[runs["init"] == init], counts, aside, style["color"])
    if runs is not None and runs["collapsed"].any():
        axes.plot([], [], "x", color=_COLLAPSED, markersize=8, markeredgewidth=2, label="collapsed run")
    axes.set_xticks(range(len(counts)), [str(n) for n in counts])
    axes.set(xlim=(-0.4, len(counts) - 0.6), xlabel="labelled cases used for fine-tuning", title=title)
    cases = f", {table['cases'].iloc[0]} test cases" if "cases" in table and table["cases"].nunique() == 1 else ""
    axes.set_ylabel("mean foreground Dice")
    _legend(figure, title=f"start of the encoder\n(95 % interval{cases})", title_fontsize=8)
    return figure


def _single_runs(axes: Axes, runs: pd.DataFrame, counts: list[int], aside: float, colour: str) -> None:
    runs = runs[runs["num_labeled"].isin(counts)]
    at = np.array([counts.index(n) + aside for n in runs["num_labeled"]])
    fallen = runs["collapsed"].to_numpy(bool)
    many = runs.groupby("num_labeled")["dice"].transform("size").to_numpy() > 1  # a single run is the mean itself
    plain = many & ~fallen
    axes.plot(at[plain], runs["dice"][plain], "o", color=colour, alpha=0.35, markersize=3.5, zorder=1)
    axes.plot(at[fallen], runs["dice"][fallen], "x", color=_COLLAPSED, markersize=8, markeredgewidth=2, zorder=5)


def per_class(table: pd.DataFrame, *, title: str = "") -> Figure:
    """Dice of every class, a dot per init and a line from the worst to the best of them.

    Args:
        table: columns init, class, dice. Classes keep the table's order.
    """
    _need(table, "init", "class", "dice")
    classes, styles = list(dict.fromkeys(table["class"])), _styles(list(table["init"].unique()))
    figure, axes = _axes(8.0, min(5.0, 1.2 + 0.32 * len(classes)))
    spread = table.groupby("class")["dice"].agg(["min", "max"]).loc[classes]
    axes.hlines(range(len(classes)), spread["min"], spread["max"], color="#bbbbbb", linewidth=2, zorder=1)
    for init, style in styles.items():
        part = table[table["init"] == init].groupby("class")["dice"].mean()
        axes.scatter(part, [classes.index(name) for name in part.index], label=init, s=42, zorder=2, **style)
    axes.set_yticks(range(len(classes)), [str(name).replace("_", " ") for name in classes])
    axes.set(xlim=(-0.02, 1.02), ylim=(len(classes) - 0.4, -0.6), xlabel="Dice, mean over test cases", title=title)
    axes.grid(axis="x", color="#dddddd", linewidth=0.8)
    _legend(figure)
    return figure


def dice_against_seconds(table: pd.DataFrame, *, title: str = "") -> Figure:
    """Mean Dice against what it cost in seconds (logarithmic), a line per init, each point named by its labels.

    Args:
        table: columns init, num_labeled, seconds, dice.
    """
    _need(table, "init", "num_labeled", "seconds", "dice")
    figure, axes = _axes()
    for i, (init, style) in enumerate(_styles(list(table["init"].unique())).items()):
        part = table[table["init"] == init].sort_values("num_labeled")
        axes.plot(part["seconds"], part["dice"], label=init, markersize=6, linewidth=1.2, **style)
        place = {"xytext": (6, 0), "ha": "left"} if i % 2 == 0 else {"xytext": (-6, 0), "ha": "right"}
        for row in part.itertuples():
            axes.annotate(
                str(row.num_labeled),
                (row.seconds, row.dice),
                textcoords="offset points",
                va="center",
                fontsize=8,
                color=style["color"],
                **place,
            )
    low, high = table["seconds"].min(), table["seconds"].max()
    marks = [
        m
        for m in (1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1200, 3600, 7200, 18000, 36000, 86400, 259200, 864000)
        if 0.6 * low <= m <= 1.7 * high
    ]
    axes.set(xscale="log", xlim=(0.6 * low, 1.7 * high), ylabel="mean foreground Dice", title=title)
    axes.set_xticks(marks, [_clock(m) for m in marks])
    axes.set_xticks([], minor=True)
    axes.set_xlabel("time to get there, pretraining included")
    axes.margins(y=0.15)
    _legend(figure, title="start of the encoder\n(numbers: labelled cases)", title_fontsize=8)
    return figure


def _clock(seconds: float) -> str:
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{seconds / size:g} {unit}"
    return f"{seconds:g} s"


def paired_cases(table: pd.DataFrame, *, baseline: str = "random", title: str = "") -> Figure:
    """Dice of every test case with an init against that of the same case with the baseline: above the line, it gained.

    Args:
        table: columns init, dice, dice_baseline; a row per case.
    """
    _need(table, "init", "dice", "dice_baseline")
    figure, axes = _axes(6.4, 4.6)
    for init, style in _styles(list(table["init"].unique())).items():
        part = table[table["init"] == init]
        axes.scatter(part["dice_baseline"], part["dice"], s=26, alpha=0.75, label=init, **style)
    values = table[["dice", "dice_baseline"]].to_numpy()
    low, high = np.nanmin(values), np.nanmax(values)
    edge = 0.06 * max(high - low, 0.01)
    axes.plot([low - edge, high + edge], [low - edge, high + edge], color="#444444", linewidth=1.2, linestyle="--")
    axes.set(xlim=(low - edge, high + edge), ylim=(low - edge, high + edge), aspect="equal", title=title)
    axes.locator_params(nbins=5)  # labels of scores close together are long, and would run into each other
    axes.set(xlabel=f"Dice of the case, {baseline} start", ylabel="Dice of the same case")
    axes.grid(axis="x", color="#dddddd", linewidth=0.8)
    _legend(figure, title="start of the encoder", title_fontsize=8)
    return figure


def histogram(
    images: Mapping[str, Any],
    *,
    window: tuple[float, float] | None = None,
    unit: str = "intensity",
    bins: int = 100,
    title: str = "",
) -> Figure:
    """Share of voxels per intensity (logarithmic), a line per volume; the window is shaded, what it clips is named.

    Fewer `bins` for volumes that hold few distinct values, which would otherwise draw a comb.
    """
    samples = {name: np.asarray(array, np.float64).ravel() for name, array in images.items()}
    samples = {name: values[np.isfinite(values)] for name, values in samples.items()}
    if not samples or any(values.size == 0 for values in samples.values()):
        raise CourseError("histogram: no finite voxel to count; pass at least one volume with numbers in it")
    low = min(np.percentile(values, 0.1) for values in samples.values())
    high = max(np.percentile(values, 99.9) for values in samples.values())
    edges = np.linspace(low, high if high > low else low + 1, bins + 1)
    figure, axes = _axes()
    for i, (name, values) in enumerate(samples.items()):
        share = 100 * np.histogram(values, edges)[0] / values.size
        if window is not None:
            name = f"{name}\n({np.mean((values < window[0]) | (values > window[1])):.0%} clipped)"
        axes.stairs(share, edges, label=name, color=_LINES[i % 6], linewidth=1.5)
    if window is not None:
        axes.axvspan(*window, color="#009E73", alpha=0.12, label=f"window {window[0]:g} to {window[1]:g}")
    axes.set(yscale="log", xlabel=unit, ylabel="share of voxels (%)", title=title)
    _legend(figure)
    return figure
