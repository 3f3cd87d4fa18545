"""Small networks with random weights, random labelled data for them, and handmade graphs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import onnx
import torch
from onnx import helper
from torch import nn

from autocompress.core.artifact import Artifact
from autocompress.core.data_sources import as_source
from autocompress.core.runtime import Example, Runtime
from autocompress.core.source import Array, Inputs, Source

CLASSES = 5
VOCABULARY = 40


class SmallCnn(nn.Module):
    """Two convolutions with batch norm, one residual block, a linear head; takes (n, 3, 16, 16)."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU())
        self.block = nn.Sequential(
            nn.Conv2d(16, 16, 3, padding=1, bias=False),
            nn.BatchNorm2d(16),
            nn.ReLU(),
            nn.Conv2d(16, 16, 3, padding=1, bias=False),
            nn.BatchNorm2d(16),
        )
        self.head = nn.Linear(16, CLASSES)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        features = self.stem(image)
        features = torch.relu(features + self.block(features))
        return self.head(features.mean((2, 3)))


class SmallMlp(nn.Module):
    """Three linear layers; takes (n, 24)."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(24, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, CLASSES))

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return self.layers(features)


class SmallLstm(nn.Module):
    """One recurrent layer and a linear head on its last state; takes (n, 12, 16)."""

    def __init__(self) -> None:
        super().__init__()
        self.recurrent = nn.LSTM(16, 96, batch_first=True)
        self.head = nn.Linear(96, CLASSES)

    def forward(self, sequence: torch.Tensor) -> torch.Tensor:
        states, _ = self.recurrent(sequence)
        return self.head(states[:, -1])


class SmallTransformer(nn.Module):
    """Embeddings and one encoder layer, called by name as Hugging Face's models are; 8 tokens per item."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens = nn.Embedding(VOCABULARY, 32)
        self.places = nn.Parameter(torch.randn(8, 32) * 0.1)
        self.encoder = nn.TransformerEncoderLayer(32, 4, 64, dropout=0.1, batch_first=True)
        self.head = nn.Linear(32, CLASSES)

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> dict[str, torch.Tensor]:
        hidden = self.tokens(input_ids) + self.places
        hidden = self.encoder(hidden, src_key_padding_mask=attention_mask == 0)
        weight = attention_mask.unsqueeze(-1).to(hidden.dtype)
        return {"logits": self.head((hidden * weight).sum(1) / weight.sum(1))}


class Residual(nn.Module):
    """A residual block of two convolutions with batch norm, the inner one wider."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.wide = nn.Sequential(nn.Conv2d(width, inner, 3, padding=1, bias=False), nn.BatchNorm2d(inner), nn.ReLU())
        self.narrow = nn.Sequential(nn.Conv2d(inner, width, 3, padding=1, bias=False), nn.BatchNorm2d(width))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return torch.relu(image + self.narrow(self.wide(image)))


class SmallResnet(nn.Module):
    """A convolution, five residual blocks of two kinds, a linear head; takes (n, 3, 16, 16)."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU())
        self.blocks = nn.Sequential(*(Residual(16, inner) for inner in (16, 16, 16, 24, 24)))
        self.head = nn.Linear(16, CLASSES)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.head(self.blocks(self.stem(image)).mean((2, 3)))


class FeedForward(nn.Module):
    """A residual feed-forward layer with a wider inner layer; gives a tuple, as Hugging Face's layers do."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.norm, self.up, self.down = nn.LayerNorm(width), nn.Linear(width, inner), nn.Linear(inner, width)

    def forward(self, hidden: torch.Tensor) -> tuple[torch.Tensor]:
        return (hidden + self.down(torch.relu(self.up(self.norm(hidden)))),)


class SmallEncoder(nn.Module):
    """Embeddings and four layers whose common width can be narrowed, called by name; 8 tokens per item."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens = nn.Embedding(VOCABULARY, 32)
        self.layers = nn.ModuleList(FeedForward(32, 64) for _ in range(4))
        self.head = nn.Linear(32, CLASSES)

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> dict[str, torch.Tensor]:
        hidden = self.tokens(input_ids)
        for layer in self.layers:
            (hidden,) = layer(hidden)
        weight = attention_mask.unsqueeze(-1).to(hidden.dtype)
        return {"logits": self.head((hidden * weight).sum(1) / weight.sum(1))}


def _images(generator: np.random.Generator, count: int) -> Inputs:
    return (generator.standard_normal((count, 3, 16, 16)).astype(np.float32),)


def _features(generator: np.random.Generator, count: int) -> Inputs:
    return (generator.standard_normal((count, 24)).astype(np.float32),)


def _sequences(generator: np.random.Generator, count: int) -> Inputs:
    return (generator.standard_normal((count, 12, 16)).astype(np.float32),)


