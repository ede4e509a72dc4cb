"""Slices of volumes laid out on one millimetre scale: what the figures of volumes and the viewers are made of.

Arrays are (D, H, W) = x to Right, y to Anterior, z to Superior. Slices are shown as radiologists do: the
patient's right is on the left of the picture, anterior and superior up.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from textwrap import fill
from typing import Any

import matplotlib.patheffects as effects
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.patches import Patch

from ssl_utils.errors import CourseError
from ssl_utils.figures.look import GREY, PALETTE, Picture

PLANES = {"axial": 2, "coronal": 1, "sagittal": 0}  # the axis a plane is cut across
WINDOWS = {"soft tissue": (-160.0, 240.0), "lung": (-1350.0, 150.0), "bone": (-450.0, 1050.0)}  # HU
_LETTERS = {0: "APSI", 1: "RLSI", 2: "RLAP"}  # at the left, right, top and bottom edge of a picture
_EDGES = ((0.02, 0.5, "left", "center"), (0.98, 0.5, "right", "center"))  # of these letters
_EDGES += ((0.5, 0.98, "center", "top"), (0.5, 0.02, "center", "bottom"))
_WIDTH, _HEIGHT, _NARROWEST = 12.0, 5.0, 1.25  # inches
Window = tuple[float, float] | str | None


@dataclass
class Panel:
    """One slice, ready to draw: `picture` in display order (rows, columns), `size` its (width, height) in mm."""

    picture: np.ndarray
    axis: int
    size: tuple[float, float]
    window: tuple[float, float]
    title: str = ""  # above the picture
    note: str = ""  # in its upper left corner
    cmap: str = "gray"
    label: np.ndarray | None = None
    hidden: np.ndarray | None = None  # these voxels are covered with `paint`
    paint: str = "#0072B2"
    cross: tuple[float, float] | None = None  # position of the other planes, in mm from the left and the bottom


def colour(value: int) -> tuple[float, float, float]:
    """RGB 0..1 of a label value: the palette for 1..7, its light tints for 8..14, then again."""
    rgb = np.array(to_rgb(PALETTE[(value - 1) % 7]))
    return tuple(rgb if (value - 1) // 7 % 2 == 0 else 0.45 * rgb + 0.55)


def volume(array: Any) -> np.ndarray:
    """The (D, H, W) array; a leading channel axis of length 1 is dropped.

    Raises:
        CourseError: not a single three-dimensional volume.
    """
    array = np.asarray(array)
    if array.ndim == 4 and array.shape[0] == 1:
        array = array[0]
    if array.ndim != 3 or 0 in array.shape:
        raise CourseError(f"array of shape {array.shape}: not one volume (D, H, W); choose a channel, such as image[0]")
    return array


def plane(array: np.ndarray, axis: int, index: int) -> np.ndarray:
    """The slice `index` across `axis` in display order: (D, H, W) -> (rows, columns)."""
    return np.take(array, index, axis=axis).T[::-1, ::-1]


def choose_window(image: np.ndarray, window: Window = None) -> tuple[float, float]:
    """(low, high) drawn as black and white: a pair, a name in WINDOWS, or None for the 0.5 and 99.5 percentiles."""
    if isinstance(window, str):
        if window not in WINDOWS:
            raise CourseError(f"window={window!r}: no such window; choose one of {', '.join(WINDOWS)}, or (low, high)")
        return WINDOWS[window]
    if window is None:
        sample = np.asarray(image[tuple(slice(None, None, max(1, n // 96)) for n in image.shape)], np.float64)
        sample = sample[np.isfinite(sample)]
        window = tuple(np.percentile(sample, (0.5, 99.5))) if sample.size else (0.0, 1.0)
    low, high = float(window[0]), float(window[1])
    return (low, high) if high > low else (low, low + 1.0)


def busiest(label: np.ndarray) -> tuple[int, int, int]:
    """For each axis, the slice with the largest share of all classes together; the middle without a label."""
    classes = [label == value for value in np.unique(label) if value > 0]
    if not classes:
        return tuple(n // 2 for n in label.shape)
    others = ((1, 2), (0, 2), (0, 1))
    return tuple(int(np.argmax(sum(c.sum(axis=o) / c.sum() for c in classes))) for o in others)


def cut(array: Any, axis: int, index: int, spacing: Sequence[float], window: tuple[float, float], **more: Any) -> Panel:
    """A Panel of one slice; `label` and `hidden` in `more` are volumes and are cut alike."""
    array = volume(array)
    across, up = [n * s for i, (n, s) in enumerate(zip(array.shape, spacing, strict=True)) if i != axis]
    for key in ("label", "hidden"):
        if more.get(key) is not None:
            if volume(more[key]).shape != array.shape:
                raise CourseError(f"{key} {volume(more[key]).shape} and image {array.shape} differ in shape")
            more[key] = plane(volume(more[key]), axis, index)
    return Panel(plane(array, axis, index).astype(np.float32), axis, (across, up), window, **more)


def overlay(label: np.ndarray, opacity: float) -> np.ndarray:
    """RGBA picture (rows, columns, 4) of a label slice, clear where it is 0."""
    table = np.zeros((256, 4))
    table[1:] = [(*colour(value), opacity) for value in range(1, 256)]
    return table[label.astype(np.uint8)]


def write(axes: Axes, x: float, y: float, text: Any, **more: Any) -> None:
    """White text with a black outline, which can be read on any picture."""
    outline = [effects.withStroke(linewidth=1.8, foreground="black")]
    axes.text(x, y, text, **{"color": "white", "fontsize": 8, "path_effects": outline} | more)


def draw(panel: Panel, axes: Axes, *, letters: bool = True) -> None:
    """Draw one slice into axes whose unit is the millimetre."""
    width, height = panel.size
    extent = {"extent": (0, width, 0, height), "origin": "upper"}
    axes.imshow(panel.picture, cmap=panel.cmap, vmin=panel.window[0], vmax=panel.window[1], **extent)
    if panel.hidden is not None:
        paint = np.where(panel.hidden[..., None], (*to_rgb(panel.paint), 1.0), 0.0)
        axes.imshow(paint, interpolation="nearest", **extent)
    if panel.label is not None:
        axes.imshow(overlay(panel.label, 0.35), interpolation="nearest", **extent)
        for value in np.unique(panel.label[panel.label > 0]):
            mask = panel.label == value
            if not mask.all():
                axes.contour(mask.astype(float), levels=[0.5], colors=[colour(int(value))], linewidths=1.1, **extent)
    if panel.cross is not None:
        x, y = panel.cross  # just outside the picture; markers 0, 1 and 3 are ticks to the left, right and down
        for at, marker in (((0, y), 0), ((width, y), 1), ((x, 0), 3)):
            axes.plot(*at, marker=marker, markersize=5, color="#D55E00", markeredgewidth=1.6, clip_on=False)
    for letter, (x, y, ha, va) in zip(_LETTERS[panel.axis] if letters else "", _EDGES, strict=letters):
        write(axes, x, y, letter, transform=axes.transAxes, ha=ha, va=va, fontsize=9, fontweight="bold")
    write(axes, 0.03, 0.98, panel.note, transform=axes.transAxes, va="top")
    axes.set(xlim=(0, width), ylim=(0, height), xticks=[], yticks=[])
    axes.spines[:].set_visible(False)


def scale_bar(axes: Axes) -> None:
    """A bar of a round length, at most four tenths of the picture's width in mm, in its lower right corner."""
    width = axes.get_xlim()[1]
    length = max((n for n in (1, 2, 5, 10, 20, 50, 100, 200) if n <= 0.4 * width), default=width)
    ends = [0.96 * width - length, 0.96 * width]
    for thick, shade in ((4.0, "black"), (2.2, "white")):
        axes.plot(ends, [0.04 * width] * 2, linewidth=thick, color=shade, solid_capstyle="butt")
    write(axes, ends[1], 0.06 * width, f"{length:g} mm", ha="right", va="bottom")


