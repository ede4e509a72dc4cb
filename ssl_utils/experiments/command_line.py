"""Descriptions of runs on the command line: a command takes every option of a description, and of a pretext task."""

import inspect
from collections.abc import Callable
from dataclasses import replace
from typing import Annotated

import typer

from ssl_utils.errors import CourseError
from ssl_utils.experiments.description import Finetuning, Pretraining, task_options
from ssl_utils.training.options import REQUIRED, Option, known, options_of

MORE = {"allow_extra_args": True, "ignore_unknown_options": True}  # options of the pretext task


def with_options(kind: type) -> Callable:
    """Give a command the options of a description: `run` is made of them, and the command line lists each once."""

    def decorate(command: Callable) -> Callable:
        given = inspect.signature(command).parameters.values()
        own = [p.replace(kind=p.KEYWORD_ONLY) for p in given if p.name != "run"]
        specs = options_of(kind)

        def wrapped(context: typer.Context, **values) -> None:
            texts = {name: text for name in specs if (text := values.pop(name)) is not None}
            fields = {name: text if isinstance(text, bool) else specs[name].parse(text) for name, text in texts.items()}
            command(**values, run=_described(kind, fields, context.args))

        first = inspect.Parameter("context", inspect.Parameter.KEYWORD_ONLY, annotation=typer.Context)
        parameters = [first, *map(_parameter, specs.values()), *own]
        wrapped.__signature__ = inspect.Signature(parameters)
        wrapped.__annotations__ = {p.name: p.annotation for p in parameters}
        wrapped.__name__, wrapped.__doc__ = command.__name__, command.__doc__
        return wrapped

    return decorate


def _parameter(option: Option) -> inspect.Parameter:
    """For typer. Numbers come as text: `Option.parse` says what is wrong with one, in a line."""
    required = option.default is REQUIRED
    notes = "; ".join(filter(None, (option.help, ", ".join(option.names()), option.range())))
    words = {"help": notes, "show_default": False if required or option.default is None else str(option.default)}
    place = typer.Argument(**words) if required or option.name == "init" else typer.Option(**words)
    kind = bool if option.kind is bool else str if required else str | None
    default = inspect.Parameter.empty if required else option.default if option.kind is bool else None
    return inspect.Parameter(
        option.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[kind, place]
    )


def _described(kind: type, fields: dict, words: list[str]) -> Pretraining | Finetuning:
    """The run of these fields, and of what follows them on the command line: `--mask-ratio 0.3`, `--mask-ratio=0.3`,
    options that only its pretext task has."""
    if kind is Finetuning:
        if words:
            raise CourseError(f"option {words[0]}: finetune has none of that name; see finetune --help")
        return kind(**fields)
    task, own = fields.pop("task"), {}
    run = kind(task=task, **fields)  # what is wrong with these is said first, and PyTorch is not needed for it
    specs, words = task_options(task) if words else {}, [*words]
    while words:
        flag, sign, text = words.pop(0).partition("=")
        option = known(specs, flag.removeprefix("--").replace("-", "_"), of=task)
        if not sign and option.kind is not bool:
            if not words:
                raise CourseError(f"option {flag}: has no value; write {flag}=...")
            text = words.pop(0)
        own[option.name] = option.parse(text if sign or option.kind is not bool else "true")
    return replace(run, options=own)
