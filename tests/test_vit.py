"""The encoder: MONAI's ViT weight for weight, on any patch and region, in parts that can be called apart."""

import copy
import inspect
from unittest import mock

import monai.networks.nets
import pytest
import torch

from ssl_utils.errors import CourseError
from ssl_utils.networks import attention, transformer
from ssl_utils.networks.interface import triple
from ssl_utils.networks.unetr import UNETR
from ssl_utils.networks.vit import ViT, sincos_positions, token_grid

SMALL = {"hidden_size": 48, "mlp_dim": 96, "num_layers": 3, "num_heads": 4}


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def monai_vit(img_size=(32, 48, 32), patch_size=16, in_channels=1, **kwargs):
    return monai.networks.nets.ViT(in_channels, img_size, patch_size, **{**SMALL, **kwargs}).eval()


@pytest.mark.parametrize(("img_size", "patch_size"), [((32, 48, 32), 16), ((16, 24, 32), 8), ((8, 12, 16), 4)])
def test_equals_monai_with_the_same_weights(img_size, patch_size):
    theirs = monai_vit(img_size, patch_size)
    ours = ViT(in_channels=1, img_size=img_size, patch_size=patch_size, **SMALL).eval()
    assert not any(ours.load_state_dict(theirs.state_dict()))
    x = torch.randn(2, 1, *img_size)
    with torch.no_grad():
        (last, hidden), (their_last, their_hidden) = ours(x), theirs(x)
    assert ours.num_tokens == last.shape[1] and len(hidden) == SMALL["num_layers"]
    torch.testing.assert_close(last, their_last, atol=1e-5, rtol=0)
    for mine, other in zip(hidden, their_hidden, strict=True):
        torch.testing.assert_close(mine, other, atol=1e-5, rtol=0)


def test_weights_go_back_to_monai():
    ours, theirs = ViT(in_channels=1, img_size=(32, 48, 32), patch_size=16, **SMALL).eval(), monai_vit()
    missing, unexpected = theirs.load_state_dict(ours.state_dict(), strict=False)
    assert not unexpected and all("norm_cross_attn" in key for key in missing)
    x = torch.randn(1, 1, 32, 48, 32)
    with torch.no_grad():
        torch.testing.assert_close(ours(x)[0], theirs(x)[0], atol=1e-5, rtol=0)


def test_without_sizes_it_is_vit_b_as_monais():
    sizes = ("hidden_size", "mlp_dim", "num_layers", "num_heads")
    for ours, theirs in ((ViT, monai.networks.nets.ViT), (UNETR, monai.networks.nets.UNETR)):
        own, known = (inspect.signature(network).parameters for network in (ours, theirs))
        assert [own[name].default for name in sizes] == [768, 3072, 12, 12]
        assert all(known[name].default == own[name].default for name in sizes if name in known)


def test_a_size_is_one_positive_number_or_three():
    assert triple(1) == triple([1, 1, 1]) == (1, 1, 1)
    for size in (0, (8, 0, 8), (8, 8)):
        with pytest.raises(CourseError, match="expected one positive whole number, or three"):
            triple(size)


def test_every_parameter_gets_a_gradient():
    vit = ViT(in_channels=2, img_size=16, patch_size=8, **SMALL)
    vit(torch.randn(1, 2, 16, 16, 16))[0].pow(2).sum().backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in vit.parameters())


def test_loading_monai_weights_leaves_their_dictionary_alone():
    state = monai_vit().state_dict()
    names = list(state)
    ViT(in_channels=1, img_size=(32, 48, 32), patch_size=16, **SMALL).load_state_dict(state)
    assert list(state) == names


def test_copy_still_loads_monai_weights():
    vit = copy.deepcopy(ViT(in_channels=1, img_size=(32, 48, 32), patch_size=16, **SMALL))
    assert not any(vit.load_state_dict(monai_vit().state_dict()))


