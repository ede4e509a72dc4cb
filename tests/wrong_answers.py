"""Wrong answers to every exercise, as a reader would make them. The check of each must refuse all of them."""

import math
from dataclasses import replace

import numpy as np
import torch
from scipy.stats import rankdata
from sklearn.metrics import completeness_score, homogeneity_score, mutual_info_score
from torch.nn import functional as F

from course.exercises import (
    chapter_02,
    chapter_04,
    chapter_06,
    chapter_07,
    chapter_08,
    chapter_09,
    chapter_11,
    chapter_13,
    chapter_15,
    chapter_16,
)
from course.exercises.chapter_03 import _hidden
from ssl_utils.pretext.probes import rankme


def _scaled(image):
    """The right z-score over the brain, for answers that are wrong in something else."""
    inside = image != 0
    values = [channel[mask] if mask.any() else np.ones(1) for channel, mask in zip(image, inside, strict=True)]
    mean, std = (np.reshape([measure(v) for v in values], (-1, 1, 1, 1)) for measure in (np.mean, np.std))
    return np.where(inside, (image - mean) / np.maximum(std, 1e-8), 0)


def _dropped(datalist):
    known = {case.patient for case in datalist.training}
    return replace(datalist, validation=tuple(case for case in datalist.validation if case.patient not in known))


def _moved(datalist):
    known = {case.patient for case in datalist.training}
    moved = tuple(case for case in datalist.validation if case.patient in known)
    return replace(_dropped(datalist), training=datalist.training + moved)


def _shares(tokens, power=1):
    sigma = torch.linalg.svdvals(tokens) ** power
    return sigma / sigma.sum()


_LPS = np.diag([-1, -1, 1, 1])


def _three(error, mask):
    return torch.stack([error.mean(), error[mask].mean(), error[~mask].mean()])


def _pruned(task, options, own):
    """Every combination of all options, those of others taken away: some runs are there several times."""
    every = chapter_15._expanded([task], options, {task: set(options)})
    return [(task, {name: value for name, value in chosen.items() if name in own[task]}) for _, chosen in every]


def _next_row(first, second, temperature):
    rows = torch.nn.functional.normalize(torch.cat([first, second]), dim=1)
    return chapter_02._cross_entropy(rows @ rows.T / temperature, torch.arange(len(rows)).roll(1))


def _order(units, number):
    return torch.randperm(units, generator=torch.Generator().manual_seed(number))


