"""What the commands share: the terminal, its progress bar and tables, and the options that choose data and grid."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from ssl_utils.data import datasets

console = Console()
ScaleOption = Annotated[str, typer.Option(help="smoke, laptop, workstation or paper")]
DataOption = Annotated[str | None, typer.Option(help="path of your own folder, with dataset 'folder'")]
DatasetOption = Annotated[
    str, typer.Option(help=f"{', '.join(datasets.SHORT)}, or one of their lists (docs/own_data.md)")
]


SpacingOption = Annotated[str | None, typer.Option(help="mm along the three axes, as in 1.5,1.5,8; else by the data")]
RoiOption = Annotated[str | None, typer.Option(help="voxels of a crop, as in 64,64,8; else by the data")]
PatchOption = Annotated[str | None, typer.Option(help="voxels of a patch, as in 8,8,2; else by the scale")]


@contextmanager
def bar(text: str) -> Iterator[Callable[[int, int], None]]:
    """Show a progress bar; the block calls what it gets with the numbers of done and of all."""
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns, console=console, transient=True) as progress:  # it leaves nothing behind, also at an error
        task = progress.add_task(text, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)


def show(table: Table) -> None:
    """Print a table; into a file with a width of its own."""
    (console if console.is_terminal else Console(width=160)).print(table)
