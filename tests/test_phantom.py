"""The phantom is a believable trunk, the same from the same seed, and its dataset is whole."""

import json
import os
import subprocess
import sys

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage

from ssl_utils.data.dataset import BTCV_ORGANS
from ssl_utils.data.phantom import writing
from ssl_utils.data.phantom.writing import make_volume, write_dataset
from ssl_utils.errors import CourseError

ORGANS = {value: name for value, name in BTCV_ORGANS.items() if value}

SEEDS = (1, 2, 3, 4, 5)
LITRES = {  # smallest and largest believable volume, ml
    1: (70, 650),
    2: (80, 300),
    3: (80, 300),
    4: (12, 80),
    5: (10, 50),
    6: (850, 2300),
    7: (120, 650),
    8: (40, 160),
    9: (40, 170),
    10: (8, 40),
    11: (35, 130),
    12: (2, 13),
    13: (2, 13),
}


@pytest.fixture(scope="module")
def bellies():
    return {seed: make_volume(seed, kind="abdomen", abnormal=seed == 5, version=1) for seed in SEEDS}


def centre(label, affine, organ):
    return nib.affines.apply_affine(affine, ndimage.center_of_mass(label == organ))


def test_image_label_and_affine_have_the_promised_form(bellies):
    for image, label, affine in bellies.values():
        assert image.dtype == np.int16 and label.dtype == np.uint8 and image.shape == label.shape
        assert image.min() >= -1024 and 300 < image.max() <= 1500
        assert nib.aff2axcodes(affine) == ("R", "A", "S")
        assert np.allclose(nib.affines.voxel_sizes(affine), (3, 3, 4)) and np.all(affine[:3, 3] != 0)
        assert image.shape[2] * 4 == 300
        body = np.ptp(np.nonzero((image > -250).any(axis=(1, 2)))[0])
        assert 260 < image.shape[0] * 3 < 480 and body * 3 > 280


def test_every_organ_is_there_in_one_piece_with_a_believable_volume(bellies):
    for seed, (_, label, _) in bellies.items():
        assert set(np.unique(label)) == {0, *ORGANS}
        for organ, (low, high) in LITRES.items():
            assert low < (label == organ).sum() * 0.036 < high, (seed, ORGANS[organ])
            pieces, _ = ndimage.label(label == organ, np.ones((3, 3, 3)))
            assert pieces.max() == 1, (seed, ORGANS[organ])


def test_left_is_left_and_the_spine_is_behind(bellies):
    for image, label, affine in bellies.values():
        at = {organ: centre(label, affine, organ) for organ in ORGANS}
        middle = affine[0, 3] + 1.5 * image.shape[0]
        for right, left in ((6, 1), (2, 3), (12, 13), (9, 8), (4, 7)):
            assert at[right][0] > at[left][0] + 10
        assert at[2][0] > middle > at[3][0] and at[6][0] > middle > at[1][0]
        bone = ndimage.center_of_mass(
            (image[:, :, :20] > 350) & (abs(np.arange(image.shape[0]) - at_x(at, affine)) < 12)[:, None, None]
        )
        assert affine[1, 3] + 3 * bone[1] < at[8][1] - 15
        assert at[12][2] > at[2][2] and at[13][2] > at[3][2], "adrenals lie above the kidneys"


def at_x(at, affine):
    return (0.5 * (at[8][0] + at[9][0]) - affine[0, 3]) / 3


def test_tissue_has_the_density_of_its_kind(bellies):
    for image, label, _ in bellies.values():
        middle = {organ: np.median(image[label == organ]) for organ in ORGANS}
        assert (
            40 < middle[6] < 130 and 35 < middle[1] < 160 and 15 < middle[2] < 220 and abs(middle[2] - middle[3]) < 25
        )
        assert -5 < middle[4] < 40 and 15 < middle[8] < 340 and -40 < middle[12] < 90
        assert middle[8] >= middle[9] - 15, "blood enters through the aorta"
        assert ((image > -950) & (image < -600)).mean() > 0.03, "the bases of the lungs are in view"
        assert (image < -930).mean() > 0.1 and ((image > -130) & (image < -80)).mean() > 0.05


def test_same_seed_same_voxels_other_seed_other_patient(bellies):
    again = make_volume(1, kind="abdomen", version=1)
    for a, b in zip(bellies[1], again, strict=True):
        assert np.array_equal(a, b)
    assert bellies[1][0].shape != bellies[2][0].shape or not np.array_equal(bellies[1][1], bellies[2][1])


def test_the_voxels_do_not_depend_on_the_number_of_threads():
    """A case in which a matrix product, by the routine for these processors, gave another voxel with two threads."""
    draw = "import hashlib; from ssl_utils.data.phantom import make_volume; image = make_volume(1495516105, "
    draw += "kind='abdomen')[0]; print(hashlib.sha256(image.tobytes()).hexdigest())"
    digests = set()
    for threads in ("1", "2"):
        command, settings = [sys.executable, "-c", draw], {"OMP_NUM_THREADS": threads, "OPENBLAS_CORETYPE": "Haswell"}
        done = subprocess.run(command, env=os.environ | settings, capture_output=True, text=True, check=True)
        digests.add(done.stdout)
    assert len(digests) == 1 and len(digests.pop()) == 65


