"""Windows of slices from the cache against slice files as TransSeg writes them, a step of an inflated network against
one of the 2D network with the same tokens, and a volume segmented at once against slice by slice, as published."""

import tempfile
from pathlib import Path

import nibabel
import numpy as np
import torch
from einops import rearrange
from torch import Tensor

from benchmarks.race import furthest, race
from ssl_utils.data.cache import Prepared
from ssl_utils.data.datalists import Case
from ssl_utils.data.windows import Windows, neighbours, slices_of, windows
from ssl_utils.files import write_json
from ssl_utils.networks.inflate import flat_weights, inflated, vit_3d
from ssl_utils.networks.vit2d import IMAGENET, ViT2D
from ssl_utils.networks.window_vit import WindowViT, windows_of
from ssl_utils.segmentation.inference import predict_logits
from ssl_utils.training.devices import autocast, device

SHAPE, DEPTH = (512, 512, 300), 5
SMALL = {"hidden_size": 384, "mlp_dim": 1536, "num_layers": 12, "num_heads": 6}  # ViT-S


def windows_per_second(*, repeats: int, shape: tuple[int, int, int] = SHAPE, files: int = 8) -> dict:
    """The image alone, as for a volume without labels; theirs are read one by one, unlabelled too."""
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        image = rng.integers(0, 4096, (1, *shape)).astype(np.float16) / 4096
        np.save(folder / "image.npy", image)
        write_json(folder / "case.json", {"mean": 0.5, "std": 0.3})
        case = Prepared("ct", "ct", folder, Case("ct", folder / "ct.nii.gz", None, "ct"))
        blocks = Windows([case], seed=0, depth=DEPTH)
        first = [int(n) for n in rng.integers(shape[2], size=files)]
        for i, at in enumerate(first):
            window = image[0][..., neighbours(at, 1, depth=DEPTH, total=shape[2])] * 4096
            nibabel.save(nibabel.Nifti1Image(window.astype(np.int16), np.eye(4)), folder / f"img0001_{i:03d}.nii.gz")

        def theirs() -> list[torch.Tensor]:
            read = (nibabel.load(path).get_fdata(dtype=np.float32) for path in sorted(folder.glob("img*.nii.gz")))
            return [torch.from_numpy((window / 4096 - 0.5) / 0.3) for window in read]

        apart = (theirs()[0] - _window(case, first[0])).abs().max()
        return race(
            "windows_per_second",
            lambda: [blocks[i] for i in range(2)],
            theirs,
            made=(2 * len(blocks[0]["image"]), files),
            equality=f"the same window differs by {float(apart):.1e}, of float16 and int16",
            repeats=repeats,
            unit="windows a second",
        )


def _window(case: Prepared, at: int) -> torch.Tensor:
    numbers = neighbours(at, 1, depth=DEPTH, total=case.image.shape[3])
    return windows(slices_of(case, numbers), DEPTH)[0, 0]


def inflated_step(*, repeats: int, batch: int = 2, side: int = 224, patch: int = 16, sizes: dict = SMALL) -> dict:
    """Forward, backward and optimiser on windows of five slices, against the 2D network on their middle slices."""
    where, grid = device(), (side // patch,) * 2
    plain = ViT2D(patch_size=patch, grid=grid, **sizes, in_channels=3).to(where)
    flat = vit_3d(in_channels=1, img_size=(side, side, 1), patch_size=(patch, patch, 1), **sizes, as_2d=True)
    deep = vit_3d(in_channels=1, img_size=(side, side, DEPTH), patch_size=(patch, patch, DEPTH), **sizes, as_2d=True)
    deep.load_state_dict(inflated(flat_weights(plain.cpu(), IMAGENET, flat, unit=(0, 1)), deep))
    plain, deep = plain.to(where), deep.to(where)
    images = torch.rand(batch, 1, side, side, DEPTH, device=where)
    mean, deviation = (torch.tensor(numbers, device=where).view(1, 3, 1, 1) for numbers in IMAGENET)
    colours = (images[..., DEPTH // 2].expand(-1, 3, -1, -1) - mean) / deviation
    with torch.no_grad():
        apart = furthest(deep(images)[0], plain.features(colours)[0])
    return race(
        "inflated_step",
        _step(deep, lambda: deep(images)[0]),
        _step(plain, lambda: plain.features(colours)[0]),
        equality=f"tokens differ by {apart:.1e}",
        repeats=repeats,
    )


def _step(network: torch.nn.Module, tokens):
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-6, fused=True)

    def step() -> None:
        optimizer.zero_grad()
        tokens().square().mean().backward()
        optimizer.step()

    return step


def volume_prediction(*, repeats: int, side: int = 96, slices: int = 48, patch: int = 8, sizes: dict = SMALL) -> dict:
    """The logits of a volume, its slices in batches, against one window of slices after the other."""
    crop = {"img_size": (side, side, slices), "patch_size": patch}
    network = WindowViT(in_channels=1, out_channels=6, depth=DEPTH, **crop, **sizes, as_2d=True).to(device()).eval()
    image = np.random.default_rng(0).normal(size=(1, side, side, slices)).astype(np.float32)

    def ours() -> Tensor:
        return predict_logits(network, image, roi=(side, side, slices), overlap=0.25)

    def theirs() -> Tensor:
        return slice_by_slice(network, torch.from_numpy(image)[None].to(device()))

    apart = furthest(ours(), theirs())
    return race(
        "window_prediction",
        ours,
        theirs,
        equality=f"logits differ by {apart:.1e}",
        repeats=repeats,
        unit="seconds a volume",
    )


@torch.inference_mode()
def slice_by_slice(network: WindowViT, image: Tensor) -> Tensor:
    """Logits (K, D, H, W) of an image (1, C, D, H, W)."""
    windows, logits = windows_of(image, network.windows.depth), []
    (h, w, _), vit = network.windows.vit.grid, network.windows.vit
    with autocast(image.device.type):
        for s in range(image.shape[4]):
            last, *inner = (
                rearrange(tokens, "b (h w) e -> b e h w", h=h, w=w)
                for part in vit(windows[..., s, :])
                for tokens in (part if isinstance(part, list) else [part])
            )
            levels = network.decoder(image[..., s], last, inner)
            logits.append(network.out(levels[-1][..., None])[0].float().cpu())
    return torch.cat(logits, -1)
