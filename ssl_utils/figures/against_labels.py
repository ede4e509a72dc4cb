"""Figures over the number of labelled cases: Dice, the gain over a baseline, structures one by one, labels saved."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ssl_utils.figures.look import GREY, error_bars, init_styles, legend, need, sheet

LABELLED = "labelled cases used for fine-tuning"
UP, DOWN = r"$\Uparrow$", r"$\Downarrow$"
_COLLAPSED = {"color": "#D40000", "markersize": 8, "markeredgewidth": 2}
_BOLD = {"capsize": 3, "markersize": 6, "linewidth": 1.8, "elinewidth": 1.2}
_FINE = {"capsize": 2, "markersize": 4, "linewidth": 1.4, "elinewidth": 1}


def shift(i: int, number: int, step: float = 0.06) -> float:
    """Offset of the i-th of so many lines from its tick, so that their bars do not hide each other."""
    return step * (i - (number - 1) / 2)


def _lines(axes: Axes, table: pd.DataFrame, column: str, styles: dict, counts: list, step=0.06, bars=_FINE) -> None:
    """A line with error bars per init over evenly spaced numbers of labels, side by side."""
    for i, (init, style) in enumerate(styles.items()):
        part = table[table["init"] == init].sort_values("num_labeled")
        at = [counts.index(n) + shift(i, len(styles), step) for n in part["num_labeled"]]
        error_bars(axes, at, part[column], part["low"], part["high"], label=init, **bars, **style)
    axes.set_xticks(range(len(counts)), [str(n) for n in counts])
    axes.set_xlim(-0.5, len(counts) - 0.5)


def dice_against_labels(table: pd.DataFrame, *, runs: pd.DataFrame | None = None, title: str = "") -> Figure:
    """Mean Dice with its interval against the number of labelled cases, a line per init.

    Args:
        table: columns init, num_labeled, dice, low, high; the last two may be NaN. `cases` is named in the legend.
        runs: single runs as faint dots, collapsed ones as red crosses: columns init, num_labeled, dice, collapsed
            (`statistics.run_means`).
    """
    need(table, "init", "num_labeled", "dice", "low", "high")
    figure, axes = sheet()
    counts, styles = sorted(table["num_labeled"].unique()), init_styles(table["init"])
    _lines(axes, table, "dice", styles, counts, bars=_BOLD)
    if runs is not None:
        for i, (init, style) in enumerate(styles.items()):
            _single_runs(axes, runs[runs["init"] == init], counts, shift(i, len(styles)), style["color"])
        if runs["collapsed"].any():
            axes.plot([], [], "x", label="collapsed run", **_COLLAPSED)
    axes.set(xlim=(-0.4, len(counts) - 0.6), xlabel=LABELLED, ylabel="mean foreground Dice", title=title)
    cases = f", {table['cases'].iloc[0]} test cases" if "cases" in table and table["cases"].nunique() == 1 else ""
    legend(figure, title=f"initialisation\n(95 % interval{cases})")
    return figure


def _single_runs(axes: Axes, runs: pd.DataFrame, counts: list[int], offset: float, colour: str) -> None:
    runs = runs[runs["num_labeled"].isin(counts)]
    runs = runs.assign(x=[counts.index(n) + offset for n in runs["num_labeled"]])
    collapsed = runs["collapsed"].astype(bool)
    several = runs.groupby("num_labeled")["dice"].transform("size") > 1  # a single run is the mean itself
    dots, crosses = runs[several & ~collapsed], runs[collapsed]
    axes.plot(dots["x"], dots["dice"], "o", color=colour, alpha=0.35, markersize=3.5, zorder=1)
    axes.plot(crosses["x"], crosses["dice"], "x", zorder=5, **_COLLAPSED)


def gain_against_labels(table: pd.DataFrame) -> Figure:
    """Mean paired gain over the baseline in points, with its interval, against the number of labelled cases.

    Args:
        table: columns init, num_labeled, gain, low, high (Dice), as of `statistics.gains`.
    """
    need(table, "init", "num_labeled", "gain", "low", "high")
    points = table.assign(**{name: 100 * table[name] for name in ("gain", "low", "high")})
    figure, axes = sheet()
    axes.axhline(0, color=GREY, linewidth=1.2, linestyle="--")
    styles = init_styles(table["init"])
    _lines(axes, points, "gain", styles, sorted(table["num_labeled"].unique()), min(0.08, 0.6 / len(styles)))
    axes.set(xlabel=LABELLED, ylabel="gain over random (points of Dice)")
    legend(figure, title="initialisation\n(95 % interval of the paired gain)")
    return figure


def structures_against_labels(table: pd.DataFrame) -> Figure:
    """Dice with its interval against the number of labelled cases, a small panel per structure.

    Args:
        table: columns class, init, num_labeled, dice, low, high, as of `statistics.structures`.
    """
    need(table, "class", "init", "num_labeled", "dice", "low", "high")
    classes, styles = list(dict.fromkeys(table["class"])), init_styles(table["init"])
    columns = min(5, len(classes))
    rows, counts = -(-len(classes) // columns), sorted(table["num_labeled"].unique())
    size = (min(11.5, 2.6 + 2.6 * columns), min(6.0, 1.0 + 1.7 * rows) if rows > 1 else 3.2)
    figure, panels = sheet(*size, rows, columns, sharex=True, sharey=True, squeeze=False)
    for axes, name in zip(panels.flat, classes, strict=False):
        _lines(axes, table[table["class"] == name], "dice", styles, counts)
        axes.set_title(str(name).replace("_", " "), fontsize=9)
        axes.tick_params(labelsize=8, labelbottom=True)
    for axes in panels.flat[len(classes) :]:
        axes.set_visible(False)
    figure.supxlabel(LABELLED, fontsize=9)
    figure.supylabel("Dice", fontsize=9)
    legend(figure, *panels[0, 0].get_legend_handles_labels(), title="initialisation\n(95 % interval)")
    return figure


def labels_saved(table: pd.DataFrame) -> Figure:
    """Labels of an init against labels that the baseline needs for the same Dice: above the line, labels are saved.

    A point beyond the baseline's curve is an arrow on the upper edge, one below it an arrow on the lower edge.

    Args:
        table: columns init, num_labeled, needs, low, high, fewest, most, as of `savings.labels_saved`.
    """
    need(table, "init", "num_labeled", "needs", "low", "high", "fewest", "most")
    figure, axes = sheet()
    least, most = float(table["fewest"].iloc[0]), float(table["most"].iloc[0])
    bottom, top = least / 1.35, most * 1.35
    counts, styles = sorted({*table["num_labeled"], int(least), int(most)}), init_styles(table["init"])
    for i, (init, style) in enumerate(styles.items()):
        colour, marker = style["color"], style["marker"]
        for row in table[table["init"] == init].itertuples():
            x = row.num_labeled * 1.06 ** shift(i, len(styles), 1)
            axes.plot([x, x], np.clip([row.low, row.high], bottom, top), color=colour, linewidth=1.4)
            shape, size = (UP, 13) if row.needs > most else (DOWN, 13) if row.needs < least else (marker, 7)
            y = np.clip(row.needs, bottom, top)
            axes.plot(x, y, color=colour, marker=shape, markersize=size, clip_on=False)
        axes.plot([], [], marker, color=colour, label=init)
    ends = [min(bottom, counts[0] / 1.2), max(top, counts[-1] * 1.2)]
    axes.plot(ends, ends, color=GREY, linewidth=1.2, linestyle="--", label="equal numbers")
    axes.set(xscale="log", yscale="log", xlim=(counts[0] / 1.35, counts[-1] * 1.35), ylim=(bottom, top))
    axes.set_xticks(counts, [str(n) for n in counts])
    axes.set_yticks([bottom, *counts, top], [f"<{least:.0f}", *(str(n) for n in counts), f">{most:.0f}"])
    axes.minorticks_off()
    axes.set(xlabel="labels of the init", ylabel="labels that random needs\nfor the same Dice")
    legend(figure, title="initialisation\n(95 % interval)")
    return figure
