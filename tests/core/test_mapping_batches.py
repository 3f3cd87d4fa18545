"""Items and batches that are mappings, as Hugging Face's libraries give them."""

from __future__ import annotations

from collections import UserDict, namedtuple
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, IterableDataset

from autocompress.core.data_sources import as_source
from autocompress.core.source import Source
from autocompress.core.task import Task
from autocompress.errors import DataError

TOKENS, ITEMS = 5, 12
IDS = np.arange(ITEMS * TOKENS).reshape(ITEMS, TOKENS)


class Table:
    """Rows of Python values, as a `datasets.Dataset` gives them."""

    def __init__(self, **columns: Any) -> None:
        self.columns = columns

    def __len__(self) -> int:
        return len(next(iter(self.columns.values())))

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {name: column[index] for name, column in self.columns.items()}


class Rows(IterableDataset[Any]):
    """The rows of a table as a stream."""

    def __init__(self, table: Table) -> None:
        self.table = table

    def __iter__(self) -> Iterator[Any]:
        return (self.table[index] for index in range(len(self.table)))


def table(**more: Any) -> Table:
    return Table(sentence=["a text"] * ITEMS, input_ids=IDS.tolist(), label=[i % 2 for i in range(ITEMS)], **more)


def source(data: Any, targets: tuple[str, ...] = ()) -> Source:
    found = as_source(data, targets=targets)
    assert found is not None
    return found


@dataclass
class Features:
    """An item as a dataclass, its target first."""

    label: int
    input_ids: list[int]


Named = namedtuple("Named", ["label", "input_ids"])


def encoded(items: list[Any]) -> UserDict[str, Any]:
    """A collate function that gives a UserDict of tensors, as a BatchEncoding is."""
    return UserDict(
        input_ids=torch.tensor([item["input_ids"] for item in items]),
        labels=torch.tensor([item["label"] for item in items]),
    )


@pytest.mark.parametrize(
    "data",
    [
        table(),
        [table()[index] for index in range(ITEMS)],
        [UserDict(table()[index]) for index in range(ITEMS)],
        DataLoader(table(), batch_size=4),  # type: ignore[arg-type]  # a look-alike of a Dataset
        DataLoader(table(), batch_size=4, collate_fn=encoded),  # type: ignore[arg-type]
        DataLoader(table(), batch_size=None),  # type: ignore[arg-type]
        DataLoader(Rows(table()), batch_size=4),
        DataLoader(Rows(table()), batch_size=4, collate_fn=encoded),
        [Features(i % 2, IDS[i].tolist()) for i in range(ITEMS)],
        [Named(i % 2, IDS[i].tolist()) for i in range(ITEMS)],
        [({"input_ids": IDS[i].tolist(), "sentence": "a text"}, i % 2) for i in range(ITEMS)],
        [(IDS[i].tolist(), i % 2) for i in range(ITEMS)],
    ],
    ids=[
        "dataset", "list", "user dicts", "loader", "collator", "unbatched", "stream", "stream and collator",
        "dataclasses", "named tuples", "beside", "pairs",
    ],
)  # fmt: skip
def test_lists_are_stacked_item_by_item_and_texts_left_out(data: Any) -> None:
    found = source(data)
    inputs, targets = found.read([3, 5, 7])
    arrays = list(inputs.values()) if isinstance(inputs, dict) else list(inputs)
    assert isinstance(inputs, tuple) or list(inputs) == ["input_ids"]
    np.testing.assert_array_equal(arrays[0], IDS[[3, 5, 7]])
    np.testing.assert_array_equal(targets, [1, 1, 1])


def test_as_many_items_as_tokens_are_not_transposed() -> None:
    inputs, _ = source(DataLoader(table(), batch_size=TOKENS)).read(range(TOKENS))  # type: ignore[arg-type]
    assert isinstance(inputs, dict)
    np.testing.assert_array_equal(inputs["input_ids"], IDS[:TOKENS])


