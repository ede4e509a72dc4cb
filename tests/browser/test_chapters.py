"""Every chapter in JupyterLab, Run All at scale smoke, in order: each needs what the ones before it wrote."""

import shutil
from pathlib import Path

import pytest

from browser.notebook import changed, faults
from browser.server import PROJECT

pytestmark = pytest.mark.browser

CHAPTERS = sorted(path.stem for path in PROJECT.glob("notebooks/[0-9]*.ipynb"))
# Of the course that was executed already, these are trained once more, in front of the reader; the rest is loaded.
AGAIN = ("pretrain/simmim", "finetune/random/n6/subset0_seed0")


@pytest.fixture(scope="module")
def executed(lab, phantom_course) -> None:
    """The runs and the data of a course, where the kernels of this JupyterLab look for them."""
    for name in ("runs", "data"):
        shutil.copytree(phantom_course.root / name, lab.environment[f"SSL_{name.upper()}_ROOT"])
    run = Path(lab.environment["SSL_RUNS_ROOT"]) / "phantom" / "smoke"
    for name in AGAIN:
        shutil.rmtree(run / name)


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_run_all(executed, notebook, go_through, chapter):
    opened = notebook(f"notebooks/{chapter}.ipynb")
    cells = opened.run_all()
    go_through(opened, chapter)
    assert not faults(cells)
    assert not opened.without_picture()
    assert not opened.nameless()
    for explorer in opened.page.locator(".ssl-explorer").all():
        canvas = explorer.locator("canvas[data-plane=axial]")
        canvas.focus()
        assert changed(canvas, lambda: opened.page.keyboard.press("PageUp")), "a key moves nothing"
