"""Studies: one thing is varied, everything else stays as in the course, in the course's own run folder.

A point of a study is a pretraining and a fine-tuning. Options at their default are left out, so that a point without
options is a run of the course itself, and two studies share their common runs.
"""

from typing import Any

from course import points
from course.chapters import tasks_of
from course.study import Context, Point, Study, of_scale
from ssl_utils.data import datasets
from ssl_utils.errors import CourseError
from ssl_utils.experiments.description import RANDOM
from ssl_utils.experiments.scales import Scale
from ssl_utils.pretext import TASKS

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
            point=lambda task, value, _: Point(task, value, finetuning={"freeze_epochs": points.FREEZING[value]}),
            values={"smoke": tuple(points.FREEZING)},
        ),
        Study(
            name="pretraining_data",
            title="Pretraining data",
            varied="volumes that were pretrained on",
            question="Do volumes of another organ help, alone or together with one's own?",
            tasks=AND_CLUSTERS,
            point=points.of_pool,
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
            point=lambda task, value, _: Point(task, points.CONTRAST[value], {"contrast": value}),
            values={"smoke": tuple(points.CONTRAST)},
        ),
        Study(
            name="deformations",
            title="Models Genesis without one of its deformations",
            varied="deformation that is left out",
            question="Which deformation does the gain depend on?",
            tasks={"smoke": ("genesis",)},
            point=lambda task, value, _: Point(
                task, f"no {value}" if value else "all", {value: False} if value else {}
            ),
            values={"smoke": ("", "flips", "shuffling", "intensity", "painting")},
        ),
        Study(
            name="pretraining_length",
            title="Pretraining length",
            varied="share of the pretraining steps",
            question="When does pretraining begin to help, and does it stop?",
            point=points.of_length,
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
            name="all_tasks",
            title="All tasks at equal cost",
            varied="pretext task",
            question="Which task helps most after equally many seconds of pretraining of one network?",
            point=lambda task, value, _: Point(task, f"{value} s", {"seconds": value}),
            tasks={"smoke": tuple(tasks_of([1, 2]))},
            values={"smoke": (2,), "laptop": (60,), "workstation": (1800,), "paper": (36_000,)},
        ),
        Study(
            name="controls",
            title="Controls",
            varied="change",
            question="Does the gain come from what was learnt, or from budget, scale of the weights or network?",
            point=points.of_control,
            tasks={"smoke": (RANDOM, "simmim"), "laptop": (RANDOM, "simmim", "mae", "voxel_clusters")},
            values={"smoke": tuple(points.CONTROLS)},
        ),
        Study(
            name="transfer",
            title="Transfer and training, part by part",
            varied="what is transferred, what is trained",
            question="Does the pretrained decoder help too, and how much of the network must be trained?",
            tasks={"smoke": ("voxel_clusters",), "laptop": (RANDOM, "voxel_clusters", "genesis", "pcrlv2")},
            point=points.of_transfer,
            values={
                "smoke": tuple(f"{what}, {trainable}" for what in points.TRANSFER for trainable in points.TRAINABLE)
            },
            labels={"smoke": (6,), "laptop": (0.01, 0.05, 0.1, 0.2, 0.3, 0.4, 1.0)},
        ),
        Study(
            name="patch_size",
            title="Size of the crops",
            varied="factor on the sides of a crop",
            question="What do larger crops gain, at the same number of crops and steps?",
            tasks={"smoke": (RANDOM,)},
            point=lambda task, value, _: Point(task, f"{value:g}", finetuning={"network": "mednext", "crop": value}),
            values={"smoke": (0.5, 1), "laptop": (0.5, 0.75, 1, 1.25)},
        ),
        Study(
            name="pretraining_source",
            title="Photographs or slices, inflated",
            varied="weights of the 2D network, and what it is inflated to",
            question="What are weights of a 2D network worth in 3D, and is it what they have learnt?",
            point=points.of_source,
            tasks={"smoke": ("inflation",), "laptop": (RANDOM, "inflation")},
            values={
                "smoke": tuple(points.INFLATED),
                "laptop": (
                    *points.INFLATED,
                    *(f"DINOv2, {kind}" for kind in (*points.INFLATED, *points.WINDOW_CONTROLS)),
                ),
            },
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
    training: int | None = None,
    all_labels: bool = False,
    tasks: tuple[str, ...] = (),
) -> dict[str, Any]:
    """A study as plain values, for the graph and for its results.

    Args:
        num_labeled: the label counts that this dataset has at this scale.
        training: how many labelled training cases there are, for studies of shares; None: the most in `num_labeled`.
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
    cases = training or max(num_labeled)
    shares = sorted({max(round(n * cases), 1) for n in usual if isinstance(n, float)})
    counts = shares or [n for n in num_labeled if n in usual] or list(num_labeled[:1])
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