def test_another_spacing_is_the_same_anatomy():
    fine, coarse = (make_volume(7, kind="abdomen", spacing=s) for s in ((3, 3, 4), (6, 6, 6)))
    assert set(np.unique(coarse[1])) == set(np.unique(fine[1]))
    a, b = ((x[1] == 6).sum() * np.prod(nib.affines.voxel_sizes(x[2])) for x in (fine, coarse))
    assert abs(a / b - 1) < 0.1


def test_the_chest_is_mostly_lung():
    image, label, _ = make_volume(3, kind="chest", abnormal=True, version=1)
    assert ((image > -950) & (image < -500)).mean() > 0.1
    assert (label == 6).any() and (label == 5).any()


@pytest.mark.parametrize(("kind", "finding"), [(k, f) for k, findings in writing.FINDINGS.items() for f in findings])
def test_every_finding_changes_the_image(monkeypatch, kind, finding):
    changed, paint = [], writing.abnormal

    def watched(canvas):
        before = canvas.hu.copy()
        paint(canvas)
        changed.append((np.abs(canvas.hu - before) > 15).sum() * 0.216)

    monkeypatch.setattr(writing, "abnormal", watched)
    monkeypatch.setattr(writing, "FINDINGS", {kind: (finding,) * 2})
    label = make_volume(9, kind=kind, spacing=(6, 6, 6), abnormal=True, version=1)[1]
    if finding == "large spleen":
        assert (label == 1).sum() * 0.216 > 200
    else:
        assert changed[0] > 4, "ml"


@pytest.mark.parametrize(
    "wrong",
    [
        {"kind": "knee"},
        {"kind": "chest", "spacing": (3, 3)},
        {"kind": "chest", "spacing": (0, 3, 3)},
        {"kind": "chest", "version": 3},
    ],
)
def test_unknown_kind_or_spacing_is_refused(wrong):
    with pytest.raises(CourseError):
        make_volume(0, **wrong)


def test_dataset_is_complete_grows_and_heals(tmp_path):
    calls = []
    sizes = {"unlabeled": 1, "training": 1, "validation": 1, "test": 1}
    listing = write_dataset(tmp_path, **sizes, workers=1, progress=lambda *x: calls.append(x))
    content = json.loads(listing.read_text())
    assert calls[0] == (0, 4) and calls[-1] == (4, 4) and content["labels"]["6"] == "liver"
    cases = [case for side in sizes for case in content[side]]
    assert len({case["patient"] for case in cases}) == 4
    for case in cases:
        image = nib.load(tmp_path / case["image"])
        assert image.get_data_dtype() == np.int16 and image.header.get_xyzt_units()[0] == "mm"
        if "label" in case:
            label = nib.load(tmp_path / case["label"])
            assert label.get_data_dtype() == np.uint8 and np.array_equal(label.affine, image.affine)
    assert content["training"][0]["image"] == "imagesTr/phantom_0001.nii.gz" and "label" not in content["unlabeled"][0]

    stamps = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*.nii.gz")}
    first = (tmp_path / "imagesTr/phantom_0001.nii.gz").read_bytes()
    (tmp_path / "imagesTr/phantom_0001.nii.gz").write_bytes(first[:200])
    (tmp_path / content["test"][0]["label"]).unlink()
    calls.clear()
    write_dataset(tmp_path, **{**sizes, "training": 2}, workers=1, progress=lambda *x: calls.append(x))
    assert calls[0] == (2, 5), "one case is new, one file was cut short, one is missing"
    assert (tmp_path / "imagesTr/phantom_0001.nii.gz").read_bytes() == first
    kept = tmp_path / content["unlabeled"][0]["image"]
    assert kept.stat().st_mtime_ns == stamps[kept]
    assert not list(tmp_path.rglob(".tmp-*"))


def test_a_case_does_not_depend_on_the_number_of_cases():
    small = writing.plan(unlabeled=2, training=2, validation=1, test=1, seed=0)
    large = writing.plan(unlabeled=300, training=24, validation=6, test=12, seed=0)
    assert all(large[side][: len(small[side])] == small[side] for side in small)
    kinds = [case["recipe"]["kind"] for case in large["unlabeled"]]
    assert kinds.count("chest") == 150
    assert 15 < sum(case["recipe"]["abnormal"] for case in large["unlabeled"]) < 65
    assert len({case["recipe"]["seed"] for side in large.values() for case in side}) == 342


@pytest.mark.long
def test_processes_write_the_same_dataset(tmp_path):
    sizes = {"unlabeled": 2, "training": 2, "validation": 0, "test": 0}
    write_dataset(tmp_path / "one", **sizes, workers=1)
    write_dataset(tmp_path / "two", **sizes, workers=2)
    files = sorted(p.relative_to(tmp_path / "one") for p in (tmp_path / "one").rglob("*") if p.is_file())
    assert len(files) == 7
    assert all((tmp_path / "one" / f).read_bytes() == (tmp_path / "two" / f).read_bytes() for f in files)
