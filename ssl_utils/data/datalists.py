"""Datalists: which case is on which side, and what is wrong with that. `lists` makes them from files and folders."""

from collections import defaultdict
from pathlib import Path

from ssl_utils.data.cases import Case, Datalist
from ssl_utils.data.lists.groups import by_patient, draw_labels, in_turn, split_by_patient
from ssl_utils.data.lists.msd import read, write
from ssl_utils.data.lists.own_folder import as_listed, from_folder, overlooked

__all__ = ["POOL", "Case", "Datalist", "as_listed", "by_patient", "draw_labels", "faults", "from_folder", "in_turn"]
__all__ += ["leaks", "overlooked", "problems", "read", "split_by_patient", "write"]

POOL = ("training", "unlabeled")  # what pretraining may see: one side as far as leaks go


def problems(datalist: Datalist) -> list[str]:
    """One line per fault that needs no voxel to be seen: the case, the reason, the cure."""
    return [f"{case}: {reason}; {cure}" for case, reason, cure in faults(datalist)]


def faults(datalist: Datalist) -> list[tuple[str, str, str]]:
    """(case, reason, cure): missing file, image without label, duplicate, patient on two sides."""
    found = []
    for side, cases in datalist.sides().items():
        for case in cases:
            for kind, path in (("image", case.image), ("label", case.label)):
                if path is not None and not path.exists():
                    found.append((case.id, f"its {kind} {path} is missing", "put the file there or delete the entry"))
            if case.label is None and datalist.labels and side != "unlabeled":
                found.append((case.id, f"is in {side} without a label", "name its label or move it to unlabeled"))
    for patient, sides in leaks(datalist).items():
        where = " and ".join(f"{side} ({_some(ids)})" for side, ids in sides.items())
        first = next(iter(sides.values()))[0]
        found.append((first, f"its patient {patient} is in {where}", "keep a patient on one side"))
    return found + _duplicates(datalist)


def leaks(datalist: Datalist) -> dict[str, dict[str, list[str]]]:
    """Patients on two sides or more: patient -> side -> case ids. Training and unlabeled are one side, "pool"."""
    places: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for side, cases in datalist.sides().items():
        for case in cases:
            places[case.patient]["pool" if side in POOL else side].append(case.id)
    shared = {patient: sides for patient, sides in sorted(places.items()) if len(sides) > 1}
    return {patient: {side: sorted(ids) for side, ids in sides.items()} for patient, sides in shared.items()}


def _duplicates(datalist: Datalist) -> list[tuple[str, str, str]]:
    places: dict[tuple[str, str], list[tuple[str, str]]] = defaultdict(list)
    for side, cases in datalist.sides().items():
        for case in cases:
            for kind, key in (("case", case.id), ("image", case.image), ("label", case.label)):
                if key is not None:
                    places[kind, str(key)].append((case.id, side))
    found: dict[tuple[tuple[str, str], ...], tuple[str, str, str]] = {}
    for (kind, key), where in places.items():
        if len(where) > 1:
            listed = " and ".join(f"{case} ({side})" for case, side in where)
            reason = f"its {kind} {'id' if kind == 'case' else Path(key).name} is listed {len(where)} times: {listed}"
            found.setdefault(tuple(where), (where[0][0], reason, "delete all but one of the entries"))
    return list(found.values())


def _some(ids: list[str]) -> str:
    return ", ".join(ids[:3]) + (f" and {len(ids) - 3} more" if len(ids) > 3 else "")
