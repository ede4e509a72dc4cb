"""The site: built by Sphinx with warnings as errors, whole, searchable, and with nothing from outside."""

import base64
import io
import json
import re
import shutil
import threading
import tomllib
from functools import partial
from html.parser import HTMLParser
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

import matplotlib
import nbformat
import pytest
from browser.conftest import FLAGS, SHOTS, chromium  # noqa: F401 a fixture
from browser.notebook import Watch
from matplotlib.figure import Figure

from course import site
from course.records import costs
from ssl_utils.errors import CourseError
from ssl_utils.experiments import runs
from ssl_utils.files import read_json

matplotlib.use("Agg")
CHAPTERS = site.chapters()
TITLE_WORD = "zebrafish"  # no chapter holds it, so the search index can only have it from ours
LATEX = re.compile(r"\$\$.+?\$\$|\$[^$\n]+?\$", re.DOTALL)


def picture() -> str:
    stream, figure = io.BytesIO(), Figure((1, 1))
    figure.add_subplot().plot([0, 1])
    figure.savefig(stream, format="png")
    return base64.b64encode(stream.getvalue()).decode()


def executed_chapter(path: Path, extra: list[str] = ()) -> dict:
    """The chapter as a course leaves it, with outputs that need no kernel: a path, a table, a figure, a widget."""
    notebook = nbformat.read(path, as_version=4)
    notebook.cells += [nbformat.v4.new_markdown_cell(text) for text in extra]
    widget = {"application/vnd.jupyter.widget-view+json": {"model_id": "1"}, "text/plain": "Box()"}
    data = [
        {"text/html": "<table><tr><td>dark horse</td></tr></table>", "text/plain": "dark horse"},
        {"image/png": picture(), "text/plain": "<Figure>"},
        widget,
    ]
    for number, cell in enumerate((cell for cell in notebook.cells if cell.cell_type == "code"), 1):
        cell.execution_count = number
    outputs = [nbformat.v4.new_output("display_data", data=entry) for entry in data]
    last = nbformat.v4.new_code_cell("draw()", id="draw-the-line", execution_count=number + 1, outputs=outputs)
    last.outputs.append(nbformat.v4.new_output("stream", text=f"kept in {runs.runs_root()}/phantom\n"))
    notebook.cells.append(last)
    about = {"parameters": {"scale": "smoke", "dataset": "phantom"}, "start_time": "2026-11-21T10:00:00"}
    notebook.metadata |= {"papermill": about, "widgets": {"application/vnd.jupyter.widget-state+json": {"state": {}}}}
    return json.loads(nbformat.writes(notebook))


def finished_course(root: Path) -> Path:
    """A run folder with every chapter executed, chapter 04 once per fine-tuning."""
    course = root / "phantom" / "smoke"
    extra = [
        "## A zebrafish\n\n$$p_k = \\sigma_k / \\textstyle\\sum_j \\sigma_j$$\n\nand $x^2$, "
        "and [the questions](00_start_here.ipynb#Quiz), "
        "[how to run](../README.md), [how to add](../CONTRIBUTING.md), [the graph](../Snakefile).\n\n"
        "<details><summary>Answer</summary>\n\nA **bold** word.\n\n</details>\n\n"
        "![a drawn map](../figures/concept_course_map.svg)"
    ]
    for name in CHAPTERS:
        notebook = executed_chapter(runs.PROJECT / "notebooks" / f"{name}.ipynb", extra if name[:2] == "01" else [])
        folders = [f"chapters/{name}"]
        if name.startswith("04"):
            inits = ("random", "alpha", "beta", "alpha__x=1")
            folders = [f"finetune/{init}/n{n}/subset0_seed0" for init in inits for n in (6, 24)]
        for folder in folders:
            (course / folder).mkdir(parents=True)
            (course / folder / "notebook.ipynb").write_text(json.dumps(notebook), encoding="utf-8")
    return course


@pytest.fixture(scope="module")
def course(tmp_path_factory) -> Path:
    return finished_course(tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="module")
def pages(course, tmp_path_factory) -> Path:
    """The built site. `build` raises when Sphinx warns: a link, figure, formula or page that is not there."""
    folder = tmp_path_factory.mktemp("built")
    site.stage(folder / "source", site.collect(course, CHAPTERS))
    site.build(folder / "source", folder / "site")
    return folder / "site"


