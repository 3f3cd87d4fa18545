"""Streams of batches: sources that read ahead, and those that are read batch by batch."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from autocompress.system.randomness import seeded


@dataclass(frozen=True)
class Request:
    """Items that are read as one batch.

    In view 0 an item is always the same. In any other one the random transforms of a dataset draw by the view and the
    item's index.
    """

    items: tuple[int, ...]
    view: int = 0


@runtime_checkable
class Streamed(Protocol):
    """A source that reads a sequence of batches better than one by one, or has views."""

    def stream(self, requests: Iterable[Request]) -> Iterator[Any]:
        """The batch of each request as `Source.read` gives it; requests may be endless."""
        ...


def stream(source: Any, requests: Iterable[Request]) -> Iterator[Any]:
    """The batches of a source in the order of the requests, which may be endless.

    A source that cannot stream is read batch by batch; what it draws at random is seeded by the first item and the
    view.
    """
    if isinstance(source, Streamed):
        yield from source.stream(requests)
        return
    for request in requests:
        with seeded(seed_of(request.items[0], request.view)):
            batch = source.read(request.items)
        yield batch


def seed_of(item: int, view: int) -> int:
    """The seed of what an item's transforms draw: the item's index in view 0, else by both."""
    if view == 0:
        return int(item)
    digest = hashlib.blake2b(f"{view} {item}".encode(), digest_size=8).digest()
    # room for the shift that `reseeded` adds
    return int.from_bytes(digest, "little") >> 2


@dataclass(frozen=True, eq=False)
class PartSource:
    """Some items of a source as a source of their own; it is a `Source` itself."""

    source: Any
    indices: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.indices)

    def read(self, indices: Sequence[int]) -> Any:
        """See `Source.read`."""
        return self.source.read([int(self.indices[index]) for index in indices])

    def stream(self, requests: Iterable[Request]) -> Iterator[Any]:
        """See `Streamed.stream`."""
        return stream(
            self.source,
            (Request(tuple(int(self.indices[index]) for index in one.items), one.view) for one in requests),
        )
