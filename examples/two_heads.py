"""Two heads: which shape a drawn image holds and where it points, with dicts as outputs and as targets.

    python examples/two_heads.py [FOLDER]

The second head gives a vector of length 1, which is recognised and compared by its angle; `loss` and `score` get both.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional

from autocompress import Result, Task, autocompress

SHAPES = ("arrow", "drop", "flag")
SIDE, IMAGES = 24, 2000


def draw(count: int, seed: int) -> tuple[NDArray[np.float32], dict[str, NDArray[Any]]]:
    """Images `(n, 1, 24, 24)` of a shape under noise; targets `shape`, whole numbers, and `direction`, `(n, 2)`."""
    random = np.random.default_rng(seed)
    kinds, angles = random.integers(0, len(SHAPES), count), random.uniform(-np.pi, np.pi, count)
    down, right = np.mgrid[0:SIDE, 0:SIDE] - (SIDE - 1) / 2
    shift = random.uniform(-2, 2, (2, count, 1, 1))
    x, y = right - shift[0], down - shift[1]
    cos, sin = np.cos(angles)[:, None, None], np.sin(angles)[:, None, None]
    along, across = x * cos + y * sin, y * cos - x * sin
    arrow = (np.abs(across) < 1.2) & (np.abs(along) < 8) | (np.abs(across) < 8 - along) & (along > 3)
    drop = (along + 3) ** 2 + across**2 < 16
    drop |= (np.abs(across) < 0.4 * (8 - along)) & (along > -3)
    flag = (np.abs(across) < 1.2) & (np.abs(along) < 8) | (along > 2) & (along < 8) & (across > 0) & (across < 6)
    shapes = np.stack([arrow, drop, flag])[kinds, np.arange(count)]
    images = shapes + random.normal(0, 0.4, shapes.shape)
    directions = np.stack([np.cos(angles), np.sin(angles)], 1).astype(np.float32)
    return images[:, None].astype(np.float32), {"shape": kinds, "direction": directions}


class TwoHeads(nn.Module):
    """A small convolutional network with a head of classes and one of directions."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for given, made, stride in ((1, 24, 2), (24, 48, 2), (48, 64, 1)):
            layers += [nn.Conv2d(given, made, 3, stride, 1), nn.BatchNorm2d(made), nn.ReLU()]
        self.body = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(3), nn.Flatten(), nn.Linear(9 * 64, 96), nn.ReLU())
        self.shape, self.direction = nn.Linear(96, len(SHAPES)), nn.Linear(96, 2)

    def forward(self, image: torch.Tensor) -> dict[str, torch.Tensor]:
        """Logits `(n, 3)` of the shapes, and directions `(n, 2)` of length 1."""
        hidden = self.body(image)
        return {"logits": self.shape(hidden), "direction": functional.normalize(self.direction(hidden), dim=1)}


def loss(outputs: dict[str, torch.Tensor], targets: dict[str, torch.Tensor]) -> torch.Tensor:
    """Cross entropy of the shapes, and one minus the cosine of the angle between the directions."""
    cosine = functional.cosine_similarity(outputs["direction"], targets["direction"], dim=1)
    return functional.cross_entropy(outputs["logits"], targets["shape"]) + (1 - cosine).mean()


def score(outputs: dict[str, NDArray[Any]], targets: dict[str, NDArray[Any]]) -> NDArray[np.float64]:
    """1 for the right shape within 15 degrees, else 0, shape `(n,)`."""
    cosine = (outputs["direction"] * targets["direction"]).sum(1)
    right = outputs["logits"].argmax(1) == targets["shape"]
    return np.asarray(right & (cosine > np.cos(np.pi / 12)), dtype=np.float64)


def data(images: int = IMAGES) -> Task:
    """So many training images, half as many to choose and as many to confirm with."""
    return Task(
        train=draw(images, 0),
        val=draw(images // 2, 1),
        test=draw(images, 2),
        score=score,
        score_bounds=(0, 1),
        loss=loss,
        name="drawn shapes",
    )


def model(task: Task) -> nn.Module:
    """The network, trained in seconds."""
    torch.manual_seed(0)
    network = TwoHeads()
    optimizer = torch.optim.AdamW(network.parameters(), lr=2e-3)
    (images,), targets = task.train.read(range(len(task.train)))
    known = {name: torch.from_numpy(array) for name, array in targets.items()}
    for _ in range(8):
        for batch in torch.randperm(len(images)).split(64):
            optimizer.zero_grad()
            found = network(torch.from_numpy(images)[batch])
            loss(found, {name: array[batch] for name, array in known.items()}).backward()
            optimizer.step()
    return network.eval()


BUDGETS: dict[str, float | str] = {"size_mb": "0.15x", "latency_ms": "2x", "max_accuracy_drop_pp": 4.0}


def main(folder: str = "runs/two_heads") -> Result:
    """A seventh of the size, which takes more than int8."""
    task = data()
    result = autocompress(model(task), "local", task, budgets=BUDGETS, max_time="2m", out=folder)
    print(result)
    print(*result.facts.comparison, sep="\n")
    return result


if __name__ == "__main__":
    main(*sys.argv[1:2])
