from dataclasses import replace

import pytest

from autocompress.facts import Kind, LayerFact
from autocompress.planner import SizeModel

LAYER = LayerFact("layer", "Conv2d", Kind.CONVOLUTION, 1000, 0, (), (), {})
BASELINE_BYTES = 100_000


def network(layers: int, parameters: int) -> list[LayerFact]:
    return [replace(LAYER, parameters=parameters)] * layers


def truth(layers: int, parameters: int) -> float:
    """A byte for each parameter and 120 for each layer."""
    return layers * (parameters + 120) / BASELINE_BYTES


def test_one_size_is_shared_out_by_parameters_and_layers() -> None:
    model = SizeModel.fit([(network(20, 1000), truth(20, 1000))], BASELINE_BYTES)
    for layers, parameters in ((20, 1000), (5, 1000), (20, 300), (3, 100)):
        assert model.predict(network(layers, parameters)) == pytest.approx(truth(layers, parameters), rel=1e-3)


def test_more_sizes_correct_what_a_parameter_costs() -> None:
    # some of the weights stay in float
    seen = [(20, 1000), (10, 1000), (20, 400)]
    measured = [(network(*one), (2.5 * one[0] * one[1] + one[0] * 50) / BASELINE_BYTES) for one in seen]
    model = SizeModel.fit(measured, BASELINE_BYTES)
    assert model.predict(network(6, 500)) == pytest.approx((2.5 * 3000 + 300) / BASELINE_BYTES, rel=0.03)


def test_a_file_smaller_than_a_byte_for_each_parameter_has_layers_that_cost_nothing() -> None:
    model = SizeModel.fit([(network(20, 1000), 0.1)], BASELINE_BYTES)
    assert model.predict(network(10, 1000)) == pytest.approx(0.05, rel=0.01)
