"""The one exception a learner should ever read."""


class CourseError(ValueError):
    """A fault the reader can mend. The message is one line: the file or value, the reason, the cure."""

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(str(message).split()))
