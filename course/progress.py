"""Progress of a course: finished parts, remaining time, and peak memory."""

import json
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import psutil

from ssl_utils.files import read_json

REFERENCE = Path(__file__).resolve().parents[1] / "json_files" / "reference_costs.json"
ALIKE = {"pretrain": "03_simmim_masking", "finetune": "04_unetr_finetuning"}  # step of a study -> chapter that does it
ONE_AT_A_TIME = ("00", "01", "05", "results")  # the other parts run beside each other


def events(text: str) -> Iterator[dict]:
    """The events of whole lines. A line is skipped where nodes have written over each other, or the disk was full."""
    for line in text[: text.rfind("\n") + 1].splitlines():
        with suppress(ValueError):
            if isinstance(event := json.loads(line), dict) and {"event", "label"} <= event.keys():
                yield event


@dataclass
class Progress:
    """Finished parts and remaining time, from the seconds per chapter of an earlier run, rescaled during this one."""

    expected: dict[str, float]  # chapter -> seconds of one part, from a reference run
    slots: int  # chapters that run at the same time
    left: dict[str, int] = field(default_factory=dict)  # chapter -> parts still to finish
    seconds: dict[str, list[float]] = field(default_factory=dict)  # chapter -> of the finished parts
    running: dict[str, tuple[str, float]] = field(default_factory=dict)  # label -> chapter, when it started
    started: float = field(default_factory=time.time)

    @property
    def finished(self) -> int:
        return sum(map(len, self.seconds.values()))

    @property
    def total(self) -> int:
        return self.finished + sum(self.left.values())

    def one_part(self, chapter: str) -> float | None:
        """Seconds of one part: measured in this run, else the reference at the speed of this machine, else the mean."""
        if chapter in self.seconds:
            return sum(self.seconds[chapter]) / len(self.seconds[chapter])
        known = [(s, self.expected[c]) for c, parts in self.seconds.items() for s in parts if c in self.expected]
        if chapter in self.expected:
            return self.expected[chapter] * (sum(s for s, _ in known) / sum(e for _, e in known) if known else 1)
        return sum(map(sum, self.seconds.values())) / self.finished if self.finished else None

    def remaining(self) -> float | None:
        one_by_one, beside, longest = 0.0, 0.0, 0.0
        for chapter, parts in self.left.items():
            if (each := self.one_part(chapter)) is None:
                return None
            spent = sum(min(each, time.time() - since) for name, since in self.running.values() if name == chapter)
            if chapter.startswith(ONE_AT_A_TIME):
                one_by_one += each * parts - spent
            else:
                beside += each * parts - spent
                longest = max(longest, min(each, each * parts - spent))
        return one_by_one + max(beside / self.slots, longest)

    def take(self, event: dict) -> str | None:
        """Account for one event of a chapter; return the line to print, if there is one."""
        chapter, label = event["chapter"], event["label"]
        if event["event"] == "started":
            self.running[label] = (chapter, time.time())
            return None
        self.running.pop(label, None)
        if event["event"] == "failed":
            return event["message"]
        self.seconds.setdefault(chapter, []).append(event["seconds"])
        self.left[chapter] = max(0, self.left.get(chapter, 1) - 1)
        rest = self.remaining()
        about = f", about {clock(rest)} left" if rest and any(self.left.values()) else ""
        elapsed = clock(time.time() - self.started)
        return f"[{self.finished:2}/{self.total}] {label:58} {clock(event['seconds']):>7}   elapsed {elapsed}{about}"


def clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


def reference_costs(dataset: str, scale: str) -> dict[str, float]:
    """Seconds per chapter of a recorded run of this dataset and scale; of the phantom when there is none.

    The steps of a study are assumed to last as long as the chapters that do the same.
    """
    costs = read_json(REFERENCE) if REFERENCE.exists() else {}
    recorded = costs.get(dataset, {}).get(scale) or costs.get("phantom", {}).get(scale) or {}
    known = recorded.get("chapters", {})
    return known | {step: known[chapter] for step, chapter in ALIKE.items() if chapter in known}


class Memory:
    """Highest resident memory below this process: of all processes together, and of the largest.

    Linux tells the share of each process in pages that several have, as forks do; elsewhere they count whole. It takes
    20 ms a process, so it is asked only when all of them together, pages counted whole, have 5 % more than ever before.
    """

    together = largest = resident = 0

    def look(self) -> None:
        processes = psutil.Process().children(recursive=True)
        sizes = [memory.rss for memory in map(_memory, processes)]
        self.largest = max(self.largest, *sizes, 0)
        if sum(sizes) > 1.05 * self.resident:
            self.resident = sum(sizes)
            shares = (getattr(memory, "pss", memory.rss) for memory in map(partial(_memory, full=True), processes))
            self.together = max(self.together, sum(shares))


def _memory(process: psutil.Process, *, full: bool = False) -> SimpleNamespace:
    """What psutil says of a process, in bytes; nothing of one that has ended."""
    try:
        return process.memory_full_info() if full and psutil.LINUX else process.memory_info()
    except psutil.Error:
        return SimpleNamespace(rss=0)
