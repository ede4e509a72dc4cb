"""The frame of a chapter: check the parameters, find what earlier chapters wrote, keep figures, print the cost.

The only module that depends on running in a notebook."""

import gc
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from ssl_utils.data import datasets
from ssl_utils.errors import CourseError
from ssl_utils.experiments import runs, scales
from ssl_utils.experiments.description import Finetuning, Pretraining, task_options
from ssl_utils.files import atomic, write_json
from ssl_utils.live import live
from ssl_utils.pretext import TASKS
from ssl_utils.training import processes
from ssl_utils.training.options import Option, known, options_of

PARAMETERS = {  # of every chapter; the others are options of the runs that it makes
    "scale": Option("how much of everything", choices=tuple(scales.SCALES), name="scale"),
    "dataset": Option("named dataset", choices=datasets.NAMES, name="dataset"),
    "data": Option("path of your own folder", name="data", optional=True),
}
NEEDS = {  # chapter -> the file that shows it has run, below runs/<dataset>/<scale>/
    "01_data_inspection": "chapters/01_data_inspection/done.json",
    "04_unetr_finetuning": "finetune/*/n*/subset*/metrics.json",
}
COLLECTOR = (700, 10, 10)  # Python's own thresholds; an executed chapter starts with others, see course.execution


@dataclass
class Chapter:
    """A running chapter. `folder` is where its figures and its done.json go."""

    name: str
    scale: scales.Scale
    dataset: str
    data: str | None
    seed: int
    started: float = field(default_factory=time.perf_counter)

    @property
    def course(self) -> Path:
        return runs.course_dir(datasets.run_name(self.dataset, self.data), self.scale.name)

    @property
    def folder(self) -> Path:
        return self.course / "chapters" / self.name

    def needs(self, *chapters: str) -> None:
        """Raise CourseError when a chapter that this one builds on has not run."""
        for chapter in chapters:
            if not any(self.course.glob(NEEDS[chapter])):
                made = f"dataset={self.dataset}, scale={self.scale.name}"
                raise CourseError(
                    f"chapter {self.name}: needs what {chapter} writes for {made}; run notebooks/{chapter}.ipynb first"
                )

    def keep(self, figure: Figure, name: str) -> Figure:
        """Save a finished figure as PNG in the course's figures folder and return it; what is shown is this file."""
        path = self.course / "figures" / f"{self.name}_{name}.png"
        with atomic(path) as temporary:
            figure.savefig(temporary, dpi=110, bbox_inches="tight")
        figure.kept = path.read_bytes()
        return figure

    def finish(self, **results: Any) -> None:
        """Print the cost of the chapter, and write it with its `results` to done.json for the chapters after it.

        Raises:
            CourseError: a result has the name of an entry that every chapter has.
        """
        seconds, memory = round(time.perf_counter() - self.started, 1), processes.peak_memory_gb()
        entries = {"chapter": self.name, "seconds": seconds, "peak_memory_gb": memory, "versions": runs.versions()}
        if taken := sorted(entries.keys() & results.keys()):
            raise CourseError(f"finish({taken[0]}=...): done.json has this entry already; choose another name")
        write_json(self.folder / "done.json", entries | results)
        print(f"Chapter {self.name} done: {seconds:.0f} s, {memory:.1f} GB at most.")


def start(name: str, **parameters: Any) -> Chapter:
    """Open a chapter with the values of its parameters cell.

    Raises:
        CourseError: an unknown name, a wrong type or an impossible value; before any work.
    """
    for key, value in parameters.items():
        check(key, value, name)
    _plain_errors()
    if gc.get_threshold()[0] > COLLECTOR[0]:
        gc.freeze()  # so far only imports, which stay: the collector can skip them from now on
        gc.set_threshold(*COLLECTOR)
    import torch

    from ssl_utils.training.devices import device

    if "lightning" in sys.modules:  # a chapter that does not train is spared its import, which takes seconds
        from ssl_utils.training.loop import quiet

        quiet()
    warnings.filterwarnings("ignore", category=FutureWarning)
    scale, dataset, seed = scales.get(parameters["scale"]), parameters["dataset"], parameters["seed"]
    threads = f"{torch.get_num_threads()} thread{'s' if torch.get_num_threads() > 1 else ''}"
    print(f"Chapter {name}: dataset {dataset}, scale {scale.name}, seed {seed}, {device()} ({threads})")
    return Chapter(name, scale, dataset, parameters.get("data"), seed)


def parameters_of(chapter: str) -> dict[str, Option]:
    """The parameters that a chapter may have. Options of the pretext task that it trains may be None: the default."""
    tasks = [task for task, entry in TASKS.items() if entry.chapter == chapter]
    own = {name: replace(one, optional=True) for task in tasks for name, one in task_options(task).items()}
    return PARAMETERS | options_of(Pretraining) | options_of(Finetuning) | own


def check(key: str, value: Any, chapter: str = "") -> None:
    """One parameter: known name, right type, possible value. papermill itself would accept a misspelt name."""
    known(parameters_of(chapter), key, of="the chapter").check(value)


def bar(action: str, unit: str = "volumes") -> Callable[[int, int], None]:
    """A `progress(done, total)` for a long loop: a moving bar when live, else one line when all is done."""
    if not live():
        return lambda done, total: print(f"{action}: {total} {unit}", flush=True) if done == total else None
    from tqdm.auto import tqdm

    shown = None

    def progress(done: int, total: int) -> None:
        nonlocal shown
        shown = shown or tqdm(total=total, desc=action, unit=f" {unit}")
        shown.update(done - shown.n)
        if done == total:
            shown.close()

    return progress


def _plain_errors() -> None:
    """In a notebook a CourseError is one line, not a page of frames. The cell still fails."""
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    if shell is None:
        return

    def show(self, kind, value, trace, tb_offset=None):
        print(f"{kind.__name__}: {value}", file=sys.stderr)
        return [f"{kind.__name__}: {value}"]

    shell.set_custom_exc((CourseError,), show)
