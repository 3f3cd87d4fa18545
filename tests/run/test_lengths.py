"""Items of different lengths, and latency at several of the profile's shapes, in whole runs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import DataLoader

from autocompress import Task, autocompress, resolve
from autocompress.api import apply_plan
from autocompress.core.plan import Plan, Stage, Step
from autocompress.core.profile import Profile, parse_profile
from autocompress.core.verdict import Standing
from autocompress.data.model_columns import for_model
from autocompress.errors import DataError, RecordError
from autocompress.run import gate
from autocompress.runtimes import OnnxRuntime

WORDS = 50


class Reader(nn.Module):
    """Says which of two words is more frequent; what the mask hides does not count."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.words, self.inner, self.head = nn.Embedding(WORDS, 64), nn.Linear(64, 64), nn.Linear(64, 2)

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        hidden = torch.relu(self.inner(self.words(input_ids))) * attention_mask.unsqueeze(-1)
        return self.head(hidden.sum(1) / attention_mask.sum(1, keepdim=True))


class Tokens(nn.Module):
    """A label for each token."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.words, self.head = nn.Embedding(WORDS, 64), nn.Linear(64, 3)

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        return self.head(self.words(input_ids) * attention_mask.unsqueeze(-1))


def rows(count: int = 90, *, per_token: bool = False) -> list[dict[str, Any]]:
    draw = np.random.default_rng(0)
    lengths = draw.integers(3, 12, count)
    ids = [draw.integers(1, WORDS, length).tolist() for length in lengths]
    return [
        {
            "input_ids": one,
            "attention_mask": [1] * len(one),
            "labels": [word % 3 for word in one] if per_token else int(one[0] % 2),
        }
        for one in ids
    ]


def collate(items: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
    """Pads to the longest of the batch, as Hugging Face's collators do."""
    columns = {
        name: pad_sequence([torch.tensor(item[name]) for item in items], batch_first=True)
        for name in ("input_ids", "attention_mask")
    }
    return {**columns, "labels": torch.tensor([item["labels"] for item in items])}


def profile_of(**keys: Any) -> Profile:
    return parse_profile(
        {"name": "p", "protocol": {"max_seconds": 1, "precision": 0.5, "items": "all"}, "confidence": 0.6, **keys},
        "p",
    )


BUDGETS = {"size_mb": "0.6x", "latency_ms": 1000, "max_accuracy_drop_pp": 60}


@pytest.mark.slow
@pytest.mark.parametrize("given", ["list", "collate", "loader"])
def test_items_of_different_lengths_are_compressed_and_judged(given: str, tmp_path: Path) -> None:
    data = {
        "list": Task(test=rows()),
        "collate": Task(test=rows(), collate=collate),
        "loader": Task(test=DataLoader(rows(), batch_size=8, collate_fn=collate)),  # type: ignore[arg-type]
    }[given]
    result = autocompress(Reader(), profile_of(), data, budgets=BUDGETS, out=tmp_path / "run")
    assert result.status == "met", str(result)
    session = onnxruntime.InferenceSession(tmp_path / "run" / "model.onnx")
    for length in (2, 5, 40):
        ids = np.ones((1, length), np.int64)
        assert session.run(None, {"input_ids": ids, "attention_mask": ids})[0].shape == (1, 2)


@pytest.mark.slow
def test_a_run_is_timed_at_each_of_the_profiles_shapes_and_so_is_resolve(tmp_path: Path) -> None:
    inputs = {"input_ids": [[1, 8], [1, 64]], "attention_mask": [[1, 8], [1, 64]]}
    profile = profile_of(inputs=inputs)
    result = autocompress(Reader(), profile, Task(test=rows()), budgets=BUDGETS, out=tmp_path / "run")
    assert result.status == "met", str(result)
    assert [one.shapes for one in result.verdict.findings if one.budget.metric == "latency_ms"] == ["1x8", "1x64"]
    assert "latency_ms at 1x8" in str(result)
    other = resolve(tmp_path / "run", budgets={"latency_ms": 2000}, data=Task(test=rows()))
    standings = {one.shapes: one.standing for one in other.verdict.findings if one.budget.metric == "latency_ms"}
    assert standings == {"1x8": Standing.MET, "1x64": Standing.MET}
    again = profile_of(inputs={name: [[1, 8], [1, 32]] for name in inputs})
    with pytest.raises(RecordError, match="profile changed"):
        autocompress(Reader(), again, Task(test=rows()), budgets=BUDGETS, out=tmp_path / "run", resume=True)


@pytest.mark.slow
def test_items_of_different_lengths_with_a_label_for_each_token_are_trained_on(tmp_path: Path) -> None:
    items = rows(120, per_token=True)
    data = Task(train=items[:60], test=items[60:], score="token_accuracy")
    schedule = {"steps": 12, "batch": 16, "seed": 0, "learning_rate": 0.01, "optimizer": "sgd"}
    schedule |= {"views": 2, "feature_weight": 0.0}
    plan = Plan(((Step("distillation", Stage.RECOVERY, schedule),),), ())
    budgets = {"latency_ms": 1000, "max_accuracy_drop_pp": 90}
    result = apply_plan(plan, Tokens(), profile_of(), data, budgets=budgets, out=tmp_path / "run")
    assert result.status == "met", str(result)


def test_a_file_of_a_fixed_length_is_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    ids = torch.ones((1, 8), dtype=torch.int64)
    names = ["input_ids", "attention_mask"]
    torch.onnx.export(
        Reader().eval(), (ids, ids), tmp_path / "fixed.onnx", input_names=names, external_data=False, verbose=False
    )
    file = OnnxRuntime().read(tmp_path / "fixed.onnx")
    profile = profile_of().with_budgets([])
    tools = gate.tools_without_techniques(profile)
    with pytest.raises(DataError, match="fixed at 8") as caught:
        gate.check(file, None, profile, tools, Task(test=rows()))
    assert "dynamic=" in caught.value.hint


def test_items_that_nothing_pads_are_an_error_that_names_collate() -> None:
    items = [{"values": torch.zeros(3 + place % 3), "label": 0} for place in range(9)]
    with pytest.raises(DataError, match="column 'values' has length") as caught:
        Task(test=items).everything.hash  # noqa: B018 - reads a batch
    assert "Task(collate=...)" in caught.value.hint


def test_scores_do_not_depend_on_the_other_items(tmp_path: Path) -> None:
    task, _ = for_model(Task(test=rows()), Reader())
    assert task is not None
    read, _ = task.everything.first(5).source.read([4, 7])
    assert isinstance(read, dict)
    assert read["input_ids"].shape == (2, 11)
    assert read["attention_mask"].sum(1).tolist() == [len(rows()[place]["input_ids"]) for place in (4, 7)]
    assert replace(task).everything.hash == for_model(Task(test=rows(), collate=collate), Reader())[0].everything.hash  # type: ignore[union-attr]
