"""What tests share: small datasets, and courses that are executed once, also where several workers run the tests."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

import ssl_utils
from ssl_utils.data import datasets, volumes
from ssl_utils.experiments import Setup, scales
from ssl_utils.files import exclusively, read_json, write_json

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.pop("JPY_SESSION_NAME", None)
ssl_utils.lighten()


def write_blob(folder: Path, number: int, size: int = 24) -> None:
    """A bright ball (label 1) with a brighter core (label 2) in noise."""
    rng = np.random.default_rng(number)
    centre = size / 2 + rng.uniform(-3, 3, 3)
    distance = np.linalg.norm(np.indices((size,) * 3).transpose(1, 2, 3, 0) - centre, axis=-1)
    label = (distance < size / 3).astype(np.uint8) + (distance < size / 6)
    image = 100 * label + rng.normal(100, 10, label.shape)
    volumes.write_nifti(folder / "imagesTr" / f"blob_{number:02d}.nii.gz", image.astype(np.int16), np.eye(4))
    volumes.write_nifti(folder / "labelsTr" / f"blob_{number:02d}.nii.gz", label.astype(np.uint8), np.eye(4))


def once(folder: Path, make: Callable[[], dict]) -> dict:
    """What `make` says about a folder that it fills: the first worker calls it, the others wait and read."""
    record = folder / "made.json"
    with exclusively(folder.parent, folder.name):
        if not record.exists():
            write_json(record, make())
    return read_json(record)


@pytest.fixture(scope="session")
def shared(tmp_path_factory) -> Path:
    """A temporary folder of this session, the same for all its workers."""
    folder = tmp_path_factory.getbasetemp()
    return folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder


@pytest.fixture(scope="session")
def blobs(shared) -> Path:
    """A person's own folder: 10 labelled volumes in MSD layout; no test may write into it."""
    folder = shared / "own"

    def make() -> dict:
        for number in range(10):
            write_blob(folder / "My Blobs", number)
        return {}

    once(folder, make)
    return folder / "My Blobs"


@dataclass(frozen=True)
class Finished:
    """A course that was run to its end and left alone; `root` holds the runs and the data of it."""

    root: Path
    run: Path
    out: str

    def environment(self) -> dict[str, str]:
        return os.environ | {"SSL_RUNS_ROOT": str(self.root / "runs"), "SSL_DATA_ROOT": str(self.root / "data")}

    def again(self, *words: str) -> subprocess.CompletedProcess:
        command = [sys.executable, "-m", "course", "run", "--scale", "smoke", *words]
        return subprocess.run(command, env=self.environment(), capture_output=True, text=True, timeout=1500)


def finished(root: Path, name: str, *words: str, data: Path | None = None) -> Finished:
    """The smoke course, run once for all tests of all workers; none of them may write into it. `data`: volumes that it
    need not make."""
    course = Finished(root, root / "runs" / name / "smoke", "")

    def make() -> dict:
        if data:
            shutil.copytree(data, root / "data" / data.name)
        done = course.again(*words)
        return {"code": done.returncode, "out": done.stdout, "err": done.stderr}

    told = once(root, make)
    assert told["code"] == 0, told["out"][-3000:] + told["err"][-3000:]
    return replace(course, out=told["out"])


@pytest.fixture(scope="session")
def blobs_course(shared, blobs) -> Finished:
    """The smoke course on a person's own folder."""
    return finished(shared / "course of blobs", "folder_my_blobs", "--dataset", "folder", "--data", str(blobs))


@pytest.fixture(scope="session")
def phantom_data(shared) -> Path:
    """The phantom of scale smoke, to be copied; no test may write into it."""
    folder = shared / "phantom"

    def make() -> dict:
        command = [sys.executable, "-m", "ssl_utils", "data", "phantom", "--scale", "smoke"]
        own = {"SSL_DATA_ROOT": str(folder), "SSL_RUNS_ROOT": str(folder / "runs")}
        subprocess.run(command, env=os.environ | own, check=True, capture_output=True)
        return {}

    once(folder, make)
    return folder / "phantom"


@pytest.fixture(scope="session")
def phantom_course(shared, phantom_data) -> Finished:
    """The smoke course, all parts of it, as `make course SCALE=smoke PART=all LABELS=6` runs it."""
    words = ("--part", "all", "--labels", "6")
    return finished(shared / "course of one" / "with spaces", "phantom", *words, data=phantom_data)


def tiny(blobs: Path) -> Setup:
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


@pytest.fixture
def tiny_setup(blobs) -> Setup:
    return tiny(blobs)


# The browser waits for the course of test_course.py, so it comes later; Slurm waits much, and computes little.
LONGEST = (
    "tests/slurm",
    "test_course.py",
    "test_killed.py",
    "test_determinism.py",
    "test_parallel.py",
    "tests/browser",
    "test_new_task.py",
    "test_studies.py",
)


def pytest_collection_modifyitems(config, items: list[pytest.Item]) -> None:
    """Workers begin with the files that take longest, so that none of them ends long after the other."""
    if hasattr(config, "workerinput"):
        items.sort(key=lambda item: next((i for i, name in enumerate(LONGEST) if name in item.nodeid), len(LONGEST)))