class Page(HTMLParser):
    """What a page loads, what it links to, its anchors, and pictures without a word on them."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.loads, self.links, self.anchors, self.mute = [], [], set(), []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        self.anchors |= {found[key] for key in ("id", "name") if found.get(key)}
        if tag == "a" and found.get("href"):
            self.links.append(found["href"])
        elif tag == "link" and "href" in found:
            self.loads.append(found["href"])
        elif found.get("src"):
            self.loads.append(found["src"])
        if tag == "img" and not found.get("alt"):
            self.mute.append(found["src"])


@pytest.mark.long
def test_every_page_is_there_and_every_local_link_and_picture_leads_somewhere(pages):
    found = {path.resolve(): Page(path) for path in pages.rglob("*.html") if "_static" not in path.parts}
    names = {path.relative_to(pages.resolve()).as_posix() for path in found}
    assert names >= {f"notebooks/{name}.html" for name in CHAPTERS} | {
        "index.html",
        "results.html",
        "running.html",
        "own_data.html",
        "cluster.html",
        "speed.html",
        "sources.html",
        "for_lecturers.html",
        "glossary.html",
        "CONTRIBUTING.html",
        "CHANGELOG.html",
        "search.html",
    }
    dead = []
    for path, page in found.items():
        assert not page.mute, f"{path.name}: no alt text on {page.mute}"
        for address in page.links + page.loads:
            parts = urlsplit(address)
            if parts.scheme in ("http", "https", "mailto", "data"):
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            anchor = unquote(parts.fragment)
            if not target.exists() or (anchor and target in found and anchor not in found[target].anchors):
                dead.append(f"{path.name}: {address}")
    assert not dead, dead


@pytest.mark.long
def test_no_page_loads_anything_from_outside(pages):
    for path in pages.rglob("*.html"):
        outside = [address for address in Page(path).loads if urlsplit(address).netloc]
        assert not outside, f"{path.name}: {outside}"
    assert site.outside_addresses(pages) == []


@pytest.mark.parametrize(
    "line",
    [
        '<script src="https://cdn.example/x.js"></script>',
        '<link rel="stylesheet" href="//fonts.example/a.css">',
        "<style>@import 'https://example.org/a.css'</style>",
        '<img alt="a" src=http://example.org/a.png>',
        '<div style="background: url(https://example.org/a.png)"></div>',
    ],
)
def test_an_outside_address_would_be_seen(tmp_path, line):
    (tmp_path / "a.html").write_text(f'<a href="https://example.org">for readers</a>\n{line}')
    assert len(site.outside_addresses(tmp_path)) == 1


@pytest.mark.long
def test_search_finds_a_word_of_a_chapter(pages):
    index = (pages / "searchindex.js").read_text(encoding="utf-8")
    assert f'"{TITLE_WORD}":' in index or f"{TITLE_WORD}:" in index
    assert "searchindex.js" in (pages / "search.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("folder", "link", "on_the_site"),
    [
        ("", "docs/running.md#what-it-costs", "running.md#what-it-costs"),
        ("", "notebooks/00_start_here.ipynb#Quiz", "notebooks/00_start_here.ipynb#quiz"),
        ("", "figures/a.png", "figures/a.png"),
        ("docs", "speed.md", "speed.md"),
        ("docs", "../README.md", "index.md"),
        ("docs", "../figures/a.png", "figures/a.png"),
        ("docs", "../notebooks/05_results.ipynb", "notebooks/05_results.ipynb"),
        ("docs", "../CONTRIBUTING.md", "CONTRIBUTING.md"),
        ("notebooks", "../docs/for_lecturers.md", "../for_lecturers.md"),
        ("notebooks", "../README.md", "../index.md"),
        ("notebooks", "01_data_inspection.ipynb", "01_data_inspection.ipynb"),
        ("notebooks", "#Quiz", "#quiz"),
        ("notebooks", "https://example.org/A#B", "https://example.org/A#B"),
    ],
)
def test_links_lead_to_where_things_are_on_the_site(folder, link, on_the_site):
    assert site.text_for_the_site(f"[a]({link})", folder=folder) == f"[a]({on_the_site})"


def test_files_that_the_site_does_not_hold_are_in_the_repository_once_it_is_published():
    text = "see [the graph](../Snakefile) and ![a picture](../figures/a.png)"
    shown = "see {} and ![a picture](../figures/a.png)"
    assert site.text_for_the_site(text, folder="notebooks") == shown.format("the graph")
    known = site.text_for_the_site(text, folder="notebooks", repository="https://example.org/a/b")
    assert known == shown.format("[the graph](https://example.org/a/b/blob/main/Snakefile)")


@pytest.mark.long
def test_outputs_formulas_and_folded_answers_arrive(pages):
    text = (pages / "notebooks" / "01_data_inspection.html").read_text(encoding="utf-8")
    assert "<td>dark horse</td>" in text and "<strong>bold</strong>" in text and "<details>" in text
    assert re.search(r'<img alt="what the code above draws: draw the line" src="\.\./_images/\w+\.png"', text)
    assert re.search(r'<math[^>]*display="block".*?<mi>&#x003C3;</mi>', text, re.DOTALL)
    assert re.search(r"<h1>01\. [A-Z]", text)
    assert "Executed on 2026-11-21: dataset phantom, scale smoke." in text
    assert ", the graph.</p>" in text  # nobody has published the repository: no link to what the site does not hold
    assert 'href="../index.html"' in text and 'href="00_start_here.html#quiz"' in text
    assert "kept in runs/phantom" in text and str(runs.runs_root()) not in text
    assert "widget-view" not in text and "Box()" not in text


PNG = {"image/png": {"alt": "Picture: Dice; step"}}


@pytest.mark.parametrize(("about", "words"), [({}, "draw the line"), (PNG, "Picture: Dice; step")])
def test_a_picture_is_named_after_what_stands_on_it_or_after_its_cell(about, words):
    shown = {"output_type": "display_data", "data": {"image/png": picture()}, "metadata": about}
    cell = {"id": "draw-the-line", "metadata": {}, "outputs": [shown]}
    site.dress(cell)
    assert cell["metadata"]["mystnb"]["image"]["alt"] == f"what the code above draws: {words}"


def test_the_path_of_a_persons_own_folder_stays_on_the_machine(tmp_path, monkeypatch):
    notebook = executed_chapter(runs.PROJECT / "notebooks" / "01_data_inspection.ipynb")
    own = "/volumes of ann/My Blöbs"
    notebook["metadata"]["papermill"]["parameters"]["data"] = own
    written = own.encode("unicode_escape").decode()  # by papermill, into the cell with the parameters
    notebook["cells"][2:2] = nbformat.v4.new_code_cell(f'data = "{written}"', execution_count=1), notebook["cells"][-1]
    notebook["cells"][-1]["outputs"].append(nbformat.v4.new_output("stream", text=f"read {own}/imagesTr\n"))
    shown = site.for_the_site(notebook, number="01")
    assert ", data data.*" in shown["cells"][0]["source"] and shown["cells"][2]["source"] == 'data = "data"'
    assert "read data/imagesTr" in json.dumps(shown) and "of ann" not in json.dumps(shown)
    asked = []
    monkeypatch.setattr(site, "collect", lambda folder, names: asked.append(folder) or exit())
    with pytest.raises(SystemExit):
        site.main(scale="smoke", dataset="folder", data=own)
    assert asked == [runs.course_dir("folder_my_bl_bs", "smoke")]


@pytest.mark.long
@pytest.mark.parametrize("name", CHAPTERS)
def test_every_formula_of_a_chapter_is_drawn(pages, name):
    cells = read_json(runs.PROJECT / "notebooks" / f"{name}.ipynb")["cells"]
    prose = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown"]
    prose = [re.sub(r"```.*?```|`[^`\n]*`", "", text, flags=re.DOTALL) for text in prose]
    written = sum(len(LATEX.findall(text)) for text in prose) + 2 * name.startswith("01")
    text = (pages / "notebooks" / f"{name}.html").read_text(encoding="utf-8")
    assert text.count("<math") == written
    assert "<code>\\" not in text


@pytest.mark.long
def test_a_formula_that_cannot_be_drawn_is_a_fault(tmp_path):
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "index.md").write_text("# A page\n\nBad: $\\aplha + 1$ and $\\frac{1}{$. Good: $x$.\n")
    with pytest.raises(CourseError, match=r"2 errors.*formula \\aplha"):
        site.build(tmp_path / "source", tmp_path / "site")
    text = (tmp_path / "site" / "index.html").read_text(encoding="utf-8")
    assert r"<code>\aplha + 1</code>" in text and r"<code>\frac{1}{</code>" in text


def test_chapter_04_is_the_run_with_most_labels_of_the_first_pretrained_start(course):
    chosen = site.executed(course, "04_unetr_finetuning")
    assert chosen.relative_to(course).as_posix() == "finetune/alpha/n24/subset0_seed0/notebook.ipynb"


def test_a_course_that_has_not_run_names_the_command(tmp_path):
    with pytest.raises(CourseError, match=r"00_start_here, .*make course SCALE=smoke DATASET=phantom") as caught:
        site.collect(tmp_path / "phantom" / "smoke", CHAPTERS)
    assert "\n" not in str(caught.value)


def test_a_chapter_of_a_later_part_that_has_not_run_is_there_without_outputs(tmp_path):
    course = finished_course(tmp_path / "runs")
    for name in CHAPTERS[6:]:
        shutil.rmtree(course / "chapters" / name)
    site.stage(tmp_path / "source", site.collect(course, CHAPTERS))
    for name in CHAPTERS:
        cells = read_json(tmp_path / "source" / "notebooks" / f"{name}.ipynb")["cells"]
        ran = any(cell.get("outputs") for cell in cells)
        assert ran == (name in CHAPTERS[:6]) and ran != ("*Not executed here." in cells[0]["source"]), name


@pytest.mark.parametrize("how", ["stopped half-way", "failed"])
def test_a_chapter_that_did_not_end_counts_as_not_executed(tmp_path, how):
    notebook = executed_chapter(runs.PROJECT / "notebooks" / f"{CHAPTERS[0]}.ipynb")
    if how == "failed":
        notebook["cells"][-1]["outputs"] = [
            {"output_type": "error", "ename": "ValueError", "evalue": "no", "traceback": []}
        ]
    else:
        notebook["cells"][-1]["execution_count"] = None
    path = tmp_path / "chapters" / CHAPTERS[0] / "notebook.ipynb"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(notebook))
    with pytest.raises(CourseError, match=f"{CHAPTERS[0]} not executed yet"):
        site.collect(tmp_path, CHAPTERS[:1])


def test_the_costs_for_lecturers_are_the_recorded_ones():
    text = (runs.PROJECT / "docs" / "for_lecturers.md").read_text(encoding="utf-8")
    assert "<!-- costs -->" in text
    assert costs.page(text, read_json(costs.REFERENCE)) == text


def test_the_lesson_plans_list_every_exercise_as_it_stands_in_its_chapter():
    text = (runs.PROJECT / "docs" / "for_lecturers.md").read_text(encoding="utf-8")
    cells = [cell for name in CHAPTERS for cell in read_json(runs.PROJECT / "notebooks" / f"{name}.ipynb")["cells"]]
    prose = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")
    found = re.findall(r"\*\*Exercise ([01]\d\.\d)\. ([^*]*)\*\* \(([^)]*)\)", prose)
    rows = [f"| {number}. {title.rstrip('.')} | {cost} |" for number, title, cost in found]
    assert len(rows) >= 2 * len(CHAPTERS)
    assert re.findall(r"^\| [01]\d\.\d\. .*", text, re.MULTILINE) == rows
    assert set(re.findall(r"\b((?:0\d|1[1-6])\.\d|10\.[1-5])\b", text)) == {number for number, _, _ in found}


def test_dev_has_the_packages_of_the_site():
    extras = tomllib.loads((runs.PROJECT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert set(extras["site"]) <= set(extras["dev"])


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def address(pages):
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=pages)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture(scope="module")
def browser(chromium):  # noqa: F811
    from playwright.sync_api import sync_playwright

    SHOTS.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        yield opened
        opened.close()


@pytest.mark.browser
@pytest.mark.parametrize("name", ["index.html", "notebooks/01_data_inspection.html", "results.html"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_browser_draws_the_page_and_nothing_sticks_out(browser, address, name, scheme):
    page = browser.new_page(viewport={"width": 1300, "height": 1000}, color_scheme=scheme)
    watch = Watch(page)
    page.goto(f"{address}/{name}")
    page.screenshot(path=SHOTS / f"site_{Path(name).stem}_{scheme}.png")
    assert page.locator("html").get_attribute("data-theme") == scheme
    pictures = "() => Array.from(document.querySelectorAll('article img')).filter(image => !image.naturalWidth).length"
    assert page.locator("article img").count() and page.evaluate(pictures) == 0
    assert page.evaluate("() => document.documentElement.scrollWidth - document.documentElement.clientWidth") == 0
    assert page.get_by_role("link", name="For lecturers").first.is_visible()
    page.close()
    watch.verdict()


@pytest.mark.browser
def test_a_browser_draws_formulas(browser, address):
    """Height tells: a sum with its index stands higher than a letter, LaTeX left as text does not."""
    page = browser.new_page()
    page.goto(f"{address}/notebooks/01_data_inspection.html")
    letter, fraction = page.locator("math", has_text="x").first, page.locator(".formula math").last
    assert fraction.bounding_box()["height"] > letter.bounding_box()["height"] > 5
    page.close()


@pytest.mark.browser
@pytest.mark.parametrize("where", ["server", "file"])
def test_search_works_in_a_browser(browser, pages, address, where):
    page = browser.new_page()
    page.goto(f"{address if where == 'server' else pages.as_uri()}/search.html?q={TITLE_WORD}")
    found = page.locator("#search-results li a").first
    found.wait_for(timeout=30_000)
    page.screenshot(path=SHOTS / f"site_search_{where}.png")
    found.click()
    assert page.url.split("?")[0].split("#")[0].endswith("/notebooks/01_data_inspection.html")
    page.close()
