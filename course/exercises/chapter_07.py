"""Checks for chapter 07: one Lloyd iteration, and the purity of clusters."""

import numpy as np
import torch

from course.exercises import Wrong, array, exercise, number, refuse

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
            raise Wrong("These are the centres after two iterations; one is wanted.")
        raise Wrong(
            f"For the points {points.tolist()} and the centres {centres.tolist()} your centres are wrong: is each "
            "the mean of the points that are nearest to it?"
        )
    return "Assign, then move: neither step can increase the distances, and an empty cluster stays as it is."


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
        case = f"For the clusters {clusters} and the labels {labels}"
        if not 0 <= yours <= 1:
            raise Wrong(f"{case} your number is {yours:g}, and a share is between 0 and 1.")
        of_labels, of_clusters = table.max(0).sum() / len(clusters), table.max(1)[used] / table.sum(1)[used]
        mistakes = {
            " you take the most common cluster of every label; it is to be the other way round.": of_labels,
            " every cluster has the same weight; every voxel should have.": of_clusters.mean(),
            " you compare ids with each other, but the ids of clusters are arbitrary.": np.equal(
                clusters, labels
            ).mean(),
        }
        refuse(yours, mistakes, case=case)
        raise Wrong(f"{case} your purity is too {'high' if yours > true else 'low'}.")
    return "It does not depend on the ids of the clusters, but it rises with their number."
