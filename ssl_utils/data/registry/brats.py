"""BraTS, glioma in MRI without the skull, by year. Up to 2022 enhancing tumour is 4, since 2023 it is 3."""

from dataclasses import replace

from ssl_utils.data.dataset import BRATS_LABELS, BRATS_REGIONS, SKULL_STRIPPED, Dataset, Grid, Layout, Rule

BRAIN = {"coarse": Grid((5.0, 5.0, 5.0), (48, 48, 32)), "fine": Grid((1.0, 1.0, 1.0), (128, 128, 128))}
GLIOMA = {0: "background", 1: "necrotic core", 2: "edema", 4: "enhancing tumour"}
DRAWN = Rule(
    "15 % of the patients, drawn, are for test, 10 % for validation; all time points of a patient are on one side.",
    drawn={"test": 0.15, "validation": 0.1},
)
BRATS18 = Dataset(
    name="brats18",
    mirrored=("left-right",),  # a tumour may be on either side
    title="BraTS 2018, glioma in four MRI sequences, 285 patients",
    source="Menze et al. 2015, IEEE TMI 34:1993; Bakas et al. 2018, arXiv:1811.02629",
    licence="terms of the BraTS organisers, registration needed",
    channels=("FLAIR", "T1", "T1ce", "T2"),
    labels=GLIOMA,
    regions={"TC": (1, 4), "WT": (1, 2, 4), "ET": (4,)},
    intensity=SKULL_STRIPPED,
    grids=BRAIN,
    folders=("brats18", "BraTS18"),
    layout=Layout(
        image=r"(?:.+/)?(?:HGG|LGG)/(?P<case>Brats18_\w+)/(?P=case)_(?P<channel>flair|t1|t1ce|t2)",
        label=r"(?:.+/)?(?:HGG|LGG)/(?P<case>Brats18_\w+)/(?P=case)_seg",
        channels=("flair", "t1", "t1ce", "t2"),
        example="HGG/Brats18_2013_2_1/Brats18_2013_2_1_t1ce.nii.gz",
    ),
    rules={
        "brats18": Rule(
            "15 % of the patients, drawn, are for test, 10 % for validation; training has both grades from its first "
            "cases on.",
            drawn={"test": 0.15, "validation": 0.1},
        ),
        "brats18_sorted": Rule(
            "The published protocol as far as a folder can show it: 43 of 285 patients for validation, 35 for test, "
            "and few labels are the first N of a sorted list, which are high-grade tumours alone. Its own lists (199, "
            "43 and 35 patients) are not part of this course, so that these patients are other ones.",
            drawn={"test": 35 / 285, "validation": 43 / 285},
            in_order=True,
        ),
    },
    how_to_get="1) request the BraTS 2018 training data at www.med.upenn.edu/sbia/brats2018 (2 to 3 GB); "
    "2) unpack them so that the patients' folders are in {root}/HGG and {root}/LGG",
)
DATASETS = (
    BRATS18,
    replace(
        BRATS18,
        name="brats18_single",
        title="BraTS 2018, every MRI sequence an image of one channel, for pretraining",
        channels=("MRI",),
        labels={},
        regions=None,
        layout=Layout(
            image=r"(?:.+/)?(?:HGG|LGG)/(?P<patient>Brats18_\w+)/(?P<case>(?P=patient)_(?:flair|t1|t1ce|t2))",
            example=BRATS18.layout.example,
        ),
        rules={
            "brats18_single": Rule(
                "Patients of the test set of brats18 are left out, those of its validation set are for validation.",
                drawn={"left out": 0.15, "validation": 0.1},
            )
        },
    ),
    replace(
        BRATS18,
        name="brats21",
        title="BraTS 2020 or 2021, glioma in four MRI sequences, 369 or 1251 patients",
        source="Baid et al. 2021, arXiv:2107.02314",
        folders=("brats21", "BraTS2021", "BraTS2020"),
        layout=Layout(
            image=r"(?:.+/)?(?P<case>BraTS(?:20_\w+|2021)_\d+)/(?P=case)_(?P<channel>flair|t1|t1ce|t2)",
            label=r"(?:.+/)?(?P<case>BraTS(?:20_\w+|2021)_\d+)/(?P=case)_seg",
            channels=("flair", "t1", "t1ce", "t2"),
            example="BraTS2021_00000/BraTS2021_00000_t1ce.nii.gz",
        ),
        rules={"brats21": DRAWN},
        how_to_get="1) request BraTS 2021 at synapse.org, project syn25829067 (13 GB), or BraTS 2020 (4 GB); "
        "2) unpack one of the two so that the patients' folders are in {root}; in 2020 rename the label of patient 355 "
        "to BraTS20_Training_355_seg.nii",
    ),
    Dataset(
        name="brats",
        mirrored=("left-right",),
        title="BraTS 2023 and later: glioma of adults (GLI), in Sub-Saharan Africa (SSA), of children (PED)",
        source="Adewole et al. 2023, arXiv:2305.19369; Kazerooni et al. 2023, arXiv:2305.17033",
        licence="terms of the BraTS organisers, registration needed",
        channels=("t1n", "t1c", "t2w", "t2f"),
        labels=BRATS_LABELS,
        regions=BRATS_REGIONS,
        intensity=SKULL_STRIPPED,
        grids=BRAIN,
        folders=("brats", "BraTS", "BraTS2023"),
        layout=Layout(
            image=r"(?:.+/)?(?P<case>BraTS-(?P<site>[A-Z]+)-\d+-\d+)/(?P=case)-(?P<channel>t1n|t1c|t2w|t2f)",
            label=r"(?:.+/)?(?P<case>BraTS-[A-Z]+-\d+-\d+)/(?P=case)-seg",
            channels=("t1n", "t1c", "t2w", "t2f"),
            example="BraTS-SSA-00002-000/BraTS-SSA-00002-000-t1c.nii.gz",
        ),
        rules={"brats": DRAWN},
        how_to_get="1) register at synapse.org for BraTS 2023, project syn51156910: GLI has 1251 labelled cases "
        "(20 GB), SSA 60 (1 GB), PED 99 (2 GB); 2) unpack those you want so that the cases' folders are in {root} or "
        "in folders of it; a published list of folds is read as {root}/folds.json. Earlier years are the datasets "
        "brats18 and brats21",
    ),
)
