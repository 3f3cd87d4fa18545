"""A network that int8 breaks as it comes: the run measures where, and what follows keeps the accuracy."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from autocompress import autocompress
from autocompress.core.plan import Plan
from autocompress.core.profile import Profile, Protocol
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


@pytest.fixture(scope="module")
def uneven() -> Uneven:
    torch.manual_seed(0)
    task = load_data("digits")
    assert task.train is not None
    (inputs, labels), *_ = task.calibration.batches(len(task.train)) if task.calibration else []
    images, wanted = torch.from_numpy(inputs[0]), torch.from_numpy(np.asarray(labels))
    network = Uneven()
    optimizer = torch.optim.Adam(network.parameters(), 3e-3)
    for step in range(240):
        items = torch.arange(step * 64, step * 64 + 64) % len(images)
        optimizer.zero_grad()
        functional.cross_entropy(network(images[items]), wanted[items]).backward()
        optimizer.step()
    scale = torch.logspace(0, float(np.log10(SPREAD)), 24)[torch.randperm(24)]
    with torch.no_grad():
        network.first.weight *= scale[:, None, None, None]
        network.first.bias *= scale
        network.second.weight /= scale[:, None, None]
    return network.eval()


@pytest.mark.timeout(240)
def test_what_int8_loses_as_it_comes_is_kept_by_what_follows(uneven: Uneven, tmp_path: Path) -> None:
    profile = Profile("own", protocol=Protocol(max_seconds=0.3))
    result = autocompress(uneven, profile, load_data("digits"), budgets=BUDGETS, out=tmp_path)
    assert result.met, str(result)
    plain = [trial for trial in result.history if trial.plan.kind in ("int8_static", "int8_dynamic")]
    assert plain
    assert isinstance(result.plan, Plan)
