"""How much cheaper is a step of MAE than one of SimMIM? The encoder sees visible tokens only.

    python benchmarks/mae_step.py          # OMP_NUM_THREADS=1 for one core

Prints milliseconds of forward, loss and backward (best of three) at a ViT 128 wide and 6 deep.
"""

import time

import torch

from ssl_utils.networks.vit import ViT
from ssl_utils.pretext.mae import MAETask
from ssl_utils.pretext.simmim import SimMIMTask
from ssl_utils.training import device

SETTINGS = (((32, 48, 32), 8, 8), ((48, 48, 48), 8, 8), ((96, 96, 96), 8, 1), ((48, 48, 48), 4, 2))  # roi, patch, batch
RACERS = {"SimMIM .6": (SimMIMTask, 0.6), "MAE .6": (MAETask, 0.6), "MAE .75": (MAETask, 0.75)}


def milliseconds(task, images: torch.Tensor, repeats: int = 3) -> float:
    best = float("inf")
    for _ in range(repeats + 1):  # the first warms up
        started = time.perf_counter()
        task.zero_grad()
        task.losses(images, task.generator(0))["loss"].backward()
        if images.is_cuda:
            torch.cuda.synchronize()
        best = min(best, time.perf_counter() - started)
    return 1000 * best


def main() -> None:
    print(f"{device()}, {torch.get_num_threads()} threads")
    print("tokens  batch  " + "  ".join(f"{name:>9}" for name in RACERS) + "  MAE .75 / SimMIM")
    for roi, patch, batch in SETTINGS:
        found = {}
        for name, (kind, ratio) in RACERS.items():
            encoder = ViT(
                in_channels=1, img_size=roi, patch_size=patch, hidden_size=128, mlp_dim=512, num_layers=6, num_heads=4
            )
            task = kind(encoder=encoder, lr=1e-3, steps=10, mask_ratio=ratio).to(device())
            found[name] = milliseconds(task, torch.randn(batch, 1, *roi, device=device()))
        numbers = "  ".join(f"{value:9.0f}" for value in found.values())
        print(f"{encoder.num_tokens:6}  {batch:5}  {numbers}  {found['MAE .75'] / found['SimMIM .6']:16.2f}")


if __name__ == "__main__":
    main()
