"""BEiT: relative positions by its formula, its weights under two sets of names, and inflated into 3D."""

import pytest
import torch
from test_inflate import CLOSE, deep, in_colours
from test_vit2d import GRID, LAYERS, PATCH, E, hub_weights, refused, saved
from torch.nn import functional as F

from ssl_utils.errors import CourseError
from ssl_utils.networks.block_2d import RelativeAttention, offsets_of
from ssl_utils.networks.vit import ViT
from ssl_utils.networks.vit2d import load_2d
from ssl_utils.networks.window_vit import WindowEncoder
from ssl_utils.pretext.inflation import InflationTask
from ssl_utils.training.loop import parameter_groups

ROWS, HEADS = (2 * GRID - 1) ** 2 + 3, 3
TABLE = "relative_position_bias.relative_position_bias_table"


def beit(shared: bool = False) -> dict[str, torch.Tensor]:
    """A tiny random BEiT under the names of transformers' BeitModel."""
    names = {"layernorm.": "pooler.layernorm.", "norm1": "layernorm_before", "norm2": "layernorm_after"}
    names |= {"layer_scale": "lambda_", ".lambda1": "", "mlp.fc1": "intermediate.dense", "mlp.fc2": "output.dense"}
    weights, generator = {}, torch.Generator().manual_seed(1)
    for name, value in hub_weights().items():
        for old, new in names.items():
            name = name.replace(old, new)
        if "position_embeddings" not in name and not name.endswith("key.bias"):
            weights[name] = value
    places = ["encoder."] if shared else [f"encoder.layer.{i}.attention.attention." for i in range(LAYERS)]
    return weights | {place + TABLE: torch.randn(ROWS, HEADS, generator=generator) for place in places}


