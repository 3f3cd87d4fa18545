"""Two inputs: do two images show the same digit? Inputs go by the names of the module's arguments.

python examples/two_inputs.py [FOLDER]
"""

from __future__ import annotations

import sys

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import nn

from autocompress import Result, Task, autocompress


class Same(nn.Module):
    """Embeds both images alike and compares what comes out."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Sequential(nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 128), nn.ReLU())
        self.compare = nn.Sequential(nn.Linear(256, 128), nn.ReLU(), nn.Linear(128, 2))

    def forward(self, left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        """Logits `(n, 2)` of two images, `(n, 64)` each."""
        first, second = self.embed(left), self.embed(right)
        return self.compare(torch.cat([(first - second).abs(), first * second], dim=1))


def data() -> Task:
    """Pairs of scikit-learn's digits, half of them alike; nobody in the test pairs is in a training pair."""
    found = load_digits()
    images, digits = (found.data / 16).astype(np.float32), found.target
    random = np.random.default_rng(0)

    def pairs(places: np.ndarray, count: int) -> tuple[dict[str, np.ndarray], np.ndarray]:
        left = random.choice(places, count)
        other = random.choice(places, count)
        alike = np.array([random.choice(places[digits[places] == digits[one]]) for one in left])
        right = np.where(random.random(count) < 0.5, alike, other)
        return {"left": images[left], "right": images[right]}, (digits[left] == digits[right]).astype(np.int64)

    order = random.permutation(len(images))
    return Task(test=pairs(order[:700], 3000), train=pairs(order[700:], 4000), name="pairs of digits")


def model(task: Task) -> nn.Module:
    """The network, trained in seconds."""
    torch.manual_seed(0)
    network = Same()
    optimizer = torch.optim.AdamW(network.parameters(), lr=2e-3)
    inputs, labels = task.train.read(range(len(task.train)))
    left, right, targets = (torch.from_numpy(array) for array in (inputs["left"], inputs["right"], labels))
    for _ in range(12):
        for batch in torch.randperm(len(targets)).split(100):
            optimizer.zero_grad()
            nn.functional.cross_entropy(network(left[batch], right[batch]), targets[batch]).backward()
            optimizer.step()
    return network.eval()


def main(folder: str = "runs/two_inputs") -> Result:
    """Less than a third of the size for at most three points."""
    task = data()
    budgets: dict[str, float | str] = {"size_mb": "0.32x", "latency_ms": "2x", "max_accuracy_drop_pp": 3.0}
    result = autocompress(model(task), "local", task, budgets=budgets, out=folder)
    print(result)
    return result


if __name__ == "__main__":
    main(*sys.argv[1:2])
