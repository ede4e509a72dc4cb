"""What each lever is worth: the same step with it and without it, at the sizes of scale laptop unless named.

python -m benchmarks.levers kept|freed        # seconds of a fine-tuning step in this process
"""

import sys
from unittest import mock

import numpy as np
import torch

from benchmarks import segmentation
from benchmarks.pretraining import BASE, SMALL, pretraining_step
from benchmarks.race import furthest, in_child, product, race, row, stepper, timed
from ssl_utils.data import datasets
from ssl_utils.networks import transformer
from ssl_utils.networks.heads import TransposedConvHead
from ssl_utils.networks.unetr import UNETR
from ssl_utils.networks.vit import PatchEmbedding, ViT
from ssl_utils.pretext.restoration import RestorationTask
from ssl_utils.pretext.simmim import SimMIMTask
from ssl_utils.segmentation import inference
from ssl_utils.segmentation.finetune import SegmentationTask
from ssl_utils.training.devices import autocast, device
from ssl_utils.training.processes import keep_freed_memory

ROI, PATCH = datasets.get("phantom").grids["coarse"].roi, 8


def finetuning(memory_format: torch.memory_format | None = None, half: bool = True):
    """A fine-tuning step of scale laptop: batch 2, 14 classes."""
    torch.manual_seed(0)
    network = UNETR(in_channels=1, out_channels=14, img_size=ROI, patch_size=PATCH, feature_size=8, **SMALL)
    task = SegmentationTask(
        network=network,
        values=list(range(14)),
        regions=None,
        shares=np.full(14, 1 / 14),
        held_out=[],
        roi=ROI,
        overlap=0.25,
        lr=1e-3,
        steps=100,
    ).to(device())
    if memory_format is not None:
        network.to(memory_format=memory_format)
    labels = torch.randint(0, 14, (2, 1, *ROI), device=device())
    batch = {"image": torch.randn(2, 1, *ROI, device=device()), "label": labels}
    return stepper(task, lambda: task.training_step(batch, 0), half=half)


def bf16(*, repeats: int) -> dict:
    return race("lever_bf16", finetuning(), finetuning(half=False), equality="same initialisation", repeats=repeats)


def matrix_products(*, repeats: int, size: int = 2048) -> dict:
    """The ceiling of every step that does the same products as a published one in float32."""
    rivals = product(size, torch.bfloat16), product(size, torch.float32)
    equality, unit = f"two matrices of {size} x {size}, by PyTorch", "seconds a product"
    return race("matrix_products", *rivals, equality=equality, repeats=repeats, unit=unit)


def channels_last(*, repeats: int) -> dict:
    rivals = finetuning(torch.channels_last_3d), finetuning(torch.contiguous_format)
    return race("lever_channels_last", *rivals, equality="same initialisation, same numbers", repeats=repeats)


def plain_attention(*, repeats: int) -> dict:
    return _attention("lever_plain_attention", RestorationTask, size=ROI, batch=8, repeats=repeats)


def tiled_attention(*, repeats: int) -> dict:
    """Crops of 96^3 in patches of 8: 1728 tokens."""
    return _attention("lever_tiled_attention", SimMIMTask, size=(96, 96, 96), batch=2, repeats=repeats)


def _attention(name: str, kind, *, size: tuple[int, int, int], batch: int, repeats: int) -> dict:
    torch.manual_seed(0)
    task = kind(encoder=ViT(in_channels=1, img_size=size, patch_size=PATCH, **SMALL), lr=1e-3, steps=100).to(device())
    step = pretraining_step(task, torch.randn(batch, 1, *size, device=device()))

    def fused(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, *, dropout: float) -> torch.Tensor:
        return torch.nn.functional.scaled_dot_product_attention(q, k, v, dropout_p=dropout)

    def fused_step() -> None:
        with mock.patch.object(transformer, "attention", fused):
            step()

    equality = "same task; outputs compared in tests/test_vit.py"
    return race(name, step, fused_step, equality=equality, repeats=repeats)


def both_ways(forward, *given):
    """A layer forward and backward, as a piece of work."""

    def work() -> None:
        with autocast():
            out = forward(*given)
        out.float().square().mean().backward()

    return work


