"""The picture that stands before a widget: three planes of each volume, one row each."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from ssl_utils.figures.panels import PLANES, busiest, choose_window, compose, cut, legend, scale_bar, volume
from ssl_utils.figures.slices import montage


def still(
    shown: Mapping[str, tuple[Any, Any]],
    *,
    spacing: Sequence[float] = (1, 1, 1),
    names: Mapping[int, str] | None = None,
    window: tuple[float, float] | str | None = None,
    centre: Sequence[int] | None = None,
    title: str = "",
) -> Figure:
    """Rows `name -> (image, label or None)` through one point and in one window; a single row is the montage.

    Without `centre` the point is the busiest of the first label there is; the window is that of the first image.
    """
    shown = {side: (volume(image), None if label is None else volume(label)) for side, (image, label) in shown.items()}
    images, labels = zip(*shown.values(), strict=True)
    labels = [label for label in labels if label is not None]
    centre = busiest(labels[0] if labels else np.zeros(images[0].shape)) if centre is None else centre
    if len(shown) == 1:
        label = labels[0] if labels else None
        return montage(images[0], label, centre=centre, spacing=spacing, names=names, window=window, title=title)
    limits, grid = choose_window(images[0], window), []
    for image, label in shown.values():
        heads = {axis: "" if grid else f"{name}, {'xyz'[axis]} = {centre[axis]}" for name, axis in PLANES.items()}
        grid.append([cut(image, axis, centre[axis], spacing, limits, label=label, title=heads[axis]) for axis in heads])
    values = sorted({int(value) for label in labels for value in np.unique(label)} - {0})
    named = {value: (names or {}).get(value, f"label {value}") for value in values}
    right = 0.55 + 0.075 * max(map(len, named.values())) if named else 0.1
    figure, axes = compose(grid, sides=list(shown), title=title, right=right)
    scale_bar(axes[0][0], grid[0][0].size[0])
    if named:
        legend(figure, named, right=right)
    return figure
