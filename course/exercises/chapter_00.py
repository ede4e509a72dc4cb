"""Checks for chapter 00: counting trainings, who may be seen, which run is done."""

from pathlib import Path
from typing import Any

from course.exercises import Wrong, exercise, number
from ssl_utils.data.cases import Case, Datalist


@exercise("00.1")
def _(trainings: Any) -> str:
    starts = ["random", "restoration", "simmim"]
    courses = {(3, 1, 1): 11, (3, 2, 1): 20, (1, 3, 3): 29, (2, 3, 2): 38}  # label counts, draws, seeds -> by hand
    for (counts, draws, seeds), right in courses.items():
        found = number(trainings(starts, [6, 12, 24][:counts], draws, seeds))
        if found != right:
            raise Wrong(
                f"For the starts {', '.join(starts)}, {counts} label counts, {draws} draws and {seeds} seeds you count "
                f"{found:g}, which is {'too few' if found < right else 'too many'}."
            )
    if number(trainings(["random"], [6, 12], 2, 1)) != 4:
        raise Wrong("Think of a course with the random start alone: what is there to pretrain?")
    return "Repeats multiply the fine-tunings; an encoder is pretrained once and used in all of them."


def _datalist() -> Datalist:
    """Six patients; Dora was scanned twice, and once by mistake put on the test side."""

    def cases(*people: str, labelled: bool = True) -> tuple[Case, ...]:
        return tuple(
            Case(f"{name}_{i}", Path("image.nii.gz"), Path("label.nii.gz") if labelled else None, name)
            for i, name in enumerate(people)
        )

    return Datalist(
        name="toy",
        channels=("CT",),
        labels={0: "background", 1: "organ"},
        licence="CC0",
        unlabeled=cases("Ada", "Ben", "Dora", labelled=False),
        training=cases("Cyd", "Ben"),
        validation=cases("Eve"),
        test=cases("Dora", "Finn"),
    )


@exercise("00.2")
def _(allowed: Any) -> str:
    found = allowed(_datalist())
    if not isinstance(found, set | frozenset | list | tuple) or not all(isinstance(name, str) for name in found):
        raise Wrong("A set of patients is wanted: the `patient` of the cases, not the cases.")
    found, scored = set(found), {"Dora", "Eve", "Finn"}
    if found & scored == {"Dora"}:
        raise Wrong("In our toy datalist somebody of the test side has a second scan in the pool, and you let her in.")
    if found & scored:
        raise Wrong(f"{len(found & scored)} patients who are scored later are among them.")
    if found != {"Ada", "Ben", "Cyd"}:
        raise Wrong(f"You have {len(found)} patients of our datalist; pretraining may see others as well, or fewer.")
    return "The rule is about patients, not about files: nobody who is scored has been seen."


@exercise("00.3")
def _(state: Any) -> str:
    folders = [
        ({"config.json", "history.csv", "model.safetensors", "per_case.csv", "metrics.json"}, "done"),
        ({"config.json", "history.csv", "last.ckpt"}, "unfinished"),
        (set(), "empty"),
        ({"config.json", "model.safetensors", "per_case.csv"}, "unfinished"),
        ({"metrics.json"}, "done"),
    ]
    for files, right in folders:
        found = state(set(files))
        if not isinstance(found, str) or found not in ("done", "unfinished", "empty"):
            raise Wrong('The answer must be one of "done", "unfinished" and "empty".')
        if found != right:
            raise Wrong(f"A folder with {', '.join(sorted(files)) or 'no file'} is not {found}.")
    return "One file, written last, makes the difference between begun and done."


WRONG = {
    "00.1": [
        lambda starts, counts, draws, seeds: 0,
        lambda starts, counts, draws, seeds: len(starts) * len(counts) * draws * seeds,
        lambda starts, counts, draws, seeds: len(starts) * len(counts) * draws * seeds + len(starts),
        lambda starts, counts, draws, seeds: len(starts) * (len(counts) * draws * seeds + 1) - draws,
        lambda starts, counts, draws, seeds: len(starts) * len(counts) * draws * seeds + 2,
    ],
    "00.2": [
        lambda datalist: set(),
        lambda datalist: {case.patient for side in ("unlabeled", "training") for case in datalist.sides()[side]},
        lambda datalist: {case.patient for cases in datalist.sides().values() for case in cases},
        lambda datalist: {case.patient for case in datalist.training},
        lambda datalist: {case.id for case in datalist.training},
    ],
    "00.3": [
        lambda files: "done",
        lambda files: "done" if "model.safetensors" in files else "unfinished" if files else "empty",
        lambda files: "done" if "metrics.json" in files else "unfinished",
        lambda files: "finished" if "metrics.json" in files else "",
        lambda files: "metrics.json" in files,
    ],
}
