"""Tests that need packages of nnU-Net, which the environment of `make nnunet` has: marked, and skipped elsewhere."""

from importlib.util import find_spec

import pytest


def needs(package: str):
    """Decorator of such a test."""
    skipped = pytest.mark.skipif(not find_spec(package), reason=f"no {package}: make nnunet runs it")
    return lambda test: pytest.mark.nnunet(skipped(test))


NETWORKS = "dynamic_network_architectures"
RESENC = pytest.param(
    "resenc_unet", marks=[pytest.mark.nnunet, pytest.mark.skipif(not find_spec(NETWORKS), reason="make nnunet runs it")]
)
