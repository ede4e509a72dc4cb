"""BIDS folders: sub-*/[ses-*/]anat/*_T1w.nii.gz, with labels (_dseg, _mask) beside them or anywhere in derivatives.

Source: the specification of the Brain Imaging Data Structure, its pages on magnetic resonance imaging and derivatives.
"""

from collections import defaultdict
from pathlib import Path
from typing import Any

from ssl_utils.data.formats.names import stem, volumes_in
from ssl_utils.errors import CourseError

LABELS = ("dseg", "mask")
NO_IMAGE = (*LABELS, "defacemask", "probseg")
IDENTITY = ("ses", "acq", "ce", "rec", "run")  # what label and image share; other entities say what it shows
EXAMPLE = '{"training": [{"image": "sub-01/anat/...", "label": "derivatives/..."}]}'


def is_bids(root: Path) -> bool:
    return bool(_folders(root))


def _folders(root: Path) -> list[Path]:
    return sorted(path for pattern in ("sub-*/anat", "sub-*/ses-*/anat") for path in root.glob(pattern))


def scan(root: Path) -> dict[str, Any]:
    """The images of one suffix, and the label of each that has one.

    Raises:
        CourseError: images of several suffixes, or several labels of an image: which are meant must be listed.
    """
    volumes = [path for folder in _folders(root) for path in volumes_in(folder)]
    images = [path for path in volumes if suffix_of(path) not in NO_IMAGE]
    suffixes = sorted({suffix_of(path) for path in images})
    if not images:
        raise CourseError(f"{root}: has no image in sub-*/anat; add some, or list them in dataset.json: {EXAMPLE}")
    if len(suffixes) > 1:
        fix = f"choose in a dataset.json, one path an image, or a list of paths as its channels: {EXAMPLE}"
        raise CourseError(f"{root}: has images of {len(suffixes)} suffixes, {', '.join(suffixes)}; {fix}")
    labels_of: dict[str, list[Path]] = defaultdict(list)
    for path in volumes + volumes_in(root / "derivatives", deep=True):
        if suffix_of(path) in LABELS:
            labels_of[_subject(path)].append(path)
    entries = {split: [] for split in ("training", "unlabeled")}
    for image in images:
        own = [p.relative_to(root).as_posix() for p in labels_of[_subject(image)] if _belongs(p, image)]
        if len(own) > 1:
            why = f"has {len(own)} labels, {', '.join(own[:4])}"
            raise CourseError(f"{image}: {why}; name the one that is meant in a dataset.json: {EXAMPLE}")
        entry = {"image": image.relative_to(root).as_posix()}
        entries["training" if own else "unlabeled"].append(entry | ({"label": own[0]} if own else {}))
    return {"channels": suffixes, **entries}


def suffix_of(path: Path) -> str:
    """The suffix in the sense of BIDS, such as T1w."""
    return stem(path).rpartition("_")[2]


def _subject(path: Path) -> str:
    return stem(path).partition("_")[0]


def _belongs(label: Path, image: Path) -> bool:
    """Whether all that the name of the label says of session, run ... and space is so of the image of its subject."""
    own, of_image = (dict(part.partition("-")[::2] for part in stem(path).split("_")) for path in (label, image))
    space = of_image.get("space")
    on_image = own.get("space", space) in (space, "orig", suffix_of(image))
    return on_image and all(of_image.get(key) == own[key] for key in IDENTITY if key in own)
