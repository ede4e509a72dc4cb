"""A person's own folder for tests: images that are all different, each with a ball as its label."""

import json
from pathlib import Path

import numpy as np
from scipy import ndimage

from ssl_utils.data import volumes

SIZE = 32


def image(number: int, size: int = SIZE) -> np.ndarray:
    """Smooth structures and a little noise around 100."""
    rng = np.random.default_rng(number)
    smooth = ndimage.zoom(rng.normal(100, 30, (8, 8, 8)), size / 8, order=3)
    return (smooth + rng.normal(0, 1, smooth.shape)).astype(np.float32)


def ball(number: int, size: int = SIZE) -> np.ndarray:
    centre = np.random.default_rng(number).uniform(12, 20, 3)[:, None, None, None]
    return (np.linalg.norm(np.indices((size,) * 3) - centre, axis=0) < 5).astype(np.uint8)


def write_pair(root: Path, name: str, number: int, *, spacing=(1, 1, 1), **arrays) -> None:
    """An image and its label, by default those of `number`; `label=None` writes none."""
    affine = np.diag([*spacing, 1.0])
    volumes.write_nifti(root / f"imagesTr/{name}.nii.gz", arrays.get("image", image(number)), affine)
    label = arrays.get("label", ball(number))
    if label is not None:
        volumes.write_nifti(root / f"labelsTr/{name}.nii.gz", label, affine)


def own_folder(root: Path, names: str = "c1 c2 c3 c4 c5 c6 c7") -> Path:
    for number, name in enumerate(names.split(), start=1):
        write_pair(root, name, number)
    return root


def delete_pair(root: Path, name: str) -> None:
    for folder in ("imagesTr", "labelsTr"):
        (root / folder / f"{name}.nii.gz").unlink(missing_ok=True)


def write_list(root: Path, **content) -> None:
    """A dataset.json: `content`, or all pairs of the folder as training."""
    names = [path.name for path in sorted((root / "imagesTr").iterdir())]
    content.setdefault("training", [entry(name.removesuffix(".nii.gz")) for name in names])
    content.setdefault("labels", {"0": "background", "1": "ball"})
    (root / "dataset.json").write_text(json.dumps(content))


def entry(name: str, **more: str) -> dict[str, str]:
    return {"image": f"imagesTr/{name}.nii.gz", "label": f"labelsTr/{name}.nii.gz", **more}
