"""Grids: many runs from one small file, as points of a study on the course's graph.

    # rates.toml
    labels = [6, 12]               # labelled volumes; 6 without this line
    subsets = 1                    # label subsets and seeds of every fine-tuning
    seeds = 3

    [pretrain]                     # without this table, every run is from scratch
    task = ["random", "mae"]
    mask_ratio = [0.6, 0.75]       # applies to those tasks that have it

    [finetune]
    lr = [1e-3, 4e-3]
    layer_decay = 0.75             # one value: not varied

The keys of the tables are options of `Pretraining`, of its pretext task, and of `Finetuning`; every combination of
their values is a run: here (1 + 2) x 2 fine-tunings for each of two label counts, one subset and three seeds, 36.
What can be checked by the file alone is refused before anything starts. What depends on the data or on the parts of a
network, such as the names in `trainable`, is refused by the run.
"""

import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

from course.study import Point
from ssl_utils.data import datasets
from ssl_utils.errors import CourseError
from ssl_utils.experiments.description import NETWORK, RANDOM, Finetuning, Pretraining, task_options
from ssl_utils.experiments.runs import OF_ONE_RUN
from ssl_utils.files import read_json, write_json
from ssl_utils.networks import network_class
from ssl_utils.training.options import Option, known, options_of

REPEATS = {
    "labels": Option("labelled volumes", name="labels", kind=int, low=1),
    "subsets": Option("label subsets", name="subsets", kind=int, low=1, high=100),
    "seeds": Option("seeds", name="seeds", kind=int, low=1, high=1000),
}
TABLES = {"pretrain": Pretraining, "finetune": Finetuning}
OF_FINETUNING = {name: option for name, option in options_of(Finetuning).items() if name not in OF_ONE_RUN}
IN_A_PATH = re.compile(r"[\w.,=+-]+")  # run names are folders, and Snakemake fills in braces


@dataclass(frozen=True)
class Grid:
    """The fine-tunings of a grid: every point at every label count, with so many label subsets and seeds."""

    name: str
    labels: tuple[int, ...]
    subsets: int
    seeds: int
    points: tuple[Point, ...]

    def finetunings(self) -> list[Finetuning]:
        """Every run, in the order of the points."""
        repeats = list(product(self.labels, range(self.subsets), range(self.seeds)))
        return [
            replace(point.run, num_labeled=count, subset=subset, seed=seed)
            for point in self.points
            for count, subset, seed in repeats
        ]

    def register(self, course: Path) -> None:
        """Name the runs in the run folder of a course, so that they are not taken for the course's own.

        Those of an earlier content of the grid stay named. What was finished before is no run of the sweep.
        """
        path, names = course / "sweeps" / self.name / "runs.json", {point.run.name for point in self.points}
        before = read_json(path) if path.exists() else []
        new = [name for name in names if not any((course / "finetune" / name).glob("n*/subset*/metrics.json"))]
        write_json(path, sorted({*before, *new}))

    def plan(self, training: int) -> dict[str, Any]:
        """The grid as plain values for the graph, as `studies.plan` gives them for a study; `training` is the number of
        labelled training volumes.

        Raises:
            CourseError: more labels are wanted than there are.
        """
        if max(self.labels) > training:
            raise CourseError(
                f"grid {self.name}: labels = {max(self.labels)}, but only {training} volumes; choose fewer"
            )
        pools = {part for point in self.points for part in str(point.options.get("pool") or "own").split("+")}
        return {
            "name": f"sweep_{self.name}",
            "target": "sweep",
            "num_labeled": list(self.labels),
            "needs": sorted(pools - {"own"}),
            "points": [{"value": point.value, "name": point.run.name} for point in self.points],
            "pretrain": {p.run.init: p.pretraining.words() for p in self.points if p.run.init != p.task},
            "finetune": {p.run.name: p.run.words() for p in self.points},
        }


def read(path: Path) -> Grid:
    """The grid in a TOML file.

    Raises:
        CourseError: no such file, no TOML, an unknown field, a value that is not possible, or nothing to run.
    """
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:  # no text, no TOML, or a number with thousands of digits
        reason = getattr(error, "strerror", None) or error
        raise CourseError(f"{path}: is no readable TOML file ({reason}); see docs/sweeps.md for one") from None
    try:
        return described(path.stem, content)
    except CourseError as error:
        raise CourseError(f"{path.name}: {error}") from None


