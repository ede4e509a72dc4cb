"""The grid of an own folder: fine enough for its structures, no larger than a scale affords, flat for short stacks."""

import json
import math
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

from ssl_utils import experiments
from ssl_utils.data import datasets, doctor, own_grid, round_trip, volumes
from ssl_utils.data.dataset import FILLED, Grid, Intensity
from ssl_utils.data.registry import recorded
from ssl_utils.data.transforms import preprocess
from ssl_utils.errors import CourseError
from ssl_utils.experiments import Finetuning, Pretraining, Setup, prediction, scales, setups
from ssl_utils.networks import build, network_class
from ssl_utils.networks.interface import strides
from ssl_utils.segmentation import inference, metrics

SEVEN = Path(__file__).resolve().parents[2] / "shared" / "data" / "user_cases" / "seven_slices" / "data"
CINE = Grid((1.5, 1.5, 8.0), (32, 32, 8), patch_size=(8, 8, 2))


def ball(shape: tuple[int, ...], spacing: tuple[float, ...], radius: float) -> np.ndarray:
    """A ball in mm, off the centre, as uint8 (D, H, W)."""
    places = np.indices(shape).reshape(3, -1).T * spacing
    centre = np.multiply(shape, spacing) * 0.45 + 0.3
    return (np.linalg.norm(places - centre, axis=1) < radius).reshape(shape).astype(np.uint8)


def folder(root: Path, shape, voxel, radius: float, count: int = 6, **content) -> Path:
    """A folder of balls in noise, in voxels of this size; with a dataset.json where `content` is given."""
    entries = []
    for number in range(count):
        rng, label = np.random.default_rng(number), ball(shape, voxel, radius)
        affine = np.diag([*voxel, 1.0])
        names = [f"imagesTr/c{number}.nii.gz", f"labelsTr/c{number}.nii.gz"]
        volumes.write_nifti(root / names[0], (200 * label + rng.normal(100, 9, shape)).astype(np.int16), affine)
        volumes.write_nifti(root / names[1], label, affine)
        entries.append(dict(zip(("image", "label"), names, strict=True)))
    if content:
        text = {"labels": {"1": "ball"}, "training": entries} | content
        (root / "dataset.json").write_text(json.dumps(text))
    return root


# ---- the round trip


@pytest.mark.parametrize("spacing", [(1, 1, 2.5), (2.3, 2.3, 2.5), (4, 3, 5)])
def test_the_round_trip_is_that_of_preprocessing_and_prediction(tmp_path, spacing):
    label = ball((40, 36, 20), (1, 1, 2.5), 11)
    affine = np.diag([-1, 1, 2.5, 1.0])  # the first axis runs to the left
    volumes.write_nifti(tmp_path / "label.nii.gz", label, affine)
    file = volumes.read_label(tmp_path / "label.nii.gz")
    image = replace(file, array=file.array + np.float32(1))  # nothing of it is cropped as air
    box = preprocess(image, file, grid=Grid(spacing, (1, 1, 1)), intensity=Intensity("window", 0, 2))
    sure = torch.from_numpy(np.stack([box.label == 0, box.label == 1])).float() * 20 - 10
    there = {"affine": box.affine, "target_affine": file.affine, "target_shape": file.shape}
    expected = metrics.dice(inference.to_original(sure, **there, regions=False) == 1, label == 1)
    parts = round_trip.parts([tmp_path / "label.nii.gz"], {"ball": (1,)})
    assert round_trip.dices(parts, spacing)["ball"] == pytest.approx(expected, abs=0.01)


def test_the_smallest_structure_comes_first_and_unreadable_labels_are_left_out(tmp_path):
    label = ball((30, 30, 30), (1, 1, 1), 10)
    label[2:4, 2:4, 2:4] = 2
    volumes.write_nifti(tmp_path / "a.nii.gz", label, np.eye(4))
    (tmp_path / "b.nii.gz").write_text("no volume")
    paths = [tmp_path / "a.nii.gz", tmp_path / "b.nii.gz"]
    parts = round_trip.parts(paths, round_trip.structures({0: "background", 1: "large", 2: "small", 3: "absent"}, None))
    assert list(parts) == ["small", "large"] and parts["small"][0].mask.shape == (2, 2, 2)
    assert round_trip.dices(parts, (1, 1, 1)) == {"small": 1, "large": 1}
    assert not round_trip.survive(parts, (5, 5, 5), 0.5) and round_trip.dices(parts, (5, 5, 5))["large"] > 0.5
    united = round_trip.parts(paths[:1], round_trip.structures({}, {"all": (1, 2)}))
    assert united["all"][0].mask.sum() == (label > 0).sum()


