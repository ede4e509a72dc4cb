"""A volume with its label in three dimensions: ipyniivue, or itkwidgets where it and the files of its viewer are there.

Both are imported when asked for. itkwidgets is never imported otherwise: its import alone replaces the kernel's
execute handler, and every later cell of the notebook waits until its viewer has drawn, for ever where that is missing.
"""

import atexit
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from IPython.display import Javascript, display

from ssl_utils.errors import CourseError
from ssl_utils.figures.panels import Window, choose_window, colour, volume
from ssl_utils.live import live

# Where `make lab VIEWER=itk` puts the files of itkwidgets' viewer, and where JupyterLab serves them.
ITK_FOLDER = Path(sys.prefix) / "share/jupyter/labextensions/imjoy-jupyterlab-extension/static/viewer"
ITK_SERVED = "/lab/extensions/imjoy-jupyterlab-extension/static/viewer"
_ITK_PAGE = f"{ITK_SERVED}/itk-vtk-viewer/index.html?http://"  # the extension wants http:// in an address
# Its other controls (ui) come from the network. Without a graphics card the other look takes minutes to be drawn.
_ITK_LOOK = {"ui": "reference", "shadow_enabled": False, "gradient_opacity": 0.0, "sample_distance": 1.0}


class Sentence(str):
    """Text that a notebook shows without quotation marks."""

    def __repr__(self) -> str:
        return str(self)


_HELP = "The volume in three dimensions: drag it, or press the arrow keys, to turn it; wheel to zoom."
_ITK_HELP = (
    "The volume in three dimensions: drag it to turn it, wheel to zoom; the menu in its corner has planes, "
    "colours and labels. The cells below wait until it is drawn."
)
_KEYS = Path(__file__).with_name("keys.js")  # lets the arrow keys turn the volume


def volume3d(
    image: Any,
    label: Any = None,
    *,
    spacing: Sequence[float] = (1, 1, 1),
    viewer: str | None = None,
    window: Window = None,
    faces: bool = False,
) -> Any:
    """A three-dimensional viewer when live, else a sentence on how to get one; it never waits for anything.

    Args:
        image, label: (D, H, W), label values 0 to 255.
        viewer: "niivue", or "itk" (itkwidgets, in the environment of `make lab VIEWER=itk`); None: the environment
            variable SSL_VIEWER, which that command sets, else niivue.
        faces: whether the scan shows a face (`Dataset.faces`), which is then not rendered.

    Raises:
        CourseError: unknown viewer, or not one volume.
    """
    viewer = viewer or os.environ.get("SSL_VIEWER") or "niivue"
    if viewer not in ("niivue", "itk"):
        raise CourseError(f"viewer={viewer!r}: no such viewer; choose niivue or itk")
    image, label = volume(image), None if label is None else volume(label).astype(np.uint8)
    if faces:
        return Sentence("This scan shows a face, by which a patient could be recognised. It is not drawn in 3D.")
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
    """Why itkwidgets cannot be used here, or None."""
    if find_spec("itkwidgets") is None:
        return "it is not installed in this environment; make lab VIEWER=itk makes one that has it"
    if not (ITK_FOLDER / "itk-vtk-viewer" / "index.html").exists():
        return "the files of its viewer are missing; python -m course.itk_viewer fetches them (then reload the page)"
    return None


def _itk(image: np.ndarray, label: np.ndarray | None, spacing: Sequence[float]) -> Any:
    import itkwidgets
    from scipy.ndimage import zoom

    itkwidgets.viewer.ITK_VIEWER_SRC = _ITK_PAGE
    cubic = np.array(spacing) / min(spacing)  # an array has no spacing there: make the voxels cubes; axes (z, y, x)
    image = np.ascontiguousarray(zoom(image.astype(np.float32), cubic, order=1).T)
    print(_ITK_HELP)
    if label is None:
        return itkwidgets.view(image, **_ITK_LOOK)
    label = np.ascontiguousarray(zoom(label, cubic, order=0).T)
    return itkwidgets.view(image, label_image=label, label_blend=0.85, **_ITK_LOOK)  # the organs lie inside the body
