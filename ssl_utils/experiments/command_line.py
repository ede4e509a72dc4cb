"""Options of run descriptions on the command line: a command takes those of a description and of a pretext task."""

import inspect
from collections.abc import Callable
from dataclasses import replace
from typing import Annotated

import typer

from ssl_utils.errors import CourseError
from ssl_utils.experiments.description import Finetuning, Pretraining, task_options
from ssl_utils.training.options import REQUIRED, Option, known, options_of

MORE = {"allow_extra_args": True, "ignore_unknown_options": True}  # options of the pretext task


def with_options(kind: type, shared: Callable) -> Callable:
    """Give a command the options of a description, passed on to it as a `run`, and the parameters of `shared`."""

    def decorate(command: Callable) -> Callable:
        specs = options_of(kind)

        def wrapped(context: typer.Context, **values) -> None:
            texts = {name: text for name in specs if (text := values.pop(name)) is not None}
            fields = {name: text if isinstance(text, bool) else specs[name].parse(text) for name, text in texts.items()}
            command(**values, run=_described(kind, fields, context.args))

        others = [p for p in inspect.signature(shared).parameters.values() if p.name != "run"]
        context = inspect.Parameter("context", inspect.Parameter.KEYWORD_ONLY, annotation=typer.Context)
        parameters = [context, *map(_parameter, specs.values()), *(p.replace(kind=p.KEYWORD_ONLY) for p in others)]
        wrapped.__signature__ = inspect.Signature(parameters)
        wrapped.__annotations__ = {p.name: p.annotation for p in parameters}
        wrapped.__name__, wrapped.__doc__ = command.__name__, command.__doc__
        return wrapped

    return decorate


def _parameter(option: Option) -> inspect.Parameter:
    """A parameter for typer. Numbers are read as text, since the errors of `Option.parse` are clearer."""
    required = option.default is REQUIRED
    notes = "; ".join(filter(None, (option.help, ", ".join(option.names()), option.range())))
    shown = {"help": notes, "show_default": False if required or option.default is None else str(option.default)}
    info = typer.Argument(**shown) if required or option.name == "init" else typer.Option(**shown)
    annotation = Annotated[bool if option.kind is bool else str if required else str | None, info]
    default = inspect.Parameter.empty if required else option.default if option.kind is bool else None
    return inspect.Parameter(option.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def _described(kind: type, fields: dict, words: list[str]) -> Pretraining | Finetuning:
    """The run with these fields and with the further words of the command line, `--mask-ratio 0.3` or
    `--mask-ratio=0.3`, which are options of its pretext task."""
    if kind is Finetuning and words:
        raise CourseError(f"option {words[0]}: finetune has none of that name; see finetune --help")
    run = kind(**fields)  # reports wrong fields before it imports the task, and PyTorch with it
    own, words = {}, [*words]
    specs = task_options(run.task) if words else {}
    while words:
        flag, sign, text = words.pop(0).partition("=")
        option = known(specs, flag.removeprefix("--").replace("-", "_"), of=run.task)
        if not sign and option.kind is not bool:
            if not words:
                raise CourseError(f"option {flag}: has no value; write {flag}=...")
            text = words.pop(0)
        own[option.name] = option.parse(text if sign or option.kind is not bool else "true")
    return replace(run, options=own) if own else run
