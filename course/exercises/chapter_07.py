"""Checks for chapter 07: one Lloyd iteration, and homogeneity."""

import numpy as np
import torch
from sklearn.metrics import completeness_score, homogeneity_score, mutual_info_score

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
        result, right = answer(*(torch.tensor(part) for part in group)), _iteration(points, centres)
        empty = [k for k in range(len(centres)) if (right[k] == centres[k]).all()]
        if hasattr(result, "isnan") and result.shape == right.shape and result.isnan().any():
            raise Wrong("A centre that is nearest to no point becomes nan; it should keep its position.")
        updated = array(result, right.shape)
        if np.allclose(updated, right, atol=1e-5):
            continue
        if np.allclose(updated, centres):
            raise Wrong("No centre has moved.")
        if empty and not np.allclose(updated[empty], right[empty], atol=1e-5):
            raise Wrong("A centre that is nearest to no point has moved; it should keep its position.")
        if np.allclose(updated, _iteration(points, right), atol=1e-5):
            raise Wrong("These are the centres after two iterations; one is wanted.")
        raise Wrong(
            f"For the points {points.tolist()} and the centres {centres.tolist()} your centres are wrong: is each "
            "the mean of the points that are nearest to it?"
        )
    return "Assigning and updating never increase the objective, and an empty cluster keeps its centre."


VOXELS = (  # clusters, labels
    ([0, 0, 0, 1, 1, 2], [1, 1, 0, 0, 0, 2]),
    ([0, 0, 0, 0, 0, 0, 0, 0, 1, 1], [0, 0, 0, 0, 0, 1, 1, 1, 1, 0]),
    ([3, 3, 1, 1, 1, 0], [0, 0, 0, 0, 2, 2]),
    ([0, 1, 2, 3], [0, 0, 1, 1]),
)


def _purity(clusters, labels) -> float:
    clusters, labels = np.asarray(clusters), np.asarray(labels)
    return sum(np.bincount(labels[clusters == k]).max() for k in np.unique(clusters)) / len(labels)


def _conditional(clusters, labels) -> float:
    """H(y | q) in nats."""
    return mutual_info_score(labels, labels) - mutual_info_score(labels, clusters)


@exercise("07.2")
def _(answer):
    for clusters, labels in VOXELS:
        right = homogeneity_score(labels, clusters)
        value = number(answer(torch.tensor(clusters), torch.tensor(labels)))
        if abs(value - right) < 1e-4:
            continue
        case = f"For the clusters {clusters} and the labels {labels}"
        mistakes = {
            " you exchange clusters and labels: this is completeness.": completeness_score(labels, clusters),
            " you return the share of the entropy that remains; homogeneity is the share that is removed.": 1 - right,
            " you return the mutual information, not yet normalised.": mutual_info_score(labels, clusters),
            " you return the conditional entropy, not yet normalised.": _conditional(clusters, labels),
            " you return the purity, which ignores how frequent the labels are.": _purity(clusters, labels),
            " you compare indices, but the indices of clusters are arbitrary.": np.equal(clusters, labels).mean(),
        }
        refuse(value, mistakes, case=case, tolerance=1e-4)
        raise Wrong(f"{case} your homogeneity is too {'high' if value > right else 'low'}.")
    return "The same as scikit-learn's, independent of the indices; it rises with the number of clusters."


LINES = (  # features of cells, intensities of pixels
    ([0.0, 1.0], [0.0, 0.0, 0.0, 3.0]),
    ([1.0, 0.0, 2.0], [0.0, 0.5, 0.5, 2.0, 2.0, 2.0]),
    ([5.0, 5.0], [0.0, 1.0, 2.0, 3.0]),
)


def _upsample(features, pixels, *, shift: float = 0.5, near: float = 1.0, similar: float = 1.0, divide: bool = True):
    features, pixels = np.asarray(features), np.asarray(pixels)
    means = pixels.reshape(len(features), -1).mean(1)
    position = (np.arange(len(pixels)) + shift) * len(features) / len(pixels) - shift
    exponent = near * (position[:, None] - np.arange(len(features))) ** 2 + similar * (pixels[:, None] - means) ** 2
    weights = np.exp(-exponent / 2)
    return weights @ features / (weights.sum(1) if divide else 1)


@exercise("07.3")
def _(answer):
    for features, pixels in LINES:
        result, right = answer(torch.tensor(features), torch.tensor(pixels)), _upsample(features, pixels)
        values = array(result, right.shape)
        if np.allclose(values, right, atol=1e-4):
            continue
        mistakes = {
            "The weights of a pixel do not sum to 1.": _upsample(features, pixels, divide=False),
            "The intensities have no effect: these are weights by distance alone.": _upsample(
                features, pixels, similar=0.0
            ),
            "The distances have no effect: these are weights by intensity alone.": _upsample(
                features, pixels, near=0.0
            ),
            "The pixels are shifted: a cell and its pixels have the same centre.": _upsample(
                features, pixels, shift=0.0
            ),
            "The exponents lack the factor 1/2.": _upsample(features, pixels, near=2.0, similar=2.0),
            "Every pixel has the feature of its own cell: nothing is weighted.": np.repeat(
                features, len(pixels) // len(features)
            ),
        }
        for mistake, wrong in mistakes.items():
            if np.allclose(values, wrong, atol=1e-4) and not np.allclose(wrong, right, atol=1e-4):
                raise Wrong(mistake)
        raise Wrong(f"For the features {features} and the pixels {pixels} your result is wrong.")
    return "Two neighbouring pixels on either side of an edge take their features from different cells."
