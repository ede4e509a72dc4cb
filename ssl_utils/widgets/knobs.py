"""The knobs of a playground.

Only where somebody is there: this module imports anywidget, so it is imported when a notebook is live.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import anywidget
import traitlets as t

_HERE = Path(__file__).parent


class Knobs(anywidget.AnyWidget):
    """One labelled input per control; `chosen` says what they stand at.

    Args:
        controls: name -> an object with label, start, choices, low, high, step (`playground.Control`).
        act: called with what is chosen, whenever a person has changed something.
    """

    _esm = "".join((_HERE / name).read_text(encoding="utf-8") for name in ("element.js", "knobs.js"))
    _css = _HERE / "knobs.css"
    knobs = t.List().tag(sync=True)
    values = t.Dict().tag(sync=True)  # of a list of choices: which one

    def __init__(self, controls: Mapping[str, Any], act: Callable[[dict[str, Any]], None]) -> None:
        self._choices = {name: list(control.choices) for name, control in controls.items() if control.choices}
        start = {name: control.start for name, control in controls.items()}
        super().__init__(
            knobs=[_knob(name, control) for name, control in controls.items()],
            values={n: self._choices[n].index(v) if n in self._choices else v for n, v in start.items()},
        )
        self.observe(lambda _: act(self.chosen()), names="values")

    def chosen(self) -> dict[str, Any]:
        found = dict(self.values)
        return found | {name: choices[found[name]] for name, choices in self._choices.items()}


def _knob(name: str, control: Any) -> dict[str, Any]:
    if control.choices:
        return {"name": name, "label": control.label, "kind": "choice", "choices": [str(c) for c in control.choices]}
    if isinstance(control.start, bool):
        return {"name": name, "label": control.label, "kind": "box"}
    whole = all(isinstance(number, int) for number in (control.start, control.low, control.high, control.step or 1))
    step = control.step or (1 if whole else (control.high - control.low) / 20)
    ends = {"low": control.low, "high": control.high}
    return {"name": name, "label": control.label, "kind": "range", "step": step, **ends}
