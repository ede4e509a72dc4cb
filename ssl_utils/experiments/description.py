"""Descriptions of runs: all options of a pretraining and of a fine-tuning.

Names of runs, config.json, command line, parameters of chapters, studies and jobs of the graph are derived from these
two classes.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Self

from ssl_utils.errors import CourseError
from ssl_utils.experiments.naming import base, given, variant
from ssl_utils.networks import NETWORKS
from ssl_utils.pretext import TASKS, task_class
from ssl_utils.training.optimisers import DEFAULT, OPTIMISERS
from ssl_utils.training.options import Option, known, options_of

RANDOM = "random"  # the init without pretraining
NETWORK = "unetr"  # the default
SCOPES = ("encoder", "network")
OPTIMIZER = Option("AdamW with a schedule, or schedule-free", choices=tuple(OPTIMISERS))
OF_TRANSFER = ("scope", "permuted", "reset")  # options of a fine-tuning that have no meaning at random init
OF_ALL_TASKS = ("encoder", "network", "lr", "steps", "seed", "weight_decay")  # parameters that are no options of a task


def task_options(task: str) -> dict[str, Option]:
    """The options that only this pretext task has, by name. Raises CourseError when there is no such task."""
    return {name: option for name, option in options_of(task_class(task)).items() if name not in OF_ALL_TASKS}


class Description:
    """The base of both descriptions. Values are checked when it is made (CourseError)."""

    def __post_init__(self) -> None:
        for name, option in options_of(type(self)).items():
            option.check(getattr(self, name))

    def changed(self) -> dict[str, Any]:
        """The options that are not at their default."""
        options = options_of(type(self)).items()
        return {name: value for name, option in options if (value := getattr(self, name)) != option.default}

    def words(self) -> list[str]:
        """The words of the command line that make this run: task or init, then the options not at their default."""
        subject = "task" if hasattr(self, "task") else "init"
        pairs = ((f"--{name.replace('_', '-')}", value) for name, value in self.changed().items() if name != subject)
        return [getattr(self, subject), *(flag if value is True else f"{flag}={value}" for flag, value in pairs)]

    def record(self) -> dict[str, Any]:
        """All options as plain values, for config.json."""
        return {name: getattr(self, name) for name in options_of(type(self))}


@dataclass(frozen=True, kw_only=True)
class Pretraining(Description):
    """One pretraining run. None means the default of the task or of the scale."""

    task: Annotated[str, Option("pretext task", choices=lambda: tuple(TASKS))]
    network: Annotated[str, Option("network to pretrain", choices=lambda: tuple(NETWORKS))] = NETWORK
    scope: Annotated[str | None, Option("its encoder or all of it; else the task's default", choices=SCOPES)] = None
    steps: Annotated[int | None, Option("training steps; else those of the scale", low=1, high=10**9)] = None
    seconds: Annotated[int | None, Option("as many steps as fit, by a timed one; in place of steps", low=1)] = None
    pool: Annotated[str | None, Option("volumes of own, of another dataset, or own+another")] = None
    volumes: Annotated[int | None, Option("use only so many volumes of each pool", low=1)] = None
    seed: Annotated[int, Option("of weights, crops and masks", low=0, high=10**9)] = 0
    optimizer: Annotated[str, OPTIMIZER] = DEFAULT
    options: Mapping[str, Any] = field(default_factory=dict)  # of this task alone

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.steps and self.seconds:
            raise CourseError(f"seconds={self.seconds}: steps={self.steps} are given too; leave one of them out")
        own = given(self.options)
        specs = task_options(self.task) if own else {}  # which imports the task, and PyTorch with it
        for name, value in own.items():
            known(specs, name, of=self.task).check(value)
        own = {name: value for name, value in own.items() if value != specs[name].default}
        object.__setattr__(self, "options", own)

    @classmethod
    def of(cls, task: str, **options: Any) -> Self:
        """A pretraining with options of every task and of this task side by side."""
        own = {name: value for name, value in options.items() if name not in options_of(cls)}
        return cls(task=task, options=own, **{name: value for name, value in options.items() if name not in own})

    def changed(self) -> dict[str, Any]:
        return {k: v for k, v in super().changed().items() if k != "task"} | dict(self.options)

    def record(self) -> dict[str, Any]:
        return super().record() | dict(self.options)

    @property
    def name(self) -> str:
        """The name of the run, and the `init` of fine-tunings that use it."""
        return variant(self.task, self.changed())


@dataclass(frozen=True, kw_only=True)
class Finetuning(Description):
    """One fine-tuning run."""

    init: Annotated[str, Option("random, or the name of a pretraining run")] = RANDOM
    num_labeled: Annotated[int, Option("labelled volumes", low=1)] = 6
    subset: Annotated[int, Option("number of the label subset", low=0)] = 0
    seed: Annotated[int, Option("of weights and crops; 1000 of each subset", low=0, high=999)] = 0
    freeze_epochs: Annotated[int, Option("epochs with a frozen encoder; -1: all", low=-1)] = 0
    freeze: Annotated[str, Option("what is frozen then; network: all but the output layer", choices=SCOPES)] = "encoder"
    trainable: Annotated[str | None, Option("train these stages alone, up_2+out, or a share of the parameters")] = None
    reset: Annotated[str | None, Option("stages that keep their untrained weights, up_2+out")] = None
    layer_decay: Annotated[float, Option("learning rate of a block over that of the next one", above=0, high=1)] = 1.0
    encoder_lr: Annotated[float | None, Option("factor on its rate; else of the scale", above=0, high=1)] = None
    scope: Annotated[str | None, Option("what to transfer; else all that was pretrained", choices=SCOPES)] = None
    budget: Annotated[float, Option("factor on the training steps of the scale", low=0.01, high=1000)] = 1
    crop: Annotated[float, Option("factor on the sides of the crops of the grid", low=0.1, high=4)] = 1
    permuted: Annotated[bool, Option("shuffle the transferred weights within each tensor (a control)")] = False
    network: Annotated[str | None, Option("else that of the init, or unetr", choices=lambda: tuple(NETWORKS))] = None
    deep_supervision: Annotated[bool, Option("loss on every level of the decoder; mednext only")] = False
    kernel_size: Annotated[int | None, Option("of MedNeXt's blocks, else 3", low=3, high=7)] = None
    checkpointing: Annotated[bool, Option("less memory for more time; mednext only")] = False
    optimizer: Annotated[str, OPTIMIZER] = DEFAULT
    lr: Annotated[float | None, Option("learning rate; else of optimizer or scale", above=0, high=1)] = None
    repeated_crops: Annotated[int | None, Option("only so many, un-augmented; frozen tokens kept", low=1)] = None
    all_axes: Annotated[bool, Option("test on windows along all three axes, averaged; window_vit only")] = False

    synthetic: Annotated[str | None, Option("synthetic volumes to train on too, a name of the course")] = None
    augmentation: Annotated[str, Option("random changes of crops", choices=("usual", "none"))] = "usual"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.freeze != "encoder" and not self.freeze_epochs:
            raise CourseError(f"freeze={self.freeze!r}: nothing is frozen at freeze_epochs=0; choose -1 for all epochs")
        if self.trainable and self.freeze_epochs:
            raise CourseError(f"trainable={self.trainable!r}: excludes freeze_epochs; leave one of the two out")
        if self.init == RANDOM and (lost := next((key for key in OF_TRANSFER if getattr(self, key)), None)):
            raise CourseError(f"{lost}={getattr(self, lost)!r}: nothing is transferred at init=random; leave it out")
        if self.repeated_crops and (self.freeze_epochs != -1 or self.deep_supervision):
            needs = "needs an encoder that is frozen throughout; choose freeze_epochs=-1, without deep supervision"
            raise CourseError(f"repeated_crops={self.repeated_crops}: {needs}")
        if self.network == NETWORK and self.init == RANDOM:  # the default
            object.__setattr__(self, "network", None)

    def of_network(self) -> dict[str, Any]:
        """The options that only some networks have, where they are set."""
        return {
            name: value
            for name in ("deep_supervision", "kernel_size", "checkpointing")
            if (value := getattr(self, name))
        }

    @property
    def name(self) -> str:
        """The init and the options not at their default: `random__budget=4`, or `mae__finetune_scope=encoder`, as a
        pretraining has a scope too."""
        folders = ("init", "num_labeled", "subset", "seed")  # part of the path instead
        of_both = options_of(Pretraining) if base(self.init) in TASKS else ()
        own = {key: value for key, value in self.changed().items() if key not in folders}
        return variant(self.init, {f"finetune_{key}" if key in of_both else key: own[key] for key in own})


def pretraining_in(init: str) -> str:
    """The name of the pretraining in that of a fine-tuning; weights from elsewhere have no options."""
    task, *pairs = init.split("__") if base(init) in TASKS else [base(init)]
    tuned = {*options_of(Finetuning)} - {*options_of(Pretraining)}
    own = (one for one in pairs if one.split("=")[0] not in tuned and not one.startswith("finetune_"))
    return "__".join([task, *own])
