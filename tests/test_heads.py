"""Heads: patches and images are inverse, and no voxel sees a neighbouring token."""

import monai.networks.nets
import pytest
import torch

from ssl_utils.errors import CourseError
from ssl_utils.networks.heads import LinearHead, TransposedConvHead, patchify, unpatchify

GRID = (2, 3, 2)


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.mark.parametrize("patch_size", [4, (4, 2, 8)])
def test_unpatchify_is_the_inverse(patch_size):
    x = torch.randn(2, 3, 8, 12, 16)
    tokens = patchify(x, patch_size)
    p, q, r = (patch_size,) * 3 if isinstance(patch_size, int) else patch_size
    grid = (8 // p, 12 // q, 16 // r)
    assert tokens.shape == (2, grid[0] * grid[1] * grid[2], 3 * p * q * r)
    assert torch.equal(unpatchify(tokens, grid, patch_size, 3), x)
    assert torch.equal(patchify(unpatchify(tokens, grid, patch_size, 3), patch_size), tokens)
    torch.testing.assert_close(tokens[0, 1], x[0, :, :p, :q, r : 2 * r].flatten())


@pytest.mark.parametrize("head_class", [LinearHead, TransposedConvHead])
@pytest.mark.parametrize("channels", [1, 2])
def test_patch_depends_on_its_own_token_only(head_class, channels):
    head = head_class(hidden_size=6, patch_size=4, out_channels=channels)
    tokens = torch.randn(1, 12, 6)
    jacobian = torch.autograd.functional.jacobian(lambda t: patchify(head(t, GRID), 4), tokens)
    coupling = jacobian[0, :, :, 0].abs().amax(dim=(1, 3))  # (patch of the output, token)
    assert (coupling.diagonal() > 0).all()
    assert (coupling[~torch.eye(12, dtype=torch.bool)] == 0).all()


@pytest.mark.parametrize("patch_size", [4, 8, 9, (4, 16, 8)])
@pytest.mark.parametrize("head_class", [LinearHead, TransposedConvHead])
def test_output_is_the_image(head_class, patch_size):
    p, q, r = (patch_size,) * 3 if isinstance(patch_size, int) else patch_size
    head = head_class(hidden_size=6, patch_size=patch_size, out_channels=2)
    assert head(torch.randn(2, 12, 6), GRID).shape == (2, 2, 2 * p, 3 * q, 2 * r)


def test_linear_head_parameters():
    head = LinearHead(hidden_size=768, patch_size=16, out_channels=2)
    assert sum(p.numel() for p in head.parameters()) == 768 * (2 * 16**3) + 2 * 16**3


def test_transposed_head_is_the_end_of_monai_vit_autoencoder():
    theirs = monai.networks.nets.ViTAutoEnc(
        1, (32, 48, 16), 16, hidden_size=48, mlp_dim=96, num_layers=1, num_heads=4
    ).eval()
    head = TransposedConvHead(hidden_size=48, patch_size=16, out_channels=1)
    state = {key: value for key, value in theirs.state_dict().items() if key.startswith("conv3d")}
    assert not any(head.load_state_dict(state))
    x = torch.randn(1, 1, 32, 48, 16)
    with torch.no_grad():
        output, hidden = theirs(x)
        torch.testing.assert_close(head(theirs.norm(hidden[-1]), (2, 3, 1)), output, atol=1e-5, rtol=0)


def test_unsuitable_shapes_are_refused():
    with pytest.raises(CourseError, match="linear head"):
        TransposedConvHead(hidden_size=6, patch_size=7, out_channels=1)
    with pytest.raises(CourseError, match="need"):
        unpatchify(torch.zeros(1, 12, 63), GRID, 4, 1)
    with pytest.raises(CourseError, match="multiple"):
        patchify(torch.zeros(1, 1, 8, 8, 9), 4)