def test_embed_has_no_positions_and_encode_takes_a_subset():
    vit = ViT(in_channels=1, img_size=(8, 16, 12), patch_size=4, **SMALL).eval()
    x = torch.randn(2, 1, 8, 16, 12)
    tokens = vit.embed(x)
    assert vit.grid == (2, 4, 3) and tokens.shape == (2, 24, 48)
    constant = vit.embed(torch.ones_like(x))
    torch.testing.assert_close(constant, constant[:, :1].expand_as(constant))
    torch.testing.assert_close(vit.encode(tokens + vit.positions)[0], vit(x)[0])
    assert vit.encode(tokens[:, 5:9])[0].shape == (2, 4, 48)


def test_token_order_follows_the_axes():
    vit = ViT(in_channels=1, img_size=(8, 16, 12), patch_size=4, **SMALL)
    x = torch.zeros(1, 1, 8, 16, 12)
    x[..., 4:8, 8:12, 0:4] = 1  # token (1, 2, 0) of the grid (2, 4, 3)
    lit = vit.embed(x)[0].abs().sum(-1).nonzero()
    assert lit.flatten().tolist() == [(1 * 4 + 2) * 3 + 0]


def test_one_mask_token_at_two_positions_is_encoded_differently():
    vit = ViT(in_channels=1, img_size=16, patch_size=4, **SMALL).eval()
    mask_token = torch.nn.Parameter(torch.randn(48) * 0.02)
    tokens = vit.embed(torch.randn(1, 1, 16, 16, 16)).clone()
    tokens[:, [3, 40]] = mask_token
    last, _ = vit.encode(tokens + vit.positions)
    assert (last[0, 3] - last[0, 40]).abs().max() > 0.1
    last[0, 3].norm().backward()
    assert mask_token.grad.abs().max() > 0


def forward_and_gradient(encoder, x):
    encoder.zero_grad()
    with torch.autocast("cpu", torch.bfloat16):
        last = encoder(x)[0]
    last.float().square().mean().backward()
    return last.detach().float(), encoder.blocks[0].attn.qkv.weight.grad.clone()


def spied(owner, name):
    return mock.patch.object(owner, name, wraps=getattr(owner, name))


def fused(q, k, v, *, dropout):
    return torch.nn.functional.scaled_dot_product_attention(q, k, v, dropout_p=dropout)


@pytest.mark.parametrize(("most", "way"), [(1024, "plain"), (0, "tiled")])
def test_the_ways_of_attention_agree(most, way, monkeypatch):
    encoder, x = ViT(in_channels=1, img_size=(32, 48, 32), patch_size=8, **SMALL), torch.randn(2, 1, 32, 48, 32)
    monkeypatch.setattr(transformer, "PLAIN_TOKENS", most)
    monkeypatch.setattr(attention, "TILE", 96 * 40)  # the last tile of a head has fewer rows
    with spied(transformer, "tiled_attention") as tiled, spied(transformer, "plain_attention") as plain:
        own = forward_and_gradient(encoder, x)
    assert (bool(plain.call_count), bool(tiled.call_count)) == (way == "plain", way == "tiled")
    monkeypatch.setattr(transformer, "attention", fused)
    exact = forward_and_gradient(encoder, x)
    torch.testing.assert_close(own[0], exact[0], atol=0.05, rtol=0.02)  # of values of size 1, at 8 bits of mantissa
    assert torch.cosine_similarity(own[1].flatten(), exact[1].flatten(), dim=0) > 0.999


def test_tiles_are_exact(monkeypatch):
    monkeypatch.setattr(attention, "TILE", 7 * 3)
    q, k, v = torch.randn(3, 2, 2, 7, 5, dtype=torch.float64, requires_grad=True).unbind()
    exact = torch.nn.functional.scaled_dot_product_attention(q, k, v)
    with spied(attention, "plain_attention") as products:
        torch.testing.assert_close(attention.tiled_attention(q, k, v), exact)
    assert [len(call.args[0]) for call in products.call_args_list] == [3, 3, 1] * 4, "rows of a tile, in 2 x 2 heads"
    assert torch.autograd.gradcheck(attention.tiled_attention, (q, k, v))


