"""A language model: letters of scikit-learn's description of its data sets, limited by the loss in perplexity.

    python examples/language_model.py [FOLDER]

Perplexity is a figure of all tokens together; as `negative_perplexity` it is judged by a paired bootstrap over the
sequences.
"""

from __future__ import annotations

import sys

import numpy as np
import torch
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits, load_iris, load_linnerud, load_wine
from torch import nn

from autocompress import Result, Task, autocompress

LENGTH = 32
LETTERS = " abcdefghijklmnopqrstuvwxyz"


class Letters(nn.Module):
    """Two LSTM layers over letters."""

    def __init__(self) -> None:
        super().__init__()
        self.letters = nn.Embedding(len(LETTERS), 32)
        self.recurrent = nn.LSTM(32, 96, num_layers=2, batch_first=True)
        self.head = nn.Linear(96, len(LETTERS))

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """Logits `(n, letters, 27)` of the next letter of each, ids `(n, letters)`."""
        return self.head(self.recurrent(self.letters(ids))[0])


def data() -> Task:
    """Pieces of 32 letters, every fifth of them to test with; the target is the text one letter further."""
    loaders = (load_breast_cancer, load_diabetes, load_digits, load_iris, load_linnerud, load_wine)
    text = " ".join(" ".join(loader().DESCR.lower().split()) for loader in loaders)
    ids = np.array([LETTERS.index(letter) for letter in text if letter in LETTERS], dtype=np.int64)
    pieces = (len(ids) - 1) // LENGTH
    inputs, targets = (ids[shift : shift + pieces * LENGTH].reshape(pieces, LENGTH) for shift in (0, 1))
    tests = np.arange(pieces) % 5 == 0
    return Task(
        test=(inputs[tests], targets[tests]),
        train=(inputs[~tests], targets[~tests]),
        score="negative_perplexity",
        loss=lambda logits, right: nn.functional.cross_entropy(logits.flatten(0, 1), right.flatten()),
        name="letters",
    )


def model(task: Task) -> nn.Module:
    """The network, trained in seconds."""
    torch.manual_seed(0)
    network = Letters()
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-2)
    (ids,), targets = task.train.read(range(len(task.train)))
    for _ in range(10):
        for batch in torch.randperm(len(ids)).split(50):
            optimizer.zero_grad()
            logits = network(torch.from_numpy(ids)[batch])
            nn.functional.cross_entropy(logits.flatten(0, 1), torch.from_numpy(targets)[batch].flatten()).backward()
            optimizer.step()
    return network.eval()


def main(folder: str = "runs/language_model") -> Result:
    """A third of the size for at most a tenth in perplexity."""
    task = data()
    budgets: dict[str, float | str] = {"size_mb": "0.4x", "latency_ms": "2x", "max_score_drop": 0.1}
    result = autocompress(model(task), "local", task, budgets=budgets, out=folder)
    print(result)
    return result


if __name__ == "__main__":
    main(*sys.argv[1:2])
