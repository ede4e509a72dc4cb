"""Datalists: which case is in which split, and what is wrong with that. `lists` makes them from files and folders."""

from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

from ssl_utils.data.cases import Case, Datalist, in_turn, label_subset, split_by_patient
from ssl_utils.data.lists.layouts import has_layout
from ssl_utils.data.lists.msd import read, write
from ssl_utils.data.lists.own_folder import as_listed, from_folder, leftovers, overlooked
from ssl_utils.data.lists.patients import why_one

__all__ = ["POOL", "Case", "Datalist", "as_listed", "faults", "from_folder", "grouped", "has_layout"]
__all__ += ["in_turn", "label_subset", "leaks", "leftovers", "overlooked", "read", "split_by_patient", "write"]

POOL = ("training", "unlabeled")  # what pretraining may see: one split as far as leaks go
ONE_SPLIT = "keep a patient in one split (dataset.json may name each case's patient, where file names mislead)"


def faults(datalist: Datalist) -> list[tuple[str, str, str]]:
    """(case, reason, fix) of what can be found without reading a voxel: missing file, image without label, duplicate,
    patient in two splits."""
    errors = []
    for split, cases in datalist.sides().items():
        for case in cases:
            for kind, path in case.files:
                if not path.exists():
                    errors.append((case.id, f"its {kind} {path} is missing", "put the file there or delete the entry"))
            if case.label is None and datalist.labels and split != "unlabeled":
                errors.append((case.id, f"is in {split} without a label", "name its label or move it to unlabeled"))
    for patient, splits in leaks(datalist).items():
        members = " and ".join(f"{split} ({_some(ids)})" for split, ids in splits.items())
        first = next(iter(splits.values()))[0]
        errors.append((first, f"its patient {patient} is in {members}", ONE_SPLIT))
    return errors + list(_duplicates(datalist))


def leaks(datalist: Datalist) -> dict[str, dict[str, list[str]]]:
    """Patients in two splits or more: patient -> split -> case ids. Training and unlabeled are one split, "pool"."""
    ids_of: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for split, cases in datalist.sides().items():
        for case in cases:
            ids_of[case.patient]["pool" if split in POOL else split].append(case.id)
    shared = {patient: splits for patient, splits in sorted(ids_of.items()) if len(splits) > 1}
    return {patient: {split: sorted(ids) for split, ids in splits.items()} for patient, splits in shared.items()}


def grouped(datalist: Datalist) -> list[str]:
    """A line per patient with several cases, most cases first: how many, which, and why they count as one patient."""
    cases_of: dict[str, list[Case]] = defaultdict(list)
    for case in dict.fromkeys(datalist.all_cases()):
        cases_of[case.patient].append(case)
    lines = []
    for patient, cases in sorted(cases_of.items(), key=lambda group: (-len(group[1]), group[0])):
        if len(cases) > 1:
            why = why_one(patient, [(case.id, case.files[0][1].as_posix()) for case in cases])
            lines.append(f"{patient}: {len(cases)} cases ({_some(sorted(case.id for case in cases))}), {why}")
    return lines


def _duplicates(datalist: Datalist) -> Iterable[tuple[str, str, str]]:
    entries: dict[tuple[str, str], list[tuple[str, str]]] = defaultdict(list)
    for split, cases in datalist.sides().items():
        for case in cases:
            for kind, name in (("case id", case.id), *case.files):
                entries[kind, str(name)].append((case.id, split))
    errors = {}  # one error for entries that share several things
    for (kind, name), same in entries.items():
        if len(same) > 1:
            listed = " and ".join(f"{case} ({split})" for case, split in same)
            shared = kind if kind == "case id" else f"{kind} {Path(name).name}"
            reason = f"its {shared} is listed {len(same)} times: {listed}"
            errors.setdefault(tuple(same), (same[0][0], reason, "delete all but one of the entries"))
    return errors.values()


def _some(ids: list[str]) -> str:
    return ", ".join(ids[:3]) + (f" and {len(ids) - 3} more" if len(ids) > 3 else "")
