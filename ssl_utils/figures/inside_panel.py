"""Figure and plain sentences on the probes of a pretraining run, from its `inside.csv` (columns: `pretext.inside`)."""

from pathlib import Path
from textwrap import fill

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ssl_utils.errors import CourseError
from ssl_utils.figures.look import GREY, PALETTE, need, sheet

ORANGE, GREEN, RED, BLUE = PALETTE[0], PALETTE[2], PALETTE[4], PALETTE[6]
MARGIN_DB, MARGIN_DICE, MARGIN_RANK = 0.1, 0.01, 0.05  # changes below these (rank: of the first value) count as none
COLUMNS = ("step", "psnr", "psnr_mean", "psnr_interpolation", "linear", "knn", "position")
COLUMNS += ("feature_std", "content", "rankme", "rank_most", "alarm", "reason")


def read(folder: Path) -> pd.DataFrame:
    """The table of a pretraining run's folder, one row per evaluation.

    Raises:
        CourseError: there is none.
    """
    path = Path(folder) / "inside.csv"
    if not path.exists():
        raise CourseError(f"{path}: no such file; this run was made without probes: delete it and pretrain again")
    return check(pd.read_csv(path))


def check(table: pd.DataFrame) -> pd.DataFrame:
    """The table with reasons as text. Raises CourseError when a column, or every row, is missing."""
    need(table, *COLUMNS, source="inside.csv as pretraining wrote it,")
    return table.assign(reason=table["reason"].astype(object).fillna("").astype(str), alarm=table["alarm"].astype(bool))


def sentences(table: pd.DataFrame) -> list[str]:
    """Does it beat interpolation, have features collapsed, what improved: sentences, Dice in points (0 to 100)."""
    table = check(table)
    first, last = table.iloc[0], table.iloc[-1]
    lines = [_against_interpolation(last), _collapse(table)]
    if len(table) == 1:
        return [*lines, f"A single evaluation, at step {int(last['step'])}: no change to report."]
    return [*lines, _probed(first, last), _directions(first, last)]


def _against_interpolation(last: pd.Series) -> str:
    psnr, baseline, mean = last["psnr"], last["psnr_interpolation"], last["psnr_mean"]
    if pd.isna(baseline):
        return "This task reconstructs no voxels."
    start = f"At step {int(last['step'])} hidden voxels are reconstructed at {psnr:.1f} dB"
    if psnr > baseline + MARGIN_DB:
        return f"{start}, {psnr - baseline:.1f} dB above the interpolation baseline ({baseline:.1f} dB)."
    worse = "" if psnr > mean + MARGIN_DB else f" or even the mean baseline ({mean:.1f} dB)"
    return (
        f"{start}, which does not beat the interpolation baseline ({baseline:.1f} dB){worse}: "
        "there is no sign that the task has learnt more than to interpolate."
    )


def _collapse(table: pd.DataFrame) -> str:
    last, alarms = table.iloc[-1], table[table["alarm"]]
    if last["alarm"]:
        return f"Features have collapsed: {last['reason']}."
    if alarms.empty:
        return "No sign of collapse."
    return f"There was a collapse alarm at step {', '.join(str(int(step)) for step in alarms['step'])}, but not since."


def _probed(first: pd.Series, last: pd.Series) -> str:
    if pd.isna(last["linear"]):
        return "Without labels there are no probes."
    titles = {"linear": "linear probe", "knn": "nearest neighbours"}
    changes = " and ".join(f"the {title} {_change(first[name], last[name])}" for name, title in titles.items())
    above = "above" if max(last["linear"], last["knn"]) > last["position"] + MARGIN_DICE else "not above"
    return (
        f"Since step {int(first['step'])} {changes}, in Dice points; the better of the two is {above} the "
        f"position-only baseline ({100 * last['position']:.1f})."
    )


def _change(before: float, after: float) -> str:
    change = after - before
    verb = "rose" if change > MARGIN_DICE else "fell" if change < -MARGIN_DICE else "stayed"
    return f"{verb} ({100 * before:.1f} to {100 * after:.1f})"


def _directions(first: pd.Series, last: pd.Series) -> str:
    change = (last["rankme"] - first["rankme"]) / first["rankme"]
    many = "more directions than" if change > MARGIN_RANK else "fewer directions than"
    many = many if abs(change) > MARGIN_RANK else "as many directions as"
    rank = f"RankMe {first['rankme']:.0f} to {last['rankme']:.0f} of {int(last['rank_most'])}"
    return f"Features use {many} before ({rank})."