def test_without_a_structure_nothing_survives():
    assert not round_trip.survive({}, (1, 1, 1), 0.5) and not round_trip.crops({})


@pytest.mark.parametrize("count", [1, 4, 5, 9, 24])
def test_labels_are_read_evenly_spread(monkeypatch, count):
    read = []
    monkeypatch.setattr(volumes, "read_label", lambda path: read.append(path) or cut_off())
    assert round_trip.parts([*range(count)], {"ball": (1,)}) == {} and len(read) == min(count, round_trip.CASES)
    steps = np.diff([*read, count])
    assert read[0] == 0 and steps.max() - steps.min() <= 1


def cut_off():
    raise CourseError("a.nii: is truncated; copy it again")


# ---- the choice


def test_small_structures_get_a_finer_grid_and_more_windows(tmp_path):
    shape, spacing = (96, 96, 60), (2.0, 2.0, 2.5)
    coarse, widths = {}, np.multiply(shape, spacing)
    for radius in (60, 12):
        root = folder(tmp_path / str(radius) / "data", shape, spacing, radius, count=4)
        dataset = datasets.get("folder", root, cache=tmp_path / f"{radius}.json")
        coarse[radius] = grid = dataset.grids["coarse"]
        parts = round_trip.parts(sorted((root / "labelsTr").iterdir()), {"ball": (1,)})
        assert round_trip.dices(parts, grid.spacing)["ball"] >= own_grid.LEAST
        assert math.prod(grid.roi) <= own_grid.BUDGETS["coarse"].voxels
        assert own_grid.windows(widths, grid) <= own_grid.MOST
    assert max(coarse[12].spacing) < min(coarse[60].spacing)
    assert own_grid.windows(widths, coarse[12]) > own_grid.windows(widths, coarse[60])


def test_what_the_budget_does_not_allow_is_named_by_the_doctor(tmp_path):
    root = folder(tmp_path / "data", (160, 160, 100), (1.5, 1.5, 2.0), 3.5, count=3, modality={"0": "MRI"})
    setup = Setup(datasets.get("folder", root, cache=tmp_path / "spacings.json"), scales.get("laptop"))
    assert own_grid.MOST / 4 < own_grid.windows((240, 240, 200), setup.grid) <= own_grid.MOST
    (finding,), line = doctor.on_grid(setup.datalist, setup.grid, patch_size=setup.patch_size, scale="laptop")
    assert finding.severity == "warning" and finding.reason.startswith("ball keeps a Dice of 0.")
    assert "(ball)" in line and "patches of 8x8x8" in line and "windows" in line
    findings, line = doctor.on_grid(setup.datalist, setup.dataset.grids["fine"], patch_size=(16,) * 3, scale="paper")
    assert findings == [] and "Dice 1.00 (ball)" in line


def test_without_labels_the_extents_decide(tmp_path):
    root = folder(tmp_path / "data", (96, 96, 60), (2.0, 2.0, 2.5), 12, count=3)
    for path in (root / "labelsTr").iterdir():
        path.unlink()
    dataset = datasets.get("folder", root, cache=tmp_path / "spacings.json")
    assert not (tmp_path / "spacings.json").exists()
    assert 1 < own_grid.windows((192, 192, 150), dataset.grids["coarse"]) <= own_grid.MOST


