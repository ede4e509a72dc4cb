"""The device and the precision of training and prediction. Without Lightning, whose import takes seconds."""

import torch


def device() -> str:
    """The fastest device of this machine: `cuda`, `mps` or `cpu`."""
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def precision() -> str:
    """`bf16-mixed` where the device multiplies bfloat16 natively, else `32-true`.

    On a processor with AVX-512 bf16 a UNETR step took 0.21 s instead of 0.33 s. Activations keep 8 bits of mantissa, so
    results differ from a float32 run as much as with another seed; weights and losses stay float32.
    """
    native = torch.cuda.is_bf16_supported(False) if device() == "cuda" else torch.cpu._is_avx512_bf16_supported()
    return "bf16-mixed" if native and device() != "mps" else "32-true"


def autocast(device_type: str | None = None) -> torch.autocast:
    """Compute a block in the precision of training, on this type of device (default: that of `device`)."""
    return torch.autocast(device_type or device(), torch.bfloat16, enabled=precision() == "bf16-mixed")
