"""Networks as people write them: masks, caches, hooks, computed weights, operators that exporters stumble over.

Each is built by a function of no arguments that gives the module and its inputs, with a batch of two.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn.utils import parametrizations

from autocompress.data.vision import prepare_torchvision

Built = tuple[nn.Module, Any]


def tokens(batch: int = 2, length: int = 12) -> torch.Tensor:
    return torch.arange(batch * length).reshape(batch, length) % 50 + 1


def values(*shape: int) -> torch.Tensor:
    return torch.linspace(-2, 2, math.prod(shape)).reshape(shape).sin()


class Encoder(nn.Module):
    """`nn.TransformerEncoder` over tokens, padding (token 0) masked, one output per token."""

    def __init__(self, mask: str = "padding", layers: int = 2) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(32, 4, 64, batch_first=True)
        self.words, self.body, self.head = nn.Embedding(51, 32), nn.TransformerEncoder(layer, layers), nn.Linear(32, 3)
        self.mask = mask

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        hidden, padding, mask = self.words(ids), ids == 0, None
        if self.mask == "float":
            mask = nn.Transformer.generate_square_subsequent_mask(ids.shape[1])
        elif self.mask == "bool":
            mask = torch.ones(ids.shape[1], ids.shape[1], dtype=torch.bool).triu(1)
        given = padding if self.mask == "padding" else None
        return self.head(self.body(hidden, mask=mask, src_key_padding_mask=given))


def padded() -> torch.Tensor:
    ids = tokens()
    ids[0, 8:] = 0
    return ids


class Attention(nn.Module):
    """`nn.MultiheadAttention` that gives its weights too."""

    def __init__(self, *, average: bool = True) -> None:
        super().__init__()
        self.attention, self.average = nn.MultiheadAttention(32, 4, batch_first=True), average

    def forward(self, hidden: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self.attention(hidden, hidden, hidden, need_weights=True, average_attn_weights=self.average)


class Causal(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner, self.outer = nn.Linear(32, 96), nn.Linear(32, 32)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        parts = self.inner(hidden).unflatten(-1, (3, 4, 8)).permute(2, 0, 3, 1, 4)
        mixed = nn.functional.scaled_dot_product_attention(*parts.unbind(0), is_causal=True)
        return self.outer(mixed.transpose(1, 2).flatten(2))


class Packed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.recurrent, self.head = nn.GRU(8, 16, batch_first=True), nn.Linear(16, 3)

    def forward(self, sequence: torch.Tensor) -> torch.Tensor:
        lengths = torch.full((len(sequence),), sequence.shape[1])
        packed = nn.utils.rnn.pack_padded_sequence(sequence, lengths, batch_first=True)
        return self.head(self.recurrent(packed)[1][0])


class PackedByLength(Packed):
    """The same with the lengths as an input."""

    def forward(self, sequence: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
        packed = nn.utils.rnn.pack_padded_sequence(sequence, lengths, batch_first=True, enforce_sorted=False)
        return self.head(self.recurrent(packed)[1][0])


class Yolo(nn.Module):
    """Heads at three scales; the grid of anchors is made once for each size and kept."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, 2, 1)
        self.downs = nn.ModuleList(nn.Conv2d(16, 16, 3, 2, 1) for _ in range(3))
        self.heads = nn.ModuleList(nn.Conv2d(16, 4 + 5, 1) for _ in range(3))
        self.grids: list[torch.Tensor | None] = [None] * 3

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, list[list[torch.Tensor]]]:
        hidden, raw, boxes = self.stem(image).relu(), [], []
        for place, (down, head) in enumerate(zip(self.downs, self.heads, strict=True)):
            hidden = down(hidden).relu()
            found = head(hidden)
            high, wide = found.shape[2:]
            grid = self.grids[place]
            if grid is None or grid.shape[2:] != found.shape[2:]:
                rows, columns = torch.meshgrid(torch.arange(high), torch.arange(wide), indexing="ij")
                grid = self.grids[place] = torch.stack((columns, rows))[None].float()
            centre = (found[:, :2].sigmoid() + grid) * (8 * 2**place)
            boxes.append(torch.cat((centre, found[:, 2:4].exp(), found[:, 4:].sigmoid()), 1).flatten(2))
            raw.append([found])
        return torch.cat(boxes, 2), raw


