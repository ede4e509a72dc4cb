"""A dataset at a scale, which every experiment starts from."""

import hashlib
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from ssl_utils.data import cache, datasets, doctor, own_grid
from ssl_utils.data.cache import Prepared, Progress
from ssl_utils.data.datalists import Case, Datalist
from ssl_utils.data.dataset import Dataset, Grid
from ssl_utils.data.doctor import Finding, Report
from ssl_utils.data.formats.names import parts
from ssl_utils.errors import CourseError
from ssl_utils.experiments import runs
from ssl_utils.experiments.scales import Scale
from ssl_utils.files import exclusively, read_json, write_json


@dataclass(frozen=True)
class Setup:
    """A dataset at a scale."""

    dataset: Dataset
    scale: Scale

    @property
    def grid(self) -> Grid:
        return self.dataset.grids[self.scale.grid]

    @property
    def patch_size(self) -> tuple[int, int, int]:
        """Voxels of a patch along each axis."""
        return self.grid.patch_size or (self.scale.patch_size,) * 3

    @property
    def folder(self) -> Path:
        return runs.course_dir(self.dataset.name, self.scale.name)

    @cached_property
    def datalist(self) -> Datalist:
        """The dataset's list, with every split cut to the size of the scale."""
        datalist, scale = datasets.datalist(self.dataset), self.scale
        sizes = {"unlabeled": None, "training": None, "validation": scale.max_validation, "test": scale.max_test}
        if self.dataset.phantom:  # the folder may contain the volumes of a larger scale
            generated = zip(sizes.items(), scale.phantom_sizes, strict=True)
            sizes = {split: min(count, limit or count) for (split, limit), count in generated}
        return replace(datalist, **{split: cases[: sizes[split]] for split, cases in datalist.sides().items()})

    @property
    def pool(self) -> tuple[Case, ...]:
        """The unlabelled pool: all cases except those of validation and test patients."""
        return (self.datalist.unlabeled + self.datalist.training)[: self.scale.max_unlabeled]

    @property
    def label_counts(self) -> tuple[int, ...]:
        """The numbers of labelled volumes to fine-tune on, limited by the size of the training set."""
        available = len(self.datalist.training)
        return tuple(n for n in self.scale.num_labeled if n <= available) or (available,)

    def prepared(self, cases: Sequence[Case], progress: Progress | None = None) -> list[Prepared]:
        """The cases on the grid of the scale, from the cache."""
        root = runs.runs_root() / self.dataset.name / "cache" / self.scale.grid
        return cache.prepare(cases, dataset=self.dataset, grid=self.grid, root=root, progress=progress)

    def encoder_config(self) -> dict:
        """The arguments of the ViT encoder; the patch is one number where it is a cube."""
        sizes = {name: getattr(self.scale, name) for name in ("hidden_size", "mlp_dim", "num_layers", "num_heads")}
        patch = self.patch_size[0] if len({*self.patch_size}) == 1 else self.patch_size
        return {"in_channels": len(self.dataset.channels), "img_size": self.grid.roi, "patch_size": patch, **sizes}

    def settings(self, cases: Sequence[Case], **more) -> dict:
        """Everything that a result depends on: a run with other settings is another run."""
        named = {"dataset": self.dataset.name, "scale": self.scale.name, "data": self.digest(cases)}
        ignored = {} if self.dataset.ignore is None else {"ignore": self.dataset.ignore}
        if self.dataset.is_folder and cases:  # its dataset.json may be edited; a pretraining, without cases, reads none
            named |= {"labels": {str(v): n for v, n in self.dataset.labels.items()}, "regions": self.dataset.regions}
        return {**named, **ignored, **self.encoder_config(), **more}

    def digest(self, cases: Sequence[Case]) -> str:
        """Fingerprint of the files of the cases and of their preprocessing."""
        content = [cache.rule(self.dataset, self.grid), *map(cache.content, cases)]
        return hashlib.sha256("".join(content).encode()).hexdigest()[:16]


def unchecked(*, dataset: str, scale: Scale, data: str | None = None, **grid: Any) -> Setup:
    """As `setup`, for a look at the data: a list with errors is no obstacle, and nothing is recorded."""
    folder = runs.course_dir(datasets.run_name(dataset, data), scale.name)
    chosen, spacings = _recorded(folder) | own_grid.parsed(grid), folder.parent / "cache" / "spacings.json"
    return Setup(datasets.get(dataset, data, chosen=chosen, cache=spacings), scale)


def setup(
    *, dataset: str, scale: Scale, data: str | None = None, progress: Progress | None = None, **grid: Any
) -> Setup:
    """The setup of a dataset by name; `data` is the path of one's own folder.

    `grid`: spacing (mm), roi and patch_size (voxels) in place of those that the dataset would have, as three numbers or
    as words (`own_grid.parsed`). They are recorded in the run folder, and hold for all its runs.

    Raises CourseError when the dataset is unknown or missing, the doctor finds an error in it, or there are runs on
    another grid.
    """
    made = unchecked(dataset=dataset, scale=scale, data=data, **grid)
    source = made.folder, datasets.locate(made.dataset), partial(contents, made)
    check_source(*source)
    stop_at_errors(made, progress)
    check_source(*source, record=True)
    _record(made.folder, _recorded(made.folder) | own_grid.parsed(grid))
    return made


