"""Scores worked out by hand, and label maps that come back to where they were."""

import warnings

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.metrics import compute_hausdorff_distance, compute_surface_dice
from scipy.ndimage import gaussian_filter
from torch import nn

from ssl_utils.data.dataset import Grid, Intensity
from ssl_utils.data.transforms import preprocess
from ssl_utils.data.volumes import Volume
from ssl_utils.segmentation import inference, metrics

SHAPE = (20, 20, 20)


def cube(corner: tuple[int, int, int], size: int = 4) -> np.ndarray:
    mask = np.zeros(SHAPE, bool)
    mask[tuple(slice(c, c + size) for c in corner)] = True
    return mask


def score(prediction, reference, *, spacing=(1.0, 1.0, 1.0), tolerance=1.0) -> dict:
    (row,) = metrics.evaluate_case({"a": prediction}, {"a": reference}, spacing=spacing, tolerance=tolerance)
    return row


def test_dice_is_a_hand_count():
    prediction = np.array([1, 1, 1, 0, 0, 0], bool)
    reference = np.array([0, 1, 1, 1, 1, 0], bool)
    assert metrics.dice(prediction, reference) == pytest.approx(2 * 2 / (3 + 4))
    assert metrics.dice(reference, prediction) == metrics.dice(prediction, reference)
    order = np.random.default_rng(0).permutation(6)
    assert metrics.dice(prediction[order], reference[order]) == metrics.dice(prediction, reference)


def test_a_run_does_not_depend_on_the_order_of_its_cases():
    rng = np.random.default_rng(0)
    pairs = [(rng.random(SHAPE) > 0.5, rng.random(SHAPE) > 0.3) for _ in range(4)]
    forward = [score(*pair)["dice"] for pair in pairs]
    backward = [score(*pair)["dice"] for pair in reversed(pairs)]
    assert forward == backward[::-1] and np.mean(forward) == pytest.approx(np.mean(backward))
    pooled = metrics.dice(*(np.stack(side) for side in zip(*pairs, strict=True)))
    tiny = (cube((0, 0, 0), 1), cube((5, 5, 5), 1))
    assert np.mean([*forward, score(*tiny)["dice"]]) < pooled  # a small failed case weighs as much as any other


@pytest.mark.parametrize("shift, millimetres", [((0, 0, 1), 3.0), ((1, 0, 0), 1.0), ((0, 1, 0), 2.0)])
def test_surface_distances_of_shifted_cubes(shift, millimetres):
    """A shell of 4^3 voxels has 56. Shifted by one: 16 of them (the face left behind) are one voxel off, 4 (inside the
    other cube) a voxel from its side, 36 lie on it; as many the other way round."""
    spacing = (1.0, 2.0, 3.0)
    pair = cube((6, 6, 6)), cube(tuple(6 + s for s in shift))
    inner = 1.0  # mm to the nearest side, along x
    assert score(*pair, spacing=spacing)["hd95"] == pytest.approx(millimetres)
    assert score(*pair, spacing=spacing, tolerance=0.5)["nsd"] == pytest.approx(36 / 56)
    assert score(*pair, spacing=spacing, tolerance=millimetres)["nsd"] == 1.0
    if millimetres > inner:
        assert score(*pair, spacing=spacing, tolerance=(millimetres + inner) / 2)["nsd"] == pytest.approx(40 / 56)
    assert score(*pair)["dice"] == pytest.approx(2 * 48 / 128)


def test_surface_scores_are_those_of_monai():
    rng, spacing = np.random.default_rng(0), (1.0, 2.0, 3.0)
    for _ in range(5):
        pair = [gaussian_filter(rng.normal(size=SHAPE), 2) > 0.02 for _ in range(2)]
        found, both = score(*pair, spacing=spacing, tolerance=2.0), [torch.from_numpy(m)[None, None] for m in pair]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            nsd = compute_surface_dice(*both, class_thresholds=[2.0], include_background=True, spacing=spacing)
            hd95 = compute_hausdorff_distance(*both, include_background=True, percentile=95, spacing=spacing)
        assert (found["nsd"], found["hd95"]) == (float(nsd), float(hd95))


