"""The recorded results: from a finished course into json_files, from there into docs/results.md."""

import shutil
from pathlib import Path

import pandas as pd

from course.records import entries
from ssl_utils import statistics
from ssl_utils.errors import CourseError
from ssl_utils.experiments import runs
from ssl_utils.files import atomic, read_json, write_json
from ssl_utils.statistics import savings, tables

REFERENCE = runs.PROJECT / "json_files" / "reference_results.json"
FIGURES = runs.PROJECT / "figures"
EXPECTED = {  # an expected figure -> its chapter, and its name there
    "dice_against_labels": ("05_results", "dice_against_labels"),
    "first_patient": ("00_start_here", "first_patient"),
    "restoration_curve": ("02_augmentation_pretraining", "curve"),
    "simmim_curve": ("03_simmim_masking", "curve"),
    "voxel_clusters_cross_entropy": ("07_voxel_clusters", "cross_entropy"),
    "weight_inflation_curve": ("11_weight_inflation", "curve"),
    "finetuning_validation": ("04_unetr_finetuning", "validation_random_n6_subset0_seed0"),
}
NUMBERS = {  # table of the record -> its columns in points
    "label_efficiency": ["dice", "low", "high"],
    "gains": ["gain", "low", "high", "relative"],
    "labels_saved": ["dice"],
}
OF_PRETRAINING = ("seconds", "volumes", "baselines", "first", "last")


def record(course_dir: Path | str, *, into: Path = REFERENCE) -> None:
    """Put a finished course into the record, in place of an earlier one of the same dataset and scale.

    Raises:
        CourseError: it has no finished fine-tuning, or runs of different code or data.
    """
    course_dir = Path(course_dir).resolve()
    if odd := runs.unlike(course_dir):
        raise CourseError(f"{course_dir}: its runs were not made alike ({'; '.join(odd)}); run the odd ones again")
    name, per_case = {"dataset": course_dir.parent.name, "scale": course_dir.name}, runs.collect(course_dir)
    made = [read_json(path.parent / "config.json") | read_json(path) for path in runs.finished(course_dir)]
    inits, paths = {m["init"] for m in made}, sorted(course_dir.glob("pretrain/*/metrics.json"))
    pretrained = {path.parent.name: read_json(path) for path in paths if path.parent.name in inits}
    scored = per_case.dropna(subset="dice")
    run = {
        **name,
        "date": max(m["finished"] for m in made)[:10],
        **_made(made),
        "versions": made[-1]["versions"],
        "data": entries.data(made),
        "cases": int(scored["case"].nunique()),
        "patients": int(scored["patient"].nunique()),
        "pretraining": {task: {key: m[key] for key in OF_PRETRAINING if key in m} for task, m in pretrained.items()},
    }
    cells = [  # seconds: of one fine-tuning and its test, without the pretraining
        {**name, **row, **_made(entries.matching(made, {key: row[key] for key in statistics.CELL}))}
        for row in entries.in_points(statistics.summary(per_case), NUMBERS["label_efficiency"])
    ]
    gains, saved = statistics.gains(per_case), _in_words(savings.labels_saved(per_case))
    new = {"runs": [run], "label_efficiency": cells} | {
        key: [{**name, **row} for row in entries.in_points(table, NUMBERS[key])]
        for key, table in (("gains", gains), ("labels_saved", saved))
    }
    old = entries.recorded(into)
    whole = {key: entries.matching(old.get(key, []), name, others=True) + rows for key, rows in new.items()}
    write_json(into, {key: sorted(rows, key=lambda row: (row["dataset"], row["scale"])) for key, rows in whole.items()})


def expected(course_dir: Path) -> list[str]:
    """The figures to keep of a course: of the default course those of all chapters, of another one the result."""
    names = list(EXPECTED) if course_dir.parts[-2:] == ("phantom", "laptop") else []
    drawn = [name for name in names if (course_dir / "figures" / f"{'_'.join(EXPECTED[name])}.png").exists()]
    return list(dict.fromkeys(["dice_against_labels", *drawn]))


