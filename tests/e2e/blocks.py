"""A user's file for runs that are killed or shared: a trained residual network, digits, and brief everything.

The tests copy it to a folder of their own, beside the weights that they train.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

WIDTH, BLOCKS = 16, 4


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(WIDTH, WIDTH, 3, padding=1, bias=False),
            nn.BatchNorm2d(WIDTH),
            nn.ReLU(),
            nn.Conv2d(WIDTH, WIDTH, 3, padding=1, bias=False),
            nn.BatchNorm2d(WIDTH),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(x + self.body(x))


def network() -> nn.Module:
    stem = nn.Sequential(nn.Conv2d(1, WIDTH, 3, padding=1, stride=2), nn.BatchNorm2d(WIDTH), nn.ReLU())
    blocks = nn.Sequential(*(Block() for _ in range(BLOCKS)))
    return nn.Sequential(stem, blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(WIDTH, 10))


def trained() -> nn.Module:
    module = network()
    module.load_state_dict(torch.load(Path(__file__).with_name("blocks.pt"), weights_only=True))
    return module.eval()
