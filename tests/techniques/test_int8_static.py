"""Static int8: values that are masked, linear layers alone, tables that embedding and output layer share."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from onnx import TensorProto
from torch import nn

from autocompress.core.facts import Family, Kind
from autocompress.core.plan import Setting
from autocompress.core.probes import Probes
from autocompress.core.profile import Profile
from autocompress.core.runtime import Example
from autocompress.core.search_space import check_settings, first_options
from autocompress.core.source import ArraySource, whole
from autocompress.core.technique import Context
from autocompress.runtimes import OnnxRuntime
from autocompress.runtimes.onnx_file import load_model
from autocompress.techniques import Int8Static
from autocompress.testing.finish_technique_suite import facts_with

TOKENS, WIDTH = 6, 32


class Attention(nn.Module):
    """One attention over tokens of which the mask leaves some out by adding a large negative number."""

    def __init__(self, masked: float) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.query, self.key, self.value = (nn.Linear(WIDTH, WIDTH) for _ in range(3))
        self.masked = masked

    def forward(self, tokens: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Takes tokens `(n, 6, 32)` and a mask `(n, 6)` of ones and zeros."""
        scores = self.query(tokens) @ self.key(tokens).transpose(1, 2)
        weights = (scores + (1.0 - mask[:, None, :]) * self.masked).softmax(-1)
        return (weights @ self.value(tokens)).mean(1)


