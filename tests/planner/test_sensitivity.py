from __future__ import annotations

import numpy as np
import torch
from torch import nn

from autocompress.planner.sensitivity import order_blocks
from autocompress.runtime import Example
from autocompress.source import ArraySource, whole


class Scaled(nn.Module):
    """A residual block whose branch counts as much as its factor says."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(8, 8), nn.Tanh())
        self.factor = factor

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.factor * self.body(x)


def test_blocks_go_in_the_order_of_what_they_change_and_the_divergence_is_that_of_all_gone_so_far() -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Sequential(*(Scaled(f) for f in (2.0, 0.01, 0.5, 0.1, 1.0))), nn.Linear(8, 3))
    items = np.random.default_rng(0).standard_normal((64, 8)).astype(np.float32)
    part = whole("train", ArraySource((items,), np.zeros(64, dtype=np.int64)))
    order = order_blocks(module, Example((items[:2],)), part)
    assert [block.name for block in order] == ["0.1", "0.3", "0.2"]
    divergences = [block.divergence for block in order]
    assert divergences == sorted(divergences)
    assert 0 < divergences[0] < 0.01


def test_a_network_without_blocks_has_no_order() -> None:
    items = np.ones((8, 4), np.float32)
    part = whole("train", ArraySource((items,), np.zeros(8, dtype=np.int64)))
    assert order_blocks(nn.Sequential(nn.Linear(4, 4)), Example((items[:2],)), part) == ()
