"""itkwidgets in the environment of `make lab VIEWER=itk`: a volume with labels is drawn and turned, without a network.

make browser VIEWER=itk
"""

import io

import nbformat
import numpy as np
import pytest
from PIL import Image

from browser import server
from browser.notebook import Notebook, Watch, drag, faults, settle, turned

pytestmark = [pytest.mark.browser, pytest.mark.itk]

PYTHON = server.PROJECT / ".venv-itk" / "bin" / "python"
PATIENCE = 400_000  # milliseconds: the CPU draws the volume here, which a graphics card does at once
CELLS = {
    "volume": """
import numpy as np
from ssl_utils.widgets import viewers

z, y, x = np.meshgrid(*[np.linspace(-1, 1, 64)] * 3, indexing="ij")
distance = np.sqrt(x**2 + 2 * y**2 + 4 * z**2)
image = (100 * (distance < 0.9) + 100 * (distance < 0.3)).astype(np.float32)
label = ((distance < 0.7) * (1 * (x > 0.2) + 2 * (x < -0.2))).astype(np.uint8)
""",
    "viewer": "viewers.volume3d(image, label)",
    "last": "print('the cells after a viewer still run')",
}


@pytest.fixture(scope="module")
def opened(browser, shots, tmp_path_factory):
    """A notebook with a viewer, run once; the viewer is chosen by the setting alone."""
    assert PYTHON.exists(), "no environment .venv-itk: make browser VIEWER=itk makes it"
    course, state = tmp_path_factory.mktemp("course"), tmp_path_factory.mktemp("state")
    notebook = nbformat.v4.new_notebook(metadata={"kernelspec": {"name": "python3", "display_name": "Python 3"}})
    notebook.cells = [nbformat.v4.new_code_cell(source.strip(), id=name) for name, source in CELLS.items()]
    nbformat.write(notebook, course / "viewer.ipynb")
    process, lab = server.start(course, state, shots / "jupyterlab_itk.log", str(PYTHON), SSL_VIEWER="itk")
    context = browser.new_context(viewport={"width": 800, "height": 800})  # few pixels: every one is a ray to follow
    context.set_default_timeout(PATIENCE)
    page = context.new_page()
    watch = Watch(page)
    try:
        opened = Notebook(page, lab.url("viewer.ipynb"))
        page.keyboard.press("Control+b")  # the list of files takes room
        opened.cells = opened.run_all()
        yield opened
    finally:
        context.close()
        server.stop(process)
    watch.verdict()


@pytest.fixture
def canvas(opened):
    """What the viewer draws on, in a frame of its own."""
    return opened.cell("viewer").frame_locator("iframe").locator("canvas").first


def averaged(canvas) -> np.ndarray:
    """(pixels, 3), 0 to 255: means of 4 x 4 pixels, in which the grain of the rays averages out."""
    settle(canvas, PATIENCE)
    picture = Image.open(io.BytesIO(canvas.screenshot())).convert("RGB")
    small = picture.resize((picture.width // 4, picture.height // 4), Image.Resampling.BOX)
    return np.asarray(small).reshape(-1, 3).astype(int)


def test_every_cell_ran(opened):
    assert not faults(opened.cells)
    texts = ["".join(output.get("text", "")) for cell in opened.cells for output in cell["outputs"]]
    assert any(text.startswith("The volume in three dimensions") for text in texts)
    assert texts[-1].startswith("the cells after a viewer still run")


def test_volume_and_labels_are_seen(canvas, opened, shots):
    """The volume is brown on grey; label 1 makes one end of it red, label 2 the other one pink."""
    pixels = averaged(canvas)
    opened.page.screenshot(path=shots / "itk.png")
    background, (red, green, blue) = np.median(pixels, axis=0), pixels.T
    volume = np.abs(pixels - background).max(1) > 20
    pink = volume & (blue > 1.1 * green)
    shares = {"label 1": (volume & ~pink & (red > 1.7 * green)).sum(), "label 2": pink.sum()}
    assert volume.sum() > 500
    assert all(0.05 < share / volume.sum() < 0.6 for share in shares.values()), (shares, volume.sum())


def test_a_drag_turns_the_volume(canvas, opened, shots):
    before = averaged(canvas)
    assert turned(canvas, lambda: drag(canvas), PATIENCE)
    after = averaged(canvas)
    opened.page.screenshot(path=shots / "itk_turned.png")
    moved = np.abs(after - before).max(1) > 20
    assert moved.sum() > 100, "another grain, the same view"
