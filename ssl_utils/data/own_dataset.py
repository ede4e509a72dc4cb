"""Your own volumes: a dataset from a folder, without writing code."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np

from ssl_utils.data import own_grid, round_trip, volumes
from ssl_utils.data.cases import Datalist
from ssl_utils.data.dataset import ABDOMEN, PERCENTILES, Dataset
from ssl_utils.data.formats.names import state
from ssl_utils.data.lists.own_folder import from_folder
from ssl_utils.errors import CourseError
from ssl_utils.files import read_json, write_json

RULE = 3  # version of the choice of a grid by labels; what earlier ones have written is not used


def describe(root: Path, *, name: str, chosen: Mapping[str, tuple] | None = None, cache: Path | None = None) -> Dataset:
    """Read the datalist and the headers of `root`, and choose intensity rule, spacing, ROI and patch from them.

    `name` is used for its runs. CT (by the modality in dataset.json) gets the soft-tissue window; everything else its
    own percentiles. Grids are those of `own_grid.choose`; what `chosen` or the list gives of them is kept. Smaller
    volumes are padded to the ROI. Crops around structures (`round_trip.crops`) that one ROI holds are resampled to it.
    Headers that cannot be read are left to the doctor.

    Args:
        chosen: values of the grid as `own_grid.parsed`; they take precedence over those of the list.
        cache: file in which the spacing that labels need is kept, since measuring it takes seconds. None: labels are
            not read, and the extents alone decide.

    Raises:
        CourseError: no such folder, or nothing usable in it.
    """
    datalist = from_folder(root)
    images = [case.image for case in datalist.all_cases()]
    headers = volumes.ras_grids(images) or [volumes.ras_grid(images[0])]  # which says why none can be read
    shapes, spacings = (np.array(values) for values in zip(*headers, strict=True))
    extents, spacing = shapes * spacings, np.median(spacings, axis=0)
    chosen = dict(datalist.grid) | dict(chosen or {})
    labels = _Labels(datalist, cache) if cache and "spacing" not in chosen else None
    labels = labels if labels and labels.paths else None
    grids = own_grid.choose(extents, spacing, chosen, labels and labels.survive)
    if labels and round_trip.differ(extents) and labels.around_structures():
        typical = np.median(extents, axis=0)
        grids = {kind: replace(grid, fit=own_grid.windows(typical, grid) == 1) for kind, grid in grids.items()}
    is_ct = all(channel.lower() == "ct" for channel in datalist.channels)
    return Dataset(
        name=name,
        title=datalist.name,
        source=str(root),
        licence=datalist.licence or "not stated",
        channels=datalist.channels,
        labels=datalist.labels,
        regions=datalist.regions or None,
        ignore=datalist.ignore,
        intensity=ABDOMEN if is_ct else PERCENTILES,
        grids=grids,
        tolerance=float(np.round(spacing.max(), 2)),
        folders=(),
        root=root,
    )


class _Labels:
    """What some training labels say about a grid, remembered in a file, since to read them takes seconds."""

    def __init__(self, datalist: Datalist, cache: Path) -> None:
        self.paths = [case.label for case in datalist.training if case.label and case.label.exists()]
        self.values = round_trip.structures(datalist.labels, datalist.regions)
        self.cache, self.answers, self.parts = cache, {}, None
        states = [state(path) for path in self.paths]
        self.key = hashlib.sha256(f"{RULE}{self.values}{states}".encode()).hexdigest()[:16]
        with suppress(CourseError, AttributeError):  # not there, or damaged: measured again
            before = read_json(cache)
            self.answers = before["answers"] if before.get("key") == self.key else {}

    def survive(self, spacing: Sequence[float]) -> bool:
        name = " ".join(map(str, spacing))
        return self._answer(name, lambda parts: round_trip.survive(parts, spacing, own_grid.LEAST))

    def around_structures(self) -> bool:
        return self._answer("crops", round_trip.crops)

    def _answer(self, question: str, measure: Callable[[dict], bool]) -> bool:
        if question not in self.answers:
            self.parts = round_trip.parts(self.paths, self.values) if self.parts is None else self.parts
            self.answers[question] = measure(self.parts)
            write_json(self.cache, {"key": self.key, "answers": self.answers})
        return self.answers[question]