def _token_ids(generator: np.random.Generator, count: int) -> Inputs:
    lengths = generator.integers(3, 9, count)
    return {
        "input_ids": generator.integers(0, VOCABULARY, (count, 8)),
        "attention_mask": (np.arange(8) < lengths[:, None]).astype(np.int64),
    }


SMALL_MODELS: Mapping[str, tuple[type[nn.Module], Callable[[np.random.Generator, int], Inputs]]] = {
    "cnn": (SmallCnn, _images),
    "mlp": (SmallMlp, _features),
    "lstm": (SmallLstm, _sequences),
    "transformer": (SmallTransformer, _token_ids),
}
# networks whose blocks can be dropped
BLOCK_MODELS: Mapping[str, tuple[type[nn.Module], Callable[[np.random.Generator, int], Inputs]]] = {
    "resnet": (SmallResnet, _images),
    "encoder": (SmallEncoder, _token_ids),
}


def _kind_and_inputs(name: str) -> tuple[type[nn.Module], Callable[[np.random.Generator, int], Inputs]]:
    return {**SMALL_MODELS, **BLOCK_MODELS}[name]


def small_model(name: str) -> nn.Module:
    """A new module of that name, always with the same weights.

    Batch norm has statistics as after training.
    """
    with torch.random.fork_rng():
        torch.manual_seed(7)
        module = _kind_and_inputs(name)[0]()
        for part in module.modules():
            if isinstance(part, nn.BatchNorm2d):
                nn.init.normal_(part.running_mean, 0.0, 0.3)
                nn.init.uniform_(part.running_var, 0.5, 2.0)
                nn.init.uniform_(part.weight, 0.5, 1.5)
                nn.init.normal_(part.bias, 0.0, 0.2)
    return module.eval()


def labelled(name: str, count: int, seed: int = 0) -> tuple[Inputs, Array]:
    """Random inputs of the model of that name, and random labels."""
    generator = np.random.default_rng([seed, count])
    return _kind_and_inputs(name)[1](generator, count), generator.integers(0, CLASSES, count)


def labelled_source(name: str, count: int, seed: int = 0) -> Source:
    """The data of `labelled` as a source."""
    source = as_source(labelled(name, count, seed))
    assert source is not None
    return source


@dataclass(frozen=True, eq=False)
class Exported:
    """A small model with example inputs and its artifact. Tests leave all three as they are."""

    module: nn.Module
    example: Example
    artifact: Artifact


class Exports(Protocol):
    """Small models by runtime, name and the layers marked to stay in float, each exported once."""

    def __call__(self, runtime: Runtime, name: str, keep_float: tuple[str, ...] = ()) -> Exported:
        """The model of this name."""
        ...


def onnx_model(
    nodes: Sequence[onnx.NodeProto],
    inputs: Mapping[str, Sequence[int | str]],
    outputs: Mapping[str, Sequence[int | str]],
    weights: Mapping[str, Array],
) -> onnx.ModelProto:
    """A handmade float32 graph."""
    float32 = onnx.TensorProto.FLOAT
    graph = helper.make_graph(
        list(nodes),
        "handmade",
        [helper.make_tensor_value_info(name, float32, list(shape)) for name, shape in inputs.items()],
        [helper.make_tensor_value_info(name, float32, list(shape)) for name, shape in outputs.items()],
        [onnx.numpy_helper.from_array(np.asarray(array), name) for name, array in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def token_model(sequence: int | str = "sequence", batch: int | str = "batch") -> onnx.ModelProto:
    """A handmade graph on token ids and their mask, whose two sizes are free unless given as numbers."""
    nodes = [
        helper.make_node("Gather", ["table", "input_ids"], ["embedded"]),
        helper.make_node("Cast", ["attention_mask"], ["as_float"], to=onnx.TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["as_float", "last"], ["kept"]),
        helper.make_node("Mul", ["embedded", "kept"], ["seen"]),
        helper.make_node("ReduceMean", ["seen", "over"], ["mean"], keepdims=0),
        helper.make_node("MatMul", ["mean", "head"], ["logits"]),
    ]
    generator = np.random.default_rng(0)
    weights: dict[str, Array] = {
        "table": generator.standard_normal((VOCABULARY, 8)).astype(np.float32),
        "head": generator.standard_normal((8, 2)).astype(np.float32),
        "last": np.array([-1]),
        "over": np.array([1]),
    }
    model = onnx_model(nodes, {}, {"logits": (batch, 2)}, weights)
    int64 = onnx.TensorProto.INT64
    for name in ("input_ids", "attention_mask"):
        model.graph.input.append(helper.make_tensor_value_info(name, int64, [batch, sequence]))
    return model
