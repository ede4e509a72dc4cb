"""Two ways of doing the same, run in turns in one process, so that a busy machine slows both alike."""

import platform
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from datetime import UTC, datetime
from statistics import median

import torch

from ssl_utils.reporting.runs import PROJECT, commit
from ssl_utils.training import autocast, device, precision


def hardware() -> str:
    """`cpu, 2 threads, bf16-mixed (x86_64)`, or the name of the GPU."""
    if device() == "cuda":
        return f"{torch.cuda.get_device_name()}, {precision()}"
    return f"{device()}, {torch.get_num_threads()} threads, {precision()} ({platform.machine()})"


def seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - started


def stepper(module, loss: Callable[[], torch.Tensor], *, half: bool = True) -> Callable[[], None]:
    """One optimiser step as the trainer makes it: the loss in the precision of this machine (in float32 where `half` is
    False), backward, the module's own optimiser."""
    chosen = module.configure_optimizers()["optimizer"]

    def step() -> None:
        with autocast() if half else nullcontext():
            value = loss()
        chosen.zero_grad()
        value.backward()
        chosen.step()

    return step


def race(
    name: str, ours: Callable[[], object], theirs: Callable[[], object], *, equality: str, repeats: int = 3,
    unit: str = "seconds a step", made: tuple[int, int] | None = None,
) -> dict:  # fmt: skip
    """Medians of both, ours and theirs in turns after one round that does not count.

    Args:
        equality: what was compared before, and how far apart it was.
        made: items that one call of ours and one of theirs makes; both are then items a second, else seconds a call.
    Returns:
        a row of reference_benchmarks.json; `ratio` is how many times faster ours is.
    """
    spent: dict[str, list[float]] = {"ours": [], "theirs": []}
    for turn in range(repeats + 1):
        for side, work in (("ours", ours), ("theirs", theirs)):
            took = seconds(work)
            if turn:
                spent[side].append(took)
    middle = {side: median(values) for side, values in spent.items()}
    if made is None:
        ratio = middle["theirs"] / middle["ours"]
    else:
        middle = {side: n / middle[side] for side, n in zip(middle, made, strict=True)}
        ratio = middle["ours"] / middle["theirs"]
    return row(name, **middle, ratio=ratio, unit=unit, equality=equality, repeats=repeats)


def row(name: str, *, ours: float, theirs: float, ratio: float, unit: str, equality: str, repeats: int) -> dict:
    found = {
        "name": name, "ours": round(ours, 4), "theirs": round(theirs, 4), "ratio": round(ratio, 2), "unit": unit,
        "equality": equality, "repeats": repeats, "device": hardware(), "commit": commit(),
        "date": datetime.now(UTC).date().isoformat(),
    }  # fmt: skip
    print(f"{name:36} {ours:9.3f} against {theirs:9.3f} {unit}: {ratio:.2f} x   ({equality})", flush=True)
    return found


def furthest(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    """The largest difference, as a share of the largest value."""
    return float((ours.double() - theirs.double()).abs().max() / theirs.double().abs().max())


def peak_gigabytes() -> float:
    """Most memory that this process has held (Linux counts kilobytes)."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


def in_child(module: str, *words: str) -> str:
    """The last line that `python -m module words` prints: for memory, which a process never quite gives back."""
    told = subprocess.run([sys.executable, "-m", module, *words], capture_output=True, text=True, cwd=PROJECT)
    if told.returncode:
        raise SystemExit(f"error: {module} {' '.join(words)}: {told.stderr.strip().splitlines()[-1]}")
    return told.stdout.strip().splitlines()[-1]
