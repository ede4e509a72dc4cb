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
from torch.utils.flop_counter import FlopCounterMode

from ssl_utils.experiments.runs import PROJECT, commit
from ssl_utils.training.devices import autocast, device, precision
from ssl_utils.training.processes import give_back_memory, keep_freed_memory


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


def timed(work: Callable[[], object], repeats: int) -> float:
    """Median seconds of a call, after three that do not count."""
    return median([seconds(work) for _ in range(repeats + 3)][3:])


def product(size: int, kind: torch.dtype) -> Callable[[], torch.Tensor]:
    one, two = (torch.randn(size, size, device=device(), dtype=kind) for _ in range(2))
    return lambda: one @ two


def matrix_rate(size: int, repeats: int) -> float:
    """Operations a second of a product of two square matrices in the precision of training: what this device can do at
    best in practice."""
    kind = torch.bfloat16 if precision() == "bf16-mixed" else torch.float32
    return 2 * size**3 / timed(product(size, kind), repeats)


def operations(step: Callable[[], object]) -> int:
    """Of matrix products and convolutions, counted while the step is made."""
    with FlopCounterMode(display=False) as counter:
        step()
    return counter.get_total_flops()


def near_limit(step: Callable[[], object], took: float, *, crops: int) -> dict:
    """Counted operations of a step of `took` seconds, and the share of the device's matrix rate that they reach."""
    flops = operations(step)
    share = flops / took / matrix_rate(8192 if device() == "cuda" else 2048, 5)
    return {"tflop_a_crop": round(flops / crops / 1e12, 4), "share_of_matrix_rate": round(share, 3)}


def stepper(module, loss: Callable[[], torch.Tensor], *, half: bool = True) -> Callable[[], None]:
    """One optimiser step as the trainer makes it: the loss in the precision of this machine (in float32 where `half` is
    False), backward, the module's own optimiser and schedule."""
    found = module.configure_optimizers()
    chosen, schedule = found["optimizer"], found["lr_scheduler"]["scheduler"]

    def step() -> None:
        with autocast() if half else nullcontext():
            value = loss()
        chosen.zero_grad()
        value.backward()
        chosen.step()
        schedule.step()

    return step


def race(
    name: str,
    ours: Callable[[], object],
    theirs: Callable[[], object],
    *,
    equality: str,
    repeats: int = 3,
    unit: str = "seconds a step",
    made: tuple[int, int] | None = None,
) -> dict:
    """Medians of both, ours and theirs in turns after one round that does not count. Both keep freed memory, as a
    course does: what one has freed the other one would find.

    Args:
        equality: what was compared before, and how far apart it was.
        made: items that one call of ours and one of theirs makes; both are then items a second, else seconds a call.
    Returns:
        a row of reference_benchmarks.json; `ratio` is how many times faster ours is.
    """
    keep_freed_memory()
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
        "name": name,
        "ours": round(ours, 4),
        "theirs": round(theirs, 4),
        "ratio": round(ratio, 2),
        "unit": unit,
        "equality": equality,
        "repeats": repeats,
        "device": hardware(),
        "commit": commit(),
        "date": datetime.now(UTC).date().isoformat(),
    }
    print(f"{name:36} {ours:9.3f} against {theirs:9.3f} {unit}: {ratio:.2f} x   ({equality})", flush=True)
    return found


def furthest(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    """The largest difference, as a share of the largest value."""
    return float((ours.double() - theirs.double()).abs().max() / theirs.double().abs().max())


def peak_gigabytes() -> float:
    """Most memory that this process has held (Linux counts kilobytes)."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


def in_child(module: str, *words: str) -> str:
    """The last line that `python -m module words` prints: for memory, which a process never quite gives back, and whose
    peak a child takes over from its parent."""
    give_back_memory()
    told = subprocess.run([sys.executable, "-m", module, *words], capture_output=True, text=True, cwd=PROJECT)
    if told.returncode:
        raise SystemExit(f"error: {module} {' '.join(words)}: {told.stderr.strip().splitlines()[-1]}")
    return told.stdout.strip().splitlines()[-1]
