"""The columns that a model's forward takes, and what is said about the others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from autocompress.core.source import Inputs
from autocompress.core.targets import Targets
from autocompress.core.task import Task
from autocompress.data.model_columns import for_inputs, for_model
from autocompress.errors import DataError

ITEMS = 9
ROW = {"idx": 3, "sentence": "a text", "input_ids": [1, 2, 3], "attention_mask": [1, 1, 0], "label": 1}


class Bert(nn.Module):
    """Takes labels too, as models of Hugging Face do."""

    def forward(self, input_ids: Any, attention_mask: Any = None, labels: Any = None) -> Any:
        return input_ids


class Anything(nn.Module):
    def forward(self, input_ids: Any, **others: Any) -> Any:
        return input_ids


class Texts(nn.Module):
    def forward(self, sentence: Any, input_ids: Any = None) -> Any:
        return sentence


class Loss(nn.Module):
    def forward(self, input_ids: Any, label: Any) -> Any:
        return input_ids


class Own:
    """A source of the user's own."""

    def __len__(self) -> int:
        return ITEMS

    def read(self, indices: Sequence[int]) -> tuple[Inputs, Targets]:
        n = len(indices)
        return {"idx": np.zeros(n), "input_ids": np.ones((n, 3))}, np.zeros(n, dtype=np.int64)


def inputs_of(task: Task | None) -> list[str]:
    assert task is not None
    return list(task.test.read([0, 1])[0])


@pytest.mark.parametrize(
    ("model", "row", "taken", "sentence"),
    [
        (Bert(), {}, ["input_ids", "attention_mask"], "forward() does not take are left out: idx, sentence."),
        (Bert(), {"labels": 0}, ["input_ids", "attention_mask"], "left out: idx, sentence, label."),
        (Anything(), {}, ["idx", "input_ids", "attention_mask"], "not given to forward(): sentence."),
        (Anything(), {"labels": 0}, ["idx", "input_ids", "attention_mask"], "not given to forward(): sentence, label."),
    ],
)
def test_columns_are_chosen_by_the_signature(model: nn.Module, row: Any, taken: list[str], sentence: str) -> None:
    task, sentences = for_model(Task(test=[{**ROW, **row}] * ITEMS), model)
    assert inputs_of(task) == taken
    assert len(sentences) == 1
    assert sentences[0].endswith(sentence)


def test_labels_that_are_not_the_targets_are_not_fed_either() -> None:
    task, sentences = for_model(Task(test=[{**ROW, "labels": 0}] * ITEMS, targets="label"), Bert())
    assert inputs_of(task) == ["input_ids", "attention_mask"]
    assert sentences[1] == "Columns that are targets or hold no numbers are not given to forward(): labels."


def test_every_split_is_chosen_from_and_a_column_is_told_once() -> None:
    items = [ROW] * ITEMS
    task, sentences = for_model(Task(test=items, val=items, train=items), Bert())
    assert task is not None
    assert [list(source.read([0])[0]) for source in (task.val, task.train)] == [["input_ids", "attention_mask"]] * 2
    assert sentences == ("Columns that forward() does not take are left out: idx, sentence.",)


@pytest.mark.parametrize(
    "test",
    [
        ({"idx": np.zeros(ITEMS), "input_ids": np.ones((ITEMS, 3))}, np.zeros(ITEMS, dtype=np.int64)),
        Own(),
        [({"idx": 1, "input_ids": [1, 2]}, 0)] * ITEMS,
    ],
)
def test_inputs_beside_their_targets_are_chosen_too(test: Any) -> None:
    task, sentences = for_model(Task(test=test), Bert())
    assert inputs_of(task) == ["input_ids"]
    assert len(sentences) == 1


@pytest.mark.parametrize(
    ("model", "row", "message"),
    [
        (Bert(), {"ids": [1], "label": 0}, "forward() needs 'input_ids', which no column gives; it takes input_ids, "
         "attention_mask, labels, the columns are ids, label."),
        (Loss(), ROW, "forward() needs 'label', which is the target"),
        (Texts(), ROW, "column 'sentence' holds texts, not numbers. Tokenize first"),
    ],
)  # fmt: skip
def test_what_forward_needs_and_no_column_gives_is_one_error(model: nn.Module, row: Any, message: str) -> None:
    with pytest.raises(DataError) as caught:
        for_model(Task(test=[row] * ITEMS), model)
    assert str(caught.value).startswith("data: test: ")
    assert message in str(caught.value)


def test_example_inputs_by_name_choose_and_items_by_position_stay() -> None:
    task, _ = for_model(Task(test=[ROW] * ITEMS), Bert(), {"input_ids": torch.ones(1, 3)})
    assert inputs_of(task) == ["input_ids"]
    pairs = Task(test=[([1.0, 2.0], 0)] * ITEMS)
    chosen, sentences = for_model(pairs, Bert())
    assert chosen is not None
    assert chosen.test is pairs.test
    assert sentences == ()
    assert for_model(None, Bert()) == (None, ())


def test_an_artifact_is_fed_what_it_takes() -> None:
    assert inputs_of(for_inputs(Task(test=[ROW] * ITEMS), ["input_ids"])) == ["input_ids"]
    with pytest.raises(DataError, match="no column that the model takes; it takes pixels, the columns are idx"):
        for_inputs(Task(test=[ROW] * ITEMS), ["pixels"])
