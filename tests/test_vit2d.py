"""The 2D ViT reads weights under the names of the hubs, and computes what they mean."""

import json

import pytest
import torch
from safetensors.torch import save_file
from torch.nn import functional as F

from ssl_utils.errors import CourseError
from ssl_utils.networks.vit2d import HALF, IMAGENET, load_2d, resize_positions

E, LAYERS, PATCH, GRID, MLP = 24, 2, 4, 3, 48


def hub_weights(prefix: str = "") -> dict[str, torch.Tensor]:
    """A tiny random ViT under the names of transformers' Dinov2Model."""
    generator = torch.Generator().manual_seed(0)

    def draw(*shape):
        return torch.randn(*shape, generator=generator) * 0.3

    weights = {
        "embeddings.cls_token": draw(1, 1, E),
        "embeddings.mask_token": draw(1, E),
        "embeddings.position_embeddings": draw(1, 1 + GRID**2, E),
        "embeddings.patch_embeddings.projection.weight": draw(E, 3, PATCH, PATCH),
        "embeddings.patch_embeddings.projection.bias": draw(E),
        "layernorm.weight": 1 + draw(E),
        "layernorm.bias": draw(E),
    }
    linear = {f"attention.attention.{name}": (E, E) for name in ("query", "key", "value")}
    linear |= {"attention.output.dense": (E, E), "mlp.fc1": (MLP, E), "mlp.fc2": (E, MLP)}
    for i in range(LAYERS):
        layer = f"encoder.layer.{i}"
        for name, (outputs, inputs) in linear.items():
            weights |= {f"{layer}.{name}.weight": draw(outputs, inputs), f"{layer}.{name}.bias": draw(outputs)}
        for n in (1, 2):
            weights |= {f"{layer}.norm{n}.weight": 1 + draw(E), f"{layer}.norm{n}.bias": draw(E)}
            weights[f"{layer}.layer_scale{n}.lambda1"] = draw(E)
    return {prefix + name: value for name, value in weights.items()}


def timm_weights() -> dict[str, torch.Tensor]:
    """The same weights under the names of timm."""
    names = {"embeddings.cls_token": "cls_token", "embeddings.position_embeddings": "pos_embed"}
    names |= {f"embeddings.patch_embeddings.projection.{w}": f"patch_embed.proj.{w}" for w in ("weight", "bias")}
    weights, hub = {"head.weight": torch.zeros(10, E)}, hub_weights()
    for name in [name for name in hub if "attention.attention.query" in name]:
        parts = [hub.pop(name.replace("query", part)) for part in ("query", "key", "value")]
        weights[name.replace("attention.attention.query", "attn.qkv").replace("encoder.layer", "blocks")] = torch.cat(
            parts
        )
    for name, value in hub.items():
        name = names.get(name, name).replace("encoder.layer", "blocks").replace("attention.output.dense", "attn.proj")
        name = name.replace("layer_scale", "ls").replace("lambda1", "gamma").replace("layernorm.", "norm.")
        weights |= {} if "mask_token" in name else {name: value}
    return weights


def saved(path, weights, **metadata):
    metadata = {"num_heads": 3, "image_mean": [0.5, 0.4, 0.3], "image_std": [0.2, 0.3, 0.4]} | metadata
    save_file(weights, path, {key: json.dumps(value) for key, value in metadata.items() if value is not None})
    return path


def by_hand(w: dict[str, torch.Tensor], images: torch.Tensor, heads: int = 3) -> torch.Tensor:
    """The last block's tokens by the formulas, one head at a time, for images of the grid of the positions."""
    x = F.conv2d(images, w["embeddings.patch_embeddings.projection.weight"], stride=PATCH).flatten(2).transpose(1, 2)
    x = x + w["embeddings.patch_embeddings.projection.bias"]
    x = torch.cat([w["embeddings.cls_token"].expand(len(x), -1, -1), x], 1) + w["embeddings.position_embeddings"]
    for i in range(LAYERS):
        layer = {k.split(f"layer.{i}.")[1]: v for k, v in w.items() if f"layer.{i}." in k}
        y = F.layer_norm(x, (E,), layer["norm1.weight"], layer["norm1.bias"], 1e-6)
        q, k, v = (
            F.linear(y, layer[f"attention.attention.{n}.weight"], layer[f"attention.attention.{n}.bias"])
            for n in ("query", "key", "value")
        )
        mixed = []
        for part in torch.arange(E).chunk(heads):
            table = (q[..., part] @ k[..., part].mT / len(part) ** 0.5).softmax(-1)
            mixed.append(table @ v[..., part])
        y = F.linear(torch.cat(mixed, -1), layer["attention.output.dense.weight"], layer["attention.output.dense.bias"])
        x = x + layer["layer_scale1.lambda1"] * y
        y = F.layer_norm(x, (E,), layer["norm2.weight"], layer["norm2.bias"], 1e-6)
        y = F.linear(F.gelu(F.linear(y, layer["mlp.fc1.weight"], layer["mlp.fc1.bias"])), layer["mlp.fc2.weight"])
        x = x + layer["layer_scale2.lambda1"] * (y + layer["mlp.fc2.bias"])
    return F.layer_norm(x, (E,), w["layernorm.weight"], w["layernorm.bias"], 1e-6)


def refused(path, words: str, **options) -> None:
    with pytest.raises(CourseError, match=words) as caught:
        load_2d(path, **options)
    assert "\n" not in str(caught.value) and str(path) in str(caught.value)


