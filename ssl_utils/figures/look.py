"""The look that all figures share: size, palette, axes, legends, the colour of each init, and the alternative text."""

from base64 import b64encode
from collections.abc import Sequence
from html import escape
from io import BytesIO
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ssl_utils.errors import CourseError
from ssl_utils.experiments.naming import base
from ssl_utils.live import live

# Okabe & Ito (2008), readable with every common colour blindness; black is for text and for "random"
PALETTE = ("#E69F00", "#56B4E9", "#009E73", "#F0E442", "#D55E00", "#CC79A7", "#0072B2")
LINES = [PALETTE[i] for i in (6, 0, 2, 4, 5, 1)]  # yellow does not show on white
GREY, GRID, DASHES = "#444444", {"color": "#dddddd", "linewidth": 0.8}, ("--", ":", "-.")
_INITS = ("random", "restoration", "simmim", "mae", "genesis", "pcrlv2")
_INITS += ("patch_clusters", "voxel_clusters", "inflation")
_INIT_COLOURS = (GREY, "#E69F00", "#0072B2", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#999933", "#882255")
_MARKERS = "osD^vP*Xh"


class Picture(Figure):
    """A Figure that a notebook can show even where no matplotlib backend was chosen.

    JupyterLab draws image/png without an alternative text: there, for a person, it is an <img> with one.
    """

    kept: bytes | None = None  # the file that a chapter has saved: drawing it again takes a third of a second

    def _repr_png_(self) -> bytes:
        if self.kept:
            return self.kept
        stream = BytesIO()
        self.savefig(stream, format="png", bbox_inches="tight")
        return stream.getvalue()

    def _repr_mimebundle_(self, **_: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        png, words = b64encode(self._repr_png_()).decode(), self.words()
        if not live():
            return {"image/png": png}, {"image/png": {"alt": words}}  # for the site, and for nbconvert
        return {"text/html": f'<img alt="{escape(words)}" src="data:image/png;base64,{png}">'}, {}

    def words(self) -> str:
        """The words on the picture: titles, sides, axes and legends; no single letters and no numbers."""
        texts = [text.get_text() for text in self.texts]
        for axes in self.axes:
            texts += [axes.get_title(), axes.get_ylabel(), axes.get_xlabel()]
        for legend in filter(None, [*self.legends, *(axes.get_legend() for axes in self.axes)]):
            texts += [text.get_text() for text in legend.get_texts()]
        texts = [" ".join(text.split()) for text in texts if len(text.strip()) > 1]
        return "Picture: " + "; ".join(dict.fromkeys(texts)) if texts else "Picture without words"


def sheet(
    width: float = 8.0, height: float = 4.0, rows: int = 1, columns: int = 1, *, grid: str = "y", **more: Any
) -> tuple[Picture, Any]:
    """A white Picture of this size in inches, and its axes as `Figure.subplots` gives them, with faint grid lines."""
    figure = Picture(figsize=(width, height), dpi=110, facecolor="white", layout="constrained")
    panels = figure.subplots(rows, columns, **more)
    for axes in np.ravel(panels):
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis=grid, **GRID)
        axes.set_axisbelow(True)
    return figure, panels


def legend(figure: Figure, *handles: Any, **more: Any) -> None:
    """The legend of the whole figure, right of its axes. `handles`: nothing, or as `Figure.legend` takes them."""
    style = {"loc": "outside right upper", "frameon": False, "fontsize": 9, "title_fontsize": 8, "alignment": "left"}
    figure.legend(*handles, **style | more)


def need(table: pd.DataFrame, *columns: str, source: str = "one row per point") -> None:
    """Raises CourseError when the table lacks a column, or has no row."""
    missing = [name for name in columns if name not in table]
    if missing or table.empty:
        error = f"no column {', '.join(missing)}" if missing else "no rows"
        raise CourseError(f"table with columns {list(table)}: {error}; pass {source} with {', '.join(columns)}")


def init_styles(inits: Sequence[str]) -> dict[str, dict[str, str]]:
    """Colour, marker and line of each init, in course order: the same in every figure.

    An init with options (`random__budget=4`) has the colour of the one it varies, and a broken line.
    """
    inits = list(dict.fromkeys(inits))
    known = [init for init in _INITS if init in inits] + [init for init in inits if init not in _INITS]
    styles, varied = {}, 0
    for i, init in enumerate(known):
        plain = base(init)
        at, varied = _INITS.index(plain) if plain in _INITS else -1 - i, varied + (plain != init)
        styles[init] = {"color": _INIT_COLOURS[at % 9], "marker": _MARKERS[at % 9]}
        if plain != init:
            styles[init] |= {"marker": _MARKERS[(at + varied) % 9], "linestyle": DASHES[varied % 3]}
    return styles


def error_bars(axes: Axes, at: Sequence[float], middle: Any, low: Any, high: Any, **style: Any) -> None:
    """A line through `middle` with bars from `low` to `high`; where these are NaN there is no bar."""
    ends = np.nan_to_num(np.abs([middle - low, high - middle]).astype(float))
    axes.errorbar(at, middle, yerr=ends, **style)
