"""The points of studies: the runs behind a value of what is varied, or None where it does not apply."""

from course.study import Context, Point
from ssl_utils.data import datasets
from ssl_utils.experiments.description import RANDOM
from ssl_utils.pretext import task_class


def of_pool(task: str, value: str, context: Context) -> Point | None:
    pool = {"this set": None, "other set": context.other, "both": f"own+{context.other}"}[value]
    return Point(task, value, {"pool": pool}) if value == "this set" or context.equal_channels else None


def of_length(task: str, value: float, context: Context) -> Point:
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


def of_control(task: str, value: str, context: Context) -> Point | None:
    """Budget and another network are controls of training from scratch, where there is nothing to permute."""
    from_scratch = value in ("4 x the steps", "plain U-Net")
    if (value == "permuted" and task == RANDOM) or (from_scratch and task != RANDOM):
        return None
    return Point(task, value, finetuning=CONTROLS[value])


TRANSFER = {"network": {}, "encoder": {"scope": "encoder"}, "none": {}}
TRAINABLE = {"all": {}, "decoder": {"freeze_epochs": -1}, "last": {"freeze_epochs": -1, "freeze": "network"}}


def of_transfer(task: str, value: str, context: Context) -> Point | None:
    """`network` is only transferred where one was pretrained; from scratch there is nothing to transfer."""
    what, trainable = value.split(", ")
    if (what == "none") != (task == RANDOM):
        return None
    whole = task == RANDOM or task_class(task).scope == "network"
    return Point(task, value, {} if whole else {"scope": "network"}, TRANSFER[what] | TRAINABLE[trainable])


INFLATED = {  # -> options of the pretraining, and of the fine-tuning
    "volume": ({}, {}),
    "window": ({"network": "window_vit"}, {}),
    "slice": ({"network": "window_vit", "depth": 1}, {}),
    "average": ({"how": "average"}, {}),
    "untrained": ({"how": "random"}, {}),
    "permuted": ({}, {"permuted": True}),
    "frozen": ({}, {"freeze_epochs": -1}),
}
WINDOW_CONTROLS = {
    "window, untrained": ({"network": "window_vit", "how": "random"}, {}),
    "window, permuted": ({"network": "window_vit"}, {"permuted": True}),
    "window, frozen": ({"network": "window_vit"}, {"freeze_epochs": -1}),
}


def of_source(task: str, value: str, _: Context) -> Point | None:
    """DINOv2 where its file is: dinov2_s14/dinov2_s14.safetensors in the folder of the data."""
    if task == RANDOM:
        return Point(task, value) if value == "volume" else None
    kind = value.removeprefix("DINOv2, ")
    options, finetuning = (INFLATED | WINDOW_CONTROLS)[kind]
    path = datasets.data_root() / "dinov2_s14" / "dinov2_s14.safetensors"
    if kind == value:
        return Point(task, value, options, finetuning)
    return Point(task, value, options | {"weights": str(path)}, finetuning) if path.is_file() else None
