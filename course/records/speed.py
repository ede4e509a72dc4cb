"""The recorded benchmarks as tables: ratios to other code, and the needs of many volumes."""

import math
from pathlib import Path

import pandas as pd

from course.records import entries
from ssl_utils.experiments import runs
from ssl_utils.files import read_json, write_text
from ssl_utils.statistics import tables

REFERENCE = runs.PROJECT / "json_files" / "reference_benchmarks.json"
PAGE = runs.PROJECT / "docs" / "speed.md"
CROP_BYTES = 2 * 96**3  # float16, as in the cache
VOLUMES = (24, 1000, 100_000)


def benchmarks(rows: list[dict]) -> str:
    """One line per measurement: ours, theirs, ratio, what was equal, where."""
    columns = {
        "ours": [f"{row['ours']:.3g}" for row in rows],
        "theirs": [f"{row['theirs']:.3g}" for row in rows],
        "unit": [row["unit"] for row in rows],
        "ratio": [f"{row['ratio']:.1f} x" for row in rows],
        "checked before": [row["equality"] for row in rows],
    }
    names = pd.Index([row["name"] for row in rows], name="measurement")
    machines = sorted({f"{row['device']}, {row['date']}, commit {row['commit']}" for row in rows})
    shown = f"{tables.markdown(pd.DataFrame(columns, index=names))}\n\nMeasured on: {'; '.join(machines)}."
    shares = [f"`{r['name']}` {100 * r['share_of_matrix_rate']:.0f} %" for r in rows if "share_of_matrix_rate" in r]
    about = "Share of the device's own rate of matrix products that our steps reach"
    return f"{shown}\n\n{about}: {', '.join(shares)}." if shares else shown


def scaling(rows: list[dict], *, cores: int = 64, tflops: float = 200.0) -> str:
    """The needs of many whole-body CTs, from the measured seconds, bytes and crops of one.

    Args:
        cores: processor cores that prepare volumes, or make crops.
        tflops: assumed to be sustained by all GPUs together, in 1e12 operations a second.
    """
    known = {row["name"]: row for row in rows}
    crop, step = known["crops_per_second"], known["pretraining_step_simmim"]
    wanted = tflops / step["tflop_a_crop"]  # crops a second that keep the GPUs busy
    table = {
        f"{n:,} volumes": [
            f"{_short(n * crop['prepare_seconds'] / cores / 3600)} h",
            f"{_short(n * crop['cache_mb'] / 1e6)} TB",
            f"{_short(n * 100 / wanted / 3600)} h",
        ]
        for n in VOLUMES
    }
    columns = [f"preparing on {cores} cores", "cache", f"100 crops of each at {tflops:g} TFLOP/s"]
    shown = tables.markdown(pd.DataFrame.from_dict(table, orient="index", columns=columns).rename_axis("how many"))
    return (
        f"{shown}\n\nOne volume: {crop['prepare_seconds']:.0f} s to prepare, {crop['cache_mb']:.1f} MB in the cache. "
        f"One step of ViT-B on one 96^3 crop: {step['tflop_a_crop']:.2f} TFLOP (counted), so {tflops:g} TFLOP/s use "
        f"{wanted:,.0f} crops a second: {wanted * CROP_BYTES / 1e9:.1f} GB/s read at random, and "
        f"{math.ceil(wanted / crop['ours'])} cores at {crop['ours']:.0f} crops a second each."
    )


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 else f"{value:.2g}"


def fill(page: Path = PAGE, reference: Path = REFERENCE) -> None:
    """Write the recorded benchmarks between the markers of the page."""
    rows, text = read_json(reference), page.read_text(encoding="utf-8")
    filled = entries.block(entries.block(text, "benchmarks", benchmarks(rows)), "scaling", scaling(rows))
    if filled != text:
        write_text(page, filled)
