from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from autocompress.core.runtime import Example
from autocompress.errors import TechniqueError
from autocompress.testing.networks import labelled, small_model
from autocompress.training.kept_inputs import KeptInputs
from autocompress.training.synthetic_inputs import (
    ITEMS,
    LEAST_ITEMS,
    LEAST_STEPS,
    MOST_STEPS,
    items_and_steps,
    synthetic_inputs,
    why_no_inputs,
)

IMAGE = Example(labelled("cnn", 1)[0])
MACS = 1_000_000


class Shifted(nn.Module):
    """A batch norm of inputs with these means and deviations."""

    def __init__(self, means: list[float], deviations: list[float]) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(2)
        assert self.norm.running_mean is not None
        assert self.norm.running_var is not None
        self.norm.running_mean.copy_(torch.tensor(means))
        self.norm.running_var.copy_(torch.tensor(deviations).square())

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        return self.norm(values)


@pytest.mark.parametrize(("means", "deviations"), [([3.0, -1.0], [2.0, 0.5]), ([120.0, 90.0], [60.0, 70.0])])
def test_inputs_get_the_statistics_that_the_batch_norm_keeps(means: list[float], deviations: list[float]) -> None:
    example = Example({"values": np.zeros((1, 2), dtype=np.float32)})
    found = synthetic_inputs(Shifted(means, deviations).eval(), example, steps=100)["values"]
    assert found.shape == (ITEMS, 2)
    np.testing.assert_allclose((found.mean(0) - means) / deviations, 0, atol=0.1)
    np.testing.assert_allclose(found.std(0), deviations, rtol=0.1)


def test_the_distance_falls_in_a_network_that_is_left_as_it_is() -> None:
    module = small_model("cnn").train()
    seen: list[float] = []
    before = {name: value.clone() for name, value in module.state_dict().items()}
    synthetic_inputs(module, IMAGE, 16, 40, lambda step, distance: seen.append(distance))
    # its random statistics are not those of any images
    assert seen[-1] < 0.8 * seen[0]
    assert module.training
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    assert all(parameter.grad is None for parameter in module.parameters())


def test_the_same_network_gives_the_same_inputs_whatever_was_drawn_before() -> None:
    first = synthetic_inputs(small_model("cnn"), IMAGE, 8, 5)
    torch.rand(7)
    second = synthetic_inputs(small_model("cnn"), IMAGE, 8, 5)
    assert all(np.array_equal(array, second[name]) for name, array in first.items())


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        ("mlp", "no layer keeps statistics"),
        ("transformer", "input_ids is not floating"),
        ("cnn", ""),
    ],
)
def test_where_no_inputs_can_be_made_the_reason_says_why(model: str, reason: str) -> None:
    found = why_no_inputs(small_model(model), Example(labelled(model, 1)[0]))
    assert found.endswith(reason)
    assert bool(found) == bool(reason)
    assert "PyTorch module" in why_no_inputs(None, IMAGE)


def test_a_batch_norm_that_no_input_reaches_is_an_error() -> None:
    module = nn.Sequential(nn.Flatten(), nn.Linear(768, 2))
    module.register_module("unused", nn.ModuleDict({"norm": nn.BatchNorm1d(2)}))
    module.forward = lambda values: values.flatten(1)  # type: ignore[method-assign]
    with pytest.raises(TechniqueError, match="no batch norm depends on them"):
        synthetic_inputs(module, IMAGE, 4, 2)


def test_the_work_is_bounded_whatever_the_size_of_the_network() -> None:
    assert items_and_steps(MACS) == (ITEMS, MOST_STEPS)
    assert items_and_steps(10**12) == (LEAST_ITEMS, LEAST_STEPS)
    products = [items * steps for items, steps in map(items_and_steps, (10**6, 10**7, 10**8, 10**9, 10**10))]
    assert products == sorted(products, reverse=True)


def test_inputs_are_made_once_and_again_where_the_file_is_damaged(tmp_path: Path) -> None:
    kept = KeptInputs(tmp_path / "kept", IMAGE)
    told: list[str] = []
    first = kept.split(small_model("cnn"), 10**12, told.append)
    again = kept.split(small_model("cnn"), 10**12, told.append)
    assert len(told) == 1
    assert first.name == again.name == "synthetic"
    assert first.hash == again.hash
    path = tmp_path / "kept" / "inputs.npz"
    path.write_bytes(path.read_bytes()[:100])
    assert kept.split(small_model("cnn"), 10**12, told.append).hash == first.hash
    assert len(told) == 2
