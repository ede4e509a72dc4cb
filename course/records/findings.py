"""The findings of the README and their picture, made from the records in json_files.

Their words are written here, their numbers are not. tests/test_readme.py asks of every sentence whether the records
still say so.
"""

import hashlib
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from course.records import claims, entries, record
from course.records.study_report import gain_text
from ssl_utils.errors import CourseError
from ssl_utils.experiments import runs
from ssl_utils.figures.look import GREY, error_bars, init_styles, legend, sheet
from ssl_utils.files import atomic
from ssl_utils.statistics import tables

PICTURE = runs.PROJECT / "figures" / "fine_tuning_length.png"
SCALE, FEW = "laptop", 6  # labelled cases
PHANTOM = "phantom_v1"  # of the recorded studies
SETS = {PHANTOM: "first phantom, CT", "hippocampus": "hippocampus MRI", "sarcoma": "sarcoma CT, T1, PET"}
INITS = {"random": "from scratch", "voxel_clusters": "pretrained on voxel clusters"}
CLUSTERS, RECONSTRUCTION = "voxel_clusters", ("restoration", "simmim", "mae")
REPEATED = ((PHANTOM, "restoration"), *(("sarcoma", init) for init in RECONSTRUCTION))  # nine runs each


def lengths() -> dict[str, pd.DataFrame]:
    """Per dataset the study of the fine-tuning length with few labels: task, share of the steps, dice, low, high.

    Raises:
        CourseError: a dataset has no such record.
    """
    recorded = claims.recorded("finetuning_length", scale=SCALE)
    tables_of = {about["dataset"]: table[table["num_labeled"] == FEW] for about, table in recorded}
    if missing := set(SETS) - set(tables_of):
        raise CourseError(f"{claims.REFERENCE}: no study finetuning_length of {', '.join(sorted(missing))}; record it")
    shares = {name: tables_of[name]["value"].str.removesuffix(" %").astype(float) / 100 for name in SETS}
    return {name: tables_of[name].assign(share=shares[name]) for name in SETS}


def point(table: pd.DataFrame, task: str, share: float) -> Any:
    """The row of one init at one length."""
    (row,) = table[(table["task"] == task) & (table["share"] == share)].itertuples()
    return row


def gains() -> pd.DataFrame:
    """Every gain of the recorded courses at this scale, in 0..1, with the number of runs."""
    rows = entries.matching(entries.recorded(record.REFERENCE)["gains"], {"scale": SCALE})
    table = entries.fractions(rows, ["gain", "low", "high"]).rename(columns={"low": "gain_low", "high": "gain_high"})
    return table.assign(runs=table["subsets"] * table["seeds"])


def gain(dataset: str, init: str, num_labeled: int = FEW) -> Any:
    """One row of `gains`.

    Raises:
        CourseError: it is not recorded.
    """
    keys = {"dataset": dataset, "init": init, "num_labeled": num_labeled}
    for row in gains().itertuples():
        if all(getattr(row, name) == value for name, value in keys.items()):
            return row
    raise CourseError(f"{record.REFERENCE}: no gain of {keys}; record that course, or rewrite {Path(__file__).name}")


def seconds(dataset: str) -> tuple[float, float]:
    """Of one fine-tuning from scratch with four times the steps, and of the pretraining on voxel clusters."""
    recorded, key = entries.recorded(record.REFERENCE), {"dataset": dataset, "scale": SCALE}
    (longer,) = entries.matching(recorded["label_efficiency"], key | {"init": "random__budget=4", "num_labeled": FEW})
    (run,) = entries.matching(recorded["runs"], key)
    return longer["seconds"], run["pretraining"]["voxel_clusters"]["seconds"]


def text() -> str:
    """Four findings, the most useful one first."""
    lengths_of = lengths()
    findings = (_longer(lengths_of), _head_start(lengths_of), _reconstruction(), _equal_seconds())
    return "\n".join(f"{number}. {finding}" for number, finding in enumerate(findings, 1))


def _points(value: float) -> str:
    return f"{100 * value:.1f}"


def _longer(lengths_of: dict[str, pd.DataFrame]) -> str:
    ends = {
        name: [_points(point(lengths_of[name], "random", share).dice) for share in (1, 4)]
        for name in (PHANTOM, "hippocampus")
    }
    names = ("first phantom", "hippocampus")
    rises = " and ".join(f"from {a} to {b} on the {name}" for name, (a, b) in zip(names, ends.values(), strict=True))
    longer, pretraining = seconds(PHANTOM)
    return (
        "**Training longer helps more than pretraining.** With four times the steps, UNETR from scratch rises "
        f"{rises}. On the phantom this takes {longer:.0f} seconds, while the pretraining on voxel clusters alone takes "
        f"{pretraining:.0f}. On the sarcomas neither gave a measurable gain."
    )


def _head_start(lengths_of: dict[str, pd.DataFrame]) -> str:
    mri, phantom, sarcoma = (
        gain("hippocampus", CLUSTERS),
        gain(PHANTOM, CLUSTERS),
        point(lengths_of["sarcoma"], CLUSTERS, 1),
    )
    ends = [_points(point(lengths_of[name], CLUSTERS, 4).dice) for name in (PHANTOM, "hippocampus")]
    return (
        "**Voxel clusters give a head start, but not a better final result.** They gained "
        f"{gain_text(mri)} on the hippocampus (p = {mri.p:.3f}; {mri.p_holm:.3f} after Holm's correction), "
        f"{gain_text(phantom)} on the first phantom, and {gain_text(sarcoma)} on the sarcomas. With four times the "
        f"steps, they reached {ends[0]} on the phantom and {ends[1]} on the hippocampus, much as from scratch."
    )


