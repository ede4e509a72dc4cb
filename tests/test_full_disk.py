"""No space left, no memory left: one line, nothing half-written is taken for a result, and the same command goes on.

A disk that is full is one of two things here. Where this process may mount one, a real one of a few hundred kB. And for
anyone, a kernel that refuses to let files grow from some moment on (RLIMIT_FSIZE), in the middle of a command.
"""

import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path

import nibabel as nib
import numpy as np
import psutil
import pytest

from benchmarks.kill import outcome
from ssl_utils.data import volumes
from tests.test_workflow import own_lines, save

FORKS = get_context("forkserver")  # its server imports the package once: a command then starts in no time
FORKS.set_forkserver_preload(
    ["ssl_utils.__main__", "ssl_utils.experiments.pretraining", "ssl_utils.experiments.finetuning"]
)
TINY = {
    "phantom_sizes": (0, 1, 1, 1),
    "pretrain_steps": 20,
    "finetune_steps": 10,
    "hidden_size": 24,
    "mlp_dim": 24,
    "num_layers": 2,
    "num_heads": 2,
    "max_validation": 1,
    "max_test": 2,
}
SMALL_FILES = (  # in a process of its own: between fork and exec, Python beside another thread may wait for ever
    "import os, resource as r, sys; r.setrlimit(r.RLIMIT_FSIZE, (20_000, 20_000)); os.execv(sys.argv[1], sys.argv[1:])"
)
PHANTOM = ["data", "phantom", "--scale", "smoke", "--spacing", "2", "--roi", "16"]  # which small volumes fill
FULL = ("No space left on device", "File too large")
NO_MEMORY = "error: not enough memory; close programs, or choose a smaller --scale"


@dataclass(frozen=True)
class Said:
    code: int | None
    text: str

    @property
    def last(self) -> str:
        return self.text.strip().splitlines()[-1]


def _work(words: list[str], root: Path, fits: int | None, megabytes: int | None, sink) -> None:
    """The command in this process: its disk is full after so many files, its memory after so many MB more."""
    from ssl_utils import __main__ as cli
    from ssl_utils.data.phantom import writing
    from ssl_utils.experiments import scales

    for stream in (1, 2):
        os.dup2(sink.fileno(), stream)
    os.environ |= {"SSL_RUNS_ROOT": str(root / "runs"), "SSL_DATA_ROOT": str(root / "data")}
    scales.SCALES["smoke"] = replace(scales.get("smoke"), **TINY)
    writing.make_volume = _small_volume
    if fits is not None:
        _fill_after(fits)
    if megabytes is not None:
        most = psutil.Process().memory_info().vms + megabytes * 2**20
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
    sys.argv = ["ssl_utils", *map(str, words)]
    cli.main()


def _small_volume(seed: int, **recipe) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.integers(-100, 200, (40,) * 3).astype(np.int16), rng.integers(0, 14, (40,) * 3, np.uint8), np.eye(4)


def _fill_after(files: int) -> None:
    """No file can grow beyond 16 bytes once so many have got their names."""
    rename, left = os.replace, files

    def fill():
        if left == 0:
            resource.setrlimit(resource.RLIMIT_FSIZE, (16, 16))

    def counted(*names):
        nonlocal left
        rename(*names)
        left -= 1
        fill()

    os.replace = counted
    fill()


def run(words: list, root: Path, *, fits: int | None = None, megabytes: int | None = None) -> Said:
    source, sink = FORKS.Pipe(duplex=False)
    process = FORKS.Process(target=_work, args=(words, root, fits, megabytes, sink))
    process.start()
    sink.close()
    with os.fdopen(os.dup(source.fileno()), errors="replace") as stream:
        text = stream.read()
    process.join()
    return Said(process.exitcode, text)


def is_full(said: Said) -> bool:
    """Whether the command ended for want of space, as it should: one line of error that names the file."""
    if said.code == 0:
        return False
    assert said.code == 1 and "Traceback" not in said.text, said.text
    assert said.text.count("error: ") == 1 and said.last.startswith("error: /"), said.text
    assert any(f"cannot be written ({why})" in said.last for why in FULL), said.last
    return True


def nothing_half_written(root: Path) -> bool:
    """No temporary file is left, and whatever has the name of a result can be read."""
    outcome(root)
    for path in root.rglob("*.nii.gz"):
        np.asarray(nib.load(path).dataobj)
    for path in root.rglob("*.npy"):
        np.load(path)
    return not [path for path in root.rglob(".tmp-*")]


@contextmanager
def disk(folder: Path, kilobytes: int) -> Iterator[bool]:
    """A disk of that size mounted at the folder; False where this process may not mount one."""
    folder.mkdir()
    options = ["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", str(folder)]
    try:
        mounted = subprocess.run(options, capture_output=True).returncode == 0
    except FileNotFoundError:
        mounted = False
    try:
        yield mounted
    finally:
        if mounted:
            subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.fixture(scope="module")
def own(blobs) -> list:
    return ["--dataset", "folder", "--data", blobs, "--scale", "smoke"]


@pytest.fixture(scope="module")
def whole(own, tmp_path_factory) -> Path:
    """Where every command was run once and left alone."""
    root = tmp_path_factory.mktemp("whole")
    for words in (PHANTOM, ["pretrain", "simmim", *own], ["finetune", "simmim", "--num-labeled", "2", *own]):
        said = run(words, root)
        assert said.code == 0, said.text
    return root


