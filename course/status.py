"""The state of every run of a course, read from its files: on any machine that has the run folder, also while the
course runs on another one, and after it was killed."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from course import plan, slurm
from course.plan import Part
from course.progress import events
from ssl_utils.experiments import runs
from ssl_utils.files import read_json
from ssl_utils.training import processes

ORDER = ("running", "queued", "pending", "interrupted", "timed out", "failed", "done")
BY_SLURM = {"TIMEOUT": "timed out", "DEADLINE": "timed out"}


@dataclass(frozen=True)
class Row:
    """One run as text. `reason`: why it failed, and the file with more about it."""

    run: str
    state: str  # one of ORDER
    step: str = ""
    result: str = ""
    seconds: str = ""
    device: str = ""
    job: str = ""  # of Slurm
    reason: str = ""


def rows(root: Path) -> list[Row]:
    """Planned runs first, in the order of the graph; then the others in the run folder."""
    course = root / ".course"
    configs = [*course.glob("config.json"), *sorted(course.glob("study_*.json"))]
    parts = {part.run: part for path in configs for part in plan.parts(read_json(path))}
    for path in (*sorted(root.glob("pretrain/*/config.json")), *sorted(root.glob("finetune/*/n*/subset*/config.json"))):
        run = str(path.parent.relative_to(root))
        parts.setdefault(run, Part(run, "", ""))
    events, log = last_events(course / "events.jsonl"), course / "snakemake.log"
    jobs = slurm.jobs(log.read_text(encoding="utf-8", errors="replace")) if log.exists() else {}
    return [_row(root, part, events.get(part.label, {}), jobs.get(part.writes, ("", ""))) for part in parts.values()]


def summary(states: Iterable[str]) -> str:
    """`10 done, 2 failed`, in the order of ORDER."""
    counts = Counter(states)
    return ", ".join(f"{counts[state]} {state}" for state in ORDER if counts[state])


def last_events(path: Path) -> dict[str, dict]:
    """label -> its last event, with the entries of its start. A line that is still being written is left out."""
    last: dict[str, dict] = {}
    for event in events(path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""):
        before = last.get(event["label"], {}) if event["event"] != "started" else {}
        last[event["label"]] = before | event
    return last


def _row(root: Path, part: Part, event: dict, submitted: tuple[str, str]) -> Row:
    if (root / part.writes).exists():
        return _done(root / part.run, part.run)
    folder, (job, end) = root / part.run, submitted
    config = _config(folder)
    by = config.get("by") or {}
    state, reason = _state(event, by, job, end)
    if state == "running" and part.run.startswith("pretrain/") and not by:
        state = "pending"  # its chapter trains another task first
    if state in ("pending", "queued"):
        return Row(part.run, state, job=job)
    if end and state in ("failed", "timed out") and (log := next(root.glob(f".snakemake/slurm_logs/**/{job}.log"), "")):
        reason += f"; log: {log}"
    job = job or event.get("job") or by.get("job") or ""
    return Row(part.run, state, **_progress(folder, config), device=config.get("device") or "", job=job, reason=reason)


def _config(folder: Path) -> dict:
    return read_json(folder / "config.json") if (folder / "config.json").exists() else {}


def _state(event: dict, by: dict, job: str, end: str) -> tuple[str, str]:
    """(state, reason) of an unfinished part, from its last event, the process that opened its run folder, and its last
    Slurm job with the state in which Slurm ended that."""
    another = bool(job) and event.get("job") not in (None, job)  # the event is of an earlier try
    if event.get("event") == "failed" and not another:
        return "timed out" if event.get("timed_out") else "failed", event["message"]
    if end:  # it was ended before it could write an event
        return BY_SLURM.get(end, "failed"), f"Slurm ended job {job}: {end}"
    if event.get("event") == "failed" or (job and not event):
        return "queued", ""
    process = event or by
    if not process:
        return "pending", ""
    return "interrupted" if processes.gone(process) else "running", ""


def _done(folder: Path, run: str) -> Row:
    done = read_json(folder / ("done.json" if run.startswith("chapters") else "metrics.json"))
    result = ""
    if isinstance(done.get("dice"), float):  # chapter 12 has one for each region
        result = f"Dice {done['dice']:.3f}"
    elif "last" in done:
        result = f"loss {done['last']['validation_loss']:.4f}"
    seconds = f"{done['seconds']:.0f}" if "seconds" in done else ""
    job = (_config(folder).get("by") or {}).get("job") or ""
    return Row(run, "done", result=result, seconds=seconds, device=done.get("device", ""), job=job)


def _progress(folder: Path, config: dict) -> dict[str, str]:
    """Progress of a training run: steps, epoch and loss of its last validation."""
    budget = folder / "budget.json"  # of seconds, counted in steps
    steps = read_json(budget)["steps"] if budget.exists() else config.get("settings", {}).get("steps")
    if steps is None:
        return {}
    if not (folder / "history.csv").exists():
        return {"step": f"0/{steps}"}
    last = runs.history(folder).iloc[-1]
    return {
        "step": f"{int(last['step'])}/{steps}, epoch {int(last['epoch'])}",
        "result": f"train loss {last['train_loss']:.4f}",
        "seconds": f"{last['seconds']:.0f}",
    }