def expected_figure(course_dir: Path | str, name: str = "dice_against_labels", *, into: Path = FIGURES) -> Path:
    """Keep a figure of the course as the expected one, with its provenance.

    Raises:
        CourseError: the chapter did not draw it, or no fine-tuning is finished.
    """
    course_dir, (chapter, figure) = Path(course_dir).resolve(), EXPECTED[name]
    return _keep(course_dir / "figures" / f"{chapter}_{figure}.png", course_dir, name, chapter=chapter, into=into)


def expected_curves(study: Path | str, *, into: Path = FIGURES) -> Path:
    """Keep the learning curves of a study of all tasks as those to expect, for chapter 10."""
    study = Path(study).resolve()
    return _keep(study / "curves.png", study.parents[1], "learning_curves", chapter="10_all_tasks", into=into)


def _keep(drawn: Path, course_dir: Path, name: str, *, chapter: str, into: Path) -> Path:
    dataset, scale, made = course_dir.parent.name, course_dir.name, runs.finished(course_dir)
    if not drawn.exists() or not made:
        raise CourseError(f"{drawn}: no such file; run chapter {chapter} first")
    target = into / f"expected_{name}_{dataset}_{scale}.png"
    with atomic(target) as temporary:
        shutil.copyfile(drawn, temporary)
    config, provenance = read_json(made[0].parent / "config.json"), into / "provenance.json"
    about = {"chapter": chapter, "dataset": dataset, "scale": scale, "commit": config["commit"]}
    about["date"] = config["started"][:10]
    write_json(provenance, entries.recorded(provenance) | {target.name: about})
    return target


def _made(runs: list[dict]) -> dict[str, str | float]:
    """Devices, commits and mean seconds of these runs."""
    return {**entries.made(runs), "seconds": round(entries.seconds(runs) / len(runs), 1)}


def _in_words(saved: pd.DataFrame) -> pd.DataFrame:
    """Labels beyond the baseline's curve as `>24`, since JSON has no infinity."""

    def text(row: pd.Series, name: str) -> float | str | None:
        known = 0 < row[name] < float("inf")
        return round(row[name], 2) if known else savings.needs_text(row[name], row["fewest"], row["most"])

    return saved.assign(**{name: [text(row, name) for _, row in saved.iterrows()] for name in ("needs", "low", "high")})


def fill(text: str, *, results: dict | None = None) -> str:
    """docs/results.md with the recorded results (default: those in json_files) between its markers.

    Raises:
        CourseError: it has no `<!-- results -->` and `<!-- /results -->`.
    """
    results = entries.recorded(REFERENCE) if results is None else results
    parts = [tables.POINTS] if results.get("runs") else ["No recorded run yet."]
    for run in results.get("runs", []):
        name = {key: run[key] for key in ("dataset", "scale")}
        cells, gains = (
            entries.fractions(entries.matching(results[table], name), NUMBERS[table])
            for table in ("label_efficiency", "gains")
        )
        parts.append(f"**{run['dataset']}, scale {run['scale']}** ({tested(run)}, {run['device']}, {run['date']})")
        parts += [tables.markdown(tables.label_efficiency(part)) for part in tables.split(cells) if len(part)]
        if len(gains):
            parts += [tables.markdown(tables.gain_table(part)) for part in tables.split(gains) if len(part)]
            parts.append(tables.gain_note(gains))
        parts.append(tables.limits(cells, run["scale"]))
    return entries.block(text, "results", "\n\n".join(parts), page="docs/results.md")


def tested(run: dict) -> str:
    """`110 test cases of 71 patients`, `20 test cases`: where a patient has several, they are fewer than the cases."""
    patients = run.get("patients", run["cases"])
    return f"{run['cases']} test cases" + (f" of {patients} patients" if patients != run["cases"] else "")
