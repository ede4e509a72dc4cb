"""Studies: one thing is varied, everything else stays as in the course, in the course's own run folder.

A point of a study is a pretraining and a fine-tuning. Options at their default are left out, so that a point without
options is a run of the course itself, and two studies share their common runs.
"""

from typing import Any

from course.study import Context, Point, Study, of_scale
from ssl_utils.data import datasets
from ssl_utils.errors import CourseError
from ssl_utils.experiments.description import RANDOM
from ssl_utils.experiments.scales import Scale
from ssl_utils.pretext import TASKS


def _pool(task: str, value: str, context: Context) -> Point | None:
    pool = {"this set": None, "other set": context.other, "both": f"own+{context.other}"}[value]
    return Point(task, value, {"pool": pool}) if value == "this set" or context.equal_channels else None


def _length(task: str, value: float, context: Context) -> Point:
    steps = max(round(value * context.scale.pretrain_steps / 100), 1) if value != 100 else None
    return Point(task, f"{value} %", {"steps": steps})


CONTROLS = {
    "as in the course": {},
    "4 x the steps": {"budget": 4},
    "frozen": {"freeze_epochs": -1},
    "permuted": {"permuted": True},
    "plain U-Net": {"network": "unet"},
}
FREEZING = {"never": 0, "first epoch": 1, "always": -1}
CONTRAST = {"none": "L1", "latent": "L1 + latent", "published": "published"}


def _control(task: str, value: str, context: Context) -> Point | None:
    """Budget and another network are controls of training from scratch, where there is nothing to permute."""
    from_scratch = value in ("4 x the steps", "plain U-Net")
    if (value == "permuted" and task == RANDOM) or (from_scratch and task != RANDOM):
        return None
    return Point(task, value, finetuning=CONTROLS[value])


INFLATED = {  # -> options of the pretraining, and of the fine-tuning
    "volume": ({}, {}),
    "window": ({"network": "window_vit"}, {}),
    "slice": ({"network": "window_vit", "depth": 1}, {}),
    "average": ({"how": "average"}, {}),
    "untrained": ({"how": "random"}, {}),
    "permuted": ({}, {"permuted": True}),
    "frozen": ({}, {"freeze_epochs": -1}),
}


def _source(task: str, value: str, _: Context) -> Point | None:
    """DINOv2 where its file is: dinov2_s14/dinov2_s14.safetensors in the folder of the data."""
    if task == RANDOM:
        return Point(task, value) if value == "volume" else None
    kind = value.removeprefix("DINOv2, ")
    options, finetuning = INFLATED[kind]
    path = datasets.data_root() / "dinov2_s14" / "dinov2_s14.safetensors"
    if kind == value:
        return Point(task, value, options, finetuning)
    return Point(task, value, options | {"weights": str(path)}, finetuning) if path.is_file() else None


