"""The code in a model card: how to load its weights, in MONAI alone or in this package."""

from collections.abc import Mapping
from typing import Any

from ssl_utils.networks import NETWORKS


def arguments(config: Mapping[str, Any], *without: str) -> str:
    """The sizes of a network as arguments of its class."""
    left_out = ("network", "dropout", *without)
    sizes = {key: tuple(v) if isinstance(v, list) else v for key, v in config.items() if key not in left_out}
    return ", ".join(f"{key}={value!r}" for key, value in sizes.items())


def in_monai(config: Mapping[str, Any]) -> str:
    """Code that needs MONAI and safetensors alone, except for a UNETR that MONAI lacks; a test runs it."""
    encoder = f"""\
```python
from monai.networks.nets import ViT
from safetensors.torch import load_file

vit = ViT({arguments(config)})
left = vit.load_state_dict(load_file("encoder.safetensors"), strict=False)
assert not left.unexpected_keys and all("cross_attn" in key for key in left.missing_keys)  # MONAI does not use those
```
`tokens, hidden = vit(crop)` then gives the tokens of this encoder."""
    if config["patch_size"] == [16, 16, 16] and config["num_layers"] == 12:
        return f"""{encoder} Into MONAI's UNETR:

```python
from monai.networks.nets import UNETR

unetr = UNETR(out_channels=2, {arguments(config, "patch_size", "num_layers")})
unetr.vit.load_state_dict(vit.state_dict())
```"""
    return f"""{encoder} MONAI's UNETR is limited to patches of 16 voxels and 12 blocks; that of this package takes it:

{in_package(config)}"""


def in_package(config: Mapping[str, Any]) -> str:
    module, network = NETWORKS[config.get("network", "unetr")]
    return f"""\
```python
from ssl_utils.networks.transfer import load_encoder
from ssl_utils.networks.{module} import {network}

{module} = {network}(out_channels=2, {arguments(config)})
print(load_encoder({module}.encoder, "encoder.safetensors").table())
```"""
