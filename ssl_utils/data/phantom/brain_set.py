"""The generated dataset of brain tumours: cases of four scanners, a file for each sequence."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from ssl_utils.data.dataset import BRATS_LABELS, BRATS_REGIONS
from ssl_utils.data.phantom.brain import make_brain
from ssl_utils.data.phantom.generated import FOLDERS, numbered, write_set
from ssl_utils.data.phantom.scanning_brains import SEQUENCES, SITES

VERSION = 1  # one more when the same seed gives other voxels


def plan_brains(*, seed: int = 0, **sizes: int) -> dict[str, list[dict]]:
    """The cases of every split; scanners take turns, so that each split has all of them. Case i of a split does not
    depend on their number."""
    numbers = numbered("brain phantom", **sizes)
    return {split: [_case(*one, seed) for one in members] for split, members in numbers.items()}


def _case(number: int, folder: str, seed: int) -> dict:
    name, site = f"brain_{number:04d}", list(SITES)[number % len(SITES)]
    case = {"image": [f"images{folder}/{name}-{sequence}.nii.gz" for sequence in SEQUENCES]}
    case |= {"patient": f"patient_{number:04d}", "site": site}
    if folder != FOLDERS["unlabeled"]:
        case["label"] = f"labels{folder}/{name}.nii.gz"
    drawn = int(np.random.default_rng([seed, number]).integers(2**31))
    return case | {"recipe": {"seed": drawn, "site": site}}


def _draw(recipe: dict) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return make_brain(**recipe)


def _mark(recipe: dict) -> str:
    return f"brain {VERSION} {recipe['seed']} {recipe['site']}"


def write_brains(
    root: Path,
    *,
    unlabeled: int,
    training: int,
    validation: int,
    test: int,
    seed: int = 0,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Write the dataset below `root` and return the path of its dataset.json; options as in `writing.write_dataset`.

    Raises:
        CourseError: a split that is too large, a folder that cannot be written, a full disk.
    """
    sizes = {"unlabeled": unlabeled, "training": training, "validation": validation, "test": test}
    about = {
        "name": "brain_phantom",
        "description": "Procedural MRI of brain tumours in four sequences; no patient was scanned",
        "version": VERSION,
        "licence": "CC0-1.0",
        "channels": list(SEQUENCES),
        "labels": {str(value): name for value, name in BRATS_LABELS.items()},
        "regions": {name: list(values) for name, values in BRATS_REGIONS.items()},
    }
    how = {"draw": _draw, "mark": _mark, "workers": workers, "progress": progress}
    return write_set(Path(root), plan_brains(**sizes, seed=seed), about=about, **how)