def test_hub_weights_compute_what_the_formulas_say(tmp_path):
    network, mean, deviation = load_2d(saved(tmp_path / "model.safetensors", hub_weights()))
    images = torch.randn(2, 3, GRID * PATCH, GRID * PATCH)
    with torch.no_grad():
        tokens, first = network.features(images)
        expected = by_hand(hub_weights(), images)
    torch.testing.assert_close(tokens, expected[:, 1:], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(first, expected[:, 0], atol=1e-5, rtol=1e-5)
    assert (mean, deviation) == ((0.5, 0.4, 0.3), (0.2, 0.3, 0.4))
    assert network.sizes == {"hidden_size": E, "mlp_dim": MLP, "num_layers": LAYERS, "num_heads": 3}


def test_timm_and_wrapped_names_are_the_same_network(tmp_path):
    images = torch.randn(1, 3, 12, 12)
    with torch.no_grad():
        one, two, three = (
            load_2d(saved(tmp_path / f"{i}.safetensors", weights))[0].features(images)[0]
            for i, weights in enumerate((hub_weights(), timm_weights(), hub_weights("dinov2.")))
        )
    assert torch.equal(one, two) and torch.equal(one, three)


def test_without_layer_scale_it_is_one(tmp_path):
    plain = {name: value for name, value in hub_weights().items() if "layer_scale" not in name}
    ones = {name: torch.ones_like(value) if "layer_scale" in name else value for name, value in hub_weights().items()}
    images = torch.randn(1, 3, 12, 12)
    with torch.no_grad():
        one, two = (
            load_2d(saved(tmp_path / f"{i}.safetensors", w))[0].features(images)[0] for i, w in enumerate((plain, ones))
        )
    assert torch.equal(one, two)


def test_rectangular_images_and_blocks(tmp_path):
    network, *_ = load_2d(saved(tmp_path / "model.safetensors", hub_weights()))
    with torch.no_grad():
        hidden = network(torch.randn(1, 3, 8, 20))
        tokens, first = network.features(torch.randn(1, 3, 8, 20), block=0)
    assert [tuple(h.shape) for h in hidden] == [(1, 11, E)] * LAYERS
    assert tokens.shape == (1, 10, E) and first.shape == (1, E)
    with pytest.raises(CourseError, match="multiples of 4"):
        network(torch.randn(1, 3, 8, 18))


def test_the_class_token_keeps_its_position_first():
    positions = torch.randn(1, 10, E)
    resized = resize_positions(positions, (3, 3), (6, 5))
    assert resized.shape == (1, 31, E) and torch.equal(resized[:, 0], positions[:, 0])
    constant = torch.cat([positions[:, :1], torch.ones(1, 9, E)], 1)
    torch.testing.assert_close(resize_positions(constant, (3, 3), (7, 4))[:, 1:], torch.ones(1, 28, E))
    assert resize_positions(positions, (3, 3), (3, 3)) is positions


def test_statistics_and_heads_come_from_the_hubs_files(tmp_path):
    path = saved(tmp_path / "model.safetensors", hub_weights(), num_heads=None, image_mean=None, image_std=None)
    refused(path, "mean and standard deviation .* unknown; put preprocessor_config.json")
    (tmp_path / "preprocessor_config.json").write_text('{"image_mean": [0.1, 0.2, 0.3], "image_std": [1, 1, 1]}')
    refused(path, "0 heads for a width of 24; pass num_heads=")
    assert load_2d(path, num_heads=2)[0].num_heads == 2
    (tmp_path / "config.json").write_text('{"num_attention_heads": 4, "layer_norm_eps": 1e-3}')
    network, mean, _ = load_2d(path)
    assert (network.num_heads, network.norm.eps, mean) == (4, 1e-3, (0.1, 0.2, 0.3))
    for name, expected in (("dino_vitb16", IMAGENET), ("beit_base", HALF)):
        (folder := tmp_path / name).mkdir()
        path = saved(folder / f"{name}.safetensors", hub_weights(), image_mean=None)
        assert load_2d(path)[1:] == expected


def test_bad_files_are_refused_in_one_line(tmp_path):
    def broken(name, **changes):
        weights = hub_weights()
        for key, value in changes.items():
            found = next(k for k in weights if key in k)
            weights[found] = value if value is not None else weights[found]
            weights = weights if value is not None else {k: v for k, v in weights.items() if k != found}
        return saved(tmp_path / f"{name}.safetensors", weights)

    refused(tmp_path / "nothing.safetensors", "no such file; put model.safetensors of facebook/dinov2-small")
    refused(broken("a", cls_token=None), "has no class token")
    refused(
        broken("b", projection=torch.randn(32, 3, PATCH, PATCH)), r"patch projection \(32, 3, 4, 4\), class token 24"
    )
    refused(broken("c", projection=torch.randn(E, 3, 4, 2)), r"expected \(width, channels, p, p\)")
    refused(broken("d", position_embeddings=torch.randn(1, 8, E)), "7 positions .* no square")
    refused(broken("e", lambda1=torch.randn(12)), r"scale1.weight is \(12,\), not \(24,\)")
    refused(broken("f", norm2=torch.full((E,), torch.nan)), "NaN")
    refused(broken("g", dense=None), "lacks blocks.0.attn.out_proj")
    extra = saved(tmp_path / "h.safetensors", hub_weights() | {"embeddings.register_tokens": torch.randn(1, 4, E)})
    refused(extra, "has, but a plain ViT has not, embeddings.register_tokens")
