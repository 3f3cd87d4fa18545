"""A token classifier: a small transformer that says of each token how often it stood in the sequence before.

    python examples/token_classifier.py [FOLDER]

The score is `token_accuracy`, the share of a sequence's tokens that are right; labels below 0 are padding.
"""

from __future__ import annotations

import sys

import numpy as np
import torch
from torch import nn

from autocompress import Result, Task, autocompress

TOKENS, LENGTH, CLASSES = 12, 16, 3


class Tagger(nn.Module):
    """Two encoder layers over tokens and places."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens, self.places = nn.Embedding(TOKENS + 1, 64), nn.Parameter(torch.zeros(LENGTH, 64))
        layer = nn.TransformerEncoderLayer(64, 4, 128, dropout=0.0, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(64, CLASSES)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """Logits `(n, tokens, classes)` of ids `(n, tokens)`; 0 is padding."""
        return self.head(self.encoder(self.tokens(ids) + self.places))


def data() -> Task:
    """Random sequences of 10 to 16 tokens; the label is how often a token came before, at most twice."""
    random = np.random.default_rng(0)

    def sequences(count: int) -> tuple[np.ndarray, np.ndarray]:
        ids = random.integers(1, TOKENS + 1, (count, LENGTH))
        ids[np.arange(LENGTH) >= random.integers(10, LENGTH + 1, (count, 1))] = 0
        earlier = np.tril(ids[:, :, None] == ids[:, None, :], -1).sum(2)
        return ids, np.where(ids > 0, np.minimum(earlier, CLASSES - 1), -1)

    return Task(test=sequences(1500), train=sequences(4000), score="token_accuracy", loss=loss, name="repeats")


def loss(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Cross entropy of the tokens that are no padding."""
    return nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=-1)


def model(task: Task) -> nn.Module:
    """The network, trained in seconds."""
    torch.manual_seed(0)
    network = Tagger()
    optimizer = torch.optim.AdamW(network.parameters(), lr=3e-3)
    (ids,), labels = task.train.read(range(len(task.train)))
    for _ in range(6):
        for batch in torch.randperm(len(ids)).split(100):
            optimizer.zero_grad()
            loss(network(torch.from_numpy(ids)[batch]), torch.from_numpy(labels)[batch]).backward()
            optimizer.step()
    return network.eval()


def main(folder: str = "runs/token_classifier") -> Result:
    """Half the size for at most two points."""
    task = data()
    budgets: dict[str, float | str] = {"size_mb": "0.5x", "latency_ms": "2x", "max_accuracy_drop_pp": 2.0}
    result = autocompress(model(task), "local", task, budgets=budgets, out=folder)
    print(result)
    return result


if __name__ == "__main__":
    main(*sys.argv[1:2])
