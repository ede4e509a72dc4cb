"""Files that break loaders, from the test data of other projects: each is read right or refused in one line.

What is right was decided by looking at each file, and what is read is compared with a second reader (ITK). The files
lie beside the project; where not, every test here has nothing to do, and `faulty_files` holds the same troubles.
"""

import shutil
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK
from faulty_files import DATA, nifti_bytes, real_oddities

from ssl_utils.data import cache, datalists, datasets, doctor, formats, volumes
from ssl_utils.data.dataset import Grid, Intensity
from ssl_utils.errors import CourseError
from ssl_utils.experiments import prediction, scales
from ssl_utils.experiments.setups import Setup
from ssl_utils.files import read_json
from ssl_utils.networks.unetr import UNETR

ROOT = DATA / "oddities"
PAIR, SLICE, POINTER, UNEVEN = "ANALYZE or NIfTI pair", "one DICOM slice", "Git LFS pointer", "unevenly spaced"
# path -> (shape, where the axes point, least, most), or a word of the refusal
IMAGES: dict[str, tuple | str] = {
    "crafted/gz_of_html.nii.gz": "web page",
    "crafted/plain_nii_named_gz.nii.gz": "not gzip-compressed",
    "crafted/truncated_60pct.nii.gz": "truncated",
    "crafted/zero_bytes.nii.gz": "is empty",
    "dcmqi/liver.dcm": "another kind (Segmentation Storage)",
    "dcmqi/liver_seg.nrrd": ((512, 512, 3), "LPS", 0, 1),
    "dipy/S0_10slices.nii.gz": "34 degrees off perpendicular",  # slices picked from an oblique series: a sheared grid
    "fnndsc/adi_slice.nii.gz": ((192, 192, 1), "PIR", 0, 836),
    **dict.fromkeys([f"ge_gantry_tilt/{number}.dcm" for number in range(13, 18)], SLICE),
    "ge_gantry_tilt": UNEVEN,
    **{f"git_lfs_pointer/{kind}_liver_{number}.nii.gz": POINTER for kind in ("image", "label") for number in (0, 1)},
    "hippocampus_udacity/DS_Store_was_dot_DS_Store": "not named as a volume",
    "hippocampus_udacity/hippocampus_010.nii.gz": ((36, 50, 31), "RAS", 0, 2),
    "hippocampus_udacity/hippocampus_118.nii.gz": ((37, 52, 33), "RAS", 1, 168),
    "hippocampus_udacity/hippocampus_281.nii.gz": ((512, 512, 94), "RAS", 0, 1),
    "itksnap/MRIcrop-orig.gipl.gz": "GIPL",
    "itksnap/seg4d_11f.nii.gz": "4D with 11 volumes",
    "mirp/empty_mask.nii.gz": ((8, 8, 8), "LPS", 0, 0),
    "mirp/full_mask.nii.gz": ((8, 8, 8), "LPS", 1, 1),
    "mirp/orientation.nii.gz": ((32, 48, 64), "LPS", 0, 141),
    "mirp/uninformative.nii.gz": ((8, 8, 8), "LPS", 1, 1),
    **dict.fromkeys([f"monai_ct_dicom/{number}" for number in (7106, 7136, 7166, 7196)], SLICE),
    "monai_ct_dicom": UNEVEN,  # 202 mm between the first two
    "nibabel/analyze.hdr": PAIR,
    "nibabel/anatomical.nii": ((33, 41, 25), "LAS", -610, 30393),  # big-endian
    "nibabel/example_nifti2.nii.gz": "4D with 2 volumes",
    "nibabel/someones_epi.nii.gz": ((53, 61, 33), "RAS", 7.743, 103.8),  # scl_slope
    "nibabel/tiny.mnc": "MINC",
    "nifti_reader_js/5D_small.nii": "is 5D",
    "nifti_reader_js/air.hdr.gz": PAIR,
    "nifti_reader_js/big.nii.gz": ((64, 64, 21), "LAS", -8.711, 18.58),  # big-endian float
    "nifti_reader_js/not-nifti.nii": "not a NIfTI file",
    "nifti_reader_js/with_extension.nii.gz": ((161, 191, 151), "LPI", 0, 1),
    "nifti_rs/3D.nii": "colour",
    "nifti_rs/crash-1.nii": "not a NIfTI file",
    "nifti_rs/float64.nii": ((3, 3, 3), "RAS", 0, 26),
    "nifti_rs/minimal2.hdr": PAIR,
    "nifti_rs/minimal2.img.gz": PAIR,
    "nifti_rs/minimal_extended_hdr.nii": "is 2D",
    "nifti_rs/uint64.nii": ((3, 3, 3), "RAS", 0, 26),
    "niivue/fmri_pitch.nii.gz": ((64, 64, 35), "RAS", 0, 2210),  # scl_slope
    "papaya/series.nii.gz": "4D with 10 volumes",
    "pydicom/CT_small.dcm": SLICE,
    "pydicom/MR_small.dcm": SLICE,
    "pydicom/MR_small_bigendian.dcm": SLICE,
    "pydicom/MR_small_jpeg_ls_lossless.dcm": SLICE,
    "pydicom/badVR.dcm": "another kind (RT Dose Storage)",
    "pydicom/emri_small.dcm": "multi-frame",
    "pyradiomics/brain2_image.nrrd": ((256, 256, 23), "LAS", 0, 1523),
    "rnifti/example_4d.nii.gz": "4D with 3 volumes",
    "sct/dmri.nii.gz": "4D with 7 volumes",
    "sct/mt1_gmseg.nii.gz": ((40, 40, 5), "LAS", 0, 1.059),
    "sct/t2.nii.gz": ((60, 55, 52), "PSR", 0, 1257),
    "sct/t2_seg-manual.nii.gz": ((60, 55, 52), "PSR", 0, 1),
}
LABELS = {  # of those that are images: why they are no labels; the others are read as such
    "fnndsc/adi_slice.nii.gz": "0 to 836",
    "nibabel/anatomical.nii": "-610 to 30393",
    "nibabel/someones_epi.nii.gz": "not a whole number",
    "nifti_reader_js/big.nii.gz": "not a whole number",
    "niivue/fmri_pitch.nii.gz": "not a whole number",
    "pyradiomics/brain2_image.nrrd": "0 to 1523",
    "sct/mt1_gmseg.nii.gz": "not a whole number",  # soft: rounding it would be a guess
    "sct/t2.nii.gz": "0 to 1257",
}
BESIDE = {  # volumes of other folders: a second scanner's DICOM, compressed slices, MetaImage
    "hippocrop_dicom/Study1_13_HCropVolume": ((35, 51, 32), "LPS", 2, 154),
    "hippocrop_dicom/Study3_11_HCropVolume": ((34, 50, 40), "LPS", 2, 194),
    "ct_trunk/totalseg_example_ct_dicom_jpeg2000": ((512, 512, 20), "LPS", -1024, 1839),
    "ct_trunk/elastix_3DCT_lung_baseline_small.mha": ((57, 78, 64), "LPS", -1130, 1379),
}
EXPECTED = {ROOT / name: what for name, what in IMAGES.items()} | {DATA / name: what for name, what in BESIDE.items()}
HERE = {path: what for path, what in EXPECTED.items() if path.exists()}
READABLE = [path for path, what in HERE.items() if not isinstance(what, str)]


