"""The chapters that the graph runs, and the part of the course that each belongs to.

Chapters that pretrain are those of the registry of pretext tasks, under their own names.
"""

from collections.abc import Collection

from ssl_utils.errors import CourseError
from ssl_utils.pretext import TASKS

FIRST = ("00_start_here", "01_data_inspection")  # one after the other, before everything else
FINETUNING = "04_unetr_finetuning"  # once per init, number of labels, subset and seed
# with runs of their own, which no other chapter needs
OWN = ("12_brain_tumours", "13_soups_ensembles", "14_synthetic_volumes", "15_sweeps_sharing")
LAST = {"05_results": (1,), "10_all_tasks": (1, 2), "16_dice_conventions": (1,)}  # -> parts whose fine-tunings it reads
PARTS = (1, 2, 3)


def part_of(chapter: str) -> int:
    """1 for chapters 00 to 05, 2 for 06 to 10, 3 for the rest."""
    number = int(chapter[:2])
    return 1 if number <= 5 else 2 if number <= 10 else 3


def tasks_of(parts: Collection[int]) -> list[str]:
    """The pretext tasks that these parts train, in the order of the registry."""
    return [task for task, entry in TASKS.items() if part_of(entry.chapter) in parts]


def chapters_of(parts: Collection[int]) -> list[str]:
    """Every chapter of these parts, in order."""
    pretraining = [entry.chapter for entry in TASKS.values()]
    return sorted({c for c in (*FIRST, *pretraining, FINETUNING, *OWN, *LAST) if part_of(c) in parts})


def chosen_parts(text: str) -> list[int]:
    """`2` -> [1, 2]: part I is always included, for the comparison; `all` -> [1, 2, 3].

    Raises:
        CourseError: no such part.
    """
    if text == "all":
        return list(PARTS)
    if text not in map(str, PARTS):
        raise CourseError(f"part={text!r}: no such part; choose {', '.join(map(str, PARTS))} or all")
    return sorted({1, int(text)})
