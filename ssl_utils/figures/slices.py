"""Slices of volumes: montages, corruptions, masks, reconstructions, predictions beside the truth, tokens."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from ssl_utils.errors import CourseError
from ssl_utils.figures.panels import (
    OUTLINE,
    PALETTE,
    PLANES,
    busiest,
    choose_window,
    compose,
    cut,
    legend,
    scale_bar,
    volume,
)

Spacing = Sequence[float]
Window = tuple[float, float] | str | None
_WRONG = "#FF00FF"  # no structure has this colour


def montage(
    image: Any,
    label: Any = None,
    *,
    centre: Sequence[int] | None = None,
    spacing: Sequence[float] = (1, 1, 1),
    names: Mapping[int, str] | None = None,
    title: str = "",
    window: tuple[float, float] | str | None = None,
) -> Figure:
    """Axial, coronal and sagittal slice of a volume on one millimetre scale.

    Args:
        image, label: (D, H, W), or (1, D, H, W); label values 0 (background) to 255.
        centre: voxel (x, y, z) the planes pass through; None takes the busiest slices of the label, or the middle.
        spacing: mm per voxel, (x, y, z).
        names: label value -> name, for the legend.
        window: (low, high), a name in WINDOWS (CT), or None for percentiles.

    Raises:
        CourseError: not one volume, shapes differ, unknown window.
    """
    image, label = volume(image), None if label is None else volume(label)
    centre = busiest(np.zeros(image.shape) if label is None else label) if centre is None else centre
    limits, panels = choose_window(image, window), []
    for name, axis in PLANES.items():
        a, b = [i for i in range(3) if i != axis]  # the axes that run to the left and up in the picture
        cross = ((image.shape[a] - centre[a] - 0.5) * spacing[a], (centre[b] + 0.5) * spacing[b])
        panels.append(
            cut(
                image,
                axis,
                centre[axis],
                spacing,
                limits,
                title=f"{name}, {'xyz'[axis]} = {centre[axis]}",
                label=label,
                cross=cross,
            )
        )
    shown = {} if label is None else {v: (names or {}).get(v, f"label {v}") for v in np.unique(label).tolist() if v > 0}
    right = 0.55 + 0.075 * max(map(len, shown.values())) if shown else 0.1
    figure, axes = compose([panels], title=title, right=right)
    scale_bar(axes[0][0], panels[0].size[0])
    if shown:
        legend(figure, shown, right=right)
    return figure


def rows(
    images: Mapping[str, Sequence[Any]] | Sequence[tuple[str, Any]],
    *,
    titles: Sequence[str] = (),
    plane: str = "axial",
    index: int | None = None,
    spacing: Spacing = (1, 1, 1),
    window: Window = None,
    title: str = "",
) -> Figure:
    """One slice of every volume: a mapping row name -> volumes under `titles`, or one row of (title, volume) pairs.

    Every volume is drawn in its own percentiles unless `window` gives one for all.
    """
    if not isinstance(images, Mapping):
        titles, images = [name for name, _ in images], {"": [array for _, array in images]}
    axis, grid = PLANES[plane], []
    for r, arrays in enumerate(images.values()):
        arrays = [volume(array) for array in arrays]
        names = [*titles, *[""] * len(arrays)] if r == 0 else [""] * len(arrays)
        at = [array.shape[axis] // 2 if index is None else index for array in arrays]
        grid.append(
            [
                cut(a, axis, i, spacing, choose_window(a, window), title=n)
                for a, i, n in zip(arrays, at, names, strict=False)
            ]
        )
    figure, axes = compose(grid, sides=list(images), title=title)
    scale_bar(axes[0][0], grid[0][0].size[0])
    return figure


def _planes(
    image: np.ndarray,
    columns: Mapping[str, Mapping[str, Any]],
    planes: Sequence[str],
    spacing: Spacing,
    window: Window,
    centre: Sequence[int] | None,
    title: str,
) -> Figure:
    """A row per plane; `columns` maps a title to what `cut` draws there (`array`, or a mask over the image)."""
    centre, limits = busiest(np.zeros(image.shape)) if centre is None else centre, choose_window(image, window)
    grid = [
        [
            cut(
                more.get("array", image),
                PLANES[name],
                centre[PLANES[name]],
                spacing,
                limits,
                title=text if r == 0 else "",
                hidden=more.get("hidden"),
            )
            for text, more in columns.items()
        ]
        for r, name in enumerate(planes)
    ]
    figure, axes = compose(grid, sides=list(planes), title=title)
    scale_bar(axes[0][0], grid[0][0].size[0])
    return figure


def corruption_rows(
    clean: Any,
    views: Mapping[str, Any],
    *,
    planes: Sequence[str] = ("axial", "coronal"),
    centre: Sequence[int] | None = None,
    spacing: Spacing = (1, 1, 1),
    window: Window = None,
    title: str = "",
) -> Figure:
    """The clean volume and its corrupted views, all in the clean volume's window; a row per plane."""
    columns = {"clean": {"array": clean}} | {name: {"array": array} for name, array in views.items()}
    return _planes(volume(clean), columns, planes, spacing, window, centre, title)