def named(labels: Iterable[np.ndarray], names: Mapping[int, str] | None) -> dict[int, str]:
    """Value -> name of every label value in these arrays, but 0; `label 3` where it has no name."""
    values = sorted({int(value) for label in labels for value in np.unique(label) if value > 0})
    return {value: (names or {}).get(value, f"label {value}") for value in values}


def compose(
    grid: Sequence[Sequence[Panel]],
    *,
    sides: Sequence[str] = (),
    title: str = "",
    right: float = 0.1,
    names: Mapping[int, str] | None = None,
    block: int = 99,
    letters: bool = True,
) -> tuple[Picture, list[list[Axes]]]:
    """Lay panels out on one millimetre scale, titles above, `sides` before the rows, `right` inches free.

    There is a wider gap after every `block` columns; `names` of label values are a legend on the right. With `letters`
    the edges are named, and the first panel has a scale bar.
    """
    right = 0.55 + 0.075 * max(map(len, names.values())) if names else right
    wide = [max(panel.size[0] for panel in column if panel) for column in zip_longest(*grid)]
    high = [max(panel.size[1] for panel in row) for row in grid]
    heads = [0.3 if any(panel.title for panel in row) else 0.0 for row in grid]
    left, top, gap = (1.15 if any(sides) else 0.1), (0.3 if title else 0.05), 0.1
    between = [0.0 if c == 0 else 0.35 if c % block == 0 else gap for c in range(len(wide))]  # before each column
    room = max(_HEIGHT, 1.9 * len(grid)) - top - sum(heads) - gap * (len(grid) + 1)
    inch = min((_WIDTH - left - right - sum(between)) / sum(wide), room / sum(high), 3.4 / max(high))
    columns_in = [max(w * inch, _NARROWEST) for w in wide]
    width = left + sum(columns_in) + sum(between) + right
    height = top + sum(heads) + sum(high) * inch + gap * len(grid)
    figure, axes_of, y = Picture(figsize=(width, height), dpi=110, facecolor="white"), [], height - top
    if title:
        figure.text(left / width, 1 - 0.08 / height, title, ha="left", va="top", fontsize=11, fontweight="bold")
    for row, side, head, tall in zip(grid, [*sides] or [""] * len(grid), heads, high, strict=True):
        y, x = y - head, left
        figure.text((left - 0.12) / width, (y - tall * inch / 2) / height, side, ha="right", va="center", fontsize=9)
        axes_of.append([])
        for panel, column, before in zip(row, columns_in, between, strict=False):
            w, h = panel.size[0] * inch, panel.size[1] * inch
            box = (x + before + (column - w) / 2, y - h, w, h)
            axes = figure.add_axes(tuple(np.divide(box, (width, height, width, height))))
            draw(panel, axes, letters=letters)
            axes.set_title(fill(panel.title, max(10, int(column * 13))), fontsize=9, pad=4)
            axes_of[-1].append(axes)
            x += before + column
        y -= tall * inch + gap
    if letters:
        scale_bar(axes_of[0][0])
    if names:
        handles = [Patch(facecolor=colour(value), edgecolor=GREY, label=name) for value, name in names.items()]
        spot = {"loc": "center left", "bbox_to_anchor": (1 - (right - 0.05) / width, 0.5), "borderaxespad": 0}
        figure.legend(handles=handles, frameon=False, fontsize=9, handlelength=1.2, **spot)
    return figure, axes_of
