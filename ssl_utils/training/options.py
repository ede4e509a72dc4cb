"""Options of a run: each is declared once, where it is used, with its type, default, range, choices and help.

`mask_ratio: Annotated[float, Option("share of hidden tokens", above=0, below=1)] = 0.6`, as a field of a dataclass or a
parameter of a pretext task. Command line, chapters, studies and configuration files read them with `options_of`.
"""

import dataclasses
import difflib
import inspect
import operator
import sys
import types
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

from ssl_utils.errors import CourseError

REQUIRED = object()  # default of an option that has none
TYPES = {int: "a whole number", float: "a number", str: "text", bool: "true or false"}


@dataclass(frozen=True)
class Option:
    """The meaning and the values of an option: `low` and `high` include the limit, `above` and `below` exclude it;
    `choices` lists all values."""

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
        """The value itself. Raises CourseError for a wrong type, NaN, or a value out of range or not a choice."""
        if value is None and self.optional:
            return None
        if not self._has_kind(value):
            raise CourseError(f"{self.name}={value!r}: must be {TYPES[self.kind]}{' or None' * self.optional}")
        if not all(within(value, limit) for _, limit, within in self._limits()):
            raise CourseError(f"{self.name}={value!r}: must be {self.range()}")
        if (names := self.names()) and value not in names:
            raise CourseError(f"{self.name}={value!r}: unknown; choose one of {', '.join(names)}")
        return value

    def parse(self, text: str) -> Any:
        """The value written as `text` on a command line or in the name of a run. Raises CourseError."""
        if self.kind is bool:
            return self.check({"true": True, "false": False}.get(text.lower(), text))
        if text == "None" and self.optional:
            return None
        try:
            value = self.kind(text)
        except ValueError:
            value = text
        return self.check(value)

    def _has_kind(self, value: Any) -> bool:
        if isinstance(value, bool) or self.kind is bool:
            return isinstance(value, bool) and self.kind is bool
        if self.kind is float:
            return isinstance(value, int | float) and abs(value) <= sys.float_info.max  # NaN is not
        return isinstance(value, self.kind)

    def _limits(self) -> list[tuple[str, float, Callable[[float, float], bool]]]:
        limits = [("at least", self.low, operator.ge), ("above", self.above, operator.gt)]
        limits += [("at most", self.high, operator.le), ("below", self.below, operator.lt)]
        return [limit for limit in limits if limit[1] is not None]

    def names(self) -> tuple[str, ...]:
        return (self.choices() if callable(self.choices) else self.choices) or ()

    def range(self) -> str:
        """`above 0 and below 1`; empty without limits."""
        return " and ".join(f"{word} {limit:g}" for word, limit, _ in self._limits())


@cache
def options_of(thing: type | Callable) -> Mapping[str, Option]:
    """The options of a dataclass, or of the keyword parameters of a function or class, by name."""
    function = thing if dataclasses.is_dataclass(thing) or not isinstance(thing, type) else thing.__init__
    hints = get_type_hints(function, include_extras=True)
    parameters = inspect.signature(thing).parameters.items()
    options = {name: _option(name, hints.get(name, str), parameter) for name, parameter in parameters}
    return types.MappingProxyType({name: option for name, option in options.items() if option is not None})


def _option(name: str, hint: Any, parameter: inspect.Parameter) -> Option | None:
    """None for networks, mappings and whatever else cannot be written as text."""
    extras = get_args(hint)[1:] if get_origin(hint) is Annotated else ()
    bare = get_args(hint)[0] if extras else hint
    classes = get_args(bare) if get_origin(bare) in (Union, types.UnionType) else (bare,)
    kind = next((c for c in (bool, int, float, str) if c in classes), None)
    if kind is None:
        return None
    option = next((extra for extra in extras if isinstance(extra, Option)), Option())
    default = REQUIRED if parameter.default is parameter.empty else parameter.default
    return dataclasses.replace(option, name=name, kind=kind, default=default, optional=type(None) in classes)


def known(options: Mapping[str, Option], name: str, *, of: str) -> Option:
    """The option of that name. Raises CourseError with the most similar one."""
    if name not in options:
        similar = difflib.get_close_matches(name, options, n=1)
        hint = f"did you mean {similar[0]}?" if similar else f"it has {', '.join(options) or 'none'}"
        raise CourseError(f"option {name}: {of} has none of that name; {hint}")
    return options[name]
