"""CT of the abdomen and of the chest."""

from ssl_utils.data.dataset import ABDOMEN, BTCV_ORGANS, COARSE_CT, Dataset, Grid, Intensity, Layout, Rule

SERIES = "File names are ids of scans, not of patients: the few patients with two scans may be on both sides."
CT_GRIDS = {"coarse": COARSE_CT, "fine": Grid((1.5, 1.5, 2.0), (96, 96, 96))}
DATASETS = (
    Dataset(
        name="btcv",
        title="Beyond the Cranial Vault, abdominal CT, 13 organs",
        source="Synapse syn3193805",
        licence="Synapse terms of use, registration needed",
        channels=("CT",),
        labels=BTCV_ORGANS,
        intensity=ABDOMEN,
        folders=("btcv", "BTCV"),
        grids=CT_GRIDS,
        lists=("btcv_24", "btcv_12", "btcv_06", "btcv_06_honest", "btcv_transseg", "btcv_by_patient"),
        how_to_get="1) make an account at synapse.org and accept the terms of project syn3193805; "
        "2) download Abdomen/RawData.zip; 3) put Training/img into {root}/imagesTr, "
        "Training/label into {root}/labelsTr, Testing/img into {root}/imagesTs",
    ),
    Dataset(
        name="tcia_covid19",
        title="CT images in COVID-19, 771 chest CT volumes without labels",
        source="The Cancer Imaging Archive, doi:10.7937/TCIA.2020.GQRY-NC81",
        licence="CC-BY 4.0",
        channels=("CT",),
        labels={},
        intensity=ABDOMEN,
        folders=("tcia_covid19", "TCIA"),
        grids=CT_GRIDS,
        lists=("tcia_covid19_by_patient", "tcia_covid19_published"),
        how_to_get="1) open the collection CT-Images-in-COVID-19 at cancerimagingarchive.net; 2) download the "
        "NIfTI package (about 20 GB) with the Aspera link; 3) move all volume-covid19-A-*.nii.gz into {root}/data",
    ),
    Dataset(
        name="lits17",
        title="Liver Tumor Segmentation Challenge 2017, 131 abdominal CT",
        source="Bilic et al. 2023, Med Image Anal 84:102680",
        licence="CC-BY-NC-ND 4.0, registration needed",
        channels=("CT",),
        labels={0: "background", 1: "liver", 2: "tumour"},
        intensity=ABDOMEN,
        grids=CT_GRIDS,
        folders=("lits17", "LiTS17"),
        lists=("lits17_by_patient", "lits17_published"),
        how_to_get="1) register at codalab.org for competition 17094 and download the two training batches (about "
        "18 GB, 50 GB unpacked); 2) put volume-N.nii into {root}/train/ct and segmentation-N.nii into "
        "{root}/train/seg, and those of N = 28 to 47 into {root}/val/ct and {root}/val/seg",
    ),
    Dataset(
        name="luna16",
        title="Lung Nodule Analysis 2016, 888 chest CT without labels here",
        source="Setio et al. 2017, Med Image Anal 42:1; images of LIDC-IDRI, The Cancer Imaging Archive",
        licence="CC-BY 4.0",
        channels=("CT",),
        labels={},
        intensity=Intensity("window", -1000, 1000),
        grids=CT_GRIDS,
        folders=("luna16", "LUNA16"),
        layout=Layout(image=r"subset\d/(?P<case>[\d.]+)", example="subset0/1.3.6.1.4.mhd"),
        rules={
            "luna16": Rule(f"A tenth of the scans, drawn, is for validation. {SERIES}", drawn={"validation": 0.1}),
            "luna16_published": Rule(
                "As published for patch and voxel clusters: subsets 0 to 6 for training, 7 to 9 for validation, whose "
                f"loss was never computed, so that it chose nothing. {SERIES}",
                fixed={"validation": "subset[789]/", "training": "subset[0-6]/"},
            ),
            "luna16_genesis": Rule(
                "As published for Models Genesis: subsets 0 to 4 for training, 5 and 6 for validation; 7 to 9 were "
                f"kept for its nodule tests and are left out. {SERIES}",
                fixed={"validation": "subset[56]/", "training": "subset[0-4]/", "left out": "subset[789]/"},
            ),
        },
        how_to_get="1) download subset0.zip to subset9.zip by the links at luna16.grand-challenge.org (some 70 GB, "
        "120 GB unpacked); 2) unpack them into {root}/subset0 to {root}/subset9, each with its .mhd and .raw files",
    ),
)