@pytest.mark.parametrize("tokens", [4, 8])
@pytest.mark.parametrize(
    ("half", "dropout", "device", "products"),
    [(True, 0.0, "cpu", True), (False, 0.0, "cpu", False), (True, 0.5, "cpu", False), (True, 0.0, "meta", False)],
)
def test_products_are_for_bfloat16_on_a_processor_without_dropout(half, dropout, device, products, tokens, monkeypatch):
    monkeypatch.setattr(transformer, "PLAIN_TOKENS", 4)
    block = transformer.Block(hidden_size=48, mlp_dim=96, num_heads=4, dropout=dropout).to(device)
    with (
        spied(transformer, "tiled_attention") as tiled,
        spied(transformer, "plain_attention") as plain,
        spied(torch.nn.functional, "scaled_dot_product_attention") as flash,
        torch.autocast("cpu", torch.bfloat16, enabled=half),
    ):
        block(torch.randn(1, tokens, 48, device=device))
    assert flash.call_count == (not products)
    assert (plain.call_count, tiled.call_count) == (products and tokens == 4, products and tokens == 8)


def test_dropout_sleeps_in_evaluation():
    vit = ViT(in_channels=1, img_size=16, patch_size=8, dropout=0.5, **SMALL)
    x = torch.randn(1, 1, 16, 16, 16)
    assert not torch.equal(vit(x)[0], vit(x)[0])
    vit.eval()
    assert torch.equal(vit(x)[0], vit(x)[0])
    with spied(transformer, "attention") as attend:
        vit(x), vit.train()(x)
    assert [call.kwargs["dropout"] for call in attend.call_args_list] == [0.0] * 3 + [0.5] * 3


@pytest.mark.parametrize("hidden_size", [48, 64, 5])
def test_positions_tell_tokens_apart(hidden_size):
    positions = sincos_positions((3, 4, 2), hidden_size)
    assert positions.shape == (1, 24, hidden_size) and positions.isfinite().all()
    if hidden_size >= 6:
        distances = torch.cdist(positions, positions)[0] + torch.eye(24)
        assert distances.min() > 0.1
        assert (positions[..., hidden_size // 6 * 6 :] == 0).all()


def test_initialisation():
    vit = ViT(in_channels=1, img_size=16, patch_size=8, **SMALL)
    assert torch.equal(vit.positions.data, sincos_positions((2, 2, 2), 48)) and vit.positions.requires_grad
    for weight, fan in (
        (vit.patch_embedding.patch_embeddings.weight, 512 + 48),
        (vit.blocks[0].attn.qkv.weight, 48 + 144),
        (vit.blocks[0].mlp.linear1.weight, 48 + 96),
    ):
        bound = (6 / fan) ** 0.5
        assert 0.98 * bound < weight.abs().max() <= bound
    assert (vit.norm.weight == 1).all() and (vit.norm.bias == 0).all() and (vit.blocks[0].mlp.linear1.bias == 0).all()


def test_config_rebuilds_the_encoder():
    vit = ViT(in_channels=2, img_size=(8, 16, 12), patch_size=(4, 8, 4), dropout=0.1, **SMALL)
    twin = ViT(**vit.config)
    assert not any(twin.load_state_dict(vit.state_dict())) and twin.grid == vit.grid == (2, 2, 3)


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"img_size": 20}, "multiple of patch_size"),
        ({"num_heads": 5}, "num_heads=5"),
        ({"img_size": (16, 16)}, "three"),
    ],
)
def test_wrong_sizes_are_refused(change, word):
    with pytest.raises(CourseError, match=word):
        ViT(**{"in_channels": 1, "img_size": 16, "patch_size": 8, **SMALL, **change})


def test_wrong_image_is_refused():
    vit = ViT(in_channels=1, img_size=16, patch_size=8, **SMALL)
    with pytest.raises(CourseError, match=r"\(1, 4, 16, 16, 16\)"):
        vit(torch.zeros(1, 4, 16, 16, 16))
    with pytest.raises(CourseError, match="crop or pad"):
        vit(torch.zeros(1, 1, 16, 16, 24))
    assert token_grid((16, 24, 8), 8) == (2, 3, 1)
