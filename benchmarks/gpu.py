"""How near the limit of one GPU the course's own code runs: `python -m benchmarks gpu`, under ten minutes.

Of every row: tokens a second (or crops, or windows), the share of the card's own rate of bf16 matrix products that its
counted operations reach, peak memory, and how far the output is from float32 on the CPU. Tests run the same code small
on a CPU.
"""

import sys
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from benchmarks.pretraining import BASE
from benchmarks.race import furthest, hardware, matrix_rate, operations, stepper, timed
from ssl_utils.experiments.runs import PROJECT, commit
from ssl_utils.files import write_json
from ssl_utils.networks.unetr import UNETR
from ssl_utils.networks.vit import ViT
from ssl_utils.pretext import TASKS, task_class
from ssl_utils.segmentation import inference
from ssl_utils.segmentation.finetune import SegmentationTask
from ssl_utils.training.devices import autocast, device

REFERENCE = PROJECT / "json_files" / "reference_gpu.json"


@dataclass(frozen=True)
class Size:
    """What is measured: sides of the crops in voxels, crops a step, the network, timed steps."""

    sides: tuple[int, ...] = (96, 128)
    batch: int = 16
    labelled_batch: int = 4
    network: tuple[tuple[str, int], ...] = tuple(BASE.items())
    feature_size: int = 16
    volume: tuple[int, int, int] = (288, 288, 288)
    repeats: int = 20
    matrix: int = 8192


def training_row(
    name: str, module, step: Callable[[], torch.Tensor], *, items: int, unit: str, rate: float, repeats: int
) -> dict:
    """Forward, backward and optimiser of a task whose `step` returns the loss."""
    whole = stepper(module, step)
    flops = operations(whole)
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    took = timed(whole, repeats)
    return row(name, took, items=items, unit=unit, flops=flops, rate=rate)


def row(name: str, took: float, *, items: int, unit: str, flops: float, rate: float) -> dict:
    memory = torch.cuda.max_memory_allocated() / 1e9 if torch.cuda.is_available() else float("nan")
    return {
        "name": name,
        "ms": round(1e3 * took, 2),
        "per_second": round(items / took, 1),
        "unit": unit,
        "tflops": float(f"{flops / took / 1e12:.4g}"),  # digits, not decimals: a busy laptop has thousandths
        "share_of_matrix_rate": round(flops / took / rate, 4),
        "memory_gb": round(memory, 2),
    }


def pretraining(size: Size, rate: float) -> list[dict]:
    found = []
    for side in size.sides:
        for name in TASKS:
            torch.manual_seed(0)
            encoder = ViT(in_channels=1, img_size=side, **dict(size.network))
            task = task_class(name)(encoder=encoder, lr=1e-4, steps=100).to(device())
            images = torch.randn(size.batch, 1, side, side, side, device=device())
            found.append(
                training_row(
                    f"{name}_{side}",
                    task,
                    lambda t=task, x=images: t.losses(x, t.generator(0))["loss"],
                    rate=rate,
                    items=size.batch * encoder.num_tokens,
                    unit="tokens",
                    repeats=size.repeats,
                )
            )
            found[-1]["error_to_float32_cpu"] = encoder_error(encoder, images[:1])
            del task, encoder, images
    return found


@torch.no_grad()
def encoder_error(encoder: ViT, images: torch.Tensor) -> float:
    """The largest difference of the tokens to float32 on the CPU, as a share of the largest of them."""
    with autocast():
        found = encoder(images)[0].float().cpu()
    return round(furthest(found, encoder.cpu()(images.cpu())[0]), 5)


def segmentation(size: Size, rate: float) -> list[dict]:
    side, classes = size.sides[0], 14
    torch.manual_seed(0)
    network = UNETR(
        in_channels=1, out_channels=classes, img_size=side, feature_size=size.feature_size, **dict(size.network)
    )
    task = SegmentationTask(
        network=network,
        values=list(range(classes)),
        regions=None,
        shares=np.full(classes, 1 / classes),
        held_out=[],
        roi=(side,) * 3,
        overlap=0.5,
        lr=1e-4,
        steps=100,
    ).to(device())
    shape = (size.labelled_batch, 1, side, side, side)
    batch = {"image": torch.randn(shape, device=device()), "label": torch.randint(0, classes, shape, device=device())}
    rows = [
        training_row(
            f"unetr_{side}",
            task,
            lambda: task.training_step(batch, 0),
            items=size.labelled_batch,
            unit="crops",
            rate=rate,
            repeats=size.repeats,
        )
    ]
    volume = np.random.default_rng(0).normal(size=(1, *size.volume)).astype(np.float32)

    def predict() -> torch.Tensor:
        return inference.predict_logits(network, volume, roi=(side,) * 3, overlap=0.5)

    with torch.no_grad():
        flops_a_window = operations(lambda: network(batch["image"][:1]))
    took, windows = timed(predict, 1), int(np.prod([-(-(n - side) // (side // 2)) + 1 for n in size.volume]))
    flops = flops_a_window * windows
    rows.append(row(f"sliding_window_{side}", took, items=windows, unit="windows", flops=flops, rate=rate))
    with torch.no_grad(), autocast():
        found = network(batch["image"][:1]).float().cpu()
    with torch.no_grad():
        exact = network.cpu()(batch["image"][:1].cpu())
    for one in rows:
        one["error_to_float32_cpu"] = round(furthest(found, exact), 5)
    return rows


def measure(size: Size) -> dict:
    rate = matrix_rate(size.matrix, size.repeats)
    rows = pretraining(size, rate) + segmentation(size, rate)
    return {"device": hardware(), "commit": commit(), "matrix_tflops": round(rate / 1e12, 2), "rows": rows}


def main(*, record: bool) -> str | int:
    if device() != "cuda":
        return "error: no GPU here that PyTorch can use; run this where nvidia-smi shows one"
    found = measure(Size())
    print(f"{found['device']}: {found['matrix_tflops']} TFLOP/s of bf16 matrix products")
    for one in found["rows"]:
        print(
            f"{one['name']:20} {one['ms']:9.2f} ms  {one['per_second']:12,.0f} {one['unit']}/s  "
            f"{100 * one['share_of_matrix_rate']:5.1f} % of the matrix rate  {one['memory_gb']:6.2f} GB  "
            f"error {one['error_to_float32_cpu']:.0e}"
        )
    if record:
        write_json(REFERENCE, found)
    return 0


if __name__ == "__main__":
    sys.exit(main(record=False))
