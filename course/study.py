"""What a study is: the points that it has at a scale, and the names of their runs. The studies: `course.studies`."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from ssl_utils.errors import CourseError
from ssl_utils.experiments import scales
from ssl_utils.experiments.description import RANDOM, Finetuning, Pretraining, task_options
from ssl_utils.experiments.scales import Scale
from ssl_utils.pretext import TASKS

COMMON = {one.name for one in fields(Pretraining)}  # options that every task has


@dataclass(frozen=True)
class Where:
    """What the points of a study may depend on."""

    scale: Scale
    other: str  # the dataset that stands for "other volumes"
    equal_channels: bool  # can the same encoder read both?
    tasks: tuple[str, ...] = ()  # asked for, in place of the study's own


@dataclass(frozen=True)
class Point:
    """One value of a study: the options of a pretraining and of a fine-tuning that it sets."""

    task: str  # or random
    value: str
    options: Mapping[str, Any] = field(default_factory=dict)
    finetuning: Mapping[str, Any] = field(default_factory=dict)

    @property
    def pretraining(self) -> Pretraining | None:
        return None if self.task == RANDOM else Pretraining.of(self.task, **self.options)

    @property
    def run(self) -> Finetuning:
        """The fine-tuning; its label counts, subsets and seeds are the graph's."""
        return Finetuning(init=self.pretraining.name if self.pretraining else RANDOM, **self.finetuning)


@dataclass(frozen=True)
class Study:
    """What is varied, and why. `values`, `tasks` and `labels` say how much of it from which scale on: a scale that is
    not named takes what the next smaller one has."""

    name: str
    title: str
    question: str
    varied: str  # under the axis of its figure
    point: Callable[[str, Any, Where], Point | None]  # of a task and a value; None: that task has no such point
    values: Mapping[str, tuple]
    tasks: Mapping[str, tuple[str, ...]]
    labels: Mapping[str, tuple[int, ...]] = field(default_factory=lambda: {"smoke": (6,), "workstation": (6, 12, 24)})
    option: str | None = None  # of the task; its default is always among the values

    def points(self, where: Where) -> list[Point]:
        """Every point at this scale, tasks that the registry lacks left out; no two are the same run.

        Raises:
            CourseError: a task that was asked for does not exist, or has not what is varied.
        """
        level, found = where.scale.name, {}
        for task in self._tasks(where):
            values, own = of_scale(self.values, level), {} if task == RANDOM else task_options(task)
            if self.option in own and own[self.option].default not in values:
                values = tuple(sorted((*values, own[self.option].default)))
            for point in filter(None, (self.point(task, value, where) for value in values)):
                if unknown := point.options.keys() - own.keys() - COMMON:
                    raise CourseError(f"study {self.name}: {task} has no {', '.join(unknown)} to vary; leave it out")
                found.setdefault(point.run.name, point)
        return list(found.values())

    def _tasks(self, where: Where) -> list[str]:
        """Those asked for, else its own; the random start wherever the study varies it."""
        own = of_scale(self.tasks, where.scale.name)
        return [task for task in own if task == RANDOM or (task in TASKS and not where.tasks)] + list(where.tasks)


def of_scale(by_scale: Mapping[str, tuple], level: str) -> tuple:
    """What a scale has: a scale that is not named takes what the next smaller one has."""
    order = list(scales.SCALES)
    return next(by_scale[name] for name in reversed(order[: order.index(level) + 1]) if name in by_scale)