def in_timm(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The same weights under the names of timm, with the numbers of rows, which are no weights."""
    names = {"encoder.layer": "blocks", f"attention.attention.{TABLE}": "attn.relative_position_bias_table"}
    names |= {f"encoder.{TABLE}": "rel_pos_bias.relative_position_bias_table", "attention.output.dense": "attn.proj"}
    names |= {"attention.attention.query.bias": "attn.q_bias", "attention.attention.value.bias": "attn.v_bias"}
    names |= {
        "intermediate.dense": "mlp.fc1",
        "output.dense": "mlp.fc2",
        "lambda_": "gamma_",
        "pooler.layernorm": "fc_norm",
    }
    names |= {"layernorm_before": "norm1", "layernorm_after": "norm2", "embeddings.cls_token": "cls_token"}
    names |= {"embeddings.patch_embeddings.projection": "patch_embed.proj"}
    renamed = {"blocks.0.attn.relative_position_index": torch.zeros(10, 10, dtype=torch.long)}
    for name, value in weights.items():
        if "query.weight" in name:
            parts = [weights[name.replace("query", part)] for part in ("query", "key", "value")]
            renamed[f"blocks.{name.split('.')[2]}.attn.qkv.weight"] = torch.cat(parts)
        elif "key.weight" not in name and "value.weight" not in name and "mask_token" not in name:
            for old, new in names.items():
                name = name.replace(old, new)
            renamed[name] = value
    return renamed


def by_hand(w: dict[str, torch.Tensor], images: torch.Tensor) -> torch.Tensor:
    """The last block's tokens by BEiT's formulas, the bias of each pair of tokens looked up by itself."""
    x = F.conv2d(images, w["embeddings.patch_embeddings.projection.weight"], stride=PATCH).flatten(2).transpose(1, 2)
    x = x + w["embeddings.patch_embeddings.projection.bias"]
    x = torch.cat([w["embeddings.cls_token"].expand(len(x), -1, -1), x], 1)
    for i in range(LAYERS):
        layer = {k.split(f"layer.{i}.")[1]: v for k, v in w.items() if f"layer.{i}." in k}
        bias = torch.stack([torch.stack([row_of(layer, a, b) for b in range(1 + GRID**2)]) for a in range(1 + GRID**2)])
        y = F.layer_norm(x, (E,), layer["layernorm_before.weight"], layer["layernorm_before.bias"], 1e-6)
        q, k, v = (
            F.linear(y, layer[f"attention.attention.{n}.weight"], layer.get(f"attention.attention.{n}.bias"))
            for n in ("query", "key", "value")
        )
        mixed = []
        for head, part in enumerate(torch.arange(E).chunk(HEADS)):
            products = q[..., part] @ k[..., part].mT / len(part) ** 0.5
            mixed.append((products + bias[..., head]).softmax(-1) @ v[..., part])
        y = F.linear(torch.cat(mixed, -1), layer["attention.output.dense.weight"], layer["attention.output.dense.bias"])
        x = x + layer["lambda_1"] * y
        y = F.layer_norm(x, (E,), layer["layernorm_after.weight"], layer["layernorm_after.bias"], 1e-6)
        y = F.gelu(F.linear(y, layer["intermediate.dense.weight"], layer["intermediate.dense.bias"]))
        x = x + layer["lambda_2"] * F.linear(y, layer["output.dense.weight"], layer["output.dense.bias"])
    return x


def row_of(layer, a: int, b: int) -> torch.Tensor:
    """The biases (heads) of the query a and the key b; 0 is the class token."""
    table = layer[f"attention.attention.{TABLE}"]
    if not a or not b:
        return table[-1 if not (a or b) else -2 if not b else -3]
    (y, x), (v, u) = divmod(a - 1, GRID), divmod(b - 1, GRID)
    return table[(y - v + GRID - 1) * (2 * GRID - 1) + x - u + GRID - 1]


@pytest.fixture
def path(tmp_path):
    return saved(tmp_path / "beit.safetensors", beit())


def test_weights_compute_what_the_formulas_say(path):
    network, *_ = load_2d(path)
    images = torch.randn(2, 3, GRID * PATCH, GRID * PATCH)
    with torch.no_grad():
        torch.testing.assert_close(network(images)[-1], by_hand(beit(), images), **CLOSE)
    assert network.sizes["relative"] and not network.position_embeddings.any()


@pytest.mark.parametrize("shared", [False, True])
def test_names_of_timm_and_shared_tables(tmp_path, shared):
    images, weights = torch.randn(1, 3, 12, 12), beit(shared)
    files = [saved(tmp_path / f"{i}.safetensors", w) for i, w in enumerate((weights, in_timm(weights)))]
    with torch.no_grad():
        one, two = (load_2d(file)[0](images)[-1] for file in files)
    assert torch.equal(one, two)


@pytest.mark.parametrize("how", ["centre", "average"])
def test_an_inflated_window_gives_the_tokens_of_the_2d_network(path, how):
    network, *rgb = load_2d(path)
    sizes = network.sizes | {"as_2d": True}
    _, weights = deep((network, tuple(rgb), sizes), (12, 12, 3), (4, 4, 3), how)
    encoder = WindowEncoder(in_channels=1, img_size=(12, 12, 5), patch_size=4, depth=3, **sizes)
    encoder.vit.load_state_dict(weights)
    image = torch.rand(1, 1, 12, 12, 5)
    slice_ = image[..., 2] if how == "centre" else image[..., 1:4].mean(-1)
    with torch.no_grad():
        tokens = encoder(image)[0].view(1, 3, 3, 5, E)[:, :, :, 2].flatten(1, 2)
        torch.testing.assert_close(tokens, network.features(in_colours(slice_))[0], **CLOSE)


def test_in_a_volume_the_bias_is_that_of_the_plane(path):
    network, *rgb = load_2d(path)
    flat = (network, tuple(rgb), network.sizes | {"as_2d": True})
    encoder, weights = deep(flat, (12, 12, 8), (4, 4, 4), "centre")  # 3 x 3 x 2 tokens
    encoder.load_state_dict(weights)
    attention, plane = encoder.blocks[1].attn, network.blocks[1].attn
    bias = attention.relative_positions[attention.offsets][1:, 1:].unflatten(0, (9, 2)).unflatten(2, (9, 2))
    expected = plane.relative_positions[plane.offsets][1:, 1:]
    assert all(torch.equal(bias[:, i, :, j], expected) for i in range(2) for j in range(2))
    assert len(offsets_of((3, 3, 2)).unique()) == 5 * 5 * 3 + 3, "each offset in depth has a row of its own"


@pytest.mark.parametrize("network", ["unetr", "windows"])
@pytest.mark.parametrize("tables", ["bicubic", "geometric"])
def test_a_file_of_beit_is_inflated_for_another_grid(path, network, tables):
    sizes = {"in_channels": 1, "img_size": (16, 24, 8), "patch_size": 8, "hidden_size": 24, "mlp_dim": 24}
    encoder = (ViT if network == "unetr" else WindowEncoder)(**sizes, num_layers=2, num_heads=2)
    task = InflationTask(encoder=encoder, lr=1e-3, steps=10, weights=str(path), tables=tables)
    loss = task.losses(torch.randn(1, 1, 16, 24, 8), torch.Generator().manual_seed(0))["loss"]
    assert task.steps == 0 and loss.isfinite() and task.deep.config["relative"]
    table = task.deep.blocks[0].attn.relative_positions  # 2 x 3 tokens
    assert table.shape == (3 * 5 + 3, HEADS) and torch.equal(
        table[-3:], load_2d(path)[0].blocks[0].attn.relative_positions[-3:]
    )


def test_tables_are_no_matrices_to_decay():
    attention = RelativeAttention(hidden_size=8, num_heads=2, grid=(2, 2))
    _, kept = parameter_groups([(attention, 1.0)], lr=1.0, weight_decay=0.1)
    assert any(one is attention.relative_positions for one in kept["params"]) and kept["weight_decay"] == 0


def test_what_does_not_fit_is_refused_in_one_line(path, tmp_path):
    network, *_ = load_2d(path)
    with pytest.raises(CourseError, match=r"13 tokens: relative positions are of 10 tokens with the class token; give"):
        network(torch.randn(1, 3, 12, 16))
    weights = beit()
    weights["encoder.layer.1.attention.attention." + TABLE] = torch.randn(ROWS + 1, HEADS)
    refused(
        saved(tmp_path / "odd.safetensors", weights), r"blocks.1.attn.relative_positions is \(29, 3\), not \(28, 3\)"
    )