def mask_rows(
    image: Any,
    masks: Mapping[str, Any],
    *,
    planes: Sequence[str] = ("axial", "coronal"),
    centre: Sequence[int] | None = None,
    spacing: Spacing = (1, 1, 1),
    window: Window = None,
    title: str = "",
) -> Figure:
    """The volume under each mask (True = hidden, painted blue).

    A mask has the volume's shape, or the shape of a token grid that divides it.
    """
    image, columns = volume(image), {"image": {}}
    for name, mask in masks.items():
        mask = volume(mask).astype(bool)
        if any(n % m for n, m in zip(image.shape, mask.shape, strict=True)):
            raise CourseError(f"mask {name!r} {mask.shape}: does not divide the volume {image.shape}; check the grid")
        for axis, (n, m) in enumerate(zip(image.shape, mask.shape, strict=True)):
            mask = np.repeat(mask, n // m, axis=axis)
        columns[f"{name} ({mask.mean():.0%} hidden)"] = {"hidden": mask}
    return _planes(image, columns, planes, spacing, window, centre, title)


def reconstruction_rows(
    cases: Sequence[Mapping[str, Any]],
    *,
    plane: str = "axial",
    spacing: Spacing = (1, 1, 1),
    window: Window = None,
    title: str = "",
) -> Figure:
    """A row per case: original, what the network saw, what it made of it, and the absolute error.

    Args:
        cases: mappings with `original`, `reconstruction` (D, H, W), and `corrupted` or `mask` (True = hidden) or both.
            Without `corrupted` the input is the original with the mask painted over it; with `mask` the error is
            averaged over what was hidden. Optionally `name` and `index` (the slice).
    """
    axis, grid, sides, worst = PLANES[plane], [], [], 0.0
    for case in cases:
        original, mask = volume(case["original"]).astype(np.float32), case.get("mask")
        error = np.abs(volume(case["reconstruction"]) - original)
        mean = error[volume(mask).astype(bool)].mean() if mask is not None else error.mean()
        at, limits = case.get("index", original.shape[axis] // 2), choose_window(original, window)
        seen = {"array": case["corrupted"]} if "corrupted" in case else {"array": original, "hidden": mask}
        inputs = ({"array": original}, seen, {"array": case["reconstruction"]}, {"array": error})
        row = [cut(axis=axis, index=at, spacing=spacing, window=limits, **more) for more in inputs]
        worst, grid = max(worst, float(np.percentile(row[3].picture, 99.5))), [*grid, row]
        sides.append("\n".join(filter(None, [str(case.get("name", "")), f"L1 {mean:.3f}"])))
    for row in grid:
        row[3].cmap, row[3].window = "magma", (0.0, worst or 1.0)
    for panel, text in zip(grid[0], ("original", "input", "reconstruction", "absolute error"), strict=True):
        panel.title = text
    figure, axes = compose(grid, sides=sides, title=title, right=0.75)
    box = axes[0][-1].get_position()
    bar = figure.add_axes((box.x1 + 0.1 / figure.get_figwidth(), box.y0, 0.12 / figure.get_figwidth(), box.height))
    figure.colorbar(axes[0][-1].images[0], cax=bar).ax.tick_params(labelsize=8)
    scale_bar(axes[0][0], grid[0][0].size[0])
    return figure


def qualitative(
    cases: Sequence[Mapping[str, Any]],
    *,
    plane: str = "axial",
    names: Mapping[int, str] | None = None,
    window: Window = None,
    title: str = "",
) -> Figure:
    """Best, median and worst case by Dice: label and prediction above, image and the voxels that are wrong below.

    Args:
        cases: mappings with `image`, `label`, `prediction` (D, H, W), `dice`, `id`, and optionally `spacing`.
    """
    ranked, axis = sorted(cases, key=lambda case: -case["dice"]), PLANES[plane]
    if not ranked:
        raise CourseError("qualitative: no case to show; evaluate at least one test case first")
    chosen = {"best": ranked[0], "median": ranked[len(ranked) // 2], "worst": ranked[-1]}
    chosen = dict(list(chosen.items())[: len(ranked)])
    above, below, present = [], [], set()
    for rank, case in chosen.items():
        image, label, prediction = (volume(case[key]) for key in ("image", "label", "prediction"))
        where = axis, busiest(label)[axis], case.get("spacing", (1, 1, 1)), choose_window(image, window)
        above.append(cut(image, *where, title=f"{rank}: {case['id']}", note="label", label=label))
        above.append(cut(image, *where, title=f"Dice {case['dice']:.3f}", note="prediction", label=prediction))
        below.append(cut(image, *where, note="image"))
        below.append(cut(image, *where, note="wrong", hidden=label != prediction, paint=_WRONG))
        present |= {int(v) for array in (label, prediction) for v in np.unique(array) if v > 0}
    shown = {value: (names or {}).get(value, f"label {value}") for value in sorted(present)}
    right = 0.55 + 0.075 * max(map(len, shown.values()), default=0)
    figure, _ = compose([above, below], title=title, right=right, block=2, letters=False)
    legend(figure, shown, right=right)
    return figure


def tokens(
    image: Any,
    patch_size: int | Sequence[int],
    *,
    plane: str = "axial",
    index: int | None = None,
    spacing: Spacing = (1, 1, 1),
    window: Window = None,
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
    at = image.shape[axis] // 2 if index is None else index
    panel = cut(image, axis, at, spacing, choose_window(image, window), title=f"{plane} slice and patch grid")
    number = np.arange(np.prod(grid)).reshape(grid)
    number = cut(number, axis, at // patch[axis], (1, 1, 1), (0, 1)).picture.astype(int)  # (rows, columns) of patches
    rows_, columns = number.shape
    tall, wide = panel.picture.shape[0] // rows_, panel.picture.shape[1] // columns  # voxels of a patch
    (gap_y, gap_x), apart = (max(1, tall // 6), max(1, wide // 6)), None
    apart = np.full((rows_ * (tall + gap_y) - gap_y, columns * (wide + gap_x) - gap_x), np.nan, np.float32)
    for r in range(rows_):
        for c in range(columns):
            piece = panel.picture[r * tall : (r + 1) * tall, c * wide : (c + 1) * wide]
            apart[r * (tall + gap_y) :, c * (wide + gap_x) :][:tall, :wide] = piece
    size = tuple(mm * n / m for mm, n, m in zip(panel.size, apart.shape[::-1], panel.picture.shape[::-1], strict=True))
    pieces = replace(panel, picture=apart, size=size, title="its patches, one token each")
    count = f"{' x '.join(map(str, grid))} = {np.prod(grid)} tokens of {' x '.join(map(str, patch))} voxels"
    figure, ((left, right),) = compose([[panel, pieces]], title=count, letters=False)
    for r in range(rows_ + 1):
        left.axhline(r * panel.size[1] / rows_, color=PALETTE[1], linewidth=1)
    for c in range(columns + 1):
        left.axvline(c * panel.size[0] / columns, color=PALETTE[1], linewidth=1)
    if max(rows_, columns) <= 12:
        for (r, c), n in np.ndenumerate(number):
            x = (c * (wide + gap_x) + wide / 2) * size[0] / apart.shape[1]
            y = size[1] - (r * (tall + gap_y) + tall / 2) * size[1] / apart.shape[0]
            right.text(x, y, n, color="white", ha="center", va="center", fontsize=8, path_effects=OUTLINE)
    return figure
