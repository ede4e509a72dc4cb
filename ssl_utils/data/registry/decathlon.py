"""The Medical Segmentation Decathlon, Simpson et al. 2019: nine tasks; its fourth, hippocampus, is among `recorded`."""

import random
from typing import Any

from ssl_utils.data.dataset import ABDOMEN, PERCENTILES, SKULL_STRIPPED, Dataset, Grid, Intensity, Rule
from ssl_utils.data.download import Archive
from ssl_utils.data.registry.brats import BRAIN
from ssl_utils.data.registry.ct import CT_GRIDS

SITE = "https://msd-for-monai.s3-us-west-2.amazonaws.com"
COUNTS = (484, 20, 131, 260, 32, 63, 281, 303, 41, 126)  # labelled cases of tasks 1 to 10
OWN = (
    "A fifth of the labelled cases, drawn, is for test, a tenth for validation; the list of the Decathlon has neither."
)


def shuffled(task: int, more: str = "") -> Rule:
    """The 80/15/5 split of TransSeg: one generator shuffles the lists of all ten tasks, one after the other."""
    generator = random.Random(1234)
    for count in COUNTS[:task]:
        generator.shuffle(order := list(range(count)))
    first, second = int(0.8 * count), int(0.95 * count)
    tested = f"{count - second} {'case' if count - second == 1 else 'cases'}"
    return Rule(
        f"As published for TransSeg: dataset.json shuffled, 80 % for training, 15 % for validation and 5 %, {tested}, "
        f"for test, which is few for a comparison. It depends on the order of dataset.json. {more}".strip(),
        positions={"training": (*order[:first],), "validation": (*order[first:second],), "test": (*order[second:],)},
    )


def _task(number: int, organ: str, folder: str, size: str, **facts: Any) -> Dataset:
    name, tar = f"msd_{organ.lower()}", f"Task{number:02d}_{folder}.tar"
    labels = dict(enumerate(("background", *facts.pop("structures"))))
    by_hand = f"1) download {tar} ({size}) from medicaldecathlon.com; 2) unpack it, and call its folder {{root}}"
    return Dataset(
        name=name,
        title=f"Medical Segmentation Decathlon, Task{number:02d} {organ.lower()}",
        source="Simpson et al. 2019, arXiv:1902.09063",
        licence="CC-BY-SA 4.0",
        labels=labels,
        folders=(tar.removesuffix(".tar"), name),
        rules={name: Rule(OWN, drawn={"test": 0.2, "validation": 0.1}), f"{name}_transseg": shuffled(number)},
        how_to_get=by_hand,
        **({"channels": ("CT",), "intensity": ABDOMEN, "grids": CT_GRIDS} | facts),
    )


def _archive(name: str, md5: str) -> Archive:
    return Archive(f"{SITE}/{name}.tar", checksum=f"md5:{md5}")


MRI = {"channels": ("MRI",), "intensity": PERCENTILES}
DATASETS = (
    _task(
        1,
        "brain",
        "BrainTumour",
        "7 GB",
        channels=("FLAIR", "T1w", "T1gd", "T2w"),
        structures=("edema", "non-enhancing tumour", "enhancing tumour"),
        regions={"TC": (2, 3), "WT": (1, 2, 3), "ET": (3,)},
        mirrored=("left-right",),
        intensity=SKULL_STRIPPED,
        grids=BRAIN,
    ),
    _task(
        2,
        "heart",
        "Heart",
        "0.4 GB",
        structures=("left atrium",),
        grids={"coarse": Grid((6.0, 6.0, 5.0), (48, 48, 32)), "fine": Grid((1.5, 1.5, 1.5), (128, 128, 96))},
        archive=_archive("Task02_Heart", "06ee59366e1e5124267b774dbd654057"),
        **MRI,
    ),
    _task(3, "liver", "Liver", "27 GB", structures=("liver", "tumour")),
    _task(
        5,
        "prostate",
        "Prostate",
        "0.2 GB",
        structures=("peripheral zone", "transition zone"),
        grids={
            "coarse": Grid((3.0, 3.0, 4.0), (64, 64, 16), patch_size=(8, 8, 2)),
            "fine": Grid((1.0, 1.0, 3.6), (160, 160, 16), patch_size=(16, 16, 4)),
        },
        archive=_archive("Task05_Prostate", "35138f08b1efaef89d7424d2bcc928db"),
        **MRI | {"channels": ("T2", "ADC")},
    ),
    _task(6, "lung", "Lung", "9 GB", structures=("tumour",), intensity=Intensity("window", -1000, 400)),
    _task(7, "pancreas", "Pancreas", "12 GB", structures=("pancreas", "tumour")),
    _task(8, "vessels", "HepaticVessel", "9 GB", structures=("vessel", "tumour")),
    _task(
        9,
        "spleen",
        "Spleen",
        "1.5 GB",
        structures=("spleen",),
        archive=_archive("Task09_Spleen", "410d4a301da4e5b2f6f86ec3ddba524e"),
    ),
    _task(10, "colon", "Colon", "6 GB", structures=("tumour",)),
)
