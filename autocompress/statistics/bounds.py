"""Intervals and paired tests. All bounds are one-sided: each holds with probability 1 - alpha."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, stats

FLOATS = NDArray[np.float64]


def drop_bounds(lost: int, gained: int, n: int, alpha: float) -> tuple[float, float]:
    """One-sided score bounds of the drop in a rate, from paired binary answers.

    `lost` items were right before and are wrong now, `gained` the other way round, out of `n`; the drop is
    (lost - gained) / n. Score interval for the difference of paired proportions, valid with no discordant
    pair: Tango, "Equivalence test and confidence interval for the difference in proportions for the
    paired-sample design", Statistics in Medicine 17 (1998), eqs. 5 to 8.

    Returns:
        (lower, upper), each one-sided at 1 - alpha, as shares in [-1, 1].
    """
    if n <= 0:
        return -1.0, 1.0
    z = float(stats.norm.isf(alpha))
    return -_upper_drop(gained, lost, n, z), _upper_drop(lost, gained, n, z)


def _upper_drop(lost: float, gained: float, n: int, z: float) -> float:
    observed = (lost - gained) / n

    def distance(drop: float) -> float:
        a = 2.0 * n
        b = -lost - gained + (2.0 * n - (lost - gained)) * drop
        c = -gained * drop * (1.0 - drop)
        q = (math.sqrt(max(b * b - 4.0 * a * c, 0.0)) - b) / (2.0 * a)
        variance = n * (2.0 * q + drop * (1.0 - drop))
        if variance <= 1e-300:
            return -z if drop <= observed else math.inf
        return (n * (drop - observed)) / math.sqrt(variance) - z

    if observed >= 1.0 or distance(1.0 - 1e-12) < 0:
        return 1.0
    return float(optimize.brentq(distance, observed, 1.0 - 1e-12, xtol=1e-12))


def smallest_drop_shown(n: int, alpha: float) -> float:
    """The upper bound of the drop when not one of `n` answers changed: z^2 / (n + z^2).

    A budget below it can never be shown to be met with `n` items.
    """
    z2 = float(stats.norm.isf(alpha)) ** 2
    return z2 / (n + z2) if n > 0 else 1.0


def items_needed(lost: int, gained: int, n: int, limit: float, alpha: float) -> int | None:
    """Total number of items at which the drop would be shown to be at most (or to exceed) `limit`.

    The observed rates are taken to stay. None when the observed drop lies at the limit, or more than 100 million items
    would be needed.
    """
    if n <= 0:
        return None
    observed = (lost - gained) / n
    if observed == limit:
        return None

    def decided(total: int) -> bool:
        # the bounds are smooth in the counts; rounding them would make the answer jump
        scale = total / n
        z = float(stats.norm.isf(alpha))
        if observed < limit:
            return _upper_drop(lost * scale, gained * scale, total, z) <= limit
        return -_upper_drop(gained * scale, lost * scale, total, z) > limit

    high = n
    while not decided(high):
        high *= 2
        if high > 10**8:
            return None
    low = max(high // 2, n)
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if decided(middle) else (middle + 1, high)
    return high


def rate_bounds(successes: int, n: int, alpha: float) -> tuple[float, float]:
    """One-sided Clopper-Pearson bounds of a rate (Biometrika 26, 1934); exact."""
    if n <= 0:
        return 0.0, 1.0
    low = float(stats.beta.ppf(alpha, successes, n - successes + 1)) if successes > 0 else 0.0
    high = float(stats.beta.ppf(1 - alpha, successes + 1, n - successes)) if successes < n else 1.0
    return low, high


def median_bounds(values: FLOATS, alpha: float) -> tuple[float, float]:
    """One-sided distribution-free bounds of a median by order statistics, shape `(n,)`.

    The r-th smallest of n independent values lies below the median with probability P(Bin(n, 1/2) >= r):
    David and Nagaraja, Order Statistics (2003), section 7.1. Infinite when n is too small for alpha
    (fewer than 5 values at alpha = 0.05, see `least_values`).
    """
    ordered = np.sort(values)
    n = len(ordered)
    rank = int(stats.binom.ppf(alpha, n, 0.5)) if n else 0
    # the largest rank r (0-based) with P(Bin(n, 1/2) <= r) <= alpha
    if n and stats.binom.cdf(rank, n, 0.5) > alpha:
        rank -= 1
    if n == 0 or rank < 0:
        return -math.inf, math.inf
    return float(ordered[rank]), float(ordered[n - 1 - rank])


def least_values(alpha: float) -> int:
    """The least number of values with which `median_bounds` gives finite bounds: 5 at 0.05, 7 at 0.01."""
    return max(1, math.ceil(-math.log2(alpha)))


def spend(alpha: float, look: int) -> float:
    """The error probability of the `look`-th look (from 1) at the same holdout data.

    Weights 6 / (pi look)^2 sum to 1, so by Bonferroni's inequality all looks together err with probability at most
    alpha, however many there will be.
    """
    if look < 1:
        raise ValueError("looks are counted from 1")
    return 6.0 * alpha / (math.pi * look) ** 2
