"""The embedded dataset: procedural trunk CT with the thirteen organs of BTCV, deterministic from a seed."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from scipy.ndimage import find_objects, label as components

from ssl_utils.data.dataset import BTCV_ORGANS
from ssl_utils.data.phantom import organs, scanner, trunk as frame, variants
from ssl_utils.data.phantom.canvas import PHASES, Canvas, smooth_noise
from ssl_utils.data.phantom.generated import FOLDERS, numbered, write_set
from ssl_utils.data.phantom.lesions import FINDINGS, abnormal
from ssl_utils.errors import CourseError

VERSIONS = (1, 2)  # one more when the same seed gives other voxels: files of another version are rewritten
VERSION = VERSIONS[-1]
FIELD = {"abdomen": (-150.0, 300.0), "chest": (-10.0, 288.0)}  # lowest point above L1 and height, mm


def make_volume(
    seed: int,
    *,
    kind: str,
    spacing: tuple[float, float, float] = (3.0, 3.0, 4.0),
    abnormal: bool = False,
    version: int = VERSION,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """One patient: image int16 (D, H, W) in HU, label uint8 (D, H, W) with the values of BTCV, affine (4, 4) in mm.

    Axes are right, anterior, superior (RAS). `kind` is "abdomen" (all organs) or "chest" (chest and upper abdomen; its
    labels are cut by the field of view). The same seed at another spacing is the same body with other noise. Version 1
    is one patient with small changes; version 2 has the `variants`, in which also organs are missing.

    Raises:
        CourseError: unknown kind or version, or a spacing that is not three numbers from 1 to 10 mm.
    """
    if version not in VERSIONS:
        raise CourseError(f"version={version!r}: no such phantom; choose one of {', '.join(map(str, VERSIONS))}")
    if kind not in FIELD:
        raise CourseError(f"kind={kind!r}: no such phantom; choose one of {', '.join(FIELD)}")
    if len(spacing) != 3 or not all(1 <= h <= 10 for h in spacing):
        raise CourseError(f"spacing={spacing!r}: the phantom needs three numbers from 1 to 10 mm")
    rng = np.random.default_rng([seed, list(FIELD).index(kind), int(abnormal)])
    more = variants.generator(seed=seed, kind=kind, abnormal=abnormal, version=version)
    varied = variants.draw(more) if version > 1 else set()
    fat = variants.fatness(more, varied, float(np.clip(rng.gamma(5, 3.6), 6, 34)))
    scale = np.clip(rng.normal((1.0, 1.0, 1.0), (0.04, 0.05, 0.04)), 0.9, 1.1)
    posture = variants.posture(more, varied) if version > 1 else {}
    scale = posture.pop("scale", scale)
    size = np.array([2 * (160 + fat) * scale[0] + 32, (238 + 1.3 * fat) * scale[1] + 56, FIELD[kind][1]])
    low = np.array([-size[0] / 2, -(130 + 0.4 * fat) * scale[1] - 36, FIELD[kind][0] + rng.normal(0, 6)])
    if version > 1:
        variants.field(more, varied, size, low)
    count = rng.integers(1, 3) if abnormal else 0
    findings = set(rng.choice(FINDINGS[kind], size=count, replace=False).tolist())
    phase = int(rng.choice(len(PHASES), p=(0.2, 0.25, 0.55)))
    body = {"size": size, "spacing": spacing, "low": low, "scale": scale, "phase": phase, **posture}
    c = Canvas(rng=rng, findings=findings | varied, **body)
    c.grain, c.fold, c.cloud = (smooth_noise(rng, size, spacing, w) for w in (7.0, 13.0, 45.0))
    c.perirenal = 3 + 0.35 * fat
    if version > 1:
        variants.prepare(c)
    paint(c, fat)
    if version > 1:
        scanner.on_table(c, fat)
    image = scan(c)
    affine = np.diag([*spacing, 1.0])
    affine[:3, 3] = low + np.array([rng.uniform(-12, 12), rng.uniform(-190, -130), rng.uniform(-900, -200)])
    return image, one_piece(c.label), affine


def paint(c: Canvas, fat: float) -> None:
    """Paint all parts from the outside in; later ones cover earlier ones."""
    oral = bool(c.rng.random() < 0.3)
    frame.trunk(c, fat=fat, domes=np.clip(c.rng.normal(0, 6, 2), -10, 10) * c.spread)
    for side in (1, -1):
        c.draw(frame.MUSCLES, side)
    if c.axes[2][-1] > 60:
        frame.chest(c)
    organs.bowel(c, oral=oral)
    if "mass" in c.findings:
        variants.masses(c)
    hila = {side: organs.kidney(c, side, label) for side, label in ((1, 2), (-1, 3))}
    move = organs.liver(c)
    if c.has("spleen"):
        organs.spleen(c)
    organs.stomach(c, oral=oral)
    if c.has("gallbladder"):
        organs.gallbladder(c, move)
    shift = c.jitter(2.5, part="pancreas")[0]
    organs.pancreas(c, shift)
    organs.vessels(c, hila, shift)
    for side, label, name in ((1, 12, "right adrenal"), (-1, 13, "left adrenal")):
        if c.has(name):
            organs.adrenal(c, side, label)
    frame.skeleton(c)
    abnormal(c)
    variants.ill(c)


def scan(c: Canvas) -> np.ndarray:
    """The image of the scanner: tissue texture, couch, noise, blur, whole HU."""
    hu = c.hu
    hu += (c.grain + 0.8 * c.fold) * np.select([hu < -980, hu < -500, hu < 200], [0, 22, 4.5], 24).astype(np.float32)
    x, y = c.axes[0][:, None], c.axes[1][None]
    y = -y if "prone" in c.findings else y
    lowest = y[0, (hu > -500).any(axis=(0, 2))].min()
    couch = np.clip(4.5 - np.abs(y - lowest + 6 - 0.0004 * x**2), 0, c.edge) / c.edge
    hu += np.where(hu < -900, couch[..., None] * 620, 0).astype(np.float32)
    noise = c.rng.uniform(7, 14) * 2.0
    hu += noise * c.rng.standard_normal(hu.shape, dtype=np.float32)
    hu = scanner.blurred(c, hu)
    return np.clip(np.rint(hu), -1024, 1500).astype(np.int16)


def one_piece(label: np.ndarray) -> np.ndarray:
    """Remove the label of the few voxels that are disconnected from their organ."""
    for organ, box in enumerate(find_objects(label), start=1):
        if box is not None:
            parts, count = components(label[box] == organ, np.ones((3, 3, 3)))
            if count > 1:
                label[box][(parts > 0) & (parts != np.bincount(parts.ravel())[1:].argmax() + 1)] = 0
    return label


def plan(
    *, unlabeled: int, training: int, validation: int, test: int, seed: int, version: int = VERSION
) -> dict[str, list[dict]]:
    """The cases of every split. Case i of a split does not depend on their number."""
    numbers = numbered("phantom", training=training, validation=validation, test=test, unlabeled=unlabeled)
    return {split: [_case(*one, seed, version) for one in members] for split, members in numbers.items()}


def _case(number: int, folder: str, seed: int, version: int) -> dict:
    name = f"phantom_{number:04d}"
    rng = np.random.default_rng([seed, number])
    case = {"image": f"images{folder}/{name}.nii.gz", "patient": f"patient_{number:04d}"}
    if folder != FOLDERS["unlabeled"]:
        case["label"] = f"labels{folder}/{name}.nii.gz"
    kind = "chest" if folder == FOLDERS["unlabeled"] and number % 2 else "abdomen"
    recipe = {"seed": int(rng.integers(2**31)), "kind": kind, "abnormal": bool(rng.random() < 1 / 8)}
    case["recipe"] = recipe | {"version": version}
    return case


def _mark(recipe: dict) -> str:
    return f"phantom {recipe['version']} {recipe['seed']} {recipe['kind']}" + " abnormal" * recipe["abnormal"]


def _draw(recipe: dict) -> tuple[list[np.ndarray], np.ndarray, np.ndarray]:
    image, label, affine = make_volume(**recipe)
    return [image], label, affine


def write_dataset(
    root: Path,
    *,
    unlabeled: int,
    training: int,
    validation: int,
    test: int,
    seed: int = 0,
    version: int = VERSION,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Write an MSD-style dataset below `root` and return the path of its dataset.json, which is written last.

    Unlabelled cases alternate between chest and abdomen, about one case in eight is abnormal. Only missing files are
    written, also after an interruption or for a larger size. `progress(done, total)` counts volumes.

    Raises:
        CourseError: a split that is too large, a folder that cannot be written, a full disk.
    """
    sizes = {"unlabeled": unlabeled, "training": training, "validation": validation, "test": test}
    about = {
        "name": "phantom",
        "description": "Procedural trunk CT with the thirteen organs of BTCV; no patient was scanned",
        "version": version,
        "licence": "CC0-1.0",
        "tensorImageSize": "3D",
        "modality": {"0": "CT"},
        "channels": ["CT"],
        "labels": {str(value): name for value, name in BTCV_ORGANS.items()},
    }
    how = {"draw": _draw, "mark": _mark, "workers": workers, "progress": progress}
    return write_set(Path(root), plan(**sizes, seed=seed, version=version), about=about, **how)
