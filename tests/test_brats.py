"""BraTS by year: folders, label codings, channels by name, folds; and the rule of intensities for brains."""

import json
from pathlib import Path

import numpy as np
import pytest
from faulty_files import DATA

from ssl_utils.data import cache, datalists, datasets, volumes
from ssl_utils.data.cases import Case
from ssl_utils.data.dataset import PERCENTILES, SKULL_STRIPPED, Grid
from ssl_utils.data.doctor import examine_datalist
from ssl_utils.data.lists import folds, sequences
from ssl_utils.data.transforms import FAINTEST, preprocess, rescale_brain
from ssl_utils.errors import CourseError
from ssl_utils.experiments import pools, prediction, scales
from ssl_utils.experiments.setups import Setup
from ssl_utils.segmentation.inference import to_original

ORDER = ("t1n", "t1c", "t2w", "t2f")
SHARED = DATA / "brain_tumour_4ch"
AFFINE = np.diag([1.0, 1.0, 1.0, 1.0])


@pytest.fixture
def data_root(tmp_path, monkeypatch):
    monkeypatch.setenv("SSL_DATA_ROOT", str(tmp_path))
    return tmp_path


def touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def of_2023(root: Path, site: str, count: int, visits: int = 1) -> None:
    for name in (f"BraTS-{site}-{n:05d}-{visit:03d}" for n in range(count) for visit in range(visits)):
        touch(root, *(f"{site}/{name}/{name}-{kind}.nii.gz" for kind in (*ORDER, "seg")))


def test_the_cohorts_of_2023_are_sites_and_time_points_stay_together(data_root):
    of_2023(data_root / "brats", "GLI", 8, visits=2)
    of_2023(data_root / "brats", "SSA", 6)
    found = datasets.datalist(datasets.get("brats"))
    assert not datalists.leaks(found) and len(found.all_cases()) == 22
    assert {case.site for case in found.training} == {"GLI", "SSA"}
    case = found.training[0]
    assert [path.name.rpartition("-")[2] for path in case.image] == [f"{name}.nii.gz" for name in ORDER]
    assert found.regions == {"TC": (1, 3), "WT": (1, 2, 3), "ET": (3,)}


@pytest.mark.parametrize("name", ["BraTS2021_00002", "BraTS20_Training_002"])
def test_cases_of_2020_and_2021_have_the_coding_with_4(data_root, name):
    for number in range(10):
        case = f"{name}{number}"
        touch(data_root / "brats21", *(f"{case}/{case}_{kind}.nii.gz" for kind in ("flair", "t1", "t1ce", "t2", "seg")))
    found = datasets.datalist(datasets.get("brats21"))
    assert len(found.all_cases()) == 10 and found.regions["ET"] == (4,) and len(found.test) == 2


def test_the_decathlon_has_a_coding_of_its_own():
    known = datasets.get("msd_brain")
    assert known.labels[1] == "edema" and known.regions == {"TC": (2, 3), "WT": (1, 2, 3), "ET": (3,)}
    assert known.intensity == datasets.get("brats").intensity == SKULL_STRIPPED


@pytest.mark.parametrize(("name", "value", "fix"), [("brats", 4, "brats21"), ("brats21", 3, "dataset brats,")])
def test_the_coding_of_another_year_is_refused_by_name(tmp_path, name, value, fix):
    volumes.write_nifti(tmp_path / "seg.nii.gz", np.full((4, 4, 4), value, np.uint8), AFFINE)
    with pytest.raises(CourseError, match=f"label value {value} is not among .*{fix}") as refused:
        volumes.read_label(tmp_path / "seg.nii.gz", values=datasets.get(name).labels)
    assert "\n" not in str(refused.value)


def test_files_are_put_in_the_order_of_the_channels_by_name():
    files = [Path(f"x_{kind}.nii.gz") for kind in ("flair", "t1", "t1ce", "t2")]
    assert sequences.ordered(files, ORDER) == (files[1], files[2], files[3], files[0])
    assert sequences.ordered(files, ("FLAIR", "T1w", "T1gd", "T2w")) == tuple(files)
    plain = [Path("a.nii"), Path("b.nii")]
    assert sequences.ordered(plain, ("t1n", "t2w")) == tuple(plain), "names that say nothing"
    with pytest.raises(CourseError, match="its image has no file of t2f"):
        sequences.ordered(files[1:], ORDER)
    with pytest.raises(CourseError, match="2 files of t1n"):
        sequences.ordered([*files, Path("y_t1.nii")], ORDER)


