"""Every chapter has the same anatomy, so that a reader who knows one knows them all; and its prose is spelt right.

A failure names the chapter, the rule and the cell. CONTRIBUTING has the same list in words.
"""

import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote

import pytest

PROJECT = Path(__file__).resolve().parents[1]
CHAPTERS = sorted((PROJECT / "notebooks").glob("[0-9]*.ipynb"))
TEMPLATE = PROJECT / "notebooks" / "_template.ipynb"
PAGES = [PROJECT / "README.md", PROJECT / "CONTRIBUTING.md", *sorted((PROJECT / "docs").rglob("*.md"))]
VERBS = {
    "Cluster",
    "Compare",
    "Do",
    "Fine-tune",
    "Hide",
    "Inflate",
    "Inspect",
    "Judge",
    "Learn",
    "Read",
    "Set",
    "Train",
}
LINK = re.compile(r"(?<!!)\[((?:[^\[\]]|!\[[^\]]*\]\([^)]*\))*)\]\(([^)\s]+)\)")
IMAGE = re.compile(r"!\[([^\]]*)\]\(([^)\s]+)\)")
DETAILS = re.compile(r"<details>.*?</details>", re.DOTALL)
ITALIC = re.compile(r"(?<!\*)\*[^*\n]+\*(?!\*)")
HEADING_1 = re.compile(r"^# (.+)$", re.MULTILINE)
FENCED = re.compile(r"^```.*?^```", re.DOTALL | re.MULTILINE)
CODE = "\f"
PAPER = re.compile(r"https://(?:arxiv\.org|doi\.org)/")


class Cell(NamedTuple):
    id: str
    kind: str  # markdown | code
    tags: list[str]
    text: str


class Chapter:
    def __init__(self, path: Path) -> None:
        self.path, self.name = path, path.stem
        content = json.loads(path.read_text(encoding="utf-8"))
        self.cells = [
            Cell(c["id"], c["cell_type"], c["metadata"].get("tags", []), "".join(c["source"])) for c in content["cells"]
        ]
        self.attached = [c["id"] for c in content["cells"] if c.get("attachments")]

    def markdown(self) -> list[Cell]:
        return [cell for cell in self.cells if cell.kind == "markdown"]

    def code(self) -> list[Cell]:
        return [cell for cell in self.cells if cell.kind == "code"]

    def sections(self) -> list[tuple[str, str, list[Cell]]]:
        """Heading of level 2, the markdown below it (CODE where there is a cell of code), the code cells below it."""
        found = [("", "", [])]
        for cell in self.cells:
            if cell.kind == "code":
                found[-1] = (found[-1][0], f"{found[-1][1]}\n{CODE}\n", [*found[-1][2], cell])
                continue
            first, *others = re.split(r"^## +", FENCED.sub("", cell.text), flags=re.MULTILINE)
            found[-1] = (found[-1][0], found[-1][1] + "\n" + first, found[-1][2])
            found += [(text.partition("\n")[0].strip(), text.partition("\n")[2], []) for text in others]
        return found

    def section(self, pattern: str) -> tuple[str, str, list[Cell]]:
        found = [section for section in self.sections() if re.match(pattern, section[0], re.IGNORECASE)]
        return found[0] if found else ("", "", [])


Rule = Callable[[Chapter], Iterator[str]]
RULES: dict[str, Rule] = {}


def rule(check: Rule) -> Rule:
    """A rule yields what is wrong, with the id of the cell; nothing when the chapter keeps it."""
    RULES[check.__name__] = check
    return check


def words(text: str) -> int:
    """Words of prose: no table, no code block, nothing folded away, no picture, no comment."""
    for hidden in (re.compile(r"<!--.*?-->", re.DOTALL), DETAILS, FENCED, IMAGE):
        text = hidden.sub("", text)
    return sum(len(re.findall(r"\w[\w'’.,-]*", line)) for line in text.splitlines() if not line.startswith("|"))


