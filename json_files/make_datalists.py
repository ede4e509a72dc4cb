"""Make the datalists of this folder anew: python json_files/make_datalists.py

BTCV, LiTS and hippocampus follow from rules; the published TCIA split follows no rule that anybody could find, so its
facts stand in tcia_covid19_volumes.csv (volume, patient, published side). Equal input gives equal bytes. Splits that
depend on the files in a folder are rules in ssl_utils/data/registry.
"""

import csv
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from ssl_utils.data.datalists import Case, Datalist, in_turn, split_by_patient, write

HERE = Path(__file__).resolve().parent
ROOT = Path()  # entries are relative to wherever the dataset lies
SEED = 0

BTCV_ORGANS = (
    "background",
    "spleen",
    "right kidney",
    "left kidney",
    "gallbladder",
    "esophagus",
    "liver",
    "stomach",
    "aorta",
    "inferior vena cava",
    "portal and splenic veins",
    "pancreas",
    "right adrenal gland",
    "left adrenal gland",
)
BTCV_LABELED = [*range(1, 11), *range(21, 41)]
BTCV_UNLABELED = range(61, 81)
BTCV_TRANSSEG = (1, 2, 3, 4, 8, 22, 25, 29, 32, 35, 36, 38)  # its validation set
LITS_PUBLISHED = range(28, 48)  # its validation set
# The Task04 training ids of which image and label could be checked; ids 2k-1 and 2k are one scan.
HIPPOCAMPUS = """
1 3-4 6-8 11 15 17 23-26 35-36 39-42 44-46 48-53 57-58 60 70 74-75 77 83-84 87-88 93-99 101-102 104-109 114 123-127 130
132 135-136 138 141-146 148-150 152 154-158 160 163-166 169-174 177-178 180-181 184-185 188-190 193-195 199 205 207 212
215-217 219-222 225-230 235-236 238 242-244 249-253 257 259-261 263-265 268-269 274 276-277 279-280 282 287-290 294-305
308-311 314 316-322 325-338 341 343 345 349-356 358-360 363 366-368 370 372-376 380 385-387 389-390 393-394
"""
SARCOMA = """
1-4 7-11 13-17 19-21 24-33 35-38 40-51
"""
# OpenKBP: the patients whose five contours can be trusted (ssl_utils.data.openkbp), and the others.
HEADNECK = """
1-2 4 9 12-13 16-17 20-22 24-25 30-31 33-34 36-37 40-41 47-48 54 57 59-62 65-66 68 70-72 74 77 82-84 87-88 90-93 95-97
99-101 104-105 109 111-115 119-120 122 124 128 132-133 137 139-141 144 148-149 155 157 164 166-169 171-172 177 180-183
185 187-189 192-193 196-197 200-202 207 209-210 213 218-219 222 224-226 231-232 235-236 246-247 254 257 263-264 268-269
282 290-291 293 298 301 308 317 319 331 333-334 339-340
"""
HEADNECK_UNLABELED = """
3 5-7 10-11 14-15 18 26-29 35 38-39 42-43 45 49-50 52-53 55 58 64 67 76 78-80 86 89 94 98 103 106 108 116 118 121 123
126-127 129-131 136 146-147 150-152 154 156 158-160 162-163 165 173 176 178 184 190 194-195 198-199 203-204 206 208
211-212 214-216 221 227 229-230 233 237-239 242 245 249-250 253 260-261 267 270-271 274-275 278-280 283 286-289 292
300 303-304 306-307 310-311 314-315 321 323-324 327-328 335-336
"""


def main(folder: Path = HERE) -> list[Path]:
    """Write every list into `folder`."""
    lists = {f"btcv_{count:02d}": btcv(count) for count in (6, 12, 24)}
    lists |= {"btcv_06_honest": btcv(6, honest=True), "hippocampus": hippocampus(), "sarcoma": sarcoma()}
    lists |= {"btcv_transseg": btcv_transseg(), "btcv_by_patient": btcv_by_patient(), "headneck": headneck()}
    lists |= {"lits17_by_patient": lits_by_patient(), "lits17_published": lits_published()}
    lists |= {"tcia_covid19_published": tcia_published(), "tcia_covid19_by_patient": tcia_by_patient()}
    for name, datalist in lists.items():
        write(datalist, folder / f"{name}.json", root=ROOT)
    return [folder / f"{name}.json" for name in lists]


def btcv(num_labeled: int, *, honest: bool = False) -> Datalist:
    """The published protocol; `honest` adds the labelled cases it leaves unused as a test set."""
    training, unused, validation = BTCV_LABELED[:num_labeled], BTCV_LABELED[num_labeled:-6], BTCV_LABELED[-6:]
    description = (
        f"Training and validation of the published protocol for {num_labeled} labelled volumes, the first in the order "
        "of their numbers. The published protocol has no test set: it chooses the checkpoint and reports its figure on "
        "the same six validation volumes."
    )
    if honest:
        description += f" Here the {len(unused)} labelled volumes that protocol leaves unused are the test set."
    name = "btcv_06_honest" if honest else f"btcv_{num_labeled:02d}"
    return _btcv(name, description, training=training, validation=validation, test=unused if honest else ())


