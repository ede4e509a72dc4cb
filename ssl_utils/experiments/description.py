"""What a run is: every option of a pretraining and of a fine-tuning, once.

The name of a run (what is not at its default), config.json, the options of the command line, the parameters of
chapters, the points of studies and the jobs of the graph all come from these two classes.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Annotated, Any, Self

from ssl_utils.experiments.naming import given, variant
from ssl_utils.networks import NETWORKS
from ssl_utils.pretext import TASKS, task_class
from ssl_utils.training.options import Option, known, options_of

RANDOM = "random"  # the init that is no pretraining run
NETWORK = "unetr"  # where no other is asked for
SCOPES = ("encoder", "network")
OF_THE_COURSE = ("encoder", "network", "lr", "steps", "seed", "weight_decay")  # parameters that no one chooses per task


def task_options(task: str) -> dict[str, Option]:
    """The options that only this pretext task has, by name. Raises CourseError when there is no such task."""
    found = options_of(task_class(task))
    return {name: option for name, option in found.items() if name not in OF_THE_COURSE}


class Description:
    """What both kinds of run share. An impossible value is a CourseError when the description is made."""

    def __post_init__(self) -> None:
        for name, option in options_of(type(self)).items():
            option.check(getattr(self, name))

    def changed(self) -> dict[str, Any]:
        """The options that are not at their default."""
        options = options_of(type(self))
        return {name: getattr(self, name) for name, o in options.items() if getattr(self, name) != o.default}

    def words(self) -> list[str]:
        """The words of the command line that make this run: what it is of, then what is not at its default."""
        what = "task" if hasattr(self, "task") else "init"
        pairs = ((f"--{name.replace('_', '-')}", value) for name, value in self.changed().items() if name != what)
        return [getattr(self, what), *(flag if value is True else f"{flag}={value}" for flag, value in pairs)]

    def record(self) -> dict[str, Any]:
        """All options as plain values, for config.json."""
        return {name: getattr(self, name) for name in options_of(type(self))}


@dataclass(frozen=True, kw_only=True)
class Pretraining(Description):
    """One pretraining run. None stands for the default of the task or of the scale."""

    task: Annotated[str, Option("pretext task", choices=lambda: tuple(TASKS))]
    network: Annotated[str, Option("network that is pretrained", choices=lambda: tuple(NETWORKS))] = NETWORK
    scope: Annotated[str | None, Option("its encoder, or all of it; else as the task has it", choices=SCOPES)] = None
    steps: Annotated[int | None, Option("training steps; else those of the scale", low=1)] = None
    pool: Annotated[str | None, Option("volumes of own, of another dataset, or own+another")] = None
    volumes: Annotated[int | None, Option("only the first so many volumes of each pool", low=1)] = None
    seed: Annotated[int, Option("of weights, crops and masks", low=0)] = 0
    options: Mapping[str, Any] = field(default_factory=dict)  # that only this task has

    def __post_init__(self) -> None:
        super().__post_init__()
        own = given(self.options)
        if own:  # without options no task has to be imported, and PyTorch with it
            specs = task_options(self.task)
            own = {name: known(specs, name, of=self.task).check(value) for name, value in own.items()}
            own = {name: value for name, value in own.items() if value != specs[name].default}
        object.__setattr__(self, "options", own)

    @classmethod
    def of(cls, task: str, **options: Any) -> Self:
        """A pretraining with options of every task and of this task side by side."""
        common = {one.name for one in fields(cls)} - {"options"}
        own = {name: value for name, value in options.items() if name not in common}
        return cls(task=task, options=own, **{name: options[name] for name in options if name in common})

    def changed(self) -> dict[str, Any]:
        return {k: v for k, v in super().changed().items() if k != "task"} | dict(self.options)

    def record(self) -> dict[str, Any]:
        return super().record() | dict(self.options)

    @property
    def name(self) -> str:
        """The name of the run, which is also the `init` of a fine-tuning that starts from it."""
        return variant(self.task, self.changed())


@dataclass(frozen=True, kw_only=True)
class Finetuning(Description):
    """One fine-tuning run."""

    init: Annotated[str, Option("random, or the name of a pretraining run")] = RANDOM
    num_labeled: Annotated[int, Option("labelled volumes", low=1)] = 6
    draw: Annotated[int, Option("number of the label subset", low=0)] = 0
    seed: Annotated[int, Option("of weights and crops", low=0)] = 0
    freeze_epochs: Annotated[int, Option("epochs with a frozen encoder; -1: all of them", low=-1)] = 0
    layer_decay: Annotated[float, Option("learning rate of a block over that of the next one", above=0, high=1)] = 1.0
    scope: Annotated[str | None, Option("what is moved; else all that was pretrained", choices=SCOPES)] = None
    budget: Annotated[float, Option("so many times the training steps of the scale", low=0.01, high=1000)] = 1
    permuted: Annotated[bool, Option("shuffle the moved weights within each tensor (a control)")] = False
    network: Annotated[str | None, Option("else that of the init, or unetr", choices=lambda: tuple(NETWORKS))] = None
    deep_supervision: Annotated[bool, Option("loss on every level of the decoder; mednext only")] = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.network == NETWORK and self.init == RANDOM:  # the same run as without
            object.__setattr__(self, "network", None)

    @property
    def name(self) -> str:
        """The name of the run: the init and what is changed about the fine-tuning, `random__budget=4`."""
        where = ("init", "num_labeled", "draw", "seed")  # they are folders of their own
        return variant(self.init, {key: value for key, value in self.changed().items() if key not in where})
