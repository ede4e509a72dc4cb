"""Files that are either complete or absent."""

import errno
import hashlib
import json
import os
import platform
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ssl_utils.errors import CourseError

try:
    import fcntl
except ImportError:  # the first of several modules that Windows lacks
    sys.exit("ssl_utils: needs Linux or macOS; on Windows use WSL (docs/running.md)")

FULL = (errno.ENOSPC, errno.EDQUOT)
NOT_ALLOWED = (errno.EACCES, errno.EEXIST, errno.EFBIG, errno.ENAMETOOLONG, errno.ENOTDIR, errno.EPERM, errno.EROFS)


@contextmanager
def atomic(path: Path | str) -> Iterator[Path]:
    """Yield a temporary path beside `path`, renamed to it only when the block ends without an error.

    The temporary name keeps the suffixes (`.nii.gz`), which choose the format, and contains host and process: on a
    shared disk two machines may write the same file at once. Raises CourseError as `writing`.
    """
    path = Path(path)
    temporary = path.with_name(f".tmp-{platform.node()}-{os.getpid()}-{path.name}")
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield temporary
            os.replace(temporary, path)
        finally:
            if temporary.is_dir():
                shutil.rmtree(temporary, ignore_errors=True)
            else:
                temporary.unlink(missing_ok=True)


@contextmanager
def writing(path: Path | str) -> Iterator[None]:
    """Raise CourseError with `path` when the block cannot write: the disk is full, or the folder is not writable."""
    try:
        yield
    except OSError as error:
        if error.errno not in (*FULL, *NOT_ALLOWED):
            raise
        elsewhere = "choose another folder with SSL_DATA_ROOT or SSL_RUNS_ROOT"
        fix = "free some space" if error.errno in FULL else elsewhere
        raise CourseError(f"{path}: cannot be written ({error.strerror}); {fix} and run again") from None


@contextmanager
def exclusively(folder: Path, name: str) -> Iterator[None]:
    """One process at a time: others that want the same name in this folder wait until the block has ended.

    The lock ends with the process, even when it is killed; its empty file stays.
    """
    with writing(folder / name):
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder / f".lock-{name}", os.O_CREAT | os.O_RDWR)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def write_text(path: Path | str, text: str) -> None:
    with atomic(path) as temporary:
        # a file name that is not UTF-8 is written as JSON escapes it
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")


def write_json(path: Path | str, content: Any) -> None:
    write_text(path, json.dumps(content, indent=1, ensure_ascii=False) + "\n")


def read_json(path: Path | str) -> Any:
    try:
        return json.loads(Path(path).read_text(encoding="utf-8-sig"), object_pairs_hook=_once)
    except FileNotFoundError:
        raise CourseError(f"{path}: no such file; check the path, or run the chapter that writes it") from None
    except (ValueError, OSError, RecursionError) as error:
        raise CourseError(f"{path}: is not readable JSON ({error}); fix or delete it") from None


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """For json.loads, which keeps the last of two equal keys. Raises ValueError."""
    if len(content := dict(pairs)) < len(pairs):
        names = [key for key, _ in pairs]
        raise ValueError(f"key {next(key for key in names if names.count(key) > 1)!r} is there twice")
    return content


def sha256(path: Path | str) -> str:
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
