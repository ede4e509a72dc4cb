"""The parts of a course before any of them runs: their number, their order and their cost."""

from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import product

from course.chapters import FINETUNING, FIRST, LAST, OWN, part_of, tasks_of
from course.progress import ALIKE, REFERENCE, Progress, clock
from ssl_utils.data import datasets
from ssl_utils.experiments import scales, setups
from ssl_utils.experiments.description import NETWORK
from ssl_utils.experiments.naming import base
from ssl_utils.experiments.scales import Scale
from ssl_utils.experiments.setups import Setup
from ssl_utils.files import read_json
from ssl_utils.pretext import TASKS

NOTEBOOK_MB = 2  # of an executed chapter, its pictures included
STATES = 3  # of the weights in last.ckpt while a part trains: the weights and two moments of AdamW


@dataclass(frozen=True)
class Part:
    """One run, or one chapter that is none. `run` is its folder, `label` what progress and events call it."""

    run: str
    chapter: str
    label: str

    @property
    def writes(self) -> str:
        return f"{self.run}/{'done' if self.run.startswith('chapters') else 'metrics'}.json"


def parts(config: dict) -> list[Part]:
    """The parts of the graph of this configuration, in its order; of a study, those that it adds to the course."""
    if study := config.get("study"):
        pretrainings = [Part(f"pretrain/{name}", "pretrain", f"pretrain {name}") for name in study["pretrain"]]
        return [*pretrainings, *_finetunings(study["finetune"], study["num_labeled"], config["settings"], "finetune")]
    chosen = config.get("parts", [1])
    first, own, last = (
        [chapter_part(chapter) for chapter in chapters if part_of(chapter) in chosen] for chapters in (FIRST, OWN, LAST)
    )
    tasks = tasks_of(chosen)
    pretrainings = [Part(f"pretrain/{task}", TASKS[task].chapter, TASKS[task].chapter) for task in tasks]
    tuned = _finetunings(("random", *tasks), config["num_labeled"], config["settings"], FINETUNING)
    return [*first, *pretrainings, *tuned, *own, *last]


def first_parts() -> list[Part]:
    """The chapters that every training waits for."""
    return [chapter_part(chapter) for chapter in FIRST]


def chapter_part(chapter: str) -> Part:
    return Part(f"chapters/{chapter}", chapter, chapter)


def _finetunings(inits, num_labeled, settings: dict, chapter: str) -> Iterator[Part]:
    for init, n, subset, seed in product(inits, num_labeled, range(settings["subsets"]), range(settings["seeds"])):
        run = f"finetune/{init}/n{n}/subset{subset}_seed{seed}"
        label = f"finetune {init}" if "__" in init else f"{FINETUNING} init={init}"  # a study takes runs of the course
        yield Part(run, chapter, f"{label} n={n} subset={subset} seed={seed}")


def options_in(part: Part) -> dict[str, str]:
    """The options in the name of a run, as text."""
    name = part.run.split("/")[1]
    return dict(pair.split("=", 1) for pair in name.split("__")[1:])


def trained(part: Part) -> tuple[str, str, str] | None:
    """The stage of a part (pretrain or finetune), its network, and what of it is trained: the network or `encoder`.
    None: it trains nothing, or has runs of its own (`OWN`)."""
    from ssl_utils.pretext import task_class

    stage, name, *_ = part.run.split("/")
    if stage == "chapters":
        return None
    options, name = options_in(part), base(name)
    network = options.get("network", NETWORK)
    encoder = stage == "pretrain" and options.get("scope", task_class(name).scope) == "encoder"
    return stage, network, "encoder" if encoder else network


def counted(setup: Setup, network: str = NETWORK) -> dict[str, tuple[float, float]]:
    """Billions of multiplications and additions for one crop, and millions of weights, of a network's encoder (under
    `encoder`) and of all of it (under its name). Counted on the network itself, built without memory for its numbers.
    """
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from ssl_utils.experiments.building import network_config
    from ssl_utils.networks import network_class

    sizes, counts = network_config(setup, network), {}
    with torch.device("meta"):
        crop = torch.zeros(1, sizes["in_channels"], *sizes["img_size"])
        whole = network_class(network)(out_channels=setup.dataset.out_channels, **sizes)
        for name, part in (("encoder", whole.encoder), (network, whole)):
            with FlopCounterMode(display=False) as counter:
                part(crop)
            weights = sum(parameter.numel() for parameter in part.parameters())
            counts[name] = counter.get_total_flops() / 1e9, weights / 1e6
    return counts


