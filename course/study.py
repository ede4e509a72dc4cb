"""What a study is: the points that it has at a scale, and the names of their runs. The studies: `course.studies`."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ssl_utils.errors import CourseError
from ssl_utils.experiments import scales
from ssl_utils.experiments.naming import variant
from ssl_utils.experiments.scales import Scale
from ssl_utils.pretext import TASKS, task_class

RANDOM = "random"  # the start that every point is compared with; a study always holds it
UNCHANGED = {"freeze_epochs": 0, "layer_decay": 1.0, "scope": None, "budget": 1, "permuted": False, "network": "unetr"}


@dataclass(frozen=True)
class Where:
    """What the points of a study may depend on."""

    scale: Scale
    other: str  # the dataset that stands for "other volumes"
    equal_channels: bool  # can the same encoder read both?
    tasks: tuple[str, ...] = ()  # asked for, in place of the study's own


@dataclass(frozen=True)
class Point:
    """One value of a study: options of `experiments.pretrain` and of `experiments.finetune`, none at its default."""

    task: str  # or random
    value: str
    pretraining: Mapping[str, Any] = field(default_factory=dict)
    finetuning: Mapping[str, Any] = field(default_factory=dict)

    @property
    def init(self) -> str:
        """The pretraining run."""
        return variant(self.task, self.pretraining)

    @property
    def name(self) -> str:
        """The fine-tuning run."""
        return variant(self.init, {k.removesuffix("_epochs"): v for k, v in self.finetuning.items()})


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
            defaults = defaults_of(task, where)
            values = of_scale(self.values, level)
            if self.option and defaults.get(self.option, values[0]) not in values:
                values = tuple(sorted((*values, defaults[self.option])))
            for point in filter(None, (self.point(task, value, where) for value in values)):
                if unknown := point.pretraining.keys() - defaults:
                    raise CourseError(f"study {self.name}: {task} has no {', '.join(unknown)} to vary; leave it out")
                pretraining = {k: v for k, v in point.pretraining.items() if v != defaults[k]}
                finetuning = {k: v for k, v in point.finetuning.items() if v != UNCHANGED[k]}
                point = Point(task, point.value, pretraining, finetuning)
                found.setdefault(point.name, point)
        return list(found.values())

    def _tasks(self, where: Where) -> list[str]:
        """Those asked for, else its own; the random start wherever the study varies it."""
        own = of_scale(self.tasks, where.scale.name)
        return [task for task in own if task == RANDOM or (task in TASKS and not where.tasks)] + list(where.tasks)


def of_scale(by_scale: Mapping[str, tuple], level: str) -> tuple:
    """What a scale has: a scale that is not named takes what the next smaller one has."""
    order = list(scales.SCALES)
    return next(by_scale[name] for name in reversed(order[: order.index(level) + 1]) if name in by_scale)


def defaults_of(task: str, where: Where) -> dict[str, Any]:
    """The options that a pretraining has when none is given."""
    if task == RANDOM:
        return {}
    parameters = inspect.signature(task_class(task).__init__).parameters.values()
    own = {p.name: p.default for p in parameters if p.default is not p.empty}
    return own | {"steps": where.scale.pretrain_steps, "pool": None, "volumes": None}
