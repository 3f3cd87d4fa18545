"""Small networks with several outputs: in a dict, a dataclass, a tuple with states, nested lists."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import nn

IMAGE = (3, 16, 16)
QUERIES, KINDS = 6, 4
STEPS, SIGNALS, STATE = 7, 5, 12


class Detector(nn.Module):
    """Two heads on queries, as DETR has them: `logits` and `pred_boxes`, both (n, 6, 4).

    Takes (n, 3, 16, 16).
    """

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, 32, 3, stride=2, padding=1), nn.BatchNorm2d(32), nn.ReLU(),
            nn.Conv2d(32, 32, 3, stride=2, padding=1), nn.BatchNorm2d(32), nn.ReLU(),
        )  # fmt: skip
        self.queries = nn.Linear(32 * 16, QUERIES * 16)
        self.kinds, self.boxes = nn.Linear(16, KINDS), nn.Linear(16, 4)

    def forward(self, image: torch.Tensor) -> dict[str, Any]:
        hidden = torch.relu(self.queries(self.stem(image).flatten(1)).unflatten(1, (QUERIES, 16)))
        return {"loss": None, "logits": self.kinds(hidden), "pred_boxes": self.boxes(hidden).sigmoid(), "kind": "detr"}


class StatefulLstm(nn.Module):
    """Gives (states, (h, c)) of two layers, as `nn.LSTM` does; takes (n, 7, 5).

    The batch is the second axis of h and c.
    """

    def __init__(self, layers: int = 2) -> None:
        super().__init__()
        self.recurrent = nn.LSTM(SIGNALS, STATE, layers, batch_first=True)

    def forward(self, signal: torch.Tensor) -> Any:
        return self.recurrent(signal)


class NestedLists(nn.Module):
    """Gives maps of two scales in lists of lists, as YOLO heads do; takes (n, 3, 16, 16)."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, stride=2, padding=1)
        self.coarser = nn.Conv2d(16, 16, 3, stride=2, padding=1)
        self.boxes = nn.ModuleList(nn.Conv2d(16, 4, 1) for _ in range(2))
        self.kinds = nn.ModuleList(nn.Conv2d(16, KINDS, 1) for _ in range(2))

    def forward(self, image: torch.Tensor) -> list[list[torch.Tensor]]:
        fine = torch.relu(self.stem(image))
        scales = (fine, torch.relu(self.coarser(fine)))
        return [[heads[i](scale) for i, scale in enumerate(scales)] for heads in (self.boxes, self.kinds)]


class Cache:
    """Holds keys and values as Hugging Face's caches do: no tensor, tuple or dict."""

    def __init__(self, keys: torch.Tensor) -> None:
        self.key_cache = [keys]


@dataclass
class ModelOutput(OrderedDict[str, Any]):
    """An ordered dict of the fields that are not None, as Hugging Face's class of that name."""

    loss: torch.Tensor | None = None
    logits: torch.Tensor | None = None
    past_key_values: Cache | None = None
    hidden_states: tuple[torch.Tensor, ...] | None = None

    def __post_init__(self) -> None:
        for field in fields(self):
            if (value := getattr(self, field.name)) is not None:
                self[field.name] = value


class WithModelOutput(nn.Module):
    """Called by name; gives a `ModelOutput` with logits, a cache and hidden states; takes (n, 6)."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.head = nn.Linear(6, 8), nn.Linear(8, 8), nn.Linear(8, KINDS)

    def forward(self, values: torch.Tensor) -> ModelOutput:
        one = torch.relu(self.first(values))
        two = torch.relu(self.second(one))
        return ModelOutput(logits=self.head(two), past_key_values=Cache(one), hidden_states=(one, two))


class CachedBiases(nn.Module):
    """Keeps tensors with gradients in evaluation mode, as LeViT and EfficientFormerV2 do.

    Takes (n, 6).
    """

    def __init__(self) -> None:
        super().__init__()
        self.biases = nn.Parameter(torch.randn(4))
        self.layers = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 8))
        self.cache: dict[str, torch.Tensor] = {}

    def train(self, mode: bool = True) -> CachedBiases:
        super().train(mode)
        self.cache.clear()
        if not mode:
            self.cached = self.biases[[0, 0, 1, 1, 2, 2, 3, 3]]
        elif hasattr(self, "cached"):
            del self.cached
        return self

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        if self.training:
            return self.layers(values) + self.biases.repeat_interleave(2)
        if "doubled" not in self.cache:
            self.cache["doubled"] = 2.0 * self.biases.sum()
        return self.layers(values) + self.cached + 0.0 * self.cache["doubled"]