def refusal(action, path: Path) -> str:
    with pytest.raises(CourseError) as caught:
        action()
    message = str(caught.value)
    assert message.startswith(str(path)) and "\n" not in message and "; " in message
    return message


def second_reader(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Voxels and RAS affine as ITK has them."""
    if path.is_dir():
        names = SimpleITK.ImageSeriesReader.GetGDCMSeriesFileNames(str(path))
        image = SimpleITK.ReadImage(names, SimpleITK.sitkFloat32)
    else:
        image = SimpleITK.ReadImage(str(path), SimpleITK.sitkFloat32)
    affine = np.eye(4)
    affine[:3, :3] = np.array(image.GetDirection()).reshape(3, 3)[:3, :3] * image.GetSpacing()[:3]
    affine[:3, 3] = image.GetOrigin()[:3]
    return SimpleITK.GetArrayFromImage(image).T, np.diag([-1.0, -1, 1, 1]) @ affine


def test_every_file_of_the_collection_has_an_expectation():
    listed = {path for path in real_oddities() if path.parent != ROOT}
    assert listed <= set(EXPECTED) and (not listed or len(listed) == 62), listed - set(EXPECTED)


def test_each_image_is_read_right_or_refused_with_the_reason():
    for path, what in HERE.items():
        if isinstance(what, str):
            assert what in refusal(lambda path=path: volumes.read_image(path), path), path
            continue
        image = volumes.read_image(path)
        shape, axes, least, most = what
        assert (image.shape, image.orientation) == (shape, axes), path
        assert image.array.min() == pytest.approx(least, rel=1e-3), path
        assert image.array.max() == pytest.approx(most, rel=1e-3), path


def test_each_label_is_read_right_or_refused_with_the_reason():
    for path, what in HERE.items():
        word = (
            what
            if isinstance(what, str)
            else LABELS.get(path.relative_to(DATA / "oddities").as_posix())
            if (path.is_relative_to(ROOT))
            else None
        )
        if word is None and path in READABLE and what[2] >= 0 and what[3] <= 255:
            label = volumes.read_label(path).array
            assert label.dtype == np.uint8 and np.array_equal(label, volumes.read_image(path).array), path
        else:
            assert (word or "label values run") in refusal(lambda path=path: volumes.read_label(path), path), path


@pytest.mark.parametrize("path", READABLE, ids=lambda p: p.name)
def test_a_second_reader_has_the_same_voxels_at_the_same_places(path):
    image = volumes.read_image(path)
    voxels, affine = second_reader(path)
    if voxels.ndim == 4:
        voxels = voxels[..., 0]
    assert np.allclose(image.array[0], voxels, rtol=1e-5, atol=1e-4)
    assert np.abs(image.affine - affine).max() < 1e-4


@pytest.mark.long
def test_the_doctor_names_every_trouble_in_one_line(tmp_path):
    if not HERE:
        return
    written = tmp_path / "report.json"
    words = [sys.executable, "-m", "ssl_utils", "doctor", *map(str, HERE), "--json", str(written)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=300)
    assert done.returncode == 1 and "Traceback" not in done.stdout + done.stderr
    found = read_json(written)
    refused = {path for path, what in HERE.items() if isinstance(what, str)}
    errors = [finding for finding in found["findings"] if finding["severity"] == "error"]
    faults = {Path(finding["file"]) for finding in errors if "same voxels" not in finding["reason"]}
    soft = {ROOT / "sct/mt1_gmseg.nii.gz"} & faults  # named like a label, and refused as one
    assert faults - soft == refused, faults ^ refused
    assert {Path(case["name"]) for case in found["cases"]} == set(READABLE) - soft


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    """A network that looks at any volume as 16x16x16."""
    grid = Grid((5.0, 5.0, 5.0), (16, 16, 16), fit=True)
    dataset = datasets.Dataset(
        name="odd",
        title="",
        source="",
        licence="",
        channels=("image",),
        labels={0: "background", 1: "a"},
        intensity=Intensity("percentile", 1, 99),
        grids={"coarse": grid},
        folders=(),
    )
    network = UNETR(
        in_channels=1,
        out_channels=2,
        img_size=16,
        patch_size=8,
        feature_size=2,
        hidden_size=8,
        mlp_dim=8,
        num_layers=2,
        num_heads=2,
    )
    path = tmp_path_factory.mktemp("model") / "model.safetensors"
    prediction.save_network(path, network, Setup(dataset, scales.get("smoke")), init="random")
    return path


@pytest.mark.long
def test_prediction_and_the_cache_refuse_what_reading_refuses(model, tmp_path):
    grid = Grid((5.0, 5.0, 5.0), (16, 16, 16), fit=True)
    dataset = datasets.Dataset(
        name="odd",
        title="",
        source="",
        licence="",
        channels=("image",),
        labels={},
        folders=(),
        intensity=Intensity("percentile", 1, 99),
        grids={"coarse": grid},
    )
    for number, (path, what) in enumerate(HERE.items()):
        case = datalists.Case(f"c{number}", path, None, f"p{number}")

        def prepared(case=case):
            return cache.prepare([case], dataset=dataset, grid=grid, root=tmp_path / "cache")[0]

        if isinstance(what, str):
            assert what in refusal(prepared, path)
            assert what in refusal(lambda path=path: prediction.predict(model, [path], tmp_path / "out"), path)
        elif 1 in what[0]:  # a single slice is a volume to a reader, and none to a network
            assert "less than a quarter of the ROI" in refusal(prepared, path)
            predicted = lambda path=path: prediction.predict(model, [path], tmp_path / "out")  # noqa: E731
            assert "less than a quarter of the ROI" in refusal(predicted, path)
        else:
            assert prepared().image.shape == (1, 16, 16, 16)
            if np.prod(what[0]) > 5e6:
                continue  # a CT of that size takes a minute, and nothing in it is odd
            (written,) = prediction.predict(model, [path], tmp_path / "out")
            result = nib.load(written)
            nifti = formats.suffix(path) in formats.NIFTI
            assert written.name == (path.name if nifti else f"{formats.stem(path)}.nii.gz")
            assert result.shape == what[0] and np.allclose(result.affine, volumes.read_image(path).affine, atol=1e-3)
            written.unlink()


@pytest.mark.long
def test_an_own_folder_with_an_odd_image_says_so_before_training(tmp_path):
    """Each file as one more image of a healthy folder: described, examined and cached, or refused by name."""
    rng = np.random.default_rng(0)
    for number, (path, what) in enumerate(HERE.items()):
        root = tmp_path / f"own{number}"
        for folder in ("imagesTr", "labelsTr"):
            (root / folder).mkdir(parents=True)
        for name in "abc":
            (root / "imagesTr" / f"{name}.nii").write_bytes(nifti_bytes(rng.normal(9, 2, (20, 20, 20)).astype("f4")))
            (root / "labelsTr" / f"{name}.nii").write_bytes(nifti_bytes(rng.integers(0, 2, (20, 20, 20)).astype("u1")))
        target = root / "imagesTr" / path.name
        shutil.copytree(path, target) if path.is_dir() else shutil.copy(path, target)

        def every_step(root=root):
            for finding in doctor.examine_folder(root):
                if finding.severity == "error" and finding.file.startswith(str(root)):  # others name the case: its size
                    raise CourseError(finding.line())
            dataset = datasets.get("folder", root)
            unlabeled = datasets.datalist(dataset).unlabeled
            assert [case.image.name for case in unlabeled] == [target.name]  # noqa: B023
            grid = Grid((1.0, 1.0, 1.0), (16, 16, 16), fit=True)
            cache.prepare(unlabeled, dataset=dataset, grid=grid, root=root / "cache")

        litter = path.name == "DS_Store_was_dot_DS_Store"  # no volume by name or content: not one of the images
        if litter:
            assert not datasets.datalist(datasets.get("folder", root)).unlabeled
        elif isinstance(what, str) or 1 in what[0]:
            refusal(every_step, root)
        else:
            every_step()
        shutil.rmtree(root)
