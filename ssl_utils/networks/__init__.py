"""Segmentation networks behind one interface. One file = one network; adding one means adding a line here.

The interface is `interface.SegmentationNetwork`. Importing this registry needs no PyTorch.
"""

from collections.abc import Mapping
from importlib import import_module
from typing import Any, NamedTuple

from ssl_utils.errors import CourseError


class Entry(NamedTuple):
    """The file in `networks/`, and the class in it."""

    module: str
    network: str


NETWORKS = {  # name -> entry
    "unetr": Entry("unetr", "UNETR"),
    "unet": Entry("unet", "UNet"),
    "unet_plain": Entry("unet_plain", "PlainUNet"),
    "mednext": Entry("mednext", "MedNeXt"),
    "mednext_b": Entry("mednext", "MedNeXtB"),
    "mednext_m": Entry("mednext", "MedNeXtM"),
    "mednext_l": Entry("mednext", "MedNeXtL"),
    "resenc_unet": Entry("resenc_unet", "ResEncUNet"),
    "window_vit": Entry("window_vit", "WindowViT"),
}


def network_class(name: str) -> type:
    """The class of a network.

    Raises:
        CourseError: no such network.
    """
    if name not in NETWORKS:
        raise CourseError(f"network={name!r}: no such network; choose one of {', '.join(NETWORKS)}")
    return getattr(import_module(f"ssl_utils.networks.{NETWORKS[name].module}"), NETWORKS[name].network)


def build(config: Mapping[str, Any]):
    """The network of a `config`. Older files do not name it: a UNETR has patches, a U-Net has not.

    Raises:
        CourseError: no such network, or sizes that do not fit each other.
    """
    sizes = dict(config)
    name = sizes.pop("network", "unetr" if "patch_size" in sizes else "unet")
    return network_class(name)(**sizes)
