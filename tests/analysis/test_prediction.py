from dataclasses import replace

import numpy as np
import pytest
from torch import nn

from autocompress.analysis.inspection import inspect_module
from autocompress.analysis.prediction import BaselineFigures, predict_latency, predict_size
from autocompress.core.facts import Facts, Kind
from autocompress.core.probes import MicrobenchmarkProbe, Probe
from autocompress.core.runtime import Example

KINDS = frozenset({Kind.LINEAR})
PROBE = Probe("int8", {"per_channel": False}, 0.4, 0.38, 0.42, 0.25)


@pytest.fixture(scope="module")
def facts() -> Facts:
    module = nn.Sequential(nn.Linear(100, 100), nn.ReLU(), nn.Linear(100, 100), nn.LayerNorm(100))
    return inspect_module(module, Example((np.zeros((1, 100), np.float32),)))


def microbenchmarks(latency_ms: float, **more: int) -> MicrobenchmarkProbe:
    """Three of these layers, in a file that holds nothing but their weights and a fifth more."""
    known = MicrobenchmarkProbe(3, 30_000, 30_000, 300, latency_ms, 120_000, 0.01)
    return replace(known, **more)


def test_what_the_layers_take_shrinks_as_the_microbenchmarks_did_and_the_rest_stays(facts: Facts) -> None:
    # two layers of the three take 2 ms of the model's 4
    assert predict_latency(facts, KINDS, PROBE, microbenchmarks(3.0), BaselineFigures(4.0, 1)) == pytest.approx(
        1 - 0.5 * 0.6
    )


def test_layers_take_no_more_than_the_model(facts: Facts) -> None:
    assert predict_latency(facts, KINDS, PROBE, microbenchmarks(30.0), BaselineFigures(4.0, 1)) == pytest.approx(0.4)


def test_timed_operators_say_what_the_layers_take(facts: Facts) -> None:
    whole = BaselineFigures(4.0, 1, {"FusedMatMul": 0.5, "Gemm": 0.2, "Softmax": 0.3})
    assert predict_latency(facts, KINDS, PROBE, microbenchmarks(30.0), whole) == pytest.approx(1 - 0.7 * 0.6)
    one_in_float = predict_latency(facts, KINDS, PROBE, microbenchmarks(30.0), whole, {"0"})
    assert one_in_float == pytest.approx(1 - 0.35 * 0.6)


def test_kinds_that_are_not_covered_stay_as_they_are(facts: Facts) -> None:
    conv = frozenset({Kind.CONVOLUTION})
    assert predict_latency(facts, conv, PROBE, microbenchmarks(3.0), BaselineFigures(4.0, 100_000)) == 1.0
    assert predict_size(facts, conv, PROBE, microbenchmarks(3.0), BaselineFigures(4.0, 100_000)) == 1.0


def test_weights_shrink_to_a_quarter_and_biases_stay(facts: Facts) -> None:
    # 2 x 10,000 weights in a file of 82,000 bytes; the microbenchmarks grew by nothing
    whole = BaselineFigures(4.0, 82_000)
    assert predict_size(facts, KINDS, PROBE, microbenchmarks(3.0), whole) == pytest.approx((82_000 - 60_000) / 82_000)


def test_what_each_layer_adds_is_taken_from_the_microbenchmarks(facts: Facts) -> None:
    whole = BaselineFigures(4.0, 82_000)
    # 30,000 bytes of weights and 900 more, 300 for a layer
    grown = replace(PROBE, size_ratio=30_900 / 120_000)
    assert predict_size(facts, KINDS, grown, microbenchmarks(3.0), whole) == pytest.approx((22_000 + 600) / 82_000)


def test_scales_are_counted_by_channel(facts: Facts) -> None:
    whole = BaselineFigures(4.0, 82_000)
    by_channel = replace(PROBE, settings={"per_channel": True}, size_ratio=(30_000 + 5 * 300) / 120_000)
    assert predict_size(facts, KINDS, by_channel, microbenchmarks(3.0), whole) == pytest.approx(
        (22_000 + 5 * 200) / 82_000
    )
