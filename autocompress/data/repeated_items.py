"""Finds items that occur more than once, by content: what was trained on must not confirm."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from autocompress.core.data_check import DataCheck, Overlap
from autocompress.core.data_sources import equal_batches
from autocompress.core.item_hashes import HashedSource, item_hashes
from autocompress.core.source import ArraySource, Inputs, Source, Split, bytes_of, whole
from autocompress.core.targets import Targets, arrays_in, rows_in
from autocompress.core.task import Task
from autocompress.data.kept_items import unkept
from autocompress.errors import DataError
from autocompress.system.randomness import reseeded

# items that are read twice to see whether a source gives the same ones again
READ_TWICE = 32
# seconds that training items are read for, and items in a batch of them
TRAIN_SECONDS = 6.0
BATCH = 256
# seconds that the items of each of test and val are read for beyond those that have to be read
JUDGED_SECONDS = 3.0
# items set aside that the ledger's hash is over at most, where they do not lie in memory
IDENTIFYING = 512
# arrays up to this size count as in memory; larger ones are files that are mapped into it
IN_MEMORY_BYTES = 1_000_000_000

# what is done with the items of a batch, by their numbers
Check = Callable[[Sequence[int], Inputs, Targets], None]


def require_stable(source: Source, where: str) -> None:
    """Read a few items twice.

    Raises:
        DataError: when an item is another one the second time: it would be judged by chance.
    """
    changed = _changed(unkept(source))
    if changed:
        raise DataError(
            f"{changed} each time it is read.",
            where=where,
            hint="Give items without random transforms here; for training there is Task(augment=...).",
        )


def _changed(source: Source) -> str:
    """What differs when a few items are read again, as "item 5 is another one"; empty for nothing."""
    indices = [int(index) for index in whole("all", source).first(READ_TWICE).indices]
    first = source.read(indices)
    with reseeded():
        second = source.read(indices)
    if equal_batches(first, second):
        return ""
    before, after = _named(*first), _named(*second)
    for name, array in before.items():
        other = after.get(name)
        for place, index in enumerate(indices):
            if other is None or other.dtype != array.dtype or _bytes(array, place) != _bytes(other, place):
                return f"item {index} is another one ({name} differs)"
    return "a batch of items has other inputs"


def hashed(task: Task) -> dict[str, HashedSource]:
    """The test and validation sources of a task by field, which hash the items that are read through them."""
    given = {"test": task.test, "val": task.val}
    return {field: HashedSource(source) for field, source in given.items() if source is not None}


@dataclass(frozen=True, eq=False)
class ReadingOrder:
    """The items of `test` or `val` in the order in which they are read when a run opens.

    The first `required` are always read, the others until the `deadline`.
    """

    split: Split
    required: int
    deadline: float

    def is_over(self, read: int) -> bool:
        """True when no more than the `read` items have to be read, and the time is over."""
        return read >= self.required and time.monotonic() >= self.deadline


def judged_seconds(seconds: float) -> float:
    """How long test and validation items are read for where training items get so many seconds."""
    return min(JUDGED_SECONDS, seconds / 2)


def reading_order(task: Task, field: str, source: Source, seconds: float) -> ReadingOrder:
    """The order of the items of a field; see `ReadingOrder`.

    All are required where they lie in memory or are few. Else those that identify the holdout come first, and the
    others follow in an order fixed by a hash of the index.
    """
    every = whole(field, source)
    deadline = time.monotonic() + seconds
    if _in_memory(getattr(task, field)) or len(every) <= IDENTIFYING:
        return ReadingOrder(every, len(every), deadline)
    identifying = _identifying(task)
    first = identifying.indices if field == "test" and identifying is not None else np.zeros(0, dtype=np.int64)
    order = np.concatenate([first, every.without(first).mixed])
    return ReadingOrder(replace(every, indices=order), len(first), deadline)


def _in_memory(source: Source) -> bool:
    return isinstance(source, ArraySource) and bytes_of((source.inputs, source.targets)) <= IN_MEMORY_BYTES


def _identifying(task: Task) -> Split | None:
    """The items set aside that the ledger's hash is over: all, or a sample by a hash of the index."""
    aside = task.set_aside
    return aside if aside is None or _in_memory(task.test) else aside.first(IDENTIFYING)


def _holdout_hash(task: Task, test: HashedSource) -> str:
    aside, identifying = task.set_aside, _identifying(task)
    assert aside is not None
    assert identifying is not None
    content = test.hash_of(identifying.indices)
    if len(identifying) == len(aside):
        return content
    digest = hashlib.sha256(f"{len(aside)} items by {len(identifying)}: {content}".encode())
    digest.update(aside.indices.tobytes())
    return digest.hexdigest()[:32]


