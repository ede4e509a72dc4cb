"""Checks of chapter 11: a kernel between centre and average, positions with a class token, the cost of depth."""

import torch
from torch.nn import functional as F

from course.exercises import Wrong, array, exercise, number


@exercise("11.1")
def _(answer):
    kernel = torch.arange(1.0, 25).view(2, 3, 2, 2) / 10
    for depth, share in ((5, 0.6), (3, 1.0), (7, 1 / 7), (1, 0.5)):
        thick = torch.as_tensor(
            array(answer(kernel.clone(), depth, share), (*kernel.shape, depth)), dtype=torch.float32
        )
        context = f"At depth {depth} with share {share:.2f}"
        middle, total = thick[..., depth // 2], thick.sum(-1)
        if not torch.allclose(total, kernel, atol=1e-5):
            raise Wrong(f"{context} the slices do not add up to the kernel.")
        if depth > 1 and not torch.allclose(middle, share * kernel, atol=1e-5):
            raise Wrong(f"{context} the middle slice is not that share of the kernel.")
        others = torch.cat([thick[..., : depth // 2], thick[..., depth // 2 + 1 :]], -1)
        if depth > 1 and not torch.allclose(others, others[..., :1].expand_as(others), atol=1e-5):
            raise Wrong(f"{context} the other slices differ from each other.")
    return "The mean of any window of equal slices passes unchanged, whatever the share."


def _resize(positions, old, new, **options):
    first, grid = positions[:, :1], positions[:, 1:].transpose(1, 2).unflatten(2, old)
    resized = F.interpolate(grid, size=new, **{"mode": "bicubic", "align_corners": False} | options)
    return torch.cat([first, resized.flatten(2).transpose(1, 2)], 1)


@exercise("11.2")
def _(answer):
    for old, new in (((3, 5), (6, 4)), ((4, 4), (4, 4))):
        positions = torch.randn(1, 1 + old[0] * old[1], 6, generator=torch.Generator().manual_seed(sum(old)))
        true = _resize(positions, old, new)
        yours = torch.as_tensor(array(answer(positions.clone(), old, new), true.shape), dtype=true.dtype)
        context = f"From {old} to {new}"
        if not torch.allclose(yours[:, 0], positions[:, 0], atol=1e-5):
            raise Wrong(f"{context} the class token is not the first any more, or has changed.")
        if torch.allclose(yours, true, atol=1e-4):
            continue
        if torch.allclose(yours, _resize(positions, old, new, align_corners=True), atol=1e-4):
            raise Wrong(f"{context} the corners are aligned; patches are areas, not points.")
        if torch.allclose(yours, _resize(positions, old[::-1], new), atol=1e-4):
            raise Wrong(f"{context} rows and columns are exchanged.")
        raise Wrong(f"{context} the positions of the patches are others; check the order of the axes, and the mode.")
    return "The class token stays apart, and the plane is stretched like an image."


@exercise("11.3")
def _(answer):
    def share(tokens, E, M, L, patch, depth, grown=None, *, products=2):
        embedding = tokens * E * patch**2
        blocks = L * (tokens * (4 * E**2 + 2 * E * M) + products * tokens**2 * E)
        return (depth - 1 if grown is None else grown) * embedding / (embedding + blocks)

    for network in ((1024, 768, 3072, 12, 16, 5), (256, 384, 1536, 12, 14, 3)):
        yours, true = number(answer(*network)), share(*network)
        if abs(yours - true) < 1e-3 * true:
            continue
        mistakes = {
            "The first slice was there before; only the further ones are extra.": share(*network, network[-1]),
            "That is in per cent; a share is wanted.": 100 * true,
            "Attention compares the tokens twice: queries with keys, and weights with values.": share(
                *network, products=1
            ),
            "Attention is missing in your blocks.": share(*network, products=0),
        }
        for sentence, value in mistakes.items():
            if abs(yours - value) < 1e-3 * value:
                raise Wrong(sentence)
        raise Wrong(f"For (tokens, E, M, L, patch, depth) = {network} the share is another; what grows with the depth?")
    return "Depth costs .76 % for ViT-B/16 at 512 x 512 pixels, because only one thin layer reads it."
