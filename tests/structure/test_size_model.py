from dataclasses import replace

import pytest

from autocompress.core.facts import Kind, LayerFact
from autocompress.structure.size_model import SizeModel

LAYER = LayerFact("layer", "Conv2d", Kind.CONVOLUTION, 1000, 0, (), (), {})
BASELINE_BYTES = 100_000


def network(layers: int, parameters: int) -> list[LayerFact]:
    return [replace(LAYER, parameters=parameters)] * layers


def truth(layers: int, parameters: int, value_bytes: float) -> float:
    """So many bytes for each parameter, and 120 for each layer."""
    return layers * (value_bytes * parameters + 120) / BASELINE_BYTES


@pytest.mark.parametrize("value_bytes", [1.0, 2.0, 4.0])
def test_one_size_is_shared_out_by_bytes_of_weights_and_layers(value_bytes: float) -> None:
    whole = network(20, 1000), truth(20, 1000, value_bytes)
    model = SizeModel.fit([whole], BASELINE_BYTES, lambda layer: value_bytes)
    for layers, parameters in ((20, 1000), (5, 1000), (20, 300), (3, 100)):
        expected = truth(layers, parameters, value_bytes)
        assert model.predict(network(layers, parameters)) == pytest.approx(expected, rel=1e-3)


def test_layers_that_stay_in_float_keep_their_bytes() -> None:
    in_float = replace(LAYER, kind=Kind.NORM, parameters=500)

    def value_bytes(layer: LayerFact) -> float:
        return 4.0 if layer.kind is Kind.NORM else 1.0

    whole = [*network(10, 1000), *[in_float] * 10]
    size = truth(10, 1000, 1.0) + truth(10, 500, 4.0)
    model = SizeModel.fit([(whole, size)], BASELINE_BYTES, value_bytes)
    assert model.predict([in_float] * 5) == pytest.approx(truth(5, 500, 4.0), rel=1e-3)
    assert model.predict(network(5, 1000)) == pytest.approx(truth(5, 1000, 1.0), rel=1e-3)


def test_more_sizes_correct_what_a_byte_costs() -> None:
    # some of the weights stay in float, which nobody has said
    seen = [(20, 1000), (10, 1000), (20, 400)]
    measured = [(network(*one), truth(*one, 2.5)) for one in seen]
    model = SizeModel.fit(measured, BASELINE_BYTES, lambda layer: 1.0)
    assert model.predict(network(6, 500)) == pytest.approx(truth(6, 500, 2.5), rel=0.03)


def test_a_file_smaller_than_its_weights_has_layers_that_cost_nothing() -> None:
    model = SizeModel.fit([(network(20, 1000), 0.1)], BASELINE_BYTES, lambda layer: 1.0)
    assert model.predict(network(10, 1000)) == pytest.approx(0.05, rel=0.01)
