"""A keyword spotter that hears frames as they come: its state is a second input, and a second output.

python examples/keyword_gru.py [FOLDER]
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch
from torch import nn

from autocompress import Result, Task, autocompress

KEYWORDS, FRAMES, FEATURES, WIDTH = 8, 50, 20, 96


class Spotter(nn.Module):
    """A GRU over feature frames; a stream is cut into chunks, and each chunk's state goes into the next call."""

    def __init__(self) -> None:
        super().__init__()
        self.gru, self.head = nn.GRU(FEATURES, WIDTH, batch_first=True), nn.Linear(WIDTH, KEYWORDS)

    def forward(self, frames: torch.Tensor, state: torch.Tensor) -> dict[str, torch.Tensor]:
        """Logits `(n, keywords)` and the state `(n, width)` after frames `(n, time, features)`."""
        _, last = self.gru(frames, state.unsqueeze(0))
        return {"logits": self.head(last[0]), "state": last[0]}


def data() -> Task:
    """Keywords as paths through feature space, spoken at different speeds, with noise."""
    random = np.random.default_rng(0)
    corners = random.standard_normal((KEYWORDS, 5, FEATURES))

    def spoken(count: int) -> tuple[dict[str, np.ndarray], np.ndarray]:
        labels = random.integers(0, KEYWORDS, count)
        frames = random.standard_normal((count, FRAMES, FEATURES))
        for item, label in enumerate(labels):
            length = int(random.integers(FRAMES // 2, FRAMES + 1))
            places = np.linspace(0, 4, length)
            before = np.minimum(places.astype(int), 3)
            share = (places - before)[:, None]
            frames[item, -length:] += (1 - share) * corners[label, before] + share * corners[label, before + 1]
        # a stream begins with a state of zeros
        return {"frames": frames.astype(np.float32), "state": np.zeros((count, WIDTH), np.float32)}, labels

    return Task(
        test=spoken(3000), train=spoken(3000), score=score, score_bounds=(0, 1), loss=loss, name="spoken keywords"
    )


def score(outputs: dict[str, np.ndarray], keywords: np.ndarray) -> np.ndarray:
    """1 where the keyword is the one that was spoken, else 0."""
    return (outputs["logits"].argmax(1) == keywords).astype(float)


def loss(outputs: dict[str, torch.Tensor], keywords: torch.Tensor) -> torch.Tensor:
    """The cross-entropy of the keywords."""
    return nn.functional.cross_entropy(outputs["logits"], keywords)


def model(task: Task) -> nn.Module:
    """The network, trained in seconds."""
    torch.manual_seed(0)
    network = Spotter()
    optimizer = torch.optim.AdamW(network.parameters(), lr=3e-3)
    inputs, labels = task.train.read(range(len(task.train)))
    frames, state, keywords = (torch.from_numpy(array) for array in (inputs["frames"], inputs["state"], labels))
    for _ in range(5):
        for batch in torch.randperm(len(keywords)).split(100):
            optimizer.zero_grad()
            loss(network(frames[batch], state[batch]), keywords[batch]).backward()
            optimizer.step()
    return network.eval()


def main(folder: str = "runs/keyword_gru") -> Result:
    """Six tenths of the size for at most three points, with the latency of a chunk and of a second."""
    task = data()
    profile = Path(__file__).with_suffix(".yaml")
    result = autocompress(model(task), profile, task, out=folder)
    print(result)
    return result


if __name__ == "__main__":
    main(*sys.argv[1:2])
