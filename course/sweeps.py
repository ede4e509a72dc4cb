"""The runs of a sweep as a table, while they run and afterwards; its summary, and its networks in one folder."""

import os
import shutil
from collections.abc import Mapping
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from rich.table import Table

from course import status
from ssl_utils.errors import CourseError
from ssl_utils.experiments import runs
from ssl_utils.files import atomic, read_json, write_text
from ssl_utils.statistics import tables
from ssl_utils.statistics.selection import expected_maximum, rare_lead

# of a run: it counts as finished, and can be exported
COLLECTED = ("config.json", "metrics.json", "model.safetensors", "per_case.csv", "README.md")
SHOWN = ("parameters", "labels", "subset", "seed", "state", "step", "score", "seconds", "device", "job")
MOST = 20  # rows of the printed summary, for each number of labels


def recorded(root: Path, name: str) -> dict[str, Any]:
    """The configuration of a sweep that was started in this run folder. Raises CourseError when there is none."""
    path = root / ".course" / f"study_sweep_{name}.json"
    if not path.exists():
        raise CourseError(f"{root}: has no sweep {name}; start it with: python -m course sweep {name}.toml")
    return read_json(path)


def folder(root: Path, plan: Mapping[str, Any]) -> Path:
    """Where the summary of a sweep and its networks are."""
    return root / "sweeps" / plan["name"].removeprefix("sweep_")


def rows(root: Path, config: Mapping[str, Any]) -> pd.DataFrame:
    """A row per fine-tuning, in the order of the grid: run, SHOWN, validation and test Dice in 0..1 (NaN until it is
    done), reason. `score` is text: validation Dice when done, else the loss of training."""
    known, settings = {row.run: row for row in status.rows(root)}, config["settings"]
    repeats = list(product(config["study"]["num_labeled"], range(settings["subsets"]), range(settings["seeds"])))
    lines = []
    for point, (count, subset, seed) in product(config["study"]["points"], repeats):
        run = f"finetune/{point['name']}/n{count}/subset{subset}_seed{seed}"
        row = known.get(run, status.Row(run, "pending"))  # outside of a graph, until it is begun
        done = runs.metrics(root / run) or {}
        score = f"Dice {done['validation_dice']:.3f}" if done else row.result
        cells = [point["value"], count, subset, seed, row.state, row.step, score, row.seconds, row.device, row.job]
        dice = {key: done.get(name, np.nan) for key, name in (("validation", "validation_dice"), ("test", "dice"))}
        lines.append({"run": run, **dict(zip(SHOWN, cells, strict=True)), **dice, "reason": row.reason})
    return pd.DataFrame(lines)


def shown(table: pd.DataFrame, title: str) -> Table:
    """`rows` for a terminal."""
    made = Table(*SHOWN, title=title)
    for row in table[list(SHOWN)].astype(str).itertuples(index=False):
        made.add_row(*row)
    return made


def collect(root: Path, plan: Mapping[str, Any], table: pd.DataFrame) -> Path:
    """Put the finished fine-tunings into one folder, which `python -m ssl_utils soup` takes; returns it.

    Files are linked where the disk allows it, so that they take no space, and copied elsewhere. A folder of an earlier
    call is replaced.
    """
    target = folder(root, plan) / "collected"
    with atomic(target) as temporary:
        temporary.mkdir(parents=True)
        for run in table.loc[table["state"] == "done", "run"]:
            member = temporary / run.removeprefix("finetune/").replace("/", "_")
            member.mkdir()
            for name in filter(lambda name: (root / run / name).exists(), COLLECTED):
                _link(root / run / name, member / name)
        shutil.rmtree(target, ignore_errors=True)
    return target


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def points(table: pd.DataFrame) -> pd.DataFrame:
    """A row per number of labels and combination of parameters, within a number best first: runs, mean validation Dice,
    its standard deviation over label subsets and seeds (NaN for one run)."""
    done = table[table["state"] == "done"].groupby(["parameters", "labels"])["validation"]
    made = done.agg(runs="size", mean="mean", std="std").reset_index()
    return made.sort_values(["labels", "mean"], ascending=[True, False], ignore_index=True)


def spread(table: pd.DataFrame) -> float:
    """The standard deviation of validation Dice between runs that differ in label subset and seed alone, pooled over
    all combinations; NaN where nothing was repeated."""
    grouped = points(table)
    repeated = grouped[grouped["runs"] > 1]
    freedom = repeated["runs"] - 1
    return float(np.sqrt((freedom * repeated["std"] ** 2).sum() / freedom.sum())) if len(repeated) else np.nan


def write(root: Path, config: Mapping[str, Any], table: pd.DataFrame) -> Path:
    """Write results.csv, `rows`, and results.md, the summary; returns the second."""
    target = folder(root, config["study"])
    runs.write_table(target / "results.csv", table)
    write_text(target / "results.md", text(target.name, table) + "\n")
    return target / "results.md"


def text(name: str, table: pd.DataFrame) -> str:
    """The summary of a sweep: for each number of labels its best combinations by validation Dice, and what the best
    run is worth."""
    head = f"# Sweep {name}: {len(table)} fine-tunings, {status.summary(table['state'])}"
    done = table[table["state"] == "done"]
    if done.empty:
        return f"{head}\n\nNo run has finished."
    return "\n\n".join([head, *(_ranked(equal) for _, equal in done.groupby("labels"))])


def _ranked(done: pd.DataFrame) -> str:
    """The summary of the finished runs with one number of labels."""
    cells = points(done).head(MOST)
    numbers = cells.assign(**{key: (100 * cells[key]).map("{:.1f}".format) for key in ("mean", "std")})
    best = done.loc[done["validation"].idxmax()]
    label = f"{best['parameters']}, {best['labels']} labels, subset {best['subset']}, seed {best['seed']}"
    scores = f"Dice {100 * best['validation']:.1f} there, {100 * best['test']:.1f} on the test cases."
    winner = f"Best run by validation: {label}. {scores}"
    return f"{tables.markdown(numbers.set_index('parameters'))}\n\n{winner} {chance(done)}"


def chance(table: pd.DataFrame) -> str:
    """How far the best of as many equal runs would lie above their mean, in a sentence; the table is that of one number
    of labels, since what more of them give is a real gain."""
    done, sigma = table[table["state"] == "done"], spread(table)
    if np.isnan(sigma):
        return "No combination was repeated: with seeds = 3 the spread of equal runs can be measured."
    luck, rare = sigma * expected_maximum(len(done)), sigma * rare_lead(len(done))
    lead = done["validation"].max() - done["validation"].mean()
    return (
        f"Runs that differ in label subset and seed alone have a standard deviation of {100 * sigma:.1f} points. Of "
        f"{len(done)} equal runs with this spread, the best would lie {100 * luck:.1f} points above their mean on "
        f"average, and more than {100 * rare:.1f} in one sweep of twenty; this one lies {100 * lead:.1f} above."
    )
