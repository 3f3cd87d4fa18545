"""The user's file of the end-to-end tests: small networks, trained ones among them, and what goes wrong with some.

The tests copy it to a folder of their own, beside the weights that they train.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import nn


class Rows(nn.Module):
    """A network of 1-d convolutions over the rows of an image; `(n, 1, 8, 8)` in, 10 logits out.

    Small, which makes a run short.
    """

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv1d(8, 64, 3, padding=1), nn.ReLU(), nn.Conv1d(64, 64, 3, padding=1), nn.ReLU())
        self.head = nn.Linear(64, 10)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.head(self.body(image.squeeze(1)).amax(2))


class Memory(nn.Module):
    """A recurrent classifier; `(n, 12, 8)` in, 4 logits out."""

    def __init__(self) -> None:
        super().__init__()
        self.recurrent = nn.LSTM(8, 96, batch_first=True)
        self.head = nn.Linear(96, 4)

    def forward(self, sequence: torch.Tensor) -> torch.Tensor:
        return self.head(self.recurrent(sequence)[0][:, -1])


class Named(nn.Module):
    """Called by name: a signal `(n, 4, 16)` and a weight per place `(n, 16)`; 3 logits out."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Conv1d(4, 96, 3, padding=1)
        self.deep = nn.Conv1d(96, 96, 3, padding=1)
        self.head = nn.Linear(96, 3)

    def forward(self, signal: torch.Tensor, weight: torch.Tensor) -> dict[str, torch.Tensor]:
        hidden = torch.relu(self.deep(torch.relu(self.body(signal))))
        return {"logits": self.head((hidden * weight.unsqueeze(1)).mean(2))}


class Pair(Named):
    """The same by position, with a tensor out."""

    def forward(self, signal: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        return super().forward(signal, weight)["logits"]


class Sorts(nn.Module):
    """Does what torch.onnx cannot export."""

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        return torch.from_numpy(np.sort(values.detach().numpy()))


def rows() -> nn.Module:
    network = Rows()
    network.load_state_dict(torch.load(Path(__file__).with_name("rows.pt"), weights_only=True))
    return network.eval()


def others() -> nn.Module:
    torch.manual_seed(99)
    return Rows().eval()


def chatty() -> nn.Module:
    print("the user's file prints this")
    return rows()


def raises() -> nn.Module:
    raise RuntimeError("the weights are gone\nand a second line")


def interrupted() -> nn.Module:
    raise KeyboardInterrupt


def nothing() -> None:
    return None


def unexportable() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10), Sorts())


def not_finite() -> nn.Module:
    network = rows()
    with torch.no_grad():
        next(network.parameters())[0] = float("nan")
    return network