class CachedBySize(nn.Module):
    """Positions computed for each length and kept in a dict."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.cache = nn.Linear(16, 16), dict[int, torch.Tensor]()

    def forward(self, sequence: torch.Tensor) -> torch.Tensor:
        length = int(sequence.shape[1])
        if length not in self.cache:
            self.cache[length] = torch.arange(length).float()[:, None] / length
        return self.inner(sequence + self.cache[length])


class InPlace(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(16, 4)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        features.mul_(0.5).add_(1)
        features[:, :2] = 0
        return self.inner(features)


def compiled_part() -> nn.Module:
    network = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 4))
    network[0] = torch.compile(network[0])
    return network


def partial_forward() -> nn.Module:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Linear(16, 4)

        def forward(self, features: torch.Tensor, scale: float = 1.0) -> torch.Tensor:
            return self.inner(features) * scale

    network = Scaled()
    network.forward = functools.partial(network.forward, scale=2.0)  # type: ignore[method-assign]
    return network


def with_hooks() -> nn.Module:
    network = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 4))
    seen: list[float] = []
    network[0].register_forward_hook(lambda part, given, found: seen.append(float(found.mean())))
    network[2].register_forward_pre_hook(lambda part, given: (given[0] * 2,))
    return network


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.words, self.inner, self.head = nn.Embedding(51, 32), nn.Linear(32, 32), nn.Linear(32, 51, bias=False)
        self.head.weight = self.words.weight

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.head(self.inner(self.words(ids)).relu())


def parametrized(kind: str) -> nn.Module:
    apply: Callable[[nn.Module], nn.Module] = getattr(parametrizations, kind)
    return nn.Sequential(apply(nn.Linear(16, 32)), nn.ReLU(), apply(nn.Linear(32, 4)))


class Spectrum(nn.Module):
    def __init__(self, form: str) -> None:
        super().__init__()
        self.inner, self.form = nn.Linear(9, 4), form

    def forward(self, signal: torch.Tensor) -> Any:
        found = torch.fft.rfft(signal)
        if self.form == "complex":
            return found
        if self.form == "filter":
            return self.inner(torch.fft.irfft(found * 0.5, n=signal.shape[-1])[:, :9])
        return self.inner(found.abs())


class Sparse(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.eye(16).to_sparse(), requires_grad=False)
        self.head = nn.Linear(16, 4)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return self.head(torch.sparse.mm(self.weight, features.T).T)


class Doubled(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, tensor: torch.Tensor) -> torch.Tensor:
        return tensor * 2

    @staticmethod
    def backward(context: Any, gradient: torch.Tensor) -> torch.Tensor:
        return gradient * 2


class OwnFunction(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(16, 4)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return Doubled.apply(self.inner(features))


class BranchOnValues(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(16, 4)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        if features.mean() > 100:
            return self.inner(features) * 2
        return self.inner(features)


class ChecksInput(nn.Module):
    """Refuses inputs that are not finite, which is a decision by values."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(16, 4)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        if torch.isnan(features).any():
            raise ValueError("not a number")
        return self.inner(features)


class BranchOnBatch(nn.Module):
    """Computes something else for a batch of one, which a trace at two would bake in."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(16, 4)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        if float(features.sum()) > 1e9 or len(features) == 1:
            return self.inner(features) * 2
        return self.inner(features)


class NumpyInside(nn.Module):
    """Asks numpy for a constant that does not depend on the input."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(16, 16)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        import numpy as np

        window = torch.from_numpy(np.hanning(features.shape[1]).astype(np.float32))
        return self.inner(features * window)


