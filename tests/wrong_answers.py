"""Wrong answers to every exercise, as a reader would make them. The check of each must refuse all of them."""

import math
from dataclasses import replace

import numpy as np
import torch
from torch.nn import functional as F

from course.exercises import chapter_03, chapter_04, chapter_06, chapter_07, chapter_16


def _dropped(datalist):
    known = {case.patient for case in datalist.training}
    return replace(datalist, validation=tuple(case for case in datalist.validation if case.patient not in known))


def _unseeded(image, number):
    return torch.flip(image, [axis for axis in (1, 2, 3) if torch.rand(()) < 0.5])


def _coins(number, chance=0.5):
    return (torch.rand(3, generator=torch.Generator().manual_seed(number)) < chance).tolist()


def _ends(checkpoint, wanted):
    return {key: value for key in wanted for name, value in checkpoint.items() if name.endswith(key)}


def _fixed(checkpoint, wanted, prefix="module.net.encoder."):
    return {name.removeprefix(prefix): tensor for name, tensor in checkpoint.items() if name.startswith(prefix)}


def _of_first(checkpoint, wanted):
    first = next(name for name in checkpoint if name.endswith(wanted[-1]))
    return _fixed(checkpoint, wanted, first.removesuffix(wanted[-1]))


def _one_order(visible, ids_restore, mask_token):
    return chapter_06._restore(visible, ids_restore[:1].expand_as(ids_restore), mask_token)


def _in_place(visible, ids_restore, mask_token):
    restored = chapter_06._restore(visible, ids_restore, mask_token)
    visible[:] = 0
    return restored


def _means(points, centres):
    clusters = torch.cdist(points, centres).argmin(1)
    return torch.stack([points[clusters == k].mean(0) for k in range(len(centres))])


def _zeros(points, centres):
    return _means(points, centres).nan_to_num()


def _clusters(points, centres):
    return torch.cdist(points, centres).argmin(1)


def _backwards_only(metric, scores) -> bool:
    return bool(abs(metric(scores) - metric(scores[::-1])) > 1e-9)


def _without_tolerance(metric, scores) -> bool:
    return len({float(metric(np.random.default_rng(i).permutation(scores))) for i in range(100)}) > 1


def _shuffles_in_place(metric, scores) -> bool:
    before = metric(scores)
    np.random.default_rng(0).shuffle(scores)
    return bool(abs(before - metric(scores)) > 1e-9)


