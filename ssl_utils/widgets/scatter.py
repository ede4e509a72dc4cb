"""A scatter of test cases to pick one from, by mouse or keys (scatter.js). Imports anywidget: only where it is live."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import anywidget
import pandas as pd
import traitlets as t

_HERE = Path(__file__).parent


class Scatter(anywidget.AnyWidget):
    """Points of `pairs` (`statistics.paired`): x the baseline's Dice, y the other's. `picked` is a row, -1 is none."""

    _esm = _HERE / "scatter.js"
    _css = _HERE / "scatter.css"
    points = t.List().tag(sync=True)
    axes = t.List(t.Unicode()).tag(sync=True)
    title = t.Unicode().tag(sync=True)
    picked = t.Int(-1).tag(sync=True)

    def update(self, pairs: pd.DataFrame) -> None:
        """Show other points."""
        init = pairs["init"].iloc[0]
        with self.hold_sync():
            self.axes = ["Dice, random start", f"Dice, {init}"]
            self.title = f"Dice of every test case, random start against {init}"
            self.points = [
                {"x": row["dice_baseline"], "y": row["dice"], "case": row["case"], "says": headline(row)}
                for row in pairs.to_dict("records")
            ]


def headline(row: Mapping[str, Any]) -> str:
    """One sentence about one test case in one pair of runs."""
    return (
        f"Case {row['case']}, {row['num_labeled']} labels, draw {row['draw']}, seed {row['seed']}: "
        f"Dice {row['dice_baseline']:.3f} with a random start, {row['dice']:.3f} with {row['init']}."
    )
