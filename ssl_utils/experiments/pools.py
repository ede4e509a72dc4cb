"""The volumes to pretrain on: of the dataset itself, of another one, or of both."""

from dataclasses import replace

from ssl_utils.data import datasets
from ssl_utils.data.lists import sequences
from ssl_utils.errors import CourseError
from ssl_utils.experiments.setups import Setup, examined, stop_at_errors
from ssl_utils.files import read_json


def pool(setup: Setup, name: str | None = None, volumes: int | None = None) -> list[Setup]:
    """The setups whose pools are pretrained on, with the first `volumes` of each (None: all): this dataset's, or those
    named, such as `hippocampus` or `own+hippocampus`. Another dataset keeps its own spacing and intensity rule, and
    takes this one's ROI.

    Raises CourseError when the other dataset is unknown, missing or has other channels, when it has an image of this
    dataset's validation or test cases in its pool, or when a pool has fewer volumes.
    """
    parts = [setup if part == "own" else _with_roi(part, setup) for part in (name or "own").split("+")]
    if volumes is None:
        return parts
    for part in parts:
        if not 0 < volumes <= len(part.pool):
            size = len(part.pool)
            raise CourseError(f"volumes={volumes}: the pool of {part.dataset.name} has {size}; choose 1 to {size}")
    return [replace(part, scale=replace(part.scale, max_unlabeled=volumes)) for part in parts]


def _with_roi(name: str, setup: Setup) -> Setup:
    dataset, grid = datasets.get(name), setup.scale.grid
    if (other := len(dataset.channels)) != (own := len(setup.dataset.channels)):
        raise CourseError(f"pool={name!r}: has {other} channels, {setup.dataset.name} {own}; choose one with as many")
    if sequences.exchanged(dataset.channels, setup.dataset.channels):
        why = f"its channels are {', '.join(dataset.channels)}, not {', '.join(setup.dataset.channels)}"
        raise CourseError(f"pool={name!r}: {why}; choose one with the same sequences in this order")
    _refuse_held_out(Setup(dataset, setup.scale), setup)
    roi = replace(dataset.grids[grid], roi=setup.grid.roi)
    return Setup(replace(dataset, grids={**dataset.grids, grid: roi}), setup.scale)


def _refuse_held_out(other: Setup, setup: Setup) -> None:
    """Raises CourseError when the doctor finds errors in the other dataset, or in its pool a copy of an image on which
    runs of this one are validated or tested."""
    stop_at_errors(other)
    held_out = {case.id for case in (*setup.datalist.validation, *setup.datalist.test)}
    case_of = {digest: case for case, digest in _digests(setup).items() if case in held_out}
    digests = _digests(other)
    for case in other.pool:
        if twin := case_of.get(digests.get(case.id)):
            why = f"its image has the same voxels as {twin}, a validation or test case of {setup.dataset.name}"
            raise CourseError(f"{case.image}: {why}; leave it out of {other.dataset.name}")


def _digests(setup: Setup) -> dict[str, str]:
    """Case -> hash of the voxels of its image."""
    examined(setup)
    return {case["name"]: case["digest"] for case in read_json(setup.folder / "doctor.json")["cases"]}
