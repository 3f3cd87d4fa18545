"""A network that int8 breaks as it comes: the run measures where, and what follows keeps the accuracy."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from autocompress import autocompress
from autocompress.api import apply_plan
from autocompress.core.plan import Plan, Stage
from autocompress.core.profile import Profile, Protocol
from autocompress.core.trial import Trial
from autocompress.data.data_spec import load_data

BUDGETS: dict[str, float | str] = {"size_mb": "0.45x", "max_accuracy_drop_pp": 2.0}
# the largest of its channels has so many times the values of the smallest
SPREAD = 3000.0


class Uneven(nn.Module):
    """A CNN for digits whose first convolution gives some channels a thousand times the values of others."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 24, 3, padding=1)
        self.second = nn.Conv2d(24, 64, 3, padding=1)
        self.third = nn.Conv2d(64, 96, 3, padding=1)
        self.head = nn.Linear(96, 10)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        hidden = functional.relu(self.second(functional.relu(self.first(images))))
        return self.head(functional.relu(self.third(functional.max_pool2d(hidden, 2))).mean((2, 3)))


class Residual(nn.Module):
    """A CNN for digits whose residual stream has channels of very different values.

    No scale can be moved out of the stream, every block reads and writes it, and rounding it keeps small channels from
    the blocks: what is left is to learn weights that do without.
    """

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 48, 3, padding=1)
        self.first = nn.ModuleList(nn.Conv2d(48, 64, 3, padding=1) for _ in range(3))
        self.second = nn.ModuleList(nn.Conv2d(64, 48, 3, padding=1) for _ in range(3))
        self.head = nn.Linear(48, 10)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        stream = self.stem(images)
        for first, second in zip(self.first, self.second, strict=True):
            stream = stream + second(functional.relu(first(stream)))
        return self.head(functional.max_pool2d(stream, 2).mean((2, 3)))


def train(network: nn.Module, steps: int, rate: float) -> None:
    task = load_data("digits")
    assert task.train is not None
    (inputs, labels), *_ = task.calibration.batches(len(task.train)) if task.calibration else []
    images, wanted = torch.from_numpy(inputs[0]), torch.from_numpy(np.asarray(labels))
    optimizer = torch.optim.Adam(network.parameters(), rate)
    for step in range(steps):
        items = torch.arange(step * 64, step * 64 + 64) % len(images)
        optimizer.zero_grad()
        functional.cross_entropy(network(images[items]), wanted[items]).backward()
        optimizer.step()


def scales(channels: int, spread: float) -> torch.Tensor:
    return torch.logspace(0, float(np.log10(spread)), channels)[torch.randperm(channels)]


@pytest.fixture(scope="module")
def uneven() -> Uneven:
    torch.manual_seed(0)
    network = Uneven()
    train(network, 240, 3e-3)
    scale = scales(24, SPREAD)
    with torch.no_grad():
        network.first.weight *= scale[:, None, None, None]
        network.first.bias *= scale
        network.second.weight /= scale[:, None, None]
    return network.eval()


@pytest.fixture(scope="module")
def residual() -> Residual:
    torch.manual_seed(0)
    network = Residual()
    train(network, 300, 2e-3)
    scale = scales(48, 200.0)
    with torch.no_grad():
        for layer in (network.stem, *network.second):
            layer.weight *= scale[:, None, None, None]
            layer.bias *= scale
        for layer in network.first:
            layer.weight /= scale[:, None, None]
        network.head.weight /= scale
    return network.eval()


@pytest.mark.timeout(240)
def test_what_int8_loses_as_it_comes_is_kept_by_what_follows(uneven: Uneven, tmp_path: Path) -> None:
    profile = Profile("own", protocol=Protocol(max_seconds=0.3))
    result = autocompress(uneven, profile, load_data("digits"), budgets=BUDGETS, out=tmp_path)
    assert result.met, str(result)
    plain = [trial for trial in result.history if trial.plan.kind in ("int8_static", "int8_dynamic")]
    assert plain
    assert isinstance(result.plan, Plan)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_what_only_training_keeps_is_trained_as_quantized(residual: Residual, tmp_path: Path) -> None:
    profile = Profile("own", protocol=Protocol(max_seconds=1.0))
    budgets: dict[str, float | str] = {"size_mb": "0.35x", "latency_ms": "0.95x", "max_accuracy_drop_pp": 3.0}
    result = autocompress(residual, profile, load_data("digits"), budgets=budgets, out=tmp_path)
    assert result.met, str(result)
    assert result.plan.kind == "int8_static + quantization_aware_training"
    kinds = {trial.plan.kind for trial in result.history}
    assert {"int8_static", "equalization + int8_static", "int8_static + learned_rounding"} < kinds
    # each of them was judged, and lost
    for trial in result.history:
        assert trial.promising == (trial.plan.kind == result.plan.kind), trial.reason
    (recipe,) = (one for one in result.search_space.recipes if "quantization_aware_training" in one.name)
    assert recipe.seconds_per_step
    # the plan replays to the same file
    again = apply_plan(result.plan, residual, profile, load_data("digits"), out=tmp_path / "again")
    assert again.artifact.hash == result.artifact.hash


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_pruned_network_is_quantized_with_care_before_it_is_trained_further(uneven: Uneven, tmp_path: Path) -> None:
    profile = Profile("own", protocol=Protocol(max_seconds=1.0))
    budgets: dict[str, float | str] = {"size_mb": "0.13x", "max_accuracy_drop_pp": 3.0}
    result = autocompress(uneven, profile, load_data("digits"), budgets=budgets, out=tmp_path, max_time="10m")
    assert result.met, str(result)
    assert result.plan.rounds
    assert len(result.plan.finish) == 2
    scores = {
        trial.plan.planned: trial.measurement.readings["score"].value for trial in result.history if scored(trial)
    }
    plain = Plan(result.plan.planned.rounds, tuple(one for one in result.plan.finish if one.stage is Stage.PRECISION))
    assert scores[result.plan.planned] > scores[plain] + 0.3
    recipe = result.search_space.recipe_of(result.plan)
    assert recipe is not None
    assert "quantization costs" in recipe.reason.fact


def scored(trial: Trial) -> bool:
    return "score" in trial.measurement.readings