def test_hd95_forgives_a_stray_voxel_and_dice_does_not_see_where_it_is():
    reference, near, far = cube((6, 6, 6)), cube((6, 6, 6)), cube((6, 6, 6))
    near[6, 6, 10], far[19, 19, 19] = True, True
    assert score(near, reference)["dice"] == score(far, reference)["dice"]
    assert score(far, reference)["hd95"] == 0.0
    far[17:, 17:, 17:] = True  # a blob of 27 is more than 5 % of the surface
    assert score(far, reference)["hd95"] > 10


def test_scores_are_the_same_anywhere_in_the_volume():
    middle = score(cube((6, 6, 6)), cube((6, 6, 7)), tolerance=0.5)
    corner = score(cube((0, 0, 0)), cube((0, 0, 1)), tolerance=0.5)
    assert middle == corner


def test_empty_masks():
    nothing, something = np.zeros(SHAPE, bool), cube((6, 6, 6))
    missed = score(nothing, something, spacing=(1, 1, 2))
    assert (missed["dice"], missed["nsd"]) == (0.0, 0.0) and missed["prediction_empty"]
    assert missed["hd95"] == pytest.approx(np.sqrt(20**2 + 20**2 + 40**2))
    invented = score(something, nothing, spacing=(1, 1, 2))
    assert (invented["dice"], invented["nsd"], invented["hd95"]) == (0.0, 0.0, missed["hd95"])
    assert invented["reference_empty"] and not invented["prediction_empty"]
    neither = score(nothing, nothing)
    assert all(np.isnan(neither[name]) for name in ("dice", "nsd", "hd95"))
    assert neither["reference_empty"] and neither["prediction_empty"]


def test_volumes_are_in_millilitres():
    assert score(cube((0, 0, 0), 10), cube((0, 0, 0), 5), spacing=(1, 1, 2))["volume_ml"] == pytest.approx(2.0)


def test_nothing_is_said_to_the_reader():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        score(cube((6, 6, 6)), cube((6, 6, 7)))


def test_masks_of_classes_and_of_regions():
    labels = np.array([[[0, 1, 2, 3]]])
    plain = metrics.masks(labels, {1: "edema", 3: "enhancing"}, None)
    assert {name: mask.ravel().tolist() for name, mask in plain.items()} == {
        "edema": [False, True, False, False],
        "enhancing": [False, False, False, True],
    }
    regions = metrics.masks(labels, {}, {"whole": (1, 2, 3), "core": (2, 3)})
    assert regions["whole"].sum() == 3 and regions["core"].ravel().tolist() == [False, False, True, True]


class Constant(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.tensor([-1.0, 2.0, 0.5]))

    def forward(self, x):
        return self.logits.view(1, 3, 1, 1, 1).repeat(len(x), 1, *x.shape[2:])


@pytest.mark.parametrize("shape", [(16, 16, 16), (37, 16, 23)])
def test_a_sliding_window_over_a_constant_network_is_constant(shape):
    logits = inference.predict_logits(Constant(), np.zeros((1, *shape), np.float32), roi=(16, 16, 16), overlap=0.25)
    assert logits.shape == (3, *shape)
    assert torch.allclose(logits, torch.tensor([-1.0, 2.0, 0.5]).view(3, 1, 1, 1).expand_as(logits), atol=1e-5)
    assert (inference.decide(logits, regions=False) == 1).all()
    assert [bool(m.all()) for m in inference.decide(logits, regions=True)] == [False, True, True]


def placed(orientation: str, sizes=(1.0, 1.25, 2.0), shape=(60, 48, 30)) -> Volume:
    """Three balls of different size in the file's own axes, the largest cut by the border."""
    at = np.indices(shape).transpose(1, 2, 3, 0) * np.array(sizes)
    array = np.zeros((1, *shape), np.uint8)
    for value, (centre, radius) in enumerate([((20, 20, 20), 12), ((45, 40, 30), 9), ((2, 50, 50), 14)], 1):
        array[0][np.linalg.norm(at - np.array(centre), axis=-1) < radius] = value
    axes = nib.orientations.axcodes2ornt(tuple(orientation))
    affine = np.eye(4)
    affine[:3, :3] = np.zeros((3, 3))
    for axis, (world, direction) in enumerate(axes):
        affine[int(world), axis] = direction * sizes[axis]
    affine[:3, 3] = (-31.0, 12.0, 7.5)
    return Volume(array, affine, path=None)


