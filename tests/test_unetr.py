"""UNETR: MONAI's at patch 16, and the same idea at every other patch."""

import monai.networks.nets
import pytest
import torch

from ssl_utils.errors import CourseError
from ssl_utils.networks import build
from ssl_utils.networks.unetr import UNETR

SMALL = {"feature_size": 4, "hidden_size": 48, "mlp_dim": 96, "num_heads": 4}


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.mark.parametrize(("img_size", "channels"), [((32, 32, 32), (1, 3)), ((32, 48, 16), (2, 4))])
def test_equals_monai_at_patch_16(img_size, channels):
    theirs = monai.networks.nets.UNETR(*channels, img_size, **SMALL).eval()
    ours = UNETR(in_channels=channels[0], out_channels=channels[1], img_size=img_size, **SMALL).eval()
    assert not any(ours.load_state_dict(theirs.state_dict()))
    x = torch.randn(2, channels[0], *img_size)
    with torch.no_grad():
        torch.testing.assert_close(ours(x), theirs(x), atol=1e-5, rtol=0)


def test_weights_go_back_to_monai():
    ours = UNETR(in_channels=1, out_channels=2, img_size=32, **SMALL).eval()
    theirs = monai.networks.nets.UNETR(1, 2, 32, **SMALL).eval()
    missing, unexpected = theirs.load_state_dict(ours.state_dict(), strict=False)
    assert not unexpected and all("norm_cross_attn" in key for key in missing)
    x = torch.randn(1, 1, 32, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(ours(x), theirs(x), atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("patch_size", "levels", "num_layers", "taps"),
    [
        (16, 4, 12, [3, 6, 9]),
        (8, 3, 6, [2, 4]),
        (4, 2, 3, [2]),
        (2, 1, 2, []),
        (8, 3, 1, [0, 0]),
        (16, 4, 2, [0, 1, 1]),
    ],
)
def test_any_patch_size(patch_size, levels, num_layers, taps):
    img_size = (16, 32, 16) if patch_size > 4 else (4, 8, 12)
    model = UNETR(
        in_channels=2, out_channels=5, img_size=img_size, patch_size=patch_size, num_layers=num_layers, **SMALL
    )
    names = {name for name, _ in model.named_children()}
    assert names == {"vit", "out"} | {f"encoder{i + 1}" for i in range(levels)} | {
        f"decoder{i + 2}" for i in range(levels)
    }
    assert model.levels == levels and model.taps == taps
    logits = model(torch.randn(2, 2, *img_size))
    assert logits.shape == (2, 5, *img_size)
    logits.pow(2).mean().backward()
    assert [name for name, p in model.named_parameters() if p.grad is None] == []


def test_config_rebuilds_the_model():
    model = UNETR(in_channels=1, out_channels=2, img_size=(8, 16, 8), patch_size=8, num_layers=3, **SMALL)
    assert not any(build(model.config).load_state_dict(model.state_dict()))


@pytest.mark.parametrize("patch_size", [1, 6, 12, (8, 8, 6)])
def test_patch_that_is_no_power_of_two_is_refused(patch_size):
    with pytest.raises(CourseError, match="patch_size"):
        UNETR(in_channels=1, out_channels=2, img_size=48, patch_size=patch_size, **SMALL)


@pytest.mark.parametrize("patch_size", [8, (8, 8, 2)])
def test_image_skips_add_the_pooled_image_to_the_skips_of_tokens(patch_size):
    sizes = {"in_channels": 2, "out_channels": 3, "img_size": (16, 24, 8), "patch_size": patch_size, **SMALL}
    sizes |= {"num_layers": 3}
    plain, skips = UNETR(**sizes).eval(), build({"network": "unetr", **sizes, "image_skips": True}).eval()
    missing, unexpected = skips.load_state_dict(plain.state_dict(), strict=False)
    assert not unexpected and {name.split(".")[0] for name in missing} == {"image2", "image3"}
    x = torch.randn(1, 2, 16, 24, 8)
    with torch.no_grad():
        grids = [tuple(level.shape[2:]) for level in reversed(skips.features(x))]
        pooled = [tuple(torch.nn.functional.avg_pool3d(x, size).shape[2:]) for size in skips.pooled]
        assert pooled == grids[1:-1], "the pooled image lies on the grid of its level"
        assert not torch.allclose(skips(x), plain(x))
        for block in (skips.image2, skips.image3):
            block.conv2.conv.weight.zero_()
        torch.testing.assert_close(skips(x), plain(x))
    assert build(skips.config).image_skips and "image_skips" not in plain.config
