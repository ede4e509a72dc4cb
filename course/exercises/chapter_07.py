"""Checks of chapter 07: one Lloyd iteration, and the purity of clusters."""

import numpy as np
import torch

from course.exercises import Wrong, array, exercise, number

GROUPS = (  # points, centres: two clusters on a line, three in the plane, a centre without points
    ([[1.0], [2.0], [4.0], [7.0], [9.0], [10.0]], [[1.0], [4.0]]),
    ([[0.0, 0.0], [0.0, 2.0], [6.0, 0.0], [6.0, 1.0], [9.0, 9.0]], [[0.0, 1.0], [5.0, 0.0], [8.0, 8.0]]),
    ([[1.0, 1.0], [2.0, 3.0], [4.0, 2.0]], [[2.0, 2.0], [90.0, 90.0]]),
)


def _iteration(points: np.ndarray, centres: np.ndarray) -> np.ndarray:
    clusters = ((points[:, None] - centres) ** 2).sum(-1).argmin(1)
    members = [points[clusters == k] for k in range(len(centres))]
    return np.array([own.mean(0) if len(own) else old for own, old in zip(members, centres, strict=True)])


@exercise("07.1")
def _(answer):
    for group in GROUPS:
        points, centres = (np.array(part) for part in group)
        given = [torch.tensor(part) for part in group]
        result, right = answer(*(part.clone() for part in given)), _iteration(points, centres)
        alone = [k for k in range(len(centres)) if (right[k] == centres[k]).all()]
        if hasattr(result, "isnan") and result.shape == right.shape and result.isnan().any():
            raise Wrong("A centre that is nearest to no point becomes nan; it should stay where it is.")
        moved = array(result, right.shape)
        if np.allclose(moved, right, atol=1e-5):
            continue
        if np.allclose(moved, centres):
            raise Wrong("No centre has moved.")
        if alone and not np.allclose(moved[alone], right[alone], atol=1e-5):
            raise Wrong("A centre that is nearest to no point has moved; it should stay where it is.")
        if np.allclose(moved, _iteration(points, right), atol=1e-5):
            raise Wrong("That is where the centres are after two iterations; one is asked for.")
        raise Wrong(
            f"For the points {points.tolist()} and the centres {centres.tolist()} yours are elsewhere: is each "
            "the mean of the points that are nearest to it?"
        )
    return "Assign, then move: neither half can increase the distances, and an empty cluster does no harm."


VOXELS = (  # clusters, labels
    ([0, 0, 0, 1, 1, 2], [1, 1, 0, 0, 0, 2]),
    ([0, 0, 0, 0, 0, 0, 0, 0, 1, 1], [0, 0, 0, 0, 0, 1, 1, 1, 1, 0]),
    ([3, 3, 1, 1, 1], [0, 0, 0, 0, 0]),
    ([0, 1, 2, 3], [0, 0, 1, 1]),
)


def _table(clusters, labels) -> np.ndarray:
    table = np.zeros((max(clusters) + 1, max(labels) + 1))
    np.add.at(table, (clusters, labels), 1)
    return table


@exercise("07.2")
def _(answer):
    for clusters, labels in VOXELS:
        yours, table = number(answer(torch.tensor(clusters), torch.tensor(labels))), _table(clusters, labels)
        true, used = table.max(1).sum() / len(clusters), table.sum(1) > 0
        if abs(yours - true) < 1e-6:
            continue
        told = f"For the clusters {clusters} and the labels {labels}"
        if abs(yours - table.max(0).sum() / len(clusters)) < 1e-6:
            raise Wrong(f"{told} you take the most common cluster of every label; it is to be the other way round.")
        if abs(yours - (table.max(1)[used] / table.sum(1)[used]).mean()) < 1e-6:
            raise Wrong(f"{told} every cluster counts alike; voxels are to count alike.")
        if not 0 <= yours <= 1:
            raise Wrong(f"{told} your number is {yours:g}, and a share lies between 0 and 1.")
        if abs(yours - np.mean(np.equal(clusters, labels))) < 1e-6:
            raise Wrong(f"{told} you compare numbers with each other; the numbers of clusters mean nothing.")
        raise Wrong(f"{told} your purity is too {'high' if yours > true else 'low'}.")
    return "A number that needs no renumbering, and that flatters: it rises with the number of clusters."


def _means(points, centres):
    clusters = torch.cdist(points, centres).argmin(1)
    return torch.stack([points[clusters == k].mean(0) for k in range(len(centres))])


def _zeros(points, centres):
    return _means(points, centres).nan_to_num()


def _kinds(points, centres):
    return torch.cdist(points, centres).argmin(1)


WRONG = {
    "07.1": [
        _means,
        _zeros,
        _kinds,
        lambda points, centres: centres,
        lambda points, centres: points.mean(0).expand_as(centres),
        lambda points, centres: torch.stack([points[k] for k in torch.cdist(points, centres).argmin(0)]),
        lambda points, centres: torch.tensor(_iteration(points.numpy(), _iteration(points.numpy(), centres.numpy()))),
    ],
    "07.2": [
        lambda clusters, labels: (clusters == labels).float().mean(),
        lambda clusters, labels: _table(clusters.tolist(), labels.tolist()).max(0).sum() / len(clusters),
        lambda clusters, labels: _table(clusters.tolist(), labels.tolist()).max(1).sum(),
        lambda clusters, labels: float(
            np.mean([row.max() / max(row.sum(), 1) for row in _table(clusters.tolist(), labels.tolist())])
        ),
        lambda clusters, labels: 1.0,
    ],
}