def test_no_volume_is_less_than_a_quarter_of_the_roi():
    rng = np.random.default_rng(0)
    for _ in range(30):
        extents, native = rng.uniform(30, 400, (5, 3)), rng.uniform(0.6, 5, 3)
        for kind, grid in own_grid.choose(extents, native, {}).items():
            patch = grid.patch_size or (own_grid.BUDGETS[kind].patch,) * 3
            assert all(r % p == 0 for r, p in zip(grid.roi, patch, strict=True))
            assert (np.maximum(np.rint(extents / grid.spacing), 1) >= FILLED * np.array(grid.roi) - 0.5).all()
            assert math.prod(grid.roi) <= own_grid.BUDGETS[kind].voxels
            assert math.prod(r // p for r, p in zip(grid.roi, patch, strict=True)) <= own_grid.TOKENS


@pytest.mark.parametrize(("slices", "side"), [(5, 2), (7, 2), (8, 4), (15, 4), (16, 8)])
def test_two_patches_fit_into_a_short_stack(slices, side):
    extents = np.array([[180.0, 180.0, 8.0 * slices]])
    grid = own_grid.choose(extents, np.array([1.4, 1.4, 8.0]), {})["coarse"]
    assert (grid.patch_size or (8, 8, 8)) == (8, 8, side) and 2 * side <= grid.roi[2] < slices + side


def test_budgets_are_those_of_the_scales_and_of_the_named_datasets():
    patches = {(scale.grid, scale.patch_size) for scale in scales.SCALES.values()}
    assert patches == {(kind, budget.patch) for kind, budget in own_grid.BUDGETS.items()}
    for kind, budget in own_grid.BUDGETS.items():
        assert budget.voxels == max(math.prod(dataset.grids[kind].roi) for dataset in recorded.DATASETS)


def test_the_coarsest_readable_spacing_is_taken_that_labels_survive():
    extents, native, tried = np.array([[445.0, 267.0, 178.0]]), np.array([3.906, 3.906, 2.5]), []

    def survive(spacing) -> bool:
        tried.append(spacing)
        return max(spacing) < 4.3

    grid = own_grid.choose(extents, native, {}, survive)["coarse"]
    assert tried == [(size,) * 3 for size in (8, 6, 5, 4)] and grid.spacing == (4, 4, 4)
    grid = own_grid.choose(extents, native, {}, lambda _: False)["coarse"]  # none will do: a third is shown
    finer = own_grid.choose(extents, native, {"spacing": (4.0,) * 3})["coarse"]
    shown = [np.prod(np.multiply(g.roi, g.spacing) / extents[0]) for g in (finer, grid)]
    assert grid.spacing == (5, 5, 5) and shown[0] < own_grid.SHOWN <= shown[1]


def test_a_crop_covers_much_of_the_volume_with_sides_alike():
    body, limb = np.array([[445.0, 267.0, 178.0]]), np.array([[120.0, 120.0, 900.0]])
    given = {"spacing": (4.0, 4.0, 4.0)}
    assert own_grid.choose(body, np.ones(3), given)["coarse"].roi == (48, 48, 32)
    assert own_grid.choose(limb, np.ones(3), given)["coarse"].roi == (32, 32, 72), "cut along one axis alone"


def test_a_volume_that_one_crop_holds_is_not_cut():
    extents = np.array([[35.0, 50.0, 35.0]])
    assert own_grid.choose(extents, np.ones(3), {}, lambda _: True)["coarse"] == Grid((1.2, 1.2, 1.2), (32, 48, 32))


@pytest.mark.parametrize(("around", "factors"), [(True, (1, 1.4, 2)), (False, (1, 1, 1)), (False, (1, 1.4, 2))])
def test_crops_around_a_structure_are_resampled_to_the_roi(tmp_path, around, factors):
    """In the first and the last the volumes differ in size; in the last alone the structure does not."""
    for number, factor in enumerate(factors * 2):
        shape = tuple(int(side * factor) for side in (24, 28, 20))
        label = ball(shape, (2.0, 2.0, 2.0), 14 * (factor if around else 1))
        for name, array in (("images", 90 * label), ("labels", label)):
            volumes.write_nifti(tmp_path / f"data/{name}Tr/c{number}.nii.gz", array, np.diag([2.0, 2, 2, 1]))
    dataset = datasets.get("folder", tmp_path / "data", cache=tmp_path / "spacings.json")
    assert dataset.grids["coarse"].fit == around
    chosen = own_grid.parsed({"spacing": 2})
    assert not datasets.get("folder", tmp_path / "data", chosen=chosen, cache=tmp_path / "x.json").grids["coarse"].fit


def test_volumes_differ_by_all_headers_and_not_by_the_few_labels_that_are_read():
    sides = [20, 22, 24, 26, 28]
    of_labels = [round_trip.Part(np.ones((n // 2,) * 3, bool), (n // 4,) * 3, (2.0,) * 3, (n,) * 3) for n in sides]
    assert round_trip.crops({"tumour": of_labels})
    assert round_trip.crops({"tumour": of_labels, "of one label": of_labels[:1]})
    assert not round_trip.crops({"of one label": of_labels[:1]})
    extents = np.array([[2.0 * n] * 3 for n in (*sides, 12, 14, 40, 44)])
    assert round_trip.differ(extents) and not round_trip.differ(extents[: len(sides)])


def test_labels_are_measured_once(tmp_path, monkeypatch):
    root, cache = folder(tmp_path / "data", (48, 48, 48), (2.0, 2.0, 2.0), 9, count=3), tmp_path / "spacings.json"
    first = datasets.get("folder", root, cache=cache).grids
    monkeypatch.setattr(round_trip, "parts", lambda *_: pytest.fail("labels were read again"))
    assert datasets.get("folder", root, cache=cache).grids == first
    monkeypatch.undo()
    cache.write_text("[damaged")
    assert datasets.get("folder", root, cache=cache).grids == first
    (root / "labelsTr/c1.nii.gz").touch()
    before = cache.read_text()
    assert datasets.get("folder", root, cache=cache).grids == first and cache.read_text() != before


# ---- a person's own choice


def test_the_list_and_the_command_line_choose(tmp_path):
    root = folder(tmp_path / "data", (40, 40, 12), (1.5, 1.5, 4.0), 14, spacing=[2, 2, 4], roi=[16, 24, 12])
    grid = datasets.get("folder", root, cache=tmp_path / "spacings.json").grids["coarse"]
    assert grid == Grid((2.0, 2.0, 4.0), (16, 24, 12), patch_size=(8, 8, 4))
    assert not (tmp_path / "spacings.json").exists(), "no label is read for a spacing that is given"
    chosen = own_grid.parsed({"spacing": "3", "roi": None, "patch_size": "4,4,2"})
    assert chosen == {"spacing": (3, 3, 3), "patch_size": (4, 4, 2)}
    grid = datasets.get("folder", root, chosen=chosen).grids["coarse"]
    assert grid == Grid((3.0, 3.0, 3.0), (16, 24, 12), patch_size=(4, 4, 2)), "the list's ROI, the others given"
    named = datasets.get("sarcoma", chosen=own_grid.parsed({"spacing": 4, "roi": [40, 40, 32]})).grids["coarse"]
    assert named == Grid((4.0, 4.0, 4.0), (40, 40, 32)), "crops in place of the whole field of view"


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"spacing": "1,2"}, "spacing='1,2': is not millimetres"),
        ({"spacing": [1, 2, 0]}, "is not millimetres"),
        ({"spacing": "nan"}, "is not millimetres"),
        ({"spacing": "1e9,1,1"}, "is not millimetres from 0.01 to 100"),
        ({"roi": "1000000000,8,8"}, "is not whole voxels up to 1024"),
        ({"roi": "64,64,7.5"}, "is not whole voxels up to 1024 along three axes; write it as 64,64,8"),
        ({"roi": {"x": 8}}, "is not whole voxels"),
        ({"patch_size": [8, 8, 3]}, "is not 1, 2, 4, 8, 16 or 32 voxels"),
    ],
)
def test_an_impossible_choice_is_one_line(values, reason):
    with pytest.raises(CourseError, match=r"^list\.json: ") as error:
        own_grid.parsed(values, "list.json: ")
    assert reason in str(error.value) and "\n" not in str(error.value)


def test_a_roi_must_be_a_multiple_of_the_patch(blobs):
    with pytest.raises(CourseError, match="roi=24,24,12: is not a multiple of patch_size=8,8,8; change one"):
        datasets.get("folder", blobs, chosen={"roi": (24, 24, 12), "patch_size": (8, 8, 8)})


def test_a_choice_is_recorded_and_another_one_refused_once_there_are_runs(blobs, tmp_path, monkeypatch):
    monkeypatch.setenv("SSL_RUNS_ROOT", str(tmp_path))
    where = {"dataset": "folder", "scale": scales.get("smoke"), "data": str(blobs)}
    usual = setups.setup(**where)
    looked = setups.unchecked(**where, roi="16")
    assert looked.grid.roi == (16, 16, 16) and setups.setup(**where) == usual, "a look records nothing"
    first = setups.setup(**where, roi="16,16,8", patch_size="8,8,4")
    assert first.patch_size == (8, 8, 4) and first.settings([])["patch_size"] == (8, 8, 4)
    assert setups.setup(**where) == first and first.digest([]) != usual.digest([])
    second = setups.setup(**where, patch_size="8,8,2")
    assert second.grid.roi == (16, 16, 8) and second.patch_size == (8, 8, 2) == setups.setup(**where).patch_size
    (usual.folder / "finetune").mkdir()
    setups.setup(**where, roi="16,16,8", patch_size=[8, 8, 2])
    with pytest.raises(CourseError, match="has runs on another grid; leave --spacing, --roi and"):
        setups.setup(**where, roi="16")


# ---- patches per axis


def test_thick_slices_are_halved_last():
    assert strides((8, 8, 2)) == [(2, 2, 1), (2, 2, 1), (2, 2, 2)] and strides(4) == [(2, 2, 2)] * 2
    assert strides((1, 2, 1)) == [(1, 2, 1)]
    for odd in (1, 6, (8, 8, 0), (8, 8, 3)):
        with pytest.raises(CourseError, match="size"):
            strides(odd)


@pytest.mark.parametrize("name", ["unetr", "unet"])
@pytest.mark.parametrize("patch", [(8, 8, 2), (4, 8, 1)])
def test_a_network_takes_a_patch_per_axis(name, patch):
    scale = {"hidden_size": 12, "mlp_dim": 24, "num_layers": 3, "num_heads": 2, "feature_size": 4, "patch_size": patch}
    scale |= {"image_skips": True}
    roi, kind = tuple(2 * side for side in patch), network_class(name)
    network = kind(in_channels=1, out_channels=3, img_size=roi, **kind.sizes(scale)).eval()
    images = torch.randn(2, 1, *roi, requires_grad=True)
    levels = network.features(images)
    sizes = [tuple(level.shape[2:]) for level in levels]
    assert network.encoder.patch_size == patch and network.encoder.grid == sizes[0] == (2, 2, 2) and sizes[-1] == roi
    steps = [tuple(b // a for a, b in zip(*pair, strict=True)) for pair in pairwise(sizes)]
    assert steps == strides(patch)[::-1]
    network.train()(images).square().mean().backward()
    assert [name for name, weight in network.named_parameters() if weight.grad is None] == []
    twin = build(json.loads(json.dumps(network.config))).eval()
    assert not any(twin.load_state_dict(network.state_dict()))
    assert torch.equal(twin(images), network.eval()(images))


def test_other_networks_refuse_a_flat_patch(tiny_setup):
    flat = Setup(replace(tiny_setup.dataset, grids={"coarse": CINE}), tiny_setup.scale)
    with pytest.raises(
        CourseError, match="'mednext': cannot take patches of 8x8x2 voxels; choose network=unetr or unet"
    ):
        experiments.build_network(flat, Finetuning(network="mednext"))


# ---- a short stack from the folder to the prediction


@pytest.fixture
def cine(tmp_path, monkeypatch, tiny_setup) -> Setup:
    """Seven slices of 8 mm, as cardiac cine has them."""
    monkeypatch.setenv("SSL_RUNS_ROOT", str(tmp_path / "runs"))
    root = folder(tmp_path / "data", (32, 32, 7), (1.5, 1.5, 8.0), 16)
    return setups.setup(dataset="folder", scale=tiny_setup.scale, data=str(root))


def test_seven_slices_go_through_pretraining_finetuning_and_prediction(cine, tmp_path):
    assert cine.grid == CINE
    for task in ("restoration", "simmim", "mae", "voxel_clusters"):
        pretrained = experiments.pretrain(cine, Pretraining(task=task, steps=2))
        assert (pretrained / "encoder.safetensors").exists()
    done = experiments.finetune(cine, Finetuning(init="simmim__steps=2", num_labeled=2))
    assert json.loads((done / "metrics.json").read_text())["transfer_share"] == 1
    image = cine.datalist.test[0].image
    (written,) = prediction.predict(done / "model.safetensors", [image], tmp_path / "out")
    assert nib.load(written).shape == nib.load(image).shape == (32, 32, 7)
    experiments.finetune(cine, Finetuning(network="unet", num_labeled=2))


@pytest.mark.skipif(not SEVEN.exists(), reason="the shared data are not here")
def test_the_reported_stack_of_seven_slices_is_usable():
    setup = Setup(datasets.get("folder", SEVEN), scales.get("smoke"))
    assert setup.patch_size == (8, 8, 2) and setup.grid.roi == (32, 32, 8)
    report = doctor.examine_datalist(setup.datalist, roi=setup.grid.roi, spacing=setup.grid.spacing)
    assert report.errors == 0


def test_a_spacing_in_metres_is_refused_before_it_fills_the_memory():
    extents, native = np.full((3, 3), 64.0), np.ones(3)
    with pytest.raises(CourseError, match=r"spacing=0.001,0.001,0.001: is far below 1,1,1 mm, that of the volumes; "):
        own_grid.choose(extents, native, {"spacing": (0.001,) * 3})
