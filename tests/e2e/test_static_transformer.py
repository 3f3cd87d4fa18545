"""A transformer whose answer is static int8: its linear layers alone, all other operators in float."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import nn
from torch.nn import functional

from autocompress import Task, autocompress, techniques
from autocompress.api import apply_plan
from autocompress.core.profile import Profile, Protocol
from autocompress.techniques.int8_static import PRODUCTS, Int8Static

VOCABULARY, TOKENS, CLASSES, WIDTH = 64, 16, 4, 64


class Counts(nn.Module):
    """An encoder that says from which quarter of the vocabulary most of the tokens are; four logits out."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens = nn.Embedding(VOCABULARY, WIDTH)
        layer = nn.TransformerEncoderLayer(WIDTH, 4, 2 * WIDTH, dropout=0.0, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(WIDTH, CLASSES)

    def forward(self, input_ids: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"logits": self.head(self.encoder(self.tokens(input_ids)).mean(1))}


def items(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Token ids `(n, 16)`, most of them from the quarter of the vocabulary that is the label."""
    random = np.random.default_rng(seed)
    labels = random.integers(0, CLASSES, count)
    quarters = random.integers(0, CLASSES, (count, TOKENS))
    quarters[:, : TOKENS // 2] = labels[:, None]
    return quarters * (VOCABULARY // CLASSES) + random.integers(0, VOCABULARY // CLASSES, (count, TOKENS)), labels


@pytest.fixture(scope="module")
def counts() -> Counts:
    torch.manual_seed(0)
    network = Counts()
    optimizer = torch.optim.Adam(network.parameters(), 1e-3)
    for step in range(150):
        ids, labels = map(torch.from_numpy, items(64, step))
        optimizer.zero_grad()
        functional.cross_entropy(network(ids)["logits"], labels).backward()
        optimizer.step()
    return network.eval()


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_static_int8_of_a_transformer_takes_its_linear_layers_alone(
    counts: Counts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # dynamic int8 needs no data, so it would be the answer wherever it is fast enough
    monkeypatch.setattr(techniques, "TECHNIQUES", (Int8Static,))
    ids, labels = items(900, 1_000)
    task = Task(test=({"input_ids": ids}, labels), train=({"input_ids": items(256, 2_000)[0]}, items(256, 2_000)[1]))
    profile = Profile("own", protocol=Protocol(max_seconds=1.0))
    budgets: dict[str, float | str] = {"size_mb": "0.5x", "max_accuracy_drop_pp": 2.0}
    result = autocompress(counts, profile, task, budgets=budgets, out=tmp_path / "run")
    assert result.met, str(result)
    (step,) = result.plan.finish
    assert step.technique == "int8_static"
    assert step.settings["operators"] == PRODUCTS
    assert "linear layers alone" in str(result)
    graph = onnx.load(result.artifact.path).graph
    quantized = {name for node in graph.node if node.op_type == "DequantizeLinear" for name in node.output}
    readers = {node.op_type for node in graph.node if quantized.intersection(node.input)}
    # embeddings, linear layers, and weights that are turned or sums that begin with an embedding
    assert {"Gather"} < readers <= {"Gather", "MatMul", "Gemm", "Transpose", "Add"}
    # products of two activations stay in float
    stored = {tensor.name for tensor in graph.initializer}
    products = [node for node in graph.node if node.op_type == "MatMul" and not stored.intersection(node.input)]
    assert any(not quantized.intersection(node.input) for node in products)
    again = apply_plan(result.plan, counts, profile, task, out=tmp_path / "again")
    assert again.artifact.hash == result.artifact.hash
