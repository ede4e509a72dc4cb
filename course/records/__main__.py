"""What was run, into the record; and the record, into README, docs and chapters.

python -m course.records record runs/phantom/laptop                      # a finished course
python -m course.records record runs/phantom/laptop/studies/mask_ratio   # a finished study
python -m course.records record runs/brain_phantom/laptop/chapters/13_soups_ensembles   # chapters 13 and 14
python -m course.records table runs/phantom/laptop 2                     # results of part 2, beside those of part 1
python -m course.records readme                                          # README.md, docs, cost boxes, badges
"""

import sys
from pathlib import Path

from course.chapters import chosen_parts, tasks_of
from course.records import address, claims, costs, findings, record, speed
from ssl_utils.errors import CourseError
from ssl_utils.experiments import runs
from ssl_utils.files import write_text

USAGE = "usage: python -m course.records record RUN_OR_STUDY_DIR | table RUN_DIR PART | readme"


def keep(folder: Path) -> None:
    """Put a finished course or study into json_files, with its expected figures and the claims it answers."""
    if folder.parent.name in ("studies", "chapters"):
        if folder.name == "all_tasks":
            record.expected_curves(folder)
        return claims.record(folder)
    record.record(folder)
    for name in record.expected(folder):
        record.expected_figure(folder, name)
    claims.record(folder)
    try:
        costs.record(folder)
    except CourseError as error:  # of a course through Slurm, or in several goes
        print(f"its costs are left out: {error}")


def write_table(folder: Path, part: str) -> None:
    """results_part2.md and its tables: the runs of this part beside those of part I."""
    from ssl_utils.statistics import tables

    names = runs.inits(folder, tasks_of(chosen_parts(part)))
    tables.write_results(folder, runs.collect(folder, names=names), name=f"results_part{part}")


def write_readme() -> None:
    readme, results = runs.PROJECT / "README.md", runs.PROJECT / "docs" / "results.md"
    write_text(readme, findings.fill(readme.read_text(encoding="utf-8")))
    write_text(results, findings.fill(claims.fill(record.fill(results.read_text(encoding="utf-8")))))
    findings.draw()
    costs.fill()
    speed.fill()
    address.fill()


if __name__ == "__main__":
    try:
        match sys.argv[1:]:
            case ["record", folder]:
                keep(Path(folder).resolve())
            case ["table", folder, part]:
                write_table(Path(folder).resolve(), part)
            case ["readme"]:
                write_readme()
            case _:
                sys.exit(USAGE)
    except CourseError as error:
        sys.exit(f"error: {error}")
