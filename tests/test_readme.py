"""The README: short, with one picture that is a result, the commands, every chapter, and what the records support."""

import re
from pathlib import Path

import pytest

from course.chapters import PARTS, chapters_of
from course.records import costs, findings
from course.records.study_report import gain_text
from ssl_utils.errors import CourseError
from ssl_utils.files import read_json
from ssl_utils.statistics import intervals, tables

PROJECT = Path(__file__).resolve().parents[1]
README = (PROJECT / "README.md").read_text(encoding="utf-8")
DOCS = sorted((PROJECT / "docs").glob("*.md"))


def words(text: str) -> int:
    """What a reader reads, tables and captions included: no code block, no tag or comment, no address of a link."""
    for hidden in (r"^```.*?^```", r"<!--.*?-->", r"</?[a-z][^>]*>", r"\]\([^)]*\)"):
        text = re.sub(hidden, " ", text, flags=re.DOTALL | re.MULTILINE)
    return sum(any(letter.isalnum() for letter in word) for word in text.split())


def test_it_has_at_most_700_words():
    assert words(README) <= 700


def test_words_of_tables_count_and_those_of_code_do_not():
    text = (
        "# One\n\n<!-- cost -->\n```sh\nmake course\n```\n| two | [three](four.md) |\n|---|---|\n<b>x</b> - +1.0 `a b`"
    )
    assert words(text) == 7


def test_its_one_picture_is_a_result():
    (target,) = re.findall(r"!\[[^\]]*\]\(([^)]+)\)", README)
    assert PROJECT / target == findings.PICTURE and "<img" not in README


def test_the_commands_stand_in_a_block_of_code_near_the_top():
    (block, *_) = re.findall(r"^```sh\n(.*?)^```", README, re.DOTALL | re.MULTILINE)
    lines = block.splitlines()
    assert [line.split("#")[0].strip() for line in lines[1:]] == ["make course", "make test", "make lab"]
    assert all(re.search(r"# \d+ minutes: ", line) for line in lines[1:3]) and lines[0].startswith("git clone ")
    assert words(README[: README.index("make lab")]) < 150


@pytest.mark.parametrize("target", ["course", "test", "lab", "study", "site"])
def test_what_readme_and_docs_call_is_a_target(target):
    makefile = (PROJECT / "Makefile").read_text(encoding="utf-8")
    called = {
        word for path in (PROJECT / "README.md", *DOCS) for word in re.findall(r"\bmake ([a-z]+)", path.read_text())
    }
    targets = set(re.findall(r"^([a-z]+):", makefile, re.MULTILINE))
    assert target in called & targets


def test_every_chapter_and_every_page_is_listed():
    rows = re.findall(r"^\| \[\d\d [^\]]+\]\(notebooks/(\w+)\.ipynb\) \|", README, re.MULTILINE)
    assert rows == chapters_of(PARTS), "a row per chapter in README.md, in order"
    pages = {name for name in re.findall(r"\]\(docs/(\w+\.md)\)", README)}
    assert pages == {path.name for path in DOCS} - {"index.md"}
    listed = (PROJECT / "docs" / "index.md").read_text(encoding="utf-8").split("```{toctree}")[2].splitlines()
    assert {path.stem for path in DOCS} - {"index"} == set(listed) & {path.stem for path in DOCS}


def test_findings_and_picture_are_those_of_the_records():
    assert findings.fill(README) == README, "run: python -m course.records readme"
    results = (PROJECT / "docs" / "results.md").read_text(encoding="utf-8")
    assert findings.fill(results) == results, "run: python -m course.records readme"
    assert findings.drawn_from(findings.PICTURE) == findings.fingerprint(findings.lengths())
    with pytest.raises(CourseError, match="<!-- findings -->"):
        findings.fill("no findings here")


# What the sentences say must be so. Where a new record says something else, rewrite the sentence, then the test.


def test_training_longer_helps_more_than_pretraining():
    found = findings.lengths()
    for name in (findings.PHANTOM, "hippocampus"):
        longer = findings.point(found[name], "random", 4)
        assert longer.gain_low > 0, "the interval of the longer training is above zero"
        assert longer.dice > findings.point(found[name], findings.CLUSTERS, 1).dice
        training, pretraining = findings.seconds(name)
        assert training < pretraining
    for init, share in (("random", 4), (findings.CLUSTERS, 1)):
        row = findings.point(found["sarcoma"], init, share)
        assert row.gain_low < 0 < row.gain_high, "neither gave a measurable gain on the sarcomas"


