"""Costs come from a measured run, and README, docs and chapters say what was recorded."""

import json
import re

import pytest

from course.chapters import chapters_of, tasks_of
from course.records import address, claims, costs, record
from course.records.__main__ import keep
from ssl_utils.errors import CourseError
from ssl_utils.experiments import runs, scales
from ssl_utils.files import read_json, write_json

CHAPTERS = chapters_of([1])
SECOND = CHAPTERS[2]


def measured(course, chapters=CHAPTERS, parts=(1,)):
    write_json(course / ".course" / "config.json", {"parts": parts})
    seconds = dict.fromkeys([*chapters, "table"], 30.0)  # the table of a later part is a step, no chapter
    report = {"seconds": 90.0, "cores": 2, "parts": 14, "peak_bytes": 2.5e9, "chapters": seconds}
    write_json(course / "costs.json", report)
    for chapter in chapters:
        write_json(course / "chapters" / chapter / "done.json", {"peak_memory_gb": 0.7})
    run = course / "finetune" / "random" / "n6" / "subset0_seed0"
    write_json(run / "metrics.json", {"device": "cpu"})
    write_json(run / "config.json", {"commit": "abc", "started": "2026-01-02T03:04:05", "versions": {}, "settings": {}})
    return course


def test_a_measured_course_reaches_readme_and_chapters(tmp_path):
    course = measured(tmp_path / "phantom" / "laptop")
    costs.record(course, into=tmp_path / "costs.json")
    found = read_json(tmp_path / "costs.json")
    page = costs.page("before <!-- costs -->old<!-- /costs --> after", found)
    assert "phantom, laptop" in page and "1.5" in page and "2.5 GB" in page and "old" not in page
    box = f"# T\n\n<!-- cost:{SECOND} -->\n\n| scale | minutes |\n|---|---|\n| x | 999 |\n\nText | stays"
    filled = costs.boxes(box, found)
    assert "0.5" in filled and "0.7 GB" in filled and "999" not in filled and filled.endswith("\n\nText | stays")
    row = f"| [02 Two](notebooks/{SECOND}.ipynb) | do it | 9 |"
    assert costs.page(row, found) == f"| [02 Two](notebooks/{SECOND}.ipynb) | do it | 0.5 |"
    chapters = costs.page("<!-- chapters --><!-- /chapters -->", found)
    assert re.search(
        rf"\({re.escape(f'../notebooks/{SECOND}.ipynb')}\) *\| used if there \| +\| +\| 0.5 +\| 0.7 GB", chapters
    )
    assert costs.boxes(filled, found) == filled and costs.page(page, found) == page


def test_a_course_that_was_only_continued_is_not_recorded(tmp_path):
    with pytest.raises(CourseError, match="run a whole one"):
        costs.record(measured(tmp_path / "phantom" / "laptop", CHAPTERS[:2]), into=tmp_path / "costs.json")


def test_results_are_recorded_where_costs_cannot_be(tmp_path, monkeypatch, capsys):
    """Of a course through Slurm, which measures none, and of one that was only continued."""
    order = []
    monkeypatch.setattr(record, "record", lambda folder: order.append("results"))
    monkeypatch.setattr(record, "expected", lambda folder: ["figure"])
    monkeypatch.setattr(record, "expected_figure", lambda folder, name: order.append(name))
    monkeypatch.setattr(claims, "record", lambda folder: order.append("claims"))
    course = measured(tmp_path / "phantom" / "laptop", CHAPTERS[:2])
    for reason in ("did not run in its last course", "costs.json: no such file"):
        keep(course)
        said = capsys.readouterr().out
        assert said.startswith("its costs are left out: ") and reason in said and said.count("\n") == 1
        (course / "costs.json").unlink(missing_ok=True)
    assert order == ["results", "figure", "claims"] * 2


def test_a_record_of_a_later_part_alone_is_no_row_of_whole_courses(tmp_path):
    into = tmp_path / "costs.json"
    tuned = [*chapters_of([2]), "04_unetr_finetuning"]
    costs.record(measured(tmp_path / "phantom" / "laptop", tuned, parts=[1, 2]), into=into)
    found = read_json(into)
    assert costs.courses(found) == "No recorded run yet." and "not measured yet" in costs.commands(found)
    assert "0.5" in costs.chapters(found)


def test_a_later_part_adds_its_chapters_and_leaves_the_rest(tmp_path):
    course, into = tmp_path / "phantom" / "laptop", tmp_path / "costs.json"
    costs.record(measured(course), into=into)
    before = read_json(into)["phantom"]["laptop"]
    tuned = [*chapters_of([2]), "04_unetr_finetuning"]
    costs.record(measured(course, tuned, parts=[1, 2]), into=into)
    after = read_json(into)["phantom"]["laptop"]
    assert set(after["chapters"]) == {*CHAPTERS, *chapters_of([2])} and after["seconds"] == before["seconds"]
    with pytest.raises(CourseError, match="did not run"):
        costs.record(measured(course, tuned[1:], parts=[1, 2]), into=into)


