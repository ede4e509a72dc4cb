"""Checks for chapter 08: the Bézier map, and SimSiam's loss with its stop-gradient."""

import numpy as np
import torch
from torch.nn import functional as F

from course.exercises import Wrong, array, exercise, number, refuse

CONTROLS = (((0.2, 0.8), (0.4, 0.6)), ((0.9, 0.1), (0.1, 0.3)), ((0.3, 1.0), (0.6, 0.0)))  # pairs of control points


def _map(values: np.ndarray, points: np.ndarray, falling: bool) -> np.ndarray:
    t = np.linspace(0, 1, 1000)[:, None]
    x, y = (3 * t * (1 - t) ** 2 * points[0] + 3 * t**2 * (1 - t) * points[1] + t**3).T
    return np.interp(values, x, y[::-1] if falling else y)


def _inverse(values: np.ndarray, points: np.ndarray, falling: bool) -> np.ndarray:
    return _map(values, points[:, ::-1], falling)


@exercise("08.1")
def _(answer):
    values = np.linspace(0, 1, 11)
    for points in map(np.array, CONTROLS):
        for falling in (False, True):
            result, right = array(answer(values.copy(), points, falling), values.shape), _map(values, points, falling)
            if np.allclose(result, right, atol=2e-3):
                continue
            if np.allclose(result, _map(values, points, not falling), atol=2e-3):
                raise Wrong(f"With falling={falling} the map {'rises' if falling else 'falls'}.")
            if np.allclose(result, _map(values, points[::-1], falling), atol=2e-3):
                raise Wrong("The two control points are exchanged.")
            if np.allclose(result, _inverse(values, points, falling), atol=2e-3):
                raise Wrong("Old and new intensities are exchanged: the first coordinate is the old one.")
            if falling and np.allclose(result, 1 - _map(values, points, False), atol=2e-3):
                raise Wrong("One minus the rising map is another curve; the second coordinate runs backwards instead.")
            if np.allclose(result, values):
                raise Wrong("No intensity has changed.")
            raise Wrong(f"For the control points {points.tolist()} and falling={falling} the map is another one.")
    return "A rising curve keeps the order of tissues, a falling one reverses it."


def _agreement(p_u, p_v, z_u, z_v):
    pairs = ((p_u, z_v), (p_v, z_u))
    return -sum(F.cosine_similarity(p, z.detach(), dim=1).mean() for p, z in pairs) / 2


@exercise("08.2")
def _(answer):
    views = torch.randn(4, 5, 3, generator=torch.Generator().manual_seed(0))
    p_u, p_v, z_u, z_v = (view.clone().requires_grad_() for view in views)
    loss, right = answer(p_u, p_v, z_u, z_v), float(_agreement(*views))
    value = number(loss)
    same, dot = F.cosine_similarity, (views[0] * views[3] + views[1] * views[2]).sum(1).mean()
    mistakes = {
        "The sign is wrong: views that agree must have the lowest loss.": -right,
        "The two cosines are added; their mean is wanted.": 2 * right,
        "A prediction is compared with the projection of its own view.": -float(
            (same(views[0], views[2], dim=1) + same(views[1], views[3], dim=1)).mean() / 2
        ),
        "This is the inner product; the cosine also divides by both lengths.": -float(dot) / 2,
        "Only one of the two directions is there.": -float(same(views[0], views[3], dim=1).mean()),
        "The cosine is taken over the batch; it belongs to the features of a crop.": -float(
            (same(views[0], views[3], dim=0) + same(views[1], views[2], dim=0)).mean() / 2
        ),
    }
    refuse(value, mistakes, tolerance=1e-5)
    if abs(value - right) > 1e-5:
        raise Wrong(f"The loss is too {'high' if value > right else 'low'}.")
    if not getattr(loss, "requires_grad", False):
        raise Wrong("The loss has no gradient; only the projections are constants.")
    loss.backward()
    if any(z.grad is not None and z.grad.abs().sum() > 0 for z in (z_u, z_v)):
        raise Wrong("The value is right, but the projections get a gradient: where is the stop-gradient?")
    if p_u.grad is None or p_v.grad is None:
        raise Wrong("The value is right, but a prediction gets no gradient.")
    return "The stop-gradient changes no value, only what is learnt."
