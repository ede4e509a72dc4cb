"""Options of a run: each is written once, where it is used, with its type, default, range, choices and help.

`mask_ratio: Annotated[float, Option("share of hidden tokens", above=0, below=1)] = 0.6`, as a field of a dataclass or a
parameter of a pretext task. Command line, chapters, studies and configuration files read them by `options_of`.
"""

import dataclasses
import difflib
import inspect
import math
import types
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

from ssl_utils.errors import CourseError

REQUIRED = object()  # default of an option that has none
WORDS = {int: "a whole number", float: "a number", str: "text", bool: "true or false"}


@dataclass(frozen=True)
class Option:
    """What an option means and which values it takes: `low` and `high` are allowed themselves, `above` and `below` are
    not; `choices` names all values."""

    help: str = ""
    low: float | None = None
    high: float | None = None
    above: float | None = None
    below: float | None = None
    choices: tuple[str, ...] | Callable[[], tuple[str, ...]] | None = None
    name: str = ""
    kind: type = str
    default: Any = None
    optional: bool = False  # None is a value: the default of the task or the scale

    def check(self, value: Any) -> Any:
        """The value, a whole number where a `float` may be one.

        Raises:
            CourseError: wrong type, NaN, out of range or not among the choices.
        """
        if value is None and self.optional:
            return None
        if not self._has_kind(value):
            raise CourseError(f"{self.name}={value!r}: must be {WORDS[self.kind]}{' or None' * self.optional}")
        if not self._in_range(value):
            raise CourseError(f"{self.name}={value!r}: must be {self.range()}")
        if (names := self.names()) and value not in names:
            raise CourseError(f"{self.name}={value!r}: unknown; choose one of {', '.join(names)}")
        return value

    def parse(self, text: str) -> Any:
        """The value that a text stands for, on a command line or in the name of a run. Raises CourseError."""
        if self.kind is bool:
            value = {"true": True, "false": False}.get(text.lower(), text)
        elif text == "None" and self.optional:
            value = None
        else:
            try:
                value = self.kind(text)
            except ValueError:
                value = text
        return self.check(value)

    def _has_kind(self, value: Any) -> bool:
        if isinstance(value, bool) or self.kind is bool:
            return isinstance(value, bool) and self.kind is bool
        if self.kind is float:
            return isinstance(value, int | float) and math.isfinite(value)
        return isinstance(value, self.kind)

    def _in_range(self, value: Any) -> bool:
        return (
            (self.low is None or value >= self.low)
            and (self.high is None or value <= self.high)
            and (self.above is None or value > self.above)
            and (self.below is None or value < self.below)
        )

    def names(self) -> tuple[str, ...]:
        return (self.choices() if callable(self.choices) else self.choices) or ()

    def range(self) -> str:
        """`above 0 and below 1`; empty where every number will do."""
        parts = [("at least", self.low), ("above", self.above), ("at most", self.high), ("below", self.below)]
        return " and ".join(f"{word} {limit:g}" for word, limit in parts if limit is not None)


def options_of(thing: type | Callable) -> dict[str, Option]:
    """The options of a dataclass, or of the keyword parameters of a function or class, by name."""
    function = thing if dataclasses.is_dataclass(thing) or not isinstance(thing, type) else thing.__init__
    hints = get_type_hints(function, include_extras=True)
    found = {}
    for name, parameter in inspect.signature(thing).parameters.items():
        if (option := _option(name, hints.get(name, str), parameter)) is not None:
            found[name] = option
    return found


def _option(name: str, hint: Any, parameter: inspect.Parameter) -> Option | None:
    """None for what is no option: networks, mappings and whatever else a text cannot stand for."""
    extras = get_args(hint)[1:] if get_origin(hint) is Annotated else ()
    bare = get_args(hint)[0] if extras else hint
    kinds = get_args(bare) if get_origin(bare) in (Union, types.UnionType) else (bare,)
    kind = next((k for k in (bool, int, float, str) if k in kinds), None)
    if kind is None:
        return None
    option = next((extra for extra in extras if isinstance(extra, Option)), Option())
    default = REQUIRED if parameter.default is parameter.empty else parameter.default
    return dataclasses.replace(option, name=name, kind=kind, default=default, optional=type(None) in kinds)


def known(options: Mapping[str, Option], name: str, *, of: str) -> Option:
    """The option of that name. Raises CourseError with the nearest known one."""
    if name not in options:
        near = difflib.get_close_matches(name, options, n=1)
        hint = f"did you mean {near[0]}?" if near else f"it has {', '.join(options) or 'none'}"
        raise CourseError(f"option {name}: {of} has none of that name; {hint}")
    return options[name]
