"""Run one chapter with papermill, with the checks that papermill lacks, or one command with its output in a log."""

import ast
import json
import logging
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from course.warm import LIGHTER, lighten
from course.watching import TimedOut, watched
from ssl_utils.errors import CourseError
from ssl_utils.files import read_json, write_text, writing
from ssl_utils.training import processes

SHOWN = ("init", "num_labeled", "subset", "seed")  # parameters that tell the parts of one chapter apart


def label(chapter: str, parameters: dict) -> str:
    """`04_unetr_finetuning init=random n=6 subset=0 seed=0`; the chapter alone when it runs only once."""
    if "init" not in parameters:
        return chapter
    named = (f"{name}={parameters[name]}" for name in SHOWN if name in parameters)
    return " ".join((chapter, *named)).replace("num_labeled=", "n=")


def run_chapter(notebook: Path, executed: Path, parameters: dict, *, minutes: float = 60, **part) -> float:
    """Execute a chapter in a fresh kernel of this environment and keep the executed notebook, also when it fails.

    Args:
        notebook: the chapter; its own folder is the working directory of the kernel.
        executed: where the executed notebook goes.
        parameters: scalars and lists; a name that the chapter does not have is an error.
        minutes: limit for the whole chapter.
        part: `writes`, the files that the chapter must have written when it ends; `events`, a file that gets a line of
            JSON at the start of the chapter and at its end.

    Returns the seconds it took.

    Raises:
        CourseError: it failed: chapter, cell, error, executed notebook, in one line.
    """

    def work() -> None:
        refuse_braces(notebook.resolve(), executed.resolve())
        _refuse_unknown(notebook, parameters)
        executed.parent.mkdir(parents=True, exist_ok=True)
        watched(lambda: _execute(notebook, executed, parameters), minutes=minutes)
        _check_complete(executed)

    name = label(notebook.stem, parameters)
    return _as_part(work, notebook.stem, name, ("executed notebook", executed), **part)


def run_command(name: str, log: Path, words: list[str], *, minutes: float = 60, **part) -> float:
    """Run `python -m` with these words as a part of a graph, its output in `log`; returns the seconds it took.

    `name` is shown by progress, and its first word is the step. The rest as in `run_chapter`.

    Raises:
        CourseError: it failed: name, its last line of output, log, in one line.
    """

    if not name.split():
        raise CourseError(f"name={name!r}: must have a word; give the step, such as pretrain")

    def work() -> None:
        log.parent.mkdir(parents=True, exist_ok=True)
        watched(lambda: _call(words, log), minutes=minutes)

    return _as_part(work, name.split()[0], name, ("log", log), **part)


def _call(words: list[str], log: Path) -> None:
    with open(log, "w", encoding="utf-8") as stream:
        command = [sys.executable, "-m", "course.start", *words]
        code = subprocess.run(command, stdout=stream, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL).returncode
    if code:
        lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines() or [f"it ended with code {code}"]
        raise CourseError(lines[-1].removeprefix("error: ")[:500])


def _as_part(
    work, step: str, name: str, kept: tuple[str, Path], *, writes: Sequence[Path] = (), events: Path | None = None
) -> float:
    """Do the work of a part, with an event at its start and its end; an error names the file that was kept of it."""
    started, note = time.monotonic(), partial(_note, events, chapter=step, label=name)
    note(event="started", **processes.here())
    try:
        work()
        if lost := next((path for path in writes if not path.exists()), None):
            raise CourseError(f"it ended without writing {lost.name}, so it counts as not done ({lost.parent})")
    except Exception as error:
        (title, path), text = kept, " ".join(str(error).split())[:500]
        reason = error if isinstance(error, CourseError) else f"{type(error).__name__}: {text}"
        message = f"{name} failed: {reason}" + (f"; {title}: {path.resolve()}" if path.exists() else "")
        note(event="failed", message=message, timed_out=isinstance(error, TimedOut))
        raise CourseError(message) from None
    seconds = time.monotonic() - started
    note(event="finished", seconds=round(seconds, 1))
    return seconds


