"""One model scored under many Dice conventions, as a picture."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from ssl_utils.figures.look import PALETTE, need, sheet

WRONG, DIFFERENT, HONEST = PALETTE[4], PALETTE[6], "#222222"
_ORDERS = {"linewidth": 4, "alpha": 0.35}  # the bar of orders of the files


def moved(table: pd.DataFrame) -> float:
    """Points between the lowest and the highest score of the same predictions on the same cases."""
    same = table.loc[table["same_cases"], "score"]
    return 100 * float(same.max() - same.min())


def dice_lens(table: pd.DataFrame, *, interval: tuple[float, float] | None = None, subject: str = "") -> Figure:
    """A dot per convention on one Dice axis; the first row, the honest one, is a line with its interval.

    A bar shows the worst to the best order of the files where a convention depends on it; a hollow dot is a score on
    other cases.

    Args:
        table: columns convention, used_by, wrong, same_cases, score, points, low, high; the honest row first.
        interval: 95 % interval of the honest score; NaN (one patient) is not drawn.
        subject: what was scored, for the title.
    """
    columns = ("convention", "used_by", "wrong", "same_cases", "score", "points", "low", "high")
    need(table, *columns, source="that of `lens`")
    figure, axes = sheet(9.0, 1.5 + 0.36 * len(table), grid="x")
    truth = float(table["score"].iloc[0])
    if interval is not None and np.isfinite(interval).all():
        axes.axvspan(*interval, color="#bbbbbb", alpha=0.45, linewidth=0)
    axes.axvline(truth, color=HONEST, linewidth=1.5)
    for at in range(len(table)):
        note = _dot(axes, at, table.iloc[at], truth)
        axes.annotate(note, (1.01, at), xycoords=("axes fraction", "data"), va="center", fontsize=9)
    names = [f"{row.convention}  ({row.used_by})" for row in table.itertuples()]
    axes.set_yticks(range(len(table)), names, fontsize=9)
    axes.set(ylim=(len(table) - 0.4, -0.6), xlabel="Dice")
    title = f"{subject}: the" if subject else "The"
    figure.suptitle(f"{title} conventions differ by up to {moved(table):.1f} points", x=0.02, ha="left", fontsize=12)
    axes.margins(x=0.12)
    axes.spines["left"].set_visible(False)
    axes.tick_params(axis="y", length=0)
    marks = _marks(table)
    figure.legend(handles=marks, loc="outside lower center", ncols=len(marks), frameon=False, fontsize=8.5)
    return figure


def _dot(axes: Axes, at: int, row: pd.Series, truth: float) -> str:
    """Draw one convention: a thin line from the honest score, the bar of orders, the dot. Returns its score and the
    difference in points."""
    if at == 0:
        axes.plot(truth, at, "s", color=HONEST, markersize=8)
        return f"{truth:.3f}"
    colour, score = WRONG if row["wrong"] else DIFFERENT, row["score"]
    axes.plot([truth, score], [at, at], color="#999999", linewidth=1)
    if row["high"] - row["low"] > 1e-6:
        axes.plot([row["low"], row["high"]], [at, at], color=colour, solid_capstyle="butt", **_ORDERS)
    style = {"color": colour, "markerfacecolor": colour if row["same_cases"] else "white", "markeredgewidth": 1.6}
    axes.plot(score, at, "D" if row["wrong"] else "o", markersize=8, **style)
    size = abs(row["points"])
    by = f"{row['points']:+.1f}" if size >= 0.05 else "< 0.1" if size > 1e-6 else "same"
    return f"{score:.3f}  ({by})" if np.isfinite(score) else "no score"


def _marks(table: pd.DataFrame) -> list[Line2D]:
    """The entries of the legend."""

    def mark(marker: str, colour: str, label: str, **more) -> Line2D:
        return Line2D([], [], marker=marker, color=colour, linestyle="", markersize=7, label=label, **more)

    marks = [mark("s", HONEST, "this course, with its 95 % interval"), mark("o", DIFFERENT, "another convention")]
    marks.append(mark("D", WRONG, "an error"))
    if (table["high"] - table["low"] > 1e-6).any():
        marks.append(Line2D([], [], color=WRONG, label="worst to best order of the files", **_ORDERS))
    if not table["same_cases"].all():
        marks.append(mark("D", WRONG, "on other cases", markerfacecolor="white"))
    return marks
