"""Named datasets: their folders and lists, and how to get them."""

import hashlib
import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from ssl_utils.data import datalists, own_grid
from ssl_utils.data.datalists import Datalist
from ssl_utils.data.dataset import Dataset
from ssl_utils.data.download import fetch_archive
from ssl_utils.data.lists import folds, rules
from ssl_utils.data.own_dataset import describe
from ssl_utils.data.registry import FURTHER, REGISTRY
from ssl_utils.data.registry.recorded import OPENKBP
from ssl_utils.errors import CourseError
from ssl_utils.files import exclusively

LISTS = Path(__file__).resolve().parents[2] / "json_files"
SHORT = (*REGISTRY, "folder")
NAMES = (*SHORT, *FURTHER)
FOLDS = "folds.json"  # of a published cross-validation, put into the folder of a dataset


def data_root() -> Path:
    """The folder of all datasets: `SSL_DATA_ROOT`, else `data` in the project."""
    return Path(os.environ.get("SSL_DATA_ROOT") or LISTS.parent / "data").expanduser().resolve()


def run_name(name: str, data: str | None = None) -> str:
    """The name of the dataset in the run folder; for a person's own folder, from the last part of its path.

    Two folders may share it: `setups.check_source` refuses the second one.
    """
    if name != "folder":
        return name
    last = Path(data or "").expanduser().resolve().name
    plain = re.sub(r"[^a-z0-9]+", "_", last.lower()).strip("_")
    return f"folder_{plain or hashlib.sha256(os.fsencode(last)).hexdigest()[:8]}"


def get(
    name: str, data: str | Path | None = None, *, chosen: Mapping[str, tuple] | None = None, cache: Path | None = None
) -> Dataset:
    """The dataset of that name; for `folder`, one described by the files in `data` (`cache` as in `describe`).

    `chosen`: values of the grid that a person has given (`own_grid.parsed`).

    Raises:
        CourseError: unknown name, or `folder` without a usable `data`.
    """
    if name == "folder":
        if not data:
            why = "needs the path of your own folder; add DATA=/path/to/folder or --data /path"
            raise CourseError(f"dataset='folder': {why}")
        root = Path(data).expanduser().resolve()
        return describe(root, name=run_name(name, str(data)), chosen=chosen, cache=cache)
    if name not in NAMES:
        raise CourseError(f"dataset={name!r}: no such dataset; choose one of {', '.join(SHORT)}")
    known = (REGISTRY | FURTHER)[name]
    patches = {kind: budget.patch for kind, budget in own_grid.BUDGETS.items()}
    grids = {kind: own_grid.changed(grid, chosen or {}, patch=patches[kind]) for kind, grid in known.grids.items()}
    return replace(known, grids=grids, root=Path(data).expanduser().resolve() if data else None)


def locate(dataset: Dataset) -> Path | None:
    """The folder of the dataset, or None when it has not been fetched. Raises CourseError when the folder that a
    person has given is not there."""
    if dataset.root and not dataset.root.is_dir():
        raise CourseError(f"{dataset.root}: no such folder; give that of your data with DATA=/path or --data /path")
    folders = [dataset.root] if dataset.root else [data_root() / folder for folder in dataset.folders]
    return next((folder for folder in folders if folder.is_dir()), None)


def datalist(dataset: Dataset, *, name: str | None = None) -> Datalist:
    """The datalist of a fetched dataset (the first of its lists, or `name`).

    Raises:
        CourseError: the dataset, or the folder that was given, is not on this machine, or the list is faulty.
    """
    root = locate(dataset)
    if root is None:
        run = f"run: python -m ssl_utils data {dataset.name}"
        raise CourseError(f"dataset {dataset.name}: is not in {data_root()}; {run}")
    if dataset.is_folder:
        return datalists.from_folder(root)
    names = (name,) if name else dataset.lists
    if dataset.rules and not names:
        with_folds = root / FOLDS
        return folds.read(with_folds, dataset, root=root) if with_folds.exists() else rules.datalist(dataset, root)
    path = LISTS / f"{names[0]}.json" if names else root / "dataset.json"
    if dataset.phantom and not dataset.root and not path.exists():
        run = f"run: python -m ssl_utils data {dataset.name}"
        raise CourseError(f"{root}: is not complete; {run} (waits for one that runs)")
    return datalists.read(path, root=root)


def fetch(dataset: Dataset, *, phantom_sizes: tuple[int, int, int, int], progress=None) -> Path:
    """Make sure that the dataset is on disk: generate or download it where it is missing, unless a person has given its
    folder. Returns the folder.

    Raises:
        CourseError: the given folder is not there, the dataset must be obtained by hand (the message lists the steps),
            or the download failed.
    """
    if dataset.phantom and not dataset.root:
        with exclusively(data_root(), dataset.name):
            return _generate(dataset, phantom_sizes, progress)
    root = locate(dataset)
    if root is not None:
        return root
    if dataset.archive:
        with exclusively(data_root(), dataset.name):
            return locate(dataset) or _load(dataset, progress)
    steps = dataset.how_to_get.format(root=data_root() / dataset.folders[0])
    registration = "registration" in dataset.licence
    why = "needs a registration, so it cannot be fetched for you" if registration else "is put together by hand, once"
    raise CourseError(f"dataset {dataset.name}: {why}. {steps}. Licence: {dataset.licence}")


def _load(dataset: Dataset, progress) -> Path:
    """Download the archive of a dataset; OpenKBP is converted. A killed run continues where it was."""
    root, work = data_root(), data_root() / f".unfinished-{dataset.name}"
    if dataset.name != "headneck":
        return fetch_archive(dataset.archive, folder=root, licence=dataset.licence)
    from ssl_utils.data import openkbp

    unpacked = [folder / f"open-kbp-{OPENKBP}" for folder in (root, work)]  # the first: put there by hand, and kept
    source = next((folder for folder in unpacked if folder.is_dir()), None)
    source = source or fetch_archive(dataset.archive, folder=work, licence=dataset.licence)
    target = openkbp.convert(source, work / "converted", progress).rename(root / dataset.folders[0])
    shutil.rmtree(work)
    return target


def _generate(dataset: Dataset, sizes: tuple[int, int, int, int], progress) -> Path:
    from ssl_utils.data import phantom

    root = data_root() / dataset.name
    wanted = dict(zip(("unlabeled", "training", "validation", "test"), sizes, strict=True))
    if (root / "dataset.json").exists():  # a smaller scale must not remove volumes of a larger one
        present = datalists.read(root / "dataset.json", root=root)
        wanted = {side: max(n, len(present.sides()[side])) for side, n in wanted.items()}
    if dataset.name == "brain_phantom":
        phantom.write_brains(root, **wanted, progress=progress)
    else:
        phantom.write_dataset(root, **wanted, version=dataset.phantom, progress=progress)
    return root
