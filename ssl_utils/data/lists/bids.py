"""BIDS folders: sub-*/[ses-*/]anat/*_T1w.nii.gz, with labels (_dseg, _mask) beside them or anywhere in derivatives.

Source: Brain Imaging Data Structure 1.9, "Magnetic Resonance Imaging" and "Imaging derivatives".
"""

from pathlib import Path
from typing import Any

from ssl_utils.data.formats.names import stem, volumes_in
from ssl_utils.errors import CourseError

LABELS = ("dseg", "mask")
NO_IMAGE = (*LABELS, "defacemask", "probseg")
IDENTITY = ("sub", "ses", "acq", "ce", "rec", "run")  # what label and image share; other entities say what it shows
EXAMPLE = '{"training": [{"image": "sub-01/anat/...", "label": "derivatives/..."}]}'


def is_bids(root: Path) -> bool:
    return any(path.is_dir() for path in root.glob("sub-*"))


def scan(root: Path) -> dict[str, Any]:
    """The images of one suffix, and the label of each that has one.

    Raises:
        CourseError: images of several suffixes, or several labels of an image: which are meant must be listed.
    """
    inside = [path for pattern in ("sub-*/anat", "sub-*/ses-*/anat") for path in root.glob(pattern)]
    volumes = [path for folder in sorted(inside) for path in volumes_in(folder)]
    images = [path for path in volumes if suffix_of(path) not in NO_IMAGE]
    suffixes = sorted({suffix_of(path) for path in images})
    if not images:
        raise CourseError(f"{root}: has no image in sub-*/anat; add some, or list them in dataset.json: {EXAMPLE}")
    if len(suffixes) > 1:
        fix = f"choose in a dataset.json, one path an image, or a list of paths as its channels: {EXAMPLE}"
        raise CourseError(f"{root}: has images of {len(suffixes)} suffixes, {', '.join(suffixes)}; {fix}")
    labels = [p for p in volumes + volumes_in(root / "derivatives", deep=True) if suffix_of(p) in LABELS]
    entries = {split: [] for split in ("training", "unlabeled")}
    for image in images:
        own = [path.relative_to(root).as_posix() for path in labels if _belongs(path, image)]
        if len(own) > 1:
            why = f"has {len(own)} labels, {', '.join(own[:4])}"
            raise CourseError(f"{image}: {why}; name the one that is meant in a dataset.json: {EXAMPLE}")
        entry = {"image": image.relative_to(root).as_posix()}
        entries["training" if own else "unlabeled"].append(entry | ({"label": own[0]} if own else {}))
    return {"channels": suffixes, **entries}


def suffix_of(path: Path) -> str:
    """The suffix in the sense of BIDS, such as T1w."""
    return stem(path).rpartition("_")[2]


def _belongs(label: Path, image: Path) -> bool:
    """Whether all that the name of the label says of subject, session, run ... and space is so of the image."""
    own, of_image = (dict(part.partition("-")[::2] for part in stem(path).split("_")) for path in (label, image))
    space = of_image.get("space")
    on_image = own.get("space", space) in (space, "orig", suffix_of(image))
    return "sub" in own and on_image and all(of_image.get(key) == own[key] for key in IDENTITY if key in own)
