"""Every chapter in JupyterLab, Run All at scale smoke, in order: each needs what the ones before it wrote."""

import subprocess
import sys

import pytest

from browser.notebook import changed, faults
from browser.server import PROJECT

pytestmark = pytest.mark.browser

CHAPTERS = sorted(path.stem for path in PROJECT.glob("notebooks/[0-9]*.ipynb"))
# Chapter 04 leaves one fine-tuning, random with 6 labels. To compare, chapter 05 wants other starts and label counts.
MORE = (("random", 12), ("simmim", 6), ("simmim", 12), ("restoration", 6))
FINETUNE = f"""
from ssl_utils import experiments, scales
where = experiments.setup(dataset="phantom", scale=scales.get("smoke"))
for init, num_labeled in {MORE}:
    experiments.finetune(where, init=init, num_labeled=num_labeled)
"""


def finetune_more(environment: dict[str, str]) -> None:
    command = [sys.executable, "-c", FINETUNE]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_run_all(lab, notebook, shots, chapter):
    if chapter == "05_results":
        finetune_more(lab.environment)
    opened = notebook(f"notebooks/{chapter}.ipynb")
    cells = opened.run_all()
    opened.keep(shots, chapter)
    assert not faults(cells)
    assert not opened.without_picture()
    assert not opened.nameless()
    for explorer in opened.page.locator(".ssl-explorer").all():
        canvas = explorer.locator("canvas[data-plane=axial]")
        canvas.focus()
        assert changed(canvas, lambda: opened.page.keyboard.press("PageUp")), "a key moves nothing"
