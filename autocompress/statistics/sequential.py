"""Sequential testing: reads items in chunks and stops when the answer is clear, at a fixed error rate.

Error spending: Lan and DeMets, "Discrete sequential boundaries for clinical trials", Biometrika 70 (1983), with
spending in proportion to the items read. The nominal levels follow from the joint normal distribution of the test
statistics, by recursive integration: Armitage, McPherson and Rowe, "Repeated significance tests on accumulating
data", JRSS A 132 (1969); Jennison and Turnbull, Group Sequential Methods (2000), chapter 19.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Sequence

import numpy as np
from scipy import optimize, stats

# items of the first reading; each further one takes as many again as were read so far
FIRST = 250
# readings of more than this share of all items are left out, since the last reading follows
LAST_SHARE = 0.8
GRID = 501
REACH = 9.0


def checkpoints(n: int) -> tuple[int, ...]:
    """Numbers of items at which the result is judged: 250, 500, 1,000 and so on, and all `n`."""
    doubled = (FIRST * 2**k for k in itertools.count())
    return (*itertools.takewhile(lambda size: size <= LAST_SHARE * n, doubled), n)


@functools.cache
def levels(sizes: tuple[int, ...], alpha: float) -> tuple[float, ...]:
    """One-sided error probability of each look at `sizes` items; all looks together err with `alpha`.

    Up to look k, alpha times the share of the items read by then is spent.

    Raises:
        ValueError: when the sizes do not grow, or alpha lies outside (0, 0.5).
    """
    if not sizes or any(after <= before for before, after in itertools.pairwise((0, *sizes))):
        raise ValueError(f"looks are at growing numbers of items, not {sizes}")
    if not 0 < alpha < 0.5:
        raise ValueError(f"alpha is {alpha}, not between 0 and 0.5")
    spent = [alpha * size / sizes[-1] for size in sizes]
    boundary = float(stats.norm.isf(spent[0]))
    found = [spent[0]]
    sums, density = _first(sizes[0], boundary)
    for (before, after), (earlier, now) in zip(itertools.pairwise(sizes), itertools.pairwise(spent), strict=True):
        spread = np.sqrt(after - before)
        boundary = _boundary(sums, density, spread, np.sqrt(after), now - earlier)
        found.append(float(stats.norm.sf(boundary)))
        sums, density = _next(sums, density, spread, boundary * np.sqrt(after), np.sqrt(after))
    return tuple(found)


def _first(size: int, boundary: float) -> tuple[np.ndarray, np.ndarray]:
    """Density of the sum of the first items, up to the boundary on its standardized value."""
    scale = np.sqrt(size)
    sums = np.linspace(-REACH * scale, boundary * scale, GRID)
    return sums, stats.norm.pdf(sums, scale=scale)


def _boundary(sums: np.ndarray, density: np.ndarray, spread: float, scale: float, error: float) -> float:
    """The boundary on the standardized value that is crossed with probability `error` at this look.

    Only paths that crossed no earlier boundary count.
    """

    def passed(value: float) -> float:
        return float(np.trapezoid(density * stats.norm.sf((value * scale - sums) / spread), sums)) - error

    return float(optimize.brentq(passed, -REACH, REACH, xtol=1e-10))


def _next(
    sums: np.ndarray, density: np.ndarray, spread: float, limit: float, scale: float
) -> tuple[np.ndarray, np.ndarray]:
    further = np.linspace(-REACH * scale, limit, GRID)
    steps = stats.norm.pdf(further[:, None] - sums[None, :], scale=spread)
    return further, np.trapezoid(density * steps, sums, axis=1)


def readings(n: int, alpha: float) -> Sequence[tuple[int, float]]:
    """Number of items and nominal level of each look."""
    sizes = checkpoints(n)
    return list(zip(sizes, levels(sizes, alpha), strict=True))