MASKED = {"smoke": ("simmim",), "laptop": ("simmim", "mae")}
CLUSTERS = {"smoke": ("simmim",), "laptop": ("voxel_clusters",), "workstation": tuple(TASKS)}
AND_CLUSTERS = MASKED | {"laptop": (*MASKED["laptop"], "voxel_clusters")}
STUDIES = {
    study.name: study
    for study in (
        Study(
            name="mask_ratio",
            title="Mask ratio",
            varied="share of hidden tokens in pretraining",
            point=lambda task, value, _: Point(task, f"{value:g}", {"mask_ratio": value}),
            question="How much should be hidden, and does it matter more at few labels?",
            tasks=MASKED,
            option="mask_ratio",
            values={
                "smoke": (0.3,),
                "laptop": (0.1, 0.3, 0.6, 0.9),
                "workstation": (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.9),
            },
        ),
        Study(
            name="freezing",
            title="Freezing the encoder",
            varied="how long the encoder is frozen in fine-tuning",
            question="Should the pretrained encoder be protected from the first steps, or from all?",
            tasks=MASKED,
            point=lambda task, value, _: Point(task, value, finetuning={"freeze_epochs": FREEZING[value]}),
            values={"smoke": tuple(FREEZING)},
        ),
        Study(
            name="pretraining_data",
            title="Pretraining data",
            varied="volumes that were pretrained on",
            question="Do volumes of another organ help, alone or together with one's own?",
            tasks=AND_CLUSTERS,
            point=_pool,
            values={"smoke": ("this set", "other set", "both")},
        ),
        Study(
            name="pretraining_volumes",
            title="Pretraining volumes",
            varied="how many volumes were pretrained on",
            question="How many volumes without labels does it take, at the same number of steps?",
            point=lambda task, value, _: Point(task, str(value or "all"), {"volumes": value}),
            tasks=CLUSTERS,
            values={"smoke": (2, None), "laptop": (3, 15, None)},
        ),
        Study(
            name="restoration",
            title="Restoration with and without a contrastive loss",
            varied="loss of the pretraining",
            question="Does a contrastive loss between two views help, and which one?",
            tasks={"smoke": ("restoration",)},
            point=lambda task, value, _: Point(task, CONTRAST[value], {"contrast": value}),
            values={"smoke": tuple(CONTRAST)},
        ),
        Study(
            name="pretraining_length",
            title="Pretraining length",
            varied="share of the pretraining steps",
            question="When does pretraining begin to help, and does it stop?",
            point=_length,
            tasks=AND_CLUSTERS | {"workstation": tuple(TASKS)},
            values={"smoke": (10, 100), "laptop": (1, 3, 10, 30, 100, 300)},
        ),
        Study(
            name="finetuning_length",
            title="Fine-tuning length",
            varied="share of the fine-tuning steps",
            question="Does the gain remain after longer fine-tuning?",
            point=lambda task, value, _: Point(task, f"{100 * value:g} %", finetuning={"budget": value}),
            tasks={level: (RANDOM, *tasks) for level, tasks in CLUSTERS.items()},
            values={"smoke": (0.5, 1), "laptop": (0.5, 1, 4), "workstation": (0.25, 0.5, 1, 2, 4)},
        ),
        Study(
            name="controls",
            title="Controls",
            varied="change",
            question="Does the gain come from what was learnt, or from budget, scale of the weights or network?",
            point=_control,
            tasks={"smoke": (RANDOM, "simmim"), "laptop": (RANDOM, "simmim", "mae", "voxel_clusters")},
            values={"smoke": tuple(CONTROLS)},
        ),
        Study(
            name="pretraining_source",
            title="Photographs or slices, inflated",
            varied="weights of the 2D network, and what it is inflated to",
            question="What are weights of a 2D network worth in 3D, and is it what they have learnt?",
            point=_source,
            tasks={"smoke": ("inflation",), "laptop": (RANDOM, "inflation")},
            values={"smoke": tuple(INFLATED), "laptop": (*INFLATED, *(f"DINOv2, {kind}" for kind in INFLATED))},
            labels={"smoke": (6,), "workstation": (2, 6, 12, 24)},
        ),
    )
}


def get(name: str) -> Study:
    """The study of that name.

    Raises:
        CourseError: no such study.
    """
    if name not in STUDIES:
        raise CourseError(f"study={name!r}: no such study; choose one of {', '.join(STUDIES)}")
    return STUDIES[name]


def plan(
    name: str,
    *,
    scale: Scale,
    dataset: str,
    data: str | None,
    num_labeled: list[int],
    all_labels: bool = False,
    tasks: tuple[str, ...] = (),
) -> dict[str, Any]:
    """A study as plain values, for the graph and for its results.

    Args:
        num_labeled: the label counts that this dataset has at this scale.
        all_labels: whether the study takes them all, because they were given on the command line.
        tasks: instead of the study's own.

    Returns:
        name, title, question, varied, num_labeled, needs (other datasets), points (task, value, name, init, default:
        a run of the course), pretrain {run: words of the command line}, finetune {run: words}.

    Raises:
        CourseError: no such study or task, or nothing to compare with this dataset.
    """
    study = get(name)
    other = {"phantom": "hippocampus"}.get(dataset, "phantom")
    channels = len(datasets.get(dataset, data).channels)
    context = Context(scale, other, equal_channels=channels == len(datasets.get(other).channels), tasks=tuple(tasks))
    points = study.points(context)
    if len(points) < 2:
        raise CourseError(f"study {name}: the channels of {other} and {dataset} differ; try another dataset")
    usual = num_labeled if all_labels else of_scale(study.labels, scale.name)
    counts = [n for n in num_labeled if n in usual] or list(num_labeled[:1])
    pools = {point.options.get("pool") for point in points} - {None}
    return {
        "name": name,
        "title": study.title,
        "question": study.question,
        "varied": study.varied,
        "num_labeled": counts,
        "needs": [other] if pools else [],
        "points": [
            {"task": p.task, "value": p.value, "init": p.run.init, "name": p.run.name, "default": p.run.name == p.task}
            for p in points
        ],
        "pretrain": {p.run.init: p.pretraining.words() for p in points if p.run.init != p.task},
        "finetune": {RANDOM: [RANDOM]} | {p.run.name: p.run.words() for p in points},
    }
