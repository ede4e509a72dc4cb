"""How does cost grow: a training step with its tokens, preprocessing with the voxels of a volume?

    python benchmarks/growth.py

A step is forward, loss, backward and AdamW on one crop (batch 1), in the precision of training, with the ViT of scale
laptop (128 wide, 6 deep, 4 heads) and patches of 8. SimMIM encodes all tokens, MAE a visible quarter; UNETR adds its
convolutions at full resolution. Preprocessing is `cache.prepare` of an int16 .nii.gz of one trunk, however fine, to
the coarse grid of BTCV (6 mm).

Every point is measured in a process of its own, after a tiny one of its kind has loaded what is loaded once. Seconds
are those of one processor core (what others do on the machine does not count), on a GPU of the wall clock, the best of
several; memory is what the resident peak (on a GPU: torch's own counter) grows by. A power law is fitted to each line
by least squares in log-log; a real cost is a sum of powers, so the exponent holds between the ends of the line and no
further. Writes json_files/reference_growth.json and figures/expected_cost_growth.png.
"""

import math
import multiprocessing
import os
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from monai.losses import DiceCELoss
from scipy.stats import linregress

from ssl_utils.data import cache, datasets, volumes
from ssl_utils.data.cases import Case
from ssl_utils.experiments import scales
from ssl_utils.experiments.runs import PROJECT, commit
from ssl_utils.figures.panels import PALETTE, Picture
from ssl_utils.files import atomic, read_json, write_json
from ssl_utils.networks.unetr import UNETR
from ssl_utils.networks.vit import ViT
from ssl_utils.pretext.mae import MAETask
from ssl_utils.pretext.simmim import SimMIMTask
from ssl_utils.training.devices import autocast, device, precision

REFERENCE = PROJECT / "json_files" / "reference_growth.json"
PICTURE = PROJECT / "figures" / "expected_cost_growth.png"
PATCH, CLASSES, LAPTOP = 8, 14, scales.get("laptop")
SIDES = (4, 6, 8, 10, 12, 16)  # of the token grid: 64 to 4096 tokens
SHAPES = ((64, 64, 64), (128, 128, 128), (256, 256, 128), (512, 512, 100), (512, 512, 300))
NETWORKS = {"SimMIM": PALETTE[6], "MAE": PALETTE[2], "UNETR": PALETTE[4]}
PREPARING, BODY = "preprocessing", (400.0, 350.0, 300.0)  # mm: a finer volume is of the same trunk


def training_step(kind: str, side: int) -> Callable[[], None]:
    """One step of the network on a cube of `side` tokens a side."""
    size = {
        "img_size": side * PATCH,
        "patch_size": PATCH,
        "in_channels": 1,
        "hidden_size": LAPTOP.hidden_size,
        "mlp_dim": LAPTOP.mlp_dim,
        "num_layers": LAPTOP.num_layers,
        "num_heads": LAPTOP.num_heads,
    }
    images = torch.randn(1, 1, *[side * PATCH] * 3, device=device())
    if kind == "UNETR":
        module = UNETR(out_channels=CLASSES, feature_size=LAPTOP.feature_size, **size).to(device())
        labels, score = (images > 0).long(), DiceCELoss(to_onehot_y=True, softmax=True)
    else:
        task = {"SimMIM": SimMIMTask, "MAE": MAETask}[kind]
        module = task(encoder=ViT(**size), lr=1e-3, steps=1).to(device())
    optimizer = torch.optim.AdamW(module.parameters(), fused=True)

    def step() -> None:
        with autocast():
            if kind == "UNETR":
                loss = score(module(images).float(), labels)
            else:
                loss = module.losses(images, module.generator(0))["loss"]
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def preparation(folder: Path, shape: Sequence[int]) -> Callable[[], None]:
    """Preprocess a CT-like volume of this shape, written now; never from the cache."""
    noise = np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
    path = folder / f"{math.prod(shape)}.nii.gz"
    volumes.write_nifti(path, (40 + 30 * noise).astype(np.int16), np.diag([*np.divide(BODY, shape), 1]))
    btcv = datasets.get("btcv")

    def prepare() -> None:
        with tempfile.TemporaryDirectory() as root:
            cache.prepare([Case("a", path, None, "a")], dataset=btcv, grid=btcv.grids["coarse"], root=Path(root))

    return prepare


def peak_bytes() -> int:
    if device() == "cuda":
        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def seconds_of(work: Callable[[], None], *, least: int = 3, enough: float = 1.0) -> float:
    """The best of at least `least` repeats, and of as many as fit into `enough` seconds."""
    taken: list[float] = []
    while len(taken) < least or sum(taken) < enough:
        started = clock()
        work()
        taken.append(clock() - started)
    return min(taken)