def _of_cubes(grid, unit, hide):
    coarse = [math.ceil(n / unit) for n in grid]
    i, j, k = (torch.arange(n) // unit for n in grid)
    return hide(math.prod(coarse)).view(coarse)[i][:, j][:, :, k]


def _voxels(mask, patch):
    return torch.kron(mask.int(), torch.ones(3 * (patch,)).int()).bool()


def _ends(checkpoint, wanted):
    return {key: value for key in wanted for name, value in checkpoint.items() if name.endswith(key)}


def _fixed(checkpoint, wanted, prefix="module.net.encoder."):
    return {name.removeprefix(prefix): tensor for name, tensor in checkpoint.items() if name.startswith(prefix)}


def _to_one_side(kernel, depth, share):
    factors = torch.zeros(depth)
    factors[0] = 1 - share
    factors[depth // 2] += share
    return kernel[..., None] * factors


def _of_first(checkpoint, wanted):
    first = next(name for name in checkpoint if name.endswith(wanted[-1]))
    return _fixed(checkpoint, wanted, first.removesuffix(wanted[-1]))


def _one_order(visible, ids_restore, mask_token):
    return chapter_06._restore(visible, ids_restore[:1].expand_as(ids_restore), mask_token)


def _in_place(visible, ids_restore, mask_token):
    restored = chapter_06._restore(visible, ids_restore, mask_token)
    visible[:] = 0
    return restored


def _mixed(image, noise, kept, power=0.5):
    kept = kept.view(-1, 1, 1, 1, 1)
    return kept**power * image + (1 - kept) ** power * noise


def _apart(rows):
    return torch.cdist(rows, rows).fill_diagonal_(float("inf")).min(1).values


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


def _without_logarithms(scores, iterations):
    q = (scores / 0.05).exp()
    for _ in range(iterations):
        q = q / q.sum(0)
        q = q / q.sum(1, keepdim=True)
    return q / q.sum(1, keepdim=True)


def _greedy(number, score, *, ranked=True, ties=False, against_first=False, prefixes=False):
    alone = [score((i,)) for i in range(number)]
    order = sorted(range(number), key=lambda i: -alone[i]) if ranked else list(range(number))
    kept, single = order[:1], alone[order[0]]
    best = single
    for member in order[1:]:
        value = score((*kept, member))
        if value > (single if against_first else best) or (ties and value == best):
            kept, best = [*kept, member], value
        elif prefixes:
            break
    return kept


def _scores_again(number, score):
    order = sorted(range(number), key=lambda i: -score((i,)))
    kept = order[:1]
    for member in order[1:]:
        if score((*kept, member)) > score(kept):
            kept.append(member)
    return kept


def _held(outer, inner, share, *, one_inner=False, of_outer=False, published=False):
    found = set()
    for k in (1, 2, 3):
        for i in (1, 2, 3):
            place = ((outer > 0) == k) if published else outer == k
            part = inner > 0 if one_inner else inner == i
            if (place & part).sum() >= share * (place if of_outer else part).sum():
                found.add(k)
    return sorted(found)


WRONG = {
    "00.1": [
        lambda p, r, v: (p == r).mean(),
        lambda p, r, v: ((p == v) & (r == v)).sum() / ((p == v) | (r == v)).sum(),
        lambda p, r, v: ((p == v) & (r == v)).sum() / ((p == v).sum() + (r == v).sum()),
        lambda p, r, v: 2 * ((p > 0) & (r > 0)).sum() / ((p > 0).sum() + (r > 0).sum()),
        lambda p, r, v: 2 * ((p == v) & (r == v)).sum() / max((p == v).sum() + (r == v).sum(), 1),
        lambda p, r, v: 2 * int(((p == v) & (r == v)).sum()) / int((p == v).sum() + (r == v).sum()),
    ],
    "00.2": [
        lambda labels: labels[0],
        lambda labels: labels.mean(0),
        lambda labels: np.median(labels, axis=0),
        lambda labels: labels.max(0),
        lambda labels: np.stack([(labels == v).sum(0) for v in np.unique(labels)]).argmax(0),
    ],
    "00.3": [
        lambda datalist: set(),
        lambda datalist: {case.patient for side in ("unlabeled", "training") for case in datalist.sides()[side]},
        lambda datalist: {case.patient for cases in datalist.sides().values() for case in cases},
        lambda datalist: {case.patient for case in datalist.training},
        lambda datalist: {case.id for case in datalist.training},
    ],
    "01.1": [
        lambda array, affine: (array, _LPS @ affine),
        lambda array, affine: (array.T, affine),
        lambda array, affine: (array.T, affine @ _LPS),
        lambda array, affine: (array.reshape(array.shape[::-1]), _LPS @ affine),
        lambda array, affine: (array.T, np.diag([-1, -1, -1, 1]) @ affine),
        lambda array, affine: array.T,
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
        _moved,
        lambda datalist: replace(datalist, training=datalist.training + datalist.validation, validation=()),
        lambda datalist: replace(datalist, training=datalist.training + datalist.validation),
        lambda datalist: replace(datalist, training=datalist.validation, validation=datalist.training),
        lambda datalist: {case.patient for case in datalist.training},
    ],
    "02.1": [
        lambda restored, image, hidden: (restored - image).abs().mean(),
        lambda restored, image, hidden: torch.stack([((restored - image) * m).mean() for m in (1, hidden, ~hidden)]),
        lambda restored, image, hidden: _three((restored - image).abs(), ~hidden),
        lambda restored, image, hidden: torch.stack(
            [((restored - image).abs() * m).mean() for m in (1, hidden, ~hidden)]
        ),
        lambda restored, image, hidden: _three((restored - image).square(), hidden),
        lambda restored, image, hidden: torch.stack([(restored - image).abs().mean()] * 3),
    ],
    "02.2": [
        *(lambda first, second, t, i=i: list(chapter_02._mistakes(first, second, t).values())[i] for i in range(6)),
        _next_row,
        lambda first, second, t: math.log(2 * len(first) - 1),
    ],
    "03.1": [
        lambda grid, unit, ratio, number: torch.rand(grid) < ratio,
        lambda grid, unit, ratio, number: (_order(math.prod(grid), number) < math.prod(grid) * ratio).view(grid),
        lambda grid, unit, ratio, number: _of_cubes(grid, unit, lambda n: _order(n, number) < round(n * ratio)),
        lambda grid, unit, ratio, number: _of_cubes(grid, unit, lambda n: torch.arange(n) < _hidden(n, ratio)),
        lambda grid, unit, ratio, number: _of_cubes(grid, unit, lambda n: torch.randperm(n) < _hidden(n, ratio)),
        lambda grid, unit, ratio, number: _of_cubes(grid, unit, lambda n: _order(n, number) >= _hidden(n, ratio)),
        lambda grid, unit, ratio, number: _of_cubes(grid, unit, lambda n: _order(n, number) < _hidden(n, ratio)).int(),
    ],
    "03.2": [
        lambda prediction, image, mask, patch: (prediction - image).abs().mean(),
        lambda prediction, image, mask, patch: (prediction - image).abs()[:, mask.repeat(3 * (patch,))].mean(),
        lambda prediction, image, mask, patch: (prediction - image).abs()[:, _voxels(mask, patch)].sum(),
        lambda prediction, image, mask, patch: (prediction - image).square()[:, _voxels(mask, patch)].mean(),
        lambda prediction, image, mask, patch: (prediction - image).abs()[:, ~_voxels(mask, patch)].mean(),
        lambda prediction, image, mask, patch: ((prediction - image).abs() * _voxels(mask, patch)).mean(),
        lambda prediction, image, mask, patch: (prediction - image).abs()[0, _voxels(mask, patch)].mean(),
        lambda prediction, image, mask, patch: (prediction - image).abs()[:, mask].mean(),
        lambda prediction, image, mask, patch: torch.zeros(()),
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
        lambda clusters, labels: completeness_score(labels, clusters),
        lambda clusters, labels: 1 - homogeneity_score(labels, clusters),
        lambda clusters, labels: mutual_info_score(labels, clusters),
        chapter_07._conditional,
        chapter_07._purity,
        lambda clusters, labels: 1.0,
    ],
    "07.3": [
        lambda features, pixels: chapter_07._upsample(features, pixels, divide=False),
        lambda features, pixels: chapter_07._upsample(features, pixels, similar=0.0),
        lambda features, pixels: chapter_07._upsample(features, pixels, near=0.0),
        lambda features, pixels: chapter_07._upsample(features, pixels, shift=0.0),
        lambda features, pixels: features.repeat_interleave(len(pixels) // len(features)),
        lambda features, pixels: pixels,
    ],
    "08.1": [
        lambda values, points, falling: chapter_08._map(values, points, not falling),
        lambda values, points, falling: chapter_08._map(values, points, False),
        lambda values, points, falling: chapter_08._map(values, points[::-1], falling),
        chapter_08._inverse,
        lambda values, points, falling: abs(falling - chapter_08._map(values, points, False)),
        lambda values, points, falling: values,
        lambda values, points, falling: values**2,
    ],
    "08.2": [
        lambda p_u, p_v, z_u, z_v: -chapter_08._agreement(p_u, p_v, z_u, z_v),
        lambda p_u, p_v, z_u, z_v: 2 * chapter_08._agreement(p_u, p_v, z_u, z_v),
        lambda p_u, p_v, z_u, z_v: chapter_08._agreement(p_u, p_v, z_v, z_u),
        lambda p_u, p_v, z_u, z_v: -(p_u * z_v + p_v * z_u).sum(1).mean() / 2,
        lambda p_u, p_v, z_u, z_v: -F.cosine_similarity(p_u, z_v, dim=1).mean(),
        lambda p_u, p_v, z_u, z_v: (
            -(F.cosine_similarity(p_u, z_v, dim=1) + F.cosine_similarity(p_v, z_u, dim=1)).mean() / 2
        ),
        lambda p_u, p_v, z_u, z_v: chapter_08._agreement(p_u.detach(), p_v.detach(), z_u, z_v),
        lambda p_u, p_v, z_u, z_v: chapter_08._agreement(p_u, p_v.detach(), z_u, z_v),
        lambda p_u, p_v, z_u, z_v: chapter_08._agreement(p_u, p_v, z_u, z_v) + 1,
    ],
    "09.1": [
        lambda tokens, prototypes: tokens @ prototypes.T,
        lambda tokens, prototypes: F.normalize(tokens, dim=1) @ prototypes.T,
        lambda tokens, prototypes: tokens @ F.normalize(prototypes, dim=1).T,
        lambda tokens, prototypes: F.normalize(tokens, dim=0) @ F.normalize(prototypes, dim=0).T,
        lambda tokens, prototypes: chapter_09._cosines(tokens, prototypes).T,
        lambda tokens, prototypes: -torch.cdist(F.normalize(tokens, dim=1), F.normalize(prototypes, dim=1)),
    ],
    "09.2": [
        lambda scores, iterations: (scores / 0.05).softmax(1),
        lambda scores, iterations: chapter_09.sinkhorn(scores),
        lambda scores, iterations: chapter_09.sinkhorn(scores, iterations=min(iterations, 1)),
        lambda scores, iterations: chapter_09.sinkhorn(scores, iterations=iterations, epsilon=0.1),
        lambda scores, iterations: chapter_09.sinkhorn(scores.T, iterations=iterations).T,
        lambda scores, iterations: chapter_09.sinkhorn(scores, iterations=iterations).T.reshape(scores.shape),
        _without_logarithms,
    ],
    "09.3": [
        lambda logits, targets: -(targets * logits.log_softmax(2)).sum(2).mean(),
        lambda logits, targets: -(targets.flip(0) * logits.log_softmax(2)).mean(),
        lambda logits, targets: -(targets[0] * logits[1].log_softmax(1)).sum(1).mean(),
        lambda logits, targets: -(targets.flip(0) * logits.log_softmax(1)).sum(2).mean(),
        lambda logits, targets: (targets.flip(0) * logits.log_softmax(2)).sum(2).mean(),
        lambda logits, targets: -(targets.flip(0) * logits.softmax(2).log()).sum(2).mean(),
        lambda logits, targets: -(targets.flip(0) * (logits.softmax(2) + 1e-8).log()).sum(2).mean(),
        lambda logits, targets: (targets.flip(0) - logits.softmax(2)).square().sum(2).mean(),
    ],
    "10.1": [
        lambda dice: rankdata(dice),
        lambda dice: rankdata(-dice) - 1,
        lambda dice: rankdata(-dice, method="min"),
        lambda dice: rankdata(-dice, method="max"),
        lambda dice: rankdata(-dice, method="dense"),
        lambda dice: np.argsort(np.argsort(-dice, kind="stable")) + 1,
        lambda dice: np.argsort(-dice) + 1,
        lambda dice: (dice[None, :] > dice[:, None]).sum(1) + (dice[None, :] == dice[:, None]).sum(1),
    ],
    "10.2": [
        lambda budget, spent: round(budget / np.median(spent[2:])),
        lambda budget, spent: max(1, round(budget / np.median(spent))),
        lambda budget, spent: max(1, round(budget / np.mean(spent[2:]))),
        lambda budget, spent: max(1, round(budget / np.mean(spent))),
        lambda budget, spent: max(1, round(budget / min(spent))),
        lambda budget, spent: max(1, budget / np.median(spent[2:])),
        lambda budget, spent: max(1, int(budget / np.median(spent[2:]))),
        lambda budget, spent: max(1, round(budget * np.median(spent[2:]))),
    ],
    "10.3": [
        lambda tokens: torch.special.entr(_shares(tokens)).sum(),
        lambda tokens: torch.special.entr(_shares(tokens, power=2)).sum().exp(),
        lambda tokens: -(_shares(tokens) * _shares(tokens).log()).sum(),
        lambda tokens: (-(_shares(tokens) * _shares(tokens).log()).sum()).exp(),
        lambda tokens: (torch.linalg.svdvals(tokens) > 1e-9).sum(),
        lambda tokens: (-torch.special.entr(_shares(tokens)).sum()).exp(),
        lambda tokens: rankme(tokens - tokens.mean(0)),
        lambda tokens: torch.special.entr(torch.linalg.svdvals(tokens)).sum().exp(),
        lambda tokens: _shares(tokens).max(),
    ],
    "11.1": [
        lambda kernel, depth, share: kernel[..., None].repeat(1, 1, 1, 1, depth),
        lambda kernel, depth, share: kernel[..., None] * torch.eye(depth)[depth // 2],
        lambda kernel, depth, share: kernel[..., None] * torch.eye(depth)[depth // 2] * share,
        lambda kernel, depth, share: kernel[..., None] * torch.eye(depth)[0],
        _to_one_side,
    ],
    "11.2": [
        lambda positions, old, new: chapter_11._resize(positions, old, new, align_corners=True),
        lambda positions, old, new: chapter_11._resize(positions, old, new, mode="bilinear"),
        lambda positions, old, new: chapter_11._resize(positions, old[::-1], new),
        lambda positions, old, new: chapter_11._resize(positions, old, new).roll(-1, 1),
        lambda positions, old, new: chapter_11._resize(positions, old, new)[:, 1:],
    ],
    "11.3": [
        lambda tokens, E, M, L, patch, depth: 4 * patch**2 / (L * (4 * E + 2 * M)),
        lambda tokens, E, M, L, patch, depth: depth * patch**2 / (patch**2 + L * (4 * E + 2 * M + 2 * tokens)),
        lambda tokens, E, M, L, patch, depth: (
            100 * (depth - 1) * patch**2 / (patch**2 + L * (4 * E + 2 * M + 2 * tokens))
        ),
        lambda tokens, E, M, L, patch, depth: depth - 1,
    ],
    "12.1": [
        lambda label, regions: np.stack([label == values[0] for values in regions.values()]),
        lambda label, regions: np.stack([np.isin(label, values) for values in regions.values()])[::-1],
        lambda label, regions: np.stack([np.isin(label, values) for values in regions.values()]).astype(int),
        lambda label, regions: np.stack([label >= min(values) for values in regions.values()]),
    ],
    "12.2": [
        lambda tc, wt, et: tc.astype(int) + wt + et,
        lambda tc, wt, et: np.where(wt, np.where(tc, np.where(et, 3, 1), 2), 0),
        lambda tc, wt, et: np.where(et, 3, np.where(tc, 2, np.where(wt, 1, 0))),
        lambda tc, wt, et: np.where(et, 3, np.where(tc & wt, 1, np.where(wt, 2, 0))),
    ],
    "12.3": [
        lambda image: ((image - image.mean()) / image.std(), (image != 0).any(0)),
        lambda image: (_scaled(image), (_scaled(image) > 0).any(0)),
        lambda image: (_scaled(image), (image != 0).all(0)),
        lambda image: (np.where(image != 0, image / image.max(), 0), (image != 0).any(0)),
        lambda image: _scaled(image),
    ],
    "13.1": [
        lambda number, score: _greedy(number, score, ranked=False),
        lambda number, score: _greedy(number, score, ties=True),
        lambda number, score: _greedy(number, score, against_first=True),
        lambda number, score: _greedy(number, score, prefixes=True),
        lambda number, score: range(number),
        lambda number, score: [max(range(number), key=lambda i: score((i,)))],
        _scores_again,
    ],
    "13.2": [
        lambda outer, inner, share: _held(outer, inner, share, published=True),
        lambda outer, inner, share: _held(outer, inner, share, one_inner=True),
        lambda outer, inner, share: _held(outer, inner, share, of_outer=True),
        lambda outer, inner, share: np.unique(outer[(outer > 0) & (inner > 0)]),
        lambda outer, inner, share: np.unique(outer),
    ],
    "13.3": [
        lambda lesions, false: chapter_13._lesionwise(lesions, false, 0),
        lambda lesions, false: chapter_13._lesionwise(lesions, false, 49),
        lambda lesions, false: chapter_13._lesionwise(lesions, false, weight_false=False),
        lambda lesions, false: chapter_13._lesionwise([one for one in lesions if one[1]], false),
        lambda lesions, false: chapter_13._lesionwise(lesions, false, empty=0.0),
        lambda lesions, false: chapter_13._lesionwise(lesions, 0) / (1 + false),
    ],
    "14.1": [
        lambda image, noise, kept: _mixed(image, noise, kept, power=1),
        lambda image, noise, kept: _mixed(noise, image, kept),
        lambda image, noise, kept: _mixed(image, noise, kept[:1].expand_as(kept)),
        lambda image, noise, kept: _mixed(image, 0 * noise, kept) + noise,
        lambda image, noise, kept: image + noise,
    ],
    "14.2": [
        lambda w, a, b, alpha: w + torch.einsum("or,rijkl->oijkl", b, a),
        lambda w, a, b, alpha: w + alpha * torch.einsum("or,rijkl->oijkl", b, a),
        lambda w, a, b, alpha: alpha / 2 * torch.einsum("or,rijkl->oijkl", b, a),
        lambda w, a, b, alpha: w - alpha / 2 * torch.einsum("or,rijkl->oijkl", b, a),
        lambda w, a, b, alpha: w,
    ],
    "14.3": [
        lambda drawn, training: torch.cdist(drawn, training).min(1).values,
        lambda drawn, training: torch.cdist(drawn, training).min(1).values / _apart(training).mean(),
        lambda drawn, training: torch.cdist(drawn, training).mean(1) / _apart(training).mean(),
        lambda drawn, training: torch.cdist(drawn, training).min(1).values / torch.cdist(training, training).mean(),
    ],
    "15.1": [
        lambda tasks, options, own: chapter_15._expanded(tasks, options, {task: {*options} for task in tasks}),
        lambda tasks, options, own: [(t, c) for t in tasks for _, c in _pruned(t, options, own)],
        lambda tasks, options, own: [run for run in chapter_15._expanded(tasks, options, own) if run[1]],
        lambda tasks, options, own: chapter_15._expanded(tasks, options, {task: {"lr"} for task in tasks}),
        lambda tasks, options, own: [task for task, _ in chapter_15._expanded(tasks, options, own)],
        lambda tasks, options, own: chapter_15._expanded(tasks[:1], options, own),
    ],
    "15.2": [
        lambda scores, n: scores.max(),
        lambda scores, n: scores.mean(),
        lambda scores, n: -chapter_15._best(-scores, n),
        lambda scores, n: (scores * np.diff((np.arange(len(scores) + 1) / len(scores)) ** n)).sum(),
        lambda scores, n: np.random.default_rng(0).choice(scores, (20_000, n)).max(1).mean(),
        lambda scores, n: np.sort(scores)[-min(n, len(scores)) :].mean(),
        lambda scores, n: chapter_15._best(scores, n - 1),
    ],
    "15.3": [
        lambda labels, affine, shape, image_affine, coding: labels.shape == shape,
        lambda labels, affine, shape, image_affine, coding: np.isin(labels, coding).all(),
        lambda labels, affine, shape, image_affine, coding: (
            labels.shape == shape and np.array_equal(affine, image_affine) and np.isin(labels, coding).all()
        ),
        lambda labels, affine, shape, image_affine, coding: (
            labels.shape == shape and np.allclose(affine, image_affine) and {*np.unique(labels)} == {*coding}
        ),
        lambda labels, affine, shape, image_affine, coding: (
            labels.shape == shape
            and np.allclose(affine, image_affine, atol=1e-3)
            and np.isin(labels.astype(int), coding).all()
        ),
        lambda labels, affine, shape, image_affine, coding: (
            labels.shape == shape
            and np.allclose(abs(affine), image_affine, atol=1e-3)
            and np.isin(labels, coding).all()
        ),
        lambda labels, affine, shape, image_affine, coding: np.isin(labels, coding),
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