def btcv_transseg() -> Datalist:
    return _btcv(
        "btcv_transseg",
        "The split of TransSeg, 18 volumes for training and 12 for validation, on which it both chooses the checkpoint "
        "and reports its figure. Nine of the 12 are training volumes of the MONAI tutorial: never compare across.",
        training=[number for number in BTCV_LABELED if number not in BTCV_TRANSSEG],
        validation=BTCV_TRANSSEG,
    )


def btcv_by_patient() -> Datalist:
    found = _btcv("", "", training=BTCV_LABELED)
    sides = _drawn(split_by_patient(found.training, sizes={"test": 10, "validation": 4}, seed=SEED))
    description = "A split of the 30 labelled volumes, one per patient, into 16, 4 and 10: test is read once."
    ids = {side: [int(case.patient) for case in cases] for side, cases in sides.items()}
    return _btcv("btcv_by_patient", description, **ids)


def _btcv(name: str, description: str, **sides: Sequence[int]) -> Datalist:
    def case(number: int, labeled: bool = True) -> Case:
        image = ROOT / ("imagesTr" if labeled else "imagesTs") / f"img{number:04d}.nii.gz"
        label = ROOT / "labelsTr" / f"label{number:04d}.nii.gz" if labeled else None
        return Case(f"img{number:04d}", image, label, patient=f"{number:04d}")

    return Datalist(
        name=name,
        description=f"Abdominal CT with 13 organs. {description} The 20 volumes of the challenge's own test set come "
        "without labels: unlabeled.",
        licence="terms of use of Synapse project syn3193805; registration needed",
        reference="Landman et al. 2015, Multi-Atlas Labeling Beyond the Cranial Vault, Synapse syn3193805",
        channels=("CT",),
        labels=dict(enumerate(BTCV_ORGANS)),
        **{side: tuple(map(case, numbers)) for side, numbers in sides.items()},
        unlabeled=tuple(case(number, labeled=False) for number in BTCV_UNLABELED),
    )


def lits_by_patient() -> Datalist:
    cases = [_lits_case(number) for number in range(131)]
    return _lits(
        "lits17_by_patient",
        "A split of the 131 volumes into 92, 13 and 26, drawn by volume: validation chooses the checkpoint, test is "
        "read once.",
        **_drawn(split_by_patient(cases, sizes={"test": 26, "validation": 13}, seed=SEED)),
    )


def lits_published() -> Datalist:
    cases = [_lits_case(number) for number in range(131)]
    return _lits(
        "lits17_published",
        "The split of RadioSSL: volumes 28 to 47 are validation and test at once, so that the reported figure chose "
        "its own checkpoint. Its label shares were the first N files as the system happened to list them, so that they "
        "differ between machines; here they are the first N by number.",
        training=tuple(case for number, case in enumerate(cases) if number not in LITS_PUBLISHED),
        validation=tuple(cases[number] for number in LITS_PUBLISHED),
    )


def _lits_case(number: int) -> Case:
    folder = ROOT / ("val" if number in LITS_PUBLISHED else "train")
    image, label = folder / "ct" / f"volume-{number}.nii", folder / "seg" / f"segmentation-{number}.nii"
    return Case(f"volume-{number}", image, label, patient=f"{number:03d}")


def _lits(name: str, description: str, **sides: tuple[Case, ...]) -> Datalist:
    return Datalist(
        name=name,
        description=f"Abdominal CT with liver and tumours. {description} The names of the volumes do not say whose "
        "they are. The Decathlon's Task03 has the same volumes: do not pretrain on one and test on the other.",
        licence="CC-BY-NC-ND 4.0; registration needed",
        reference="Bilic et al. 2023, The Liver Tumor Segmentation Benchmark, Med Image Anal 84:102680",
        channels=("CT",),
        labels={0: "background", 1: "liver", 2: "tumour"},
        **sides,
    )


