"""Checks for chapter 00: counting trainings, patients allowed in pretraining, the state of a run."""

from pathlib import Path
from typing import Any

from course.exercises import Wrong, exercise, number
from ssl_utils.data.cases import Case, Datalist


@exercise("00.1")
def _(trainings: Any) -> str:
    inits = ["random", "restoration", "simmim"]
    courses = {(3, 1, 1): 11, (3, 2, 1): 20, (1, 3, 3): 29, (2, 3, 2): 38}  # label counts, subsets, seeds -> by hand
    for (counts, subsets, seeds), right in courses.items():
        total = number(trainings(inits, [6, 12, 24][:counts], subsets, seeds))
        if total != right:
            case = f"{', '.join(inits)}, {counts} label counts, {subsets} label subsets and {seeds} seeds"
            raise Wrong(f"For {case} you count {total:g}, which is {'too few' if total < right else 'too many'}.")
    if number(trainings(["random"], [6, 12], 2, 1)) != 4:
        raise Wrong("Think of a course with init=random alone: what is there to pretrain?")
    return "Repeats multiply the fine-tunings; an encoder is pretrained once and used in all of them."


def _datalist() -> Datalist:
    """Six patients; one scan of Dora is in the pool, the other by mistake in the test set."""

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
    patients = allowed(_datalist())
    if not isinstance(patients, set | frozenset | list | tuple) or not all(isinstance(name, str) for name in patients):
        raise Wrong("A set of patients is wanted: the `patient` of the cases, not the cases.")
    patients, scored = set(patients), {"Dora", "Eve", "Finn"}
    if patients & scored == {"Dora"}:
        raise Wrong("In our toy datalist a test patient has a second scan in the pool, which you include.")
    if patients & scored:
        raise Wrong(f"{len(patients & scored)} patients who are scored later are among them.")
    if patients != {"Ada", "Ben", "Cyd"}:
        raise Wrong(f"You have {len(patients)} patients of our datalist; the right set is another one.")
    return "The rule is about patients, not about files: no patient who is scored is used for training."


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
        answer = state(set(files))
        if not isinstance(answer, str) or answer not in ("done", "unfinished", "empty"):
            raise Wrong('The answer must be one of "done", "unfinished" and "empty".')
        if answer != right:
            raise Wrong(f"A folder with {', '.join(sorted(files)) or 'no file'} is not {answer}.")
    return "One file, written last, makes the difference between begun and done."
