from __future__ import annotations

import torch
from torch import nn

from autocompress.training.checkpoints import Average


class Masked(nn.Module):
    """A weight, and a mask that holds minus infinity."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(2))
        self.register_buffer("mask", torch.tensor([0.0, -torch.inf]))


def test_the_average_leaves_a_mask_of_minus_infinity_as_it_is() -> None:
    module = Masked()
    average = Average(module, 0.995)
    for _ in range(3):
        with torch.no_grad():
            module.weight.add_(1.0)
        average.update(module)
    assert torch.equal(average.state["mask"], torch.tensor([0.0, -torch.inf]))
    assert bool((average.state["weight"] > 0).all())
    assert bool((average.state["weight"] < 3).all())
