"""Bounds of the mean of scores in a known range, which hold whenever reading stops.

They hold for every distribution in that range. Against the belief that the mean is q one bets on each item at fair
odds; capital that grows to 1 / alpha times the stake refutes it, which happens to the truth with probability at most
alpha, over all numbers of items together (Ville's inequality): Waudby-Smith and Ramdas, "Estimating means of bounded
random variables by betting", JRSS B 86 (2024), sections 4 and 5.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, special

FLOATS = NDArray[np.float64]

# shares of the stake that are put at risk on every item, and how the first stake is divided among them: a mixture of
# constant bets (Cover, "Universal portfolios", Mathematical Finance 1, 1991). Paired scores hardly differ, so that
# large bets are usual ones. Constant bets do not depend on the order of the items nor on how many will be read.
BETS = 2.0 ** -np.arange(12)
LOG_STAKES = np.log(0.6 ** np.arange(12) / (0.6 ** np.arange(12)).sum())
# beyond so many items no number is given
MOST = 10**8


def bounded_mean_bounds(values: FLOATS, low: float, high: float, alpha: float) -> tuple[float, float]:
    """One-sided bounds of the mean of independent values, shape `(n,)`, that lie between `low` and `high`.

    Each holds with probability 1 - alpha at all numbers of items together, so reading may stop at any of them. Without
    values the bounds are `low` and `high`.

    Raises:
        ValueError: when a value lies outside, or `low` is not below `high`.
    """
    _require_inside(values, low, high)
    if len(values) == 0:
        return low, high
    spread = high - low
    lower = low + spread * _lower_bound((values - low) / spread, alpha)
    upper = high - spread * _lower_bound((high - values) / spread, alpha)
    mean = float(values.mean())
    return max(min(lower, mean), low), min(max(upper, mean), high)


def items_for_bounded_mean(values: FLOATS, low: float, high: float, limit: float, alpha: float) -> int | None:
    """Total number of items at which the bounds would clear `limit`.

    They are taken to be like the `n` at hand, shape `(n,)`. None without items, when the mean lies at the limit, or
    when more than 100 million items would be needed.

    Raises:
        ValueError: as `bounded_mean_bounds`.
    """
    _require_inside(values, low, high)
    n = len(values)
    if n == 0 or not low < limit < high:
        return None
    above = float(values.mean()) > limit
    shares, counts = _counted((values - low if above else high - values) / (high - low))
    believed = (limit - low if above else high - limit) / (high - low)
    growth = _log_capitals(shares, counts, believed) / n
    growing = growth > 0
    if not growing.any():
        return None
    enough = float(np.min((math.log(1 / alpha) - LOG_STAKES[growing]) / growth[growing]))
    if enough > MOST:
        return None

    def missing(total: float) -> float:
        return float(special.logsumexp(LOG_STAKES + growth * total)) - math.log(1 / alpha)

    return max(
        n, math.ceil(enough if missing(enough) <= 0 else optimize.brentq(missing, 1e-6 * enough, enough, xtol=1e-3))
    )


def _require_inside(values: FLOATS, low: float, high: float) -> None:
    if not low < high:
        raise ValueError(f"bounds are {low} and {high}; the first must be the smaller one")
    if len(values) and not (values.min() >= low and values.max() <= high):
        raise ValueError(f"values from {values.min()} to {values.max()} do not lie between {low} and {high}")


def _lower_bound(shares: FLOATS, alpha: float) -> float:
    """The largest mean below which all are refuted by values between 0 and 1.

    The capital falls as the believed mean grows, and by Jensen's inequality it is at most 1 at the observed mean.
    """
    mean = float(shares.mean())
    if mean <= 0:
        return 0.0
    distinct, counts = _counted(shares)

    def gained(believed: float) -> float:
        return float(special.logsumexp(LOG_STAKES + _log_capitals(distinct, counts, believed))) - math.log(1 / alpha)

    refuted, kept = mean / 2, mean
    while gained(refuted) < 0:
        refuted, kept = refuted / 2, refuted
    return float(optimize.brentq(gained, refuted, kept, xtol=1e-12))


def _counted(shares: FLOATS) -> tuple[FLOATS, FLOATS]:
    """The distinct values in ascending order and how often each occurs: many scores take few values."""
    distinct, counts = np.unique(np.clip(shares, 0.0, 1.0), return_counts=True)
    return distinct, counts.astype(np.float64)


def _log_capitals(shares: FLOATS, counts: FLOATS, believed: float) -> FLOATS:
    """Logarithm of what one unit has become with each of the constant bets, shape `(bets,)`.

    A bet b on an item with share y changes the stake by the factor 1 + b (y / q - 1), whose mean is 1 when the mean of
    the shares is the believed q.
    """
    returns = shares / believed - 1.0
    with np.errstate(divide="ignore"):
        # a product of vectors would wake the threads of the linear algebra, which wait for each other on busy machines
        return np.array([float((counts * np.log1p(bet * returns)).sum()) for bet in BETS])
