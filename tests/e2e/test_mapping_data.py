"""Models and datasets as Hugging Face gives them: rows of lists with more columns than the model takes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from autocompress import AutocompressError, Event, Status, Task, autocompress, resolve
from e2e.conftest import SMALL

WORDS, TOKENS, WIDTH = 300, 12, 32


class Bert(nn.Module):
    """Embeddings and one layer with a mean over all tokens; with labels it computes a loss of its own."""

    def __init__(self, outputs: int) -> None:
        super().__init__()
        self.words, self.kinds = nn.Embedding(WORDS, WIDTH), nn.Embedding(2, WIDTH)
        self.mixed, self.head = nn.Linear(2 * WIDTH, 4 * WIDTH), nn.Linear(4 * WIDTH, outputs)

    def encoded(self, input_ids: torch.Tensor, attention_mask: torch.Tensor, kinds: torch.Tensor) -> torch.Tensor:
        hidden = self.words(input_ids) + self.kinds(kinds)
        seen = attention_mask.unsqueeze(-1).to(hidden.dtype)
        mean = (hidden * seen).sum(1, keepdim=True) / seen.sum(1, keepdim=True)
        return self.head(torch.relu(self.mixed(torch.cat([hidden, mean.expand_as(hidden)], dim=-1))))


class Classifier(Bert):
    def forward(
        self, input_ids: Any, attention_mask: Any = None, token_type_ids: Any = None, labels: Any = None
    ) -> Any:
        logits = self.encoded(input_ids, attention_mask, token_type_ids)[:, 0]
        return {"logits": logits} if labels is None else {"loss": logits.sum(), "logits": logits}


class Tokens(Bert):
    def forward(
        self, input_ids: Any, attention_mask: Any = None, token_type_ids: Any = None, labels: Any = None
    ) -> Any:
        logits = self.encoded(input_ids, attention_mask, token_type_ids)
        return {"logits": logits} if labels is None else {"loss": logits.sum(), "logits": logits}


class Answers(Bert):
    def forward(
        self, input_ids: Any, attention_mask: Any, token_type_ids: Any, start_positions: Any = None,
        end_positions: Any = None,
    ) -> Any:  # fmt: skip
        start, end = self.encoded(input_ids, attention_mask, token_type_ids).unbind(-1)
        return {"start_logits": start, "end_logits": end}


def rows(model: nn.Module, count: int, seed: int) -> list[dict[str, Any]]:
    """Rows whose targets are what the model answers."""
    random = np.random.default_rng(seed)
    mask = np.arange(TOKENS) < random.integers(4, TOKENS + 1, count)[:, None]
    columns = {
        "input_ids": random.integers(1, WORDS, (count, TOKENS)) * mask,
        "attention_mask": mask.astype(np.int64),
        "token_type_ids": np.zeros((count, TOKENS), dtype=np.int64),
    }
    with torch.no_grad():
        found = model.eval()(**{name: torch.from_numpy(column) for name, column in columns.items()})
    if isinstance(model, Answers):
        columns["start_positions"] = found["start_logits"].argmax(1).numpy()
        columns["end_positions"] = found["end_logits"].argmax(1).numpy()
    elif isinstance(model, Tokens):
        columns["labels"] = np.where(mask, found["logits"].argmax(-1).numpy(), -100)
    else:
        columns["label"] = found["logits"].argmax(-1).numpy()
    lists = {name: column.tolist() for name, column in columns.items()}
    return [
        {"idx": row, "sentence": f"text {row}", **{name: column[row] for name, column in lists.items()}}
        for row in range(count)
    ]


def both_right(outputs: Any, targets: Any) -> Any:
    start = outputs["start_logits"].argmax(1) == targets["start_positions"]
    return (start & (outputs["end_logits"].argmax(1) == targets["end_positions"])).astype(float)


@pytest.fixture
def profile(tmp_path: Path) -> Path:
    (tmp_path / "small.yaml").write_text(SMALL.replace("drop_pp: 5", "drop_pp: 20"), encoding="utf-8")
    return tmp_path / "small.yaml"


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        (Classifier, {}),
        (Answers, {"targets": ("start_positions", "end_positions"), "score": both_right, "score_bounds": (0, 1)}),
    ],
    ids=["classifier", "answers"],
)
def test_rows_of_lists_reach_int8(kind: type[Bert], settings: dict[str, Any], profile: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = kind(4 if kind is not Answers else 2)
    task = Task(test=rows(model, 300, 1), train=rows(model, 40, 2), **settings)
    told: list[Event] = []
    result = autocompress(model, str(profile), task, out=tmp_path / "run", progress=told.append)
    assert result.status is Status.MET
    assert "int8" in str(result)
    assert result.artifact is not None
    assert [spec.name for spec in result.artifact.inputs] == ["input_ids", "attention_mask", "token_type_ids"]
    assert "loss" not in [spec.name for spec in result.artifact.outputs]
    sentence = "Columns that forward() does not take are left out: idx, sentence."
    assert [event.sentence for event in told].count(sentence) == 1
    if kind is Classifier:
        again = resolve(tmp_path / "run", budgets={"size_mb": "0.6x", "max_accuracy_drop_pp": 20}, data=task)
        assert again.status is Status.MET


def test_what_is_wrong_with_rows_is_told_before_anything_is_written(profile: Path, tmp_path: Path) -> None:
    model = Tokens(4)
    good = rows(model, 60, 1)
    for test, settings, message in (
        ([{"sentence": "a", "label": 0}] * 9, {}, "forward() needs 'input_ids', which no column gives"),
        ([{**row, "labels": [-100] * TOKENS} for row in good], {"score": "token_accuracy"}, "item 0 has no label that"),
        (
            [{**row, "input_ids": row["input_ids"][: 1 + place % TOKENS]} for place, row in enumerate(good)],
            {},
            "Pad them",
        ),
        (good, {}, 'score="token_accuracy"'),
    ):
        with pytest.raises(AutocompressError) as caught:
            autocompress(model, str(profile), Task(test=test, **settings), out=tmp_path / "run")
        assert message in str(caught.value)