def test_the_files_of_a_case_are_predicted_together():
    files = [Path(f"BraTS-SSA-0000{n}-000-{kind}.nii.gz") for n in (1, 2) for kind in ("t1c", "t1n", "t2f", "t2w")]
    cases = dict(prediction._cases(files, ORDER))
    assert [*cases] == ["BraTS-SSA-00001-000", "BraTS-SSA-00002-000"]
    assert [sequences.sequence(path) for path in cases["BraTS-SSA-00002-000"]] == list(ORDER)
    with pytest.raises(CourseError, match="no file of t2w"):
        prediction._cases(files[:-1], ORDER)


def test_a_list_of_the_decathlon_with_other_channels_is_refused(data_root):
    entry = {"image": "imagesTr/a.nii.gz", "label": "labelsTr/a.nii.gz"}
    modality = dict(enumerate(("T1w", "FLAIR", "T1gd", "T2w")))
    root = data_root / "Task01_BrainTumour"
    touch(root, *entry.values())
    labels = {"0": "background", "1": "edema", "2": "non-enhancing tumour", "3": "enhancing tumour"}
    (root / "dataset.json").write_text(json.dumps({"modality": modality, "labels": labels, "training": [entry]}))
    with pytest.raises(CourseError, match="names the channels T1w, FLAIR, T1gd, T2w, and msd_brain has FLAIR, T1w"):
        datasets.datalist(datasets.get("msd_brain"))


def test_a_pool_with_the_sequences_in_another_order_is_refused(data_root):
    setup = Setup(datasets.get("brain_phantom"), scales.get("smoke"))
    with pytest.raises(CourseError, match="pool='msd_brain': its channels are FLAIR, T1w, T1gd, T2w, not t1n"):
        pools.pool(setup, "own+msd_brain")


def cases(counts: dict[str, int], visits: int = 1) -> list[Case]:
    each = ((site, n, v) for site, count in counts.items() for n in range(count) for v in range(visits))
    return [
        Case(f"{site}{n}_{v}", Path(f"{site}{n}_{v}.nii"), Path("l.nii"), f"{site}{n}", site) for site, n, v in each
    ]


def test_folds_keep_patients_whole_and_spread_sites():
    members = cases({"a": 10, "b": 5, "extra": 4}, visits=2)
    fold_of = folds.folds_of(members, always=["extra"])
    for case in members:
        assert fold_of[case.id] == fold_of[f"{case.patient}_0"]
        assert (fold_of[case.id] == -1) == (case.site == "extra")
    for site, each in (("a", 2), ("b", 1)):
        numbers = [fold_of[f"{site}{n}_0"] for n in range(5 * each)]
        assert sorted(numbers) == sorted([*range(5)] * each)
    assert folds.folds_of(members, always=["extra"]) == fold_of != folds.folds_of(members, seed=1)
    with pytest.raises(CourseError, match="folds=9: there are 3 patients"):
        folds.folds_of(cases({"a": 3}), folds=9)


def test_a_published_list_of_folds_is_read_and_ours_is_read_again(data_root):
    root, known = data_root / "brats", datasets.get("brats")
    of_2023(root, "SSA", 10)
    entries = []
    for number in range(10):  # as UGRIP lists them: in the order of the folder's listing
        case = f"SSA/BraTS-SSA-{number:05d}-000/BraTS-SSA-{number:05d}-000"
        image = [f"{case}-{kind}.nii.gz" for kind in ("t2w", "t1c", "t2f", "t1n")]
        entries.append({"fold": number % 5 if number < 8 else -1, "image": image, "label": f"{case}-seg.nii.gz"})
    (root / "folds.json").write_text(json.dumps({"training": entries, "fold": 2}))
    found = datasets.datalist(known)
    assert [case.patient for case in found.validation] == ["BraTS-SSA-00002", "BraTS-SSA-00007"]
    assert len(found.training) == 8 and found.labels == known.labels
    assert [path.name.split("-")[-1][:3] for path in found.training[0].image] == list(ORDER)
    fold_of = folds.folds_of(found.training, folds=4)
    folds.write(found, root / "folds.json", root=root, fold_of=fold_of, fold=3)
    again = datasets.datalist(known)
    assert {case.id for case in again.validation} == {name for name, fold in fold_of.items() if fold == 3}
    assert not datalists.leaks(again)
    (root / "folds.json").write_text(json.dumps({"training": entries, "fold": -1}))
    with pytest.raises(CourseError, match="validation would be fold -1"):
        datasets.datalist(known)


def brain(shape=(40, 36, 38), spacing=1.0) -> volumes.Volume:
    rng, at = np.random.default_rng(0), np.indices(shape) - np.reshape([22, 16, 20], (3, 1, 1, 1))
    inside = np.linalg.norm(at, axis=0) < 13
    array = np.stack([inside * rng.normal(mean, mean / 9, shape) for mean in (900, 60)]).astype(np.float32)
    return volumes.Volume(array, np.diag([spacing] * 3 + [1.0]), Path("brain.nii.gz"))


