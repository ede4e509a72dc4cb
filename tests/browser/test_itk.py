"""itkwidgets in the environment of `make lab VIEWER=itk`: a volume with labels is drawn and turned, without a network.

make browser VIEWER=itk
"""

import io

import nbformat
import numpy as np
import pytest
from PIL import Image

from browser import server
from browser.notebook import Notebook, Watch, drag, faults, turned

pytestmark = [pytest.mark.browser, pytest.mark.itk]

PYTHON = server.PROJECT / ".venv-itk" / "bin" / "python"
PATIENCE = 400_000  # milliseconds: a CPU draws the volume here, which a graphics card does at once
CELLS = {
    "volume": """
import numpy as np
from ssl_utils.widgets import viewers

z, y, x = np.meshgrid(*[np.linspace(-1, 1, 64)] * 3, indexing="ij")
distance = np.sqrt(x**2 + 2 * y**2 + 4 * z**2)
image = (100 * (distance < 0.9) + 100 * (distance < 0.3)).astype(np.float32)
label = np.where(distance < 0.3, 2, 1 * ((distance < 0.6) & (x > 0))).astype(np.uint8)
""",
    "image": "viewers.volume3d(image)",
    "label": "viewers.volume3d(image, label)",
    "last": "print('the cells after a viewer still run')",
}


@pytest.fixture(scope="module")
def opened(browser, shots, tmp_path_factory):
    """A notebook with two viewers, run once; the viewer is chosen by the setting alone."""
    assert PYTHON.exists(), "no environment .venv-itk: make browser VIEWER=itk makes it"
    course, state = tmp_path_factory.mktemp("course"), tmp_path_factory.mktemp("state")
    notebook = nbformat.v4.new_notebook(metadata={"kernelspec": {"name": "python3", "display_name": "Python 3"}})
    notebook.cells = [nbformat.v4.new_code_cell(source.strip(), id=name) for name, source in CELLS.items()]
    nbformat.write(notebook, course / "viewers.ipynb")
    process, lab = server.start(course, state, shots / "jupyterlab_itk.log", str(PYTHON), SSL_VIEWER="itk")
    context = browser.new_context(viewport={"width": 800, "height": 700})  # few pixels: every one is a ray to follow
    context.set_default_timeout(PATIENCE)
    page = context.new_page()
    watch = Watch(page)
    opened = Notebook(page, lab.url("viewers.ipynb"))
    page.keyboard.press("Control+b")  # the list of files takes the room of the viewers
    opened.cells = opened.run_all()
    yield opened
    context.close()
    server.stop(process)
    watch.verdict()


def screen(opened, cell: str):
    """The canvas of a viewer; it is in a frame of its own."""
    found = opened.cell(cell).frame_locator("iframe").locator("canvas").first
    found.scroll_into_view_if_needed()
    return found


def colours(picture: bytes) -> np.ndarray:
    """(pixels, 3), 0 to 255."""
    return np.asarray(Image.open(io.BytesIO(picture)).convert("RGB")).reshape(-1, 3).astype(int)


def test_every_cell_ran(opened):
    assert not faults(opened.cells)
    assert opened.cells[-1]["outputs"][0]["text"].startswith("the cells after a viewer still run")


@pytest.mark.parametrize("cell", ["image", "label"])
def test_a_drag_turns_the_volume(opened, shots, cell):
    found = screen(opened, cell)
    assert turned(found, lambda: drag(found), PATIENCE)
    opened.page.screenshot(path=shots / f"itk_{cell}.png")
