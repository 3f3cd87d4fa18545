"""Regression: progression of diabetes from ten measurements of a patient, limited by the loss in mean absolute error.

    python examples/regression.py [FOLDER]

The score is `negative_error`, so `max_score_drop` is in the target's own unit, here standard deviations.
"""

from __future__ import annotations

import sys

import numpy as np
import torch
from sklearn.datasets import load_diabetes
from torch import nn

from autocompress import Result, Task, autocompress


def data() -> Task:
    """442 patients, a third of them to test with; inputs `(n, 10)`, standardized targets `(n, 1)`."""
    found = load_diabetes()
    inputs = (found.data / found.data.std(0)).astype(np.float32)
    targets = ((found.target - found.target.mean()) / found.target.std()).astype(np.float32)[:, None]
    order = np.random.default_rng(0).permutation(len(inputs))
    train, test = order[:294], order[294:]
    return Task(
        test=(inputs[test], targets[test]),
        train=(inputs[train], targets[train]),
        score="negative_error",
        loss=nn.functional.mse_loss,
        name="diabetes",
    )


def model(task: Task) -> nn.Module:
    """An MLP, trained in a second."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(10, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 1))
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3, weight_decay=0.1)
    (inputs,), targets = task.train.read(range(len(task.train)))
    for _ in range(60):
        optimizer.zero_grad()
        nn.functional.mse_loss(network(torch.from_numpy(inputs)), torch.from_numpy(targets)).backward()
        optimizer.step()
    return network.eval()


def main(folder: str = "runs/regression") -> Result:
    """Half the size at the price of at most a twentieth of a standard deviation."""
    task = data()
    result = autocompress(
        model(task), "local", task, budgets={"size_mb": "0.5x", "latency_ms": "2x", "max_score_drop": 0.05}, out=folder
    )
    print(result)
    return result


if __name__ == "__main__":
    main(*sys.argv[1:2])