WRONG = {
    "00.1": [
        lambda starts, counts, draws, seeds: 0,
        lambda starts, counts, draws, seeds: len(starts) * len(counts) * draws * seeds,
        lambda starts, counts, draws, seeds: len(starts) * len(counts) * draws * seeds + len(starts),
        lambda starts, counts, draws, seeds: len(starts) * (len(counts) * draws * seeds + 1) - draws,
        lambda starts, counts, draws, seeds: len(starts) * len(counts) * draws * seeds + 2,
    ],
    "00.2": [
        lambda datalist: set(),
        lambda datalist: {case.patient for side in ("unlabeled", "training") for case in datalist.sides()[side]},
        lambda datalist: {case.patient for cases in datalist.sides().values() for case in cases},
        lambda datalist: {case.patient for case in datalist.training},
        lambda datalist: {case.id for case in datalist.training},
    ],
    "00.3": [
        lambda files: "done",
        lambda files: "done" if "model.safetensors" in files else "unfinished" if files else "empty",
        lambda files: "done" if "metrics.json" in files else "unfinished",
        lambda files: "finished" if "metrics.json" in files else "",
        lambda files: "metrics.json" in files,
    ],
    "01.1": [
        lambda label, spacing, value: 0.0,
        lambda label, spacing, value: (label == value).sum() * np.prod(spacing),
        lambda label, spacing, value: (label > 0).sum() * np.prod(spacing) / 1000,
        lambda label, spacing, value: (label == value).sum() * spacing[0] ** 3 / 1000,
        lambda label, spacing, value: (label == value).sum() / 1000,
    ],
    "01.2": [
        lambda affine, point: np.zeros(3, int),
        lambda affine, point: (affine @ [*point, 1])[:3].astype(int),
        lambda affine, point: (np.linalg.inv(affine) @ [*point, 1])[:3].astype(int),
        lambda affine, point: np.round((np.linalg.inv(affine) @ [*point, 0])[:3]),
        lambda affine, point: np.round((point - affine[:3, 3]) / np.linalg.norm(affine[:3, :3], axis=0)),
        lambda affine, point: (np.linalg.inv(affine) @ [*point, 1])[:3],
    ],
    "01.3": [
        lambda datalist: datalist,
        _dropped,
        lambda datalist: replace(datalist, training=datalist.training + datalist.validation, validation=()),
        lambda datalist: replace(datalist, training=datalist.training + datalist.validation),
        lambda datalist: replace(datalist, training=datalist.validation, validation=datalist.training),
        lambda datalist: {case.patient for case in datalist.training},
    ],
    "02.1": [
        lambda B: 0.0,
        lambda B: math.log(B),
        lambda B: math.log(2 * B),
        lambda B: 2 * B - 1,
        lambda B: -math.log(2 * B - 1),
    ],
    "02.2": [
        lambda image: image,
        lambda image: image.mean().expand_as(image),
        lambda image: torch.rand(image.shape),
        lambda image: image.flatten()[torch.randperm(image.numel())].view(image.shape),
        lambda image: torch.roll(image, 1, dims=1),
        lambda image: torch.roll(image, 8, dims=1)[0],
        lambda image: -torch.flip(image, [1]) + 100,
    ],
    "03.1": [
        lambda grid, patch_size, mask_ratio, unit: round(math.prod(grid) * patch_size**3 * mask_ratio),
        lambda grid, patch_size, mask_ratio, unit: chapter_03._hidden(grid, 1, mask_ratio, unit),
        lambda grid, patch_size, mask_ratio, unit: chapter_03._hidden(grid, patch_size, mask_ratio, 1),
        lambda grid, patch, ratio, unit: round(math.prod(grid) / unit**3 * ratio) * (unit * patch) ** 3,
        lambda grid, unit, mask_ratio, patch_size: chapter_03._hidden(grid, patch_size, mask_ratio, max(unit // 8, 1)),
        lambda *crop: 0,
    ],
    "03.2": [
        lambda image, number: image,
        lambda image, number: torch.flip(image, [1, 2, 3]),
        lambda image, number: torch.flip(image, [1, 2, 3]) if _coins(number)[0] else image,
        lambda image, number: torch.flip(image, [axis for axis in range(3) if _coins(number)[axis]]),
        lambda image, number: torch.flip(image, [axis + 1 for axis in range(3) if _coins(number, 0.9)[axis]]),
        lambda image, number: image.transpose(2, 3),
        _unseeded,
    ],
    "04.1": [
        chapter_04._dice,
        lambda logits, label: 1 - chapter_04._dice(logits, label, first=0),
        lambda logits, label: 1 - chapter_04._dice(logits, label, softmax=False),
        lambda logits, label: 1 - chapter_04._dice(logits, label, each=(2, 3, 4)),
        lambda logits, label: 1 - chapter_04._dice(logits, label, factor=1.0),
        lambda logits, label: 1 - chapter_04._dice(F.one_hot(logits.argmax(1), 3).movedim(-1, 1), label, softmax=False),
        lambda logits, label: F.cross_entropy(logits, label[:, 0]),
    ],
    "04.2": [_ends, _fixed, _of_first, lambda checkpoint, wanted: checkpoint, lambda checkpoint, wanted: {}],
    "05.1": [
        lambda random, pretrained: (
            np.mean([*map(np.mean, pretrained.values())]) - np.mean([*map(np.mean, random.values())])
        ),
        lambda random, pretrained: np.array([np.mean(pretrained.get(p, [0])) - np.mean(random[p]) for p in random]),
        lambda random, pretrained: np.array(
            [np.mean(random[p]) - np.mean(pretrained[p]) for p in ("Ben", "Cleo", "Dan")]
        ),
        lambda random, pretrained: np.array(
            [np.mean(pretrained[p]) - np.mean(random[p]) for p in pretrained if p in random]
        ),
        lambda random, pretrained: np.array(
            [pretrained[p][0] - random[p][0] for p in sorted(random) if p in pretrained]
        ),
        lambda random, pretrained: np.array(
            [np.mean(b) - np.mean(a) for a, b in zip(random.values(), pretrained.values(), strict=True)]
        ),
    ],
    "05.2": [
        lambda gain, signs: (np.abs((signs * gain).mean(axis=1)) >= abs(gain.mean())).mean(),
        lambda gain, signs: (1 + ((signs * gain).mean(axis=1) >= gain.mean()).sum()) / (1 + len(signs)),
        lambda gain, signs: (1 + (np.abs((signs * gain).mean(axis=1)) > abs(gain.mean())).sum()) / (1 + len(signs)),
        lambda gain, signs: (1 + (np.abs(signs * gain) >= abs(gain.mean())).sum()) / (1 + len(signs)),
        lambda gain, signs: (1 + (np.abs(signs[:, :1] * gain.mean()) >= abs(gain.mean())).sum()) / (1 + len(signs)),
    ],
    "06.1": [
        lambda visible, ids, token: torch.cat(
            [visible, token.expand(len(ids), ids.shape[1] - visible.shape[1], -1)], 1
        ),
        lambda visible, ids, token: chapter_06._restore(visible, ids.argsort(1), token),
        lambda visible, ids, token: chapter_06._restore(visible, ids, torch.zeros_like(token)),
        lambda visible, ids, token: visible,
        _one_order,
        _in_place,
    ],
    "06.2": [
        lambda predicted, patches, mask: chapter_06._loss(predicted, patches, torch.ones_like(mask)),
        lambda predicted, patches, mask: chapter_06._loss(predicted, patches, ~mask),
        lambda predicted, patches, mask: chapter_06._loss(predicted, patches, mask, epsilon=0),
        lambda *crop: chapter_06._loss(*crop, power=1),
        lambda *crop: chapter_06._loss(*crop, centre=0, scale=0),
        lambda *crop: chapter_06._loss(*crop, scale=0),
        lambda *crop: chapter_06._loss(*crop, scale=1),
        lambda *crop: chapter_06._loss(*crop, correction=0),
        lambda *crop: chapter_06._loss(*crop, axes=(0, 1, 2)),
    ],
    "07.1": [
        _means,
        _zeros,
        _clusters,
        lambda points, centres: centres,
        lambda points, centres: points.mean(0).expand_as(centres),
        lambda points, centres: torch.stack([points[k] for k in torch.cdist(points, centres).argmin(0)]),
        lambda points, centres: torch.tensor(
            chapter_07._iteration(points.numpy(), chapter_07._iteration(points.numpy(), centres.numpy()))
        ),
    ],
    "07.2": [
        lambda clusters, labels: (clusters == labels).float().mean(),
        lambda clusters, labels: chapter_07._table(clusters.tolist(), labels.tolist()).max(0).sum() / len(clusters),
        lambda clusters, labels: chapter_07._table(clusters.tolist(), labels.tolist()).max(1).sum(),
        lambda clusters, labels: float(
            np.mean([row.max() / max(row.sum(), 1) for row in chapter_07._table(clusters.tolist(), labels.tolist())])
        ),
        lambda clusters, labels: 1.0,
    ],
    "16.1": [
        lambda both, predicted, reference, absent=None: 2 * both.sum() / (predicted + reference).sum(),
        lambda both, predicted, reference, absent=None: chapter_16._case_dice(both, predicted, reference, 0.0),
        lambda both, predicted, reference, absent=None: chapter_16._case_dice(both, predicted, reference),
        lambda both, predicted, reference, absent=None: (
            2 * both[reference > 0] / (predicted + reference)[reference > 0]
        ).mean(),
        lambda both, predicted, reference, absent=None: ((2 * both + 1e-5) / (predicted + reference + 1e-5)).mean(),
        lambda both, predicted, reference, absent=None: (both / np.maximum(reference, 1)).mean(),
    ],
    "16.2": [
        _backwards_only,
        _without_tolerance,
        _shuffles_in_place,
        lambda metric, scores: bool(np.ptp([metric(np.roll(scores, i)) for i in range(6)]) > 0.01),
        lambda metric, scores: True,
    ],
}
