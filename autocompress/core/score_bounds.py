"""Score bounds: the least and the greatest value that an item's score can have."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autocompress.errors import DataError

Bounds = tuple[float, float]

RATE: Bounds = (0.0, 1.0)


def as_bounds(given: Any, name: str, fixed: Bounds | None) -> Bounds:
    """The bounds that were given for the score of this name.

    `fixed` are those of a score that has bounds of its own; then no others are right.

    Raises:
        DataError: when they are not two finite numbers in ascending order, or not those.
    """
    try:
        low, high = (float(value) for value in given)
    except (TypeError, ValueError):
        low = high = math.nan
    if not -math.inf < low < high < math.inf:
        raise DataError(f"are two finite numbers, the smaller one first, not {given!r}.", where="score_bounds")
    if fixed is not None and fixed != (low, high):
        raise DataError(
            f"are {low:g} and {high:g}, but {name} gives values from {fixed[0]:g} to {fixed[1]:g}.",
            where="score_bounds",
            hint="Leave them out.",
        )
    return low, high


def require_inside(scores: NDArray[np.float64], items: NDArray[np.int64], bounds: Bounds) -> None:
    """Check the scores of these items, both of shape `(n,)`, against their bounds.

    Raises:
        DataError: when a score lies outside; it names the item by its index in the source, and the score.
    """
    low, high = bounds
    outside = np.flatnonzero((scores < low) | (scores > high))
    if len(outside):
        raise DataError(
            f"of item {items[outside[0]]} is {scores[outside[0]]:g}, outside of its bounds {low:g} to {high:g}.",
            where="score",
            hint="Correct score_bounds of the task, or the score.",
        )


def is_within(inner: Bounds, outer: Bounds) -> bool:
    """True when every value in `inner` lies in `outer`."""
    return outer[0] <= inner[0] and inner[1] <= outer[1]
