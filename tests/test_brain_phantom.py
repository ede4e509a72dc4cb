"""The brain phantom: coded as BraTS 2023, equal from a seed, with lesions of every kind, by scanner and patient."""

import time

import numpy as np
import pytest
from scipy import ndimage

from ssl_utils.data import datalists, datasets
from ssl_utils.data.phantom import brain, make_brain, tumours, write_brains
from ssl_utils.data.phantom.brain_set import plan_brains
from ssl_utils.data.phantom.scanning_brains import SEQUENCES, SITES
from ssl_utils.errors import CourseError

COARSE = (3.0, 3.0, 3.0)


@pytest.fixture(scope="module")
def brains():
    return [make_brain(seed, site=list(SITES)[seed % 4], spacing=COARSE) for seed in range(12)]


def test_the_form_is_that_of_a_skull_stripped_case(brains):
    for image, label, affine in brains:
        assert image.dtype == np.int16 and image.shape == (4, *label.shape) and label.dtype == np.uint8
        inside = image[0] > 0
        assert all(np.array_equal(channel > 0, inside) for channel in image) and image.min() == 0
        assert 0.9e6 < inside.sum() * 27 < 1.7e6, "mm3 of a brain"
        assert inside[label > 0].all() and np.allclose(np.diag(affine), (3, 3, 3, 1))
        _, parts = ndimage.label(inside)
        assert parts <= 3 and not inside[0].any() and not inside[:, 0].any() and not inside[..., -1].any()


def test_every_kind_of_tumour_occurs_and_the_rim_is_bright_after_contrast(brains):
    values = [{*np.unique(label).tolist()} for _, label, _ in brains]
    assert {0, 1, 2, 3} in values
    assert any(1 not in found for found in values) and any(3 not in found for found in values)
    assert any(2 not in found for found in values)
    lesions = [ndimage.label(label != 0)[1] for _, label, _ in brains]
    assert 1 in lesions and max(lesions) >= 2
    for image, label, _ in brains:
        tissue = (image[0] > 0) & (label == 0)
        if (rim := label == 3).sum() > 100:
            t1c = SEQUENCES.index("t1c")
            assert np.median(image[t1c][rim]) > 1.1 * np.median(image[t1c][tissue])
        if (water := label == 2).sum() > 100:
            assert np.median(image[3][water]) > 1.1 * np.median(image[3][tissue])


def test_same_seed_same_voxels_and_another_scanner_is_the_same_patient(brains):
    again = make_brain(0, site="north", spacing=COARSE)
    assert all(np.array_equal(a, b) for a, b in zip(brains[0], again, strict=True))
    elsewhere = make_brain(0, site="south", spacing=COARSE)
    assert np.array_equal(elsewhere[1], again[1]) and not np.array_equal(elsewhere[0], again[0])
    assert not np.array_equal(brains[4][1], again[1])


def test_tissue_is_pushed_away_from_a_lesion_and_nothing_is_torn():
    axes = [np.arange(-60, 60, 2, dtype=np.float32).reshape([-1 if a == b else 1 for b in range(3)]) for a in range(3)]
    lesion = tumours.Lesion(np.zeros(3), np.full(3, 16.0), rim=3, oedema=8, push=5.6)
    moved = tumours.pushed(axes, [lesion])
    away = moved[0][30:, 30, 30] - axes[0][30:, 0, 0]
    assert away.min() == pytest.approx(-5.6, abs=0.6) and abs(axes[0][30 + int(away.argmin()), 0, 0] - 16) <= 2
    assert np.all(away[24:] == 0), "not beyond three radii"
    assert np.all(np.diff(moved[0], axis=0) > 0), "no point is passed by another"


def test_a_case_takes_less_than_a_second_of_one_core():
    started = time.process_time()
    make_brain(3, site="east")
    assert time.process_time() - started < 1.5  # alone about .5


@pytest.mark.parametrize(
    ("site", "spacing", "message"), [("moon", COARSE, "site='moon'"), ("east", (1, 1), "spacing=")]
)
def test_bad_requests_are_refused_in_one_line(site, spacing, message):
    with pytest.raises(CourseError, match=message):
        make_brain(0, site=site, spacing=spacing)


def test_the_dataset_is_whole_names_its_scanners_and_is_written_once(tmp_path, monkeypatch):
    monkeypatch.setenv("SSL_DATA_ROOT", str(tmp_path))
    monkeypatch.setattr(brain, "SIZE", (90.0, 100.0, 90.0))
    monkeypatch.setattr(brain, "RADII", (40.0, 44.0, 40.0))
    root = tmp_path / "brain_phantom"
    write_brains(root, unlabeled=1, training=2, validation=0, test=1, workers=1)
    written = {path: path.stat().st_mtime_ns for path in root.rglob("*.nii.gz")}
    assert len(written) == 4 * 4 + 3
    found = datasets.datalist(datasets.get("brain_phantom"))
    assert found.channels == SEQUENCES and found.regions == {"TC": (1, 3), "WT": (1, 2, 3), "ET": (3,)}
    first = found.training[0]
    assert [path.name for path in first.image] == [f"brain_0001-{sequence}.nii.gz" for sequence in SEQUENCES]
    assert (first.id, first.patient, first.site) == ("brain_0001", "patient_0001", "east")
    write_brains(root, unlabeled=1, training=2, validation=1, test=1, workers=1)
    assert all(path.stat().st_mtime_ns == time for path, time in written.items())
    datalists.write(found, tmp_path / "again.json", root=root)
    assert datalists.read(tmp_path / "again.json", root=root).all_cases() == found.all_cases()


def test_scanners_take_turns_and_no_patient_is_twice():
    splits = plan_brains(unlabeled=8, training=8, validation=4, test=4)
    for members in splits.values():
        sites = [case["site"] for case in members]
        assert {site: sites.count(site) for site in sites} == dict.fromkeys(SITES, len(members) // len(SITES))
    patients = [case["patient"] for members in splits.values() for case in members]
    assert len({*patients}) == len(patients)
