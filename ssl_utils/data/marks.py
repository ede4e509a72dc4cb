"""A mark in a NIfTI file that says what wrote its voxels: it holds as long as they are the same."""

import hashlib
from pathlib import Path

import nibabel as nib
import numpy as np

PREDICTED = "label map by ssl_utils predict"


def mark_of(label: np.ndarray) -> str:
    """The description for the header of a predicted label map (D, H, W): `PREDICTED`, and a hash of the voxels."""
    return f"{PREDICTED} {hashlib.sha256(np.asarray(label).astype(np.int32).tobytes()).hexdigest()[:16]}"


def is_predicted(path: Path) -> bool:
    """Whether it is a label map as `predict` wrote it. A corrected one is not, nor is a damaged file."""
    try:
        image = nib.load(path)
        text = image.header["descrip"].item().decode(errors="replace")
        if not text.startswith(PREDICTED):
            return False
        return text == PREDICTED or text == mark_of(image.dataobj)  # earlier versions wrote no hash
    except Exception:  # nibabel raises many kinds of errors; what is wrong with the file is said where it is read
        return False