def check_source(
    folder: Path, root: str | Path | None, contents: Callable[[], dict[str, str]], *, record: bool = False
) -> None:
    """Raises CourseError when the course in `folder` is one of other data, by what was recorded: where the data were
    (`root`), and a hash per case (`contents`), which tells a copy from other data of the same name."""
    if not root:
        return
    root, source = str(Path(root).expanduser().resolve()), folder / "source.json"
    before = read_json(source) if source.exists() else {}
    if before and root != before["data"] and contents() != before["cases"]:
        fix = "set SSL_RUNS_ROOT to another folder; of two folders of your own, you can also rename one"
        raise CourseError(f"{root}: the runs in {folder} are those of {before['data']}; {fix}")
    if record and not before:
        write_json(source, {"data": root, "cases": contents()})


def contents(setup: Setup) -> dict[str, str]:
    """Case -> hash of its files."""
    return {case.id: cache.content(case) for case in setup.datalist.all_cases()}


def _recorded(folder: Path) -> dict[str, tuple]:
    path = folder / "grid.json"
    return own_grid.parsed(read_json(path), f"{path}: ") if path.exists() else {}


def _record(folder: Path, chosen: dict[str, tuple]) -> None:
    if chosen == _recorded(folder):
        return
    if any((folder / stage).exists() for stage in ("pretrain", "finetune")):
        fix = "leave --spacing, --roi and --patch-size out, move it away, or set SSL_RUNS_ROOT to another folder"
        raise CourseError(f"{folder}: has runs on another grid; {fix}")
    write_json(folder / "grid.json", chosen)


def whole(
    *, dataset: str, scale: Scale, data: str | None = None, progress: Progress | None = None, **grid: Any
) -> tuple[Report, Setup | None]:
    """What the doctor finds in all cases of a dataset, and its setup; None for a folder that cannot be described."""
    own_grid.parsed(grid)
    try:
        made = unchecked(dataset=dataset, scale=scale, data=data, **grid)
        datalist = datasets.datalist(made.dataset)
    except CourseError:
        if dataset != "folder" or not data:
            raise
        return doctor.examine_folder(Path(data).expanduser().resolve(), grid=scale.grid, progress=progress), None
    report = doctor.examine_dataset(made.dataset, datalist, grid=made.grid, progress=progress)
    lost, report.grid = _on_grid(made, datalist)
    report += lost if made.dataset.is_folder else ()  # the grids of named datasets are the course's own choice
    return report, made


def _on_grid(made: Setup, datalist: Datalist) -> tuple[list[Finding], str]:
    return doctor.on_grid(datalist, made.grid, patch_size=made.patch_size, scale=made.scale.name)


def examined(setup: Setup, progress: Progress | None = None) -> Report:
    """What the doctor finds in the cases of a setup. They are read once; the findings are kept in the run folder, until
    the list, a file, the grid or the doctor is another one."""
    kept, state = setup.folder / "doctor.json", _state(setup)
    with exclusively(setup.folder, "doctor"):
        with suppress(CourseError, KeyError, TypeError):
            before = read_json(kept)
            if before["state"] == state:
                return Report(Finding(**finding) for finding in before["findings"])
        report = doctor.examine_dataset(setup.dataset, setup.datalist, grid=setup.grid, progress=progress)
        report += _on_grid(setup, setup.datalist)[0] if setup.dataset.is_folder else ()
        write_json(kept, {"state": state} | report.record())
        return report


def stop_at_errors(setup: Setup, progress: Progress | None = None) -> None:
    """Raise CourseError with the first error that the doctor finds in the cases of a setup."""
    errors = [finding for finding in examined(setup, progress) if finding.severity == "error"]
    if errors:
        more = f" (and {len(errors) - 1} more; run the doctor)" if len(errors) > 1 else ""
        raise CourseError(errors[0].line() + more)


def _state(setup: Setup) -> str:
    """A hash of all that findings depend on; of files and folders the size and the time of the last change."""
    paths = [path for case in setup.datalist.all_cases() for _, path in case.files]
    files = [file for path in paths for file in parts(path)] + [path.parent for path in paths]
    files += [setup.dataset.root] if setup.dataset.root else []
    states = {str(file): (file.stat().st_size, file.stat().st_mtime_ns) for file in files if file.exists()}
    content = (doctor.VERSION, setup.dataset, setup.grid, setup.datalist, sorted(states.items()))
    return hashlib.sha256(repr(content).encode()).hexdigest()


def write_plan(setup: Setup) -> Path:
    """Write data.json, from which the graph takes the numbers of labels and cases; returns its path."""
    splits = setup.datalist.sides()
    plan = {
        "dataset": setup.dataset.name,
        "num_labeled": setup.label_counts,
        "subsets": setup.scale.subsets,
        "seeds": setup.scale.seeds,
        "cases": {split: len(cases) for split, cases in splits.items()},
        "datalist": setup.digest([case for cases in splits.values() for case in cases]),
        "licence": setup.dataset.licence,
    }
    write_json(setup.folder / "data.json", plan)
    return setup.folder / "data.json"
