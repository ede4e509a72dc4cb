"""OpenKBP: tables in the format of its repository become volumes, and no trap of the source is left in them."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from faulty_files import DATA

from ssl_utils.data import openkbp, volumes
from ssl_utils.errors import CourseError

SPACING = (4.0, 4.0, 2.5)  # right, anterior, superior
SCAN = slice(30, 90)  # the slices of the scan, from below


def write_patient(folder: Path, image: np.ndarray, contours: dict[str, np.ndarray], spacing=SPACING) -> Path:
    """The tables of a patient whose image (128, 128, 128) in HU and contours are in RAS."""

    def table(name: str, *columns) -> None:
        rows = [",".join(map(str, row)) for row in zip(*columns, strict=True)]
        (folder / f"{name}.csv").write_text("\n".join([",data", *rows, ""]))

    def flat(array: np.ndarray) -> np.ndarray:
        return array[::-1, ::-1, ::-1].transpose(1, 0, 2).ravel()

    folder.mkdir(parents=True, exist_ok=True)
    ct = flat(image).astype(float) + 1000
    inside = np.flatnonzero(ct)
    table("ct", inside, ct[inside])
    for name, mask in contours.items():
        indices = np.flatnonzero(flat(mask))
        table(name, indices, [""] * len(indices))
    (folder / "voxel_dimensions.csv").write_text("".join(f"{spacing[axis]:.18e}\n" for axis in (1, 0, 2)))
    return folder


def box(x: slice, y: slice, z: slice) -> np.ndarray:
    mask = np.zeros(openkbp.GRID, bool)
    mask[x, y, z] = True
    return mask


def head() -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """A cylinder with five organs, scanned from slice 30 to 89."""
    x, y, _ = np.indices(openkbp.GRID)
    body = ((x - 64) ** 2 + (y - 64) ** 2 < 22**2) & box(slice(None), slice(None), SCAN)
    noise = np.random.default_rng(0).integers(-20, 20, openkbp.GRID)
    contours = {
        "Brainstem": box(slice(60, 68), slice(55, 62), slice(75, 90)),
        "SpinalCord": box(slice(62, 66), slice(56, 60), slice(30, 75)),
        "RightParotid": box(slice(75, 80), slice(60, 66), slice(60, 75)),
        "LeftParotid": box(slice(48, 53), slice(60, 66), slice(60, 75)),
        "Mandible": box(slice(55, 73), slice(76, 80), slice(55, 62)),
    }
    return np.where(body, 40 + noise, openkbp.AIR).astype(np.int16), contours


def read(folder: Path, image: np.ndarray, contours: dict[str, np.ndarray]):
    return openkbp.read_patient(write_patient(folder, image, contours))


def test_values_axes_and_spacing_are_those_of_the_source(tmp_path):
    """Behind the left side, above the middle of the scan: a later row, a later column and an earlier slice."""
    image, contours = head()
    write_patient(tmp_path, image, contours, spacing=(4.0, 3.5, 2.5))
    table = tmp_path / "ct.csv"
    index = np.ravel_multi_index((75, 70, 50), openkbp.GRID)  # posterior, left, inferior
    rows = [row for row in table.read_text().splitlines() if not row.startswith(f"{index},")]
    table.write_text("\n".join([*rows, f"{index},2500.0", f"{index + 1},-24.0"]))
    found, label, spacing = openkbp.read_patient(tmp_path)
    assert found.dtype == np.int16 and label.dtype == np.uint8 and spacing.tolist() == [4.0, 3.5, 2.5]
    assert found.shape == label.shape == (47, 47, 60), "the body with a margin of two voxels"
    x, y, z = np.argwhere(found == 1500)[0] - (np.array(found.shape) - 1) / 2
    assert (x, y, z) == (127 - 70 - 64, 127 - 75 - 64, 127 - 50 - 59.5), "left and behind are negative"
    assert found.min() == openkbp.AIR, "nothing is darker than the air outside"
    right, left = (np.argwhere(label == value)[:, 0].mean() for value in (3, 4))
    assert right > left
    assert found[1].max() == openkbp.AIR < found[2].max()


def test_a_label_does_not_show_beyond_the_scan(tmp_path):
    image, contours = head()
    contours["Brainstem"] |= box(slice(60, 68), slice(55, 62), slice(90, 100))
    contours["Esophagus"] = box(slice(50, 76), slice(50, 76), slice(20, 30))  # a silhouette of more than 400 voxels
    image[(contours["Brainstem"] | contours["Esophagus"]) & (image == openkbp.AIR)] = 30
    found, label, _ = read(tmp_path, image, contours)
    assert found.shape[2] == label.shape[2] == 60
    assert (label == 1).sum() == 8 * 7 * 15


def test_of_two_parts_of_a_scan_the_longer_one_is_kept(tmp_path):
    image, contours = head()
    image[..., 40:43] = openkbp.AIR
    found, label, _ = read(tmp_path, image, contours)
    assert found.shape[2] == 47 and (label[..., 0] == 2).any()


@pytest.mark.parametrize("missing", openkbp.ORGANS)
def test_a_patient_without_one_of_the_contours_has_no_label(tmp_path, missing):
    image, contours = head()
    del contours[missing]
    found, label, _ = read(tmp_path, image, contours)
    assert label is None and found.shape[2] == 60


def test_a_contour_outside_of_the_scan_is_missing_too(tmp_path):
    image, contours = head()
    contours["Mandible"] = box(slice(55, 73), slice(76, 80), slice(92, 99))
    assert read(tmp_path, image, contours)[1] is None


def test_a_labelled_volume_ends_where_the_cord_does(tmp_path):
    image, contours = head()
    contours["SpinalCord"][..., :50] = False
    found, label, _ = read(tmp_path, image, contours)
    assert found.shape == label.shape and found.shape[2] == 40
    assert (label == 2).any((0, 1))[:25].all()


def test_a_cord_of_impossible_size_is_not_trusted(tmp_path):
    image, contours = head()
    contours["SpinalCord"] = box(slice(56, 72), slice(50, 64), slice(30, 75))  # 403 ml
    assert read(tmp_path, image, contours)[1] is None


def test_an_organ_in_the_air_is_not_trusted(tmp_path):
    """Slices where the CT shows the skin, but within it nothing except a contour."""
    image, contours = head()
    x, y, _ = np.indices(openkbp.GRID)
    inside = ((x - 64) ** 2 + (y - 64) ** 2 < 18**2) & box(slice(None), slice(None), slice(30, 40))
    image[inside & ~contours["SpinalCord"]] = openkbp.AIR
    found, label, _ = read(tmp_path, image, contours)
    assert label is None and found.shape[2] == 60


def test_where_contours_overlap_the_lower_number_wins(tmp_path):
    image, contours = head()
    contours["SpinalCord"] |= box(slice(62, 66), slice(56, 60), slice(75, 80))  # in the brainstem
    contours["Larynx"] = contours["Mandible"].copy()  # not one of the five
    _, label, _ = read(tmp_path, image, contours)
    assert (label == 1).sum() == contours["Brainstem"].sum() and (label == 5).sum() == contours["Mandible"].sum()


def test_a_scan_of_a_few_slices_is_left_out(tmp_path):
    image, contours = head()
    image[..., 41:] = openkbp.AIR
    assert read(tmp_path, image, contours) is None


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("ct.csv", None, "is missing or damaged"),
        ("ct.csv", "", "is missing or damaged"),
        ("ct.csv", ",data\n5,x\n", "is missing or damaged"),
        ("ct.csv", ",data\n5\n", "a row without its number"),
        ("ct.csv", ",data\n5,1000.0\n6,", "a row without its number"),
        ("ct.csv", ",data\n2097152,1000.0\n", "has 2097152 to 2097152, not 0 to 2097151"),
        ("ct.csv", ",data\n5,1e9\n", "not -32768 to 32767"),
        ("Mandible.csv", ",data\n-1,\n", "has -1 to -1"),
        ("voxel_dimensions.csv", "4.0\n4.0\n", "instead of three voxel sizes"),
        ("voxel_dimensions.csv", "4.0\n4.0\n0.0\n", "instead of three voxel sizes"),
    ],
)
def test_a_damaged_table_is_one_line(tmp_path, name, content, said):
    write_patient(tmp_path, *head())
    (tmp_path / name).unlink() if content is None else (tmp_path / name).write_text(content)
    with pytest.raises(CourseError, match=said) as caught:
        openkbp.read_patient(tmp_path)
    assert str(caught.value).startswith(str(tmp_path / name)) and "; delete" in str(caught.value)


@pytest.fixture
def repository(tmp_path, monkeypatch) -> Path:
    """Three patients: labelled, unlabelled, and one whose scan is too short."""
    monkeypatch.setattr(openkbp, "PATIENTS", 3)
    image, contours = head()
    source = tmp_path / "source"
    write_patient(source / "provided-data/train-pats/pt_7", image, contours)
    write_patient(source / "provided-data/validation-pats/pt_201", image, {})
    write_patient(source / "provided-data/test-pats/pt_300", np.where(np.arange(128) < 35, image, openkbp.AIR), {})
    return source


def test_patients_go_to_their_folders(repository, tmp_path):
    counted = []
    target = openkbp.convert(repository, tmp_path / "target", lambda done, total: counted.append((done, total)))
    written = sorted(path.relative_to(target).as_posix() for path in target.rglob("*") if path.is_file())
    assert written == [f"{end}/openkbp_{n}.nii.gz" for end, n in (("imagesTr", "007"), ("imagesUn", "201"))] + [
        "labelsTr/openkbp_007.nii.gz"
    ]
    image, label = (volumes.read_image(target / f"{kind}Tr/openkbp_007.nii.gz") for kind in ("images", "labels"))
    volumes.check_pair(image, label)
    assert image.orientation == "RAS" and image.spacing == SPACING and image.stored == "int16"
    assert counted == [(0, 3), (1, 3), (2, 3)]


def test_a_killed_conversion_continues(repository, tmp_path):
    def kill(done, total):
        if done == 1:
            raise KeyboardInterrupt

    target = tmp_path / "target"
    with pytest.raises(KeyboardInterrupt):
        openkbp.convert(repository, target, kill)
    first = target / "imagesTr/openkbp_007.nii.gz"
    before = first.stat().st_mtime_ns
    openkbp.convert(repository, target)
    assert first.stat().st_mtime_ns == before and (target / "imagesUn/openkbp_201.nii.gz").exists()
    assert not [path for path in target.rglob(".tmp-*")]


def test_a_repository_without_all_patients_is_refused(repository, tmp_path):
    (repository / "provided-data/test-pats/pt_300").rename(tmp_path / "elsewhere")
    with pytest.raises(CourseError, match=r"has 2 folders provided-data/\*-pats/pt_\*, not 3; delete"):
        openkbp.convert(repository, tmp_path / "target")


REAL = ("imagesTr/openkbp_002", "imagesTr/openkbp_254", "imagesTr/openkbp_257", "imagesUn/openkbp_151")


@pytest.mark.skipif(not (DATA / "headneck").is_dir(), reason="needs the converted patients")
@pytest.mark.parametrize("name", REAL)
def test_a_real_patient_comes_back_voxel_for_voxel(tmp_path, name):
    path = DATA / "headneck" / f"{name}.nii.gz"
    stored = nib.load(path)
    image, labelled = np.asarray(stored.dataobj), "Tr" in name
    label = np.asarray(nib.load(str(path).replace("images", "labels")).dataobj) if labelled else np.zeros_like(image)
    # A volume with less than the margin on one side lay at the edge of the grid.
    rims = [(image[:2] > openkbp.TISSUE).any(), (image[:, :2] > openkbp.TISSUE).any(), True]
    free = [size - n for size, n in zip(openkbp.GRID, image.shape, strict=True)]
    corner = [0 if rim else room for rim, room in zip(rims, free, strict=True)]
    place = tuple(slice(c, c + n) for c, n in zip(corner, image.shape, strict=True))
    whole, drawn = np.full(openkbp.GRID, openkbp.AIR, np.int16), np.zeros(openkbp.GRID, np.uint8)
    whole[place], drawn[place] = image, label
    contours = {organ: drawn == value for value, organ in enumerate(openkbp.ORGANS, 1)} if labelled else {}
    write_patient(tmp_path, whole, contours, spacing=stored.header.get_zooms())
    found, found_label, spacing = openkbp.read_patient(tmp_path)
    assert (found_label is not None) == labelled
    assert np.array_equal(found, image) and (not labelled or np.array_equal(found_label, label))
    assert np.allclose(spacing, stored.header.get_zooms())