def described(name: str, content: Mapping[str, Any]) -> Grid:
    """The grid of the content of a file; raises CourseError as `read`."""
    if not IN_A_PATH.fullmatch(name):
        raise CourseError(f"name {name!r}: becomes a folder; use letters, digits, - and _ alone")
    for key in content:
        known({**REPEATS, **dict.fromkeys(TABLES, Option())}, key, of="a grid")
    tables = {table: content.get(table, {}) for table in TABLES}
    for table, values in tables.items():
        if not isinstance(values, dict):
            raise CourseError(f"{table} = {values!r}: must be a table; write [{table}] and the options below it")
    repeats = {"labels": 6, "subsets": 1, "seeds": 1} | {key: content[key] for key in REPEATS if key in content}
    labels = tuple(REPEATS["labels"].check(count) for count in _values("labels", repeats["labels"]))
    counts = {key: REPEATS[key].check(repeats[key]) for key in ("subsets", "seeds")}
    grid = Grid(name, labels, **counts, points=_with_names(_points(tables["pretrain"], tables["finetune"])))
    if len(grid.finetunings()) < 2:
        raise CourseError("has a single run; give an option several values, as in lr = [1e-3, 4e-3]")
    return grid


def _with_names(points: Iterable[Point]) -> tuple[Point, ...]:
    """The points, if each has a folder of its own; an option at its default is in no name, so two can share one."""
    named: dict[str, Point] = {}
    for point in points:
        run = point.run.name
        if not IN_A_PATH.fullmatch(run):
            raise CourseError(f"run {run}: its name becomes a folder; leave other signs than letters, digits, + out")
        _check_network(point)
        if run in named:
            raise CourseError(f"{named[run].value} and {point.value}: both would be the run {run}; vary one of the two")
        named[run] = point
    return tuple(named.values())


def _check_network(point: Point) -> None:
    """Raises CourseError where the network is not the pretrained one, or lacks an option, as in `building`."""
    run, pretrained = point.run, point.pretraining.network if point.pretraining else NETWORK
    name = run.network or pretrained
    if point.pretraining and name != pretrained:
        raise CourseError(f"network={name!r}: {run.init} is pretrained for {pretrained}; choose the same for both")
    for option, value in run.of_network().items():
        if option not in network_class(name).run_options:
            raise CourseError(f"{option}={value}: {name} does not support it; choose network=mednext or mednext_b")
    if (run.kernel_size or 3) % 2 == 0:
        raise CourseError(f"kernel_size={run.kernel_size}: must be odd; MedNeXt has 3 or 5")


def _points(pretrain: Mapping[str, Any], finetune: Mapping[str, Any]) -> Iterator[Point]:
    """Every combination: task, its options, options of the fine-tuning."""
    own = _options_of_tasks(pretrain)
    for key in finetune:
        known(OF_FINETUNING, key, of="[finetune]")
    given = {key: _values(key, value) for key, value in pretrain.items() if key != "task"}
    tuned = {key: _values(key, value) for key, value in finetune.items()}
    for task in own:
        of_task = {key: values for key, values in given.items() if key in own[task]}
        for options, tuning in product(_combinations(of_task), _combinations(tuned)):
            shown = {"task": task} if len(own) > 1 else {}
            shown |= {f"pretrain {k}" if k in tuned else k: v for k, v in options.items() if len(given[k]) > 1}
            shown |= {key: value for key, value in tuning.items() if len(tuned[key]) > 1}
            value = ", ".join(f"{key}={value}" for key, value in shown.items())
            yield Point(task, value or task, options, tuning)


def _options_of_tasks(pretrain: Mapping[str, Any]) -> dict[str, Mapping[str, Option]]:
    """Task -> its options, in the order of the file; raises CourseError for a key that none of the tasks has."""
    if pretrain and "task" not in pretrain:
        raise CourseError('[pretrain]: names no task; add a line such as task = ["random", "mae"]')
    own: dict[str, Mapping[str, Option]] = {}
    for task in _values("task", pretrain.get("task", RANDOM)):
        Option(name="task").check(task)
        own[task] = {} if task == RANDOM else {**options_of(Pretraining), **task_options(task)}
    every = {name: option for options in own.values() for name, option in options.items()}
    for key in pretrain:
        known({"task": Option(), **every}, key, of="[pretrain]")
    for pool in _values("pool", pretrain.get("pool", "own")):
        for part in {*str(pool).split("+")} - {"own"}:
            datasets.get(part)
    return own


def _values(key: str, given: Any) -> Sequence[Any]:
    """The values of an option, of which a file may give one alone."""
    values = given if isinstance(given, list) else [given]
    if not values:
        raise CourseError(f"{key} = []: has no value; give one or more, or leave the line out")
    if twice := [value for value in values if values.count(value) > 1]:
        raise CourseError(f"{key} = {given}: has {twice[0]!r} twice; leave one of them out")
    return values


def _combinations(options: Mapping[str, Sequence[Any]]) -> list[dict[str, Any]]:
    return [dict(zip(options, values, strict=True)) for values in product(*options.values())]
