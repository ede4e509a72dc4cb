"""The table `inside.csv` of a pretraining run as a figure and as sentences. (Its columns: `pretext.inside`.)"""

from pathlib import Path
from textwrap import fill

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ssl_utils.errors import CourseError
from ssl_utils.figures.look import GREY, PALETTE, sheet

ORANGE, GREEN, RED, BLUE = PALETTE[0], PALETTE[2], PALETTE[4], PALETTE[6]
MARGIN_DB, MARGIN_DICE, MARGIN_RANK = 0.1, 0.01, 0.05  # changes below these (rank: of the first value) count as none
COLUMNS = ["step", "psnr", "psnr_mean", "psnr_infill", "linear", "knn", "place"]
COLUMNS += ["feature_std", "content", "rankme", "rank_most", "alarm", "reason"]


def read(folder: Path) -> pd.DataFrame:
    """The table of a pretraining run's folder, one row per measurement.

    Raises:
        CourseError: there is none.
    """
    path = Path(folder) / "inside.csv"
    if not path.exists():
        raise CourseError(f"{path}: no such file; delete this run and pretrain again to measure it")
    return check(pd.read_csv(path))


def check(table: pd.DataFrame) -> pd.DataFrame:
    """The table with reasons as text. Raises CourseError when a column, or every row, is missing."""
    missing = [name for name in COLUMNS if name not in table]
    if missing or table.empty:
        raise CourseError(f"inside table: no {', '.join(missing) or 'rows'}; pass inside.csv as pretraining wrote it")
    return table.assign(reason=table["reason"].astype(object).fillna("").astype(str), alarm=table["alarm"].astype(bool))


def verdict(table: pd.DataFrame) -> str:
    """The sentences of `says` as one text."""
    return " ".join(says(table))


def says(table: pd.DataFrame) -> list[str]:
    """Does it beat interpolation, have features collapsed, what improved: in sentences, Dice in points (0 to 100)."""
    table = check(table)
    first, last = table.iloc[0], table.iloc[-1]
    sentences = [_against_interpolation(last), _collapse(table)]
    if len(table) == 1:
        return [*sentences, f"One measurement only, at step {int(last['step'])}: no change to report."]
    return [*sentences, _labels(first, last), _directions(first, last)]


def _against_interpolation(last: pd.Series) -> str:
    ours, filled, mean = last["psnr"], last["psnr_infill"], last["psnr_mean"]
    result = f"At step {int(last['step'])} hidden voxels are reconstructed at {ours:.1f} dB"
    if not ours > filled + MARGIN_DB:
        worse = f" or mean fill ({mean:.1f} dB)" if not ours > mean + MARGIN_DB else ""
        return f"{result}, which is not better than interpolation ({filled:.1f} dB){worse}."
    return f"{result}, {ours - filled:.1f} dB above interpolation ({filled:.1f} dB)."


def _collapse(table: pd.DataFrame) -> str:
    last, alarms = table.iloc[-1], table[table["alarm"]]
    if last["alarm"]:
        return f"Features have collapsed: {last['reason']}."
    if len(alarms):
        steps = ", ".join(str(int(step)) for step in alarms["step"])
        return f"A collapse alarm at step {steps} has passed."
    return "No sign of collapse."


def _labels(first: pd.Series, last: pd.Series) -> str:
    if pd.isna(last["linear"]):
        return "Without labels there are no probes."
    titles = {"linear": "linear probe", "knn": "nearest neighbours"}
    words = [f"the {title} {_moved(first[name], last[name])}" for name, title in titles.items()]
    best = max(last["linear"], last["knn"])
    above = "above" if best > last["place"] + MARGIN_DICE else "not above"
    return (
        f"Since step {int(first['step'])} {' and '.join(words)}, in Dice points; the better of the two is {above} the "
        f"position-only baseline ({100 * last['place']:.1f})."
    )


def _moved(before: float, after: float) -> str:
    change = after - before
    verb = "rose" if change > MARGIN_DICE else "fell" if change < -MARGIN_DICE else "stayed"
    return f"{verb} ({100 * before:.1f} to {100 * after:.1f})"


def _directions(first: pd.Series, last: pd.Series) -> str:
    change = (last["rankme"] - first["rankme"]) / first["rankme"]
    more, word = ("more", "than") if change > MARGIN_RANK else ("fewer", "than")
    more, word = (more, word) if abs(change) > MARGIN_RANK else ("as many", "as")
    rank = f"RankMe {first['rankme']:.0f} to {last['rankme']:.0f} of {int(last['rank_most'])}"
    return f"Features use {more} directions {word} before ({rank})."