@pytest.mark.parametrize("masked", [-1e4, -1e9, float(np.finfo(np.float32).min)])
def test_scores_of_attention_keep_their_digits_beside_a_mask(masked: float, tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    tokens = 2 * random.standard_normal((64, TOKENS, WIDTH)).astype(np.float32)
    mask = (random.random((64, TOKENS)) < 0.7).astype(np.float32)
    mask[:, 0] = 1
    artifact = OnnxRuntime().export(Attention(masked).eval(), Example((tokens[:2], mask[:2])), tmp_path / "float.onnx")
    split = whole("train", ArraySource((tokens, mask), np.zeros(64, dtype=np.int64)))
    context = Context(None, Example((tokens[:2], mask[:2])), split, tmp_path)
    made = Int8Static().apply(artifact, first_options(Int8Static.choices), context)

    feed = dict(zip([spec.name for spec in artifact.inputs], (tokens, mask), strict=True))
    wanted, found = (OnnxRuntime().load(one, 1, {}).run(feed)[0] for one in (artifact, made))
    assert np.linalg.norm(found - wanted) < 0.05 * np.linalg.norm(wanted)
    # the linear layers are in int8 all the same
    assert sum(node.op_type == "QuantizeLinear" for node in load_model(made.path).graph.node) >= 4


class Layer(nn.Module):
    """A feed-forward layer normalized after its addition, one channel of which grows large inside."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.down, self.norm = nn.Linear(WIDTH, 4 * WIDTH), nn.Linear(4 * WIDTH, WIDTH), nn.LayerNorm(WIDTH)
        with torch.no_grad():
            self.down.bias[3] = 100.0
            self.norm.weight[3] = 0.01

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Takes and gives tokens `(n, 6, 32)`."""
        return self.norm(tokens + self.down(nn.functional.gelu(self.up(tokens))))


def test_linear_layers_alone_leave_what_stands_between_them_in_float(tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = nn.Sequential(*(Layer() for _ in range(3)), nn.Flatten(), nn.Linear(TOKENS * WIDTH, 4)).eval()
    tokens = np.random.default_rng(0).standard_normal((64, TOKENS, WIDTH)).astype(np.float32)
    example = Example((tokens[:2],))
    artifact = OnnxRuntime().export(module, example, tmp_path / "float.onnx", named=True)
    split = whole("train", ArraySource((tokens,), np.zeros(64, dtype=np.int64)))
    feed = {artifact.inputs[0].name: tokens}
    wanted = OnnxRuntime().load(artifact, 1, {}).run(feed)[0]
    errors = {}
    for operators in ({}, {"operators": "products"}):
        folder = tmp_path / str(len(operators))
        folder.mkdir()
        settings = {**first_options(Int8Static.choices), **operators}
        made = Int8Static().apply(artifact, settings, Context(None, example, split, folder))
        errors[len(operators)] = np.linalg.norm(OnnxRuntime().load(made, 1, {}).run(feed)[0] - wanted)
    graph = load_model(made.path).graph
    readers = {name: node.op_type for node in graph.node for name in node.input}
    values = [node for node in graph.node if node.op_type == "DequantizeLinear"]
    # weights, biases and what linear layers read, each input once
    assert {readers[node.output[0]] for node in values} == {"MatMul", "Gemm"}
    assert sum(node.op_type == "QuantizeLinear" for node in graph.node) == 7
    assert errors[1] < 0.2 * errors[0]
    assert Int8Static().quantizes(artifact, settings) == (
        *(f"{layer}.{part}" for layer in range(3) for part in ("up", "down")),
        "4",
    )


@pytest.mark.parametrize(("family", "operators"), [(Family.TRANSFORMER, {"products"}), (Family.MLP, {None})])
def test_transformers_have_their_linear_layers_alone_in_int8(family: Family, operators: set[str | None]) -> None:
    facts = replace(facts_with(Kind.LINEAR), family=family)
    space = Int8Static().space(facts, Probes(), Profile("any"))
    found = list(space.grid())
    assert {settings.get("operators") for settings in found} == operators
    assert len(found) == 16
    for settings in found:
        check_settings("int8_static", Int8Static.choices, settings)


class Speaker(nn.Module):
    """Scores words with the table that it looks them up in: those behind the last token, or behind each token."""

    def __init__(self, *, every: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.table, self.norm, self.inside = nn.Embedding(300, WIDTH), nn.LayerNorm(WIDTH), nn.Linear(WIDTH, WIDTH)
        self.every = every

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """Takes ids `(n, tokens)`."""
        hidden = torch.relu(self.inside(self.norm(self.table(ids))))
        # a Gemm with a weight that is stored transposed, or a Transpose and a MatMul
        return nn.functional.linear(hidden if self.every else hidden[:, -1], self.table.weight)


@pytest.mark.parametrize("operators", [{}, {"operators": "products"}], ids=["all", "products"])
@pytest.mark.parametrize("every", [True, False])
def test_a_table_that_is_looked_up_and_multiplied_is_stored_once_and_runs(
    operators: dict[str, Setting], tmp_path: Path, *, every: bool
) -> None:
    ids = np.random.default_rng(0).integers(0, 300, (32, TOKENS))
    example = Example((ids[:2],))
    artifact = OnnxRuntime().export(Speaker(every=every).eval(), example, tmp_path / "float.onnx")
    split = whole("train", ArraySource((ids,), np.zeros(32, dtype=np.int64)))
    context = Context(None, example, split, tmp_path)
    made = Int8Static().apply(artifact, {**first_options(Int8Static.choices), **operators}, context)
    feed = {artifact.inputs[0].name: ids}
    wanted, found = (OnnxRuntime().load(one, 1, {}).run(feed)[0] for one in (artifact, made))
    assert np.linalg.norm(found - wanted) < 0.05 * np.linalg.norm(wanted)
    tables = [tensor for tensor in load_model(made.path).graph.initializer if list(tensor.dims) == [300, WIDTH]]
    assert [tensor.data_type for tensor in tables] == [TensorProto.UINT8]
    # what the runtime executes looks up whole numbers
    settings = onnxruntime.SessionOptions()
    settings.optimized_model_filepath, settings.log_severity_level = str(tmp_path / "executed.onnx"), 3
    onnxruntime.InferenceSession(str(made.path), settings, providers=["CPUExecutionProvider"])
    executed = load_model(tmp_path / "executed.onnx", with_weights=False).graph
    types = {tensor.name: tensor.data_type for tensor in executed.initializer}
    assert [types.get(node.input[0]) for node in executed.node if node.op_type == "Gather"][:1] == [TensorProto.UINT8]
    assert "Transpose" not in {node.op_type for node in executed.node}
