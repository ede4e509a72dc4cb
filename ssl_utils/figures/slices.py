"""Slices of volumes: montages, corruptions, masks, reconstructions, predictions beside the truth, tokens."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import repeat
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from ssl_utils.errors import CourseError
from ssl_utils.figures import panels
from ssl_utils.figures.look import PALETTE
from ssl_utils.figures.panels import PLANES, Panel, Window, busiest, choose_window, compose, cut, named, volume

Spacing = Sequence[float]
_WRONG = "#FF00FF"  # no structure has this colour


def montage(image: Any, label: Any = None, **look: Any) -> Figure:
    """Axial, coronal and sagittal slice of a volume on one millimetre scale.

    Args:
        image, label: (D, H, W), or (1, D, H, W); label values 0 (background) to 255.
        look: centre, spacing, names, window and title, as of `still`.

    Raises:
        CourseError: not one volume, shapes differ, unknown window.
    """
    return still({"": (image, label)}, **look)


def still(
    volumes: Mapping[str, tuple[Any, Any]],
    *,
    centre: Sequence[int] | None = None,
    spacing: Spacing = (1, 1, 1),
    names: Mapping[int, str] | None = None,
    window: Window = None,
    title: str = "",
) -> Figure:
    """Three planes of each volume, a row `name -> (image, label or None)` each, through one point and in one window.

    Args:
        centre: voxel (x, y, z) the planes pass through; None: the busiest of the first label, or the middle.
        spacing: mm per voxel, (x, y, z).
        names: label value -> name, for the legend.
        window: (low, high), a name in WINDOWS (CT), or None for percentiles of the first image.
    """
    pairs = [(volume(image), None if label is None else volume(label)) for image, label in volumes.values()]
    shape, labels = pairs[0][0].shape, [label for _, label in pairs if label is not None]
    centre = busiest(labels[0] if labels else np.zeros(shape)) if centre is None else centre
    limits, grid = choose_window(pairs[0][0], window), []
    for image, label in pairs:
        row = []
        for name, axis in PLANES.items():
            a, b = [i for i in range(3) if i != axis]  # the axes that run to the left and up in the picture
            cross = ((shape[a] - centre[a] - 0.5) * spacing[a], (centre[b] + 0.5) * spacing[b])
            head = "" if grid else f"{name}, {'xyz'[axis]} = {centre[axis]}"
            more = {"label": label, "title": head, "cross": cross if len(pairs) == 1 else None}
            row.append(cut(image, axis, centre[axis], spacing, limits, **more))
        grid.append(row)
    sides = list(volumes) if len(pairs) > 1 else ()
    return compose(grid, sides=sides, title=title, names=named(labels, names))[0]


def rows(
    images: Mapping[str, Sequence[Any]] | Sequence[tuple[str, Any]],
    *,
    titles: Sequence[str] = (),
    plane: str = "axial",
    spacing: Spacing = (1, 1, 1),
    window: Window = None,
    title: str = "",
) -> Figure:
    """The middle slice of every volume: a mapping row name -> volumes under `titles`, or one row of (title, volume).

    Every volume is drawn in its own percentiles unless `window` gives one for all.
    """
    if not isinstance(images, Mapping):
        titles, images = [name for name, _ in images], {"": [array for _, array in images]}
    axis, grid = PLANES[plane], []
    for arrays in images.values():
        heads = titles if titles and not grid else repeat("", len(arrays))
        row = [_middle(array, axis, spacing, window, title=head) for array, head in zip(arrays, heads, strict=True)]
        grid.append(row)
    return compose(grid, sides=list(images), title=title)[0]


def _middle(array: Any, axis: int, spacing: Spacing, window: Window, **more: Any) -> Panel:
    array = volume(array)
    return cut(array, axis, array.shape[axis] // 2, spacing, choose_window(array, window), **more)


def plane_rows(
    image: np.ndarray,
    columns: Mapping[str, Mapping[str, Any]],
    *,
    centre: Sequence[int] | None = None,
    spacing: Spacing = (1, 1, 1),
    title: str = "",
) -> Figure:
    """An axial and a coronal row, in the window of `image`; `columns` maps a title to what is drawn there.

    Args:
        columns: title -> `array`, a volume in place of the image, or `hidden`, a mask over it, or nothing.
        centre: voxel (x, y, z) the planes pass through; None takes the middle.
    """
    centre = [n // 2 for n in image.shape] if centre is None else centre
    limits, grid = choose_window(image), []
    for name in ("axial", "coronal"):
        axis, row = PLANES[name], []
        for head, more in columns.items():
            drawn = {"array": image, "title": "" if grid else head} | more
            row.append(cut(axis=axis, index=centre[axis], spacing=spacing, window=limits, **drawn))
        grid.append(row)
    return compose(grid, sides=["axial", "coronal"], title=title)[0]


def corruption_rows(clean: Any, views: Mapping[str, Any], **look: Any) -> Figure:
    """The clean volume and its corrupted views, a row per plane. `look`: as `plane_rows` takes it."""
    columns = {"clean": {}} | {name: {"array": array} for name, array in views.items()}
    return plane_rows(volume(clean), columns, **look)


def mask_rows(image: Any, masks: Mapping[str, Any], **look: Any) -> Figure:
    """The volume under each mask (True = hidden, painted blue), a row per plane. `look`: as `plane_rows` takes it.

    A mask has the volume's shape, or the shape of a token grid that divides it.
    """
    image, columns = volume(image), {"image": {}}
    for name, mask in masks.items():
        mask = volume(mask).astype(bool)
        if any(np.mod(image.shape, mask.shape)):
            raise CourseError(f"mask {name!r} {mask.shape}: does not divide the volume {image.shape}; check the grid")
        mask = np.kron(mask, np.ones(np.floor_divide(image.shape, mask.shape), bool))
        columns[f"{name} ({mask.mean():.0%} hidden)"] = {"hidden": mask}
    return plane_rows(image, columns, **look)


def reconstruction_rows(cases: Sequence[Mapping[str, Any]], *, spacing: Spacing = (1, 1, 1), title: str = "") -> Figure:
    """A row per case, its middle axial slice: original, network input, reconstruction, and absolute error.

    Args:
        cases: mappings with `original`, `reconstruction` (D, H, W), and `corrupted` or `mask` (True = hidden) or both.
            Without `corrupted` the input is the original with the mask painted over it; with `mask` the error is
            averaged over the hidden voxels. Optionally `name`.
    """
    grid, sides, largest = [], [], 0.0
    for case in cases:
        original, mask = volume(case["original"]).astype(np.float32), case.get("mask")
        error = np.abs(volume(case["reconstruction"]) - original)
        mean = error[volume(mask).astype(bool)].mean() if mask is not None else error.mean()
        masked = {} if "corrupted" in case else {"hidden": mask}
        arrays = (original, case.get("corrupted", original), case["reconstruction"], error)
        limits, more = choose_window(original), ({}, masked, {}, {"cmap": "magma"})
        row = [_middle(array, 2, spacing, limits, **own) for array, own in zip(arrays, more, strict=True)]
        largest = max(largest, float(np.percentile(row[3].picture, 99.5)))
        grid.append(row)
        sides.append("\n".join(filter(None, [str(case.get("name", "")), f"L1 {mean:.3f}"])))
    for row in grid:
        row[3].window = (0.0, largest or 1.0)
    for panel, text in zip(grid[0], ("original", "input", "reconstruction", "absolute error"), strict=True):
        panel.title = text
    figure, axes = compose(grid, sides=sides, title=title, right=0.75)
    box = axes[0][-1].get_position()
    bar = figure.add_axes((box.x1 + 0.1 / figure.get_figwidth(), box.y0, 0.12 / figure.get_figwidth(), box.height))
    figure.colorbar(axes[0][-1].images[0], cax=bar).ax.tick_params(labelsize=8)
    return figure


def qualitative(
    cases: Sequence[Mapping[str, Any]],
    *,
    names: Mapping[int, str] | None = None,
    window: Window = None,
    title: str = "",
) -> Figure:
    """Best, median and worst case by Dice, axial: label and prediction above, image and wrong voxels below.

    Args:
        cases: mappings with `image`, `label`, `prediction` (D, H, W), `dice`, `id`, and optionally `spacing`.
    """
    ranked = sorted(cases, key=lambda case: -case["dice"])
    if not ranked:
        raise CourseError("qualitative: no case to show; evaluate at least one test case first")
    chosen = {"best": ranked[0], "median": ranked[len(ranked) // 2], "worst": ranked[-1]}
    above, below, labels = [], [], []
    for rank, case in list(chosen.items())[: len(ranked)]:
        image, label, prediction = (volume(case[key]) for key in ("image", "label", "prediction"))
        setup = 2, busiest(label)[2], case.get("spacing", (1, 1, 1)), choose_window(image, window)
        above.append(cut(image, *setup, title=f"{rank}: {case['id']}", note="label", label=label))
        above.append(cut(image, *setup, title=f"Dice {case['dice']:.3f}", note="prediction", label=prediction))
        below.append(cut(image, *setup, note="image"))
        below.append(cut(image, *setup, note="wrong", hidden=label != prediction, paint=_WRONG))
        labels += [label, prediction]
    return compose([above, below], title=title, names=named(labels, names), block=2, letters=False)[0]


def tokens(
    image: Any, patch_size: int | Sequence[int], *, plane: str = "axial", spacing: Spacing = (1, 1, 1)
) -> Figure:
    """A slice with its patch grid, and the same patches pulled apart and numbered as the encoder numbers its tokens.

    The volume is cut to whole patches. Token (i, j, k) of a (d, h, w) grid has the number (i * h + j) * w + k.
    """
    image, axis = volume(image), PLANES[plane]
    patch = (patch_size,) * 3 if isinstance(patch_size, int) else tuple(patch_size)
    grid = tuple(n // p for n, p in zip(image.shape, patch, strict=True))
    if 0 in grid:
        raise CourseError(f"patch_size={patch_size}: larger than the volume {image.shape}; choose a smaller patch")
    image = image[tuple(slice(n * p) for n, p in zip(grid, patch, strict=True))]
    panel = _middle(image, axis, spacing, None, title=f"{plane} slice and patch grid")
    number = panels.plane(np.arange(np.prod(grid)).reshape(grid), axis, grid[axis] // 2)  # (rows, columns) of patches
    down, across = number.shape
    apart = panel.picture
    tall, wide = apart.shape[0] // down, apart.shape[1] // across  # voxels of a patch
    gaps = max(1, tall // 6), max(1, wide // 6)
    for i, (length, gap) in enumerate(zip((tall, wide), gaps, strict=True)):
        between = np.repeat(np.arange(length, apart.shape[i], length), gap)
        apart = np.insert(apart, between, np.nan, axis=i)
    size = tuple(mm * n / m for mm, n, m in zip(panel.size, apart.shape[::-1], panel.picture.shape[::-1], strict=True))
    pieces = replace(panel, picture=apart, size=size, title="its patches, one token each")
    count = f"{' x '.join(map(str, grid))} = {np.prod(grid)} tokens of {' x '.join(map(str, patch))} voxels"
    figure, ((left, right),) = compose([[panel, pieces]], title=count, letters=False)
    for r in range(down + 1):
        left.axhline(r * panel.size[1] / down, color=PALETTE[1], linewidth=1)
    for c in range(across + 1):
        left.axvline(c * panel.size[0] / across, color=PALETTE[1], linewidth=1)
    if max(number.shape) <= 12:
        for (r, c), n in np.ndenumerate(number):
            x = (c * (wide + gaps[1]) + wide / 2) / apart.shape[1]
            y = 1 - (r * (tall + gaps[0]) + tall / 2) / apart.shape[0]
            panels.write(right, x, y, n, transform=right.transAxes, ha="center", va="center")
    return figure