@rule
def title(chapter):
    first = chapter.cells[0]
    if first.kind != "markdown" or not re.match(r".*\*\*\w\w .*\*\*", first.text.partition("\n")[0]):
        yield f"cell {first.id}: the first line must be the navigation, with this chapter in bold"
    headings = [(c.id, found) for c in chapter.markdown() for found in HEADING_1.findall(FENCED.sub("", c.text))]
    if len(headings) != 1 or headings[0][0] != first.id:
        yield f"one heading of level 1, in the first cell; there are {headings}"
    elif headings[0][1].split()[0] not in VERBS:
        yield f"cell {first.id}: the title must begin with a verb (or add the verb to VERBS): {headings[0][1]}"
    parts = [part for part in first.text.split("\n# ")[-1].split("\n\n")[1:] if not part.startswith(">")]
    *before, last = parts or [""]
    if len(before) != 1 or not IMAGE.match(last):
        yield f"cell {first.id}: after the title one sentence with the end product, then a figure"


@rule
def opening(chapter):
    _, goals, parameters, begin, *_ = (cell for cell in chapter.cells if cell.id != "bootstrap")
    listed = re.findall(r"^\d\. ", goals.text.partition("| you need |")[0], re.MULTILINE)
    if "**After this chapter you can**" not in goals.text or not 3 <= len(listed) <= 5:
        yield f"cell {goals.id}: **After this chapter you can** and three to five numbered goals"
    needs = re.search(r"^\| you need \|.*(?:\n\|.*)+", goals.text, re.MULTILINE)
    if not chapter.name.startswith("00") and not (needs and LINK.search(needs[0])):
        yield f"cell {goals.id}: a table | you need | with links"
    if not chapter.name.startswith("_") and f"<!-- cost:{chapter.name} -->" not in goals.text:
        yield f"cell {goals.id}: the box of costs, <!-- cost:{chapter.name} -->"
    if "parameters" not in parameters.tags:
        yield f"cell {parameters.id}: the parameters must come right after the goals"
    if f'frame.start("{chapter.name}"' not in re.sub(r"\s", "", begin.text):
        yield f'cell {begin.id}: imports and frame.start("{chapter.name}", ...) must follow the parameters'


@rule
def idea(chapter):
    _, text, _ = chapter.section("The idea in one picture$")
    if not text:
        yield "## The idea in one picture is missing"
        return
    before, table, _ = text.partition("| symbol |")
    if not table:
        yield "the idea needs a table of symbols, | symbol | meaning | ..."
    if words(before) > 120:
        yield f"the idea takes {words(before)} words before the table of symbols, 120 at most"
    answered = re.search(r"> \*\*Predict\.\*\*.*?<details><summary>Answer</summary>", text, re.DOTALL)
    if not answered:
        yield "the idea needs a question, > **Predict.** ..., and its answer in <details>"


@rule
def toy(chapter):
    _, text, code = chapter.section(r"(By hand|A toy)")
    if not text or not code:
        yield "## By hand ... (or ## A toy ...) with a cell that computes it"


@rule
def montage(chapter):
    drawn = any(re.search(r"figures\.montage\(|viewers\.explore\(", cell.text) for cell in chapter.code())
    if not drawn and not chapter.name.startswith("05"):  # which begins with runs, not with a volume
        yield "no three-plane montage of a real case"
    if not any("**What you should see" in cell.text for cell in chapter.markdown()):
        yield "**What you should see.** with ranges is missing"
    recorded = json.loads((PROJECT / "figures" / "provenance.json").read_text())
    shown = {Path(target).name for cell in chapter.markdown() for _, target in IMAGE.findall(cell.text)}
    for figure, source in recorded.items():
        if source["chapter"] == chapter.name and figure not in shown:
            yield f"the expected figure {figure} is not shown"


@rule
def blocks(chapter):
    found = [section for section in chapter.sections() if re.match(r"Block \d", section[0])]
    if not (1 if chapter.name.startswith("_") else 3) <= len(found) <= 8:
        yield f"three to eight sections ## Block k. ..., not {len(found)}"
    for i, (heading, text, code) in enumerate(found, 1):
        if not re.match(rf"Block {i}[.:] ", heading):
            yield f"block {i} is headed {heading!r}, not ## Block {i}. ..."
        if not code:
            yield f"{heading!r} has no code"
        if code and words(text.partition(CODE)[2]) < 10:
            yield f"{heading!r} does not say what its cells show"


