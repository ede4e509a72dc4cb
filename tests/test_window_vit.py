"""Windows of slices in the network: which slices a prediction may depend on, along any axis, with any decoder."""

import pytest
import torch

from ssl_utils.errors import CourseError
from ssl_utils.networks.decoders_2d import DECODERS
from ssl_utils.networks.window_vit import WindowViT, windows_of

SIZES = {"in_channels": 1, "out_channels": 2, "patch_size": 8, "hidden_size": 24, "mlp_dim": 24, "num_layers": 3}
SIZES |= {"num_heads": 2, "feature_size": 4}


def network(img_size=(16, 24, 8), **options) -> WindowViT:
    torch.manual_seed(0)
    return WindowViT(img_size=img_size, **SIZES | options).eval()


def test_edges_are_repeated_or_mirrored():
    slices = torch.arange(4.0).view(1, 1, 1, 1, 4)
    assert windows_of(slices, 5)[0, 0, 0, 0].tolist() == [
        [0, 0, 0, 1, 2],
        [0, 0, 1, 2, 3],
        [0, 1, 2, 3, 3],
        [1, 2, 3, 3, 3],
    ]
    assert windows_of(slices, 5, "reflect")[0, 0, 0, 0, 0].tolist() == [2, 1, 0, 1, 2]
    assert windows_of(slices, 1)[..., 0].equal(slices)


@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize("depth", [1, 3])
def test_a_slice_is_predicted_from_its_window(decoder, depth):
    model, image = network(depth=depth, decoder=decoder), torch.randn(1, 1, 16, 24, 8)
    changed = image.clone()
    changed[..., 3] += 1
    with torch.no_grad():
        differs = (model(image) != model(changed)).any(3).any(2)[0].any(0)
    assert differs.tolist() == [abs(s - 3) <= depth // 2 for s in range(8)]


@pytest.mark.parametrize("axis", [0, 1])
def test_the_axis_across_the_slices_is_an_option(axis):
    model, other = network(), network(img_size=(8, 16, 24) if axis == 0 else (16, 8, 24), axis=axis)
    other.load_state_dict(model.state_dict())
    image = torch.randn(2, 1, 16, 24, 8)
    with torch.no_grad():
        turned = other(image.movedim(4, 2 + axis))
        torch.testing.assert_close(turned.movedim(2 + axis, 4), model(image), atol=1e-5, rtol=1e-5)
    grid = list(other.encoder.grid)
    assert grid.pop(axis) == 8 and grid == [2, 3] and other.encoder.patch_size[axis] == 1


def test_thick_patches_of_a_grid_are_one_slice_thin():
    assert network(patch_size=(8, 8, 2)).encoder.patch_size == (8, 8, 1)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"depth": 4}, "depth=4: a window needs a middle slice"),
        ({"depth": 17, "edge": "reflect"}, "8 slices cannot be mirrored that far"),
        ({"edge": "wrap"}, "edge='wrap': choose an axis 0, 1 or 2 and clamp or reflect"),
        ({"decoder": "fpn"}, "decoder='fpn': no such decoder; choose one of unetr, upernet, setr, convtrans"),
        ({"patch_size": (8, 4, 4)}, "must be a square in the plane"),
        ({"patch_size": 2, "decoder": "upernet"}, "needs patches of 4 voxels or more"),
        ({"patch_size": 16}, "not a multiple of patch_size"),
    ],
)
def test_bad_options_are_refused_in_one_line(options, words):
    with pytest.raises(CourseError, match=words) as caught:
        network(**options)
    assert "\n" not in str(caught.value)
