"""Pictures of comparisons: gain with its interval, structures one by one, labels saved."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ssl_utils.figures.charts import _axes, _legend, _need, _styles
from ssl_utils.figures.panels import Picture

UP, DOWN = r"$\Uparrow$", r"$\Downarrow$"


def _lines(axes: Axes, table: pd.DataFrame, column: str, styles: dict, counts: list[int], wide: float = 0.06) -> None:
    """A line with error bars per init over evenly spaced numbers of labels, side by side."""
    for i, (init, style) in enumerate(styles.items()):
        part = table[table["init"] == init].sort_values("num_labeled")
        at = [counts.index(n) + wide * (i - (len(styles) - 1) / 2) for n in part["num_labeled"]]
        ends = np.abs([part[column] - part["low"], part["high"] - part[column]]).astype(float)
        axes.errorbar(
            at,
            part[column],
            yerr=np.nan_to_num(ends),
            label=init,
            capsize=2,
            markersize=4,
            linewidth=1.4,
            elinewidth=1,
            **style,
        )
    axes.set_xticks(range(len(counts)), [str(n) for n in counts])
    axes.set_xlim(-0.5, len(counts) - 0.5)


def gain_against_labels(table: pd.DataFrame, *, baseline: str = "random", title: str = "") -> Figure:
    """Mean paired gain over the baseline in points, with its interval, against the number of labelled cases.

    Args:
        table: columns init, num_labeled, gain, low, high (Dice), as of `statistics.gains`.
    """
    _need(table, "init", "num_labeled", "gain", "low", "high")
    points = table.assign(**{name: 100 * table[name] for name in ("gain", "low", "high")})
    figure, axes = _axes()
    axes.axhline(0, color="#444444", linewidth=1.2, linestyle="--")
    styles = _styles(list(table["init"].unique()))
    _lines(axes, points, "gain", styles, sorted(table["num_labeled"].unique()), wide=min(0.08, 0.6 / len(styles)))
    axes.set(xlabel="labelled cases used for fine-tuning", ylabel=f"gain over {baseline} (points of Dice)", title=title)
    _legend(figure, title="start of the encoder\n(95 % interval of the paired gain)", title_fontsize=8)
    return figure


def structures_against_labels(table: pd.DataFrame, *, title: str = "") -> Figure:
    """Dice with its interval against the number of labelled cases, a small panel per structure.

    Args:
        table: columns class, init, num_labeled, dice, low, high, as of `statistics.structures`.
    """
    _need(table, "class", "init", "num_labeled", "dice", "low", "high")
    classes, styles = list(dict.fromkeys(table["class"])), _styles(list(table["init"].unique()))
    columns = min(5, len(classes))
    rows, counts = -(-len(classes) // columns), sorted(table["num_labeled"].unique())
    size = (min(11.5, 2.6 + 2.6 * columns), min(6.0, 1.0 + 1.7 * rows) if rows > 1 else 3.2)
    figure = Picture(figsize=size, dpi=110, facecolor="white", layout="constrained")
    panels = np.atleast_1d(figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)).ravel()
    for axes, name in zip(panels, classes, strict=False):
        _lines(axes, table[table["class"] == name], "dice", styles, counts)
        axes.set_title(str(name).replace("_", " "), fontsize=9)
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", color="#dddddd", linewidth=0.8)
        axes.tick_params(labelsize=8, labelbottom=True)
    for axes in panels[len(classes) :]:
        axes.set_visible(False)
    figure.supxlabel("labelled cases used for fine-tuning", fontsize=9)
    figure.supylabel("Dice", fontsize=9)
    figure.suptitle(title, fontsize=11)
    handles = panels[0].get_legend_handles_labels()
    about = {"title": "start of the encoder\n(95 % interval)", "title_fontsize": 8, "alignment": "left"}
    figure.legend(*handles, loc="outside right upper", frameon=False, fontsize=9, **about)
    return figure


def labels_saved(table: pd.DataFrame, *, baseline: str = "random", title: str = "") -> Figure:
    """Labels that an init had against labels that the baseline needs for the same Dice: above the line, labels are
    saved. A point beyond the baseline's curve stands on the upper edge as an arrow, one below it on the lower edge.

    Args:
        table: columns init, num_labeled, needs, low, high, fewest, most, as of `savings.labels_saved`.
    """
    _need(table, "init", "num_labeled", "needs", "low", "high", "fewest", "most")
    figure, axes = _axes()
    least, most = float(table["fewest"].iloc[0]), float(table["most"].iloc[0])
    bottom, top = least / 1.35, most * 1.35
    counts = sorted({*table["num_labeled"], int(least), int(most)})
    styles = _styles(list(table["init"].unique()))
    for i, (init, style) in enumerate(styles.items()):
        part, marker = table[table["init"] == init], style["marker"]
        for row in part.itertuples():
            x, y = row.num_labeled * 1.06 ** (i - (len(styles) - 1) / 2), np.clip(row.needs, bottom, top)
            ends = np.clip([row.low, row.high], bottom, top)
            axes.plot([x, x], ends, color=style["color"], linewidth=1.4)
            shape = UP if row.needs > most else DOWN if row.needs < least else marker
            size = 7 if shape == marker else 13
            axes.plot(x, y, marker=shape, color=style["color"], markersize=size, clip_on=False)
        axes.plot([], [], marker, color=style["color"], label=init)
    ends = [min(bottom, counts[0] / 1.2), max(top, counts[-1] * 1.2)]
    axes.plot(ends, ends, color="#444444", linewidth=1.2, linestyle="--", label="as many as it had")
    axes.set(xscale="log", yscale="log", xlim=(counts[0] / 1.35, counts[-1] * 1.35), ylim=(bottom, top), title=title)
    axes.set_xticks(counts, [str(n) for n in counts])
    axes.set_yticks([bottom, *counts, top], [f"<{least:.0f}", *(str(n) for n in counts), f">{most:.0f}"])
    axes.minorticks_off()
    axes.set(xlabel="labels the init had", ylabel=f"labels the {baseline} start needs\nfor the same Dice")
    _legend(figure, title="start of the encoder\n(95 % interval)", title_fontsize=8)
    return figure
