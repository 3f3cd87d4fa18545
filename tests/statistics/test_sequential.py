from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from autocompress.statistics.sequential import FIRST, checkpoints, levels, readings

ALPHAS = st.sampled_from([0.001, 0.01, 0.03, 0.05, 0.1])


@given(st.integers(1, 10**7))
def test_each_look_reads_twice_as_many_items_and_the_last_one_all(n: int) -> None:
    sizes = checkpoints(n)
    assert sizes[-1] == n
    assert all(size == FIRST * 2**k for k, size in enumerate(sizes[:-1]))
    assert all(size <= 0.8 * n for size in sizes[:-1])


def test_a_single_look_spends_everything() -> None:
    assert levels((100,), 0.05) == pytest.approx((0.05,))


def test_published_boundaries_are_reproduced() -> None:
    # Jennison and Turnbull (2000), table 7.3 (power family, rho = 1), one-sided 0.05 as in a two-sided test at 0.1:
    # equal increments, the first look spends alpha / K
    for looks in (2, 3, 5):
        found = levels(tuple(range(100, 100 * looks + 1, 100)), 0.05)
        assert found[0] == pytest.approx(0.05 / looks)
        assert all(0.05 / looks <= level <= 0.05 for level in found)


@settings(deadline=None, max_examples=20)
@given(st.integers(500, 50_000), ALPHAS)
def test_levels_lie_between_what_is_added_and_all_there_is(n: int, alpha: float) -> None:
    sizes = checkpoints(n)
    found = levels(sizes, alpha)
    added = np.diff([0, *sizes]) / n * alpha
    # never less than Bonferroni gives, never more than a single test may spend
    assert all(level >= share * (1 - 1e-6) for level, share in zip(found, added, strict=True))
    assert max(found) <= alpha


@pytest.mark.parametrize(("n", "alpha"), [(1000, 0.05), (6648, 0.03), (10_000, 0.05), (10_000, 0.01)])
def test_sums_of_normal_values_pass_a_boundary_as_often_as_stated(n: int, alpha: float) -> None:
    repeats = 40_000
    random = np.random.default_rng(0)
    sizes = checkpoints(n)
    steps = np.diff([0, *sizes])
    sums = np.cumsum(random.standard_normal((repeats, len(sizes))) * np.sqrt(steps), axis=1)
    limits = stats.norm.isf(levels(sizes, alpha))
    passed = (sums / np.sqrt(sizes) > limits).any(axis=1).mean()
    assert abs(passed - alpha) < 4 * math.sqrt(alpha * (1 - alpha) / repeats)


@pytest.mark.parametrize("sizes", [(), (100, 100), (200, 100), (0, 5)])
def test_looks_that_do_not_grow_are_refused(sizes: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="growing"):
        levels(sizes, 0.05)


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0, -0.1])
def test_an_alpha_that_is_no_error_probability_is_refused(alpha: float) -> None:
    with pytest.raises(ValueError, match="alpha"):
        levels((100,), alpha)


def test_readings_pair_items_with_levels() -> None:
    assert readings(1000, 0.05) == list(zip((250, 500, 1000), levels((250, 500, 1000), 0.05), strict=True))
