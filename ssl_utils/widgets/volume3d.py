"""A volume with its label in three dimensions: ipyniivue, or itkwidgets where it is installed and its pages answer.

itkwidgets is only imported for `viewer="itk"`: its import alone replaces the kernel's execute handler, and without
network every later cell of the notebook waits for its viewer.
"""

import atexit
import json
import shutil
import tempfile
import urllib.error
import urllib.request
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from IPython.display import Javascript, display

from ssl_utils.errors import CourseError
from ssl_utils.figures.panels import Window, choose_window, colour, volume
from ssl_utils.live import live

_ITK_PAGES = (  # from which itkwidgets 1.0a55 loads its viewer and its controls
    "https://bafybeieiqiiwvdq66e2bndws5nwojbe4wwerbxyua6u37axxivi2rwf7wy.ipfs.dweb.link/",
    "https://cdn.jsdelivr.net/",
)


class Sentence(str):
    """Text that a notebook shows without quotation marks."""

    def __repr__(self) -> str:
        return str(self)


_HELP = "The volume in three dimensions: drag it, or press the arrow keys, to turn it; wheel to zoom."
_KEYS = Path(__file__).with_name("keys.js")  # lets the arrow keys turn the volume


def volume3d(
    image: Any,
    label: Any = None,
    *,
    spacing: Sequence[float] = (1, 1, 1),
    viewer: str = "niivue",
    window: Window = None,
) -> Any:
    """A three-dimensional viewer when live, else a sentence on how to get one; it never waits for anything.

    Args:
        image, label: (D, H, W), label values 0 to 255.
        viewer: "niivue" (needs no network) or "itk" (itkwidgets: an extra, and its viewer comes from the network).

    Raises:
        CourseError: unknown viewer, or not one volume.
    """
    if viewer not in ("niivue", "itk"):
        raise CourseError(f"viewer={viewer!r}: no such viewer; choose niivue or itk")
    image, label = volume(image), None if label is None else volume(label).astype(np.uint8)
    if not live():
        return Sentence("The 3D viewer opens when this cell is run in JupyterLab (make lab); nothing to show here.")
    if viewer == "itk":
        reason = _itk_missing()
        if reason is None:
            return _itk(image, label, spacing)
        print(f"itkwidgets is not used: {reason}. Showing the same volume with ipyniivue.")
    return _niivue(image, label, spacing, choose_window(image, window))


def _niivue(image: np.ndarray, label: np.ndarray | None, spacing: Sequence[float], limits: tuple[float, float]) -> Any:
    import nibabel
    from ipyniivue import NiiVue, SliceType

    folder = Path(tempfile.mkdtemp(prefix="ssl_utils_view_"))  # the widget reads the files later, for the page
    atexit.register(shutil.rmtree, folder, ignore_errors=True)

    def saved(array: np.ndarray, name: str, **more: Any) -> dict[str, Any]:
        nibabel.save(nibabel.Nifti1Image(array, np.diag([*spacing, 1.0])), folder / name)
        return {"path": folder / name, **more}

    opacity = 1.0 if label is None else 0.35  # the organs are inside the body
    grey = {"colormap": "gray", "cal_min": limits[0], "cal_max": limits[1], "opacity": opacity}
    volumes = [saved(image.astype(np.float32), "image.nii.gz", **grey)]
    volumes += [] if label is None else [saved(label, "label.nii.gz", opacity=0.5)]
    viewer = NiiVue(height=420)
    viewer.opts.is_radiological_convention = True  # the patient's right is on the left, as in every other picture
    viewer.set_slice_type(SliceType.RENDER)
    viewer.load_volumes(volumes)
    if label is not None:
        values = np.unique(label).tolist()
        rgba = np.array([(*colour(value), 1) if value else (0, 0, 0, 0) for value in values]) * 255
        table = dict(zip("RGBA", rgba.T.tolist(), strict=True))
        viewer.volumes[1].set_colormap_label(table | {"I": values, "labels": [f"label {value}" for value in values]})
    print(_HELP)
    display(Javascript(_KEYS.read_text(encoding="utf-8").replace("HELP", json.dumps(_HELP))))
    return viewer


def _itk_missing() -> str | None:
    """Why itkwidgets cannot be used here, or None. Its addresses get 2 seconds each."""
    if find_spec("itkwidgets") is None:
        return "it is not installed (pip install '.[itk]')"
    for page in _ITK_PAGES:
        try:
            urllib.request.urlopen(urllib.request.Request(page, method="HEAD"), timeout=2).close()
        except urllib.error.HTTPError:
            continue  # the server answers, that is enough
        except OSError:
            return f"its viewer comes from {page}, which does not answer"
    return None


def _itk(image: np.ndarray, label: np.ndarray | None, spacing: Sequence[float]) -> Any:
    from itkwidgets import view
    from scipy.ndimage import zoom

    cubic = np.array(spacing) / min(spacing)  # an array has no spacing there: make the voxels cubes; axes (z, y, x)
    image = np.ascontiguousarray(zoom(image.astype(np.float32), cubic, order=1).T)
    return view(image, label_image=None if label is None else np.ascontiguousarray(zoom(label, cubic, order=0).T))
