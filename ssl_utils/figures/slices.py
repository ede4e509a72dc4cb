"""Slices of volumes: montages, corruptions, masks, reconstructions, predictions beside the truth, tokens."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from ssl_utils.errors import CourseError
from ssl_utils.figures.look import PALETTE
from ssl_utils.figures.panels import PLANES, Window, busiest, choose_window, compose, cut, named, volume, write

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
    for arrays in images.values():
        row = []
        for c, array in enumerate(map(volume, arrays)):
            at = array.shape[axis] // 2 if index is None else index
            head = titles[c] if not grid and c < len(titles) else ""
            row.append(cut(array, axis, at, spacing, choose_window(array, window), title=head))
        grid.append(row)
    return compose(grid, sides=list(images), title=title)[0]


def plane_rows(
    image: np.ndarray,
    columns: Mapping[str, Mapping[str, Any]],
    *,
    planes: Sequence[str] = ("axial", "coronal"),
    centre: Sequence[int] | None = None,
    spacing: Spacing = (1, 1, 1),
    window: Window = None,
    title: str = "",
) -> Figure:
    """A row per plane, all in the window of `image`; `columns` maps a title to what is drawn there.

    Args:
        columns: title -> `array`, a volume in place of the image, or `hidden`, a mask over it, or nothing.
        centre: voxel (x, y, z) the planes pass through; None takes the middle.
    """
    centre, limits = busiest(np.zeros(image.shape)) if centre is None else centre, choose_window(image, window)
    grid = []
    for name in planes:
        axis, heads = PLANES[name], [""] * len(columns) if grid else columns
        given = [{"array": image, "title": head} | more for head, more in zip(heads, columns.values(), strict=True)]
        grid.append([cut(axis=axis, index=centre[axis], spacing=spacing, window=limits, **more) for more in given])
    return compose(grid, sides=list(planes), title=title)[0]


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
        if any(n % m for n, m in zip(image.shape, mask.shape, strict=True)):
            raise CourseError(f"mask {name!r} {mask.shape}: does not divide the volume {image.shape}; check the grid")
        mask = np.kron(mask, np.ones([n // m for n, m in zip(image.shape, mask.shape, strict=True)], bool))
        columns[f"{name} ({mask.mean():.0%} hidden)"] = {"hidden": mask}
    return plane_rows(image, columns, **look)


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
    above, below, labels = [], [], []
    for rank, case in list(chosen.items())[: len(ranked)]:
        image, label, prediction = (volume(case[key]) for key in ("image", "label", "prediction"))
        setup = axis, busiest(label)[axis], case.get("spacing", (1, 1, 1)), choose_window(image, window)
        above.append(cut(image, *setup, title=f"{rank}: {case['id']}", note="label", label=label))
        above.append(cut(image, *setup, title=f"Dice {case['dice']:.3f}", note="prediction", label=prediction))
        below.append(cut(image, *setup, note="image"))
        below.append(cut(image, *setup, note="wrong", hidden=label != prediction, paint=_WRONG))
        labels += [label, prediction]
    return compose([above, below], title=title, names=named(labels, names), block=2, letters=False)[0]


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
    down, across = number.shape
    tall, wide = panel.picture.shape[0] // down, panel.picture.shape[1] // across  # voxels of a patch
    high, broad = tall + max(1, tall // 6), wide + max(1, wide // 6)  # and of a patch with the gap behind it
    pieces = panel.picture.reshape(down, tall, across, wide)
    pieces = np.pad(pieces, ((0, 0), (0, high - tall), (0, 0), (0, broad - wide)), constant_values=np.nan)
    apart = pieces.reshape(down * high, across * broad)[: tall - high, : wide - broad]
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
            x = (c * broad + wide / 2) * size[0] / apart.shape[1]
            y = size[1] - (r * high + tall / 2) * size[1] / apart.shape[0]
            write(right, x, y, n, ha="center", va="center")
    return figure
