"""Networks of random structure, small, with their example inputs. `Pick` makes every choice: hypothesis or a seed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from random_blocks import Pick, conv, image_block
from torch import nn
from torch.nn import functional

from autocompress.core.runtime import Example
from autocompress.data.vision import import_torchvision

CLASSES = 5
VISION = (
    ("resnet18", 32), ("resnet50", 32), ("mobilenet_v2", 32), ("mobilenet_v3_small", 32), ("efficientnet_b0", 32),
    ("vgg11", 32), ("densenet121", 32), ("regnet_y_400mf", 32), ("convnext_tiny", 32), ("squeezenet1_1", 64),
    ("mnasnet1_0", 32), ("googlenet", 32), ("shufflenet_v2_x1_0", 32),
)  # fmt: skip


class ImageNetwork(nn.Module):
    """Blocks and a head; may give its outputs in a dict, or two of them."""

    def __init__(self, pick: Pick, places: int) -> None:
        super().__init__()
        widths = [pick([8, 16, 24]) for _ in range(pick([2, 3, 4]))]
        self.stem = conv(pick, 3, widths[0], 3)
        self.blocks = nn.Sequential(*(image_block(pick, before, after) for before, after in pairwise(widths)))
        self.flattens = pick([True, False, False])
        features = widths[-1] * (4 if self.flattens else 1)
        head = [nn.Linear(features, 16), nn.ReLU(), nn.Linear(16, CLASSES)]
        self.pool = nn.AdaptiveAvgPool2d(2 if self.flattens else 1)
        self.head = nn.Sequential(*head) if pick([True, False]) else nn.Linear(features, CLASSES)
        self.gives = pick(["tensor", "tensor", "dict", "features"])

    def forward(self, image: torch.Tensor) -> Any:
        features = self.pool(self.blocks(self.stem(image))).flatten(1)
        logits = self.head(features)
        if self.gives == "dict":
            return {"logits": logits, "features": features}
        return (logits, features) if self.gives == "features" else logits


class TextNetwork(nn.Module):
    """Embeddings, a class token, encoder layers of torch or written by hand, called by name."""

    def __init__(self, pick: Pick) -> None:
        super().__init__()
        width = pick([16, 24])
        self.tokens, self.first = nn.Embedding(20, width), nn.Parameter(torch.randn(1, 1, width) * 0.1)
        self.places = nn.Parameter(torch.randn(1, 7, width) * 0.1)
        layer = pick([self._of_torch, HandmadeLayer])
        self.layers = nn.ModuleList(layer(width, pick([16, 40, 64]), pick) for _ in range(pick([1, 2, 3])))
        self.last = pick([nn.LayerNorm, nn.RMSNorm, nn.Identity])(width)
        self.head = nn.Linear(width, CLASSES)

    @staticmethod
    def _of_torch(width: int, inner: int, pick: Pick) -> nn.Module:
        return nn.TransformerEncoderLayer(
            width, 4, inner, 0.1, pick(["relu", "gelu"]), batch_first=True, norm_first=pick([True, False])
        )

    def forward(self, input_ids: torch.Tensor) -> dict[str, torch.Tensor]:
        hidden = self.tokens(input_ids)
        hidden = torch.cat([self.first.expand(hidden.shape[0], -1, -1), hidden], 1) + self.places
        for layer in self.layers:
            hidden = layer(hidden)
        return {"logits": self.head(self.last(hidden)[:, 0])}


class HandmadeLayer(nn.Module):
    """Attention from linear layers, as in Hugging Face's models, and a plain or gated feed-forward network."""

    def __init__(self, width: int, inner: int, pick: Pick) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv = nn.ModuleList(nn.Linear(width, width) for _ in range(3))
        self.out = nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, inner), nn.Linear(inner, width)
        self.gate = nn.Linear(width, inner) if pick([True, False]) else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.norm1(x)
        q, k, v = (part(y).unflatten(-1, (4, -1)).transpose(1, 2) for part in self.qkv)
        x = x + self.out(functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        y = self.norm2(x)
        inner = functional.gelu(self.up(y))
        return x + self.down(inner if self.gate is None else inner * self.gate(y))


class VectorNetwork(nn.Module):
    """Linear layers with norms, shortcuts, a recurrent layer or shared weights now and then."""

    def __init__(self, pick: Pick) -> None:
        super().__init__()
        widths = [12, *(pick([8, 16, 33]) for _ in range(pick([1, 2, 3])))]
        layers: list[nn.Module] = []
        for before, after in pairwise(widths):
            norm = pick([nn.Identity, nn.LayerNorm, nn.BatchNorm1d])(after)
            layers += [nn.Linear(before, after), norm, nn.ReLU()]
        self.layers = nn.Sequential(*layers)
        self.kind = pick(["plain", "shared", "recurrent", "shortcut"])
        width = widths[-1]
        self.extra = nn.LSTM(width, 8, batch_first=True) if self.kind == "recurrent" else nn.Linear(width, width)
        self.more = nn.Linear(width, width)
        if self.kind == "shared":
            self.more.weight = self.extra.weight
        self.head = nn.Linear(8 if self.kind == "recurrent" else width, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.layers(x)
        if self.kind == "recurrent":
            x = self.extra(x.unsqueeze(1))[0][:, -1]
        else:
            y = torch.relu(self.more(torch.relu(self.extra(x))))
            x = x + y if self.kind == "shortcut" else y
        return self.head(x)


class SequenceNetwork(nn.Module):
    """Convolutions over time."""

    def __init__(self, pick: Pick) -> None:
        super().__init__()
        width = pick([8, 12])
        self.layers = nn.Sequential(
            nn.Conv1d(4, width, 3, padding=1), nn.BatchNorm1d(width), nn.ReLU(),
            nn.Conv1d(width, 16, 3, groups=pick([1, 2]), padding=1), nn.GELU(),
        )  # fmt: skip
        self.head = nn.Linear(16 * 10, CLASSES) if pick([True, False]) else nn.Linear(16, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.layers(x)
        return self.head(y.flatten(1) if self.head.in_features == 160 else y.mean(2))


def vision_network(pick: Pick) -> tuple[nn.Module, int]:
    """One of torchvision's networks with few classes, and the size of its images."""
    name, size = pick(VISION)
    more: dict[str, Any] = {"aux_logits": False, "init_weights": False} if name == "googlenet" else {}
    module = getattr(import_torchvision().models, name)(weights=None, num_classes=CLASSES, **more)
    return module, size


def random_network(pick: Pick, families: Sequence[str]) -> tuple[nn.Module, Callable[[int, int], Example]]:
    """A network and a function of a number of items and a seed that makes its inputs."""
    family = pick(families)
    with torch.random.fork_rng():
        torch.manual_seed(pick(range(1000)))
        if family == "vision":
            module, size = vision_network(pick)
            return module, lambda n, seed: Example((_normal(seed, n, 3, size, size),))
        if family == "image":
            return ImageNetwork(pick, 16), lambda n, seed: Example((_normal(seed, n, 3, 16, 16),))
        if family == "sequence":
            return SequenceNetwork(pick), lambda n, seed: Example((_normal(seed, n, 4, 10),))
        if family == "vector":
            return VectorNetwork(pick), lambda n, seed: Example((_normal(seed, n, 12),))
        module = TextNetwork(pick)
    return module, lambda n, seed: Example({"input_ids": np.random.default_rng(seed).integers(0, 20, (n, 6))})


def _normal(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)
