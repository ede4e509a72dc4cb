"""A dataset at a scale: what every experiment starts from."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from ssl_utils.data import cache, datalists, datasets
from ssl_utils.data.cache import Prepared
from ssl_utils.data.datalists import Case, Datalist
from ssl_utils.data.dataset import Dataset, Grid
from ssl_utils.errors import CourseError
from ssl_utils.experiments import runs
from ssl_utils.experiments.scales import Scale
from ssl_utils.files import write_json


@dataclass(frozen=True)
class Setup:
    """A dataset at a scale: what every experiment starts from."""

    dataset: Dataset
    scale: Scale

    @property
    def grid(self) -> Grid:
        return self.dataset.grids[self.scale.grid]

    @property
    def folder(self) -> Path:
        return runs.course_dir(self.dataset.name, self.scale.name)

    @cached_property
    def datalist(self) -> Datalist:
        """The dataset's list, each side no longer than the scale wants it."""
        found, scale = datasets.datalist(self.dataset), self.scale
        most = {"unlabeled": None, "training": None, "validation": scale.max_validation, "test": scale.max_test}
        if self.dataset.name == "phantom":  # the folder may hold a larger scale's volumes
            sizes = dict(zip(("unlabeled", "training", "validation", "test"), scale.phantom_sizes, strict=True))
            most = {side: min(n, most[side] or n) for side, n in sizes.items()}
        return replace(found, **{side: cases[: most[side]] for side, cases in found.sides().items()})

    @property
    def pool(self) -> tuple[Case, ...]:
        """The unlabelled pool: everything but validation and test patients."""
        return (self.datalist.unlabeled + self.datalist.training)[: self.scale.max_unlabeled]

    @property
    def label_counts(self) -> tuple[int, ...]:
        """How many labelled volumes the fine-tunings use; capped for small sets."""
        most = len(self.datalist.training)
        return tuple(n for n in self.scale.num_labeled if n <= most) or (most,)

    def prepared(self, cases: Sequence[Case], progress: Callable[[int, int], None] | None = None) -> list[Prepared]:
        root = runs.runs_root() / self.dataset.name / "cache" / self.scale.grid
        return cache.prepare(cases, dataset=self.dataset, grid=self.grid, root=root, progress=progress)

    def encoder_config(self) -> dict:
        scale = self.scale
        return {
            "in_channels": len(self.dataset.channels),
            "img_size": self.grid.roi,
            "patch_size": scale.patch_size,
            "hidden_size": scale.hidden_size,
            "mlp_dim": scale.mlp_dim,
            "num_layers": scale.num_layers,
            "num_heads": scale.num_heads,
        }

    def settings(self, cases: Sequence[Case], **more) -> dict:
        """What a result depends on: a run is done only for these."""
        data = self.digest(cases)
        return {"dataset": self.dataset.name, "scale": self.scale.name, "data": data, **self.encoder_config(), **more}

    def digest(self, cases: Sequence[Case]) -> str:
        """Fingerprint of the files of the cases and of the rule that prepares them."""
        found = hashlib.sha256(cache.rule(self.dataset, self.grid).encode())
        for case in cases:
            found.update(cache.content(case).encode())
        return found.hexdigest()[:16]


def setup(*, dataset: str, scale: Scale, data: str | None = None) -> Setup:
    """Raises CourseError when the dataset is unknown, not there, or faulty."""
    found = Setup(datasets.get(dataset, data), scale)
    faults = datalists.problems(found.datalist)
    if faults:
        more = f" (and {len(faults) - 1} more; run the doctor)" if len(faults) > 1 else ""
        raise CourseError(faults[0] + more)
    return found


def pool(where: Setup, name: str | None = None, volumes: int | None = None) -> list[Setup]:
    """The setups whose pools are pretrained on: this dataset's, or those named, such as `hippocampus` or
    `own+hippocampus`. Another dataset keeps its own spacing and intensity rule, and takes this one's ROI.

    Args:
        volumes: only the first so many of each.

    Raises:
        CourseError: the other dataset is unknown, not there, or has other channels; a pool has fewer volumes.
    """
    parts = [where if part == "own" else _with_roi(part, where) for part in (name or "own").split("+")]
    if volumes is None:
        return parts
    for part in parts:
        if not 0 < volumes <= len(part.pool):
            most = len(part.pool)
            raise CourseError(f"volumes={volumes}: the pool of {part.dataset.name} has {most}; choose 1 to {most}")
    return [replace(part, scale=replace(part.scale, max_unlabeled=volumes)) for part in parts]


def _with_roi(name: str, where: Setup) -> Setup:
    dataset, grid = datasets.get(name), where.scale.grid
    if len(dataset.channels) != len(where.dataset.channels):
        raise CourseError(
            f"pool={name!r}: has {len(dataset.channels)} channels, {where.dataset.name} {len(where.dataset.channels)}; "
            "choose a dataset with as many"
        )
    roi = replace(dataset.grids[grid], roi=where.grid.roi)
    return Setup(replace(dataset, grids={**dataset.grids, grid: roi}), where.scale)


def write_plan(where: Setup) -> Path:
    """data.json: what the graph needs to know of the data (which label counts, how many cases)."""
    sides = {side: len(cases) for side, cases in where.datalist.sides().items()}
    path = where.folder / "data.json"
    everything = [case for cases in where.datalist.sides().values() for case in cases]
    write_json(
        path,
        {
            "dataset": where.dataset.name,
            "num_labeled": where.label_counts,
            "draws": where.scale.draws,
            "seeds": where.scale.seeds,
            "cases": sides,
            "datalist": where.digest(everything),
            "licence": where.dataset.licence,
        },
    )
    return path
