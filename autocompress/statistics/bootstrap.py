"""One-sided bounds by resampling, for means of skewed scores and for scores of all items together.

The draws are seeded, so the same scores give the same bounds.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy import stats

FLOATS = NDArray[np.float64]
Value = Callable[[FLOATS], float]

# up to so many values bounds are exact, from all 2^n subsets
FEW = 14
# beyond so many values Student's bounds: the mean is then practically normal
MANY = 20_000
DRAWS = 1999
PAIRED_DRAWS = 999
CHUNK = 2_000_000
RESAMPLING_SEED = 20_251_122


def mean_bounds(values: FLOATS, alpha: float) -> tuple[float, float]:
    """One-sided bounds of the mean of `values`, shape `(n,)`, each holding with probability 1 - alpha.

    Infinite where nothing can be said. Up to 14 values: order statistics of the means of all subsets, exact for
    symmetric distributions (Hartigan, "Using subsample values as typical values", JASA 64, 1969). Up to 20,000:
    bootstrap-t, second-order correct for skewed ones (Efron and Tibshirani, An Introduction to the Bootstrap, 1993,
    section 12.5; Hall, Annals of Statistics 16, 1988). Beyond: Student's.
    """
    n = len(values)
    if n < 2:
        return -math.inf, math.inf
    if n <= FEW:
        return _subset_bounds(values, alpha)
    error = float(values.std(ddof=1)) / math.sqrt(n)
    mean = float(values.mean())
    if n > MANY:
        half = float(stats.t.isf(alpha, n - 1)) * error
        return mean - half, mean + half
    drawn = _studentized(values.astype(np.float64).tobytes())
    rank = int((len(drawn) + 1) * alpha)
    if rank < 1:
        return -math.inf, math.inf
    high, low = drawn[len(drawn) - rank], drawn[rank - 1]
    # without any spread, 0 x infinity would be NaN
    return (mean, mean) if error == 0 else (mean - high * error, mean - low * error)


def _subset_bounds(values: FLOATS, alpha: float) -> tuple[float, float]:
    """Exact bounds from the means of all subsets of the values.

    The means of the 2^n - 1 subsets cut the line into 2^n parts that hold the centre equally often.
    """
    n = len(values)
    chosen = (np.arange(1, 2**n)[:, None] >> np.arange(n)) & 1
    means = np.sort(chosen @ values / chosen.sum(axis=1))
    rank = int(alpha * 2**n)
    if rank < 1:
        return -math.inf, math.inf
    return float(means[rank - 1]), float(means[len(means) - rank])


@functools.lru_cache(maxsize=32)
def _studentized(content: bytes) -> FLOATS:
    """Sorted studentized means of samples of the values, drawn with replacement.

    `content` holds the float64 values as bytes, so that the result can be cached: the same scores are judged again and
    again, by several budgets and at several levels. Samples without spread give infinite values.
    """
    values = np.frombuffer(content, dtype=np.float64)
    n, mean = len(values), values.mean()
    random = np.random.default_rng(RESAMPLING_SEED)
    found = []
    left = DRAWS
    while left > 0:
        count = min(left, max(1, CHUNK // n))
        drawn = values[random.integers(0, n, (count, n))]
        shift, spread = drawn.mean(axis=1) - mean, drawn.std(axis=1, ddof=1) / math.sqrt(n)
        with np.errstate(divide="ignore", invalid="ignore"):
            found.append(np.where(shift == 0, 0.0, shift / spread))
        left -= count
    return np.sort(np.concatenate(found))


def replicates(records: FLOATS, value: Value) -> FLOATS:
    """The score of all records and of `PAIRED_DRAWS` samples of them, shape `(1 + draws,)`.

    Samples are drawn with replacement. `records` has shape `(n, k)`. The same number of records gives the same draws,
    so the replicates of two models on the same items are paired. Without records all values are NaN.
    """
    n = len(records)
    if n == 0:
        return np.full(1 + PAIRED_DRAWS, np.nan)
    random = np.random.default_rng(RESAMPLING_SEED)
    drawn = (value(records[random.integers(0, n, n)]) for _ in range(PAIRED_DRAWS))
    return np.array([value(records), *drawn], dtype=np.float64)


def replicate_bounds(found: FLOATS, alpha: float) -> tuple[float, float]:
    """One-sided bias-corrected percentile bounds from a score and its replicates, shape `(1 + draws,)`.

    Efron, "Nonparametric standard errors and confidence intervals", Canadian Journal of Statistics 9 (1981), section 7;
    Efron and Tibshirani (1993), section 14.3, without acceleration. Infinite where a replicate has no value.
    """
    value, drawn = float(found[0]), np.sort(found[1:])
    if not np.isfinite(found).all():
        return -math.inf, math.inf
    below = float(np.mean(drawn < value) + np.mean(drawn == value) / 2)
    below = min(max(below, 0.5 / len(drawn)), 1 - 0.5 / len(drawn))
    shift = 2 * float(stats.norm.ppf(below))

    def at(z: float) -> float:
        place = float(stats.norm.cdf(shift + z)) * (len(drawn) + 1)
        return float(drawn[min(max(round(place), 1), len(drawn)) - 1])

    z = float(stats.norm.isf(alpha))
    return at(-z), at(z)
