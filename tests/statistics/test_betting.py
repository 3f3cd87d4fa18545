from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from autocompress.statistics.betting import BETS, LOG_STAKES, bounded_mean_bounds, items_for_bounded_mean
from autocompress.statistics.sequential import checkpoints

relaxed = settings(deadline=None, max_examples=60)
SHARES = st.integers(1, 60).flatmap(lambda n: arrays(np.float64, n, elements=st.floats(0, 1, width=32)))
ALPHAS = st.sampled_from([0.001, 0.01, 0.05, 0.1])
Draw = Callable[[np.random.Generator, int], np.ndarray]


def test_the_stakes_are_one_unit_and_no_bet_is_more_than_all() -> None:
    assert np.exp(LOG_STAKES).sum() == pytest.approx(1.0)
    assert BETS.max() == 1.0
    assert BETS.min() > 0.0


def test_without_values_the_bounds_are_those_of_the_score() -> None:
    assert bounded_mean_bounds(np.zeros(0), -2.0, 3.0, 0.05) == (-2.0, 3.0)


def test_one_value_says_next_to_nothing() -> None:
    low, high = bounded_mean_bounds(np.array([1.0]), 0.0, 1.0, 0.05)
    assert (low < 0.05, high) == (True, 1.0)


@relaxed
@given(SHARES, ALPHAS)
def test_the_mean_lies_between_its_bounds_and_less_error_widens_them(values: np.ndarray, alpha: float) -> None:
    low, high = bounded_mean_bounds(values, 0.0, 1.0, alpha)
    assert 0.0 <= low <= values.mean() <= high <= 1.0
    wider = bounded_mean_bounds(values, 0.0, 1.0, alpha / 3)
    assert wider[0] <= low + 1e-9
    assert wider[1] >= high - 1e-9


@relaxed
@given(SHARES, ALPHAS)
def test_bounds_of_mirrored_values_are_the_mirrored_bounds(values: np.ndarray, alpha: float) -> None:
    low, high = bounded_mean_bounds(values, 0.0, 1.0, alpha)
    assert bounded_mean_bounds(1.0 - values, 0.0, 1.0, alpha) == pytest.approx((1.0 - high, 1.0 - low), abs=1e-9)


@relaxed
@given(SHARES, st.floats(-100, 100), st.floats(0.01, 100))
def test_bounds_move_and_grow_with_the_range(values: np.ndarray, start: float, spread: float) -> None:
    low, high = bounded_mean_bounds(values, 0.0, 1.0, 0.05)
    moved = bounded_mean_bounds(np.clip(start + spread * values, start, start + spread), start, start + spread, 0.05)
    assert moved == pytest.approx((start + spread * low, start + spread * high), abs=1e-6 * (spread + abs(start)))


@relaxed
@given(SHARES, st.integers(2, 5))
def test_bounds_shrink_with_more_items_of_the_same_kind(values: np.ndarray, times: int) -> None:
    low, high = bounded_mean_bounds(values, 0.0, 1.0, 0.05)
    more = bounded_mean_bounds(np.tile(values, times), 0.0, 1.0, 0.05)
    assert more[0] >= low - 1e-9
    assert more[1] <= high + 1e-9


@relaxed
@given(SHARES)
def test_the_order_of_the_items_does_not_matter(values: np.ndarray) -> None:
    mixed = np.random.default_rng(0).permutation(values)
    assert bounded_mean_bounds(mixed, 0.0, 1.0, 0.05) == pytest.approx(
        bounded_mean_bounds(values, 0.0, 1.0, 0.05), abs=1e-12
    )


@pytest.mark.parametrize("n", [1, 10, 300, 10_000])
@pytest.mark.parametrize("alpha", [0.001, 0.05])
def test_no_bound_is_better_than_possible_and_constant_scores_come_near(n: int, alpha: float) -> None:
    # n items that all have the greatest value do so with probability q^n where the mean is q
    low, high = bounded_mean_bounds(np.ones(n), 0.0, 1.0, alpha)
    assert high == 1.0
    assert low <= alpha ** (1 / n)
    assert low >= (alpha * math.exp(LOG_STAKES[0])) ** (1 / n) - 1e-9
    same = bounded_mean_bounds(np.full(n, 0.25), 0.0, 1.0, alpha)
    assert same[0] < 0.25 < same[1]


@pytest.mark.parametrize(("low", "high"), [(1.0, 1.0), (2.0, 1.0), (0.0, math.nan)])
def test_bounds_that_are_none_are_refused(low: float, high: float) -> None:
    with pytest.raises(ValueError, match="bounds are"):
        bounded_mean_bounds(np.zeros(3), low, high, 0.05)


@pytest.mark.parametrize("value", [-0.1, 1.1, math.nan, math.inf])
def test_values_outside_are_refused(value: float) -> None:
    with pytest.raises(ValueError, match="do not lie between"):
        bounded_mean_bounds(np.array([0.5, value]), 0.0, 1.0, 0.05)


# how many items are needed


@relaxed
@given(SHARES, st.floats(0.01, 0.99))
def test_as_many_items_of_the_same_kind_as_are_needed_clear_the_limit(values: np.ndarray, limit: float) -> None:
    total = items_for_bounded_mean(values, 0.0, 1.0, limit, 0.05)
    assume(total is not None and total < 50_000)
    assert total is not None
    assert total >= len(values)
    times = math.ceil(total / len(values))
    low, high = bounded_mean_bounds(np.tile(values, times), 0.0, 1.0, 0.05)
    assert (low if values.mean() > limit else -high) >= (limit if values.mean() > limit else -limit) - 1e-9
    if times > 2:
        low, high = bounded_mean_bounds(np.tile(values, times - 2), 0.0, 1.0, 0.05)
        assert low <= limit <= high


@pytest.mark.parametrize(("values", "limit"), [([], 0.5), ([0.5, 0.5], 0.5), ([0.5], 0.0), ([0.5], 1.0)])
def test_no_number_of_items_clears_a_limit_at_the_mean_or_at_the_end_of_the_range(
    values: list[float], limit: float
) -> None:
    assert items_for_bounded_mean(np.array(values), 0.0, 1.0, limit, 0.05) is None


# coverage, when reading stops as soon as a bound misses the truth


def overlaps(random: np.random.Generator, n: int) -> np.ndarray:
    return random.beta(8, 2, n) - random.beta(8, 2, n)


def rare_losses(random: np.random.Generator, n: int) -> np.ndarray:
    return (random.random(n) < 0.008) * 0.85


DRAWS: dict[str, tuple[Draw, float]] = {
    "overlaps": (overlaps, 0.0),
    "rare losses": (rare_losses, 0.008 * 0.85),
    "all or nothing": (lambda random, n: random.choice([-1.0, 1.0], n), 0.0),
}


@pytest.mark.parametrize("name", DRAWS)
def test_bounds_seldom_miss_the_truth_at_any_reading(name: str) -> None:
    draw, true = DRAWS[name]
    random, repeats = np.random.default_rng(5), 120
    sizes = checkpoints(1_000)
    missed = np.zeros((repeats, 2), dtype=bool)
    for repeat in range(repeats):
        values = draw(random, sizes[-1])
        for size in sizes:
            low, high = bounded_mean_bounds(values[:size], -1.0, 1.0, 0.1)
            missed[repeat] |= (low > true, high < true)
    assert missed.mean(axis=0).max() <= 0.1 + 3 * math.sqrt(0.1 * 0.9 / repeats)
