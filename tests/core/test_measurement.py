import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from autocompress.core.measurement import STATISTICS, Conditions, Measurement, Reading

SAMPLES = hnp.arrays(np.float64, hnp.array_shapes(min_dims=1, max_dims=2, max_side=9), elements=st.floats())
SANE = hnp.arrays(
    np.float64,
    hnp.array_shapes(min_dims=1, max_dims=2, max_side=9),
    elements=st.floats(min_value=0, max_value=1e6, allow_nan=False),
)
BLOCKS = np.array([[1.0, 2.0, 3.0, 10.0], [2.0, 2.0, 2.0, 2.0], [0.0, 1.0, 1.0, 8.0]])
CONDITIONS = Conditions("ab" * 32, "onnxruntime", {"onnxruntime": "1.27.0", "numpy": "2.3"}, 2, 8, "0123456789abcdef")


def through_json(reading: Reading) -> Reading:
    return Reading.from_json(json.loads(json.dumps(reading.to_json(), allow_nan=False)))


def bits(samples: NDArray[np.float64]) -> list[int]:
    return [int(word) for word in samples.ravel().view(np.uint64)]


@settings(deadline=None)
@given(SAMPLES)
def test_json_holds_every_bit_of_one_and_two_dimensional_samples(samples: NDArray[np.float64]) -> None:
    read = through_json(Reading("ms", samples))
    assert read.samples.shape == samples.shape
    assert read.samples.dtype == np.float64
    assert bits(read.samples) == bits(samples)
    assert read.unit == "ms"


def test_json_holds_the_bounds_and_that_there_are_none() -> None:
    assert through_json(Reading("score", np.ones(3), bounds=(0.0, 1.0))).bounds == (0.0, 1.0)
    assert through_json(Reading("score", np.ones(3))).bounds is None


@pytest.mark.parametrize("shape", [(0,), (0, 50), (3, 0)])
def test_json_holds_the_shape_of_readings_without_samples(shape: tuple[int, ...]) -> None:
    assert through_json(Reading("ms", np.zeros(shape))).samples.shape == shape


def test_json_holds_samples_that_are_not_contiguous() -> None:
    assert np.array_equal(through_json(Reading("ms", BLOCKS.T[:, ::2])).samples, BLOCKS.T[:, ::2])


def test_what_was_read_from_json_may_be_written_to() -> None:
    read = through_json(Reading("ms", BLOCKS))
    read.samples[0, 0] = 7.0
    assert read.samples[0, 0] == 7.0
    assert BLOCKS[0, 0] == 1.0


def test_statistics_are_taken_over_all_samples() -> None:
    reading = Reading("ms", BLOCKS)
    assert reading.statistic("mean") == pytest.approx(34 / 12)
    assert reading.statistic("p50") == 2.0
    assert reading.statistic("p99") == pytest.approx(np.percentile(BLOCKS, 99))
    assert reading.statistic("p99") > reading.statistic("p95") > reading.statistic("p90")


def test_block_statistics_are_taken_inside_each_block() -> None:
    reading = Reading("ms", BLOCKS)
    assert reading.block_statistic("mean").tolist() == [4.0, 2.0, 2.5]
    assert reading.block_statistic("p50").tolist() == [2.5, 2.0, 1.0]
    assert reading.block_statistic("p90") == pytest.approx(np.percentile(BLOCKS, 90, axis=1))


@pytest.mark.parametrize("name", STATISTICS)
def test_in_samples_without_blocks_each_sample_is_a_block(name: str) -> None:
    samples = np.array([3.0, 1.0, 2.0])
    assert Reading("ms", samples).block_statistic(name).tolist() == [3.0, 1.0, 2.0]


@pytest.mark.parametrize("name", ["median", "p42", "", "P50"])
def test_an_unknown_statistic_is_refused_with_the_known_ones(name: str) -> None:
    with pytest.raises(ValueError, match="unknown statistic") as caught:
        Reading("ms", BLOCKS).statistic(name)
    assert all(known in str(caught.value) for known in STATISTICS)


@settings(deadline=None)
@given(SANE, st.sampled_from(STATISTICS))
def test_a_statistic_lies_between_the_smallest_and_the_largest_sample(samples: NDArray[np.float64], name: str) -> None:
    reading = Reading("ms", samples)
    low, high = samples.min() * (1 - 1e-9), samples.max() * (1 + 1e-9)
    assert low <= reading.statistic(name) <= high
    blocks = reading.block_statistic(name)
    assert blocks.shape == (samples.shape[0],)
    assert np.all((low <= blocks) & (blocks <= high))


@settings(deadline=None)
@given(SANE)
def test_the_mean_of_the_block_means_is_the_mean(samples: NDArray[np.float64]) -> None:
    reading = Reading("ms", samples)
    assert reading.block_statistic("mean").mean() == pytest.approx(reading.statistic("mean"), abs=1e-9)
    assert reading.value == pytest.approx(reading.statistic("mean"))


def test_one_number_is_a_reading_of_one_sample() -> None:
    reading = Reading.one("MB", 3.25)
    assert reading.samples.tolist() == [3.25]
    assert (reading.unit, reading.value, reading.statistic("p95")) == ("MB", 3.25, 3.25)


def test_a_measurement_survives_json_with_baseline_and_conditions() -> None:
    measurement = Measurement(
        {"latency_ms": Reading("ms", BLOCKS), "size_mb": Reading.one("MB", 0.1)},
        {"latency_ms": Reading("ms", BLOCKS * 2)},
        CONDITIONS,
    )
    read = Measurement.from_json(json.loads(json.dumps(measurement.to_json())))
    assert read.conditions == CONDITIONS
    assert set(read.readings) == {"latency_ms", "size_mb"}
    assert np.array_equal(read.readings["latency_ms"].samples, BLOCKS)
    assert read.readings["size_mb"].unit == "MB"
    assert np.array_equal(read.baseline["latency_ms"].samples, BLOCKS * 2)


def test_an_empty_measurement_survives_json() -> None:
    read = Measurement.from_json(json.loads(json.dumps(Measurement().to_json())))
    assert (dict(read.readings), dict(read.baseline), read.conditions) == ({}, {}, None)


def test_adding_a_measurement_replaces_the_same_metric_and_keeps_the_others() -> None:
    first = Measurement({"size_mb": Reading.one("MB", 1), "latency_ms": Reading.one("ms", 9)}, {}, CONDITIONS)
    second = Measurement({"latency_ms": Reading.one("ms", 5)}, {"latency_ms": Reading.one("ms", 10)})
    both = first.with_(second)
    assert {name: reading.value for name, reading in both.readings.items()} == {"size_mb": 1, "latency_ms": 5}
    assert both.baseline["latency_ms"].value == 10
    assert both.conditions == CONDITIONS
    assert first.readings["latency_ms"].value == 9