def test_readme_and_chapters_say_what_is_recorded():
    recorded = read_json(costs.REFERENCE) if costs.REFERENCE.exists() else {}
    for name in costs.PAGES:
        page = (runs.PROJECT / name).read_text(encoding="utf-8")
        assert costs.page(page, recorded) == page, f"{name}; run: python -m course.records readme"
    boxed, chapters = 0, sorted((runs.PROJECT / "notebooks").glob("[0-9]*.ipynb"))
    for path in chapters:
        for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
            text = "".join(cell["source"])
            if cell["cell_type"] == "markdown" and costs.BOX.search(text):
                boxed += 1
                assert costs.boxes(text, recorded) == text, f"{path.name}: run the command that fills README"
    assert boxed == len(chapters)


def test_a_course_that_was_measured_with_other_parts_is_called_a_guide(tmp_path):
    course, into = tmp_path / "phantom" / "laptop", tmp_path / "costs.json"
    costs.record(measured(course), into=into)
    found, today = read_json(into), costs.parts_today("laptop")
    found["phantom"]["laptop"]["parts"] = today
    assert "only a guide" not in costs.courses(found) and "notebooks; today" not in costs.commands(found)
    found["phantom"]["laptop"]["parts"] = today + 7
    assert costs.courses(found).endswith("only a guide: phantom, laptop.")
    assert f"it ran {today + 7} notebooks; today it runs {today}." in costs.commands(found)


def test_the_parts_of_today_are_those_of_the_graph():
    single, tuned = chapters_of([1]), len(scales.get("laptop").num_labeled)
    assert costs.parts_today("laptop") == len(single) - 1 + tuned * (1 + len(tasks_of([1])))


def test_the_commands_hold_the_address_once_there_is_one(monkeypatch):
    assert "git clone <address of this repository> ssl3d" in costs.commands({})
    monkeypatch.setattr(address, "repository", lambda: "https://example.org/a/b")
    assert "git clone https://example.org/a/b ssl3d && cd ssl3d" in costs.commands({})


def test_expected_figures_say_where_they_are_from(tmp_path):
    course = measured(tmp_path / "phantom" / "laptop")
    with pytest.raises(CourseError, match="run chapter 05_results first"):
        record.expected_figure(course, into=tmp_path)
    (course / "figures").mkdir()
    (course / "figures" / "05_results_dice_against_labels.png").write_bytes(b"png")
    kept = record.expected_figure(course, into=tmp_path)
    assert kept.read_bytes() == b"png" and read_json(tmp_path / "provenance.json")[kept.name]["commit"] == "abc"
    study = course / "studies" / "all_tasks"
    with pytest.raises(CourseError, match=r"curves.png: no such file; run chapter 10_all_tasks first"):
        record.expected_curves(study, into=tmp_path)
    study.mkdir(parents=True)
    (study / "curves.png").write_bytes(b"lines")
    kept = record.expected_curves(study, into=tmp_path)
    assert kept.name == "expected_learning_curves_phantom_laptop.png" and kept.read_bytes() == b"lines"
    assert read_json(tmp_path / "provenance.json")[kept.name]["chapter"] == "10_all_tasks"


def test_the_default_course_gives_every_chapter_its_picture_and_another_one_the_result(tmp_path):
    for course, names in (
        ("phantom/laptop", ["dice_against_labels", "first_patient"]),
        ("phantom/smoke", ["dice_against_labels"]),
    ):
        (tmp_path / course / "figures").mkdir(parents=True)
        (tmp_path / course / "figures" / "00_start_here_first_patient.png").write_bytes(b"png")
        assert record.expected(tmp_path / course) == names


@pytest.mark.parametrize("name", record.EXPECTED)
def test_every_chapter_keeps_the_figure_to_expect(name):
    """A chapter that renames its figure would leave the picture to expect behind."""
    chapter, figure = record.EXPECTED[name]
    cells = read_json(runs.PROJECT / "notebooks" / f"{chapter}.ipynb")["cells"]
    code = "".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
    # chapter 04 is run once per start: its figures end on the run, `validation_{tag}`
    assert f'"{figure}"' in code or f'"{figure.split("_random_")[0]}_{{tag}}"' in code
    assert (record.FIGURES / f"expected_{name}_phantom_laptop.png").is_file()


def test_every_expected_figure_has_a_provenance():
    figures = {path.name for path in record.FIGURES.glob("expected_*.png")}
    provenance = record.FIGURES / "provenance.json"
    assert figures == set(read_json(provenance) if provenance.exists() else {})