def panel(table: pd.DataFrame, history: pd.DataFrame | None = None, *, title: str = "") -> Figure:
    """Six panels: the loss, the sentences of `says`, and four of measures that the loss does not show.

    Args:
        table: as `read` gives it.
        history: the run's history.csv, for the first panel.
    """
    table = check(table)
    figure, ((loss, psnr, words), (probes, spread, rank)) = sheet(12.0, 6.4, 2, 3)
    _loss(loss, history)
    _psnr(psnr, table)
    words.axis("off")
    text = "\n\n".join(fill(sentence, 46) for sentence in says(table))
    words.text(0, 1, text, transform=words.transAxes, va="top", fontsize=9.5, linespacing=1.35)
    _probes(probes, table)
    _line(spread, table, "feature_std", "feature std", (ORANGE, "s"), alarm="collapse alarm")
    _line(spread, table, "content", "share between cases", (GREEN, "^"), alarm="")
    spread.set_ylim(0, 1.02)
    _frame(spread, "do tokens differ?", "of what is possible (0 to 1)")
    _line(rank, table, "rankme", "RankMe", (BLUE, "o"), alarm="collapse alarm")
    rank.set_ylim(0, 1.1 * table["rankme"].max())
    _frame(rank, f"directions in use, of {int(table['rank_most'].iloc[-1])}", "RankMe (directions)")
    figure.suptitle(title)
    return figure


def _frame(axes: Axes, title: str, ylabel: str) -> None:
    axes.set_title(title, fontsize=10, loc="left")
    axes.set(xlabel="training step", ylabel=ylabel)
    if axes.lines:
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    if axes.get_legend_handles_labels()[1]:
        axes.legend(fontsize=8, framealpha=0.85, edgecolor="none")


def _line(axes: Axes, table: pd.DataFrame, column: str, label: str, look: tuple, factor=1, alarm=None) -> None:
    """A column over the steps; with `alarm`, its name in the legend or "", a red cross wherever features collapsed."""
    style = {"color": look[0], "marker": look[1], "markersize": 4, "linewidth": 1.8}
    axes.plot(table["step"], factor * table[column], label=label, **style)
    alarms = table[table["alarm"]]
    if alarm is not None and len(alarms):
        axes.plot(alarms["step"], alarms[column], "x", color=RED, markersize=10, markeredgewidth=2, label=alarm or None)


def _level(axes: Axes, value: float, label: str, dash: str = "--") -> None:
    axes.axhline(value, color=GREY, linestyle=dash, linewidth=1.3, label=label)


def _empty(axes: Axes, text: str) -> None:
    axes.text(0.5, 0.5, fill(text, 34), transform=axes.transAxes, ha="center", va="center", color=GREY, fontsize=9)
    axes.set(xticks=[], yticks=[])


def _loss(axes: Axes, history: pd.DataFrame | None) -> None:
    if history is None:
        return _empty(axes, "no history of the loss given")
    for column, colour, marker in (("train_loss", GREY, "s"), ("validation_loss", BLUE, "o")):
        if column in history:
            style = {"color": colour, "marker": marker, "markersize": 4, "label": column.replace("_", " ")}
            axes.plot(history["step"], history[column], **style)
    _frame(axes, "the training objective", "loss (the task's own units)")


def _psnr(axes: Axes, table: pd.DataFrame) -> None:
    _line(axes, table, "psnr", "network", (BLUE, "o"))
    _level(axes, table["psnr_infill"].iloc[-1], "interpolation")
    _level(axes, table["psnr_mean"].iloc[-1], "mean fill", ":")
    axes.margins(y=0.1)
    _frame(axes, "reconstruction on fixed masks", "PSNR over hidden voxels (dB)")


def _probes(axes: Axes, table: pd.DataFrame) -> None:
    if table["linear"].isna().all():
        _empty(axes, "no labels in this dataset: no probes")
        return _frame(axes, "label probes on frozen tokens", "")
    _line(axes, table, "linear", "linear probe", (ORANGE, "s"), factor=100)
    _line(axes, table, "knn", "5 nearest neighbours", (GREEN, "^"), factor=100)
    _level(axes, 100 * table["place"].iloc[-1], "position only")
    axes.set_ylim(0, 110 * table[["linear", "knn", "place"]].max(axis=None))
    _frame(axes, "label probes on frozen tokens", "Dice of token shares (points)")
