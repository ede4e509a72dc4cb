"""Pick a test case in a scatter of Dice, and see its image, label and prediction."""

from collections.abc import Callable, Mapping
from html import escape
from typing import Any

import pandas as pd
from IPython.display import display

from ssl_utils import statistics
from ssl_utils.errors import CourseError
from ssl_utils.figures import charts
from ssl_utils.live import live
from ssl_utils.widgets.volume3d import Sentence

_ALL = "all structures"
Show = Callable[..., Mapping[str, Any]]


def results_explorer(per_case: pd.DataFrame, show: Show, *, names: Mapping[int, str] | None = None) -> Sentence | None:
    """Show the Dice of every test case, random against another init; live, pick a case there to see its slices.

    Args:
        per_case: as `runs.per_case` gives it: init, num_labeled, subset, seed, case, class, dice.
        show: called with init, num_labeled, subset, seed and case; returns "image", "label", "prediction" (D, H, W)
            and "spacing", and may return "window". A CourseError of it is shown in place of the slices.
        names: label value -> name.
    """
    pairs = statistics.paired(per_case)
    if pairs.empty:
        return Sentence("No pretrained init has a finished run to compare with init=random yet; nothing to pick from.")
    init, labels = pairs["init"].iloc[0], int(pairs["num_labeled"].min())
    chosen = _chosen(per_case, init, labels, _ALL)
    if chosen.empty:  # that init has no run at the fewest labels
        init = pairs.loc[pairs["num_labeled"] == labels, "init"].iloc[0]
        chosen = _chosen(per_case, init, labels, _ALL)
    display(charts.paired_cases(chosen, title=f"{labels} labels, a point per test case and pair of runs"))
    if not live():
        return Sentence("In JupyterLab (make lab) you pick a point of this scatter and see the slices of its case.")
    display(_box(per_case, show, init, labels, names))
    return None


def _chosen(per_case: pd.DataFrame, init: str, labels: int, structure: str) -> pd.DataFrame:
    """The pairs of one init, one number of labels and one structure, sorted by the Dice of the baseline."""
    rows = per_case[(per_case["num_labeled"] == labels) & per_case["init"].isin([init, "random"])]
    rows = rows if structure == _ALL else rows[rows["class"] == structure]
    return statistics.paired(rows).dropna(subset=["dice", "dice_baseline"]).sort_values("dice_baseline")


def _box(per_case: pd.DataFrame, show: Show, init: str, labels: int, names: Mapping[int, str] | None) -> Any:
    """An ipywidgets box: drop-downs, scatter, a sentence about the picked case, its slices."""
    import ipywidgets as widgets

    from ssl_utils.widgets.inputs import Scatter, headline

    def menu(label: str, options: list[Any], value: Any) -> Any:
        return widgets.Dropdown(options=options, value=value, description=label, style={"description_width": "90px"})

    inits = menu("init", list(statistics.paired(per_case)["init"].unique()), init)
    count = menu("labels", sorted(per_case["num_labeled"].unique().tolist()), labels)
    structure = menu("structure", [_ALL, *per_case["class"].unique()], _ALL)
    predicted_by = menu("prediction of", [init, "random"], init)
    scatter, caption, slices = Scatter(), widgets.HTML(), widgets.VBox()

    def fill(_: Any = None) -> None:
        pairs = _chosen(per_case, inits.value, count.value, structure.value)
        scatter.update(pairs)
        predicted_by.options = [inits.value, "random"]
        _clear(slices)
        hint = "Pick a point: click it, or go to it with Tab and the arrow keys and press Enter."
        caption.value = "No pair of runs for this choice." if pairs.empty else hint

    def pick(_: Any = None) -> None:
        if scatter.picked < 0:
            return
        row = scatter.pairs.iloc[scatter.picked]
        caption.value = escape(headline(row))
        _clear(slices)
        try:
            slices.children = [
                _slices(show, {**row[statistics.RUN], "init": predicted_by.value, "case": row["case"]}, names)
            ]
        except CourseError as error:
            caption.value += f" <b>{escape(str(error))}</b>"

    for knob in (inits, count, structure):
        knob.observe(fill, names="value")
    predicted_by.observe(pick, names="value")
    scatter.observe(pick, names="picked")
    fill()
    return widgets.VBox(
        [widgets.HBox([inits, count]), widgets.HBox([structure, predicted_by]), scatter, caption, slices]
    )


def _slices(show: Show, which: Mapping[str, Any], names: Mapping[int, str] | None) -> Any:
    from ssl_utils.widgets.explorer import SliceExplorer

    which = {key: value.item() if hasattr(value, "item") else value for key, value in which.items()}
    case = dict(show(**which))
    return SliceExplorer(case.pop("image"), case.pop("label"), names=names, **case)


def _clear(slices: Any) -> None:
    """Close the explorer of the case before: its volumes leave the browser's memory too."""
    for planes in slices.children:
        planes.close()
    slices.children = []