@rule
def broken_on_purpose(chapter):
    if not chapter.section("Break it on purpose")[2]:
        yield "## Break it on purpose, with code, is missing"


@rule
def growing_table(chapter):
    if chapter.name[:2] in ("02", "03", "04", "06", "07", "08", "09") and not any(
        "so far" in cell.text for cell in chapter.markdown()
    ):
        yield "the results must end with the table of what has been measured so far"


@rule
def closing(chapter):
    wanted = ("Exercises$", r"(Recap|What you can do now)$", "Quiz$", "Common errors$", r"(Annotated reading|Reading)$")
    headings = [section[0] for section in chapter.sections()]
    places = []
    for pattern in wanted:
        at = [i for i, heading in enumerate(headings) if re.match(pattern, heading)]
        if len(at) != 1:
            yield f"one heading ## {pattern.strip('$')}, not {len(at)}"
        places += at[:1]
    if places != sorted(places):
        yield "the order at the end is Exercises, Recap, Quiz, Common errors, Reading"
    if not chapter.code() or "chapter.finish(" not in chapter.code()[-1].text:
        yield "the last code cell must call chapter.finish(...)"


@rule
def recap(chapter):
    goals = re.findall(r"^\d\. ", chapter.cells[1].text.partition("| you need |")[0], re.MULTILINE)
    mirrored = re.findall(r"^\d\. ", chapter.section("(Recap|What you can do now)$")[1], re.MULTILINE)
    if len(goals) != len(mirrored):
        yield f"{len(goals)} goals, but {len(mirrored)} numbered lines in the recap"


@rule
def quiz(chapter):
    text = chapter.section("Quiz$")[1]
    questions = re.split(r"^\*\*\d\. ", text, flags=re.MULTILINE)[1:]
    if len(questions) < (1 if chapter.name.startswith("_") else 3):
        yield f"three questions or more, **1. ...**; there are {len(questions)}"
    for question in questions:
        answer = re.search(r"<details><summary>Answer</summary>(.*?)</details>", question, re.DOTALL)
        asked = question.partition("**")[0][:50]
        if not answer:
            yield f"question {asked!r} has no <details><summary>Answer</summary>"
        elif not re.search(r'\b[a-e]\)|\*"', answer[1]):
            yield f'question {asked!r}: the answer does not say why the wrong ones, a) or *"..."*, are wrong'


@rule
def errors(chapter):
    rows = re.findall(r"^\|.*\|$", chapter.section("Common errors$")[1], re.MULTILINE)
    if not rows or not rows[0].startswith("| you see |") or len(rows) < (3 if chapter.name.startswith("_") else 5):
        yield "a table | you see | why | do this | with three rows or more"


@rule
def reading(chapter):
    text = chapter.section("(Annotated reading|Reading)$")[1]
    entries = re.findall(r"^[*-] (.+)$", text, re.MULTILINE)
    if len(entries) < 3 or len([entry for entry in entries if PAPER.search(entry)]) < 3:
        yield "three papers or more, one a line, with a link to arXiv or a DOI"
    for entry in entries:
        if words(re.sub(r"\*[^*]+\*", "", entry).rpartition(")")[2]) < 5 and PAPER.search(entry):
            yield f"say in a sentence what to look for in: {entry[:60]}"


@rule
def sizes(chapter):
    if not 36 <= len(chapter.cells) <= 66:
        yield f"{len(chapter.cells)} cells; 36 to 66"
    for cell in chapter.code():
        if len(cell.text.splitlines()) > 30:
            yield f"cell {cell.id}: {len(cell.text.splitlines())} lines of code, 30 at most"


@rule
def rows_of_code(chapter):
    for three in zip(chapter.cells, chapter.cells[1:], chapter.cells[2:], strict=False):
        if all(cell.kind == "code" for cell in three):
            yield f"cells {', '.join(cell.id for cell in three)}: three of code in a row; say something between them"


@rule
def amount_of_prose(chapter):
    lines = sum(bool(line.strip()) for cell in chapter.code() for line in cell.text.splitlines())
    ratio = sum(words(cell.text) for cell in chapter.markdown()) / lines
    if not 6 <= ratio <= 15:
        yield f"{ratio:.1f} words of prose for a line of code; 6 to 15"