@pytest.mark.parametrize("orientation", ["RAS", "LPS", "SAR", "PIL"])
@pytest.mark.parametrize("regions", [False, True])
def test_a_label_map_comes_back_to_its_own_voxels(orientation, regions):
    label = placed(orientation)
    image = Volume(label.array.astype(np.float32), label.affine, path=None)
    grid = Grid((1.0, 1.0, 1.0), (32, 32, 32))
    done = preprocess(image, label, grid=grid, intensity=Intensity("percentile", 1, 99))
    unions = [(1, 2, 3), (2, 3), (3,)]
    classes = [np.isin(done.label, union) for union in unions] if regions else [done.label == k for k in range(4)]
    logits = torch.from_numpy(np.stack(classes)).float() * 20 - 10
    back = inference.to_original(
        logits, affine=done.affine, target_affine=label.affine, target_shape=label.shape, regions=regions, slab=7
    )
    truth = label.array[0]
    if regions:
        assert back.shape == (3, *label.shape) and back.dtype == bool
        pairs = [(found, np.isin(truth, union)) for found, union in zip(back, unions, strict=True)]
    else:
        assert back.shape == label.shape and back.dtype == np.uint8
        pairs = [(back == k, truth == k) for k in (1, 2, 3)]
    for found, wanted in pairs:
        assert metrics.dice(found, wanted) > 0.95


def test_a_window_of_the_grid_leaves_the_rest_of_the_file_background():
    """The grid may be cropped to the body: what lies outside comes back as background, nothing wraps around."""
    logits = torch.stack([torch.full((8, 8, 8), -5.0), torch.full((8, 8, 8), 5.0)])
    affine = np.eye(4)
    affine[:3, 3] = 10
    place = {"affine": affine, "target_affine": np.eye(4), "target_shape": (30, 30, 30)}
    back = inference.to_original(logits, **place, regions=False)
    inside = np.zeros((30, 30, 30), bool)
    inside[10:18, 10:18, 10:18] = True
    assert (back[inside] == 1).all() and (back[~inside] == 0).all()


def test_a_region_that_is_as_likely_as_not_is_not_predicted():
    undecided, place = torch.zeros(1, 4, 4, 4), {"affine": np.eye(4), "target_affine": np.eye(4)}
    assert not inference.decide(undecided, regions=True).any()
    assert not inference.to_original(undecided, **place, target_shape=(4, 4, 4), regions=True).any()


def test_both_ways_of_sampling_agree():
    torch.manual_seed(0)
    volume, size = torch.rand(3, 9, 7, 8), torch.tensor([9.0, 7.0, 8.0])
    to_index = torch.diag(torch.tensor([0.7, -0.5, 1.9, 1.0]))  # finer, mirrored, coarser
    to_index[:3, 3] = torch.tensor([-2.0, 6.3, 0.25])
    axes = [torch.arange(start, end).float() for start, end in ((4, 13), (0, 14), (0, 5))]
    one, inside = inference._straight(volume, axes, to_index, size)
    other, within = inference._oblique(volume, axes, to_index, size)
    assert inside.any() and not inside.all() and torch.equal(inside, within)
    torch.testing.assert_close(one, other, atol=1e-5, rtol=0)


def test_a_coarse_grid_does_not_eat_the_border_of_a_region():
    """Original voxels beyond the centre of the grid's last voxel still belong to it."""
    affine = np.diag([4.0, 4.0, 4.0, 1.0])
    affine[:3, 3] = 1.5  # a grid voxel covers four original ones
    place = {"affine": affine, "target_affine": np.eye(4), "target_shape": (16, 16, 16)}
    for regions in (False, True):
        logits = torch.stack([torch.full((4, 4, 4), -5.0), torch.full((4, 4, 4), 5.0)])
        back = inference.to_original(logits, **place, regions=regions)
        assert (back[1] if regions else back == 1).all()