def detector(size: int = 64, kinds: int = 3) -> nn.Module:
    """torchvision's SSD with three convolutions for a backbone; two scales of anchors."""
    prepare_torchvision()
    from torchvision.models.detection.anchor_utils import DefaultBoxGenerator
    from torchvision.models.detection.ssd import SSD

    class Backbone(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem = nn.Sequential(nn.Conv2d(3, 16, 3, 4, 1), nn.ReLU(), nn.Conv2d(16, 32, 3, 2, 1), nn.ReLU())
            self.last = nn.Sequential(nn.Conv2d(32, 32, 3, 2, 1), nn.ReLU())
            self.out_channels = [32, 32]

        def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
            first = self.stem(images)
            return {"0": first, "1": self.last(first)}

    return SSD(Backbone(), DefaultBoxGenerator([[2], [2]]), (size, size), kinds)


def gpt2() -> Built:
    prepare_torchvision()
    from transformers import GPT2Config, GPT2ForSequenceClassification

    config = GPT2Config(
        vocab_size=64, n_positions=32, n_embd=32, n_layer=2, n_head=4, num_labels=3, pad_token_id=0, use_cache=False
    )
    return GPT2ForSequenceClassification(config), {"input_ids": tokens()}


def timm_model(name: str, size: int) -> Built:
    from autocompress.data.model_libraries import from_timm

    return from_timm(name), values(2, 3, size, size)


UNUSUAL: dict[str, Callable[[], Built]] = {
    "nn.TransformerEncoder": lambda: (Encoder("none"), tokens()),
    "nn.TransformerEncoder, padding masked": lambda: (Encoder(), padded()),
    "nn.TransformerEncoder, float mask": lambda: (Encoder("float"), tokens()),
    "nn.TransformerEncoder, bool mask": lambda: (Encoder("bool"), tokens()),
    "nn.TransformerEncoderLayer": lambda: (nn.TransformerEncoderLayer(32, 4, 64, batch_first=True), values(2, 6, 32)),
    "nn.MultiheadAttention with weights": lambda: (Attention(), values(2, 6, 32)),
    "nn.MultiheadAttention with weights per head": lambda: (Attention(average=False), values(2, 6, 32)),
    "scaled_dot_product_attention, causal": lambda: (Causal(), values(2, 6, 32)),
    "packed sequences": lambda: (Packed(), values(2, 6, 8)),
    "packed sequences by length": lambda: (
        PackedByLength(),
        {"sequence": values(2, 6, 8), "lengths": torch.tensor([6, 4])},
    ),
    "YOLO heads": lambda: (Yolo(), values(2, 3, 64, 64)),
    "tensors kept by size": lambda: (CachedBySize(), values(2, 6, 16)),
    "inputs changed in place": lambda: (InPlace(), values(2, 16)),
    "a compiled layer": lambda: (compiled_part(), values(2, 16)),
    "nn.DataParallel": lambda: (nn.DataParallel(InPlace()), values(2, 16)),
    "functools.partial as forward": lambda: (partial_forward(), values(2, 16)),
    "hooks": lambda: (with_hooks(), values(2, 16)),
    "tied weights": lambda: (Tied(), tokens()),
    "weight_norm": lambda: (parametrized("weight_norm"), values(2, 16)),
    "spectral_norm": lambda: (parametrized("spectral_norm"), values(2, 16)),
    "orthogonal": lambda: (parametrized("orthogonal"), values(2, 16)),
    "lazy layers": lambda: (nn.Sequential(nn.LazyLinear(4)), values(2, 16)),
    "on the meta device": lambda: (nn.Linear(16, 4, device="meta"), values(2, 16)),
    "complex output": lambda: (Spectrum("complex"), values(2, 16)),
    "size of a spectrum": lambda: (Spectrum("size"), values(2, 16)),
    "filter in the frequency domain": lambda: (Spectrum("filter"), values(2, 16)),
    "bfloat16": lambda: (nn.Sequential(nn.Linear(16, 4)).bfloat16(), values(2, 16)),
    "sparse weights": lambda: (Sparse(), values(2, 16)),
    "torch.autograd.Function": lambda: (OwnFunction(), values(2, 16)),
    "a branch on values": lambda: (BranchOnValues(), values(2, 16)),
    "a check of values": lambda: (ChecksInput(), values(2, 16)),
    "a branch on the batch": lambda: (BranchOnBatch(), values(2, 16)),
    "numpy inside": lambda: (NumpyInside(), values(2, 16)),
    "torchvision's SSD": lambda: (detector(), values(2, 3, 64, 64)),
    "GPT-2": gpt2,
    "EfficientFormerV2": lambda: timm_model("efficientformerv2_s0", 224),
}
