"""The parts of a course before any of them runs: how many, in which order, and what they will cost."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import product

from course.chapters import FINETUNING, FIRST, LAST, part_of, tasks_of
from course.progress import REFERENCE, Progress, clock
from ssl_utils.data import datasets
from ssl_utils.experiments import scales
from ssl_utils.experiments.scales import Scale
from ssl_utils.experiments.setups import Setup
from ssl_utils.files import read_json
from ssl_utils.pretext import TASKS

NOTEBOOK_MB = 2  # of an executed chapter, its pictures included
STATES = 3  # of the weights in last.ckpt while a part trains: the weights and two moments of AdamW


@dataclass(frozen=True)
class Part:
    """One run, or one chapter that trains nothing. `run` is its folder, `label` what progress and events call it."""

    run: str
    chapter: str
    label: str

    @property
    def writes(self) -> str:
        return f"{self.run}/{'done' if self.run.startswith('chapters') else 'metrics'}.json"


def parts(config: dict) -> list[Part]:
    """What the graph of this configuration makes, in its order; of a study, what it adds to the course."""
    if study := config.get("study"):
        found = [Part(f"pretrain/{name}", "pretrain", f"pretrain {name}") for name in study["pretrain"]]
        return found + list(_finetunings(study["finetune"], study["num_labeled"], config["settings"], "finetune {}"))
    chosen = config.get("parts", [1])
    first, last = (
        [Part(f"chapters/{chapter}", chapter, chapter) for chapter in chapters if part_of(chapter) in chosen]
        for chapters in (FIRST, LAST)
    )
    tasks = tasks_of(chosen)
    pretrainings = [Part(f"pretrain/{task}", TASKS[task].chapter, TASKS[task].chapter) for task in tasks]
    label, inits = f"{FINETUNING} init={{}}", ("random", *tasks)
    return [*first, *pretrainings, *_finetunings(inits, config["num_labeled"], config["settings"], label), *last]


def _finetunings(inits, num_labeled, settings: dict, label: str) -> Iterator[Part]:
    chapter = label.split()[0]
    for init, n, draw, seed in product(inits, num_labeled, range(settings["draws"]), range(settings["seeds"])):
        run = f"finetune/{init}/n{n}/draw{draw}_seed{seed}"
        yield Part(run, chapter, f"{label.format(init)} n={n} draw={draw} seed={seed}")


def counted(where: Setup, network: str = "unetr") -> dict[str, tuple[float, float]]:
    """Of a network's encoder (`encoder`) and of all of it (under its name): billions of multiplications and additions
    for one crop, and millions of weights. Counted on the network itself, built without memory for its numbers."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from ssl_utils.experiments.building import network_config
    from ssl_utils.networks import network_class

    sizes, found = network_config(where, network), {}
    with torch.device("meta"):
        crop = torch.zeros(1, sizes["in_channels"], *sizes["img_size"])
        whole = network_class(network)(out_channels=where.dataset.out_channels, **sizes)
        for name, part in (("encoder", whole.encoder), (network, whole)):
            with FlopCounterMode(display=False) as counter:
                part(crop)
            weights = sum(parameter.numel() for parameter in part.parameters())
            found[name] = counter.get_total_flops() / 1e9, weights / 1e6
    return found


