"""What tests share: small datasets of their own, and the real volumes where they are at hand."""

import os
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from ssl_utils.data import datasets, volumes
from ssl_utils.experiments import Setup, scales

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.pop("JPY_SESSION_NAME", None)


def write_blob(folder: Path, number: int, size: int = 24) -> None:
    """A bright ball (label 1) with a brighter core (label 2) in noise."""
    rng = np.random.default_rng(number)
    centre = size / 2 + rng.uniform(-3, 3, 3)
    distance = np.linalg.norm(np.indices((size,) * 3).transpose(1, 2, 3, 0) - centre, axis=-1)
    label = (distance < size / 3).astype(np.uint8) + (distance < size / 6)
    image = 100 * label + rng.normal(100, 10, label.shape)
    volumes.write_nifti(folder / "imagesTr" / f"blob_{number:02d}.nii.gz", image.astype(np.int16), np.eye(4))
    volumes.write_nifti(folder / "labelsTr" / f"blob_{number:02d}.nii.gz", label.astype(np.uint8), np.eye(4))


@pytest.fixture(scope="session")
def blobs(tmp_path_factory) -> Path:
    """A person's own folder: 10 labelled volumes in MSD layout."""
    folder = tmp_path_factory.mktemp("own") / "My Blobs"
    for number in range(10):
        write_blob(folder, number)
    return folder


@dataclass(frozen=True)
class Finished:
    """A course that was run to its end and left alone."""

    run: Path
    out: str
    seconds: float


@pytest.fixture(scope="session")
def blobs_course(blobs, tmp_path_factory) -> Finished:
    """The smoke course on a person's own folder, run once for all tests; none of them may write into it."""
    root, began = tmp_path_factory.mktemp("undisturbed"), time.monotonic()
    words = ["run", "--scale", "smoke", "--dataset", "folder", "--data", str(blobs)]
    environment = os.environ | {"SSL_RUNS_ROOT": str(root), "SSL_DATA_ROOT": str(root / "data")}
    command = [sys.executable, "-m", "course", *words]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=1500)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return Finished(root / "folder_my_blobs" / "smoke", done.stdout, time.monotonic() - began)


@pytest.fixture
def tiny_setup(blobs) -> Setup:
    scale = replace(
        scales.get("smoke"),
        pretrain_steps=20,
        finetune_steps=10,
        hidden_size=24,
        mlp_dim=24,
        num_layers=2,
        num_heads=2,
        max_validation=1,
        max_test=2,
    )
    return Setup(datasets.get("folder", blobs), scale)
