"""A study: its points at a scale, and the names of their runs. The studies themselves: `course.studies`."""

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
class Context:
    """Facts that the points of a study may depend on."""

    scale: Scale
    other: str  # the dataset used as "other volumes"
    equal_channels: bool  # whether one encoder can read both
    tasks: tuple[str, ...] = ()  # chosen instead of the study's own


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
    """What is varied, and why. `values`, `tasks` and `labels` are given by scale, see `of_scale`. Labels are counts, or
    shares (float) of the labelled training cases."""

    name: str
    title: str
    question: str
    varied: str  # under the axis of its figure
    point: Callable[[str, Any, Context], Point | None]  # of a task and a value; None: that task has no such point
    values: Mapping[str, tuple]
    tasks: Mapping[str, tuple[str, ...]]
    labels: Mapping[str, tuple[float, ...]] = field(default_factory=lambda: {"smoke": (6,), "workstation": (6, 12, 24)})
    option: str | None = None  # of the task; its default is always among the values

    def points(self, context: Context) -> list[Point]:
        """Every point at this scale, tasks that the registry lacks left out; no two are the same run.

        Raises:
            CourseError: a chosen task does not exist, or lacks the varied option.
        """
        level, points = context.scale.name, {}
        for task in self._tasks(context):
            values, own = of_scale(self.values, level), {} if task == RANDOM else task_options(task)
            if self.option in own and own[self.option].default not in values:
                values = tuple(sorted((*values, own[self.option].default)))
            for point in filter(None, (self.point(task, value, context) for value in values)):
                if unknown := point.options.keys() - own.keys() - COMMON:
                    raise CourseError(f"study {self.name}: {task} has no {', '.join(unknown)} to vary; leave it out")
                points.setdefault(point.run.name, point)
        return list(points.values())

    def _tasks(self, context: Context) -> list[str]:
        """The chosen tasks, else its own; random in both cases if the study varies it."""
        own = of_scale(self.tasks, context.scale.name)
        return [task for task in own if task == RANDOM or (task in TASKS and not context.tasks)] + list(context.tasks)


def of_scale(by_scale: Mapping[str, tuple], level: str) -> tuple:
    """The entry of a scale; one that is not named has that of the next smaller scale."""
    order = list(scales.SCALES)
    return next(by_scale[name] for name in reversed(order[: order.index(level) + 1]) if name in by_scale)