def test_voxel_clusters_are_a_head_start_and_end_level():
    found = findings.lengths()
    mri = findings.gain("hippocampus", findings.CLUSTERS)
    assert mri.gain_low > 0 and mri.p < 0.05 < mri.p_holm and mri.runs == 9
    for row in (
        findings.gain(findings.PHANTOM, findings.CLUSTERS),
        findings.point(found["sarcoma"], findings.CLUSTERS, 1),
    ):
        assert row.gain_low < 0 < row.gain_high and row.subsets * row.seeds == 9
    for name in (findings.PHANTOM, "hippocampus"):
        clusters, scratch = (findings.point(found[name], task, 4) for task in (findings.CLUSTERS, "random"))
        assert abs(clusters.dice - scratch.dice) < 0.005, "level: within half a point"
        early = [findings.point(found[name], task, 0.5).dice for task in (findings.CLUSTERS, "random")]
        assert early[0] > early[1], "a head start"


def test_reconstruction_gave_no_reproducible_gain():
    for dataset, init in findings.REPEATED:
        row = findings.gain(dataset, init)
        assert row.gain_low < 0 < row.gain_high and row.runs == 9
    tried = set(findings.gains().query("dataset == 'hippocampus'")["init"])
    assert not tried & set(findings.RECONSTRUCTION), "docs/results.md says that it was not run there"


def test_no_task_won_at_equal_seconds_and_chapter_10_says_so_with_these_numbers():
    table, starts = findings.all_tasks()
    pretrained, seconds = table.dropna(subset="gain"), starts["seconds"]
    assert len(pretrained) == 7 and (table["subsets"] * table["seeds"] == 9).all()
    p = intervals.holm(pretrained["p"])
    assert min(p) > 0.05 and pretrained["gain"].abs().max() < 0.005 and seconds.idxmin() == "random"
    away = pretrained[pretrained["gain_low"] * pretrained["gain_high"] > 0].assign(p=sorted(p)[:2])
    assert away["task"].tolist() == ["genesis", "pcrlv2"]
    said = read_json(PROJECT / "notebooks/10_all_tasks.ipynb")["cells"]
    said = "".join("".join(cell["source"]) for cell in said if cell["cell_type"] == "markdown").replace("−", "-")
    gains = [tables.signed(gain) for gain in (pretrained["gain"].min(), pretrained["gain"].max())]
    assert f"gains from {gains[0]} to {gains[1]} points" in said
    assert all(gain_text(row) in said and f"{row.p:.2f}" in said for row in away.itertuples())
    assert f"({starts.loc['random', 'step']:.0f} steps; Models Genesis {starts['step'].min():.0f})" in said
    quickest = seconds.drop("random").min()
    assert f"there after {seconds['random']:.0f}, and the quickest of the others after {quickest:.0f}" in said


def test_the_picture_has_every_number_of_the_study(tmp_path):
    found = findings.lengths()
    drawn = findings.picture(found)
    for axes, table in zip(drawn.axes, found.values(), strict=True):
        middle = {round(float(y), 6) for line in axes.containers for y in line[0].get_ydata()}
        assert middle == {round(100 * dice, 6) for dice in table["dice"]}
    findings.draw(tmp_path / "drawn.png")
    assert findings.drawn_from(tmp_path / "drawn.png") == findings.fingerprint(found)


def test_a_missing_record_is_named(monkeypatch):
    with pytest.raises(CourseError, match=r"no gain of .*swin"):
        findings.gain("phantom", "swin")
    monkeypatch.setattr(findings.claims, "recorded", lambda name, **_: [])
    with pytest.raises(CourseError, match="no study finetuning_length of hippocampus, phantom_v1, sarcoma"):
        findings.lengths()
    with pytest.raises(CourseError, match="no study all_tasks of hippocampus; record it"):
        findings.all_tasks()


def test_pages_with_costs_have_their_markers():
    marked = {
        name: re.findall(r"<!-- (commands|costs|chapters) -->", (PROJECT / name).read_text()) for name in costs.PAGES
    }
    assert marked == {
        "README.md": ["commands"],
        "docs/running.md": ["costs", "chapters"],
        "docs/for_lecturers.md": ["costs"],
    }
