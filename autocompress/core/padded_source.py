"""Sources of items of different lengths: padded to the longest in a batch, or read at their own."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice

import numpy as np

from autocompress.core.columns import PAD
from autocompress.core.source import Array, ArraySource, DatasetSource, Inputs, Source, Split, whole
from autocompress.core.streams import Request, stream
from autocompress.core.targets import Targets, arrays_in, like, rows_in
from autocompress.errors import DataError

# items that are read alone to see whether lengths differ
LOOKED_AT = 64
# what tells that zeros at the end of a row are hidden from the model
MASK = "attention_mask"
# a label that counts for nothing
NO_LABEL = -100

# the shapes of an item's arrays, inputs first
Shapes = tuple[tuple[int, ...], ...]


@dataclass(frozen=True, eq=False)
class PaddedSource:
    """A source that gives every batch the length of its longest items, whichever items meet in the batch.

    So all batches have one shape, and what a model says of an item does not depend on the items beside it. A collate
    function of the user's pads: the longest items are given to it beside those that are read, and taken out again.
    Without one, inputs are padded with 0 and whole-number targets of as many entries with -100, where an attention mask
    hides what is padded.
    """

    alone: Source
    pads_itself: bool

    def __len__(self) -> int:
        return len(self.alone)

    def read(self, indices: Sequence[int]) -> tuple[Inputs, Targets]:
        """See `Source.read`."""
        if not self.pads_itself:
            rows = len(indices)
            return _first_rows(self.alone.read([*indices, *self.longest]), rows)
        return _padded([self.alone.read([int(index)]) for index in indices], self.widest)

    def stream(self, requests: Iterable[Request]) -> Iterator[tuple[Inputs, Targets]]:
        """See `Streamed.stream`."""
        asked: deque[int] = deque()

        def read() -> Iterator[Request]:
            for request in requests:
                asked.append(len(request.items))
                if self.pads_itself:
                    yield from (Request((item,), request.view) for item in request.items)
                else:
                    yield Request((*request.items, *self.longest), request.view)

        coming = stream(self.alone, read())
        for batch in coming:
            rows = asked.popleft()
            if self.pads_itself:
                yield _padded([batch, *islice(coming, rows - 1)], self.widest)
            else:
                yield _first_rows(batch, rows)

    @cached_property
    def shapes(self) -> list[Shapes]:
        """The shapes of each item, which is read alone for it."""
        return [_shapes(self.alone.read([index])) for index in range(len(self.alone))]

    @cached_property
    def longest(self) -> tuple[int, ...]:
        """Items that have the largest size of any array in each axis, as few as that takes."""
        sizes = np.array([[size for shape in shapes for size in shape] for shapes in self.shapes])
        return tuple(dict.fromkeys(int(place) for place in sizes.argmax(axis=0)))

    @cached_property
    def widest(self) -> Shapes:
        """The largest size of each array in each axis."""
        return tuple(tuple(map(max, zip(*ones, strict=True))) for ones in zip(*self.shapes, strict=True))

    def by_shape(self, split: Split) -> Iterator[Split]:
        """The split's items in parts of one shape, at their own length."""
        groups: dict[Shapes, list[int]] = {}
        for index in split.indices:
            groups.setdefault(self.shapes[int(index)], []).append(int(index))
        for indices in groups.values():
            yield Split(split.name, self.alone, np.array(indices, dtype=np.int64))

    def sizes(self) -> dict[tuple[str | int, int], tuple[int, ...]]:
        """The sizes of each input axis in which items differ, by the input's name or place, ascending."""
        inputs, _ = self.alone.read([0])
        keys: list[str | int] = list(inputs) if isinstance(inputs, dict) else list(range(len(inputs)))
        found: dict[tuple[str | int, int], tuple[int, ...]] = {}
        for key, ones in zip(keys, zip(*self.shapes, strict=True), strict=False):
            for axis, sizes in enumerate(zip(*ones, strict=True)):
                if len(set(sizes)) > 1:
                    found[key, axis + 1] = tuple(sorted(set(sizes)))
        return found


