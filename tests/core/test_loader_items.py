"""Which items of a dataset a DataLoader stands for, by every way in which loaders restrict or order items."""

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    DistributedSampler,
    IterableDataset,
    RandomSampler,
    Sampler,
    SequentialSampler,
    Subset,
    SubsetRandomSampler,
    WeightedRandomSampler,
    default_collate,
)

from autocompress.core.data_sources import as_source
from autocompress.core.task import Task
from autocompress.errors import DataError

ITEMS = 12
ALL = list(range(ITEMS))


class Numbers(Dataset[Any]):
    """Item i is (i, i), so that what was read tells which items they were."""

    def __len__(self) -> int:
        return ITEMS

    def __getitem__(self, index: int) -> tuple[np.ndarray, int]:
        if not -ITEMS <= index < ITEMS:
            raise IndexError(index)
        return np.array([index], dtype=np.float32), int(index)


class Batches(Dataset[Any]):
    """A dataset that gives a batch for a list of indices."""

    def __len__(self) -> int:
        return ITEMS

    def __getitem__(self, indices: list[int]) -> tuple[np.ndarray, np.ndarray]:
        return np.array(indices, dtype=np.float32)[:, None], np.array(indices)


class Fixed(Sampler[int]):
    """A user's sampler that draws the same every time."""

    def __init__(self, drawn: Any) -> None:
        self.drawn = drawn

    def __iter__(self) -> Iterator[Any]:
        return iter(self.drawn)


class Shuffling(Fixed):
    def __iter__(self) -> Iterator[int]:
        return iter([self.drawn[i] for i in torch.randperm(len(self.drawn)).tolist()])


class Drawing(Sampler[int]):
    """A user's sampler that draws six items at random."""

    def __iter__(self) -> Iterator[int]:
        return iter(torch.randint(0, ITEMS, (6,)).tolist())


class Endless(Sampler[int]):
    def __iter__(self) -> Iterator[int]:
        return itertools.count()


