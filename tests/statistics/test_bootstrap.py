from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats

from autocompress.statistics.bootstrap import FEW, MANY, mean_bounds, replicate_bounds, replicates

relaxed = settings(deadline=None, max_examples=40)
VALUES = st.integers(2, 60).flatmap(lambda n: arrays(np.float64, n, elements=st.floats(-100, 100, width=32)))


@relaxed
@given(VALUES, st.sampled_from([0.01, 0.05, 0.1]))
def test_the_mean_lies_between_its_bounds_and_less_error_widens_them(values: np.ndarray, alpha: float) -> None:
    low, high = mean_bounds(values, alpha)
    assert low <= values.mean() + 1e-6
    assert high >= values.mean() - 1e-6
    wider = mean_bounds(values, alpha / 3)
    assert wider[0] <= low
    assert wider[1] >= high


@relaxed
@given(VALUES)
def test_bounds_of_the_negative_are_the_negative_bounds(values: np.ndarray) -> None:
    low, high = mean_bounds(values, 0.05)
    assert mean_bounds(-values, 0.05) == pytest.approx((-high, -low), abs=1e-6, nan_ok=True)


@relaxed
@given(VALUES, st.floats(-50, 50, width=32))
def test_bounds_move_with_the_values(values: np.ndarray, by: float) -> None:
    # beside larger numbers, differences this small are lost to rounding
    assume(np.ptp(values) == 0 or np.ptp(values) > 1e-3)
    assume(len(np.unique(values + by)) == len(np.unique(values)))
    low, high = mean_bounds(values, 0.05)
    assert mean_bounds(values + by, 0.05) == pytest.approx((low + by, high + by), abs=1e-3)


def test_with_many_normal_values_the_bounds_are_students() -> None:
    values = np.random.default_rng(1).standard_normal(4000)
    half = stats.t.isf(0.05, 3999) * values.std(ddof=1) / math.sqrt(4000)
    assert mean_bounds(values, 0.05) == pytest.approx((values.mean() - half, values.mean() + half), rel=0.05, abs=2e-3)


@pytest.mark.parametrize("n", [FEW, FEW + 1, MANY, MANY + 1])
def test_the_methods_meet_where_one_takes_over(n: int) -> None:
    values = np.random.default_rng(2).standard_normal(n)
    half = stats.t.isf(0.05, n - 1) * values.std(ddof=1) / math.sqrt(n)
    low, high = mean_bounds(values, 0.05)
    assert high - low == pytest.approx(2 * half, rel=0.25)


def test_too_few_values_say_nothing_at_this_error() -> None:
    # 2^4 parts of the line: none holds the centre less often than one time in 16
    assert mean_bounds(np.arange(4.0), 0.05) == (-math.inf, math.inf)
    assert mean_bounds(np.arange(4.0), 0.07) == (0.0, 3.0)
    assert mean_bounds(np.array([1.0]), 0.05) == (-math.inf, math.inf)


def miss_rate(draw, n: int, true: float, alpha: float, repeats: int) -> tuple[float, float]:
    """How often the lower bound lies above the true mean, and the upper one below it."""
    random = np.random.default_rng(3)
    bounds = np.array([mean_bounds(draw(random, n), alpha) for _ in range(repeats)])
    return float((bounds[:, 0] > true).mean()), float((bounds[:, 1] < true).mean())


def students_miss_rate(draw, n: int, true: float, alpha: float, repeats: int) -> float:
    random = np.random.default_rng(3)
    missed = 0
    for _ in range(repeats):
        values = draw(random, n)
        half = stats.t.isf(alpha, n - 1) * values.std(ddof=1) / math.sqrt(n)
        missed += values.mean() + half < true
    return missed / repeats


def test_few_symmetric_values_are_covered_exactly() -> None:
    # with 8 values the nearest level below 0.05 is 12/256
    repeats = 4000
    for found in miss_rate(lambda random, n: random.laplace(size=n), 8, 0.0, 0.05, repeats):
        assert abs(found - 12 / 256) < 4 * math.sqrt(0.05 * 0.95 / repeats)


def test_skewed_values_are_covered_better_than_by_student() -> None:
    def draw(random: np.random.Generator, n: int) -> np.ndarray:
        return random.exponential(size=n)

    repeats = 800
    _, above = miss_rate(draw, 40, 1.0, 0.05, repeats)
    assert above < 0.05 + 3 * math.sqrt(0.05 * 0.95 / repeats)
    assert above < students_miss_rate(draw, 40, 1.0, 0.05, repeats) - 0.02


def test_values_without_spread_have_their_mean_as_bounds() -> None:
    assert mean_bounds(np.full(100, 2.5), 0.05) == (2.5, 2.5)


# figures that are no means


def test_replicates_of_the_same_items_are_paired() -> None:
    records = np.random.default_rng(4).standard_normal((300, 2))
    before = replicates(records, lambda rows: float(rows[:, 0].mean()))
    after = replicates(records + 1.0, lambda rows: float(rows[:, 0].mean()))
    assert after - before == pytest.approx(np.ones(len(before)))
    assert before[0] == pytest.approx(records[:, 0].mean())


def test_replicate_bounds_of_a_mean_are_near_students() -> None:
    records = np.random.default_rng(5).standard_normal((2000, 1))
    found = replicate_bounds(replicates(records, lambda rows: float(rows.mean())), 0.05)
    half = 1.645 / math.sqrt(2000)
    assert found == pytest.approx((records.mean() - half, records.mean() + half), abs=half / 5)


def test_without_items_a_figure_has_no_value_and_no_bounds() -> None:
    found = replicates(np.zeros((0, 2)), lambda rows: float(rows.mean()))
    assert np.isnan(found).all()
    assert replicate_bounds(found, 0.05) == (-math.inf, math.inf)


def test_a_figure_without_a_value_somewhere_has_no_bounds() -> None:
    assert replicate_bounds(np.array([1.0, 1.0, math.nan]), 0.05) == (-math.inf, math.inf)


@given(arrays(np.float64, st.integers(20, 200), elements=st.floats(-10, 10, width=32)))
def test_replicate_bounds_are_ordered_and_turn_with_the_sign(found: np.ndarray) -> None:
    low, high = replicate_bounds(found, 0.05)
    assert low <= high
    mirrored = replicate_bounds(-found, 0.05)
    spread = float(np.ptp(found)) or 1.0
    assert mirrored[0] == pytest.approx(-high, abs=spread)
