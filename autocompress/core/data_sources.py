"""Sources from what users give: arrays, datasets and loaders."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from autocompress.core.columns import Columns, prepared
from autocompress.core.loader_items import drawn_items, draws_lists
from autocompress.core.loader_workers import Workers
from autocompress.core.source import (
    Array,
    ArraySource,
    DatasetSource,
    Inputs,
    Source,
    are_heads,
    split_batch,
    to_array,
    with_targets,
)
from autocompress.core.targets import Targets, arrays_in, joined
from autocompress.core.user_code import kind_of
from autocompress.errors import DataError
from autocompress.system.randomness import seeded

# items asked of a dataset at once that gives a batch for a list of indices
CHUNK = 64


@dataclass(frozen=True, eq=False)
class _Converted:
    """A dataset whose items a function converts one by one."""

    dataset: Any
    convert: Callable[[Any], Any]

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Any:
        return self.convert(self.dataset[index])


def as_source(data: Any, *, trains: bool = False, targets: tuple[str, ...] = ()) -> Source | None:
    """A source from `(inputs, targets)` arrays, a Dataset, a DataLoader, or a source.

    Inputs and targets may both be several arrays in a tuple or dict. A DataLoader's items are those that its samplers
    draw in every pass (`drawn_items`), in the dataset's order, through its collate function; a loader over an iterable
    dataset is read into memory. For judging every item counts once and every pass must draw the same ones; `trains`
    allows an item more often, and samples drawn uniformly at random. `targets` names the columns that are targets.

    Raises:
        DataError: when the object is none of these, or it is not clear which items belong to it.
    """
    if data is None or (isinstance(data, Source) and not hasattr(data, "__getitem__")):
        return data
    if isinstance(data, tuple | list) and len(data) == 2 and (_array_like(data[1]) or _are_arrays(*data)):
        return _of_arrays(data[0], data[1], targets)
    from torch.utils.data import DataLoader, IterableDataset

    if isinstance(data, DataLoader):
        if isinstance(data.dataset, IterableDataset):
            return _streamed(data, Columns(targets), trains=trains)
        return _drawn_through(data, Columns(targets), trains=trains)
    listed = hasattr(data, "__getitem__") and hasattr(data, "__len__") and not isinstance(data, type)
    if listed and not isinstance(data, str | bytes | Mapping) and not _is_empty_pair(data):
        return DatasetSource(data, columns=Columns(targets))
    raise _unreadable(data)


def _unreadable(data: Any) -> DataError:
    """The error for what is no source, with what it lacks."""
    from torch.utils.data import Dataset, IterableDataset

    hint = "Give (inputs, targets) arrays, a Dataset, a DataLoader or a Task."
    if isinstance(data, IterableDataset):
        hint = "Give a DataLoader over it."
    elif isinstance(data, type):
        hint = f"Give an object of it, {data.__name__}(...)."
    elif isinstance(data, Dataset):
        hint = "It has no __len__(): define how many items it has."
    return DataError(f"cannot be read from {kind_of(data)}.", where="data", hint=hint)


def _of_arrays(inputs: Any, targets: Any, named: tuple[str, ...]) -> ArraySource:
    if named:
        raise DataError(
            f"is (inputs, targets), and targets= names {', '.join(named)}.",
            where="data",
            hint="Leave targets= out; several targets are a dict of arrays.",
        )
    if isinstance(targets, list):
        targets = to_array(targets)
    if isinstance(inputs, Mapping):
        return ArraySource(*with_targets({str(k): to_array(v) for k, v in inputs.items()}, targets))
    parts = inputs if isinstance(inputs, tuple) else (inputs,)
    return ArraySource(*with_targets(tuple(to_array(part) for part in parts), targets))


def _drawn_through(loader: Any, columns: Columns, *, trains: bool) -> Source:
    """The items that a loader over a map-style dataset draws."""
    from torch.utils.data import Subset, default_collate

    dataset, collate = loader.dataset, loader.collate_fn
    if not hasattr(dataset, "__getitem__"):
        raise DataError(
            f"comes through a DataLoader over {kind_of(dataset)}, whose items have no numbers.",
            where="data",
            hint="Give it a Dataset, or an IterableDataset that yields the items.",
        )
    items = drawn_items(loader, trains=trains)
    if not items:
        raise DataError("draws no items.", where="data", hint="Check its sampler and drop_last.")
    whole_set = hasattr(dataset, "__len__") and items == list(range(len(dataset)))
    part = dataset if whole_set else Subset(dataset, items)
    if loader.batch_sampler is not None:
        own = None if collate is default_collate else collate
        return DatasetSource(part, own, columns, workers=Workers.of(loader))
    # it does not batch: its items are batches already, or single items that its collate function converts one by one
    if draws_lists(loader):
        keys: list[Any] = [items[start : start + CHUNK] for start in range(0, len(items), CHUNK)]
    else:
        keys = list(items)
    if draws_lists(loader) or _is_batch(collate(dataset[keys[0]]), columns):
        return _joined(split_batch(collate(dataset[key]), columns) for key in keys)
    return DatasetSource(_Converted(part, collate), None, columns, workers=Workers.of(loader))


def _is_batch(found: Any, columns: Columns) -> bool:
    """True for what holds several items: its targets have an axis, and so has everything beside them."""
    _, target = split_batch(found, columns)
    return next(iter(arrays_in(target).values())).ndim > 0


def _streamed(loader: Any, columns: Columns, *, trains: bool) -> ArraySource:
    """The items of a loader over an iterable dataset, read into memory.

    For judging the first batch is read again: a stream in another order would confirm on other items in every run. A
    stream that can be read only once cannot be told.
    """
    loader, read = _uncollated(loader, columns)
    with seeded(0):
        batches = [read(batch) for batch in loader]
    # with another seed, what is drawn at random shows
    with seeded(1):
        again = None if trains or not batches else next(iter(loader), None)
    if again is not None and not equal_batches(batches[0], read(again)):
        raise DataError(
            "is a stream that gives other items, or another order, each time it is read.",
            where="data",
            hint="Give test and validation items in a fixed order: without shuffling and random transforms.",
        )
    return _joined(batches)


def _uncollated(loader: Any, columns: Columns) -> tuple[Any, Callable[[Any], tuple[Inputs, Targets]]]:
    """A loader and what reads its batches; columns are chosen before torch's own function collates."""
    from torch.utils.data import default_collate

    if loader.collate_fn is not default_collate:
        return loader, lambda batch: split_batch(batch, columns)

    def read(items: list[Any]) -> tuple[Inputs, Targets]:
        return split_batch(default_collate(prepared(items, columns, range(len(items)))), columns, len(items))

    # a copy: the user's loader stays as it is
    listing = copy.copy(loader)
    listing.collate_fn = list
    return listing, read


