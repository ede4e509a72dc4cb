"""The one exception that a reader of the course should ever see, and the warning."""

import re
import sys
import warnings
from contextlib import suppress

NO_MEMORY = re.compile(
    "allocate memory|out of memory|memory object|create a primitive|bad_alloc|map segment|start new thread"
)


class CourseError(ValueError):
    """An error that the reader can fix. The message is one line: the file or value, the reason, what to do."""

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(str(message).split()))


class CourseWarning(UserWarning):
    """What a reader should look at: the file, the reason, what to do; commands print it as one line."""


def out_of_memory(error: Exception) -> bool:
    """Whether Python, NumPy, PyTorch or the dynamic linker ran out of memory, by the message of the error."""
    return isinstance(error, MemoryError) or bool(NO_MEMORY.search(str(error)))


def replace_unprintable() -> None:
    """Print ? for a character that the terminal lacks, such as those of a path on a latin-1 terminal."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(AttributeError, OSError):  # not a text file, or one that leads elsewhere by now
            stream.reconfigure(errors="replace")


def shorten_warnings() -> None:
    """Print a `CourseWarning` as one line, without the place in the code."""
    usual = warnings.formatwarning

    def line(message, category, *more, **named) -> str:
        return f"warning: {message}\n" if category is CourseWarning else usual(message, category, *more, **named)

    warnings.formatwarning = line