def clock() -> float:
    if device() != "cuda":
        return time.process_time()
    torch.cuda.synchronize()
    return time.perf_counter()


def measured(job: tuple[str, Sequence[int]]) -> dict:
    """One point, in this process. `job`: the kind, and tokens a side or the shape of a volume."""
    kind, size = job
    preparing = kind == PREPARING
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        (preparation(Path(folder), (48, 48, 48)) if preparing else training_step(kind, 2))()  # loads the kernels
        work = preparation(Path(folder), size) if preparing else training_step(kind, *size)
        before = peak_bytes()
        work()
        seconds = seconds_of(work, least=1 if preparing else 3)
    n = math.prod(size) if preparing else size[0] ** 3
    point = {"what": kind, "n": n, "seconds": round(seconds, 5)}
    return point if preparing else point | {"bytes": peak_bytes() - before}  # to write the volume took more than that


def exponents(points: pd.DataFrame) -> dict[str, dict[str, dict[str, float]]]:
    """Per line and quantity: `exponent` and `error` of the fit over all its points, and `last`, the slope between its
    two largest ones."""
    found: dict = {}
    for what, part in points.groupby("what", sort=False):
        part = part.sort_values("n").dropna(axis="columns")
        for quantity in part.columns.intersection(["seconds", "bytes"]):
            x, y = np.log(part["n"]), np.log(part[quantity].clip(lower=1e-9))
            line = linregress(x, y)
            last = (y.iloc[-1] - y.iloc[-2]) / (x.iloc[-1] - x.iloc[-2])
            numbers = {"exponent": line.slope, "error": line.stderr, "intercept": line.intercept, "last": last}
            found.setdefault(what, {})[quantity] = {key: round(float(v), 3) for key, v in numbers.items()}
    return found


def draw(found: dict) -> Figure:
    """Three panels: seconds and memory of a step against tokens, seconds of preprocessing against voxels."""
    points, figure = pd.DataFrame(found["points"]), Picture(figsize=(12, 5), dpi=110, layout="constrained")
    unit_of_time = "seconds of one core" if found["device"] == "cpu" else "seconds"
    panels = (
        ("a training step", "tokens of the crop", "seconds", unit_of_time, 1, NETWORKS),
        ("memory of a training step", "tokens of the crop", "bytes", "MB", 1e6, NETWORKS),
        ("preprocessing a volume", "voxels of the volume", "seconds", unit_of_time, 1, {PREPARING: "#444444"}),
    )
    for axes, (title, xlabel, quantity, unit, scale, lines) in zip(figure.subplots(1, 3), panels, strict=True):
        for (what, colour), marker in zip(lines.items(), "os^", strict=False):
            part, law = points[points["what"] == what].sort_values("n"), found["exponents"][what][quantity]
            label = f"{what}: {law['exponent']:.2f} ± {law['error']:.2f}, at the end {law['last']:.1f}"
            axes.plot(part["n"], part[quantity] / scale, marker, color=colour, label=label)
            fitted = np.exp(law["intercept"]) * part["n"] ** law["exponent"] / scale
            axes.plot(part["n"], fitted, color=colour, linewidth=1.3)
        axes.set(xscale="log", yscale="log", title=title, xlabel=xlabel, ylabel=unit)
        axes.grid(color="#dddddd", linewidth=0.8)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(
            title="exponent of the line",
            frameon=False,
            fontsize=9,
            title_fontsize=8,
            alignment="left",
            loc="upper center",
            bbox_to_anchor=(0.5, -0.15),
        )
    return figure


def main() -> None:
    os.environ["OMP_NUM_THREADS"] = "1"
    about = {"device": device(), "precision": precision(), "commit": commit(), "date": time.strftime("%Y-%m-%d")}
    jobs = [(kind, [side]) for kind in NETWORKS for side in SIDES] + [(PREPARING, shape) for shape in SHAPES]
    points = []
    with multiprocessing.get_context("forkserver").Pool(1, maxtasksperchild=1) as pool:  # it imports once, then forks
        for point in pool.imap(measured, jobs):
            points.append(point)
            print("{what:13} {n:>10,}  {seconds:9.4f} s".format(**point), flush=True)
    found = {**about, "points": points, "exponents": exponents(pd.DataFrame(points))}
    write_json(REFERENCE, found)
    with atomic(PICTURE) as temporary:
        draw(found).savefig(temporary, format="png")
    provenance = PICTURE.parent / "provenance.json"
    source = {"chapter": "docs/speed.md", **{key: found[key] for key in ("device", "commit", "date")}}
    write_json(provenance, read_json(provenance) | {PICTURE.name: source})


if __name__ == "__main__":
    main()
