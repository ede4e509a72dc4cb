"""What choosing the best of many runs does to its score."""

import numpy as np
from scipy import integrate, stats

from ssl_utils.errors import CourseError

FARTHEST = 12.0  # standard deviations; a normal value lies beyond once in 10^33
SWEEPS = 20_000  # drawn ones, of equal runs


def expected_maximum(n: int) -> float:
    """The expected largest of n independent standard normal values: 0 for one, 1.54 for ten, 2.51 for a hundred.

    Of n runs whose true scores are equal and whose measured ones have the standard deviation s, the best measured score
    lies s times this above the true one on average (the winner's curse; Cawley and Talbot 2010).

    Raises:
        CourseError: n is not at least 1.
    """
    if n < 1:
        raise CourseError(f"n={n}: there is no best of no runs; give 1 or more")

    def weighted(x: float) -> float:
        return x * n * stats.norm.pdf(x) * stats.norm.cdf(x) ** (n - 1)

    points = np.linspace(-FARTHEST, FARTHEST, 25)[1:-1]  # the mass is narrow for large n
    return float(integrate.quad(weighted, -FARTHEST, FARTHEST, points=points, limit=200)[0])


def rare_lead(n: int) -> float:
    """What the largest of n independent standard normal values leads their mean by in one of twenty cases: 2.2 for six,
    3.3 for a hundred (drawn, to about 0.02).

    The expected lead is no threshold: equal runs exceed it in almost half of all sweeps.

    Raises:
        CourseError: n is not at least 1.
    """
    if n < 1:
        raise CourseError(f"n={n}: there is no best of no runs; give 1 or more")
    rng, parts = np.random.default_rng(0), []
    for _ in range(SWEEPS // 500):  # in parts, for the memory
        values = rng.standard_normal((500, n))
        parts.append(values.max(1) - values.mean(1))
    return float(np.quantile(np.concatenate(parts), 0.95))