def test_a_collate_function_that_gives_a_tensor_for_each_position_is_recognised() -> None:
    def transposed(items: list[Any]) -> dict[str, Any]:
        return torch.utils.data.default_collate([{k: item[k] for k in ("input_ids", "label")} for item in items])

    found = source(DataLoader(table(), batch_size=4, collate_fn=transposed))  # type: ignore[arg-type]
    inputs, _ = found.read([1, 2, 3])
    assert isinstance(inputs, dict)
    np.testing.assert_array_equal(inputs["input_ids"], IDS[1:4])
    with pytest.raises(DataError, match="not clear which axis is the items"):
        found.read(range(TOKENS))


def test_targets_are_the_columns_that_are_named() -> None:
    data = table(start=list(range(ITEMS)), end=[i + 1 for i in range(ITEMS)])
    one = Task(test=data, targets="start").test.read([4])
    assert list(one[0]) == ["input_ids", "end"]
    assert one[1].tolist() == [4]
    inputs, both = Task(test=data, targets=["start", "end"]).test.read([4, 5])
    assert list(inputs) == ["input_ids"]
    assert {name: array.tolist() for name, array in both.items()} == {"start": [4, 5], "end": [5, 6]}
    tokens = Task(test=table(labels=IDS.tolist())).test.read([1, 2])
    assert list(tokens[0]) == ["input_ids"]
    np.testing.assert_array_equal(tokens[1], IDS[1:3])


@pytest.mark.parametrize(
    ("data", "targets", "message"),
    [
        (table(), ("start",), "no column 'start', which targets= names; columns: sentence, input_ids, label"),
        ([(IDS[0], 1)] * 4, ("start",), "items are no dicts, and targets= names start"),
        (Table(text=["a"] * 4, label=[0] * 4), (), "column 'text' holds texts, not numbers. Tokenize first"),
        (Table(x=[[1, 2], [1, 2, 3]] * 2, label=[0] * 4), (), "'x' has length 2 in item 0 and length 3 in item 1. Pad"),
        (Table(x=[[1], [2]], labels=[[1], [1, 2]]), (), "'labels' has length 1 in item 0 and length 2 in item 1. Pad"),
        (Table(x=[[[1], [1, 2]]] * 2, label=[0] * 2), (), "'x' holds lists of unequal lengths inside item 0. Pad"),
        (Table(x=[torch.ones(2), torch.ones(3)], label=[0] * 2), (), "'x' has length 2 in item 0 and length 3 in"),
        (Table(x=[1, None], label=[0] * 2), (), r"column 'x' holds None \(item 1\)"),
        (Table(image=[object()] * 2, label=[0] * 2), (), "column 'image' holds object objects"),
        (Table(x=[1, 2], label=["cat", "dog"]), (), "column 'label' holds texts, not numbers. Number the classes"),
        ([{"x": 1, "label": 0}, {"label": 0}], (), "item 1 has no column 'x'"),
        (DataLoader(table(), collate_fn=lambda items: {"x": [[1], [1, 2]], "label": [0, 1]}), (),  # type: ignore[arg-type]
         "column 'x' has lengths from 1 to 2. Pad"),
    ],
)  # fmt: skip
def test_what_cannot_be_stacked_is_told_with_its_column(data: Any, targets: tuple[str, ...], message: str) -> None:
    with pytest.raises(DataError, match=message):
        source(data, targets).read([0, 1])


def test_targets_named_beside_arrays_are_refused() -> None:
    with pytest.raises(DataError, match=r"is \(inputs, targets\), and targets= names start"):
        Task(test=(IDS, IDS[:, 0]), targets=("start",))


def test_lists_among_several_targets_are_stacked_item_by_item() -> None:
    boxes = [[i, 1, 2, 3] for i in range(ITEMS)]
    by_name = [(IDS[i], {"kind": i, "box": boxes[i]}) for i in range(ITEMS)]
    in_a_row = [{"x": i, "label": {"kind": i, "box": boxes[i]}} for i in range(ITEMS)]
    for data in (by_name, in_a_row):
        _, targets = source(data).read([1, 2])
        assert isinstance(targets, dict)
        assert targets["box"].tolist() == boxes[1:3]
        assert targets["kind"].tolist() == [1, 2]
    _, pair = source([(IDS[i], (i, boxes[i])) for i in range(ITEMS)]).read([1, 2])
    assert isinstance(pair, tuple)
    assert pair[1].tolist() == boxes[1:3]
