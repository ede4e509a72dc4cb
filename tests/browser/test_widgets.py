"""The viewers, moved by keyboard, wheel and mouse in one notebook: what is shown changes, soon, and has a name."""

import statistics

import nbformat
import pytest

from browser.notebook import BARE, LATENCY, PATIENCE, PIXELS, Notebook, Watch, changed, drag, faults, pixels, turned

pytestmark = pytest.mark.browser

BARE_MS = 50  # of a bare canvas on two idle cores: two or three frames
CELLS = {
    "volume": """
import numpy as np
import pandas as pd
from ssl_utils.widgets import viewers

z, y, x = np.meshgrid(*[np.linspace(-1, 1, 128)] * 3, indexing="ij")
image = (400 * np.exp(-3 * (x**2 + 2 * y**2 + z**2)) + 60 * np.sin(9 * x + 7 * y + 5 * z)).astype(np.float32)
label = (image > 150).astype(np.uint8) + (image > 300)
prediction = np.roll(label, 4, axis=1)
""",
    "explorer": """
viewers.explore(image, label, prediction=prediction, after=image[::-1].copy(), names={1: "shell", 2: "core"})
""",
    "playground": """
def make(side, ratio):
    order = np.random.default_rng(0).permutation((32 // side) ** 3).reshape((32 // side,) * 3)
    hidden = order < ratio * order.size
    for axis in range(3):
        hidden = hidden.repeat(side, axis)
    return {"image": image[::4, ::4, ::4], "mask": hidden, "caption": f"{hidden.mean():.0%} hidden"}

viewers.playground(make, {
    "side": viewers.Control("side of a cube", 4, choices=[4, 8]),
    "ratio": viewers.Control("mask ratio", 0.5, low=0.1, high=0.9, step=0.1),
})
""",
    "results": """
rng = np.random.default_rng(0)
per_case = pd.DataFrame([
    {"init": init, "num_labeled": n, "subset": 0, "seed": 0, "case": f"case_{i}", "patient": f"p{i}", "class": organ,
     "dice": rng.uniform(0.5, 0.9)}
    for init in ("random", "simmim") for n in (6, 12) for i in range(5) for organ in ("shell", "core")
])

def show(*, case, **run):
    small = np.roll(label[::4, ::4, ::4], 3 * int(case[-1]), axis=2)
    return {"image": image[::4, ::4, ::4], "label": small, "prediction": small, "spacing": (1, 1, 1)}

viewers.results_explorer(per_case, show, names={1: "shell", 2: "core"})
""",
    "volume3d": """
solid = viewers.volume3d(image[::4, ::4, ::4], label[::4, ::4, ::4])
solid
""",
    "itk": "viewers.volume3d(image[:32, :32, :32], viewer='itk')",
    "last": "print('the cells after a viewer still run')",
}
MUTANT = {
    "dead": '''
import anywidget

class Dead(anywidget.AnyWidget):
    """Looks like a viewer; its slider moves, and nothing happens."""
    _esm = """export default {render({el}) {
        el.innerHTML = `<div class="dead"><canvas tabindex="0"></canvas><input type="range"></div>`;
        el.querySelector("canvas").getContext("2d").fillRect(9, 9, 30, 30);
    }}"""

Dead()
''',
    "picture": "![not there](../figures/no_such_figure.png)",
    "warning": "import sys; print('a warning', file=sys.stderr)",
    "error": "1 / 0",
    "after": "print('not reached')",
}


def write(path, cells: dict[str, str]) -> None:
    made = nbformat.v4.new_notebook(metadata={"kernelspec": {"name": "python3", "display_name": "Python 3"}})
    for name, source in cells.items():
        kind = nbformat.v4.new_markdown_cell if source.startswith("!") else nbformat.v4.new_code_cell
        made.cells.append(kind(source.strip(), id=name))
    nbformat.write(made, path)


@pytest.fixture(scope="module")
def opened(lab, person, go_through):
    """The notebook of viewers, run once for all tests of this module."""
    write(lab.course / "notebooks" / "viewers.ipynb", CELLS)
    page = person.new_page()
    watch = Watch(page)
    notebook = Notebook(page, lab.url("notebooks/viewers.ipynb"))
    assert not faults(notebook.run_all())
    go_through(notebook, "viewers")
    yield notebook
    notebook.close()
    page.close()
    watch.verdict()


@pytest.fixture
def explorer(opened):
    found = opened.cell("explorer").locator(".ssl-explorer")
    found.scroll_into_view_if_needed()
    return found


def canvas(explorer, plane: str):
    return explorer.locator(f"canvas[data-plane={plane}]")


@pytest.mark.parametrize("plane", ["axial", "coronal", "sagittal"])
def test_a_slider_moves_its_plane(explorer, plane):
    slider = explorer.locator(f"input[data-plane={plane}]")
    slider.focus()
    assert changed(canvas(explorer, plane), lambda: slider.press("ArrowRight"))


@pytest.mark.parametrize("key", ["ArrowUp", "ArrowDown", "PageUp", "PageDown"])
def test_keys_move_a_plane(explorer, key):
    axial = canvas(explorer, "axial")
    axial.focus()
    assert changed(axial, lambda: axial.press(key))


def test_the_wheel_moves_a_plane(opened, explorer):
    coronal = canvas(explorer, "coronal")
    coronal.hover()
    assert changed(coronal, lambda: opened.page.mouse.wheel(0, 100))
    assert changed(coronal, lambda: opened.page.mouse.wheel(0, -100))


@pytest.mark.parametrize("other", ["coronal", "sagittal"])
def test_a_click_takes_the_other_planes_along(explorer, other):
    box = canvas(explorer, "axial").bounding_box()
    for part in (0.3, 0.6):
        where = {"x": part * box["width"], "y": part * box["height"]}
        assert changed(canvas(explorer, other), lambda at=where: canvas(explorer, "axial").click(position=at))