@dataclass(frozen=True)
class Estimate:
    """The expected cost of a course, from a recorded one."""

    parts: list[Part]
    seconds: dict[str, float]  # per part of a chapter, on the recorded machine
    tflop: dict[str, float]  # training of all parts of a chapter: 1e12 multiplications and additions
    networks: dict[str, tuple[float, float]]  # those trained: as of `counted`
    gigabytes: float  # kept in the run folder
    passing: float  # gigabytes that a part needs in addition while it trains
    basis: str  # the assumptions, and the recorded course

    @property
    def cpu_hours(self) -> float:
        """Pretraining tasks of one chapter are parts here, and share the seconds of their chapter."""
        return sum(self.seconds[chapter] * n for chapter, n in self.jobs().items()) / 3600

    def jobs(self) -> dict[str, int]:
        """Jobs per chapter: a chapter that pretrains two tasks is one."""
        counts, pretraining = Counter(part.chapter for part in self.parts), {entry.chapter for entry in TASKS.values()}
        return {chapter: 1 if chapter in pretraining else n for chapter, n in counts.items()}

    def wall_seconds(self, jobs: int) -> float:
        return Progress(self.seconds, slots=jobs, left=self.jobs()).remaining()

    def lines(self, *, jobs: int, tflops: float) -> list[str]:
        jobs_of, total, networks = self.jobs(), sum(self.tflop.values()), self.networks.items()
        counts = Counter(part.run.split("/")[0] for part in self.parts)
        own = sum(part.chapter in OWN for part in self.parts)
        more = f", {own} with runs of their own, not scaled" if own else ""
        first = sum(jobs_of.get(chapter, 0) for chapter in FIRST)
        pretrainings = ", ".join(part.run.split("/")[1] for part in self.parts if part.run.startswith("pretrain"))
        random = sum(part.run.startswith("finetune/random/") for part in self.parts)
        sizes = [f"{name}, {m:,.1f} million weights, {g / 1e3:,.3f} TFLOP a crop" for name, (g, m) in networks]
        order = [
            f"{'order':14} {first} chapters one after the other; then pretraining ({pretrainings}) beside the {random} "
            f"fine-tunings from scratch; then {counts['finetune'] - random} from pretrained weights; then the results"
        ]
        rows = [
            f"{'runs':14} {counts['pretrain']} pretrainings, {counts['finetune']} fine-tunings, "
            f"{counts['chapters'] - own} chapters that train nothing{more}: {sum(jobs_of.values())} jobs",
            *(order if counts["chapters"] else ()),
            f"{'networks':14} {'; '.join(sizes)}",
            f"{'CPU':14} {self.cpu_hours:,.1f} hours; {clock(self.wall_seconds(jobs))} with {jobs} parts at a time",
            f"{'GPU':14} {total / tflops / 3600:,.1f} hours of training at an assumed {tflops:g} TFLOP/s; "
            f"{total / 1e3:,.1f} PFLOP in all",
            f"{'storage':14} {self.gigabytes:,.2f} GB kept, and {self.passing:,.2f} GB for each part while it trains; "
            "data and their cache not counted",
        ]
        for chapter, n in jobs_of.items():
            each, work = clock(self.seconds[chapter]), self.tflop[chapter]
            rows.append(f"  {chapter:28} {n:4} x {each:>9}   {work:12,.1f} TFLOP")
        return [*rows, self.basis]


def factor(part: Part, scale: Scale) -> float:
    """The training of a run over that of the scale, by the options in its name."""
    options = options_in(part)  # a fine-tuning has those of its pretraining, too
    if part.run.startswith("pretrain"):
        return float(options.get("steps", scale.pretrain_steps)) / scale.pretrain_steps
    return float(options.get("budget", 1)) * float(options.get("crop", 1)) ** 3