def test_brains_are_scaled_over_the_voxels_that_are_not_zero_in_each_channel():
    image = brain()
    scaled = rescale_brain(image.array, SKULL_STRIPPED)
    assert np.array_equal(scaled > 0, image.array != 0) and scaled[image.array != 0].min() == FAINTEST
    larger = np.pad(image.array, [(0, 0), (30, 0), (0, 9), (5, 5)])
    np.testing.assert_array_equal(
        rescale_brain(larger, SKULL_STRIPPED)[:, 30:, :36, 5:-5], scaled
    )  # whatever the field
    done = preprocess(image, None, grid=Grid((1.0, 1.0, 1.0), (16, 16, 16)), intensity=SKULL_STRIPPED)
    assert done.image.shape == (2, 25, 25, 25), "cropped to the brain"
    mean, std = done.moments()
    inside = ((done.image - mean) / std)[:, done.image[0] > 0]
    np.testing.assert_allclose([inside.mean(1), inside.std(1)], [[0, 0], [1, 1]], atol=1e-4)


def test_a_mask_is_lost_after_scaling():
    """BraTS-UGRIP takes `image > 0` after z-scoring for the brain; it is what is brighter than the mean."""
    done = preprocess(brain(), None, grid=Grid((1.0, 1.0, 1.0), (16, 16, 16)), intensity=SKULL_STRIPPED)
    mean, std = done.moments()
    before, after = done.image[0] > 0, ((done.image - mean) / std)[0] > 0
    assert 0.4 < after[before].mean() < 0.6 and not after[~before].any()


def test_the_grid_is_inverted_and_resampling_adds_no_halo():
    image = brain(spacing=1.5)
    done = preprocess(image, None, grid=Grid((3.0, 3.0, 3.0), (8, 8, 8)), intensity=SKULL_STRIPPED)
    inside = done.image[0] > 0
    assert inside.sum() * 27 == pytest.approx((image.array[0] > 0).sum() * 1.5**3, rel=0.1)
    import torch

    logits = torch.from_numpy(np.where(inside, 9.0, -9.0)[None]).float()
    where = {"affine": done.affine, "target_affine": image.affine, "target_shape": image.shape}
    (back,) = to_original(logits, **where, regions=True)
    true = image.array[0] != 0
    assert back.shape == true.shape and 2 * (back & true).sum() / (back.sum() + true.sum()) > 0.93


def test_the_cache_standardises_each_channel(tmp_path):
    image = brain()
    paths = tuple(tmp_path / f"brain-{kind}.nii.gz" for kind in ("t1n", "t1c"))
    for path, channel in zip(paths, image.array, strict=True):
        volumes.write_nifti(path, channel, image.affine)
    known = datasets.get("brain_phantom")
    known = type(known)(**{**vars(known), "channels": ("t1n", "t1c")})
    (case,) = cache.prepare(
        [Case("brain", paths, None, "p")], dataset=known, grid=Grid((1.0,) * 3, (16,) * 3), root=tmp_path
    )
    inside = case.standardised(case.image)[:, case.image[0] > 0]
    np.testing.assert_allclose([inside.mean(1), inside.std(1)], [[0, 0], [1, 1]], atol=2e-3)


@pytest.mark.skipif(not SHARED.exists(), reason="the real case is not on this machine")
def test_a_real_case_of_four_sequences_is_prepared():
    image = volumes.read_image(SHARED / "imagesTr" / "PGBM-002.nii.gz", channels=4)
    label = volumes.read_label(SHARED / "labelsTr" / "PGBM-002.nii.gz")
    grid = Grid((3.0, 3.0, 6.5), (32, 32, 16))
    done = preprocess(image, label, grid=grid, intensity=SKULL_STRIPPED)
    assert done.image.shape[0] == 4 and done.label.any() and done.image.max() == 1
    mean, std = done.moments()
    assert mean.shape == std.shape == (4, 1, 1, 1) and (std > 0.05).all()


def test_the_doctor_judges_a_brain_by_its_own_rule(tmp_path):
    image = brain()
    sparse = np.pad(image.array[0], 60)  # 98 of 100 voxels are background
    volumes.write_nifti(tmp_path / "a.nii.gz", sparse, image.affine)
    listed = datalists.Datalist("one", training=(Case("a", tmp_path / "a.nii.gz", None, "a"),))
    by_rule = {rule.kind: [*examine_datalist(listed, roi=None, rule=rule)] for rule in (SKULL_STRIPPED, PERCENTILES)}
    said = {kind: [one for one in report if "0 or 1" in one.reason] for kind, report in by_rule.items()}
    assert not said["nonzero"] and said["percentile"]
