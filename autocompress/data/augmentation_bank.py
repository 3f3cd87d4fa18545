"""A seeded bank of augmented views, whose batches are read when they are needed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import count
from typing import Any

import numpy as np
import torch

from autocompress.core.runtime import Example
from autocompress.core.source import Array, Split
from autocompress.core.streams import Request, stream
from autocompress.core.targets import mapped
from autocompress.core.task import Augment
from autocompress.core.user_code import raised_by_user
from autocompress.data.augment_call import augmented
from autocompress.data.example_inputs import in_dtype_of
from autocompress.errors import DataError
from autocompress.system.randomness import seeded

# batches that are read one by one before it is worth starting to read ahead
LEAST_IN_ORDER = 2


@dataclass(frozen=True, eq=False)
class Batch:
    """One batch of a view. `key` is equal whenever the same items come with the same augmentation."""

    key: int
    inputs: dict[str, torch.Tensor]
    targets: torch.Tensor | tuple[torch.Tensor, ...] | dict[str, torch.Tensor]


@dataclass(frozen=True)
class _Place:
    """A batch's place in the bank: its view and its number in it."""

    view: int
    number: int


class AugmentationBank:
    """Augmented batches of a split: equal seed and step give the same batch, also in a resumed run.

    An epoch shows one of `views` views of all items: a view fixes which items meet in a batch, how they are augmented
    and, with `draws`, what the random transforms of the dataset itself draw, so that a teacher's outputs can be cached.
    Later epochs show the views again, their batches in another order. 0 views means a fresh one for every epoch. Only
    the batches at hand are in memory; steps that are asked for in order are read ahead.
    """

    def __init__(
        self, split: Split, example: Example, *, batch: int, seed: int, views: int = 0, draws: bool = False
    ) -> None:
        self._split, self._example, self._items = split, example, len(split)
        self._seed, self._views, self._draws = seed, views, draws
        self._batch = min(batch, self._items)
        self.per_epoch = max(1, self._items // self._batch)
        self._order = lru_cache(maxsize=2)(self._drawn_order)
        self._ahead: Iterator[Any] | None = None
        self._next, self._in_order = 0, 0
        self._shapes: dict[str, tuple[int, ...]] = {}

    def at(self, step: int, augment: Augment | None = None) -> Batch:
        """The batch of one step, with tensors by input name; augmented.

        Raises:
            DataError: when `augment` raises or gives no batch of as many items, or items cannot be read.
        """
        place = self._place(step)
        request = self._request(place)
        inputs, targets = self._read(step, request)
        arrays = Example(inputs).arrays
        self._require_one_shape(arrays, request)
        tensors = {name: _tensor(in_dtype_of(self._example, name, array)) for name, array in arrays.items()}
        labels: Any = mapped(_tensor, targets)
        key = place.view * self.per_epoch + place.number
        if augment is not None:
            # augmentation draws from the global generators, which are restored afterwards
            with seeded(self._seed * 1_000_003 + key):
                tensors, labels = augmented(augment, tensors, labels, by_name=self._example.by_name)
        return Batch(key, tensors, labels)

    def close(self) -> None:
        """End reading ahead, and the workers that do it."""
        self._ahead = None

    def _read(self, step: int, request: Request) -> Any:
        if step != self._next:
            self._ahead, self._in_order = None, 0
        elif self._ahead is None:
            self._in_order += 1
        if self._ahead is None and self._in_order >= LEAST_IN_ORDER:
            self._ahead = stream(self._split.source, (self._request(self._place(later)) for later in count(step)))
        self._next = step + 1
        with raised_by_user(f"data ({self._split.name})", "reading it raised"):
            return next(self._ahead or stream(self._split.source, [request]))

    def _place(self, step: int) -> _Place:
        epoch, number = divmod(step, self.per_epoch)
        view = epoch % self._views if self._views else epoch
        if view != epoch:
            number = int(self._order(self.per_epoch, 7_368_787 + epoch)[number])
        return _Place(view, number)

    def _request(self, place: _Place) -> Request:
        chosen = self._order(self._items, place.view)[place.number * self._batch : (place.number + 1) * self._batch]
        items = tuple(self._split.indices[chosen.numpy()].tolist())
        # view 0 of a source is the one that judges
        return Request(items, 1 + self._seed * 1_000_003 + place.view if self._draws else 0)

    def _drawn_order(self, n: int, number: int) -> torch.Tensor:
        generator = torch.Generator().manual_seed(self._seed * 1_000_003 + number)
        return torch.randperm(n, generator=generator)

    def _require_one_shape(self, arrays: dict[str, Array], request: Request) -> None:
        for name, array in arrays.items():
            known = self._shapes.setdefault(name, array.shape[1:])
            if array.shape[1:] != known:
                raise DataError(
                    f"items have shape {known}, and item {request.items[0]} has {array.shape[1:]}.",
                    where=f"data: {name}",
                    hint="Pad them to one shape.",
                )


def _tensor(array: Array) -> torch.Tensor:
    # a copy: augmentation may work in place, and a source of the user's may give its own arrays
    return torch.from_numpy(np.array(array))
