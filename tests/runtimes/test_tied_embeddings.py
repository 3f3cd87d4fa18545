from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from autocompress.core.artifact import Artifact
from autocompress.core.plan import Setting
from autocompress.core.runtime import Example
from autocompress.core.technique import Context
from autocompress.runtimes import OnnxRuntime
from autocompress.techniques import Int8Dynamic

WORDS, WIDTH = 600, 32
IDS = np.random.default_rng(0).integers(0, WORDS, (4, 9))
EXAMPLE = Example({"ids": IDS[:2]})


class Speaker(nn.Module):
    """Scores words with the table that it looks them up in, if `tied`; without a norm before the next layer, if
    `straight`."""

    def __init__(self, *, tied: bool = True, straight: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.table = nn.Embedding(WORDS, WIDTH)
        # rows of very different sizes: one scale for all would lose the small ones
        self.table.weight.data *= torch.logspace(-2, 0, WORDS)[:, None]
        self.norm = nn.Identity() if straight else nn.LayerNorm(WIDTH)
        self.inside = nn.Linear(WIDTH, WIDTH)
        self.head = nn.Linear(WIDTH, WORDS, bias=False)
        if tied:
            self.head.weight = self.table.weight

    def forward(self, ids: torch.Tensor) -> dict[str, torch.Tensor]:
        looked_up = self.table(ids)
        return {"scores": self.head(torch.relu(self.inside(self.norm(looked_up)))), "looked_up": looked_up}


def quantized(module: nn.Module, settings: Mapping[str, Setting], folder: Path) -> tuple[Artifact, Artifact]:
    (folder / "made").mkdir()
    before = OnnxRuntime().export(module.eval(), EXAMPLE, folder / "float.onnx")
    every: dict[str, Setting] = {"convolutions": False, "reduce_range": False, **settings}
    return before, Int8Dynamic().apply(before, every, Context(None, EXAMPLE, None, folder / "made"))


def tables(artifact: Artifact) -> list[tuple[int, ...]]:
    stored = onnx.load(artifact.path).graph.initializer
    return [tuple(tensor.dims) for tensor in stored if np.prod(tensor.dims) == WORDS * WIDTH]


@pytest.mark.parametrize("settings", Int8Dynamic.probed)
def test_a_table_that_embedding_and_output_layer_share_is_stored_once(
    settings: Mapping[str, Setting], tmp_path: Path
) -> None:
    before, after = quantized(Speaker(), settings, tmp_path)
    assert tables(before) == tables(after) == [(WORDS, WIDTH)]
    sessions = [OnnxRuntime().load(artifact, 1, {}) for artifact in (before, after)]
    for exact, found in zip(*(session.run({"ids": IDS}) for session in sessions), strict=True):
        # one scale for all rows loses the small ones
        assert np.corrcoef(exact.ravel(), found.ravel())[0, 1] > (0.999 if settings["per_channel"] else 0.95)


def test_words_that_are_looked_up_keep_the_scale_of_their_row(tmp_path: Path) -> None:
    before, after = quantized(Speaker(), {"weight": "int8", "per_channel": True}, tmp_path)
    exact, found = (OnnxRuntime().load(one, 1, {}).run({"ids": IDS})[1] for one in (before, after))
    largest = np.abs(exact).max(-1, keepdims=True)
    assert (np.abs(exact - found) <= 0.51 / 127 * largest).all()


def test_tables_of_their_own_are_left_as_they_are(tmp_path: Path) -> None:
    _, after = quantized(Speaker(tied=False), {"weight": "int8", "per_channel": True}, tmp_path)
    assert sorted(tables(after)) == [(WIDTH, WORDS), (WORDS, WIDTH)]


class Counting(Speaker):
    """Reads the table as a whole as well."""

    def forward(self, ids: torch.Tensor) -> dict[str, torch.Tensor]:
        return {**super().forward(ids), "mean": self.table.weight.mean(1)[None] + ids[:, :1]}


@pytest.mark.parametrize("module", [Counting(), Speaker(straight=True)], ids=["a mean", "a product in eight bits"])
def test_a_table_that_something_else_reads_too_is_left_as_it_is(module: Speaker, tmp_path: Path) -> None:
    before, after = quantized(module, {"weight": "int8", "per_channel": True}, tmp_path)
    sessions = [OnnxRuntime().load(artifact, 1, {}) for artifact in (before, after)]
    for exact, found in zip(*(session.run({"ids": IDS}) for session in sessions), strict=True):
        assert np.corrcoef(exact.ravel(), found.ravel())[0, 1] > 0.99
