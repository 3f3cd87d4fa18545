"""Static int8: values that are masked, and ranges that would hold them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from autocompress.core.runtime import Example
from autocompress.core.search_space import first_options
from autocompress.core.source import ArraySource, whole
from autocompress.core.technique import Context
from autocompress.runtimes import OnnxRuntime
from autocompress.runtimes.onnx_file import load_model
from autocompress.techniques import Int8Static

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
