"""Pretext tasks, each with a file and a chapter of its own. Adding one means adding a line here."""

from importlib import import_module
from typing import NamedTuple

from ssl_utils.errors import CourseError


class Entry(NamedTuple):
    """The LightningModule in `pretext/<task>.py`, and the chapter that explains and trains it."""

    module: str
    chapter: str


TASKS = {
    "restoration": Entry("RestorationTask", "02_augmentation_pretraining"),
    "simmim": Entry("SimMIMTask", "03_simmim_masking"),
    "mae": Entry("MAETask", "06_mae"),
    "voxel_clusters": Entry("VoxelClustersTask", "07_voxel_clusters"),
    "genesis": Entry("GenesisTask", "08_genesis_pcrlv2"),
    "pcrlv2": Entry("PCRLv2Task", "08_genesis_pcrlv2"),
    "patch_clusters": Entry("PatchClustersTask", "09_patch_clusters"),
    "inflation": Entry("InflationTask", "11_weight_inflation"),
}


def task_class(name: str) -> type:
    """The LightningModule of a pretext task.

    Raises:
        CourseError: no such task.
    """
    if name not in TASKS:
        raise CourseError(f"task={name!r}: no such pretext task; choose one of {', '.join(TASKS)}")
    return getattr(import_module(f"ssl_utils.pretext.{name}"), TASKS[name].module)
