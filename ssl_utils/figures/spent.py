"""Where the seconds of a run went: its table and its bars."""

from collections.abc import Mapping

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from ssl_utils.errors import CourseError
from ssl_utils.figures.look import PALETTE, legend, sheet

GROUPS = {  # of the parts in metrics.json: colour, parts
    "loading data": (PALETTE[0], ("data",)),
    "the network": (PALETTE[6], ("forward", "backward", "optimiser")),
    "monitoring": ("#999999", ("validation", "looking", "logging")),
}
NAMES = {"looking": "looking inside"}


def table(spent: Mapping[str, float], *, steps: int) -> pd.DataFrame:
    """One row per part of a run, in the order of GROUPS: seconds, ms per step (a mean over all steps), share in %.

    Args:
        spent: seconds by part, as metrics.json keeps them under "spent".

    Raises:
        CourseError: no step, or no time at all.
    """
    whole = sum(spent.values())
    if steps < 1 or whole <= 0:
        raise CourseError(f"{steps} steps in {whole:g} s: nothing to divide; pass times and steps of a finished run")
    parts = [part for _, parts in GROUPS.values() for part in parts if part in spent]
    seconds = pd.Series({NAMES.get(part, part): spent[part] for part in parts}).rename_axis("part")
    return pd.DataFrame({"seconds": seconds, "ms per step": 1000 * seconds / steps, "share %": 100 * seconds / whole})


def bars(parts: pd.DataFrame, *, title: str = "") -> Figure:
    """The rows of `table` as horizontal bars of milliseconds per step, coloured by group, each with its share."""
    colours = {NAMES.get(part, part): colour for colour, members in GROUPS.values() for part in members}
    figure, axes = sheet(7.0, 0.9 + 0.28 * len(parts))
    axes.grid(False)
    axes.spines["left"].set_visible(False)
    drawn = axes.barh(parts.index, parts["ms per step"], color=[colours[part] for part in parts.index], height=0.7)
    axes.bar_label(drawn, [f"{share:.0f} %" for share in parts["share %"]], padding=4, fontsize=9)
    axes.set(xlabel="milliseconds per step", title=title)
    axes.tick_params(axis="y", length=0)
    axes.invert_yaxis()
    axes.margins(x=0.12)
    legend(figure, handles=[Patch(facecolor=colour, label=name) for name, (colour, _) in GROUPS.items()])
    return figure
