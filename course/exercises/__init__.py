"""Checks for the exercises of the chapters: they say what is wrong, and never the answer.

    exercises.check("02.1", value_of_ignorance)

prints one line and never raises, so that Run All goes through a chapter whose exercises are still open. The checks of
chapter NN stand in `chapter_NN.py`, beside the wrong answers that a test feeds to them:

    @exercise("02.1")
    def _(answer):
        if abs(number(answer(5)) - math.log(9)) > 1e-4:
            raise Wrong("for 5 crops the value is another; how many rows can a row choose from, besides itself?")
        return "Knowing nothing costs the logarithm of the number of choices."

    WRONG = {"02.1": [lambda B: 0.0, lambda B: math.log(B), lambda B: math.log(2 * B)]}
"""

import importlib
import inspect
import textwrap
import traceback
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

Check = Callable[[Any], str]
CHECKS: dict[str, Check] = {}


class Wrong(Exception):
    """What is wrong with an answer, in one sentence that does not give the right one away."""


class NotWritten(Exception):
    """The stub was left as it was."""


def exercise(number: str) -> Callable[[Check], Check]:
    """Register a check. It gets the answer (a function of the reader is watched: see `check`) and returns what the
    right answer shows, or raises `Wrong`."""

    def register(check: Check) -> Check:
        CHECKS[number] = check
        return check

    return register


def check(number: str, answer: Any) -> None:
    """Print whether the answer of one exercise is right, wrong and why, or not written yet.

    A function counts as not written while it returns None at its first call. Whatever a reader's function raises is
    told in a sentence, not as a traceback.
    """
    try:
        said = f"right. {_find(number)(_watched(answer))}"
    except NotWritten:
        said = "not written yet."
    except Wrong as wrong:
        said = f"not yet. {wrong}"
    except Exception as error:  # the check itself stumbled over the answer: of a kind it cannot compare
        said = f"not yet. The check cannot use what it got ({_kind(answer)}): {_told(error)}"
    print(f"Exercise {number}: {' '.join(said.split())}")


def number(value: Any) -> float:
    """The value as a float: a Python number, or an array or tensor of one element."""
    found = array(value)
    if found.size != 1:
        raise Wrong(f"One number is wanted, you have {found.size} values.")
    return float(found.reshape(-1)[0])


def array(value: Any, shape: Sequence[int] | None = None) -> np.ndarray:
    """The value as an array of numbers or booleans, all of them finite, of the given shape."""
    found = np.asarray(value.detach().cpu() if hasattr(value, "detach") else value)
    if found.dtype.kind not in "biuf":
        raise Wrong(f"Numbers are wanted, not a value {_kind(value)}.")
    if shape is not None and found.shape != tuple(shape):
        raise Wrong(f"The result has the shape {found.shape}, it should have {tuple(shape)}.")
    if not np.isfinite(found).all():
        raise Wrong("There is a nan or an infinite value in the result.")
    return found


def _find(number: str) -> Check:
    module = f"{__name__}.chapter_{number.partition('.')[0]}"
    try:
        importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name != module:
            raise
    if number not in CHECKS:
        raise Wrong(f"There is no exercise of this number; known are {', '.join(sorted(CHECKS)) or 'none'}.")
    return CHECKS[number]


def _watched(answer: Any) -> Any:
    """The reader's function, so that what it raises, or None, ends the check with a sentence."""
    if answer is None:
        raise NotWritten
    if not inspect.isfunction(answer):
        return answer
    calls = 0

    def watched(*inputs: Any, **named: Any) -> Any:
        nonlocal calls
        calls += 1
        try:
            result = answer(*inputs, **named)
        except Exception as error:
            raise Wrong(f"`{answer.__name__}` stopped with {_told(error)}") from error
        if result is None:
            raise NotWritten if calls == 1 else Wrong(f"`{answer.__name__}` returns nothing (None) for some inputs.")
        return result

    return watched


def _kind(value: Any) -> str:
    return f"of type {type(value).__name__}"


def _told(error: Exception) -> str:
    """The error in one line, with the line of the reader's cell where it happened."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "ipykernel" in frame.filename]
    where = f" (line {frames[-1].lineno} of your cell)" if frames else ""
    return textwrap.shorten(f"{type(error).__name__}{where}: {error}", 200, placeholder=" ...")