class HalfOfThem(RandomSampler):
    """A subclass that draws something else than its parent."""

    def __iter__(self) -> Iterator[int]:
        return iter(range(ITEMS // 2))


class Changing(IterableDataset[Any]):
    """A stream that begins with another item every time it is read."""

    def __init__(self) -> None:
        self.passes = 0

    def __iter__(self) -> Iterator[tuple[np.ndarray, int]]:
        self.passes += 1
        for index in range(ITEMS):
            shifted = (index + self.passes) % ITEMS
            yield np.array([shifted], dtype=np.float32), shifted


def loader(sampler: Any, **more: Any) -> DataLoader[Any]:
    return DataLoader(Numbers(), **{"batch_size": 5, "sampler": sampler, **more})


def by_batch(batches: Any) -> DataLoader[Any]:
    return DataLoader(Numbers(), batch_sampler=batches)


def distributed(*, shuffle: bool, replicas: int = 2) -> DistributedSampler[Any]:
    return DistributedSampler(Numbers(), num_replicas=replicas, rank=0, shuffle=shuffle)


def items(data: Any, *, trains: bool = False) -> list[int]:
    """The items that a source reads, in its order."""
    source = as_source(data, trains=trains)
    assert source is not None
    (inputs,), targets = source.read(list(range(len(source))))
    assert inputs[:, 0].tolist() == targets.tolist()
    return [int(target) for target in targets]


# for judging; the second list is what training gets where that is more
HONOURED: dict[str, tuple[Any, ...]] = {
    "plain": (lambda: DataLoader(Numbers(), batch_size=5), ALL),
    "shuffled": (lambda: DataLoader(Numbers(), batch_size=5, shuffle=True), ALL),
    "batches of one": (lambda: DataLoader(Numbers()), ALL),
    "drop_last": (lambda: DataLoader(Numbers(), batch_size=5, drop_last=True), ALL[:10]),
    "drop_last of a shuffled loader": (lambda: DataLoader(Numbers(), batch_size=5, drop_last=True, shuffle=True), ALL),
    "sequential over a part": (lambda: loader(SequentialSampler(range(7))), ALL[:7]),
    "random over a part": (lambda: loader(RandomSampler(range(7))), ALL[:7]),
    "random, more than once": (lambda: loader(RandomSampler(range(ITEMS), num_samples=30)), ALL),
    "subset": (lambda: loader(SubsetRandomSampler([9, 4])), [4, 9]),
    "subset with a repetition": (lambda: loader(SubsetRandomSampler([9, 4, 9])), [4, 9], [4, 9, 9]),
    "subset of a subset": (
        lambda: DataLoader(Subset(Numbers(), [2, 4, 6]), batch_size=1, sampler=SubsetRandomSampler([2, 0])),
        [2, 6],
    ),
    "a list": (lambda: loader([3, 1, 2]), [1, 2, 3]),
    "tensor indices": (lambda: loader(Fixed(torch.tensor([3, 1]))), [1, 3]),
    "negative indices": (lambda: loader([-1, 0]), [0, 11]),
    "own, fixed": (lambda: loader(Fixed([8, 2])), [2, 8]),
    "own, with repetitions": (lambda: loader(Fixed([8, 2, 2, 2])), [2, 8], [2, 2, 2, 8]),
    "own, shuffling": (lambda: loader(Shuffling([8, 2, 5])), [2, 5, 8]),
    "own, drop_last": (lambda: loader(Fixed([8, 2, 5, 1, 0, 9]), drop_last=True), [0, 1, 2, 5, 8]),
    "own, shuffling, drop_last": (lambda: loader(Shuffling(ALL), drop_last=True), ALL),
    "own kind of random": (lambda: loader(HalfOfThem(range(ITEMS))), ALL[:6]),
    "distributed, in order": (lambda: loader(distributed(shuffle=False)), ALL[::2]),
    "distributed, alone": (lambda: loader(distributed(shuffle=True, replicas=1)), ALL),
    "batches of a subset": (lambda: by_batch(BatchSampler(SubsetRandomSampler([9, 4]), 2, drop_last=False)), [4, 9]),
    "batches of a list": (lambda: by_batch(BatchSampler([7, 3, 5], 2, drop_last=False)), [3, 5, 7]),
    "batches of a list, drop_last": (lambda: by_batch(BatchSampler([7, 3, 5], 2, drop_last=True)), [3, 7]),
    "own batches": (lambda: by_batch([[4, 9], [1]]), [1, 4, 9]),
    "own batches, shuffled": (lambda: by_batch(Shuffling([[4, 9], [1], [2]])), [1, 2, 4, 9]),
    "unbatched": (lambda: DataLoader(Numbers(), batch_size=None), ALL),
    "unbatched subset": (lambda: DataLoader(Numbers(), batch_size=None, sampler=SubsetRandomSampler([9, 4])), [4, 9]),
    "lists of a dataset": (
        lambda: DataLoader(Batches(), batch_size=None, sampler=BatchSampler([7, 3, 5], 2, drop_last=True)),
        [3, 7],
    ),
    "own lists of a dataset": (lambda: DataLoader(Batches(), batch_size=None, sampler=[[7, 3], [5]]), [3, 5, 7]),
}

REFUSED: dict[str, tuple[Any, str]] = {
    "with replacement": (
        lambda: loader(RandomSampler(range(ITEMS), replacement=True)), "RandomSampler, which draws with replacement",
    ),
    "fewer at random": (lambda: loader(RandomSampler(range(ITEMS), num_samples=5)), "which draws 5 of 12 items at ran"),
    "weights": (lambda: loader(WeightedRandomSampler([1.0] * ITEMS, ITEMS)), "WeightedRandomSampler, which draws at r"),
    "distributed": (lambda: loader(distributed(shuffle=True)), "DistributedSampler, which gives this process other"),
    "own, drawing": (lambda: loader(Drawing()), "a Drawing, which draws other items in every pass"),
    "own, read once": (lambda: loader(iter([1, 2, 3])), "which draws other items in every pass"),
    "own, endless": (lambda: loader(Fixed(itertools.cycle([1, 2]))), "a Fixed, which does not end"),
    "own, out of range": (lambda: loader(Fixed([3, ITEMS])), "a Fixed that draws item 12 of 12"),
    "own, names": (lambda: loader(Fixed(["three"])), "a Fixed, which draws 'three', which is no whole number"),
    "own batches, drawing": (
        lambda: by_batch(BatchSampler(Drawing(), 2, drop_last=False)), "a Drawing, which draws other items",
    ),
    "batches with replacement": (
        lambda: by_batch(BatchSampler(RandomSampler(range(ITEMS), replacement=True), 2, drop_last=False)),
        "RandomSampler, which draws with replacement",
    ),
    "no items": (lambda: loader([]), "draws no items"),
    "a batch that is never full": (lambda: DataLoader(Numbers(), batch_size=20, drop_last=True), "draws no items"),
    "unbatched weights": (
        lambda: DataLoader(Numbers(), batch_size=None, sampler=WeightedRandomSampler([1.0] * ITEMS, ITEMS)),
        "WeightedRandomSampler",
    ),
    "changing stream": (lambda: DataLoader(Changing(), batch_size=5), "other items, or another order, each time"),
}  # fmt: skip
TRAINS_ON = {"with replacement": ALL, "fewer at random": ALL, "batches with replacement": ALL}


@pytest.mark.parametrize("form", HONOURED)
def test_the_items_of_a_loader_are_those_that_it_draws_each_once(form: str) -> None:
    make, judged = HONOURED[form][:2]
    assert items(make()) == judged


@pytest.mark.parametrize("form", HONOURED)
def test_training_keeps_what_a_loader_repeats(form: str) -> None:
    assert items(HONOURED[form][0](), trains=True) == HONOURED[form][-1]


@pytest.mark.parametrize("form", REFUSED)
def test_a_loader_that_does_not_say_which_items_are_its_own_is_refused(form: str) -> None:
    make, message = REFUSED[form]
    with pytest.raises(DataError, match=message) as caught:
        as_source(make())
    assert caught.value.hint


@pytest.mark.parametrize("form", TRAINS_ON)
def test_training_takes_all_items_that_are_drawn_uniformly(form: str) -> None:
    assert items(REFUSED[form][0](), trains=True) == TRAINS_ON[form]


def test_a_task_judges_by_the_strict_rule_and_trains_by_the_other() -> None:
    drawn = REFUSED["with replacement"][0]
    assert len(Task(train=drawn()).train) == ITEMS
    assert len(Task(train=DataLoader(Changing(), batch_size=5)).train) == ITEMS
    for part in ("test", "val"):
        with pytest.raises(DataError, match="with replacement") as caught:
            Task(**{part: drawn()}, name="toy")
        assert caught.value.where == f"toy: {part}"


@pytest.mark.parametrize("batching", [{"batch_size": 4}, {"batch_sampler": [[5, 2], [1]]}, {"batch_size": None}])
def test_the_collate_function_is_applied_however_the_loader_batches(batching: dict[str, Any]) -> None:
    def negative(found: Any) -> Any:
        # a loader that does not batch hands over single items
        inputs, targets = default_collate(found) if isinstance(found, list) else found
        return -inputs, targets

    source = as_source(DataLoader(Numbers(), collate_fn=negative, **batching))
    assert source is not None
    (inputs,), targets = source.read([1, 0])
    assert inputs[:, 0].tolist() == [-float(target) for target in targets]


def test_looking_at_a_sampler_leaves_the_random_numbers_of_the_caller_as_they_were() -> None:
    torch.manual_seed(7)
    expected = torch.rand(1)
    torch.manual_seed(7)
    items(loader(Shuffling(ALL)))
    assert torch.equal(torch.rand(1), expected)