def examine(task: Task, seconds: float = TRAIN_SECONDS) -> DataCheck:
    """Read test and validation items as when a run opens, and look for repeated ones; see `find_repeats`.

    Raises:
        DataError: when test or validation items are others each time they are read.
    """
    sources = hashed(task)
    for field, source in sources.items():
        require_stable(getattr(task, field), f"{task.name}: {field}")
        order, read = reading_order(task, field, source, judged_seconds(seconds)), 0
        for _, targets in order.split.batches(order.split.rows_within(BATCH)):
            read += rows_in(targets)
            if order.is_over(read):
                break
    return find_repeats(task, sources, seconds)


def find_repeats(
    task: Task, sources: dict[str, HashedSource], seconds: float = TRAIN_SECONDS, check: Check = lambda *read: None
) -> DataCheck:
    """Find items with equal inputs in holdout, validation and training data.

    `check` gets the numbers, inputs and targets of the training items that are read.

    `sources` are those of `hashed`; items that were read through them are compared. Training items are read here, in an
    order fixed by a hash of the index, for about `seconds`: a large dataset of files would take hours.
    """
    holdout, validation = task.set_aside, task.validation
    if holdout is None:
        return DataCheck()
    selects = "val" if "val" in sources else "test"
    test, chosen = sources["test"], sources[selects]
    every = validation.indices.tolist() if validation is not None else []
    selecting = list(filter(chosen.was_read, every))
    aside = list(filter(test.was_read, holdout.indices.tolist()))
    earlier, confirming = _first(chosen, selecting), _first(test, aside)
    trained, read, stable = _trained(task.train, {*earlier, *confirming}, seconds, check)

    def overlap(split: str, field: str, also_in: str, other_field: str, found: Iterable[_Found]) -> Overlap | None:
        pairs = [(index, other, differs) for index, other, differs in found]
        named = tuple((index, other) for index, other, _ in pairs)
        conflicts = sum(differs for _, _, differs in pairs)
        return Overlap(split, field, also_in, other_field, named, conflicts) if pairs else None

    seen: set[int] = set()
    overlaps = []
    for also_in, other_field, known in (
        ("train", "train", trained),
        ("validation", selects, earlier),
        ("holdout", "test", confirming),
    ):
        found = list(_equal(test, (i for i in aside if i not in seen), known))
        if also_in == "holdout":
            # the first of several copies stays
            found = [one for one in found if one[0] != one[1]]
        seen.update(index for index, _, _ in found)
        overlaps.append(overlap("holdout", "test", also_in, other_field, found))
    overlaps.append(overlap("validation", selects, "train", "train", _equal(chosen, selecting, trained)))
    return DataCheck(
        _holdout_hash(task, test),
        len(holdout),
        len(every),
        tuple(one for one in overlaps if one is not None),
        0 if task.train is None else len(task.train),
        read,
        stable,
        len(aside),
        len(selecting),
    )


# an item, the item equal to it, and whether their targets differ
_Found = tuple[int, int, bool]
# by the hash of the inputs: the first item with them, and the hash of its target
_Known = dict[bytes, tuple[int, bytes]]


def _first(source: HashedSource, indices: Iterable[int]) -> _Known:
    known: _Known = {}
    for index in indices:
        known.setdefault(source.inputs_of(index), (index, source.target_of(index)))
    return known


def _equal(source: HashedSource, indices: Iterable[int], known: _Known) -> Iterator[_Found]:
    for index in indices:
        other = known.get(source.inputs_of(index))
        if other is not None:
            yield index, other[0], other[1] != source.target_of(index)


def _trained(train: Source | None, wanted: set[bytes], seconds: float, check: Check) -> tuple[_Known, int, bool]:
    """The training items among the `wanted` hashes, the number of items read, and whether they are stable."""
    known: _Known = {}
    if train is None:
        return known, 0, True
    # a comparison of thousands of items is no reason to keep them
    train = unkept(train)
    if _changed(train):
        return known, 0, False
    every = whole("train", train)
    size, deadline, read = every.rows_within(BATCH), time.monotonic() + seconds, 0
    order = replace(every, indices=every.mixed)
    for inputs, targets in order.batches(size):
        indices = order.indices[read : read + size].tolist()
        check(indices, inputs, targets)
        for index, (one, target) in zip(indices, item_hashes(train, indices, inputs, targets), strict=True):
            if one in wanted and index < known.get(one, (len(train), b""))[0]:
                known[one] = (index, target)
        read += len(indices)
        if time.monotonic() >= deadline:
            break
    return known, read, True


def _named(inputs: Any, targets: Any) -> dict[str, Any]:
    parts = inputs if isinstance(inputs, dict) else {f"input {place}": array for place, array in enumerate(inputs)}
    given = arrays_in(targets)
    return {**parts, **{f"target {name}" if len(given) > 1 else "target": array for name, array in given.items()}}


def _bytes(array: Any, place: int) -> bytes:
    return bytes(array[place : place + 1].tobytes())
