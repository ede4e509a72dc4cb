"""A notebook open in JupyterLab: run it, ask its cells, press keys, compare pixels."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from playwright.sync_api import Locator, Page, Request, TimeoutError as Late, WebSocket

PATIENCE = 60_000  # milliseconds for anything that should take a second: other workers share the machine
HERE = "window.jupyterapp.shell.currentWidget"
# What the notebook's model says of every code cell: the picture of the page may hide a cell, the model does not.
CELLS = f"""() => Array.from({HERE}.content.model.cells).filter(cell => cell.type === 'code').map(cell => {{
    const outputs = Array.from({{length: cell.outputs.length}}, (_, i) => cell.outputs.get(i).toJSON());
    return {{id: cell.id, source: cell.sharedModel.source, count: cell.executionCount, outputs}};
}})"""
# Pixels of a canvas or a picture at their own size. A screenshot of the element would not do: focusing a slider can
# scroll by part of a pixel, and the screenshot differs although the picture does not.
PIXELS = """element => {
    if (element instanceof HTMLCanvasElement) return element.toDataURL();
    const canvas = document.createElement('canvas');
    [canvas.width, canvas.height] = [element.naturalWidth, element.naturalHeight];
    canvas.getContext('2d').drawImage(element, 0, 0);
    return canvas.toDataURL();
}"""
# From the press of a key, as the browser took it in, to the first frame that shows other pixels.
LATENCY = """canvas => {
    const before = canvas.toDataURL();
    window.redrawn = new Promise(resolve => document.addEventListener('keydown', pressed => {
        const look = () => canvas.toDataURL() === before ? requestAnimationFrame(look)
                                                         : resolve(performance.now() - pressed.timeStamp);
        requestAnimationFrame(look);
    }, {once: true, capture: true}));
}"""
# Resolves when the page has kept its height for some frames.
DRAWN = """async pane => {
    for (let last = -1, same = 0; same < 5;) {
        await new Promise(resolve => setTimeout(() => requestAnimationFrame(resolve), 50));
        [same, last] = [pane.scrollHeight === last ? same + 1 : 0, pane.scrollHeight];
    }
}"""
# A canvas that needs no kernel and no volume: how long a move takes on this machine at this moment, whoever draws.
BARE = """() => {
    const canvas = document.createElement('canvas');
    Object.assign(canvas, {id: 'bare', tabIndex: 0});
    canvas.style.cssText = 'position: fixed; right: 0; bottom: 0; width: 60px; height: 60px; z-index: 9999';
    canvas.addEventListener('keydown', () => requestAnimationFrame(() => {
        const pen = canvas.getContext('2d', {willReadFrequently: true});
        pen.fillStyle = `hsl(${canvas.dataset.hue = 30 + (+canvas.dataset.hue || 0)} 80% 50%)`;
        pen.fillRect(0, 0, canvas.width, canvas.height);
    }));
    document.body.append(canvas);
}"""
NAMELESS = """() => Array.from(document.querySelectorAll(
        '.jp-OutputArea-output :is(input, select, textarea, button, canvas, img, [role=slider])'))
    .filter(element => element.checkVisibility() && !element.computedName.trim())
    .map(element => element.outerHTML.slice(0, 160))"""
LIVE_PICTURES = """() => Array.from(document.querySelectorAll('.jp-MarkdownOutput img, .jp-OutputArea-output img'))
    .filter(image => !(image.complete && image.naturalWidth > 0)).map(image => image.alt || image.src.slice(0, 200))"""


class Watch:
    """What a page must not do: throw, or ask anybody but the server of the test."""

    def __init__(self, page: Page) -> None:
        self.errors: list[str] = []
        self.outside: list[str] = []
        page.on("pageerror", lambda error: self.errors.append(f"{error.message}\n{error.stack}"))
        page.on("request", lambda request: self._asked(request))
        page.on("websocket", lambda socket: self._asked(socket))

    def _asked(self, request: Request | WebSocket) -> None:
        if request.url.startswith(("http", "ws")) and "://127.0.0.1:" not in request.url:
            self.outside.append(request.url)

    def verdict(self) -> None:
        assert not self.outside, f"the page asked outside: {self.outside}"
        assert not self.errors, f"the page threw: {self.errors}"


class Notebook:
    def __init__(self, page: Page, url: str) -> None:
        self.page = page
        page.goto(url, timeout=PATIENCE)
        page.wait_for_selector(".jp-NotebookPanel .jp-Cell", timeout=PATIENCE)
        # JupyterLab lets a cell out of sight have neither a height of its own nor accessible names
        page.add_style_tag(content=".jp-Cell { content-visibility: visible !important }")
        self.until(f"{HERE}?.sessionContext?.session?.kernel?.status === 'idle'")

    def until(self, condition: str) -> None:
        self.page.wait_for_function(f"() => {condition}", timeout=PATIENCE)

    def run_all(self) -> list[dict[str, Any]]:
        """Run All; the code cells afterwards. The command ends with the last cell, and stops at the first error."""
        self.page.evaluate("() => window.jupyterapp.commands.execute('notebook:run-all-cells')")
        return self.page.evaluate(CELLS)

    def ask(self, expression: str) -> str:
        """What an expression is in the kernel, as text."""
        return self.page.evaluate(
            f"""async expression => {{
                const reply = await {HERE}.sessionContext.session.kernel.requestExecute(
                    {{code: '', user_expressions: {{asked: expression}}}}).done;
                return reply.content.user_expressions.asked.data['text/plain'];
            }}""",
            expression,
        )

    def close(self) -> None:
        """End the kernel: the next notebook needs the memory and the core."""
        self.page.evaluate(f"() => {HERE}.sessionContext.shutdown()")

    def cell(self, cell_id: str) -> Locator:
        index = self.page.evaluate(
            f"id => Array.from({HERE}.content.model.cells).findIndex(cell => cell.id === id)", cell_id
        )
        assert index >= 0, f"no cell {cell_id}"
        return self.page.locator(".jp-NotebookPanel .jp-Notebook .jp-Cell").nth(index)

    def nameless(self) -> list[str]:
        """Controls, canvases and pictures of the outputs without an accessible name."""
        return self.page.evaluate(NAMELESS)

    def without_picture(self) -> list[str]:
        return self.page.evaluate(LIVE_PICTURES)

    def keep(self, folder: Path, name: str) -> None:
        """The whole notebook as PNG files."""
        for old in folder.glob(f"{name}*.png"):
            old.unlink()
        self.go_through(lambda part: self.page.screenshot(path=folder / f"{name}_{part}.png", timeout=PATIENCE))

    def go_through(self, see: Callable[[int], Any] = lambda part: None, tallest: int = 4000) -> None:
        """From top to bottom, a call per part: what comes into view may only then be drawn and get its height."""
        width = self.page.viewport_size["width"]
        self.page.set_viewport_size({"width": width, "height": tallest})
        pane = self.page.locator(".jp-NotebookPanel .jp-WindowedPanel-outer")
        pane.evaluate("pane => { pane.scrollTop = 0 }")
        for part in range(1, 20):
            pane.evaluate(DRAWN)
            see(part)
            before = pane.evaluate("pane => pane.scrollTop")
            pane.evaluate("pane => { pane.scrollTop += pane.clientHeight - 40 }")
            if pane.evaluate("pane => pane.scrollTop") <= before + 1:
                break
        self.page.set_viewport_size({"width": width, "height": 1000})


def faults(cells: list[dict[str, Any]]) -> list[str]:
    """What a reader should not see after Run All: an error, a warning in a red box, a cell that never ran."""
    found = []
    for cell in cells:
        for output in cell["outputs"]:
            if output["output_type"] == "error":
                found.append(f"{cell['id']}: {output['ename']}: {output['evalue']}")
            elif output.get("name") == "stderr":
                found.append(f"{cell['id']}: stderr: {''.join(output['text'])[:300]}")
        if cell["source"].strip() and cell["count"] is None:
            found.append(f"{cell['id']}: did not run")
    return found


def drag(screen: Locator) -> None:
    """From the middle of an element to the right and down."""
    box, mouse = screen.bounding_box(), screen.page.mouse
    middle = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    mouse.move(*middle)
    mouse.down()
    mouse.move(middle[0] + 80, middle[1] + 40, steps=5)
    mouse.up()


def settle(screen: Locator, patience: int = PATIENCE) -> None:
    """Wait until a three-dimensional view has looked the same for a while: what is loaded late must not pass for an
    answer to a key. By screenshots: WebGL keeps no pixels to be read after the frame."""
    screen.scroll_into_view_if_needed()
    screen.page.wait_for_function(
        "canvas => canvas.width > 0 && canvas.height > 0", arg=screen.element_handle(), timeout=patience
    )
    late, last, same = time.monotonic() + patience / 1000, b"", 0
    while same < 5:
        assert time.monotonic() < late, "a three-dimensional view that does not come to rest"
        screen.page.wait_for_timeout(300)
        now = screen.screenshot()
        same, last = same + 1 if now == last else 0, now


def turned(screen: Locator, do: Callable[[], Any], patience: int = PATIENCE) -> bool:
    """Do something to a settled three-dimensional view; True when it looks otherwise within the time."""
    settle(screen, patience)
    before, late = screen.screenshot(), time.monotonic() + patience / 1000
    do()
    while screen.screenshot() == before:
        if time.monotonic() > late:
            return False
        screen.page.wait_for_timeout(100)
    return True


def pixels(element: Locator) -> str:
    return element.evaluate(PIXELS)


def changed(element: Locator, do: Callable[[], Any], patience: int = PATIENCE) -> bool:
    """Do something; True when the pixels of the element are others within the time."""
    before = pixels(element)
    do()
    try:
        element.page.wait_for_function(
            f"([element, before]) => ({PIXELS})(element) !== before",
            arg=[element.element_handle(), before],
            timeout=patience,
        )
    except Late:
        return False
    return True
