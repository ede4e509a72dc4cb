"""How long a slice takes to follow the hand: SliceExplorer with a 128^3 volume in JupyterLab and headless Chromium.

    python benchmarks/explorer.py [--moves 50] [--picture explorer.png]

Each move is one key press on the axial slider; the clock starts at the browser's key event and stops at the first
animation frame in which the canvas has other pixels. Prints JSON: median, slowest, and the part spent on drawing.
Needs the extra `dev` (playwright) and Chromium (environment variable CHROMIUM, or on the PATH).
"""

import argparse
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

import nbformat
from playwright.sync_api import Page, sync_playwright

FLAGS = ["--no-sandbox", "--disable-dev-shm-usage", "--disable-background-networking", "--disable-component-update"]
CELL = """import numpy as np
from ssl_utils.widgets.explorer import SliceExplorer
x, y, z = np.mgrid[-1:1:{size}j, -1:1:{size}j, -1:1:{size}j]
image = np.exp(-3 * (x**2 + 2 * y**2 + z**2)) + 0.1 * np.random.default_rng(0).random(x.shape)
label = np.digitize(image, [0.5, 0.7, 0.9])
SliceExplorer(image, label, prediction=np.roll(label, 3, 0))"""
READY = "() => window.jupyterapp?.shell.currentWidget?.sessionContext?.session?.kernel?.status === 'idle'"
WATCH = """() => {
  const canvas = document.querySelector('canvas[data-plane="axial"]'), pen = canvas.getContext('2d');
  const pixels = () => new Uint32Array(pen.getImageData(0, 0, canvas.width, canvas.height).data.buffer);
  const before = pixels();
  window.changed = new Promise((resolve) => addEventListener('keydown', (event) => {
    const look = () => {
      const now = pixels();
      if (now.some((pixel, i) => pixel !== before[i])) resolve(performance.now() - event.timeStamp);
      else requestAnimationFrame(look);
    };
    requestAnimationFrame(look);
  }, { once: true, capture: true }));
}"""


@contextmanager
def jupyterlab(folder: Path) -> Iterator[str]:
    """The address of a server that shows this folder and keeps its own settings to itself."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    state = {f"JUPYTER_{name}_DIR": str(folder / ".state" / name) for name in ("CONFIG", "DATA", "RUNTIME")}
    state |= {f"JUPYTERLAB_{name}_DIR": str(folder / ".state" / name) for name in ("SETTINGS", "WORKSPACES")}
    news = Path(state["JUPYTERLAB_SETTINGS_DIR"], "@jupyterlab/apputils-extension/notification.jupyterlab-settings")
    news.parent.mkdir(parents=True)
    news.write_text('{"fetchNews": "false", "checkForUpdates": false}')
    command = [
        sys.executable,
        "-m",
        "jupyterlab",
        "--no-browser",
        "--allow-root",
        "--ip=127.0.0.1",
        f"--port={port}",
        "--IdentityProvider.token=",
        f"--ServerApp.root_dir={folder}",
        "--LabApp.expose_app_in_browser=True",
    ]
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    server = subprocess.Popen(command, env={**os.environ, **state, "PATH": path}, stderr=subprocess.DEVNULL)
    try:
        for _ in range(300):
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/api", timeout=1).close()
                break
            except OSError:
                time.sleep(0.2)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait(20)


def opened(page: Page, address: str, name: str) -> None:
    """Open a notebook, run all its cells, and wait for the explorer."""
    page.goto(f"{address}/lab/tree/{name}?reset")
    page.wait_for_function(READY, timeout=120_000)
    page.evaluate("() => window.jupyterapp.commands.execute('notebook:run-all-cells')")
    page.wait_for_selector(".ssl-explorer[data-redraw]", timeout=60_000)


def measured(page: Page, moves: int) -> dict[str, float]:
    slider = page.locator('input[data-plane="axial"]')
    slider.focus()
    waits, draws = [], []
    for i in range(moves):
        page.evaluate(WATCH)
        page.keyboard.press("ArrowRight" if i < moves // 2 else "ArrowLeft")
        waits.append(page.evaluate("() => window.changed"))
        draws.append(float(page.locator(".ssl-explorer").get_attribute("data-redraw")))
    return {
        "moves": moves,
        "median_ms": round(median(waits), 1),
        "slowest_ms": round(max(waits), 1),
        "median_draw_ms": round(median(draws), 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--moves", type=int, default=50)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--picture", help="write a screenshot of the notebook here")
    given = parser.parse_args()
    chromium = os.environ.get("CHROMIUM") or shutil.which("chromium")
    with tempfile.TemporaryDirectory() as folder, jupyterlab(Path(folder)) as address, sync_playwright() as player:
        cells = [nbformat.v4.new_code_cell(CELL.format(size=given.size))]
        named = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
        nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=named), Path(folder, "one.ipynb"))
        browser = player.chromium.launch(executable_path=chromium, args=FLAGS)
        page = browser.new_page(viewport={"width": 1300, "height": 1000})
        opened(page, address, "one.ipynb")
        print(json.dumps({"voxels": given.size**3, **measured(page, given.moves)}))
        if given.picture:
            page.screenshot(path=given.picture)
        browser.close()


if __name__ == "__main__":
    main()
