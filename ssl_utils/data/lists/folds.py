"""Lists for cross-validation: training cases have a fold, 0 to 4, or -1, which is always training (BraTS-UGRIP)."""

from collections.abc import Collection, Sequence
from itertools import cycle
from pathlib import Path

from ssl_utils.data.cases import Case, Datalist, by_patient
from ssl_utils.data.dataset import Dataset
from ssl_utils.data.lists import msd
from ssl_utils.errors import CourseError
from ssl_utils.files import read_json, write_json

ALWAYS = -1  # the fold of cases that no model is validated on: synthetic ones, or those of another hospital


def folds_of(cases: Sequence[Case], *, folds: int = 5, always: Collection[str] = (), seed: int = 0) -> dict[str, int]:
    """Case id -> fold. All cases of a patient are in one fold, and the patients of each site are spread over all folds
    as evenly as possible. Cases of the sites `always` get -1.

    Raises:
        CourseError: fewer patients than folds, or fewer than two folds.
    """
    groups = by_patient(cases, seed=seed)
    tested = [group for group in groups if not any(case.site in always for case in group)]
    if not 2 <= folds <= len(tested):
        raise CourseError(f"folds={folds}: there are {len(tested)} patients to be tested on; choose 2 to that many")
    number = cycle(range(folds))
    fold_of = {case.id: ALWAYS for group in groups for case in group}
    for group in sorted(tested, key=lambda group: group[0].site):  # one site after the other, taking turns
        fold = next(number)
        fold_of |= {case.id: fold for case in group}
    return {case.id: fold_of[case.id] for case in cases}


def write(datalist: Datalist, path: Path, *, root: Path, fold_of: dict[str, int], fold: int = 0) -> None:
    """Write the training cases of a list with their folds, in the form of BraTS-UGRIP; `fold` is validation when it is
    read again."""
    msd.write(datalist, path, root=root)
    content = read_json(path)
    entries = zip(content["training"], datalist.training, strict=True)
    content["training"] = [entry | {"fold": fold_of[case.id]} for entry, case in entries]
    write_json(path, content | {"validation": [], "fold": fold})


def read(path: Path, dataset: Dataset, *, root: Path) -> Datalist:
    """The list of a named dataset, which says what channels and label values mean: a published file has only cases.

    Raises:
        CourseError: as `msd.read`.
    """
    known = {
        "name": path.stem,
        "channels": list(dataset.channels),
        "labels": dataset.labels,
        "regions": dataset.regions or {},
    }
    known |= {"licence": dataset.licence, "reference": dataset.source}
    content = read_json(path)
    return msd.parse({**known, **content} if isinstance(content, dict) else content, path, root=root)
