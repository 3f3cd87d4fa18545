"""Segmentation: which pixels of a noisy image belong to the digit, scored by each image's intersection over union.

    python examples/segmentation.py [FOLDER]

The score is a function of one's own: it gives a number per image, and the accuracy drop is that of its mean.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.datasets import load_digits
from torch import nn

from autocompress import Result, Task, autocompress


def overlap(outputs: Any, targets: NDArray[Any]) -> NDArray[np.float64]:
    """Intersection over union of the pixels above 0 with the digit's, shape `(n,)`."""
    given, right = outputs[:, 0] > 0, targets[:, 0] > 0.5
    union = (given | right).sum((1, 2))
    return np.asarray((given & right).sum((1, 2)) / np.maximum(union, 1), dtype=np.float64)


def data() -> Task:
    """scikit-learn's digits twice as large, under noise; inputs and masks `(n, 1, 16, 16)`."""
    clean = np.kron(load_digits().images / 16.0, np.ones((1, 2, 2)))[:, None]
    noisy = clean + np.random.default_rng(0).normal(0, 0.3, clean.shape)
    images, masks = noisy.astype(np.float32), (clean > 0.4).astype(np.float32)
    return Task(
        test=(images[1000:], masks[1000:]),
        train=(images[:1000], masks[:1000]),
        score=overlap,
        score_bounds=(0, 1),
        loss=nn.functional.binary_cross_entropy_with_logits,
        name="digit masks",
    )


def model(task: Task) -> nn.Module:
    """Four convolutions, trained in seconds."""
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(1, 24, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(24, 24, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(24, 24, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(24, 1, 1),
    )
    optimizer = torch.optim.AdamW(network.parameters(), lr=3e-3)
    (images,), masks = task.train.read(range(len(task.train)))
    for _ in range(4):
        for batch in torch.randperm(len(images)).split(50):
            optimizer.zero_grad()
            logits = network(torch.from_numpy(images)[batch])
            nn.functional.binary_cross_entropy_with_logits(logits, torch.from_numpy(masks)[batch]).backward()
            optimizer.step()
    return network.eval()


def main(folder: str = "runs/segmentation") -> Result:
    """A third of the size for at most two points of overlap."""
    task = data()
    budgets: dict[str, float | str] = {"size_mb": "0.4x", "latency_ms": "2x", "max_accuracy_drop_pp": 2.0}
    result = autocompress(model(task), "local", task, budgets=budgets, out=folder)
    print(result)
    return result


if __name__ == "__main__":
    main(*sys.argv[1:2])
