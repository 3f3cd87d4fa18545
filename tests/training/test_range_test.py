from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from autocompress.core.runtime import Example
from autocompress.core.task import Task
from autocompress.training import cost, range_test
from autocompress.training.cost import ADAMW_RATE, measure_training

INPUTS = np.random.default_rng(0).standard_normal((512, 6)).astype(np.float32)
LABELS = (INPUTS[:, 0] > 0).astype(np.int64)
TASK = Task(test=(INPUTS, LABELS), train=(INPUTS, LABELS))
EXAMPLE = Example((INPUTS[:2],))


def network(width: int, seed: int, scale: float = 1.0) -> nn.Module:
    torch.manual_seed(seed)
    made = nn.Sequential(nn.Linear(6, width), nn.ReLU(), nn.Linear(width, 2))
    with torch.no_grad():
        made[2].weight.mul_(scale)
    return made


def test_a_default_that_is_far_too_slow_is_replaced_by_a_rate_that_is_stored() -> None:
    found = measure_training(network(16, 3), network(32, 1, scale=10.0).eval(), TASK, EXAMPLE)
    assert found is not None
    assert found.learning_rate > ADAMW_RATE
    assert "instead of the default" in found.rate_reason
    again = measure_training(network(16, 3), network(32, 1, scale=10.0).eval(), TASK, EXAMPLE)
    assert again is not None
    assert again.learning_rate == found.learning_rate


def test_a_rate_near_the_one_found_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(range_test, "_rate_at_which_the_loss_rises", lambda *_: ADAMW_RATE / range_test.BELOW)
    found = measure_training(network(16, 3), network(32, 1).eval(), TASK, EXAMPLE)
    assert found is not None
    assert found.learning_rate == ADAMW_RATE
    assert found.rate_reason.startswith("the default")


def test_steps_that_are_too_slow_for_a_test_are_trained_with_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cost, "RANGE_SECONDS", 0.0)
    found = measure_training(network(16, 3), network(32, 1).eval(), TASK, EXAMPLE)
    assert found is not None
    assert found.learning_rate == ADAMW_RATE
    assert "would take" in found.rate_reason
