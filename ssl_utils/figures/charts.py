"""Curves, per-class dots, cost, pairs of cases and histograms: figures of numbers."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from ssl_utils.errors import CourseError
from ssl_utils.figures.look import DASHES, GREY, LINES, init_styles, legend, need, sheet


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
    need(history, *columns)
    figure, axes = sheet()
    for i, name in enumerate(columns):
        values, style = history[name].dropna(), {"color": LINES[i % 6]}
        at = history.loc[values.index, x] if x in history else values.index
        if len(values) > 60:
            axes.plot(at, values, alpha=0.25, linewidth=0.8, **style)
            values = values.rolling(max(5, len(values) // 25), min_periods=1, center=True).mean()
        marker = "o" if len(values) <= 30 else ""
        axes.plot(at, values, label=name.replace("_", " "), marker=marker, markersize=4, linewidth=1.8, **style)
    for i, (name, value) in enumerate((baselines or {}).items()):
        axes.axhline(value, color=GREY, linestyle=DASHES[i % 3], linewidth=1.3, label=f"{name} ({value:.3f})")
    axes.set(xlabel=x if x in history else "row", ylabel=ylabel, title=title)
    if x == "step" and x in history:
        axes.xaxis.get_major_locator().set_params(integer=True)  # steps are whole numbers
    legend(figure)
    return figure


def per_class(table: pd.DataFrame, *, title: str = "") -> Figure:
    """Dice of every class, a dot per init and a line from the worst to the best of them.

    Args:
        table: columns init, class, dice. Classes keep the table's order.
    """
    need(table, "init", "class", "dice")
    classes = list(dict.fromkeys(table["class"]))
    figure, axes = sheet(8.0, min(5.0, 1.2 + 0.32 * len(classes)), grid="both")
    spread = table.groupby("class")["dice"].agg(["min", "max"]).loc[classes]
    axes.hlines(range(len(classes)), spread["min"], spread["max"], color="#bbbbbb", linewidth=2, zorder=1)
    for init, style in init_styles(table["init"]).items():
        part = table[table["init"] == init].groupby("class")["dice"].mean()
        axes.scatter(part, [classes.index(name) for name in part.index], label=init, s=42, zorder=2, **style)
    axes.set_yticks(range(len(classes)), [str(name).replace("_", " ") for name in classes])
    axes.set(xlim=(-0.02, 1.02), ylim=(len(classes) - 0.4, -0.6), xlabel="Dice, mean over test cases", title=title)
    legend(figure)
    return figure


def learning_curves(table: pd.DataFrame, *, baseline: str = "random", below: float = 0.02, title: str = "") -> Figure:
    """Mean validation Dice against fine-tuning steps, and against all seconds, pretraining included: a line per init.

    Args:
        table: columns init, step, seconds, dice, as of `experiments.learning_curves`.
        below: a dashed line so far under the baseline's end, where `experiments.head_start` looks.
    """
    need(table, "init", "step", "seconds", "dice")
    figure, panels = sheet(10.0, 3.8, 1, 2, sharey=True)
    labels = {"step": "fine-tuning step", "seconds": "seconds, pretraining included"}
    end = table.loc[table["init"] == baseline].sort_values("step")["dice"].tail(1)
    for axes, (name, label) in zip(panels, labels.items(), strict=True):
        for init, style in init_styles(table["init"]).items():
            part = table[table["init"] == init].sort_values("step")
            axes.plot(part[name], part["dice"], label=init, markersize=5, linewidth=1.5, **style)
        for target in end[end > below] - below:
            axes.axhline(target, color=GREY, linestyle="--", linewidth=1.2, label=f"{baseline}'s end - {below:g}")
        axes.set(xlabel=label, xlim=(0, None))
    panels[0].set_ylabel("mean validation Dice")
    figure.suptitle(title, fontsize=11)
    legend(figure, *panels[0].get_legend_handles_labels(), title="initialisation")
    return figure


def paired_cases(table: pd.DataFrame, *, title: str = "") -> Figure:
    """Dice of every test case with an init against that of the same case with the baseline: above the line, it gained.

    Args:
        table: columns init, dice, dice_baseline; a row per case.
    """
    need(table, "init", "dice", "dice_baseline")
    figure, axes = sheet(6.4, 4.6, grid="both")
    for init, style in init_styles(table["init"]).items():
        part = table[table["init"] == init]
        axes.scatter(part["dice_baseline"], part["dice"], s=26, alpha=0.75, label=init, **style)
    values = table[["dice", "dice_baseline"]].to_numpy()
    low, high = np.nanmin(values), np.nanmax(values)
    edge = 0.06 * max(high - low, 0.01)
    ends = (low - edge, high + edge)
    axes.plot(ends, ends, color=GREY, linewidth=1.2, linestyle="--")
    axes.set(xlim=ends, ylim=ends, aspect="equal", title=title)
    axes.locator_params(nbins=5)  # labels of scores close together are long, and would run into each other
    axes.set(xlabel="Dice of the case, random", ylabel="Dice of the same case")
    legend(figure, title="initialisation")
    return figure


def histogram(
    images: Mapping[str, Any],
    *,
    window: tuple[float, float] | None = None,
    unit: str = "intensity",
    bins: int = 100,
    title: str = "",
) -> Figure:
    """Share of voxels per intensity (logarithmic), a line per volume; the window is shaded, its clipped share named.

    Volumes with few distinct values need fewer `bins`: empty bins between the values would look like a comb.
    """
    samples = {name: np.asarray(array, np.float64).ravel() for name, array in images.items()}
    samples = {name: values[np.isfinite(values)] for name, values in samples.items()}
    if not samples or any(values.size == 0 for values in samples.values()):
        raise CourseError("histogram: no finite voxel to count; pass at least one volume with numbers in it")
    ends = [np.percentile(values, (0.1, 99.9)) for values in samples.values()]
    low, high = min(end[0] for end in ends), max(end[1] for end in ends)
    edges = np.linspace(low, high if high > low else low + 1, bins + 1)
    figure, axes = sheet()
    for i, (name, values) in enumerate(samples.items()):
        share = 100 * np.histogram(values, edges)[0] / values.size
        if window is not None:
            name = f"{name}\n({np.mean((values < window[0]) | (values > window[1])):.0%} clipped)"
        axes.stairs(share, edges, label=name, color=LINES[i % 6], linewidth=1.5)
    if window is not None:
        axes.axvspan(*window, color="#009E73", alpha=0.12, label=f"window {window[0]:g} to {window[1]:g}")
    axes.set(yscale="log", xlabel=unit, ylabel="share of voxels (%)", title=title)
    legend(figure)
    return figure