def padded(source: Source) -> Source:
    """The source, padded where its items have different lengths and something says how to pad.

    A source without a collate function whose items have no attention mask stays as it is: reading a batch raises then.
    """
    if isinstance(source, ArraySource | PaddedSource):
        return source
    few = [source.read([int(index)]) for index in whole("all", source).first(LOOKED_AT).indices]
    if len({_shapes(batch) for batch in few}) == 1:
        return source
    if len({tuple(map(len, _shapes(batch))) for batch in few}) > 1:
        return source
    pads_itself = isinstance(source, DatasetSource) and source.collate is None
    inputs, targets = few[0]
    if pads_itself and not (isinstance(inputs, Mapping) and _are_masked(few) and _may_pad(targets, few)):
        return source
    return PaddedSource(source, pads_itself)


def by_shape(split: Split) -> Iterator[Split]:
    """Parts of a split whose items have one shape: the split itself, where its source does not pad."""
    if isinstance(split.source, PaddedSource):
        yield from split.source.by_shape(split)
    else:
        yield split


def _are_masked(few: Sequence[tuple[Inputs, Targets]]) -> bool:
    """True where every input that differs in length is as long as its attention mask."""
    named = [dict(inputs) for inputs, _ in few if isinstance(inputs, dict) and MASK in inputs]
    varying = [name for name in named[0] if len({one[name].shape for one in named}) > 1] if named else []
    return len(named) == len(few) and all(
        one[name].shape[1:2] == one[MASK].shape[1:2] for one in named for name in varying
    )


def _may_pad(targets: Targets, few: Sequence[tuple[Inputs, Targets]]) -> bool:
    """True where targets have one shape, or are whole numbers."""
    shapes = {tuple(array.shape for array in arrays_in(one).values()) for _, one in few}
    return len(shapes) == 1 or all(array.dtype.kind in "iu" for array in arrays_in(targets).values())


def _arrays(batch: tuple[Inputs, Targets]) -> list[Array]:
    inputs, targets = batch
    return [*(inputs.values() if isinstance(inputs, dict) else inputs), *arrays_in(targets).values()]


def _shapes(batch: tuple[Inputs, Targets]) -> Shapes:
    return tuple(array.shape[1:] for array in _arrays(batch))


def _first_rows(batch: tuple[Inputs, Targets], rows: int) -> tuple[Inputs, Targets]:
    inputs, targets = batch
    if rows_in(targets) < rows:
        raise DataError("the collate function returns fewer rows than items.", where="data", hint=PAD)
    kept = like(targets, {name: array[:rows] for name, array in arrays_in(targets).items()})
    if isinstance(inputs, dict):
        return {name: array[:rows] for name, array in inputs.items()}, kept
    return tuple(array[:rows] for array in inputs), kept


def _padded(items: Sequence[tuple[Inputs, Targets]], widest: Shapes) -> tuple[Inputs, Targets]:
    inputs, targets = items[0]
    names = list(inputs) if isinstance(inputs, dict) else []
    columns = list(zip(*map(_arrays, items), strict=True))
    filled = [
        np.concatenate([_grown(array, shape, 0 if place < len(names) else NO_LABEL) for array in ones])
        for place, (ones, shape) in enumerate(zip(columns, widest, strict=True))
    ]
    labels = dict(zip(arrays_in(targets), filled[len(names) :], strict=True))
    return dict(zip(names, filled, strict=False)), like(targets, labels)


def _grown(array: Array, shape: tuple[int, ...], value: int) -> Array:
    """A batch of one, grown at the ends of its axes."""
    ends = [(0, 0), *((0, wanted - size) for size, wanted in zip(array.shape[1:], shape, strict=True))]
    return np.pad(array, ends, constant_values=value) if any(end for _, end in ends) else array
