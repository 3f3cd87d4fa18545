"""Clusters of whole numbers of one byte with the least weighted squared error.

In one dimension the best clusters are ranges of the sorted values, found by dynamic programming (Wang and Song,
"Ckmeans.1d.dp: Optimal k-means Clustering in One Dimension by Dynamic Programming", The R Journal 2011). Whole numbers
of one byte have at most 256 values, so it is exact and takes milliseconds.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

LEVELS = 256


def centroids(values: NDArray[np.integer], weights: NDArray[np.floating], count: int) -> NDArray[np.int64]:
    """At most `count` whole numbers with the least weighted squared distance of values to the nearest.

    `values` lie in a range of 256 whole numbers, `weights` are not negative, both of shape `(n,)`. Centroids are
    rounded to whole numbers; ascending.
    """
    least = int(values.min())
    places = (values - least).astype(np.int64)
    counts = np.bincount(places, minlength=LEVELS)
    weighed = np.bincount(places, weights=weights, minlength=LEVELS).astype(np.float64)
    there = np.flatnonzero(counts)
    points = (there + least).astype(np.float64)
    # a value of no weight still has a place near it
    masses = weighed[there] + counts[there] * 1e-12 * max(float(weighed.max()), 1e-30)
    if len(points) <= count:
        return points.astype(np.int64)
    bounds = _ranges(points, masses, count)
    means = [np.average(points[low:high], weights=masses[low:high]) for low, high in bounds]
    return np.unique(np.rint(means).astype(np.int64))


def _ranges(points: NDArray[np.float64], masses: NDArray[np.float64], count: int) -> list[tuple[int, int]]:
    """The `count` ranges of sorted points with the least squared error around their means."""
    size = len(points)
    mass = np.concatenate([[0.0], np.cumsum(masses)])
    first = np.concatenate([[0.0], np.cumsum(masses * points)])
    second = np.concatenate([[0.0], np.cumsum(masses * points * points)])
    # error[low, high] of points low .. high - 1 around their mean
    span = mass[None, :] - mass[:, None]
    with np.errstate(divide="ignore", invalid="ignore"):
        error = (second[None, :] - second[:, None]) - (first[None, :] - first[:, None]) ** 2 / span
    error = np.where(np.arange(size + 1)[:, None] < np.arange(size + 1)[None, :], np.maximum(error, 0.0), np.inf)
    np.fill_diagonal(error, 0.0)
    best = error[0]
    begins = []
    for _ in range(count - 1):
        total = best[:, None] + error
        begins.append(total.argmin(0))
        best = total.min(0)
    ranges, high = [], size
    for begin in reversed(begins):
        low = int(begin[high])
        if low < high:
            ranges.append((low, high))
        high = low
    if high:
        ranges.append((0, high))
    return ranges[::-1]


def nearest(values: NDArray[np.floating], entries: NDArray[np.integer]) -> NDArray[np.int64]:
    """The index of the nearest of the ascending entries for each value."""
    middles = (entries[1:] + entries[:-1]) / 2
    return np.searchsorted(middles, values).astype(np.int64)
