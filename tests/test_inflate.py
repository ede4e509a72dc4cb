"""Inflation: an inflated network computes what the 2D network did, and every resized part keeps what it can."""

import pytest
import torch
from test_vit2d import hub_weights, saved
from torch.nn import functional as F

from ssl_utils.errors import CourseError
from ssl_utils.networks import inflate as weights_of
from ssl_utils.networks.transfer import load_encoder
from ssl_utils.networks.unetr import UNETR
from ssl_utils.networks.vit2d import load_2d
from ssl_utils.networks.window_vit import WindowEncoder, windows_of

RGB = (0.5, 0.4, 0.3), (0.2, 0.3, 0.4)
CLOSE = {"atol": 1e-5, "rtol": 1e-5}


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.fixture
def flat_2d(tmp_path):
    """A tiny ViT with a hub's names, its statistics, and its sizes for 3D."""
    network, *rgb = load_2d(saved(tmp_path / "model.safetensors", hub_weights()))
    return network, tuple(rgb), network.sizes | {"as_2d": True}


def in_colours(grey: torch.Tensor) -> torch.Tensor:
    """Grey values 0..1 (B, 1, H, W) as the RGB image that a 2D network takes."""
    mean, deviation = (torch.tensor(numbers).view(1, 3, 1, 1) for numbers in RGB)
    return (grey.expand(-1, 3, -1, -1) - mean) / deviation


def deep(flat_2d, img_size, patch_size, how, unit=(0.0, 1.0)):
    """The weights inflated for an encoder of this crop and patch."""
    network, rgb, sizes = flat_2d
    flat = weights_of.vit_3d(in_channels=1, img_size=(*img_size[:2], 1), patch_size=(*patch_size[:2], 1), **sizes)
    encoder = weights_of.vit_3d(in_channels=1, img_size=img_size, patch_size=patch_size, **sizes)
    return encoder, weights_of.inflated(weights_of.flat_weights(network, rgb, flat, unit=unit), encoder, how)


@pytest.mark.parametrize("how", weights_of.HOW)
def test_an_inflated_kernel_reads_the_centre_or_the_mean(how):
    kernel, window = torch.randn(8, 2, 4, 4), torch.randn(1, 2, 12, 8, 5)
    thick = weights_of.inflate(kernel, 5, how)
    slice_ = window[..., 2] if how == "centre" else window.mean(-1)
    expected = F.conv2d(slice_, kernel, stride=4)
    torch.testing.assert_close(F.conv3d(window, thick, stride=(4, 4, 5))[..., 0], expected, **CLOSE)
    with pytest.raises(CourseError, match="how='max': unknown; choose one of centre, average"):
        weights_of.inflate(kernel, 5, "max")


@pytest.mark.parametrize("how", weights_of.HOW)
def test_windows_give_the_tokens_of_the_2d_network(flat_2d, how):
    network, _, sizes = flat_2d
    _, weights = deep(flat_2d, (12, 12, 5), (4, 4, 5), how)
    encoder = WindowEncoder(in_channels=1, img_size=(12, 12, 6), patch_size=4, depth=5, **sizes)
    report = load_encoder(encoder, {f"vit.{key}": value for key, value in weights.items()})
    assert report.share == 1 and not (report.missing or report.resized or report.unexpected)
    volume = torch.rand(1, 1, 12, 12, 6)
    windows = windows_of(volume, 5)
    with torch.no_grad():
        tokens = encoder(volume)[0].unflatten(1, (9, 6))  # (B, h w, S, E)
        for s in range(6):
            grey = windows[..., s, 2] if how == "centre" else windows[..., s, :].mean(-1)
            torch.testing.assert_close(tokens[:, :, s], network.features(in_colours(grey))[0], **CLOSE)


@pytest.mark.parametrize("how", weights_of.HOW)
def test_a_volume_one_patch_deep_gives_the_tokens_of_the_2d_network(flat_2d, how):
    network, _, sizes = flat_2d
    _, weights = deep(flat_2d, (8, 16, 4), (4, 4, 4), how)
    unetr = UNETR(in_channels=1, out_channels=2, img_size=(8, 16, 4), patch_size=4, feature_size=4, **sizes)
    report = load_encoder(unetr.encoder, weights)
    assert report.share == 1 and "patch_embedding.class_token" in report.matched
    volume = torch.rand(2, 1, 8, 16, 4)
    grey = volume[..., 2] if how == "centre" else volume.mean(-1)
    with torch.no_grad():
        torch.testing.assert_close(unetr.encoder(volume)[0], network.features(in_colours(grey))[0], **CLOSE)
    assert unetr(volume).shape == (2, 2, 8, 16, 4)
    assert list(unetr.encoder_parts()) == ["patch embedding", "block 0", "block 1", "norm"]


