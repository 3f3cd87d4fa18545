"""Clusters of whole numbers: the best there are, compared with trying all, and with k-means of another library."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.cluster.vq import kmeans

from autocompress.packing.whole_clusters import centroids, nearest

FEW = st.lists(st.integers(-8, 8), min_size=1, max_size=12)


def error(values: np.ndarray, weights: np.ndarray, entries: np.ndarray) -> float:
    found = np.abs(values[:, None] - entries[None, :]).min(1)
    return float((weights * found**2).sum())


@given(FEW, st.integers(1, 4), st.integers(0, 2**32 - 1))
def test_no_other_whole_numbers_have_a_much_smaller_error(values: list[int], count: int, seed: int) -> None:
    array = np.array(values)
    weights = np.random.default_rng(seed).random(len(values)) + 0.1
    found = centroids(array, weights, count)
    assert len(found) <= count
    best = min(
        error(array, weights, np.array(chosen)) for chosen in combinations(range(-8, 9), min(count, len(set(values))))
    )
    # centroids are rounded to whole numbers once the ranges are found
    assert error(array, weights, found) <= best + 0.25 * weights.sum()


@given(FEW)
def test_values_that_fit_are_kept_exactly(values: list[int]) -> None:
    found = centroids(np.array(values), np.ones(len(values)), 17)
    np.testing.assert_array_equal(found, np.unique(values))


def test_values_of_no_weight_have_a_place_near_them() -> None:
    values, weights = np.array([-100, -100, 3, 90]), np.array([0.0, 0.0, 1.0, 0.0])
    np.testing.assert_array_equal(centroids(values, weights, 3), [-100, 3, 90])


def test_the_error_is_that_of_k_means_or_less() -> None:
    random = np.random.default_rng(0)
    values = np.clip(np.rint(30 * random.standard_normal(3000)), -127, 127).astype(np.int64)
    ones = np.ones(len(values))
    other, _ = kmeans(values.astype(float)[:, None], 8, seed=0)
    found = centroids(values, ones, 8)
    assert error(values, ones, found) <= 1.02 * error(values, ones, other[:, 0])


@pytest.mark.parametrize("value", [-3.0, 0.2, 5.0, 6.1, 200.0])
def test_each_value_goes_to_the_nearest_entry(value: float) -> None:
    entries = np.array([-2, 0, 4, 9])
    (place,) = nearest(np.array([value]), entries)
    assert abs(entries[place] - value) == np.abs(entries - value).min()
