"""A user's file for runs that are killed or shared: a trained residual network, digits, and brief everything.

The tests copy it to a folder of their own, beside the weights that they train.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

WIDTH, BLOCKS = 16, 4


class Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(x + self.body(x))


def network(width: int = WIDTH, count: int = BLOCKS) -> nn.Module:
    stem = nn.Sequential(nn.Conv2d(1, width, 3, padding=1, stride=2), nn.BatchNorm2d(width), nn.ReLU())
    blocks = nn.Sequential(*(Block(width) for _ in range(count)))
    return nn.Sequential(stem, blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 10))


def trained() -> nn.Module:
    module = network()
    module.load_state_dict(torch.load(Path(__file__).with_name("blocks.pt"), weights_only=True))
    return module.eval()
