"""Where the course is published: badges and a first cell that fetches it, in every chapter.

The address is written once, as `Repository` below `[project.urls]` in pyproject.toml. While nobody has published the
course there is none, and chapters have neither badges nor that cell. `python -m course.records readme` brings them up
to date.
"""

import json
import re
import tomllib
from pathlib import Path

from ssl_utils.experiments.runs import PROJECT
from ssl_utils.files import read_json, write_text

BADGE = "[![Open in {name}](../figures/badge_{file}.svg)]({site})"
SITES = {
    "Colab": "https://colab.research.google.com/github/{owner_name}/blob/main/notebooks/{chapter}",
    "Binder": "https://mybinder.org/v2/gh/{owner_name}/main?urlpath=lab/tree/notebooks/{chapter}",
}
BOOTSTRAP = """\
# On Colab only: fetch the course when it is not installed. Elsewhere this cell does nothing.
import importlib.util
import subprocess
import sys

if importlib.util.find_spec("ssl_utils") is None:
    subprocess.run(["git", "clone", "-q", "--depth", "1", "{address}", "ssl-utils"], check=True)
    subprocess.run([sys.executable, "-m", "pip", "install", "-q", "-e", "ssl-utils"], check=True)
    sys.path.insert(0, "ssl-utils")"""


def repository(project: Path = PROJECT) -> str | None:
    """https://github.com/OWNER/NAME of pyproject.toml; None while the course is not published."""
    content = tomllib.loads((project / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return content.get("urls", {}).get("Repository")


def badges(address: str, chapter: str) -> str:
    owner_name = address.removeprefix("https://github.com/")
    sites = {name: site.format(owner_name=owner_name, chapter=chapter) for name, site in SITES.items()}
    return " ".join(BADGE.format(name=name, file=name.lower(), site=site) for name, site in sites.items())


def addressed(cells: list[dict], chapter: str, address: str | None) -> list[dict]:
    """The cells of a chapter with badges below its navigation line and the fetching cell after it, or without both."""
    first, *others = (cell for cell in cells if cell["id"] != "bootstrap")
    text = re.sub(r"\[!\[Open in .*\n\n", "", "".join(first["source"]))
    if not address:
        return [first | {"source": text.splitlines(keepends=True)}, *others]
    navigation, _, rest = text.partition("\n\n")
    text = f"{navigation}\n\n{badges(address, chapter)}\n\n{rest}"
    source = BOOTSTRAP.format(address=address).splitlines(keepends=True)
    fetching = {"cell_type": "code", "execution_count": None, "id": "bootstrap"}
    fetching |= {"metadata": {"tags": ["bootstrap"]}, "outputs": [], "source": source}
    return [first | {"source": text.splitlines(keepends=True)}, fetching, *others]


def fill(notebooks: Path = PROJECT / "notebooks", address: str | None = None) -> None:
    address = address or repository()
    for path in sorted(notebooks.glob("*.ipynb")):
        content = read_json(path)
        content["cells"] = addressed(content["cells"], path.name, address)
        write_text(path, json.dumps(content, indent=1, ensure_ascii=False) + "\n")