@dataclass(frozen=True)
class Estimate:
    """What a course will cost, from a recorded one."""

    parts: list[Part]
    seconds: dict[str, float]  # per part of a chapter, on the recorded machine
    tflop: dict[str, float]  # training of all parts of a chapter: 1e12 multiplications and additions
    gigabytes: float  # kept in the run folder
    passing: float  # gigabytes that a part needs beside that while it trains
    basis: str  # where the seconds are from

    @property
    def cpu_hours(self) -> float:
        """Pretraining tasks of one chapter are parts here, and share the seconds of their chapter."""
        return sum(self.seconds[chapter] * n for chapter, n in self.jobs().items()) / 3600

    def jobs(self) -> dict[str, int]:
        """Jobs per chapter: a chapter that pretrains two tasks is one."""
        counts = Counter(part.chapter for part in self.parts)
        return {chapter: n if chapter == FINETUNING else 1 for chapter, n in counts.items()}

    def wall_seconds(self, jobs: int) -> float:
        return Progress(self.seconds, slots=jobs, left=self.jobs()).remaining()

    def lines(self, *, jobs: int, tflops: float) -> list[str]:
        made, total = self.jobs(), sum(self.tflop.values())
        counts = Counter(part.run.split("/")[0] for part in self.parts)
        first = made.get("00_start_here", 0) + made.get("01_data_inspection", 0)
        pretrainings = ", ".join(part.run.split("/")[1] for part in self.parts if part.run.startswith("pretrain"))
        random = sum(part.run.startswith("finetune/random/") for part in self.parts)
        rows = [
            f"{'runs':14} {counts['pretrain']} pretrainings, {counts['finetune']} fine-tunings, "
            f"{counts['chapters']} chapters that train nothing: {sum(made.values())} jobs",
            f"{'order':14} {first} chapters one after the other; then pretraining ({pretrainings}) beside the {random} "
            f"fine-tunings from random; then {counts['finetune'] - random} from pretrained weights; then the results",
            f"{'CPU':14} {self.cpu_hours:,.1f} hours; {clock(self.wall_seconds(jobs))} with {jobs} parts at a time",
            f"{'GPU':14} {total / tflops / 3600:,.1f} hours of training at an assumed {tflops:g} TFLOP/s; "
            f"{total / 1e3:,.1f} PFLOP in all",
            f"{'storage':14} {self.gigabytes:,.2f} GB kept, and {self.passing:,.2f} GB for each part while it trains; "
            "data and their cache not counted",
        ]
        for chapter, n in made.items():
            each, work = clock(self.seconds[chapter]), self.tflop[chapter]
            rows.append(f"  {chapter:28} {n:4} x {each:>9}   {work:12,.1f} TFLOP")
        return [*rows, self.basis]


def estimate(config: dict) -> Estimate:
    """Scale a recorded course to this one.

    Seconds of a chapter = those at scale smoke, which is all overhead, plus training: what the laptop's course took
    more, times steps x batch size x multiplications of the network for a crop.
    """
    dataset, scale = datasets.get(config["dataset"], config.get("data")), Scale(**config["settings"])
    scale = replace(scale, num_labeled=tuple(scale.num_labeled), phantom_sizes=tuple(scale.phantom_sizes))
    every, where = read_json(REFERENCE), Setup(dataset, scale)
    name = dataset.name if "laptop" in every.get(dataset.name, {}) else "phantom"
    costs, before = every[name], Setup(datasets.get(name), scales.get("laptop"))
    now, then = counted(where), counted(before)
    found, seconds, tflop = parts(config), {}, {}
    overhead, own = (costs.get(name, {}).get("chapters", {}) for name in ("smoke", config["scale"]))
    known = every["phantom"]["laptop"]["chapters"] | costs["laptop"]["chapters"]
    for part in found:  # a chapter that no recorded course has is taken to be as dear as the dearest
        took, fixed = known.get(part.chapter, max(known.values())), overhead.get(part.chapter, 0.0)
        kind, network = _kind(part)
        if kind is None:
            seconds[part.chapter], tflop[part.chapter] = own.get(part.chapter, took), 0.0
            continue
        work, reference = (
            getattr(at.scale, f"{kind}_steps") * getattr(at.scale, f"{kind}_batch_size") * size[network][0]
            for at, size in ((where, now), (before, then))
        )
        seconds[part.chapter] = fixed + max(took - fixed, 0.0) * work / reference
        tflop[part.chapter] = tflop.get(part.chapter, 0.0) + 3 * work / 1e3  # backward costs two forwards
    basis = (
        f"Assumed: a training step costs in proportion to batch size x multiplications of the network, counted; "
        f"everything else costs what it costs at scale smoke. Measured: {name}, scale laptop, "
        f"{costs['laptop']['date']}, {costs['laptop']['device']}, seconds of a part on one core. Scoring of larger "
        "test volumes is not scaled: take it as an order of magnitude."
    )
    weights = sum(
        2 * now["encoder"][1] if p.run.startswith("pretrain") else now["unetr"][1] * (p.chapter == FINETUNING)
        for p in found
    )
    kept = (4 * weights + NOTEBOOK_MB * len(found)) / 1e3
    return Estimate(found, seconds, tflop, kept, 4 * STATES * now["unetr"][1] / 1e3, basis)


def _kind(part: Part) -> tuple[str | None, str | None]:
    if part.run.startswith("pretrain"):
        return "pretrain", "encoder"
    return ("finetune", "unetr") if part.run.startswith("finetune") else (None, None)
