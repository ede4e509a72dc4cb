"""Low-rank adaptation of a diffusion model to other images: W + (alpha / r) B A, of which only A and B are trained.

LoRA: Hu et al. 2022, arXiv:2106.09685, by the package peft. For a convolution A is one with r outputs and the kernel
of W, and B one of kernel 1.
"""

from typing import Any

from torch import nn

from ssl_utils.errors import CourseError
from ssl_utils.synthesis.diffusion import Denoiser

RANK = 1
PUBLISHED_RANK = 8
LAYERS = ("convolutions", "time", "time+output")


def layer_names(denoiser: Denoiser, layers: str) -> list[str]:
    """The layers that are adapted: `convolutions`, the second one of every residual block and all of attention;
    `time`, the projections of the time embedding in the last three blocks of the way up.

    Raises:
        CourseError: another choice.
    """
    if layers not in LAYERS:
        raise CourseError(f"layers={layers!r}: unknown; choose one of {', '.join(LAYERS)}")
    names = [name for name, module in denoiser.named_modules() if isinstance(module, nn.Linear | nn.Conv3d)]
    if layers == "convolutions":
        return [name for name in names if ".conv2." in name or ".attn." in name]
    projections = [name for name in names if "up_blocks" in name and name.endswith("time_emb_proj")]
    return projections[-3:]


def adapter(denoiser: Denoiser, *, layers: str = "convolutions", rank: int | None = None, seed: int = 0) -> nn.Module:
    """The network with its weights frozen and an adapter beside these layers; B is zero, so it computes what it did.

    `time` and `time+output` are what BraTS-UGRIP did: rank 8 in the time embedding alone; with `+output` the last
    convolution is trained as well. The given network is changed: `merged` gives it back.

    Raises:
        CourseError: the package peft is missing, an unknown choice of layers, or a rank below 1.
    """
    import torch

    peft, rank = _peft(), rank if rank is not None else RANK if layers == "convolutions" else PUBLISHED_RANK
    if rank < 1:
        raise CourseError(f"rank={rank}: is not positive; choose 1 or more")
    names = layer_names(denoiser, layers)
    whole = ["unet.out.2.conv"] if layers == "time+output" else None
    torch.manual_seed(seed)
    config = peft.LoraConfig(r=rank, lora_alpha=rank, target_modules=names, modules_to_save=whole)
    return peft.get_peft_model(denoiser, config)


def merged(adapted: Any) -> Denoiser:
    """The network with W + B A in place of W: an ordinary one again, as fast as before."""
    return adapted.merge_and_unload()


def trained_share(network: nn.Module) -> float:
    """The share (0..1) of the parameters that are trained."""
    counts = [(p.numel(), p.requires_grad) for p in network.parameters()]
    return sum(n for n, trained in counts if trained) / sum(n for n, _ in counts)


def _peft():
    try:
        import peft
    except ImportError:
        raise CourseError("LoRA needs the package peft, which is not installed; run pip install -e '.[lora]'") from None
    return peft
