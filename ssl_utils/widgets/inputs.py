"""Inputs: the controls of a playground, and a scatter of test cases to pick one from.

This module imports anywidget, so it is imported only when a notebook is live.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import anywidget
import pandas as pd
import traitlets as t

_HERE = Path(__file__).parent


class Knobs(anywidget.AnyWidget):
    """One labelled input per control; `chosen` gives their values.

    Args:
        controls: name -> an object with label, start, choices, low, high, step (`playground.Control`).
        act: called with the chosen values after every change.
    """

    _esm = "".join((_HERE / name).read_text(encoding="utf-8") for name in ("element.js", "knobs.js"))
    _css = _HERE / "knobs.css"
    knobs = t.List().tag(sync=True)
    values = t.Dict().tag(sync=True)  # of a list of choices: the index

    def __init__(self, controls: Mapping[str, Any], act: Callable[[dict[str, Any]], None]) -> None:
        self._choices = {name: list(control.choices) for name, control in controls.items() if control.choices}
        start = {name: control.start for name, control in controls.items()}
        start |= {name: choices.index(start[name]) for name, choices in self._choices.items()}
        knobs = [{"name": name, "label": control.label, **_knob(control)} for name, control in controls.items()]
        super().__init__(knobs=knobs, values=start)
        self.observe(lambda _: act(self.chosen()), names="values")

    def chosen(self) -> dict[str, Any]:
        return self.values | {name: choices[self.values[name]] for name, choices in self._choices.items()}


def _knob(control: Any) -> dict[str, Any]:
    if control.choices:
        return {"kind": "choice", "choices": [str(choice) for choice in control.choices]}
    if isinstance(control.start, bool):
        return {"kind": "box"}
    whole = all(isinstance(number, int) for number in (control.start, control.low, control.high, control.step or 1))
    step = control.step or (1 if whole else (control.high - control.low) / 20)
    return {"kind": "range", "step": step, "low": control.low, "high": control.high}


class Scatter(anywidget.AnyWidget):
    """Points of `pairs` (`statistics.paired`): x the baseline's Dice, y the other's. `picked` is a row, -1 is none."""

    _esm = _HERE / "scatter.js"
    _css = _HERE / "scatter.css"
    points = t.List().tag(sync=True)
    axes = t.List(t.Unicode()).tag(sync=True)
    title = t.Unicode().tag(sync=True)
    picked = t.Int(-1).tag(sync=True)

    def update(self, pairs: pd.DataFrame) -> None:
        """Show other points; one is picked by mouse or keys."""
        self.pairs, self.picked = pairs, -1
        with self.hold_sync():
            self.points = [
                {"x": row["dice_baseline"], "y": row["dice"], "case": row["case"], "caption": headline(row)}
                for row in pairs.to_dict("records")
            ]
            for init in pairs["init"].head(1):
                self.axes = ["Dice, random", f"Dice, {init}"]
                self.title = f"Dice of every test case, random against {init}"


def headline(row: Mapping[str, Any]) -> str:
    """One sentence about one test case in one pair of runs."""
    return (
        f"Case {row['case']}, {row['num_labeled']} labels, label subset {row['subset']}, seed {row['seed']}: "
        f"Dice {row['dice_baseline']:.3f} from scratch, {row['dice']:.3f} with {row['init']}."
    )
