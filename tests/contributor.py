"""A copy of the project, as somebody else has it, and the code blocks of CONTRIBUTING.md that go into it."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[1]
TEXT = (PROJECT / "CONTRIBUTING.md").read_text(encoding="utf-8")


def block(place: str) -> str:
    """The code block whose first line names this place."""
    found = re.findall(rf"^```python\n# {re.escape(place)}\n(.*?)^```$", TEXT, re.DOTALL | re.MULTILINE)
    assert len(found) == 1, f"CONTRIBUTING.md has {len(found)} blocks for {place}"
    return found[0]


class Copy:
    """The project as somebody else has it, and what its commands answer."""

    def __init__(self, root: Path) -> None:
        self.folder, self.root = root / "project", root
        shutil.copytree(PROJECT, self.folder, ignore=lambda at, names: self.left_out(Path(at), names))
        self.run = root / "runs" / "phantom" / "smoke"

    @staticmethod
    def left_out(at: Path, names: list[str]) -> set[str]:
        hidden = shutil.ignore_patterns(".*", "__pycache__", "*.egg-info")(at, names)
        return hidden | ({"runs", "data", "build"} & {*names} if at == PROJECT else set())

    def __call__(self, *words, good: bool = True) -> str:
        """Output and errors of `python ...` in the copy, which alone is importable."""
        there = {"PYTHONPATH": self.folder, "SSL_RUNS_ROOT": self.root / "runs", "SSL_DATA_ROOT": self.root / "data"}
        done = subprocess.run(
            [sys.executable, *map(str, words)],
            cwd=self.folder,
            capture_output=True,
            text=True,
            env={**os.environ, **{name: str(value) for name, value in there.items()}},
        )
        assert done.returncode == 0 or not good, done.stdout[-3000:] + done.stderr[-3000:]
        return done.stdout + done.stderr


def write(copy: Copy, name: str) -> None:
    """A file, word for word."""
    (copy.folder / name).write_text(block(name), encoding="utf-8")


def register(copy: Copy, name: str, registry: str, opening: str, closing: str) -> None:
    """The block for `name` as the last entry between these two lines of the file."""
    path = copy.folder / name
    before, first, after = path.read_text(encoding="utf-8").partition(opening)
    entries, last, rest = after.partition(closing)
    assert first and last, f"{name}: no {registry}"
    path.write_text(
        f"{before}{first}{entries}\n{block(f'{name}, in {registry}').rstrip()}{last}{rest}", encoding="utf-8"
    )