def volumes_in(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): np.asarray(nib.load(path).dataobj).tobytes() for path in root.rglob("*.gz")}


@pytest.mark.long
def test_training_on_a_disk_that_is_full_again_and_again_ends_with_the_same_numbers(whole, own, tmp_path):
    for words, moments in (
        (["pretrain", "simmim", *own], (0, 1, 3, 27, 4, 9, 200)),
        (["finetune", "simmim", "--num-labeled", "2", *own], (0, 2, 8, 5, 200)),
    ):
        struck = 0
        for fits in moments:
            struck += is_full(run(words, tmp_path, fits=fits))
            assert nothing_half_written(tmp_path)
        assert struck == len(moments) - 1, f"{words[0]}: {struck} times full, then enough space"
    assert outcome(tmp_path / "runs" / "folder_my_blobs") == outcome(whole / "runs" / "folder_my_blobs")


@pytest.mark.long
def test_a_phantom_on_a_full_disk_is_completed_later(whole, tmp_path):
    words = PHANTOM
    for fits in (0, 3, 3):
        assert is_full(run(words, tmp_path, fits=fits)) and nothing_half_written(tmp_path)
        assert not (tmp_path / "data" / "phantom" / "dataset.json").exists()
    assert run(words, tmp_path).code == 0
    assert volumes_in(tmp_path) == volumes_in(whole) and len(volumes_in(whole)) == 6


@pytest.mark.long
def test_a_prediction_on_a_full_disk_is_no_file(whole, blobs, tmp_path):
    (model,) = whole.rglob("model.safetensors")
    images = [blobs / "imagesTr" / f"blob_0{number}.nii.gz" for number in (0, 1)]
    words = ["predict", model, *images, "--output", tmp_path / "out"]
    assert is_full(run(words, tmp_path, fits=1)) and nothing_half_written(tmp_path)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["blob_00.nii.gz"]
    assert run(words, tmp_path).code == 0 and len(volumes_in(tmp_path / "out")) == 2


@pytest.mark.long
def test_a_real_disk_that_is_too_small_and_then_large_enough(whole, own, tmp_path):
    folder, words = tmp_path / "disk", ["pretrain", "simmim", *own]
    with disk(folder, kilobytes=700) as mounted:
        said = run(words, folder, fits=None if mounted else 40)
        assert is_full(said) and (FULL[0] if mounted else FULL[1]) in said.last
        assert nothing_half_written(folder) and not list(folder.rglob("metrics.json"))
        if mounted:
            subprocess.run(["mount", "-o", "remount,size=64m", str(folder)], check=True)
        assert run(words, folder).code == 0
        parts = ("runs", "folder_my_blobs", "smoke", "pretrain")
        assert outcome(folder.joinpath(*parts)) == outcome(whole.joinpath(*parts))


def run_chapter(folder: Path, *sources: str) -> subprocess.CompletedProcess:
    """A chapter as the graph runs it, where no file can have more than 20 kB."""
    notebook = save(folder / "07_toy.ipynb", "seed = 0", *sources)
    command = [sys.executable, "-m", "course", "run-chapter", str(notebook), str(folder / "out.ipynb")]
    return subprocess.run([sys.executable, "-c", SMALL_FILES, *command], capture_output=True, text=True)


@pytest.mark.course
@pytest.mark.parametrize(
    ("cell", "line"),
    [
        (
            "from ssl_utils.files import write_json\nwrite_json('done.json', 'x' * 30000)",
            "error: 07_toy failed: cell [2]: done.json: cannot be written (File too large)",
        ),
        ("print('x' * 30000)", "error: 07_toy failed: {folder}/out.ipynb: cannot be written (File too large)"),
        (
            "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)",
            "error: 07_toy failed: its kernel died, most often",
        ),
        ("raise MemoryError", "error: 07_toy failed: cell [2]: MemoryError: "),
    ],
    ids=["its file", "its notebook", "killed for memory", "no memory"],
)
def test_a_chapter_says_in_one_line_what_it_had_too_little_of(tmp_path, cell, line):
    found = run_chapter(tmp_path, cell)
    said = own_lines(found.stderr)
    assert found.returncode == 1 and said[0].startswith(line.format(folder=tmp_path)), found.stderr
    assert len(said) == 1 and not (tmp_path / "done.json").exists(), found.stderr


@pytest.mark.long
def test_too_little_memory_is_one_line(whole, own, tmp_path):
    """A request that is refused, not the last byte: without that a library may crash before anybody can say a word."""
    (model,) = whole.rglob("model.safetensors")
    large = tmp_path / "large.nii.gz"
    volumes.write_nifti(large, np.zeros((320, 320, 320), np.int16), np.eye(4))
    for words in (["pretrain", "mae"], ["finetune", "random", "--num-labeled", "3"]):
        said = run([*words, *own[:-1], "paper"], tmp_path, megabytes=150)
        assert said == Said(1, NO_MEMORY + "\n")
    said = run(["predict", model, large, "--output", tmp_path / "out"], tmp_path, megabytes=100)
    assert said.code == 1 and "Traceback" not in said.text and "memory" in said.last
    said = run(["doctor", large], tmp_path, megabytes=100)
    assert said.code == 1 and "Traceback" not in said.text and "memory" in said.text
    assert nothing_half_written(tmp_path) and not (tmp_path / "out").exists()
