"""Settings of Sphinx for `make site`. The pages are laid out by course/site.py, which runs no chapter."""

import sys
import tomllib
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))
ABOUT = tomllib.loads((HERE.parent / "pyproject.toml").read_text(encoding="utf-8"))["project"]

project = "Self-supervised learning for 3D medical images"
author = "the authors of the course"
copyright = "the authors of the course. Code and text: Apache-2.0"
release = ABOUT["version"]
language = "en"

extensions = ["myst_nb", "mathml"]
exclude_patterns = ["readme/*"]  # the first page includes it
html_math_renderer = "mathml"
nb_execution_mode = "off"
nb_merge_streams = True
nb_ipywidgets_js = {}  # its default is an address outside
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 4
suppress_warnings = ["myst.header"]  # a chapter may go from H1 to H3

html_theme = "sphinx_book_theme"
html_title = "SSL in 3D"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_context = {"default_mode": "auto"}  # light or dark, as the reader's system has it
html_use_index = False
html_domain_indices = False
html_copy_source = False
html_show_sourcelink = False
html_theme_options = {
    "home_page_in_toc": True,
    "navbar_persistent": [],  # search stands in the side bar
    "show_navbar_depth": 1,
    "show_toc_level": 1,
    "use_download_button": False,
    "use_edit_page_button": False,
    "use_issues_button": False,
    "use_repository_button": False,
    "use_source_button": False,
    "use_fullscreen_button": False,
}