def panel(table: pd.DataFrame, history: pd.DataFrame | None = None, *, title: str = "") -> Figure:
    """Six panels: the training loss, a summary in words, and four that the loss does not show.

    Args:
        table: as `read` gives it.
        history: the run's history.csv, for the first panel.
    """
    table = check(table)
    figure, ((loss, psnr, words), (probes, spread, rank)) = sheet(12.0, 6.4, 2, 3)
    _loss(loss, history)
    _psnr(psnr, table)
    words.axis("off")
    text = "\n\n".join(fill(sentence, 46) for sentence in sentences(table))
    words.text(0, 1, text, transform=words.transAxes, va="top", fontsize=9.5, linespacing=1.35)
    _probes(probes, table)
    _line(spread, table["step"], table["feature_std"], "feature std", ORANGE, "s")
    _line(spread, table["step"], table["content"], "share between cases", GREEN, "^")
    _alarms(spread, table, "feature_std", "content")
    spread.set_ylim(0, 1.02)
    _frame(spread, "do tokens differ?", "of the possible range (0 to 1)")
    _line(rank, table["step"], table["rankme"], "RankMe", BLUE)
    _alarms(rank, table, "rankme")
    rank.set_ylim(0, 1.1 * table["rankme"].max())
    _frame(rank, f"directions in use, of {int(table['rank_most'].iloc[-1])}", "RankMe (directions)")
    figure.suptitle(title)
    return figure


def _frame(axes: Axes, title: str, ylabel: str) -> None:
    axes.set_title(title, fontsize=10, loc="left")
    axes.set(xlabel="training step", ylabel=ylabel)
    if axes.lines:
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        axes.legend(fontsize=8, framealpha=0.85, edgecolor="none")


def _line(axes: Axes, steps: pd.Series, values: pd.Series, label: str, colour: str, marker: str = "o") -> None:
    axes.plot(steps, values, label=label, color=colour, marker=marker, markersize=4, linewidth=1.8)


def _alarms(axes: Axes, table: pd.DataFrame, *columns: str) -> None:
    """A red cross on each of these lines wherever features collapsed."""
    alarms = table[table["alarm"]]
    for i, column in enumerate(columns if len(alarms) else ()):
        label = "collapse alarm" if i == 0 else None
        axes.plot(alarms["step"], alarms[column], "x", color=RED, markersize=10, markeredgewidth=2, label=label)


def _baseline(axes: Axes, value: float, label: str, dash: str = "--") -> None:
    axes.axhline(value, color=GREY, linestyle=dash, linewidth=1.3, label=label)


def _empty(axes: Axes, text: str) -> None:
    axes.text(0.5, 0.5, fill(text, 34), transform=axes.transAxes, ha="center", va="center", color=GREY, fontsize=9)
    axes.set(xticks=[], yticks=[])


def _loss(axes: Axes, history: pd.DataFrame | None) -> None:
    if history is None:
        return _empty(axes, "no history of the loss given")
    for column, colour, marker in (("train_loss", GREY, "s"), ("validation_loss", BLUE, "o")):
        if column in history:
            _line(axes, history["step"], history[column], column.replace("_", " "), colour, marker)
    _frame(axes, "training and validation loss", "loss (the task's own units)")


def _psnr(axes: Axes, table: pd.DataFrame) -> None:
    if table["psnr_interpolation"].isna().all():
        _empty(axes, "this task reconstructs no voxels")
    else:
        _line(axes, table["step"], table["psnr"], "network", BLUE)
        _baseline(axes, table["psnr_mean"].iloc[-1], "mean")  # dashes as in the curve of the loss
        _baseline(axes, table["psnr_interpolation"].iloc[-1], "interpolation", ":")
        axes.margins(y=0.1)
    _frame(axes, "reconstruction, fixed masks", "PSNR over hidden voxels (dB)")


def _probes(axes: Axes, table: pd.DataFrame) -> None:
    if table["linear"].isna().all():
        _empty(axes, "no labels in this dataset: no probes")
    else:
        _line(axes, table["step"], 100 * table["linear"], "linear probe", ORANGE, "s")
        _line(axes, table["step"], 100 * table["knn"], "5 nearest neighbours", GREEN, "^")
        _baseline(axes, 100 * table["position"].iloc[-1], "position only")
        axes.set_ylim(0, 110 * table[["linear", "knn", "position"]].max(axis=None))
    _frame(axes, "labels predicted from frozen tokens", "Dice of token shares (points)")
