"""What choosing the best of many runs does to its score."""

import numpy as np
from scipy import integrate, stats

from ssl_utils.errors import CourseError

FARTHEST = 12.0  # standard deviations; a normal value lies beyond once in 10^33


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