@rule
def names_of_cells(chapter):
    seen = [cell.id for cell in chapter.cells]
    for name in seen:
        readable = re.fullmatch(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", name) and not re.fullmatch(r"[0-9a-f]{8}", name)
        if not readable or seen.count(name) > 1:
            yield f"cell {name}: give it a readable id of its own, as in toy-affine"


@rule
def widgets(chapter):
    pictured = False
    for cell in chapter.code():
        if re.search(r"\bipywidgets\b|\binteract\(|slice_explorer\(|import ipyniivue|import itkwidgets", cell.text):
            yield f"cell {cell.id}: widgets come from ssl_utils.widgets.viewers, which show a static picture first"
        if re.search(r"viewers\.(explore|playground|results_explorer)\(|figures\.\w+\(", cell.text):
            pictured = True
        elif "viewers.volume3d(" in cell.text and not pictured:
            yield f"cell {cell.id}: a 3D view before any static picture"


@rule
def markup(chapter):
    for name in chapter.attached:
        yield f"cell {name}: an attachment; put the picture into figures/"
    for cell in chapter.markdown():
        if re.search(r"^:::|^```\{|^> \[!|<script|<style|<div", cell.text, re.MULTILINE):
            yield f"cell {cell.id}: markup that GitHub, JupyterLab and Sphinx do not render alike"
        if cell.text.count("<details>") != cell.text.count("</details>"):
            yield f"cell {cell.id}: a <details> that is not closed"


@rule
def pictures(chapter):
    yield from (f"cell {c.id}: {wrong}" for c in chapter.markdown() for wrong in wrong_pictures(c.text, chapter.path))


@rule
def links(chapter):
    yield from (f"cell {c.id}: {wrong}" for c in chapter.markdown() for wrong in wrong_links(c.text, chapter.path))


@rule
def british(chapter):
    yield from (f"cell {c.id}: {wrong}" for c in chapter.markdown() for wrong in american(c.text))


def wrong_pictures(text: str, page: Path) -> Iterator[str]:
    if re.search(r"<img\b", text):
        yield "write ![words](path), not <img>"
    for alt, target in IMAGE.findall(text):
        if ":" in target:
            yield f"a picture from elsewhere: {target}"
        elif not (page.parent / unquote(target)).exists():
            yield f"no such picture: {target}"
        if len(alt.split()) < (3 if "badge_" in target else 5):
            yield f"say in words what {target} shows; now {alt!r}"


def anchors(page: Path) -> set[str]:
    """What can stand behind a #: GitHub's form of a heading, and JupyterLab's."""
    texts = [cell.text for cell in Chapter(page).markdown()] if page.suffix == ".ipynb" else [page.read_text()]
    headings = [h for text in texts for h in re.findall(r"^#+ (.+)$", FENCED.sub("", text), re.MULTILINE)]
    github = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
    return github | {heading.replace(" ", "-") for heading in headings}


def wrong_links(text: str, page: Path) -> Iterator[str]:
    for _, target in LINK.findall(FENCED.sub("", text)):
        place, _, anchor = unquote(target).partition("#")
        if ":" in place:
            continue
        other = (page.parent / place).resolve() if place else page
        if not other.exists():
            yield f"no such file: {target}"
        elif anchor and other.suffix in (".ipynb", ".md") and anchor not in anchors(other):
            yield f"no such heading: {target}"


AMERICAN = re.compile(
    r"\b((?:un)?color(?:s|ed|ing)?|gray(?:s|scale)?|(?:un)?center(?:s|ed|ing)?|behaviors?|favor(?:s|ed|ite)?"
    r"|neighbor(?:s|ing|hood)?|(?:normal|standard|visual|optim|initial|organ|recogn|summar|minim|maxim|regular|general"
    r"|emphas|categor|util|memor|random|local)iz(?:e[sdr]?|ing)|analyz(?:e[sdr]?|ing)|(?:milli|centi)?meters?"
    r"|(?:milli)?liters?|(?:un|re|mis)?label(?:ed|ing)|model(?:ed|ing)|cancel(?:ed|ing)|travel(?:ed|ing)|fibers?)\b",
    re.IGNORECASE,
)


def american(text: str) -> Iterator[str]:
    """American forms in prose. Code, names of sides and files, titles in italics and addresses keep theirs."""
    for hidden in (FENCED, re.compile(r"^\s*\* ", re.MULTILINE), re.compile(r"`[^`]*`|\]\([^)]*\)"), ITALIC):
        text = hidden.sub(" ", text)
    for word in AMERICAN.findall(text):
        yield f"{word!r}: British spelling, as in the rest of the course"


def each(paths: list[Path]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("path", paths, ids=lambda path: path.relative_to(PROJECT).with_suffix("").as_posix())


@pytest.mark.parametrize("name", RULES)
@each(CHAPTERS)
def test_anatomy(path, name):
    wrong = list(RULES[name](Chapter(path)))
    assert not wrong, f"{path.stem}, rule {name}:\n" + "\n".join(wrong)


@pytest.mark.parametrize("name", sorted(set(RULES) - {"sizes", "reading", "amount_of_prose"}))
def test_the_template_has_the_anatomy(name):
    wrong = list(RULES[name](Chapter(TEMPLATE)))
    assert not wrong, f"{TEMPLATE.stem}, rule {name}:\n" + "\n".join(wrong)


def test_the_glossary_is_in_order_and_leads_to_chapters_that_use_the_word():
    page = PROJECT / "docs" / "glossary.md"
    rows = re.findall(r"^\| ([^|]+) \| ([^|]+) \| \[\d\d\]\((\S+)\) \|$", page.read_text(), re.MULTILINE)
    assert len(rows) > 60 and [word.lower() for word, _, _ in rows] == sorted(word.lower() for word, _, _ in rows)
    for word, meaning, target in rows:
        assert meaning.endswith((".", "?")), f"{word}: one whole sentence"
        cells = [cell.text for cell in Chapter(page.parent / target).cells]
        stem = re.split(r"[ ,]", word.lower())[0][:6]
        assert any(stem in text.lower() for text in cells), f"{word}: {target} does not use the word"


@each(PAGES)
def test_pages_have_working_links_and_pictures_in_words(path):
    text = path.read_text(encoding="utf-8")
    wrong = [*wrong_links(text, path), *wrong_pictures(text, path), *american(text)]
    assert not wrong, f"{path.name}:\n" + "\n".join(wrong)


@pytest.mark.parametrize("path", sorted((PROJECT / "figures").glob("badge_*.svg")), ids=lambda path: path.stem)
def test_badges_are_drawn_here_and_have_a_title(path):
    text = path.read_text(encoding="utf-8")
    assert re.search(r"<title[^>]*>Open in \w+</title>", text) and len(text) < 2000
    assert not re.search(r"<image|href=\"http|url\(http", text)


DECATHLON = "relase"  # how the Decathlon spells a key of its lists


def spelling(texts: dict[str, str], folder: Path) -> list[str]:
    """What codespell finds, each text named by its key."""
    for name, text in texts.items():
        file = folder / f"{name}.txt"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
    command = [sys.executable, "-m", "codespell_lib", "--builtin", "clear,rare", "-L", DECATHLON, "."]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120)
    assert done.returncode in (0, 65), done.stderr  # 65: it found words
    return done.stdout.splitlines()


@each([*CHAPTERS, TEMPLATE])
def test_a_chapter_is_spelt_right(path, tmp_path):
    found = spelling({f"{path.stem}/{cell.id}": cell.text for cell in Chapter(path).cells}, tmp_path)
    assert not found, "chapter/cell:line: word ==> correction\n" + "\n".join(found)


def test_pages_and_modules_are_spelt_right(tmp_path):
    modules = [path for wing in ("ssl_utils", "course") for path in sorted((PROJECT / wing).rglob("*.py"))]
    paths = [*PAGES, *modules]  # docstrings, comments and messages alike
    texts = {path.relative_to(PROJECT).as_posix(): path.read_text(encoding="utf-8") for path in paths}
    found = spelling(texts, tmp_path)
    assert not found, "file:line: word ==> correction\n" + "\n".join(found)


# The rules themselves: a chapter that breaks one is found.


def changed(change: Callable[[list[Cell]], object], path: Path = CHAPTERS[0]) -> Chapter:
    chapter = Chapter(path)
    change(chapter.cells)
    return chapter


def put(cells: list[Cell], at: int, old: str, new: str) -> None:
    assert old in cells[at].text
    cells[at] = cells[at]._replace(text=cells[at].text.replace(old, new))


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("title", lambda cells: put(cells, 0, "# Set up", "# Setting up")),
        ("opening", lambda cells: cells.pop(1)),
        ("opening", lambda cells: put(cells, 1, "**After this chapter", "**Afterwards")),
        ("idea", lambda cells: put(cells, 4, "| symbol |", "word " * 121 + "\n| symbol |")),
        ("idea", lambda cells: put(cells, 4, "| symbol |", "| sign |")),
        ("toy", lambda cells: cells.__setitem__(slice(None), [c for c in cells if not c.id.startswith("toy")])),
        ("recap", lambda cells: put(cells, 1, "4. ", "   ")),
        ("sizes", lambda cells: cells.extend(cells)),
        ("sizes", lambda cells: cells.append(Cell("long", "code", [], "1\n" * 31))),
        ("rows_of_code", lambda cells: cells.extend([Cell("a", "code", [], "1")] * 2)),
        ("amount_of_prose", lambda cells: cells.append(Cell("essay", "markdown", [], "word " * 9000))),
        ("names_of_cells", lambda cells: cells.append(Cell("a1b2c3d4", "markdown", [], "x"))),
        ("widgets", lambda cells: cells.insert(0, Cell("early", "code", [], "viewers.volume3d(image)"))),
        ("markup", lambda cells: cells.append(Cell("open", "markdown", [], "<details><summary>x</summary>"))),
        (
            "pictures",
            lambda cells: cells.append(Cell("far", "markdown", [], "![a b c d e](https://example.org/a.png)")),
        ),
        (
            "pictures",
            lambda cells: cells.append(Cell("mute", "markdown", [], "![](../figures/concept_course_map.svg)")),
        ),
        ("links", lambda cells: cells.append(Cell("lost", "markdown", [], "[x](nowhere.ipynb)"))),
        ("links", lambda cells: cells.append(Cell("lost", "markdown", [], "[x](#no-such-heading)"))),
        ("british", lambda cells: cells.append(Cell("us", "markdown", [], "normalize the gray center"))),
        ("quiz", lambda cells: cells.insert(0, Cell("quiz", "markdown", [], "## Quiz\n\n**1. Why?**"))),
        ("closing", lambda cells: cells.pop()),
        ("errors", lambda cells: cells.__setitem__(slice(None), [c for c in cells if "Common errors" not in c.text])),
        ("reading", lambda cells: cells.__setitem__(slice(None), [c for c in cells if "## Reading" not in c.text])),
        ("blocks", lambda cells: cells.__setitem__(slice(None), [c for c in cells if "## Block 2" not in c.text])),
        ("blocks", lambda cells: cells.__setitem__(slice(None), [c for c in cells if c.id != "machine-read"])),
        ("montage", lambda cells: cells.__setitem__(slice(None), [c for c in cells if "What you" not in c.text])),
        (
            "broken_on_purpose",
            lambda cells: cells.__setitem__(slice(None), [c for c in cells if "## Break" not in c.text]),
        ),
    ],
)
def test_a_broken_rule_is_found(name, change):
    assert list(RULES[name](changed(change)))


def test_a_misspelt_word_is_found_with_its_cell(tmp_path):
    (found,) = spelling({"00_start_here/idea": "fine\n\nteh picture"}, tmp_path)
    assert found.startswith("./00_start_here/idea.txt:3: teh ==> the")


def test_british_words_and_code_pass():
    text = "The colour, the centre, labelled neighbours; `num_labeled`, `color`, *masked image modeling*, [x](color.md)"
    assert not list(american(text))
    assert len(list(american("color colors gray center labeled unlabeled normalized modeling meters"))) == 9
