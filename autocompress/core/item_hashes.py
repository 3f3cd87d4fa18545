"""Hashes of items by content, taken while the items are read for something else."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from autocompress.core.padded_source import PaddedSource
from autocompress.core.source import Array, Inputs, Source
from autocompress.core.streams import Request, stream
from autocompress.core.targets import Targets, arrays_in
from autocompress.errors import DataError

BYTES = 16


class HashedSource:
    """A source that keeps a hash of each item that is read through it; it is a `Source` itself.

    32 bytes are kept for an item: one hash of its inputs (values, dtypes, shapes and names), one of its target's value.
    """

    def __init__(self, source: Source) -> None:
        self._source = source
        self._known = np.zeros(len(source), dtype=bool)
        self._inputs, self._targets = bytearray(BYTES * len(source)), bytearray(BYTES * len(source))

    def __len__(self) -> int:
        return len(self._source)

    def read(self, indices: Sequence[int]) -> tuple[Inputs, Targets]:
        """See `Source.read`."""
        inputs, targets = self._source.read(indices)
        self._keep(indices, inputs, targets)
        return inputs, targets

    def stream(self, requests: Iterable[Request]) -> Iterator[tuple[Inputs, Targets]]:
        """See `Streamed.stream`."""
        asked: deque[Request] = deque()

        def noted() -> Iterator[Request]:
            for request in requests:
                asked.append(request)
                yield request

        for inputs, targets in stream(self._source, noted()):
            self._keep(asked.popleft().items, inputs, targets)
            yield inputs, targets

    def was_read(self, index: int) -> bool:
        """True when the item's hashes are known."""
        return bool(self._known[index])

    def _keep(self, indices: Sequence[int], inputs: Inputs, targets: Targets) -> None:
        for index, (one, other) in zip(indices, item_hashes(self._source, indices, inputs, targets), strict=True):
            self._inputs[BYTES * index : BYTES * (index + 1)] = one
            self._targets[BYTES * index : BYTES * (index + 1)] = other
            self._known[index] = True

    def inputs_of(self, index: int) -> bytes:
        """The hash of the inputs of an item that was read."""
        return bytes(self._inputs[BYTES * index : BYTES * (index + 1)])

    def target_of(self, index: int) -> bytes:
        """The hash of the target of an item that was read."""
        return bytes(self._targets[BYTES * index : BYTES * (index + 1)])

    def hash_of(self, indices: NDArray[np.int64]) -> str:
        """The sha256 over inputs and targets of these items, in whatever order; 32 hex digits."""
        rows = sorted(self.inputs_of(int(index)) + self.target_of(int(index)) for index in indices)
        return hashlib.sha256(b"".join(rows)).hexdigest()[:32]


def item_hashes(
    source: Source, indices: Sequence[int], inputs: Inputs, targets: Targets
) -> Iterator[tuple[bytes, bytes]]:
    """The hashes of inputs and target of each item of a batch that was read from a source.

    Items of different lengths are read again at their own: how far they are padded depends on the others.
    """
    if not isinstance(source, PaddedSource):
        yield from zip(input_hashes(inputs), target_hashes(targets), strict=True)
        return
    for index in indices:
        own, label = source.alone.read([int(index)])
        yield input_hashes(own)[0], target_hashes(label)[0]


def input_hashes(inputs: Inputs) -> list[bytes]:
    """A hash of each item of a batch of inputs."""
    named = inputs if isinstance(inputs, dict) else {str(place): array for place, array in enumerate(inputs)}
    head = repr([(name, named[name].dtype.str, named[name].shape[1:]) for name in sorted(named)])
    return _hashes(head, [named[name] for name in sorted(named)])


def target_hashes(targets: Targets) -> list[bytes]:
    """A hash of each item's targets in a batch; equal numbers of different dtypes hash alike."""
    values = [np.asarray(array).astype(np.float64) for array in arrays_in(targets).values()]
    # a single array has no name that counts
    names = list(arrays_in(targets)) if len(values) > 1 else []
    return _hashes(repr([*names, *(array.shape[1:] for array in values)]), values)


def _hashes(head: str, arrays: Sequence[Array]) -> list[bytes]:
    counts = {len(array) for array in arrays}
    if len(counts) != 1:
        raise DataError(f"gives arrays of {sorted(counts)} items in one batch.", where="data")
    start = hashlib.blake2b(head.encode(), digest_size=BYTES)
    rows = [np.ascontiguousarray(array) for array in arrays]
    found = []
    for place in range(counts.pop()):
        digest = start.copy()
        for array in rows:
            digest.update(array[place : place + 1].tobytes())
        found.append(digest.digest())
    return found
