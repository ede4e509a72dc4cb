"""A static site from the executed chapters: Sphinx without network, and no page loads anything from outside.

    python -m course.site --scale laptop --dataset phantom

`docs/` holds the pages, the settings of Sphinx and the look. CONTRIBUTING, CHANGELOG, figures and the executed chapters
are laid out beside them, and the README is the body of the first page. Links are written as GitHub follows them.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer

from course.chapters import part_of
from course.records import address
from ssl_utils.data import datasets
from ssl_utils.errors import CourseError
from ssl_utils.experiments import runs
from ssl_utils.experiments.naming import base
from ssl_utils.files import read_json

PROJECT = runs.PROJECT
PAGES = re.compile(r"figures/|notebooks/\d\d_|(CONTRIBUTING|CHANGELOG)\.md$")  # files of the project that become pages
LINK = re.compile(r"(\]\()(?!\w+:)([^)\s#]*)(#[^)\s]+)?(?=\))")
WHOLE_LINK = re.compile(r"(?<!!)\[([^\[\]]+)\]\((?!\w+:)([^)\s#]+)\)")
FOLDED = {"bootstrap": "For Colab and Binder", "injected-parameters": "The parameters of this run"}  # by tag
OUTSIDE = re.compile(
    r"""<(?:script|img|iframe|source|video|audio|embed|link(?![^>]*rel="?canonical))\b[^>]*?\s"""
    r"""(?:src|href|srcset|data)\s*=\s*["']?((?:https?:)?//[^"'\s>]+)"""
    r"""|(?:url\(\s*["']?|@import\s*["'])((?:https?:)?//[^"')\s]+)""",
    re.IGNORECASE,
)


def chapters(notebooks: Path = PROJECT / "notebooks") -> list[str]:
    return [path.stem for path in sorted(notebooks.glob("[0-9][0-9]_*.ipynb"))]


def executed(course: Path, chapter: str) -> Path | None:
    """The executed notebook of a chapter in a course's run folder; None where the chapter has not been run.

    Chapter 04 runs once per fine-tuning: the one with most labels of the first pretrained init, by name.
    """
    path = course / "chapters" / chapter / "notebook.ipynb"
    if not chapter.startswith("04_"):
        return path if path.exists() and complete(path) else None

    def rank(path: Path) -> tuple:
        init, labels, repeat = path.parts[-4:-1]
        return init == "random", init, -int(labels[1:]), repeat

    paths = sorted(course.glob("finetune/*/n*/subset*/notebook.ipynb"), key=rank)
    return next((path for path in paths if base(path.parts[-4]) == path.parts[-4] and complete(path)), None)


def complete(path: Path) -> bool:
    """Every code cell of an executed notebook ran, and none failed."""
    cells = [cell for cell in read_json(path)["cells"] if cell["cell_type"] == "code" and "".join(cell["source"])]
    failed = any(output["output_type"] == "error" for cell in cells for output in cell["outputs"])
    return not failed and all(cell["execution_count"] for cell in cells)


def collect(course: Path, names: list[str]) -> dict[str, Path]:
    """Executed notebook per chapter; for parts II and III, where not run, the one of the project, without outputs.

    Raises:
        CourseError: chapters of part I that have not been run, and the command that runs them.
    """
    notebooks = {name: executed(course, name) for name in names}
    for name in names:
        if part_of(name) > 1 and notebooks[name] is None:  # `make course` runs part I alone
            notebooks[name] = PROJECT / "notebooks" / f"{name}.ipynb"
    if missing := [name for name, path in notebooks.items() if path is None]:
        command = f"make course SCALE={course.name} DATASET={course.parent.name}"
        raise CourseError(f"{course}: {', '.join(missing)} not executed yet; run `{command}` first")
    return notebooks


def stage(source: Path, notebooks: dict[str, Path], *, project: Path = PROJECT) -> None:
    """Lay out everything that Sphinx reads: pages, README, figures, executed chapters."""
    shutil.rmtree(source, ignore_errors=True)
    shutil.copytree(project / "docs", source, ignore=shutil.ignore_patterns("__pycache__", "*.py", "_static"))
    for path in source.glob("*.md"):
        path.write_text(text_for_the_site(path.read_text(encoding="utf-8"), folder="docs"), encoding="utf-8")
    shutil.copytree(project / "figures", source / "figures")
    for name in ("CONTRIBUTING.md", "CHANGELOG.md"):
        (source / name).write_text(text_for_the_site((project / name).read_text(encoding="utf-8")), encoding="utf-8")
    readme = text_for_the_site((project / "README.md").read_text(encoding="utf-8"))
    (source / "readme").mkdir()
    (source / "readme" / "body.md").write_text(readme.partition("\n")[2], encoding="utf-8")  # its title is on the page
    (source / "notebooks").mkdir()
    for name, path in notebooks.items():
        notebook = for_the_site(read_json(path), number=name[:2])
        (source / "notebooks" / f"{name}.ipynb").write_text(json.dumps(notebook), encoding="utf-8")


def text_for_the_site(text: str, *, folder: str = "", repository: str | None = None) -> str:
    """Links as the site has them: its first page for the README, the repository (of pyproject.toml; None: no link) for
    files it does not hold, and anchors in the small letters that Sphinx gives them. `folder` is where the text lies."""
    repository = repository or address.repository()
    here = on_the_site(folder)

    def elsewhere(page: str) -> bool:
        inside = in_project(page, folder)
        return on_the_site(inside) is None and (PROJECT / inside).exists()

    def link(match: re.Match) -> str:
        page, anchor = match[2], (match[3] or "").lower()
        if page and elsewhere(page):
            page = f"{repository}/blob/main/{in_project(page, folder)}"
        elif page and (target := on_the_site(in_project(page, folder))):
            page = Path(os.path.relpath(target, here)).as_posix()
        return match[1] + page + anchor

    if not repository:
        text = WHOLE_LINK.sub(lambda match: match[1] if elsewhere(match[2]) else match[0], text)
    return LINK.sub(link, text)


def in_project(page: str, folder: str) -> str:
    """Where a link of a text in this folder leads, from the root of the project."""
    return Path(os.path.normpath(Path(folder, page))).as_posix()


def on_the_site(inside: str) -> str | None:
    """Where a file or folder of the project is on the site; None when it is no part of it."""
    if inside == "README.md":
        return "index.md"
    if inside == "docs" or inside.startswith("docs/"):
        return inside.removeprefix("docs").removeprefix("/")
    return inside if inside in ("", "notebooks") or PAGES.match(inside) else None


def for_the_site(notebook: dict, *, number: str) -> dict:
    """An executed notebook without widgets and paths of this machine, with a numbered title and alternative texts."""
    notebook = without_paths(notebook)
    about = notebook["metadata"].pop("papermill", {})
    notebook["metadata"].pop("widgets", None)
    for cell in notebook["cells"]:
        cell["source"] = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            cell["source"] = text_for_the_site(cell["source"], folder="notebooks")
        elif cell["cell_type"] == "code":
            dress(cell)
    first = notebook["cells"][0]
    first["source"] = re.sub(r"^# ", f"# {number}. ", first["source"], count=1, flags=re.MULTILINE)
    if parameters := about.get("parameters"):
        first["source"] += f"\n\n*Executed on {about['start_time'][:10]}: "
        first["source"] += ", ".join(f"{name} {value}" for name, value in parameters.items()) + ".*"
    else:
        first["source"] += "\n\n*Not executed here. `make course PART=all` runs every chapter.*"
    return notebook


def dress(cell: dict) -> None:
    """Fold the technical cells, add alternative texts to figures, and drop outputs that need a kernel."""
    written = [output.get("metadata", {}).get("image/png", {}).get("alt") for output in cell["outputs"]]
    words = next(filter(None, written), cell.get("id", "").replace("-", " "))
    cell["metadata"]["mystnb"] = {"image": {"alt": f"what the code above draws: {words}"}}
    for tag in {*FOLDED} & {*cell["metadata"].setdefault("tags", [])}:
        cell["metadata"]["tags"].append("hide-input")
        cell["metadata"]["mystnb"] |= {"code_prompt_show": FOLDED[tag], "code_prompt_hide": FOLDED[tag]}
    cell["outputs"] = [kept for output in cell["outputs"] if (kept := without_widget(output))]


def without_widget(output: dict) -> dict | None:
    """The static part of an output; None when it is a widget alone."""
    if data := output.get("data"):
        live = {kind for kind in data if "jupyter.widget" in kind}
        output["data"] = {kind: data[kind] for kind in data if kind not in live}
        if live and not set(output["data"]) - {"text/plain"}:
            return None
    return output


def without_paths(notebook: dict) -> dict:
    """The notebook with the README's names for folders of this machine, a person's own volumes among them."""
    own = notebook["metadata"].get("papermill", {}).get("parameters", {}).get("data") or ""
    roots = dict.fromkeys((own, own.encode("unicode_escape").decode()), "data")  # the second as papermill writes it
    roots |= {str(runs.runs_root()): "runs", str(PROJECT): ".", str(datasets.data_root()): "data"}
    content = json.dumps(notebook)
    for root in sorted(filter(None, roots), key=len, reverse=True):
        content = content.replace(json.dumps(root)[1:-1], roots[root])
    return json.loads(content)


def build(source: Path, site: Path, *, project: Path = PROJECT) -> None:
    """Run Sphinx; every warning is an error, since it is a link, a figure or a formula that readers would miss.

    Raises:
        CourseError: the first error, the number of all, and the log. The pages are written nevertheless.
    """
    shutil.rmtree(site, ignore_errors=True)
    log = site.with_name(f"{site.name}.log")
    options = {"-b": "html", "-j": "auto", "-c": project / "docs", "-d": source.with_name(f"{source.name}_parsed")}
    words = [word for pair in (options | {"-w": log}).items() for word in pair]
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", *words, source, site]
    log.parent.mkdir(parents=True, exist_ok=True)
    ended = subprocess.run([str(word) for word in command], capture_output=True, text=True)
    errors = [line for line in log.read_text(encoding="utf-8").splitlines() if re.search("WARNING|ERROR", line)]
    errors = errors or ended.stderr.strip().splitlines()[-1:] if ended.returncode else []
    errors += outside_addresses(site)
    if errors:
        raise CourseError(f"{site}: {len(errors)} errors, the first: {errors[0]} (all of Sphinx's in {log})")


def outside_addresses(site: Path) -> list[str]:
    """Everything that a page or style sheet would load from outside; links for the reader are allowed."""
    return [
        f"{path.relative_to(site)}: loads {match[1] or match[2]}"
        for path in sorted((*site.rglob("*.html"), *site.rglob("*.css")))
        for match in OUTSIDE.finditer(path.read_text(encoding="utf-8"))
    ]


app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def main(
    scale: Annotated[str, typer.Option(help="scale of the executed course")] = "laptop",
    dataset: Annotated[str, typer.Option(help="its dataset, as its folder in runs is called")] = "phantom",
    data: Annotated[str | None, typer.Option(help="your own folder, for --dataset folder")] = None,
) -> None:
    """Build the site from an executed course into build/site."""
    built = PROJECT / "build"
    try:
        stage(built / "site_source", collect(runs.course_dir(datasets.run_name(dataset, data), scale), chapters()))
        build(built / "site_source", built / "site")
    except CourseError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
    print(f"the site: {built / 'site' / 'index.html'}")


if __name__ == "__main__":
    app()