def _execute(notebook: Path, executed: Path, parameters: dict) -> None:
    os.environ["JUPYTER_PREFER_ENV_PATH"] = "1"  # the kernel "python3" of this environment, not one of the user's
    os.environ["PYDEVD_DISABLE_FILE_VALIDATION"] = "1"
    lighten()
    logging.getLogger("papermill").setLevel(logging.CRITICAL)  # its errors become one line below
    import papermill
    from jupyter_client import AsyncKernelManager
    from nbclient.exceptions import DeadKernelError
    from papermill.exceptions import PapermillExecutionError
    from traitlets.config import Config

    class Manager(AsyncKernelManager):
        def format_kernel_cmd(self, extra_arguments: list[str] | None = None) -> list[str]:
            python, option, *words = super().format_kernel_cmd(extra_arguments)  # python -m ipykernel_launcher ...
            return [python, option, "course.start", *words]

    try:
        with writing(executed), TemporaryDirectory(prefix="ssl-kernel-", ignore_cleanup_errors=True) as folder:
            kernel = {
                "kernel_name": "python3",
                "kernel_manager_class": Manager,
                "config": Config(KernelManager=_connection(folder)),
            }
            kernel["extra_arguments"] = ["--IPKernelApp.log_level=CRITICAL", f"--IPKernelApp.exec_lines={LIGHTER}"]
            run = partial(papermill.execute_notebook, progress_bar=False, log_output=False, cwd=str(notebook.parent))
            run(str(notebook), str(executed), parameters=parameters, **kernel)
    except PapermillExecutionError as error:
        raise CourseError(f"cell [{error.exec_count}]: {_what_happened(error, executed)}") from None
    except DeadKernelError:
        raise CourseError("its kernel died, most often out of memory; close programs or use CORES=1") from None
    finally:
        with suppress(CourseError):  # of a full disk, which has ended the chapter with its own error
            _strip_widgets(executed)


def _connection(folder: str) -> dict[str, str]:
    """Sockets in a folder instead of five ports, which Jupyter chooses long before it uses them: when 20 kernels start
    together, two take the same port in more than one of four tries, and one of them fails or loses its heartbeat."""
    sockets = f"{folder}/kernel-ipc-5"
    transport = "ipc" if len(sockets) <= 100 else "tcp"  # a system takes 103 or 107 characters
    return {"transport": transport, "connection_file": f"{folder}/kernel.json"}


def _what_happened(error, executed: Path) -> str:
    """The text of a CourseError; of any other error its name, too, and the first line of its cell."""
    name, text = error.ename, " ".join(str(error.evalue).split())
    if not text:  # the chapter prints a CourseError as one line on stderr instead of a traceback
        cells = (c for c in read_json(executed)["cells"] if c["metadata"].get("papermill", {}).get("exception"))
        printed = "".join("".join(o["text"]) for o in next(cells, {}).get("outputs", []) if o.get("name") == "stderr")
        name, _, text = (printed.strip().splitlines() or [name])[-1].partition(": ")
    if name == "CourseError":
        return text
    first = next((line.strip() for line in error.source.splitlines() if line.strip()), "")
    return f"{name}: {text[:300]} (in the cell that begins with `{first[:60]}`)"


def refuse_braces(*paths: Path | str) -> None:
    """Raises CourseError for a path in which Snakemake or papermill would see a placeholder."""
    if path := next((path for path in paths if {*"{}"} & {*str(path)}), None):
        raise CourseError(f"{path}: has a brace, which Snakemake and papermill fill in; rename the folder")


def _refuse_unknown(notebook: Path, parameters: dict) -> None:
    """papermill only warns about a name that the chapter does not have, and runs on with the defaults."""
    cells = read_json(notebook)["cells"]
    tagged = ["".join(c["source"]) for c in cells if "parameters" in c["metadata"].get("tags", [])]
    if not tagged:
        raise CourseError(f"{notebook.name} has no cell tagged `parameters`; tag the cell that holds them")
    nodes = ast.walk(ast.parse(tagged[0]))
    known = [node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)]
    if unknown := sorted(set(parameters) - set(known)):
        raise CourseError(f"no parameter {', '.join(unknown)} in {notebook.name}; it has {', '.join(known)}")


def _check_complete(executed: Path) -> None:
    """After `sys.exit(0)` in a cell papermill reports success although no later cell has run."""
    for cell in read_json(executed)["cells"]:
        if cell["cell_type"] == "code" and "".join(cell["source"]).strip() and cell["execution_count"] is None:
            line = "".join(cell["source"]).strip().splitlines()[0]
            raise CourseError(f"it stopped before its end; the first cell that did not run begins with `{line[:60]}`")


def _strip_widgets(executed: Path) -> None:
    """Widget state is megabytes of viewer code, and a malformed one keeps GitHub from showing the notebook."""
    if executed.exists():
        content = read_json(executed)
        if content["metadata"].pop("widgets", None):
            write_text(executed, json.dumps(content, indent=1))


def _note(events: Path | None, **content) -> None:
    if events:
        # one short write, so that lines of parallel chapters do not mix; an event must not stop the work
        with suppress(OSError), open(events, "a", encoding="utf-8") as stream:
            stream.write(json.dumps(content) + "\n")
