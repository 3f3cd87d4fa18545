"""Items that are read once and kept on disk."""

from __future__ import annotations

import os
from collections.abc import Sequence
from itertools import count, islice
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset, TensorDataset

from autocompress.core.data_sources import equal_batches
from autocompress.core.runtime import Example
from autocompress.core.source import Array, Inputs, whole
from autocompress.core.streams import Request
from autocompress.core.task import Task
from autocompress.data.kept_items import KeptSource, Room, with_kept_items
from autocompress.data.repeated_items import require_stable
from autocompress.errors import DataError
from autocompress.system import row_file
from autocompress.training.batch_norm import reestimate_batch_norm

ITEMS = 20


class Counted:
    """Items of two inputs by name and two targets, each read counted by its index."""

    def __init__(self) -> None:
        self.reads: list[int] = []

    def __len__(self) -> int:
        return ITEMS

    def read(self, indices: Sequence[int]) -> tuple[Inputs, Any]:
        self.reads += indices
        index = np.asarray(indices)
        inputs = {"image": np.ones((1, 2, 3), np.uint8) * index[:, None, None].astype(np.uint8), "size": index * 0.5}
        return inputs, (index % 3, index[:, None] > 5)


def test_an_item_is_read_once_and_comes_back_as_it_was() -> None:
    source, room = Counted(), Room(10**6)
    kept = KeptSource(source, room)
    wanted = [Counted().read(items) for items in ([3, 4, 5], [5, 9], [9, 3])]
    for _ in range(2):
        found = list(kept.stream([Request((3, 4, 5)), Request((5, 9)), Request((9, 3))]))
        assert all(equal_batches(one, other) for one, other in zip(found, wanted, strict=True))
        assert isinstance(found[0][0], dict)
        assert isinstance(found[0][1], tuple)
    # a batch with an item that is missing is read whole
    assert source.reads == [3, 4, 5, 5, 9]


@pytest.mark.timeout(20)
@pytest.mark.parametrize("known", [range(ITEMS), [0, 1, 2, 3], []])
def test_requests_may_be_endless(known: Sequence[int]) -> None:
    source = Counted()
    kept = KeptSource(source, Room(10**6))
    if known:
        kept.read(list(known))
    endless = (Request((step % ITEMS, (step + 1) % ITEMS)) for step in count())
    for step, found in enumerate(islice(kept.stream(endless), 3 * ITEMS)):
        assert equal_batches(found, Counted().read([step % ITEMS, (step + 1) % ITEMS]))
    # nothing but what is not kept is read, a few batches ahead
    assert sorted(set(source.reads)) == list(range(ITEMS))
    assert len(source.reads) <= 3 * ITEMS


@pytest.mark.timeout(60)
def test_batch_norm_is_reestimated_again_on_items_that_were_kept() -> None:
    inputs = torch.arange(60.0).reshape(20, 3)
    task = with_kept_items(
        Task(train=TensorDataset(inputs, torch.zeros(20, dtype=torch.long)), test=(inputs, [0] * 20))
    )
    assert task is not None
    module = torch.nn.BatchNorm1d(3)
    means = []
    for _ in range(2):
        reestimate_batch_norm(module, whole("train", task.train), Example((inputs[:2].numpy(),)), batch=5)
        assert module.running_mean is not None
        means.append(module.running_mean.clone())
    assert torch.equal(*means)
    assert torch.allclose(means[0], inputs.mean(0))


def test_where_there_is_no_room_left_items_are_read_again() -> None:
    source = Counted()
    kept = KeptSource(source, Room(2 * (6 + 8 + 8 + 1)))
    for _ in range(2):
        assert equal_batches(kept.read([0, 1]), Counted().read([0, 1]))
        assert equal_batches(kept.read([2, 3]), Counted().read([2, 3]))
    assert source.reads == [0, 1, 2, 3, 2, 3]


def test_a_full_disk_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_given: Any) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(row_file.os, "pwrite", full)
    source = Counted()
    kept = KeptSource(source, Room(10**6))
    for _ in range(2):
        assert equal_batches(kept.read([0, 1]), Counted().read([0, 1]))
    assert source.reads == [0, 1, 0, 1]


def test_the_file_has_no_name() -> None:
    before = set(os.listdir(row_file.folder_on_disk()))
    kept = KeptSource(Counted(), Room(10**6))
    kept.read([0])
    assert {name for name in set(os.listdir(row_file.folder_on_disk())) - before if "items" in name} == set()


class Widths:
    """Items whose width is the longest of their batch, as collate functions pad them."""

    def __len__(self) -> int:
        return ITEMS

    def read(self, indices: Sequence[int]) -> tuple[Inputs, Array]:
        return (np.zeros((len(indices), max(indices) + 1), np.float32),), np.zeros(len(indices))


def test_items_of_another_shape_are_passed_on() -> None:
    kept = KeptSource(Widths(), Room(10**6))
    for items, width in (([1, 2], 3), ([1, 5], 6), ([2], 3), ([5], 6)):
        inputs, _ = kept.read(items)
        assert isinstance(inputs, tuple)
        assert inputs[0].shape == (len(items), width)


class Noisy(Dataset[Any]):
    def __len__(self) -> int:
        return ITEMS

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return torch.rand(2), index


def test_views_are_drawn_anew_and_the_fixed_one_is_kept() -> None:
    task = with_kept_items(Task(train=DataLoader(Noisy(), batch_size=4), test=(np.zeros((2, 2)), np.zeros(2))))
    assert task is not None
    assert isinstance(task.train, KeptSource)
    assert not isinstance(task.test, KeptSource)
    fixed, one, other, again = task.train.stream(Request((3, 4), view) for view in (0, 1, 2, 0))
    assert equal_batches(fixed, again)
    assert not equal_batches(fixed, one)
    assert not equal_batches(one, other)
    assert equal_batches(one, next(task.train.stream([Request((3, 4), 1)])))


def test_what_is_kept_does_not_hide_that_items_are_others_each_time() -> None:
    task = with_kept_items(Task(test=Noisy()))
    assert task is not None
    list(whole("test", task.test).batches(8))
    with pytest.raises(DataError, match="another one"):
        require_stable(task.test, "test")
