"""The picture of one model under many Dice conventions."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from ssl_utils.errors import CourseError
from ssl_utils.figures.panels import PALETTE, Picture

WRONG, DIFFERENT, HONEST = PALETTE[4], PALETTE[6], "#222222"


def moved(table: pd.DataFrame) -> float:
    """Points between the lowest and the highest score of the same predictions on the same cases."""
    same = table.loc[table["same_cases"], "score"]
    return 100 * float(same.max() - same.min())


def dice_lens(table: pd.DataFrame, *, interval: tuple[float, float] | None = None, subject: str = "") -> Figure:
    """A dot per convention on one Dice axis; the first row, the honest one, is a line with its interval.

    A convention that depends on the order of the files has a bar from the worst order to the best one; a hollow dot is
    a score on other cases.

    Args:
        table: columns convention, used_by, wrong, same_cases, score, points, low, high; the honest row first.
        interval: 95 % interval of the honest score; NaN (one patient) is not drawn.
        subject: what was scored, for the title.
    """
    needed = ["convention", "used_by", "wrong", "same_cases", "score", "points", "low", "high"]
    if table.empty or not set(needed) <= set(table):
        raise CourseError(f"table with columns {list(table)}: needs rows with {', '.join(needed)}; pass that of `lens`")
    figure = Picture(figsize=(9.0, 1.5 + 0.36 * len(table)), dpi=110, facecolor="white", layout="constrained")
    axes = figure.add_subplot(facecolor="white")
    truth = float(table["score"].iloc[0])
    if interval is not None and np.isfinite(interval).all():
        axes.axvspan(*interval, color="#bbbbbb", alpha=0.45, linewidth=0)
    axes.axvline(truth, color=HONEST, linewidth=1.5)
    for row in range(len(table)):
        _row(axes, row, table.iloc[row], truth)
    names = [f"{row.convention}  ({row.used_by})" for row in table.itertuples()]
    axes.set_yticks(range(len(table)), names, fontsize=9)
    axes.set(ylim=(len(table) - 0.4, -0.6), xlabel="Dice")
    title = f"{subject}: the" if subject else "The"
    figure.suptitle(f"{title} same predictions move by {moved(table):.1f} points", x=0.02, ha="left", fontsize=12)
    axes.margins(x=0.12)
    axes.grid(axis="x", color="#dddddd", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0)
    _legend(figure, table)
    return figure


def _row(axes, at: int, row: pd.Series, truth: float) -> None:
    """One convention: a thin line from the honest score, the bar of orders, the dot, and the difference in points."""
    if at == 0:
        axes.plot(truth, at, "s", color=HONEST, markersize=8)
        note = f"{truth:.3f}"
    else:
        colour = WRONG if row["wrong"] else DIFFERENT
        axes.plot([truth, row["score"]], [at, at], color="#999999", linewidth=1)
        if row["high"] - row["low"] > 1e-6:
            axes.plot([row["low"], row["high"]], [at, at], color=colour, linewidth=4, alpha=0.35, solid_capstyle="butt")
        axes.plot(
            row["score"],
            at,
            "D" if row["wrong"] else "o",
            markersize=8,
            markeredgewidth=1.6,
            color=colour,
            markerfacecolor=colour if row["same_cases"] else "white",
        )
        size = abs(row["points"])
        by = f"{row['points']:+.1f}" if size >= 0.05 else "< 0.1" if size > 1e-6 else "same"
        note = f"{row['score']:.3f}  ({by})" if np.isfinite(row["score"]) else "no score"
    axes.annotate(note, (1.01, at), xycoords=("axes fraction", "data"), va="center", fontsize=9)


def _legend(figure: Figure, table: pd.DataFrame) -> None:
    def mark(marker: str, colour: str, label: str, **more) -> Line2D:
        return Line2D([], [], marker=marker, color=colour, linestyle="", markersize=7, label=label, **more)

    marks = [
        mark("s", HONEST, "honest, with its 95 % interval"),
        mark("o", DIFFERENT, "another convention"),
        mark("D", WRONG, "a fault"),
    ]
    if (table["high"] - table["low"] > 1e-6).any():
        marks.append(Line2D([], [], color=WRONG, linewidth=4, alpha=0.35, label="worst to best order of the files"))
    if not table["same_cases"].all():
        marks.append(mark("D", WRONG, "on other cases", markerfacecolor="white"))
    figure.legend(handles=marks, loc="outside lower center", ncols=len(marks), frameon=False, fontsize=8.5)