def _reconstruction() -> str:
    (phantom, *sarcoma) = (gain_text(gain(*key)) for key in REPEATED)
    return (
        f"**Reconstruction gave no reproducible gain.** Restoration: {phantom} on the phantom; restoration, SimMIM and "
        f"MAE on the sarcomas: {', '.join(sarcoma)}."
    )


def all_tasks() -> tuple[pd.DataFrame, pd.DataFrame]:
    """Of the study of all tasks on the hippocampus: its points with few labels, and its head starts by init.

    Raises:
        CourseError: it is not recorded.
    """
    records = claims.recorded("all_tasks", dataset="hippocampus", scale=SCALE)
    if not records:
        raise CourseError(f"{claims.REFERENCE}: no study all_tasks of hippocampus; record it")
    ((about, table),) = records
    return table[table["num_labeled"] == FEW], pd.DataFrame(about["head_start"]).set_index("init")


def _equal_seconds() -> str:
    table, begun = all_tasks()
    changes, at = table["gain"].dropna(), begun["seconds"]
    return (
        f"**At equal seconds no task won.** A minute of pretraining by each of {len(changes)} tasks changed the Dice "
        f"on the hippocampus by {tables.signed(changes.min())} to {tables.signed(changes.max())}. Within 2 points of "
        f"the end was random after {at['random']:.0f} seconds, the others after {at.drop('random').min():.0f} or more."
    )


def fingerprint(lengths_of: dict[str, pd.DataFrame]) -> str:
    """Of the numbers in the picture, so that a test can tell whether the file is older than they are."""
    drawn = [table[["task", "share", "dice", "low", "high"]].round(5).to_csv() for table in lengths_of.values()]
    return hashlib.sha256("".join(drawn).encode()).hexdigest()[:16]


def picture(lengths_of: dict[str, pd.DataFrame]) -> Figure:
    """Dice against fine-tuning steps, a panel per dataset: both inits, with intervals."""
    drawn, panels = sheet(10.0, 3.6, 1, len(lengths_of))
    for axes, (name, table) in zip(panels, lengths_of.items(), strict=True):
        for shift, init in zip((0.97, 1.03), INITS, strict=True):
            _line(axes, table[table["task"] == init].sort_values("share"), shift, init)
        axes.set_xscale("log")
        shares = sorted(table["share"].unique())
        axes.set_xticks(shares, [f"{share:g} x" for share in shares])
        axes.minorticks_off()
        axes.yaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
        axes.set_title(f"{SETS[name]}\n{_tested(name)}", fontsize=10)
    panels[0].set_ylabel("Dice (points; axes differ)")
    drawn.supxlabel("fine-tuning steps, as a multiple of the course's", fontsize=10)
    handles, labels = panels[0].get_legend_handles_labels()
    hollow = Line2D([], [], linestyle="", marker="o", color="white", markeredgecolor=GREY)
    handles, labels = [*handles, hollow], [*labels, "hollow: one run (filled: 3 to 9)"]
    title = f"UNETR fine-tuned with {FEW} labelled cases; bars: 95 % intervals"
    legend(drawn, handles, labels, loc="outside upper center", ncols=3, title=title)
    return drawn


def _line(axes: Axes, part: pd.DataFrame, shift: float, init: str) -> None:
    at, (middle, low, high) = part["share"] * shift, (100 * part[name] for name in ("dice", "low", "high"))
    style = init_styles([init])[init] | {"capsize": 3, "linewidth": 1.8, "elinewidth": 1.2, "markersize": 6}
    error_bars(axes, at, middle, low, high, label=INITS[init], **style)
    once = part["subsets"] * part["seeds"] == 1  # one run: its interval is that of the patients alone
    axes.plot(at[once], middle[once], style["marker"], color="white", markeredgecolor=style["color"], zorder=5)


def _tested(dataset: str) -> str:
    runs_recorded = entries.recorded(record.REFERENCE)["runs"]
    return record.tested(entries.matching(runs_recorded, {"dataset": dataset, "scale": SCALE})[0])


def fill(text_of_page: str) -> str:
    """The README, or docs/results.md, with the findings between its markers.

    Raises:
        CourseError: it has no such markers.
    """
    return entries.block(text_of_page, "findings", text(), page="the page")


def draw(into: Path = PICTURE) -> None:
    """Save the picture with the fingerprint of its numbers, unless the file has these already."""
    lengths_of = lengths()
    source = fingerprint(lengths_of)
    if into.exists() and drawn_from(into) == source:
        return
    with atomic(into) as temporary:
        metadata = {"Source": source, "Software": None}
        picture(lengths_of).savefig(temporary, format="png", dpi=110, bbox_inches="tight", metadata=metadata)


def drawn_from(path: Path) -> str | None:
    """The fingerprint in a saved picture."""
    from PIL import Image

    with Image.open(path) as image:
        return image.info.get("Source")
