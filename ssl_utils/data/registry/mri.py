"""MRI of the head and of the heart."""

from ssl_utils.data.dataset import PERCENTILES, Dataset, Grid, Layout, Rule

# patients of the local test set of TransSeg
ACDC_TEST = "002|003|008|009|012|014|017|024|042|048|049|053|055|064|067|079|081|088|092|095"
DATASETS = (
    Dataset(
        name="adni",
        title="Alzheimer's Disease Neuroimaging Initiative, or any folder of T1 MRI of the head",
        source="adni.loni.usc.edu; Jack et al. 2008, JMRI 27:685",
        licence="ADNI data use agreement, registration needed",
        faces=True,
        channels=("MRI",),
        labels={},
        intensity=PERCENTILES,
        grids={"coarse": Grid((5.0, 5.0, 5.0), (32, 48, 48)), "fine": Grid((1.5, 1.5, 1.5), (96, 128, 128))},
        folders=("adni", "ADNI"),
        layout=Layout(
            image=r"(?:.+/)?(?P<case>(?:[^/]*?(?P<patient>\d{3}_S_\d{4,5}))?[^/]*)",
            example="ADNI_002_S_0295_MR_MPRAGE.nii.gz",
        ),
        rules={
            "adni": Rule(
                "A tenth of the patients, drawn, is for validation; all visits of a patient are on one side. Patients "
                "are read from names such as 002_S_0295, else from file names.",
                drawn={"validation": 0.1},
            )
        },
        how_to_get="1) apply at adni.loni.usc.edu and download T1 images as NIfTI (20 MB each); "
        "2) put the files, in folders or not, into {root}; other T1 images of the head do as well",
    ),
    Dataset(
        name="acdc",
        title="Automated Cardiac Diagnosis Challenge, cine MRI, both phases of 100 or 150 patients",
        source="Bernard et al. 2018, IEEE TMI 37:2514",
        licence="CC-BY-NC-SA 4.0, registration needed",
        channels=("MRI",),
        labels={0: "background", 1: "right ventricle", 2: "myocardium", 3: "left ventricle"},
        intensity=PERCENTILES,
        grids={
            "coarse": Grid((3.5, 3.5, 8.0), (64, 64, 16), patch_size=(8, 8, 2)),
            "fine": Grid((1.5, 1.5, 8.0), (160, 160, 16), patch_size=(16, 16, 4)),
        },
        tolerance=1.5,
        folders=("acdc", "ACDC"),
        layout=Layout(
            image=r"(?:.+/)?(?P<case>patient(?P<patient>\d{3})_frame\d\d)",
            label=r"(?:.+/)?(?P<case>patient\d{3}_frame\d\d)_gt",
            example="training/patient001/patient001_frame01.nii.gz",
        ),
        rules={
            "acdc": Rule(
                "Both phases of a patient are on one side. The challenge's own test patients are for test where they "
                "are in the folder (testing), else a fifth, drawn; another tenth is for validation.",
                fixed={"test": "testing/"},
                drawn={"test": 0.2, "validation": 0.1},
            ),
            "acdc_transseg": Rule(
                "As published for TransSeg: 80 patients for training, 20 for its local test, which is its validation "
                "set too, so that the reported figure chose its own checkpoint. Patients 101 to 150 are left out.",
                fixed={"validation": f"patient({ACDC_TEST})_", "left out": "patient1(0[1-9]|[1-5].)_"},
            ),
        },
        how_to_get="1) register and download at humanheart-project.creatis.insa-lyon.fr (some 2 GB); "
        "2) unpack it so that the patients' folders are in {root}/training and {root}/testing",
    ),
)
