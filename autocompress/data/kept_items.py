"""Items that were read are kept on disk while the process runs: no candidate decodes them again."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autocompress.core.padded_source import PaddedSource
from autocompress.core.source import ArraySource, Inputs, Source
from autocompress.core.streams import Request, stream
from autocompress.core.targets import Targets, arrays_in, like
from autocompress.core.task import Task
from autocompress.system.row_file import RowFile, free_bytes

# bytes kept at most by a task's sources together, and the share of the free disk that they may take
MOST_BYTES = 20_000_000_000
SHARE_OF_FREE_DISK = 0.25
# batches from disk that are looked for ahead of the next one that has to be read
MOST_IN_A_ROW = 4
Batch = tuple[Inputs, Targets]


@dataclass
class Room:
    """The bytes that are left for keeping items."""

    left: int

    @staticmethod
    def on_disk() -> Room:
        """What may be kept: at most 20 GB and a quarter of the free disk."""
        return Room(min(MOST_BYTES, int(SHARE_OF_FREE_DISK * free_bytes())))


class KeptSource:
    """A source whose items are read from another one once, and after that from disk.

    They are kept in the types that the source gives. Where there is no room left, and where items differ in shape from
    the first ones, they are read again each time. Views other than the fixed one are passed through.
    """

    def __init__(self, source: Source, room: Room) -> None:
        self.source, self._room = source, room
        self._slots: dict[int, int] = {}
        self._file: RowFile | None = None
        # how the arrays of a batch lie in a row
        self._form: Batch | None = None

    def __len__(self) -> int:
        return len(self.source)

    def read(self, indices: Sequence[int]) -> Batch:
        """See `Source.read`."""
        batch: Batch = next(self.stream([Request(tuple(indices))]))
        return batch

    def stream(self, requests: Iterable[Request]) -> Iterator[Batch]:
        """See `Streamed.stream`."""
        coming, ended = iter(requests), False
        while not ended:
            asked: deque[tuple[Request, bool]] = deque()

            def to_read(asked: deque[tuple[Request, bool]] = asked) -> Iterator[Request]:
                nonlocal ended
                in_a_row = 0
                for request in coming:
                    known = request.view == 0 and all(item in self._slots for item in request.items)
                    asked.append((request, known))
                    if not known:
                        in_a_row = 0
                        yield request
                        continue
                    in_a_row += 1
                    # requests may be endless
                    if in_a_row == MOST_IN_A_ROW:
                        return
                ended = True

            for batch in stream(self.source, to_read()):
                while asked[0][1]:
                    yield self._kept(asked.popleft()[0])
                request, _ = asked.popleft()
                if request.view == 0:
                    self._keep(request.items, batch)
                yield batch
            for request, _ in asked:
                yield self._kept(request)

    def _kept(self, request: Request) -> Batch:
        assert self._file is not None
        assert self._form is not None
        rows = self._file.read([self._slots[item] for item in request.items])
        arrays = {name: np.ascontiguousarray(rows[name]) for name in rows.dtype.names or ()}
        inputs, targets = self._form
        given = {name: arrays[f"i{name}"] for name in _named(inputs)}
        new: Inputs = given if isinstance(inputs, dict) else tuple(given.values())
        return new, like(targets, {name: arrays[f"t{name}"] for name in arrays_in(targets)})

    def _keep(self, items: Sequence[int], batch: Batch) -> None:
        rows = _as_rows(batch, len(items))
        if rows is None or (self._file is not None and rows.dtype != self._file.dtype):
            return
        places: dict[int, int] = {}
        for place, item in enumerate(items):
            if item not in self._slots and item not in places:
                places[item] = place
        size = rows.dtype.itemsize
        new = dict(list(places.items())[: self._room.left // max(1, size)])
        if not new:
            return
        try:
            if self._file is None:
                self._file, self._form = RowFile(rows.dtype), _without_rows(batch)
            slots = self._file.append(rows[list(new.values())])
        except OSError:
            # a full disk: what is not kept is read again
            self._room.left = 0
            return
        self._room.left -= size * len(new)
        self._slots.update(zip(new, slots, strict=True))


def unkept(source: Source) -> Source:
    """The source itself, which reads its items anew each time."""
    return source.source if isinstance(source, KeptSource) else source


def with_kept_items(task: Task | None) -> Task | None:
    """The task whose items are read once; those in memory are left there.

    Items of different lengths are read again each time: how far they are padded depends on what is asked for.
    """
    if task is None:
        return None
    room = Room.on_disk()
    sources = {field: getattr(task, field) for field in ("test", "val", "train")}
    kept: dict[str, Any] = {
        field: KeptSource(source, room)
        for field, source in sources.items()
        if source is not None and not isinstance(source, ArraySource | PaddedSource | KeptSource)
    }
    return replace(task, **kept)


def _named(inputs: Inputs) -> dict[str, NDArray[Any]]:
    return inputs if isinstance(inputs, dict) else {str(place): array for place, array in enumerate(inputs)}


def _as_rows(batch: Batch, count: int) -> NDArray[Any] | None:
    """The batch with a row per item; None where an array has no row for each."""
    inputs, targets = batch
    arrays = {f"i{name}": array for name, array in _named(inputs).items()}
    arrays |= {f"t{name}": array for name, array in arrays_in(targets).items()}
    if any(array.ndim == 0 or len(array) != count for array in arrays.values()):
        return None
    rows = np.empty(count, dtype=[(name, array.dtype, array.shape[1:]) for name, array in arrays.items()])
    for name, array in arrays.items():
        rows[name] = array
    return rows


def _without_rows(batch: Batch) -> Batch:
    """The form of a batch, without its values."""
    inputs, targets = batch
    empty = {name: array[:0].copy() for name, array in _named(inputs).items()}
    form = like(targets, {name: array[:0].copy() for name, array in arrays_in(targets).items()})
    return (empty if isinstance(inputs, dict) else tuple(empty.values())), form
