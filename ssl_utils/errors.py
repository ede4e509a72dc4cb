"""The one exception a learner should ever read."""

import re

NO_MEMORY = re.compile(
    "allocate memory|out of memory|memory object|create a primitive|bad_alloc|map segment|start new thread"
)


class CourseError(ValueError):
    """A fault the reader can mend. The message is one line: the file or value, the reason, the cure."""

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(str(message).split()))


def out_of_memory(error: Exception) -> bool:
    """Whether it says, in the words of Python, NumPy, PyTorch or the loader of libraries, that memory is short."""
    return isinstance(error, MemoryError) or bool(NO_MEMORY.search(str(error)))
