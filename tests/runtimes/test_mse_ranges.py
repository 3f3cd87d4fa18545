import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autocompress.runtimes.mse_ranges import BINS, Histogram, MseCollector, squared_error


def histogram(*batches: np.ndarray) -> Histogram:
    made = Histogram()
    for batch in batches:
        made.add(batch)
    return made


def error(values: np.ndarray, low: float, high: float) -> float:
    return squared_error(values.astype(np.float64), np.ones(values.size), low, high)


@given(st.integers(0, 10_000), st.sampled_from(["normal", "laplace", "relu", "uniform", "outlier", "negative"]))
@settings(max_examples=40, deadline=None)
def test_the_error_is_at_most_that_of_the_whole_range(seed: int, kind: str) -> None:
    draws = np.random.default_rng(seed)
    values = draws.laplace(size=4000) if kind == "laplace" else draws.standard_normal(4000)
    if kind == "relu":
        values = np.maximum(values, 0)
    elif kind == "uniform":
        values = draws.uniform(-1, 3, 4000)
    elif kind == "outlier":
        values[0] = 300
    elif kind == "negative":
        values = -np.abs(values)
    low, high = histogram(values).best_range()
    lowest, highest = min(values.min(), 0), max(values.max(), 0)
    assert lowest <= low <= 0 <= high <= highest
    # values are counted in bins, which are narrow beside a step of eight bits
    assert error(values, low, high) <= 1.05 * error(values, lowest, highest)


def test_a_rare_outlier_is_cut_off_and_even_values_are_not() -> None:
    draws = np.random.default_rng(0)
    values = draws.standard_normal(1_000_000)
    assert histogram(values).best_range()[1] < 0.98 * values.max()
    values[0] = 40.0
    low, high = histogram(values).best_range()
    # what is cut off costs about as much as wider steps for all others would
    assert high < 20
    assert low < -3
    even = draws.uniform(0, 5, 1_000_000)
    assert histogram(even).best_range() == pytest.approx((0, even.max()), rel=0.02)


@given(st.lists(st.floats(1e-3, 1e3), min_size=1, max_size=6), st.integers(0, 100))
@settings(max_examples=40, deadline=None)
def test_batches_of_any_spread_keep_the_number_of_bins_and_all_values(spreads: list[float], seed: int) -> None:
    draws = np.random.default_rng(seed)
    batches = [spread * draws.standard_normal(200) for spread in spreads]
    made = histogram(*batches)
    assert made.counts.shape == (BINS,)
    assert made.counts.sum() == 200 * len(spreads)
    assert made.lowest == min(0.0, *(batch.min() for batch in batches))
    assert made.reach >= max(np.abs(batch).max() for batch in batches)


def test_zeros_cost_nothing_and_no_values_give_no_range() -> None:
    draws = np.random.default_rng(0)
    values = np.maximum(draws.standard_normal(10_000), 0)
    assert histogram(values).best_range() == histogram(values[values > 0]).best_range()
    assert histogram(np.zeros(5)).best_range() == (0.0, 0.0)
    assert histogram(np.zeros(0)).best_range() == (0.0, 0.0)


def test_values_without_bounds_are_told_as_they_are() -> None:
    made = histogram(np.array([1.0, -np.inf]), np.array([2.0]))
    assert made.best_range() == (-np.inf, 2.0)


def test_the_collector_gives_a_range_per_tensor() -> None:
    collector = MseCollector()
    for seed in range(3):
        values = np.random.default_rng(seed).standard_normal((4, 50)).astype(np.float32)
        collector.collect({"one": [values, values], "two": [10 * values]})
    found = collector.compute_collection_result()
    assert found["one"][0] < 0 < found["one"][1]
    assert found["two"][1] == pytest.approx(10 * found["one"][1], rel=0.05)
    assert all(value.dtype == np.float32 for value in found["one"])