def hippocampus() -> Datalist:
    cases = _pairs("hippocampus", HIPPOCAMPUS, patient=lambda number: (number + 1) // 2)
    sides = split_by_patient(cases, sizes={"test": 110, "validation": 20}, seed=SEED)
    return Datalist(
        name="hippocampus",
        description="T1 MRI crops around the hippocampus, two parts. Ids 2k-1 and 2k are the same scan and are kept "
        "together. Validation chooses the checkpoint, test is read once; the first N of training are the N labelled "
        "cases, from different patients as long as there are new ones; all of training is the pretraining pool.",
        licence="CC-BY-SA 4.0",
        reference="Medical Segmentation Decathlon Task04, Simpson et al. 2019, arXiv:1902.09063; images from "
        "Vanderbilt University Medical Center",
        channels=("MRI",),
        labels={0: "background", 1: "anterior", 2: "posterior"},
        **_drawn(sides),
    )


def sarcoma() -> Datalist:
    cases = _pairs("STS", SARCOMA, patient=lambda number: number)
    sides = split_by_patient(cases, sizes={"test": 15, "validation": 4}, seed=SEED)
    return Datalist(
        name="sarcoma",
        description="Crops around soft-tissue sarcomas: CT, T1 MRI and FDG-PET on one grid, one volume per patient, "
        "the tumour's contour as label. Validation chooses the checkpoint, test is read once; the first N of training "
        "are the N labelled cases; all of training is the pretraining pool.",
        licence="CC-BY 3.0",
        reference="Vallieres et al. 2015, Phys Med Biol 60(14):5471; TCIA, doi:10.7937/K9/TCIA.2015.7GO2GSKS; crops of "
        "the IBSI validation set (A. Zwanenburg)",
        channels=("CT", "T1", "PET"),
        labels={0: "background", 1: "tumour"},
        **_drawn(sides),
    )


def headneck() -> Datalist:
    cases = _pairs("openkbp", HEADNECK, patient=lambda number: number)
    others = _pairs("openkbp", HEADNECK_UNLABELED, patient=lambda number: number)
    sides = split_by_patient(cases, sizes={"test": 60, "validation": 10}, seed=SEED)
    return Datalist(
        name="headneck",
        description="Head-and-neck CT for radiotherapy with five organs at risk, one volume per patient. Validation "
        "chooses the checkpoint, test is read once; the first N of training are the N labelled cases; all of training "
        "and unlabeled is the pretraining pool. Patients 318 and 329 are left out (scans of 5 cm); the other 79 of the "
        "archive have no usable scan (51, 143, 170) or were not at hand when this list was made.",
        licence="MIT (repository ababier/open-kbp)",
        reference="Babier et al. 2021, Med Phys 48:5549 (OpenKBP); images from The Cancer Imaging Archive",
        channels=("CT",),
        labels=dict(enumerate(("background", "brainstem", "spinal cord", "right parotid", "left parotid", "mandible"))),
        **_drawn(sides),
        unlabeled=tuple(replace(case, image=ROOT / "imagesUn" / case.image.name, label=None) for case in others),
    )


def _drawn(sides: dict[str, tuple[Case, ...]]) -> dict[str, tuple[Case, ...]]:
    """The labelled splits: training in the order of its nested subsets, validation, test."""
    rest = in_turn(sides["rest"], seed=SEED)
    return {"training": rest, "validation": sides["validation"], "test": sides["test"]}


def _pairs(prefix: str, spans: str, *, patient: Callable[[int], int]) -> list[Case]:
    """Image and label of every number in `spans` (`3-5 8` is 3, 4, 5, 8), and whose they are."""
    ends = [[int(end) for end in span.split("-")] for span in spans.split()]
    numbers = [number for first, *last in ends for number in range(first, (last or [first])[0] + 1)]
    return [
        Case(name, *(ROOT / folder / f"{name}.nii.gz" for folder in ("imagesTr", "labelsTr")), f"{patient(number):03d}")
        for number in numbers
        for name in [f"{prefix}_{number:03d}"]
    ]


def tcia_published() -> Datalist:
    facts = _tcia()
    sides = {side: tuple(case for case, published in facts if published == side) for side in ("training", "validation")}
    return _tcia_list(
        "tcia_covid19_published",
        "The published split into 600 and 171 volumes. It was drawn by volume: 23 patients are on both sides.",
        **sides,
    )


def tcia_by_patient() -> Datalist:
    sides = split_by_patient([case for case, _ in _tcia()], sizes={"validation": 171}, seed=SEED)
    return _tcia_list(
        "tcia_covid19_by_patient",
        "A split of the same sizes as the published one, drawn by patient: nobody is on both sides.",
        training=sides["rest"],
        validation=sides["validation"],
    )


def _tcia() -> list[tuple[Case, str]]:
    with open(HERE / "tcia_covid19_volumes.csv", newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    return [
        (Case(row["volume"].split(".")[0], ROOT / "data" / row["volume"], None, row["patient"]), row["published_side"])
        for row in rows
    ]


def _tcia_list(name: str, description: str, **sides: tuple[Case, ...]) -> Datalist:
    return Datalist(
        name=name,
        description="Chest CT in COVID-19 without labels, for pretraining. " + description,
        licence="CC-BY 4.0",
        reference="An et al. 2020, CT Images in COVID-19, The Cancer Imaging Archive, doi:10.7937/TCIA.2020.GQRY-NC81",
        channels=("CT",),
        **sides,
    )


if __name__ == "__main__":
    for path in main():
        print(path.name)
