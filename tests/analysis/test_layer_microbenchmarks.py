import numpy as np
import pytest
import torch
from torch import nn

from autocompress.analysis import layer_microbenchmarks as microbenchmarks_module
from autocompress.analysis.inspection import inspect_module
from autocompress.analysis.layer_microbenchmarks import MOST_COPIES, activation_of, build, microbenchmarks_of
from autocompress.core.facts import Facts
from autocompress.core.runtime import Example


def facts_of(module: nn.Module, *shape: int) -> Facts:
    values = np.random.default_rng(0).standard_normal((1, *shape)).astype(np.float32)
    return inspect_module(module.eval(), Example((values,)))


@pytest.mark.parametrize(
    ("module", "shape", "length"),
    [
        (nn.Conv2d(8, 8, 3, padding=1), (8, 10, 10), 2),
        (nn.Conv2d(8, 12, 3, padding=1), (8, 10, 10), 3),
        (nn.Conv2d(8, 12, 3, 2, padding=1), (8, 10, 10), 2),
        (nn.Conv2d(8, 8, 3, padding=1, groups=8), (8, 10, 10), 2),
        (nn.Conv1d(8, 12, 5, padding=2), (8, 20), 3),
        (nn.Linear(24, 12), (24,), 3),
        (nn.Linear(24, 12), (7, 24), 3),
        (nn.Linear(2100, 2000), (2100,), 1),
        (nn.LSTM(16, 32, batch_first=True), (12, 16), 1),
        (nn.GRU(16, 32, batch_first=True), (12, 16), 1),
        (nn.LSTM(16, 32, 2, batch_first=True), (12, 16), 1),
    ],
)
@pytest.mark.parametrize("width", [None, 4])
def test_a_microbenchmark_of_any_layer_runs_at_its_own_width_and_thin(
    module: nn.Module, shape: tuple[int, ...], length: int, width: int | None
) -> None:
    (microbenchmark,) = microbenchmarks_of(facts_of(module, *shape))
    assert (microbenchmark.length, microbenchmark.copies) == (length, 1)
    microbenchmarks, inputs = build([microbenchmark], width)
    assert list(inputs.values()) == [shape]
    outputs = microbenchmarks(**{name: torch.zeros(2, *size) for name, size in inputs.items()})
    assert [len(output) for output in outputs.values()] == [2]
    # a layer of the microbenchmark does what one of the model's does
    if width is None:
        assert max(weight.numel() for weight in microbenchmarks.parameters()) == max(
            w.numel() for w in module.parameters()
        )
        assert sum(w.numel() for w in microbenchmarks.parameters()) >= sum(w.numel() for w in module.parameters())


def test_there_is_no_microbenchmark_of_what_is_neither_convolution_linear_nor_recurrent() -> None:
    assert microbenchmarks_of(facts_of(nn.Conv3d(2, 2, 3), 2, 6, 6, 6)) == []
    assert microbenchmarks_of(facts_of(nn.ReLU(), 4)) == []


def test_layers_that_do_more_work_stand_in_more_microbenchmarks() -> None:
    wide = [nn.Linear(32, 32) for _ in range(9)]
    microbenchmarks = microbenchmarks_of(
        facts_of(nn.Sequential(nn.Linear(8, 32), *wide, nn.Linear(32, 64), nn.Linear(64, 32)), 8)
    )
    copies = {microbenchmark.layer.detail["out"]: microbenchmark.copies for microbenchmark in microbenchmarks}
    assert copies[32] > copies.get(64, 0)
    assert max(copies.values()) <= MOST_COPIES
    module, inputs = build(microbenchmarks)
    assert len(inputs) == len(module.microbenchmarks) == sum(copies.values())


def test_microbenchmarks_that_would_take_long_stand_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    wide = [nn.Linear(32, 32) for _ in range(9)]
    facts = facts_of(nn.Sequential(nn.Linear(8, 32), *wide, nn.Linear(32, 64), nn.Linear(64, 32)), 8)
    before = {microbenchmark.layer.name: microbenchmark.copies for microbenchmark in microbenchmarks_of(facts)}
    monkeypatch.setattr(microbenchmarks_module, "MOST_MACS", 1)
    after = {microbenchmark.layer.name: microbenchmark.copies for microbenchmark in microbenchmarks_of(facts)}
    assert after.keys() == before.keys()
    assert max(before.values()) > max(after.values()) == 1


def test_microbenchmarks_activate_as_the_model_mostly_does() -> None:
    blocks = [part for _ in range(2) for part in (nn.Conv2d(8, 8, 3, padding=1), nn.Hardswish())]
    facts = facts_of(nn.Sequential(*blocks, nn.ReLU(), nn.Sigmoid(), nn.Sigmoid(), nn.Sigmoid()), 8, 6, 6)
    assert facts.activations == {"Hardswish": 2, "ReLU": 1, "Sigmoid": 3}
    assert activation_of(facts) == "Hardswish"
    module, _ = build(microbenchmarks_of(facts))
    assert any(isinstance(part, nn.Hardswish) for part in module.modules())
    assert not any(isinstance(part, nn.ReLU) for part in module.modules())


def test_microbenchmarks_of_a_model_that_activates_by_functions_have_relu() -> None:
    assert activation_of(facts_of(nn.Linear(8, 8), 8)) == "ReLU"


def test_the_same_microbenchmarks_have_the_same_weights_and_random_numbers_go_on_as_before() -> None:
    microbenchmarks = microbenchmarks_of(facts_of(nn.Linear(24, 12), 24))
    torch.manual_seed(3)
    first, second = build(microbenchmarks)[0], build(microbenchmarks)[0]
    after = torch.rand(2)
    torch.manual_seed(3)
    assert torch.equal(after, torch.rand(2))
    pairs = zip(first.parameters(), second.parameters(), strict=True)
    assert all(torch.equal(one, other) for one, other in pairs)
