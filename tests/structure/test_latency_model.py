from __future__ import annotations

import numpy as np
import pytest
from torch import nn

from autocompress.analysis.inspection import inspect_module
from autocompress.core.runtime import Example
from autocompress.structure.latency_model import LatencyModel, work_of

EXAMPLE = Example((np.zeros((1, 3, 16, 16), np.float32),))


def network(large: int, small: int) -> nn.Module:
    convolutions = [nn.Conv2d(8, 8, 3, padding=1) for _ in range(large + small)]
    return nn.Sequential(nn.Conv2d(3, 8, 1), *convolutions[:large], nn.MaxPool2d(2), *convolutions[large:])


def work(large: int, small: int) -> dict[str, float]:
    return work_of(inspect_module(network(large, small), EXAMPLE).layers)


def truth(large: int, small: int) -> float:
    # nothing like FLOPs: a layer on a small image costs half of one on an image of four times the size
    return 0.05 + 0.06 * large + 0.03 * small


def test_what_layers_cost_is_learned_from_a_few_measurements() -> None:
    noise = np.random.default_rng(0)
    seen = [(8, 8), (4, 8), (8, 4)]
    measured = [(work(*one), truth(*one) + 0.002 * noise.standard_normal()) for one in seen]
    model = LatencyModel.fit(inspect_module(network(8, 8), EXAMPLE), measured)
    for unseen in ((2, 2), (6, 3), (1, 7), (5, 5)):
        assert model.predict(work(*unseen)) == pytest.approx(truth(*unseen), rel=0.1)


def test_one_measurement_is_shared_out_by_layers_and_macs() -> None:
    facts = inspect_module(network(8, 8), EXAMPLE)
    model = LatencyModel.fit(facts, [(work(8, 8), 0.5)])
    assert model.predict(work(8, 8)) == pytest.approx(0.5, rel=0.01)
    assert 0.05 < model.predict(work(1, 1)) < 0.25
    assert all(coefficient >= 0 for coefficient in model.coefficients.values())


def test_a_measurement_corrects_what_was_predicted() -> None:
    facts = inspect_module(network(8, 8), EXAMPLE)
    first = LatencyModel.fit(facts, [(work(8, 8), 0.5)])
    second = LatencyModel.fit(facts, [(work(8, 8), 0.5), (work(2, 8), 0.15)])
    assert abs(second.predict(work(2, 8)) - 0.15) < 0.3 * abs(first.predict(work(2, 8)) - 0.15)