def _assumed(chapter: str, known: dict[str, float]) -> float:
    """Seconds of a chapter: the recorded ones, else the mean of its kind (own runs, pretraining, fine-tuning, rest)."""
    groups = OWN, {entry.chapter for entry in TASKS.values()}, (FINETUNING,)
    alike = [s for name, s in known.items() if all((name in group) == (chapter in group) for group in groups)]
    return known.get(chapter) or sum(alike or known.values()) / len(alike or known)


def estimate(config: dict, planned: list[Part] | None = None) -> Estimate:
    """Scale a recorded course to this one, or to the parts `planned` alone.

    Seconds of a chapter = those at scale smoke, which is all overhead, plus training: the additional seconds at scale
    laptop, in proportion to steps x batch size x multiplications of the network for a crop.
    """
    scale = Scale(**config["settings"])
    scale = replace(scale, num_labeled=tuple(scale.num_labeled), phantom_sizes=tuple(scale.phantom_sizes))
    recorded = read_json(REFERENCE)
    setup = setups.unchecked(dataset=config["dataset"], scale=scale, data=config.get("data"))
    dataset = setup.dataset
    name = dataset.name if "date" in recorded.get(dataset.name, {}).get("laptop", {}) else "phantom"  # part I of it
    costs = recorded[name]
    before = Setup(datasets.get(name), scales.get("laptop"))
    planned = parts(config) if planned is None else planned
    training = {part: trained(part) for part in planned}
    sizes = {network: counted(setup, network) for network in sorted({t[1] for t in training.values() if t})}
    sizes_before = counted(before)  # recorded courses trained the default network
    overhead, same_scale, known = (
        {c: s for own in (recorded["phantom"], costs) for c, s in own.get(level, {}).get("chapters", {}).items()}
        for level in ("smoke", config["scale"], "laptop")
    )
    each: dict[str, list[float]] = defaultdict(list)  # seconds
    tflop, weights = {}, 0.0
    for part in planned:
        chapter = ALIKE.get(part.chapter, part.chapter)
        laptop = _assumed(chapter, known)
        fixed = min(overhead.get(chapter, 0.0), laptop)
        if training[part] is None:
            each[part.chapter].append(same_scale.get(chapter, laptop))
            tflop[part.chapter] = 0.0
            continue
        stage, network, what = training[part]
        steps, batch = f"{stage}_steps", f"{stage}_batch_size"
        work = factor(part, scale) * getattr(scale, steps) * getattr(scale, batch) * sizes[network][what][0]
        size_before = sizes_before["encoder" if what == "encoder" else NETWORK][0]
        reference = getattr(before.scale, steps) * getattr(before.scale, batch) * size_before
        if stage == "pretrain" and (seconds := options_in(part).get("seconds")) and laptop > fixed:
            work = reference * float(seconds) / (laptop - fixed)  # it trains for so long
        each[part.chapter].append(fixed + (laptop - fixed) * work / reference)
        tflop[part.chapter] = tflop.get(part.chapter, 0.0) + 3 * work / 1e3  # backward costs two forwards
        weights += (2 if stage == "pretrain" else 1) * sizes[network][what][1]  # task.safetensors and the weights
    basis = (
        "Assumed: a training step costs in proportion to batch size x multiplications of the network, counted; "
        f"everything else costs as much as at scale smoke. Measured: {name}, scale laptop, "
        f"{costs['laptop']['date']}, {costs['laptop']['device']}, seconds of a part on one core. Scoring of larger "
        "test volumes is not scaled: take it as an order of magnitude."
    )
    seconds = {chapter: sum(values) / len(values) for chapter, values in each.items()}
    networks = {network: size[network] for network, size in sizes.items()}
    kept = (4 * weights + NOTEBOOK_MB * len(planned)) / 1e3
    largest = max((millions for _, millions in networks.values()), default=0.0)
    return Estimate(planned, seconds, tflop, networks, kept, 4 * STATES * largest / 1e3, basis)