def patch_embedding(*, repeats: int, side: int = 192, patch: int = 16, hidden_size: int = 768) -> dict:
    """Forward and backward of the layer alone."""
    layer = PatchEmbedding(
        in_channels=1, patch_size=(patch,) * 3, hidden_size=hidden_size, grid=(side // patch,) * 3
    ).to(device())
    crop = torch.randn(1, 1, side, side, side, device=device())

    def convolution(x: torch.Tensor) -> torch.Tensor:
        return layer.patch_embeddings(x).flatten(2).transpose(1, 2)

    with torch.no_grad():
        equality = f"outputs within {furthest(layer(crop), convolution(crop)):.0e} of the largest, float32"
    rivals = (both_ways(forward, crop) for forward in (layer, convolution))
    return race("lever_patch_embedding", *rivals, equality=equality, repeats=repeats)


def head(*, repeats: int) -> dict:
    """The head that restores crops, forward and backward: 16 crops of scale laptop."""
    torch.manual_seed(0)
    layers = TransposedConvHead(hidden_size=SMALL["hidden_size"], patch_size=PATCH, out_channels=1).to(device())
    grid = tuple(n // PATCH for n in ROI)
    tokens = torch.randn(16, int(np.prod(grid)), SMALL["hidden_size"], device=device(), requires_grad=True)

    def convolutions(x: torch.Tensor, grid: tuple[int, ...]) -> torch.Tensor:
        return layers.conv3d_transpose_1(layers.conv3d_transpose(x.transpose(1, 2).unflatten(2, grid)))

    with torch.no_grad():
        apart = furthest(layers(tokens, grid), convolutions(tokens, grid))
    equality = f"outputs within {apart:.0e} of the largest, float32"
    rivals = (both_ways(forward, tokens, grid) for forward in (layers, convolutions))
    return race("lever_head", *rivals, equality=equality, repeats=repeats)


def fused_adamw(*, repeats: int) -> dict:
    """The update of ViT-B's 88 million weights."""
    rivals = []
    for fused in (True, None):
        network = ViT(in_channels=1, img_size=96, **BASE).to(device())
        for parameter in network.parameters():
            parameter.grad = torch.ones_like(parameter)
        rivals.append(torch.optim.AdamW(network.parameters(), fused=fused).step)
    equality = "PyTorch's own two ways"
    return race("lever_fused_adamw", *rivals, equality=equality, repeats=repeats, unit="seconds an update")


def straight_axes(*, repeats: int) -> dict:
    """Scores of 14 classes from a grid of 6 mm to the voxels of a file of 3 x 3 x 4 mm."""
    scores = torch.rand(14, 57, 44, 50)
    to_index, size = torch.diag(torch.tensor([0.5, 0.5, 0.67, 1.0])), torch.tensor([57.0, 44.0, 50.0])
    axes = [torch.arange(n).float() for n in (124, 108, 75)]
    rivals = [lambda f=f: f(scores, axes, to_index, size) for f in (inference._straight, inference._oblique)]
    equality = f"values within {furthest(rivals[0]()[0], rivals[1]()[0]):.0e} of the largest"
    return race("lever_straight_axes", *rivals, equality=equality, repeats=repeats, unit="seconds a volume")


def freed_memory(*, repeats: int) -> dict:
    """A step of UNETR with ViT-B on a crop of 96^3; a process each, in turns, for what one has kept the other finds."""
    told = {how: [] for how in ("kept", "freed")}
    for _ in range(repeats):
        for how, found in told.items():
            found.append(float(in_child("benchmarks.levers", how)))
    ours, theirs = (float(np.median(found)) for found in told.values())
    return row(
        "lever_freed_memory",
        ours=ours,
        theirs=theirs,
        ratio=theirs / ours,
        unit="seconds a step",
        repeats=repeats,
        equality="same step, a process each",
    )


if __name__ == "__main__":
    if sys.argv[1] == "kept":
        keep_freed_memory()
    network, _ = segmentation.networks(segmentation.BASE)
    print(timed(segmentation.own_step(network, segmentation.labelled(1)), 3))