def equal_batches(one: tuple[Inputs, Targets], other: tuple[Inputs, Targets]) -> bool:
    """True when two batches hold the same inputs and targets, byte for byte."""
    left, right = ([*_arrays(batch[0]), *arrays_in(batch[1]).values()] for batch in (one, other))
    return len(left) == len(right) and all(
        a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
        for a, b in zip(left, right, strict=True)
    )


def _arrays(inputs: Inputs) -> list[Array]:
    return list(inputs.values()) if isinstance(inputs, dict) else list(inputs)


def _is_empty_pair(data: Any) -> bool:
    return isinstance(data, tuple | list) and len(data) == 2 and all(hasattr(p, "__len__") and not len(p) for p in data)


def _array_like(value: Any) -> bool:
    return hasattr(value, "shape") or (isinstance(value, list) and bool(value) and not isinstance(value[0], tuple))


def _are_arrays(inputs: Any, targets: Any) -> bool:
    """True for inputs with several targets, and not for two items that are dicts or tuples themselves."""
    first = inputs
    if isinstance(first, Mapping):
        first = next(iter(first.values()), None)
    elif isinstance(first, tuple):
        first = next(iter(first), None)
    if len(getattr(first, "shape", ())) == 0:
        return False
    if isinstance(targets, Mapping):
        return not isinstance(inputs, Mapping) or not any(name in inputs for name in targets)
    return isinstance(targets, tuple) and are_heads(targets, len(first))


def _joined(read: Iterable[tuple[Inputs, Targets]]) -> ArraySource:
    with seeded(0):
        batches = list(read)
    if not batches:
        raise DataError("is empty.", where="data")
    targets = joined([target for _, target in batches])
    first = batches[0][0]
    # names or positions: either finds its array in every batch
    keys: list[Any] = list(first) if isinstance(first, dict) else list(range(len(first)))
    columns: list[Any] = [inputs for inputs, _ in batches]
    arrays = [np.concatenate([inputs[key] for inputs in columns]) for key in keys]
    return ArraySource(dict(zip(keys, arrays, strict=True)) if isinstance(first, dict) else tuple(arrays), targets)
