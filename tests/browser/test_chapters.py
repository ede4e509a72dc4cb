"""Every chapter in JupyterLab, Run All at scale smoke, in order: each needs what the ones before it wrote.

Then every widget of the chapter is moved: planes by a key, a knob of a playground, a 3D view, a point of the scatter.
"""

import subprocess
import sys

import pytest

from browser.notebook import changed, drag, faults, settle
from browser.server import PROJECT

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
    for name, (widget, move) in MOVES.items():
        for output in opened.page.locator(f".jp-OutputArea-output:has({widget})").all():
            move(output)
            output.screenshot(path=shots / f"{chapter}_{name}.png")


def turn_a_knob(output):
    knob = output.locator(".ssl-knobs :is(input, select)").first
    canvas = output.locator("canvas[data-plane=axial], canvas[role=application]").first
    if canvas.get_attribute("role"):
        settle(canvas)
    knob.focus()
    last = knob.evaluate("knob => knob.selectedIndex + 1 === knob.options?.length || knob.value === knob.max")
    assert changed(canvas, lambda: knob.press("ArrowUp" if last else "ArrowDown")), "a knob changes nothing"


def turn_the_volume(output):
    screen = output.locator("canvas[role=application]")
    settle(screen)
    assert changed(screen, lambda: drag(screen)), "a drag does not turn the volume"


def pick_a_case(output):
    output.locator(".ssl-scatter [data-case]").first.click()
    output.locator(".ssl-explorer canvas[data-plane=axial]").wait_for()


MOVES = {
    "playground": (".ssl-knobs", turn_a_knob),
    "turned": ("canvas[role=application]", turn_the_volume),
    "picked": (".ssl-scatter", pick_a_case),
}
