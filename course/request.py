"""What `run` and `study` have in common on the command line: which course, and with what it is run."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated

import typer

from course.graph import PROJECT, Cluster
from ssl_utils.data import datasets
from ssl_utils.experiments import scales

Scale = Annotated[str, typer.Option(help=", ".join(scales.SCALES))]
DatasetName = Annotated[str, typer.Option(help=", ".join(datasets.SHORT))]
Data = Annotated[str | None, typer.Option(help="your own MSD-style folder, for --dataset folder")]
Repeats = Annotated[int | None, typer.Option(min=1, help="label subsets and seeds of every fine-tuning, n x n runs")]
Labels = Annotated[str | None, typer.Option(help="numbers of labelled volumes, such as 1,2,3,6,12,24")]
Jobs = Annotated[int, typer.Option(min=1, help="with slurm: jobs in the queue at a time")]


@dataclass(frozen=True)
class Request:
    """Options of a course or of a study on it."""

    scale: Scale = "laptop"
    dataset: DatasetName = "phantom"
    data: Data = None
    cores: Annotated[int | None, typer.Option(min=1, help="processor cores to use; all of them by default")] = None
    repeats: Repeats = None
    labels: Labels = None
    spacing: Annotated[str | None, typer.Option(help="mm along the three axes, as in 1.5,1.5,8")] = None
    roi: Annotated[str | None, typer.Option(help="voxels of a crop, as in 64,64,8")] = None
    patch_size: Annotated[str | None, typer.Option(help="voxels of a patch, as in 8,8,2")] = None
    notebooks: Annotated[Path, typer.Option(help="folder of the chapters")] = PROJECT / "notebooks"
    executor: Annotated[str, typer.Option(help="local, or slurm: one job per part (docs/cluster.md)")] = "local"
    jobs: Jobs = Cluster.jobs
    partition: Annotated[str | None, typer.Option(help="with slurm: the partition of every job")] = None
    profile: Annotated[
        Path, typer.Option(help="with slurm: folder of the workflow profile: memory, time, GPUs per rule")
    ] = Cluster.profile


def with_request(command: Callable) -> Callable:
    """Give a command the options of a Request; it gets them as `request`."""

    def wrapped(**values) -> None:
        request = Request(**{option.name: values.pop(option.name) for option in fields(Request)})
        command(request=request, **values)

    kind = inspect.Parameter.KEYWORD_ONLY
    own = [p.replace(kind=kind) for p in inspect.signature(command).parameters.values() if p.name != "request"]
    shared = [inspect.Parameter(o.name, kind, default=o.default, annotation=o.type) for o in fields(Request)]
    wrapped.__signature__ = inspect.Signature([*own, *shared])
    wrapped.__annotations__ = {p.name: p.annotation for p in (*own, *shared)}
    wrapped.__name__, wrapped.__doc__ = command.__name__, command.__doc__
    return wrapped