def test_a_window_preset_changes_the_greys(explorer):
    preset = explorer.locator("select[data-control=preset]")
    now = preset.evaluate("select => select.selectedIndex")
    other = next(i for i in range(preset.locator("option").count()) if i != now)
    assert changed(canvas(explorer, "axial"), lambda: preset.select_option(index=other))
    assert changed(canvas(explorer, "axial"), lambda: preset.select_option(index=now))


def test_overlay_and_second_image_are_seen(explorer):
    axial, opacity = canvas(explorer, "axial"), explorer.locator("input[data-control=opacity]")
    assert changed(axial, lambda: opacity.fill("0.9"))
    layer = explorer.locator("select[data-control=layer]")
    seen = {pixels(axial)}
    for choice in ("label", "prediction", "off"):
        assert changed(axial, lambda choice=choice: layer.select_option(choice))
        seen.add(pixels(axial))
    assert len(seen) == 4, "two choices of the layer look alike"
    assert changed(axial, explorer.locator("input[data-control=after]").check)
    layer.select_option("both")


@pytest.mark.alone
def test_a_move_is_on_the_screen_within_150_ms(opened, explorer, capsys):
    """Key to pixels. A busy machine gets as many times longer as a bare canvas takes longer there than it should."""
    page, axial = opened.page, canvas(explorer, "axial")
    page.evaluate(BARE)
    times = {"explorer": [], "bare": []}
    for move in range(30):
        for name, screen in (("explorer", axial), ("bare", page.locator("#bare"))):
            screen.focus()
            screen.evaluate(LATENCY)
            page.keyboard.press("ArrowUp" if move % 2 else "ArrowDown")
            times[name].append(page.evaluate("() => window.redrawn"))
    page.locator("#bare").evaluate("canvas => canvas.remove()")
    took, bare = statistics.median(times["explorer"]), statistics.median(times["bare"])
    with capsys.disabled():
        print(f"\n128 x 128 x 128 voxels, from key to pixels: median {took:.0f} ms; a bare canvas {bare:.0f} ms")
    assert took < 150 * max(1, bare / BARE_MS)


def test_a_control_of_the_playground_changes_the_picture(opened):
    cell = opened.cell("playground")
    cell.scroll_into_view_if_needed()
    axial = canvas(cell.locator(".ssl-explorer"), "axial")
    assert changed(axial, lambda: cell.get_by_label("side of a cube").select_option("8"))
    ratio = cell.get_by_role("slider", name="mask ratio")
    ratio.focus()
    assert changed(axial, lambda: ratio.press("ArrowRight"))
    cell.get_by_text("61% hidden").wait_for()


def test_a_picked_point_shows_its_case(opened):
    cell = opened.cell("results")
    cell.scroll_into_view_if_needed()
    points = cell.locator(".ssl-scatter [data-case]")
    assert points.count() == 5
    points.first.click()
    axial = canvas(cell.locator(".ssl-explorer"), "axial")
    axial.wait_for()
    seen = pixels(axial)
    points.first.focus()
    points.first.press("ArrowRight")
    cell.page.keyboard.press("Enter")
    other = points.nth(1).get_attribute("data-case")
    cell.locator(f".ssl-picked[data-case={other}]").wait_for()
    opened.page.wait_for_function(
        f"([cell, seen]) => {{ const canvas = cell.querySelector('canvas[data-plane=axial]');"
        f"return canvas && ({PIXELS})(canvas) !== seen }}",
        arg=[cell.element_handle(), seen],
        timeout=PATIENCE,
    )


def test_a_drag_turns_the_volume(opened):
    screen = opened.cell("volume3d").locator("canvas").first
    assert opened.ask("solid.opts.slice_type.name") == "'RENDER'", "planes, in which a drag moves a crosshair only"
    assert turned(screen, lambda: drag(screen))


@pytest.mark.parametrize("key", ["ArrowLeft", "ArrowRight", "ArrowUp", "ArrowDown"])
def test_arrow_keys_turn_the_volume(opened, key):
    screen = opened.cell("volume3d").locator("canvas").first
    screen.focus()  # its ring must not pass for a turn
    screen.press("Shift")
    assert turned(screen, lambda: screen.press(key))


def test_without_itkwidgets_a_sentence_and_the_other_viewer(opened):
    cell = opened.cell("itk")
    assert "itkwidgets is not used: it is not installed" in cell.text_content()
    assert cell.locator("canvas").count() >= 1


def test_every_control_has_a_name(opened):
    assert not opened.nameless()


def test_the_checks_notice_what_is_broken(lab, browser):
    """A viewer that does nothing, a page that throws and asks outside, cells with faults: each must be found."""
    write(lab.course / "notebooks" / "mutant.ipynb", MUTANT)
    with browser.new_context() as context:
        page = context.new_page()
        watch = Watch(page)
        mutant = Notebook(page, lab.url("notebooks/mutant.ipynb"))
        found = faults(mutant.run_all())
        assert [line.split(":")[0] for line in found] == ["warning", "error", "after"]
        dead = mutant.cell("dead").locator(".dead")
        dead.locator("canvas").focus()
        assert not changed(dead.locator("canvas"), lambda: dead.locator("input").press("ArrowRight"), patience=2000)
        assert len(mutant.nameless()) == 2
        assert mutant.without_picture() == ["not there"]
        watch.verdict()
        with page.expect_event("pageerror"), page.expect_request("https://example.org/"):
            page.evaluate("() => { setTimeout(() => { throw new Error('broken') }); fetch('https://example.org') }")
        mutant.close()
    assert watch.outside == ["https://example.org/"]
    assert watch.errors and "broken" in watch.errors[0]
