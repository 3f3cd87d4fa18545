"""Sources, which deliver data items, and splits, which select the items for one purpose."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from itertools import chain, islice
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from autocompress.core.columns import ALL_COLUMNS, Columns, as_mapping, no_numbers, prepared, stacked
from autocompress.core.loader_workers import Workers, read_ahead
from autocompress.core.streams import Request, seed_of, stream
from autocompress.core.targets import Targets, arrays_in, mapped, rows_in
from autocompress.core.user_code import definition_of, kind_of, raised_by_user, with_line
from autocompress.errors import DataError
from autocompress.system.randomness import seed_all, seeded

# bytes of a batch whose size is free
MOST_BATCH_BYTES = 32_000_000
Array = NDArray[Any]
Inputs = tuple[Array, ...] | dict[str, Array]


@runtime_checkable
class Source(Protocol):
    """Items that can be read in any order, any number of times."""

    def __len__(self) -> int:
        """Number of items."""
        ...

    def read(self, indices: Sequence[int]) -> tuple[Inputs, Targets]:
        """Inputs and targets of these items, each with leading axis `len(indices)`.

        Inputs are in the order of the model's arguments, or by name; targets are one array, or a tuple or dict of them.
        """
        ...


@dataclass(frozen=True, eq=False)
class ArraySource:
    """A source of arrays in memory; `transform` turns a batch of inputs into what the model takes."""

    inputs: Inputs
    targets: Targets
    transform: Callable[[Array], Array] | None = None

    def __post_init__(self) -> None:
        arrays = self.inputs.values() if isinstance(self.inputs, dict) else self.inputs
        for array in (*arrays, *arrays_in(self.targets).values()):
            if array.ndim == 0:
                raise DataError("is a single number, not an array with a row per item.", where="data")
        for targets in arrays_in(self.targets).values():
            for array in arrays:
                if len(array) != len(targets):
                    what = f"has {len(array)} inputs and {len(targets)} targets."
                    raise DataError(what, where="data", hint="Give one target per item.")

    def __len__(self) -> int:
        return rows_in(self.targets)

    def read(self, indices: Sequence[int]) -> tuple[Inputs, Targets]:
        """See `Source.read`."""
        index = np.asarray(indices, dtype=np.int64)
        change = self.transform or (lambda array: array)
        targets = mapped(lambda array: array[index], self.targets)
        if isinstance(self.inputs, dict):
            return {name: change(array[index]) for name, array in self.inputs.items()}, targets
        return tuple(change(array[index]) for array in self.inputs), targets


@dataclass(frozen=True, eq=False)
class DatasetSource:
    """A source over a map-style dataset with items `(input, ..., target)` or dicts that hold the target.

    What the dataset's transforms draw at random is fixed by the item's index and the view, so that an item is always
    the same in one view. Without a collate function of the user's, columns that are not read are dropped before items
    are stacked. `where` is the field of the task that holds it, for errors. `workers` read ahead where more than one
    batch is asked for.
    """

    dataset: Any
    collate: Callable[[list[Any]], Any] | None = None
    columns: Columns = ALL_COLUMNS
    where: str = "data"
    workers: Workers | None = None

    def __len__(self) -> int:
        return len(self.dataset)

    def read(self, indices: Sequence[int]) -> tuple[Inputs, Targets]:
        """See `Source.read`.

        Raises:
            DataError: when the dataset or the collate function raises; it names the user's own line.
        """
        return self.read_request(Request(tuple(indices)))

    def stream(self, requests: Iterable[Request]) -> Iterator[tuple[Inputs, Targets]]:
        """See `Streamed.stream`.

        Raises:
            DataError: as `read` does, in whatever process.
        """
        coming = iter(requests)
        first = list(islice(coming, 2))
        # to start workers takes longer than to read one batch
        if self.workers is None or len(first) < 2:
            yield from map(self.read_request, chain(first, coming))
            return
        alone = replace(self, workers=None)
        size = len(first[0].items) * self._item_bytes
        yield from read_ahead(alone.read_request, chain(first, coming), self.workers, size, self.where)

    @cached_property
    def _item_bytes(self) -> int:
        return bytes_of(self.read([0]))

    def read_request(self, request: Request) -> tuple[Inputs, Targets]:
        """The batch of a request; raises as `read` does."""
        from torch.utils.data import default_collate

        indices = request.items
        with seeded(request.view), self._placed():
            items = self._items(indices, request.view)
            if self.collate is None:
                batch = default_collate(prepared(items, self.columns, indices))
            else:
                with raised_by_user(self.where, "putting items into a batch raised", self.collate):
                    batch = self.collate(items)
                if not isinstance(batch, Sequence | Mapping) and as_mapping(batch, self.columns) is batch:
                    message = f"putting items into a batch gave {kind_of(batch)}"
                    hint = "Return (inputs, ..., targets) or a dict from the collate function."
                    raise DataError(with_line(message, definition_of(self.collate)), where=self.where, hint=hint)
            return split_batch(batch, self.columns, len(items))

    @contextmanager
    def _placed(self) -> Iterator[None]:
        """Name the field of the task in errors about its items."""
        try:
            yield
        except DataError as error:
            if error.where != "data":
                raise
            raise DataError(error.message, where=self.where, hint=error.hint) from error

    def names(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """The names of all columns, and of the targets among them; none where items are no mappings."""
        items = self._items([0])
        with raised_by_user(self.where, "putting items into a batch raised", self.collate):
            found = as_mapping(items[0] if self.collate is None else self.collate(items), self.columns)
        if isinstance(found, Mapping):
            return tuple(map(str, found)), self.columns.targets_in(found)
        beside = isinstance(found, tuple | list) and len(found) == 2 and isinstance(found[0], Mapping)
        return (tuple(map(str, found[0])) if beside else ()), ()

    def _items(self, indices: Sequence[int], view: int = 0) -> list[Any]:
        items = []
        with seeded(0):
            for index in indices:
                seed_all(seed_of(index, view))
                with raised_by_user(self.where, f"item {index} raised"):
                    items.append(self.dataset[int(index)])
        return items


def split_batch(batch: Any, columns: Columns = ALL_COLUMNS, rows: int | None = None) -> tuple[Inputs, Targets]:
    """Inputs and targets of a collated batch of `rows` items, of which `columns` are read.

    The batch is `(input, ..., target)`, `({name: input}, target)`, or a dict.

    Raises:
        DataError: when the batch has no target, or a column that is read holds no numbers.
    """
    batch = as_mapping(batch, columns)
    if isinstance(batch, Mapping):
        named = {str(key): value for key, value in batch.items()}
        names = columns.targets_in(named)
        targets = {name: stacked(f"column {name!r}", named[name], rows) for name in names if name in columns.targets}
        inputs = _columns_of(named, columns, names, rows)
        return with_targets(
            inputs, named[names[0]] if not targets else targets if len(names) > 1 else targets[names[0]]
        )
    if columns.targets:
        raise DataError(
            f"items are no dicts, and targets= names {', '.join(columns.targets)}.",
            where="data",
            hint="Leave targets= out, or give items that are dicts.",
        )
    if not isinstance(batch, Sequence) or len(batch) < 2:
        raise DataError("items have no target.", where="data", hint="Each item is (input, ..., target) or a dict.")
    *given, target = batch
    if len(given) == 1 and isinstance(given[0], Mapping):
        return with_targets(_columns_of({str(k): v for k, v in given[0].items()}, columns, None, rows), target)
    return with_targets(tuple(to_array(value) for value in given), target)


def _columns_of(
    named: Mapping[str, Any], columns: Columns, targets: tuple[str, ...] | None, rows: int | None
) -> dict[str, Array]:
    """The input columns of a batch as arrays; `targets` is None where they lie beside it."""
    inputs, problems = {}, []
    for name, value in named.items():
        if name in (targets or ()) or not columns.takes(name, beside=targets is None):
            continue
        what = f"column {name!r}"
        problem = no_numbers(what, value)
        if problem is None:
            inputs[name] = to_array(stacked(what, value, rows))
        elif name in columns.inputs:
            raise problem
        else:
            problems.append(problem)
    if problems and not inputs:
        raise problems[0]
    return inputs


def with_targets(inputs: Inputs, target: Any) -> tuple[Inputs, Targets]:
    """Inputs and targets of a batch, the targets as one array or several."""
    first = next(iter(inputs.values() if isinstance(inputs, dict) else inputs), None)
    return inputs, _to_targets(target, None if first is None or first.ndim == 0 else len(first))


def _to_targets(value: Any, items: int | None) -> Targets:
    """One array, or those of several heads.

    They are a dict of arrays, or a tuple or list of arrays with a row per item each.
    """
    if isinstance(value, Mapping):
        if not value:
            raise DataError("has an empty dict as targets.", where="data", hint="Give an array for each of them.")
        return {str(name): to_array(array) for name, array in value.items()}
    if are_heads(value, items):
        return tuple(to_array(array) for array in value)
    return to_array(value)


def are_heads(value: Any, items: int | None) -> bool:
    """True for a tuple or list of arrays with a row for each item: the targets of several heads."""
    # a list with an array for each item is one target, like any list of numbers
    return (
        isinstance(value, tuple | list)
        and len(value) > 0
        and items is not None
        and all(len(getattr(array, "shape", ())) > 0 and len(array) == items for array in value)
    )


def to_array(value: Any) -> Array:
    """A numpy array from an array, a tensor on any device or a list of numbers.

    Raises:
        DataError: when it is none of these.
    """
    try:
        if hasattr(value, "detach"):
            tensor = value.detach().cpu()
            # numpy has no bfloat16
            value = (tensor.float() if str(tensor.dtype) == "torch.bfloat16" else tensor).numpy()
        array = np.asarray(value)
    except (ValueError, TypeError, RuntimeError) as error:
        raise DataError(f"is no array of numbers ({error}).", where="data") from None
    if array.dtype.kind in "US":
        raise DataError("holds texts, not numbers.", where="data", hint="Turn them into numbers, classes from 0 on.")
    if array.dtype.kind not in "fiub":
        raise DataError(f"holds {array.dtype} values, not numbers.", where="data")
    return array


@dataclass(frozen=True, eq=False)
class Split:
    """Items of a source that one purpose uses: training, calibration, validation or the holdout."""

    name: str
    source: Source
    indices: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.indices)

    def batches(self, size: int) -> Iterator[tuple[Inputs, Targets]]:
        """Inputs and targets, `size` items at a time, the last batch smaller; workers read ahead.

        Raises:
            DataError: when a source of the user's raises, or gives what is no batch.
        """
        starts = range(0, len(self.indices), size)
        coming = stream(self.source, (Request(tuple(self.indices[start : start + size].tolist())) for start in starts))
        while True:
            with raised_by_user(f"data ({self.name})", "reading it raised"):
                batch = next(coming, None)
            if batch is None:
                return
            yield batch

    def rows_within(self, most: int) -> int:
        """How many items, at most `most`, are read at once where the size of batches is free; at least one."""
        if len(self) == 0:
            return most
        return max(1, min(most, MOST_BATCH_BYTES // max(1, bytes_of(next(self.first(1).batches(1))))))

    def first(self, count: int) -> Split:
        """The first `count` items in an order fixed by a hash of the index, which breaks any sorting by class."""
        return Split(self.name, self.source, np.sort(self.mixed[:count]))

    def ends(self, count: int) -> Split:
        """The first and the last `count` items in the source's own order."""
        return Split(self.name, self.source, np.union1d(self.indices[:count], self.indices[-count:]))

    @cached_property
    def mixed(self) -> NDArray[np.int64]:
        """The items' indices in an order fixed by a hash of the index."""
        if not len(self.indices):
            return self.indices
        return self.indices[np.argsort(_mixed(int(self.indices.max()) + 1)[self.indices], kind="stable")]

    def without(self, indices: NDArray[np.int64]) -> Split:
        """The items of the split except these."""
        return Split(self.name, self.source, np.setdiff1d(self.indices, indices))

    @property
    def hash(self) -> str:
        """The sha256 over the number of items, their indices and the values of at most 64; 16 hex digits."""
        digest = hashlib.sha256(f"{len(self)}".encode())
        digest.update(self.indices.tobytes())
        for inputs, targets in self.first(64).batches(64):
            for array in inputs.values() if isinstance(inputs, dict) else inputs:
                digest.update(np.ascontiguousarray(array).tobytes())
            for array in arrays_in(targets).values():
                digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()[:16]


def whole(name: str, source: Source) -> Split:
    """A split of all items of a source."""
    return Split(name, source, np.arange(len(source), dtype=np.int64))


def bytes_of(batch: tuple[Inputs, Targets]) -> int:
    """The bytes of a batch's arrays."""
    inputs, targets = batch
    arrays = inputs.values() if isinstance(inputs, dict) else inputs
    return sum(array.nbytes for array in (*arrays, *arrays_in(targets).values()))


@lru_cache(maxsize=4)
def _mixed(n: int) -> NDArray[np.uint64]:
    """A hash of each index below `n`, kept since a million of them take seconds."""
    joined = b"".join(hashlib.blake2b(i.to_bytes(8, "little"), digest_size=8).digest() for i in range(n))
    found = np.frombuffer(joined, dtype="<u8")
    found.flags.writeable = False
    return found


def third(n: int, *, selects: bool) -> NDArray[np.int64]:
    """Indices of the validation third of `n` items, or of the other two thirds."""
    # by the hash of the index alone: an item stays in its split when items are added at the end
    chosen = _mixed(n) % 3 == 0
    return np.flatnonzero(chosen if selects else ~chosen).astype(np.int64)
