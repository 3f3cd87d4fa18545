"""Finds items that occur more than once, by content: what was trained on must not confirm."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from autocompress.core.data_check import DataCheck, Overlap
from autocompress.core.data_sources import equal_batches
from autocompress.core.item_hashes import HashedSource, item_hashes
from autocompress.core.source import Source, whole
from autocompress.core.targets import arrays_in
from autocompress.core.task import Task
from autocompress.errors import DataError
from autocompress.system.randomness import reseeded

# items that are read twice to see whether a source gives the same ones again
READ_TWICE = 32
# seconds that training items are read for, and items in a batch of them
TRAIN_SECONDS = 10.0
BATCH = 256


def require_stable(source: Source, where: str) -> None:
    """Read a few items twice.

    Raises:
        DataError: when an item is another one the second time: it would be judged by chance.
    """
    changed = _changed(source)
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


def examine(task: Task, seconds: float = TRAIN_SECONDS) -> DataCheck:
    """Read all test and validation items and look for repeated ones; see `find_repeats`.

    Raises:
        DataError: when test or validation items are others each time they are read.
    """
    sources = hashed(task)
    for field, source in sources.items():
        require_stable(source, f"{task.name}: {field}")
        for _ in whole(field, source).batches(BATCH):
            pass
    return find_repeats(task, sources, seconds)


def find_repeats(task: Task, sources: dict[str, HashedSource], seconds: float = TRAIN_SECONDS) -> DataCheck:
    """Find items with equal inputs in holdout, validation and training data.

    `sources` are those of `hashed`, read to the end. Training items are read here, in an order fixed by a hash of the
    index, for about `seconds`: a large dataset of files would take hours.
    """
    holdout, validation = task.set_aside, task.validation
    if holdout is None:
        return DataCheck()
    selects = "val" if "val" in sources else "test"
    test, chosen = sources["test"], sources[selects]
    selecting = validation.indices.tolist() if validation is not None else []
    earlier = _first(chosen, selecting)
    confirming = _first(test, holdout.indices.tolist())
    trained, read, stable = _trained(task.train, {*earlier, *confirming}, seconds)

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
        found = list(_equal(test, (i for i in holdout.indices.tolist() if i not in seen), known))
        if also_in == "holdout":
            # the first of several copies stays
            found = [one for one in found if one[0] != one[1]]
        seen.update(index for index, _, _ in found)
        overlaps.append(overlap("holdout", "test", also_in, other_field, found))
    overlaps.append(overlap("validation", selects, "train", "train", _equal(chosen, selecting, trained)))
    return DataCheck(
        test.hash_of(holdout.indices),
        len(holdout),
        len(selecting),
        tuple(one for one in overlaps if one is not None),
        0 if task.train is None else len(task.train),
        read,
        stable,
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


def _trained(train: Source | None, wanted: set[bytes], seconds: float) -> tuple[_Known, int, bool]:
    """The training items among the `wanted` hashes, the number of items read, and whether they are stable."""
    known: _Known = {}
    if train is None:
        return known, 0, True
    if _changed(train):
        return known, 0, False
    deadline, order, read = time.monotonic() + seconds, whole("train", train).mixed, 0
    while read < len(order) and (read == 0 or time.monotonic() < deadline):
        indices = [int(index) for index in np.sort(order[read : read + BATCH])]
        inputs, targets = train.read(indices)
        for index, (one, target) in zip(indices, item_hashes(train, indices, inputs, targets), strict=True):
            if one in wanted and index < known.get(one, (len(order), b""))[0]:
                known[one] = (index, target)
        read += len(indices)
    return known, read, True


def _named(inputs: Any, targets: Any) -> dict[str, Any]:
    parts = inputs if isinstance(inputs, dict) else {f"input {place}": array for place, array in enumerate(inputs)}
    given = arrays_in(targets)
    return {**parts, **{f"target {name}" if len(given) > 1 else "target": array for name, array in given.items()}}


def _bytes(array: Any, place: int) -> bytes:
    return bytes(array[place : place + 1].tobytes())