def test_neighbouring_slices_have_a_gradient_though_they_are_not_read(flat_2d):
    encoder, weights = deep(flat_2d, (12, 12, 5), (4, 4, 5), "centre")
    encoder.load_state_dict(weights)
    encoder(torch.rand(1, 1, 12, 12, 5))[0].square().sum().backward()
    slices = encoder.patch_embedding.patch_embeddings.weight.grad.abs().sum((0, 1, 2, 3))
    assert slices.min() > 0.1 * slices.max()


@pytest.mark.parametrize("channels", [1, 2, 3])
def test_colours_and_their_statistics_are_in_the_kernel(channels):
    kernel, bias, image = torch.randn(8, 3, 4, 4), torch.randn(8), torch.rand(1, channels, 8, 8)
    colours = image if channels == 3 else image.mean(1, keepdim=True)
    expected = F.conv2d(in_colours(colours), kernel, bias, stride=4)
    folded = weights_of.fold_rgb(kernel, bias, channels, rgb=RGB, unit=(0.0, 1.0))
    torch.testing.assert_close(F.conv2d(image, *folded, stride=4), expected, **CLOSE)
    standardised = (image - 0.4) / 0.3  # mean and deviation of the photographs, over colours
    folded = weights_of.fold_rgb(kernel, bias, channels, rgb=RGB)
    torch.testing.assert_close(F.conv2d(standardised, *folded, stride=4), expected, **CLOSE)


def test_a_larger_patch_gives_the_same_tokens_and_interpolation_does_not():
    kernel, patch = torch.randn(8, 3, 4, 4), torch.randn(2, 3, 4, 4)
    larger = F.interpolate(patch, size=(8, 6), mode="bicubic", antialias=True)
    expected = F.conv2d(patch, kernel)
    torch.testing.assert_close(F.conv2d(larger, weights_of.resize_patch(kernel, (8, 6))), expected, **CLOSE)
    plain = weights_of.resize_patch(kernel, (8, 6), "interpolation")
    assert plain.shape == (8, 3, 8, 6) and F.conv2d(larger, plain).norm() > 2 * expected.norm()
    assert weights_of.resize_patch(kernel, (4, 4)) is kernel


def test_a_smaller_patch_gives_the_tokens_of_the_patch_that_it_was_resized_from():
    kernel, small = torch.randn(8, 3, 14, 14), torch.randn(2, 3, 4, 4)
    pixels = torch.eye(196).view(-1, 1, 14, 14)
    matrix = F.interpolate(pixels, size=(4, 4), mode="bicubic", antialias=True).flatten(1).T
    large = (small.flatten(2) @ torch.linalg.pinv(matrix).T).unflatten(
        2, (14, 14)
    )  # the shortest that is resized to it
    torch.testing.assert_close(F.interpolate(large, size=(4, 4), mode="bicubic", antialias=True), small, **CLOSE)
    expected = F.conv2d(large, kernel)
    torch.testing.assert_close(F.conv2d(small, weights_of.resize_patch(kernel, (4, 4))), expected, atol=1e-4, rtol=1e-4)


def test_relative_positions_keep_special_rows_and_near_offsets():
    old, new = (3, 4), (6, 9)
    table = torch.randn(5 * 7 + 3, 2)
    for how in ("bicubic", "geometric"):
        resized = weights_of.resize_relative(table, old, new, how=how, special=3)
        assert resized.shape == (11 * 17 + 3, 2) and torch.equal(resized[-3:], table[-3:])
        same = weights_of.resize_relative(table, old, old, how=how, special=3)
        torch.testing.assert_close(same, table, **CLOSE)
        flat = weights_of.resize_relative(torch.ones(35, 2), old, new, how=how)
        torch.testing.assert_close(flat, torch.ones(11 * 17, 2), **CLOSE)
    before, after = table[:35].T.unflatten(1, (5, 7)), resized[:-3].T.unflatten(1, (11, 17))
    torch.testing.assert_close(after[:, 4:7, 7:10], before[:, 1:4, 2:5], **CLOSE)  # offsets -1, 0 and 1
    torch.testing.assert_close(after[:, 0, 0], before[:, 0, 0], **CLOSE)  # the ends
    with pytest.raises(CourseError, match=r"table of 38 rows: a grid \(3, 4\) has 35 offsets and 0 more"):
        weights_of.resize_relative(table, old, new)


def test_a_window_table_in_3d_depends_on_the_plane_alone():
    table = torch.randn(3 * 5, 2)  # a window of 2 x 3
    thick = weights_of.inflate_relative(table, 4, special=0).unflatten(0, (7, 3, 5))
    assert all(torch.equal(one, table.unflatten(0, (3, 5))) for one in thick)


def test_another_width_is_refused(flat_2d):
    network, rgb, sizes = flat_2d
    flat = weights_of.vit_3d(in_channels=1, img_size=(8, 8, 1), patch_size=(4, 4, 1), **sizes | {"hidden_size": 48})
    with pytest.raises(CourseError, match="the 2D network has hidden_size=24: build"):
        weights_of.flat_weights(network, rgb, flat)
