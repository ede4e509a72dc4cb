"""What was run, into the record; and the record, into README and chapters.

python -m course.records record runs/phantom/laptop                      # a finished course
python -m course.records record runs/phantom/laptop/studies/mask_ratio   # a finished study
python -m course.records readme                                          # README.md, cost boxes, docs/speed.md
"""

import sys
from pathlib import Path

from course.records import claims, costs, record, speed
from ssl_utils.errors import CourseError
from ssl_utils.experiments import runs
from ssl_utils.files import atomic

USAGE = "usage: python -m course.records record RUN_OR_STUDY_DIR | readme"


def keep(folder: Path) -> None:
    """Put a finished course or study into json_files, with its expected figures and the claims it answers."""
    if folder.parent.name != "studies":
        record.record(folder)
        costs.record(folder)
        for name in record.expected(folder):
            record.expected_figure(folder, name)
    claims.record(folder)


def write_readme() -> None:
    page = runs.PROJECT / "README.md"
    text = claims.readme(record.readme(page.read_text(encoding="utf-8")))
    with atomic(page) as temporary:
        temporary.write_text(text, encoding="utf-8")
    costs.fill()
    speed.fill()


if __name__ == "__main__":
    try:
        match sys.argv[1:]:
            case ["record", folder]:
                keep(Path(folder).resolve())
            case ["readme"]:
                write_readme()
            case _:
                sys.exit(USAGE)
    except CourseError as error:
        sys.exit(f"error: {error}")
