"""Checks for the exercises of the chapters: they name the mistake, and never the answer.

    exercises.check("02.1", three_l1)

prints one line and never raises, so that Run All does not stop at an open exercise. The checks of chapter NN are in
`chapter_NN.py`, wrong answers that they must refuse in `tests/wrong_answers.py`:

    @exercise("03.2")
    def _(answer):
        if abs(number(answer(prediction, image, mask, 2)) - 0.25) > 1e-5:
            raise Wrong("the loss is another; which voxels does it count?")
        return "Nonsense at visible voxels changes nothing."
"""

import importlib
import inspect
import textwrap
import traceback
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

Check = Callable[[Any], str]
CHECKS: dict[str, Check] = {}


class Wrong(Exception):
    """The mistake in an answer, in one sentence that does not give the right one away."""


class NotWritten(Exception):
    """The stub was left as it was."""


def exercise(number: str) -> Callable[[Check], Check]:
    """Register a check. It gets the answer (a reader's function is wrapped: see `check`) and returns a sentence on what
    the right answer shows, or raises `Wrong`."""

    def register(check: Check) -> Check:
        CHECKS[number] = check
        return check

    return register


def check(number: str, answer: Any) -> None:
    """Print whether the answer of one exercise is right, wrong and why, or not written yet.

    A function counts as not written while it returns None at its first call. An error in a reader's function becomes a
    sentence, not a traceback.
    """
    try:
        result = f"right. {_find(number)(_wrapped(answer))}"
    except NotWritten:
        result = "not written yet."
    except Wrong as wrong:
        result = f"not yet. {wrong}"
    except Exception as error:  # the check itself failed on the answer: of a type it cannot compare
        result = f"not yet. The check cannot use what it got ({_type(answer)}): {_one_line(error)}"
    print(f"Exercise {number}: {' '.join(result.split())}")


def number(value: Any) -> float:
    """The value as a float: a Python number, or an array or tensor of one element."""
    values = array(value)
    if values.size != 1:
        raise Wrong(f"One number is wanted, you have {values.size} values.")
    return float(values.reshape(-1)[0])


def array(value: Any, shape: Sequence[int] | None = None) -> np.ndarray:
    """The value as an array of numbers or booleans, all of them finite, of the given shape."""
    values = np.asarray(value.detach().cpu() if hasattr(value, "detach") else value)
    if values.dtype.kind not in "biuf":
        raise Wrong(f"Numbers are wanted, not a value {_type(value)}.")
    if shape is not None and values.shape != tuple(shape):
        raise Wrong(f"The result has the shape {values.shape}, it should have {tuple(shape)}.")
    if not np.isfinite(values).all():
        raise Wrong("There is a nan or an infinite value in the result.")
    return values


def refuse(value: float, mistakes: Mapping[str, float], *, case: str = "", tolerance: float = 1e-6) -> None:
    """Raise Wrong with the first of these mistakes whose result the value is."""
    for mistake, result in mistakes.items():
        if abs(value - result) < tolerance:
            raise Wrong(case + mistake)


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


def _wrapped(answer: Any) -> Any:
    """The reader's function, so that an error in it, or None, ends the check with a sentence."""
    if answer is None:
        raise NotWritten
    if not inspect.isfunction(answer):
        return answer
    calls = 0

    def wrapped(*inputs: Any, **named: Any) -> Any:
        nonlocal calls
        calls += 1
        try:
            result = answer(*inputs, **named)
        except Exception as error:
            raise Wrong(f"`{answer.__name__}` stopped with {_one_line(error)}") from error
        if result is None:
            raise NotWritten if calls == 1 else Wrong(f"`{answer.__name__}` returns nothing (None) for some inputs.")
        return result

    return wrapped


def _type(value: Any) -> str:
    return f"of type {type(value).__name__}"


def _one_line(error: Exception) -> str:
    """The error in one line, with the number of its line in the reader's cell."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "ipykernel" in frame.filename]
    line = f" (line {frames[-1].lineno} of your cell)" if frames else ""
    return textwrap.shorten(f"{type(error).__name__}{line}: {error}", 200, placeholder=" ...")
